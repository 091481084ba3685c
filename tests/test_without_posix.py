"""The core and SQLite where the system has no forks, groups of processes or POSIX locks.

It cannot show how Windows itself behaves: its locks on open files, its paths, its way to end a
process. It shows that nothing is used that is not there. os.mknod stays: without it a new file is
opened and closed, which on this system, and not on Windows, drops the locks that another thread has
on it by then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.sampled

# A sitecustomize. Without SIGKILL, with which this system's own subprocess ends processes; that
# module keeps the rest of what it needs.
PRELUDE = """
import os
import signal
import subprocess
import sys

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
OF_OS = '''
    chown confstr ctermid fchmod fchown fdatasync fork forkpty fstatvfs getegid geteuid getgid
    getgroups getloadavg getpgid getpgrp getpriority getuid killpg lchown mkfifo nice openpty
    posix_fadvise posix_fallocate pread preadv pwrite pwritev register_at_fork sched_getaffinity
    sched_yield setegid seteuid setgid setpgid setsid setuid statvfs sync sysconf uname wait3 wait4
    waitid O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK
'''
OF_SIGNAL = '''
    alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigwait ITIMER_REAL
    SIGALRM SIGCHLD SIGCONT SIGHUP SIGPIPE SIGSTOP SIGUSR1 SIGUSR2
'''

for name in MODULES:
    sys.modules[name] = None
for module, names in ((os, OF_OS), (signal, OF_SIGNAL)):
    for name in names.split():
        vars(module).pop(name, None)
if hasattr(os, "process_cpu_count"):  # From Python 3.13 on; here it would ask what is gone.
    os.process_cpu_count = os.cpu_count
"""
COMMANDS = Path(sys.executable).parent


@pytest.fixture
def run(tmp_path):
    """Run a program in an empty folder, and all that it starts, without what POSIX adds."""
    (tmp_path / "sitecustomize.py").write_text(PRELUDE, encoding="utf-8")
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(*command, **env):
        return subprocess.run(
            [*map(str, command)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(tmp_path)} | env,
            capture_output=True,
            text=True,
            check=False,
            timeout=1100,
        )

    return run


def test_what_is_taken_away_is_gone(run):
    code = "import os, signal, sys; print([*map(hasattr, [os, os, signal], sys.argv[1:])])"
    gone = run(sys.executable, "-c", code, "fork", "register_at_fork", "SIGALRM")
    assert ("", "[False, False, False]\n") == (gone.stderr, gone.stdout)
    assert "ModuleNotFoundError" in run(sys.executable, "-c", "import fcntl").stderr


def test_the_demo_plays_with_its_second_process(run):
    demo = run(COMMANDS / "director-db", "demo", DB_TYPE="sqlite")
    assert ("", 0) == (demo.stderr, demo.returncode)
    assert "second process" in demo.stdout


@pytest.mark.timeout(1200)  # It plays clauses, on a machine that may be busy.
def test_sqlite_keeps_what_processes_and_threads_may_expect(run, tmp_path):
    """Where a clause takes a fork, it is not applicable, and nothing fails."""
    report = tmp_path / "report.json"
    suite = run(
        *(COMMANDS / "director-db-conformance", "sqlite", "--level", "concurrent"),
        *("-k", "LIF or MSG-3 or DEL", "--time-limit", "600", "--json", report),
    )
    assert 0 == suite.returncode, suite.stdout + suite.stderr
    (backend,) = json.loads(report.read_text(encoding="utf-8"))["backends"]
    results = [clause["result"] for clause in backend["clauses"]]
    reasons = {each["reason"] for each in results if each["outcome"] == "not applicable"}
    assert {"this system has no fork"} == {each for each in reasons if "fork" in each}
    assert sum(each["outcome"] == "passed" for each in results) > 40
