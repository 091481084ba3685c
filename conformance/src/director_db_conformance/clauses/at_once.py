"""Callers at the same time: threads that start at one moment, and other processes."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Any, Final

from director_db_conformance.clauses.patience import PATIENCE, Patience
from director_db_conformance.expectation import NonconformityError
from director_db_conformance.transcript import shown_output, transcript
from director_db_conformance.unexpected import nonconformity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from subprocess import Popen

    from director_db_conformance.transcript import RecordedPlace

THREADS: Final = 8
"""More than most machines have cores free for a test, so that threads are interrupted anywhere."""

TOGETHER: Final = """
import atexit, mmap, time
with open(args[1], "r+b") as file:
    steps = memoryview(mmap.mmap(file.fileno(), 0)).cast("i")
me = int(args[0])
# Who has ended, as one that failed, keeps nobody waiting.
atexit.register(steps.__setitem__, me, 2**31 - 1)
def together():
    steps[me] += 1
    until = time.monotonic() + 1
    while min(steps) < steps[me] and time.monotonic() < until:
        time.sleep(0.0002)
db.get_sessions()
print("ready", flush=True)
sys.stdin.readline()
"""
"""How the code of `processes` begins that `finish_all` lets go: ``together()`` returns in all of
them at one moment, once the last has called it, or after a second, as one may have been killed."""

_GRACE: Final = 5.0
_MOMENT: Final = 1.0
_POLL: Final = 0.05
_LOOK: Final = 1.0
_SLOT: Final = 4  # bytes of an int

# Of the interpreter, in seconds: threads then take turns a hundred times as often as usual, and
# what happens between two statements of one has room to go wrong.
_SWITCH_INTERVAL: Final = 1e-5


def at_once(
    works: Sequence[Callable[[], Any]],
    *,
    watched_by: Sequence[Callable[[], Any]] = (),
    patience: float | None = None,
) -> list[Any]:
    """Run each work in a thread, all let go at one moment, and return their results.

    Args:
        works: what to run.
        watched_by: what to run beside them, each in a thread and again and again, and once more
            after all works have ended.
        patience: how long a thread may neither make a call nor end, in seconds of an idle machine;
            `PATIENCE` if it is None.

    Raises:
        NonconformityError: something did not end, or has raised: what the first of them tells.
    """
    patience = PATIENCE if patience is None else patience
    start = threading.Barrier(len(works) + len(watched_by))
    results: dict[int, Any] = {}
    failures: list[BaseException] = []
    done = threading.Event()

    def run(number: int) -> None:
        start.wait(PATIENCE)
        results[number] = works[number]()

    def watch(number: int) -> None:
        start.wait(PATIENCE)
        last = False
        while not last and not failures:
            last = done.is_set()
            watched_by[number]()

    def guarded(target: Callable[[int], None], number: int) -> None:
        try:
            target(number)
        except BaseException as error:  # noqa: BLE001 - raised again below
            # Looked into here, where it is known what this thread has called.
            failures.append(nonconformity(error) if isinstance(error, Exception) else error)

    workers = [_thread(guarded, run, number) for number in range(len(works))]
    watchers = [_thread(guarded, watch, number) for number in range(len(watched_by))]
    with _eager_switches():
        for thread in (*workers, *watchers):
            thread.start()
        try:
            _join(workers, failures, patience)
        finally:
            done.set()  # Also where one hangs, or the others would watch for ever.
        _join(watchers, failures, patience)
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(works))]


def wait_until(
    condition: Callable[[], object], what: str, *, patience: float | None = None
) -> None:
    """Wait for what others are about to do.

    Args:
        condition: says whether they have done it.
        what: they do.
        patience: how long that may take, in seconds of an idle machine; `PATIENCE` if it is None.

    Raises:
        NonconformityError: they have not done it by then.
    """
    patience = PATIENCE if patience is None else patience
    limit, pause = Patience(patience), 0.0005
    while not condition():
        if limit.is_over:
            raise NonconformityError(what, f"not after {patience:g} s")
        time.sleep(pause)
        pause = min(1.01 * pause, 0.01)  # What has not come by now may never come.


def _thread(target: Callable[..., None], *args: object) -> threading.Thread:
    # A daemon, so that a backend that blocks for ever fails its clause and not the interpreter.
    return threading.Thread(target=target, args=args, daemon=True)


def _join(
    threads: Sequence[threading.Thread], failures: Sequence[BaseException], patience: float
) -> None:
    for thread in threads:
        limit, calls = Patience(patience), 0
        while thread.is_alive():
            thread.join(_POLL)
            if calls != (calls := transcript.calls_of(thread)):
                limit.renew()
            if limit.is_over:
                expected = "every call returns"
                raise NonconformityError(expected, f"one had not after {patience:g} s")
            if failures:
                # The others may wait in vain for what the failed one was to do.
                thread.join(_GRACE)
                raise failures[0]


@contextmanager
def _eager_switches() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


@contextmanager
def processes(place: RecordedPlace, code: str, count: int) -> Iterator[list[Popen[str]]]:
    """Run code in several processes; ``args[0]`` is the number of each, ``args[1]`` for `TOGETHER`.

    The code prints a first line when it has come up, and then waits for a line, which `finish`
    sends. None of them outlives the block.
    """
    meeting = place.new_folder() / "meeting"
    meeting.write_bytes(bytes(_SLOT * count))
    started = [place.python(code, str(number), str(meeting)) for number in range(count)]
    try:
        for process in started:
            hear(process, "another process comes up")
        yield started
    finally:
        end(*started)


def hear(process: Popen[str], expected: str) -> None:
    """Wait for the next line of a process.

    Raises:
        NonconformityError: it has ended without one, so that what is expected has not happened.
    """
    assert process.stdout is not None  # noqa: S101 - for type checkers
    if not process.stdout.readline():
        raise NonconformityError(expected, last_words(process))


def end(*started: Popen[str]) -> None:
    """End processes, whatever they do; nothing of that hides why a clause failed."""
    for process in started:
        process.kill()
    for process in started:
        # A thread of a clause that failed may be at its pipes still; it closes them itself.
        with suppress(Exception):
            process.communicate(timeout=_GRACE)
        process.wait(_GRACE)


def last_words(process: Popen[str]) -> str:
    """End a process, and return how it ended and what it said of that."""
    with suppress(TimeoutExpired):
        process.wait(_MOMENT)
    running = process.poll() is None
    process.kill()
    errors = process.communicate()[1]
    how = "it had not ended" if running else f"status {process.returncode}"
    return f"{how}: {shown_output(errors)}"


def let_go(process: Popen[str], line: str = "go") -> None:
    """Let a process go on, and do not wait for its end."""
    assert process.stdin is not None  # noqa: S101 - for type checkers
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except OSError:
        expected = "another process goes on"
        raise NonconformityError(expected, last_words(process)) from None


def finish_all(started: Sequence[Popen[str]]) -> list[str]:
    """Let all go on at one moment, and wait as `finish` does."""
    return at_once([partial(finish, process) for process in started])


def finish(process: Popen[str], line: str = "go") -> str:
    """Let a process go on, wait until it ends well, and return what it has printed."""
    expected = "another process ends without an error"
    try:
        output, errors = communicate(process, line + "\n")
    except TimeoutExpired:
        expected += f", within {PATIENCE:g} s"
        raise NonconformityError(expected, last_words(process)) from None
    if errors or process.returncode != 0:
        said = f"status {process.returncode}: {shown_output(errors)}"
        raise NonconformityError(expected, said)
    return output


def communicate(process: Popen[str], text: str | None = None) -> tuple[str, str]:
    """Send a process the rest of its input, and return all that it prints until it ends.

    Raises:
        TimeoutExpired: it has not ended after `PATIENCE` seconds of an idle machine.
    """
    limit = Patience(PATIENCE)
    while True:
        try:
            return process.communicate(text, timeout=min(_LOOK, PATIENCE))
        except TimeoutExpired:
            if limit.is_over:
                raise
            text = None  # It goes on with what it was given.
