"""A fork of a process that has imported something is like a new interpreter."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from director_db.testing import Place, start_python
from director_db_conformance import warm
from director_db_conformance.transcript import RecordedPlace

pytestmark = pytest.mark.skipif(not warm.IS_POSSIBLE, reason="only Linux forks them")

ENVIRONMENT = {**os.environ, "COLOUR": "blue", "TZ": "Asia/Tokyo"}


def started(code, *args, how=warm.python):
    return how(code, args, ENVIRONMENT)


PROGRAMS = {
    "annotations": "def f(x: Undefined): pass",
    "what it was told at its start": "import time; print(time.timezone, time.tzname)",
    "buffering": "import sys; print(sys.stdout.line_buffering, sys.stderr.line_buffering)",
    "flags": "import sys; print(sys.flags)",
    "what it is given": """
import os, sys
print(sys.argv, sys.orig_argv[1:], __name__, [n for n in globals() if n[0] != "_"])
print(sys.path[0] == "", os.getcwd())
print(os.environ == dict(os.environ), os.environ["COLOUR"], sys.stdin.read(), sys.flags.isolated)
""",
    "what is open": "import os; print(sorted(os.listdir('/proc/self/fd'))[:-1])",
    "signals": """
import signal
print([signal.getsignal(each) for each in (signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE)])
""",
    "an error": "def f(): raise ValueError('x')\nf()",
    "a status": "import sys; sys.exit(3)",
    "a message": "import sys; sys.exit('no')",
    "no end of the interpreter": "import os; print('lost'); os._exit(4)",
    "the end of the interpreter": """
import atexit, threading, time
atexit.register(print, "at the end")
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread"))).start()
""",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "an interrupt": "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    "what has not ended": "import os; os.fork() or os._exit(0); print('a parent')",
}


@pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS)
def test_it_does_what_a_new_interpreter_does(code):
    def told(process):
        output, errors = process.communicate("some\ntext", timeout=120)
        # The code has no file, and stands one call further from the top.
        lines = [line for line in errors.splitlines() if "<string>" not in line]
        return output, lines[-1:], process.returncode, process.args[1:]

    expected = told(started(code, "a", "b", how=start_python))
    assert expected == told(started(code, "a", "b"))


def test_it_is_waited_for_and_killed_as_any_other():
    process = started("import sys\nfor line in sys.stdin: print(line, end='', flush=True)")
    for line in ("one\n", "two\n"):
        process.stdin.write(line)
        process.stdin.flush()
        assert line == process.stdout.readline()
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0)
    assert ("", "") == process.communicate(timeout=120)
    assert 0 == process.poll() == process.wait()

    process = started("import time; time.sleep(600)")
    process.kill()
    assert -signal.SIGKILL == process.wait(120)
    process.kill()
    assert ("", "") == process.communicate()


def test_one_begins_while_others_run():
    several = [started("import sys; print(sys.stdin.readline(), end='')") for _ in range(5)]
    for number, process in reversed([*enumerate(several)]):
        assert (f"{number}\n", "") == process.communicate(f"{number}\n", timeout=120)


def test_what_was_imported_is_there_and_nothing_of_the_suite():
    code = "import sys; print('director_db_sqlite' in sys.modules, 'pytest' in sys.modules)"
    import director_db_sqlite  # noqa: F401, PLC0415 - so that it is

    assert ("True False\n", "") == started(code).communicate(timeout=120)


def test_two_in_a_row_hash_texts_each_in_its_own_way():
    code = "print(hash('s1'), [hash(str(number)) for number in range(9)])"
    told = [started(code).communicate(timeout=120)[0] for _ in range(4)]
    assert all(one != other for one, other in itertools.pairwise(told))


def test_who_waits_for_it_keeps_nobody_from_ending_it():
    process = started("import time; time.sleep(600)")
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(process.wait, 120) for _ in range(3)]
        with pytest.raises(TimeoutError):
            waiting[0].result(0.2)
        process.terminate()
        assert 3 * [-signal.SIGTERM] == [each.result(60) for each in waiting]
    process.communicate()


def test_an_interrupt_of_whoever_asks_puts_no_other_out_of_step(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    process = warm.Warm(ENVIRONMENT, [])
    with monkeypatch.context() as patches:
        patches.setattr(warm.socket, "recv_fds", interrupted)
        with pytest.raises(KeyboardInterrupt):
            process.python("print(1)", [], ENVIRONMENT)
    assert process.python("print(2)", [], ENVIRONMENT) is None


def test_one_whose_parent_was_killed_ends():
    process = warm.Warm(ENVIRONMENT, [])
    forked = process.python("import time; time.sleep(600)", [], ENVIRONMENT)
    process.close()
    assert -signal.SIGKILL == forked.wait(60)
    assert ("", "") == forked.communicate(timeout=60)


@pytest.mark.parametrize(
    ("source", "is_forked"),
    [
        ("", True),
        ("raise ImportError", True),
        ("import threading; threading.Thread(target=input, daemon=True).start()", False),
        ("import threading; threading.Event().wait(0)", True),
        ("import os; os._exit(1)", False),
        ("mine = open(__file__)", False),
        ("import subprocess, sys; subprocess.run([sys.executable, '-c', ''])", True),
    ],
)
def test_what_has_threads_or_ends_is_not_forked(tmp_path, source, is_forked):
    (tmp_path / "mine.py").write_text(source.replace("input", "threading.Event().wait"))
    with closing(warm.Warm(ENVIRONMENT | {"PYTHONPATH": str(tmp_path)}, ["mine"])) as process:
        for number in range(2):
            forked = process.python(f"print({number})", [], ENVIRONMENT)
            assert is_forked == (forked is not None)
            if is_forked:
                assert (f"{number}\n", "") == forked.communicate(timeout=120)
                assert 0 == forked.returncode


def test_it_goes_with_whoever_started_it():
    """And not before what it has forked, which is then nobody's."""
    code = """
import os
from director_db_conformance import warm
code = "import os, time; print(os.getppid(), flush=True); time.sleep(600)"
forked = warm.python(code, [], {**os.environ})
print(forked.stdout.readline().strip(), forked.pid, flush=True)
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    parent, forked = map(int, done.stdout.split())
    os.kill(forked, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{parent}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{parent}").exists()


def test_a_fork_of_ours_has_one_of_its_own():
    code = "import os; print(os.getppid())"
    ours = [started(code).communicate(timeout=120)[0] for _ in range(2)]
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, started(code).communicate(timeout=120)[0].encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read) as told:
        assert told.read() not in {"", *ours}
    assert {*ours} == {started(code).communicate(timeout=120)[0] for _ in range(2)}


def test_a_process_of_a_clause_keeps_its_assertions(monkeypatch, tmp_path):
    """Some images set that for all of Python, and a clause would show nothing there."""
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    env = {"DB_TYPE": "sqlite", "SQLITE_DB_PATH": str(tmp_path / "x.db")}
    show = "import os; print(__debug__, 'PYTHONHASHSEED' in os.environ)"

    class Own(Place):
        def python(self, code, *args):
            return super().python(code, *args)

    with closing(RecordedPlace(Place("sqlite", env), lambda: tmp_path)) as place:
        assert ("True False\n", "") == place.python(show).communicate()
    with closing(RecordedPlace(Own("sqlite", env), lambda: tmp_path)) as place:
        output, errors = place.python(show).communicate()
        assert "" == output
        assert "leaves out the assertions" in errors
