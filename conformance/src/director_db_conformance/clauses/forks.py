"""Processes that fork, and exceptions that signals raise in the middle of a call."""

from __future__ import annotations

import gc
import os
import threading
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db import ClosedError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import msg_ids, new_session, put
from director_db_conformance.clauses.at_once import at_once, finish, processes, wait_until
from director_db_conformance.clauses.patience import crowd
from director_db_conformance.expectation import (
    NonconformityError,
    expect,
    expect_error,
    expect_that,
)
from director_db_conformance.unexpected import nonconformity

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_conformance.transcript import RecordedDB, RecordedPlace

_LAST_WORDS: Final = 4000

_BY_THE_DOZEN: Final = 36
_FORKS: Final = 5
_WRITERS: Final = 6


class ForkClauses:
    """LIF-1 and CTX-3 across forks, and LIF-3 for interrupted calls."""

    @clause("LIF-1", level="concurrent", needs="fork")
    def test_lif_1_an_instance_from_before_a_fork_works_on_both_sides(self, db: RecordedDB) -> None:
        """A server that forks its workers may open its database before it does so."""
        new_session(db)
        put(db, "s1", "parent before")
        db.append_context_messages("s1", [1])

        def child() -> None:
            expect(msg_ids(db.get_conversations("s1")), ["parent before"], "in the child")
            put(db, "s1", "child")
            expect(db.append_context_messages("s1", [2]), 2, "the length, in the child")
            db.close()

        _in_a_fork(child)
        put(db, "s1", "parent after")
        expect(msg_ids(db.get_conversations("s1")), ["parent before", "child", "parent after"])
        expect(db.append_context_messages("s1", [3]), 3, "the length")

    @clause("LIF-1", level="concurrent", needs="fork")
    def test_lif_1_both_sides_of_a_fork_write_at_once(self, db: RecordedDB) -> None:
        """After a fork, parent and children write at the same time, and nothing is lost."""
        new_session(db)

        def write(name: str) -> None:
            for step in range(30):
                put(db, "s1", f"{name}.{step}")
                expect(msg_ids([db.get_message("s1", f"{name}.{step}")]), [f"{name}.{step}"])

        children = [partial(_in_a_fork, partial(write, name)) for name in "ab"]
        at_once([*children, partial(write, "parent")])
        names = [f"{name}.{step}" for name in ("a", "b", "parent") for step in range(30)]
        expect(sorted(msg_ids(db.get_conversations("s1"))), sorted(names), "the messages")

    @clause("CTX-3", level="concurrent", needs="fork")
    def test_ctx_3_a_save_is_whole_whatever_the_child_of_a_fork_saved(self, db: RecordedDB) -> None:
        """After a fork, neither side takes the save of the other for its own."""
        new_session(db)
        base: list[Any] = [["item", number] for number in range(6)]
        mine, theirs = [*base, "parent"], [*base, "child"]
        db.add_or_update_context_msg("s1", base)

        def wait_for(value: list[Any]) -> None:
            wait_until(lambda: db.get_context_messages("s1") == value, f"a save of {value!r}")

        def child() -> None:
            put(db, "s1", "forked")
            wait_for(mine)
            db.add_or_update_context_msg("s1", theirs)

        def parent() -> None:
            wait_until(lambda: db.get_message("s1", "forked"), "the child works")
            db.add_or_update_context_msg("s1", mine)
            wait_for(theirs)
            db.add_or_update_context_msg("s1", [*mine, "more"])

        at_once([partial(_in_a_fork, child), parent])
        expect(db.get_context_messages("s1"), [*mine, "more"])

    @clause("LIF-1", level="concurrent", needs="fork")
    def test_lif_1_forks_while_threads_are_at_work(self, db: RecordedDB) -> None:
        """A fork in the middle of other threads' calls harms neither them nor the child."""
        new_session(db)
        stop = threading.Event()
        at_work = set()

        def work(number: int) -> int:
            step = 0
            while not stop.is_set() and step < 3000:  # noqa: PLR2004 - it ends in any case
                put(db, "s1", f"{number}.{step}")
                expect(msg_ids([db.get_message("s1", f"{number}.{step}")]), [f"{number}.{step}"])
                step += 1
                at_work.add(number)
            return step

        def fork() -> int:
            try:
                wait_until(lambda: len(at_work) == _WRITERS, "all threads write")
                for number in range(_FORKS):
                    _in_a_fork(partial(put, db, "s1", f"child.{number}"))
            finally:
                stop.set()
            return _FORKS

        steps = at_once([fork, *(partial(work, number) for number in range(_WRITERS))])
        expect(len(db.get_conversations("s1")), sum(steps), "messages of all")

    @clause("LIF-1", level="concurrent", needs="fork")
    def test_lif_1_a_closed_instance_stays_closed_in_a_fork(self, db: RecordedDB) -> None:
        """A fork does not bring a closed instance back."""
        new_session(db)
        db.close()
        _in_a_fork(partial(expect_error, ClosedError, db.get_sessions))

    @clause("LIF-1", level="concurrent", needs="fork")
    def test_lif_1_a_child_works_on_when_its_parent_has_closed(self, place: RecordedPlace) -> None:
        """What one side of a fork closes is not what the other uses, and takes no write along."""
        db = place.open()
        new_session(db)
        put(db, "s1", "parent")
        reader, writer = os.pipe()

        def child() -> None:
            put(db, "s1", "child before")
            os.read(reader, 1)
            for number in range(5):
                put(db, "s1", f"child after {number}")
            # Its end closes nothing in order, as that of a killed one.

        def parent() -> None:
            try:
                wait_until(lambda: db.get_message("s1", "child before"), "the child writes")
                db.close()
            finally:
                os.write(writer, b"x")

        at_once([partial(_in_a_fork, child), parent])
        os.close(reader)
        os.close(writer)
        found = msg_ids(place.open().get_conversations("s1"))
        names = ["parent", "child before", *(f"child after {number}" for number in range(5))]
        expect(found, names, "the messages")

    @clause("LIF-1", level="concurrent", needs="connections")
    def test_lif_1_a_child_leaves_inherited_connections_alone(self, place: RecordedPlace) -> None:
        """A forked child works on connections of its own, and ends none that it has inherited."""
        db = place.open()
        connections = place.place.connections
        assert connections is not None  # noqa: S101 - for type checkers
        new_session(db)
        at_once([partial(put, db, "s1", f"m{number}") for number in range(4)])
        before = set(connections(os.getpid()))

        def child() -> None:
            # What the parent still has of it: here, some may have been closed at once. And what a
            # pool of the parent's has opened since then was never ours.
            inherited = before & set(connections(os.getppid()))
            put(db, "s1", "child")
            expect(len(db.get_conversations("s1")), 5, "the messages, in the child")
            gc.collect()
            now = set(connections(os.getpid()))
            expect(sorted(inherited - now), [], "inherited connections that the child has ended")
            expect_that(now - inherited, "a connection of its own, in the child", "none")
            db.close()
            gc.collect()
            now = set(connections(os.getpid()))
            expect(sorted(inherited - now), [], "inherited connections that its close() has ended")

        _in_a_fork(child)
        expect(len(db.get_conversations("s1")), 5, "the messages, in the parent")
        put(db, "s1", "parent")

    @clause("LIF-3", level="concurrent", needs="fork")
    def test_lif_3_an_exception_from_a_signal_leaves_nothing_locked_and_nothing_half_done(
        self, place: RecordedPlace
    ) -> None:
        """A timeout or a Ctrl-C in the middle of a call spoils neither instance nor data."""
        db = place.open()
        new_session(db)
        with processes(place, _STORM, 1) as storms:
            counts, done, appended = finish(storms[0], str(_CALM * crowd())).splitlines()
        completed, interrupted = map(int, counts.split())
        both = min(completed, interrupted)
        expected = f"at least {_BY_THE_DOZEN} calls that end and as many that are interrupted"
        expect_that(both >= _BY_THE_DOZEN, expected, f"{completed} and {interrupted}")
        names = msg_ids(db.get_conversations("s1"))
        expect([name[:-1] + "b" for name in names[::2]], names[1::2], "pairs, stored together")
        expect([name for name in done.split() if name not in names], [], "messages missing")
        items = db.get_context_messages("s1")["reasoning"]
        expect(sorted(items), sorted(set(items)), "the items that were appended, each once")
        expect([name for name in appended.split() if name not in items], [], "items missing")


