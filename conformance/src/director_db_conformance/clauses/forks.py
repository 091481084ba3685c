"""Processes that fork, and exceptions that signals raise in the middle of a call."""

from __future__ import annotations

import os
import threading
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db import ClosedError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import msg_ids, new_session, put
from director_db_conformance.clauses.at_once import at_once, finish, processes, wait_until
from director_db_conformance.expectation import NonconformityError, expect, expect_error
from director_db_conformance.unexpected import nonconformity

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_conformance.transcript import RecordedDB, RecordedPlace

_LAST_WORDS: Final = 4000


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

        def work(number: int) -> int:
            step = 0
            while not stop.is_set() and step < 3000:  # noqa: PLR2004 - it ends in any case
                put(db, "s1", f"{number}.{step}")
                expect(msg_ids([db.get_message("s1", f"{number}.{step}")]), [f"{number}.{step}"])
                step += 1
            return step

        def fork() -> int:
            try:
                for number in range(8):
                    _in_a_fork(partial(put, db, "s1", f"child.{number}"))
            finally:
                stop.set()
            return 8

        steps = at_once([fork, *(partial(work, number) for number in range(6))])
        expect(len(db.get_conversations("s1")), sum(steps), "messages of all")

    @clause("LIF-1", level="concurrent", needs="fork")
    def test_lif_1_a_closed_instance_stays_closed_in_a_fork(self, db: RecordedDB) -> None:
        """A fork does not bring a closed instance back."""
        new_session(db)
        db.close()
        _in_a_fork(partial(expect_error, ClosedError, db.get_sessions))

    @clause("LIF-3", level="concurrent", needs="fork")
    def test_lif_3_an_exception_from_a_signal_leaves_nothing_locked_and_nothing_half_done(
        self, place: RecordedPlace
    ) -> None:
        """A timeout or a Ctrl-C in the middle of a call spoils neither instance nor data."""
        db = place.open()
        new_session(db)
        with processes(place, _STORM, 1) as storms:
            done = finish(storms[0]).split()
        names = msg_ids(db.get_conversations("s1"))
        expect([name[:-1] + "b" for name in names[::2]], names[1::2], "pairs, stored together")
        expect([name for name in done if name not in names], [], "messages that are missing")


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
            os.write(writer, _told(error).encode(errors="replace"))
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as pipe:
        told = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        expected, _, actual = told.partition("\0")
        expected = f"in a forked child: {expected or 'every call returns'}"
        actual = f"it ended with status {status}: {actual}".removesuffix(": ")
        raise NonconformityError(expected, actual)


def _told(error: BaseException) -> str:
    """Return what was expected and what happened, as far as a pipe takes it at once."""
    found = nonconformity(error)
    return f"{found.expected[:_LAST_WORDS]}\0{found.actual[:_LAST_WORDS]}"


# Strikes the calls and not the loop: the handler raises once for each time that it is armed.
_STORM: Final = """
import faulthandler, itertools, random, signal, threading, time

class Boom(BaseException):
    pass

def boom(*_):
    global armed
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.003))
    if armed:
        armed = False
        raise Boom

armed = False
print("ready", flush=True)
sys.stdin.readline()
signal.signal(signal.SIGALRM, boom)
random.seed(7)
done, booms, numbers = [], 0, itertools.count()
end = time.monotonic() + 1.5
signal.setitimer(signal.ITIMER_REAL, 0.001)
while booms < 40 or time.monotonic() < end:
    # Longer than any call takes: what hangs is told, with its stack.
    faulthandler.dump_traceback_later(20, exit=True)
    try:
        armed = True
        while True:
            name = f"m{next(numbers)}"
            db.add_or_update_msgs_to_conv("s1", [
                {"conv_id": "c", "msg_id": name + part, "msg_type": "t", "agents": [],
                 "actions": [], "content": part} for part in "ab"])
            done.append(name)
            db.get_message("s1", name + "a")
    except Boom:
        booms += 1
signal.setitimer(signal.ITIMER_REAL, 0)
faulthandler.cancel_dump_traceback_later()
thread = threading.Thread(target=db.create_session, args=("after",))
thread.start()
thread.join(20)
assert not thread.is_alive(), "the instance stayed locked"
assert db.get_session("after")
db.close()
print(*(name + part for name in done for part in "ab"))
"""