def _in_a_fork(work: Callable[[], object]) -> None:
    """Run something in a forked child.

    Raises:
        NonconformityError: it failed there.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; that they work all the same is the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            os.write(writer, _reported(error).encode(errors="replace"))
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as pipe:
        report = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        expected, _, actual = report.partition("\0")
        expected = f"in a forked child: {expected or 'every call returns'}"
        actual = f"it ended with status {status}: {actual}".removesuffix(": ")
        raise NonconformityError(expected, actual)


def _reported(error: BaseException) -> str:
    """Return what was expected and what happened, as far as a pipe takes it at once."""
    found = nonconformity(error)
    return f"{found.expected[:_LAST_WORDS]}\0{found.actual[:_LAST_WORDS]}"


# How long a storm may blow without any call that ends, or any that it interrupts, in seconds.
_CALM: Final = 20.0

# Strikes the calls and not the loop: the handler raises once for each time that it is armed. When
# is fitted to the backend: if not all three calls have ended since the last time, later, else
# earlier. So each of them is struck, and each ends after one was.
_STORM: Final = """
import faulthandler, itertools, logging, random, signal, threading, time

# A backend may log what became of a connection, which is not for the stream of failures.
logging.getLogger().addHandler(logging.NullHandler())

class Boom(BaseException):
    pass

def boom(*_):
    global armed
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, longest))
    if armed:
        armed = False
        raise Boom

def call(name):
    global inside, completed
    inside = True
    db.add_or_update_msgs_to_conv("s1", [
        {"conv_id": "c", "msg_id": name + part, "msg_type": "t", "agents": [],
         "actions": [], "content": name + part} for part in "ab"])
    done.append(name)
    completed += 1
    found = db.get_message("s1", name + "a").get("content")
    assert found == name + "a", ("another answer", name, found)
    completed += 1
    length = db.append_context_messages("s1", [name])
    appended.append(name)
    assert type(length) is int, ("another answer", name, length)
    completed += 1
    inside = False

def dropped(unraisable):
    # Python drops what is raised while it deletes an object: strike again.
    global armed
    if isinstance(unraisable.exc_value, Boom):
        armed = True
    else:
        sys.__unraisablehook__(unraisable)

sys.unraisablehook = dropped

armed, inside, done, appended, numbers = False, False, [], [], itertools.count()
completed = interrupted = 0
print("ready", flush=True)
patience = float(sys.stdin.readline())
random.seed(7)
call("first")
began = time.monotonic()
for number in range(5):
    call(f"calm{number}")
longest = (time.monotonic() - began) / 5
signal.signal(signal.SIGALRM, boom)
completed, most, began = 0, 0, time.monotonic()
advanced = began
signal.setitimer(signal.ITIMER_REAL, 0.001)
while True:
    now, both = time.monotonic(), min(completed, interrupted)
    if both > most:
        most, advanced = both, now
    if now - advanced > patience or (now - began > 0.8 and both >= 48):
        break
    # Longer than any call takes: what hangs is told, with its stack.
    faulthandler.dump_traceback_later(patience, exit=True)
    before = len(appended)
    try:
        armed = True
        while True:
            call(f"m{next(numbers)}")
            # It is disarmed as it raises, and what is raised ends this loop: or somebody kept it.
            assert armed, "what the handler raised was swallowed, and the call went on"
    except Boom:
        interrupted += inside
    longest *= 0.9 if len(appended) > before else 1.1
signal.setitimer(signal.ITIMER_REAL, 0)
faulthandler.cancel_dump_traceback_later()
thread = threading.Thread(target=db.create_session, args=("after",))
thread.start()
thread.join(patience)
assert not thread.is_alive(), "the instance stayed locked"
assert db.get_session("after")
db.close()
print(completed, interrupted)
print(*(name + part for name in done for part in "ab"))
print(*appended)
"""
