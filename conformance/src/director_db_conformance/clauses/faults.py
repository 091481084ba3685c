"""What callers meet while the database cannot be used, and afterwards: LIF-3, LIF-4 and LIF-6.

Each fault of a place is one clause, which looks at all of this at once: to bring one about takes
its time, and so does whatever waits in vain.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db import BackendUnavailableError, ConfigurationError, DirectorDBError, SchemaError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import full_session, message, msg_ids, put
from director_db_conformance.clauses.at_once import (
    at_once,
    finish,
    let_go,
    processes,
    wait_until,
)
from director_db_conformance.clauses.patience import PATIENCE, Patience
from director_db_conformance.clauses.secrets import (
    expect_no_secret,
    logged,
    secrets_of,
    texts_of,
)
from director_db_conformance.expectation import NonconformityError, expect, expect_that
from director_db_conformance.transcript import shown, shown_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director_db_conformance.transcript import RecordedDB, RecordedPlace

    Calls = dict[str, Callable[[], object]]

# What a place without room has to refuse.
_LARGE: Final = "x" * 8 * 1024 * 1024

# More than a backend has connections, as a rule.
_WAITING: Final = 24

# How many calls wait beside each other. Of more, a backend may have no connections.
_AT_ONCE: Final = 8

# How long a fault may be felt after its end, in seconds; a pooler tries its server only so often.
_AFTERMATH: Final = 30.0

_PAUSE: Final = 0.05

# The faults during which only writes have to fail.
_OF_WRITES: Final = frozenset({"locked", "read-only", "full"})

# What may end by itself, so that the same call may succeed soon.
_PASSING: Final = frozenset({"locked", "stopped", "frozen"})

# Those in which the database itself says no, so that nothing is in doubt.
_REFUSALS: Final = frozenset({"locked", "refused", "forbidden", "read-only"})


class FaultClauses:
    """Errors, health and data while something is wrong with the database, and after that."""

    @clause("LIF-6", level="durable", needs="locked")
    def test_lif_6_a_lock_that_somebody_else_holds(self, place: RecordedPlace) -> None:
        """A write that waits in vain for others raises an error of ours, to be tried again."""
        _suffer(place, "locked")

    @clause("LIF-6", level="durable", needs="stopped")
    def test_lif_6_a_server_that_is_away(self, place: RecordedPlace) -> None:
        """Without a server every call raises an error of ours; with it the same instance works."""
        _suffer(place, "stopped")

    @clause("LIF-3", level="durable", needs="frozen")
    def test_lif_3_a_server_that_answers_nothing(self, place: RecordedPlace) -> None:
        """A call ends also where the server says neither yes nor no, and is told to be in doubt."""
        _suffer(place, "frozen")

    @clause("LIF-3", level="durable", needs="lock_session_row")
    def test_lif_3_a_session_that_somebody_else_has_locked(self, place: RecordedPlace) -> None:
        """A write that waits for its session ends by an error of ours, and nothing is stored."""
        db = place.open(impatient=True)
        calls = _writes(db, "late")
        for name in calls:
            full_session(db, name)
        before = {name: _stored(db, name) for name in calls}
        for name, call in calls.items():
            with place.lock_session_row(name):
                error = _error_of(name, call, _longest(place))
            _expect_right_error("locked", name, error)
            expect(_stored(db, name), before[name], f"what is stored after {name} failed")
            call()

    @clause("LIF-3", level="durable", needs="lock_session_row")
    def test_lif_3_calls_for_a_locked_session_hold_up_nobody_else(
        self, place: RecordedPlace
    ) -> None:
        """However many calls wait for one session, reads and writes of all others go on."""
        db = place.open()
        for name in ("s1", "s2"):
            full_session(db, name)
        with ThreadPoolExecutor(_WAITING) as executor:
            with place.lock_session_row("s1"):
                waiting = [
                    executor.submit(put, db, "s1", f"m{number}") for number in range(_WAITING)
                ]
                # The longer, the more of them wait. In all, longer than one wait for a lock takes.
                for _ in range(5):
                    at_once([*_reads(db).values(), lambda: put(db, "s2", "b", "text")])
                    time.sleep(0.3)
                done = [number for number, call in enumerate(waiting) if call.done()]
                expect(done, [], "the calls for the locked session that have returned")
            for call in waiting:
                wait_until(call.done, "a call that had waited for the session returns")
                call.result()
        stored = {message["msg_id"] for message in db.get_conversations("s1")}
        wanted = {f"m{number}" for number in range(_WAITING)}
        expect(wanted - stored, set(), "the messages that waited and are not stored")
        expect(db.get_message("s2", "b")["content"], "text", "the message to the other session")

    @clause("LIF-6", level="durable", needs="refused")
    def test_lif_6_a_server_that_lets_nobody_in(self, place: RecordedPlace) -> None:
        """Who is turned away is told so at once by an error of ours, and may come back."""
        _suffer(place, "refused")

    @clause("LIF-6", level="durable", needs="forbidden")
    def test_lif_6_a_user_without_rights(self, place: RecordedPlace) -> None:
        """A user who may not use the tables is told so by an error of ours, until he may."""
        _suffer(place, "forbidden")

    @clause("LIF-6", level="durable", needs="read-only")
    def test_lif_6_a_database_that_is_read_only(self, place: RecordedPlace) -> None:
        """Where nothing can be written a write raises an error of ours that does not say: again."""
        _suffer(place, "read-only")

    @clause(
        "LIF-3",
        level="durable",
        needs="locked",
        sync_only="nothing breaks off a call that has begun, see LIF-7",
    )
    def test_lif_3_an_interrupted_call_that_waited_is_not_applied_later(
        self, place: RecordedPlace
    ) -> None:
        """What a signal broke off while it waited for a lock is not stored once that is free."""
        db = place.open()
        rounds = 4
        with processes(place, _INTERRUPTED, 1) as (child,):
            assert child.stdout is not None  # noqa: S101 - for type checkers
            for number in range(rounds):
                name = full_session(db, f"s{number}")
                with place.fault("locked"):
                    let_go(child, name)
                    # Some tenths of a second later.
                    expect(child.stdout.readline(), "interrupted\n", "what the process says")
                put(db, name, "later")
                expect(msg_ids(db.get_conversations(name)), ["a", "b", "later"], "the messages")
            expect(finish(child, ""), "", "what else the process printed")
        for number in range(rounds):
            found = msg_ids(db.get_conversations(f"s{number}"))
            expect(found, ["a", "b", "later"], "the messages, some time later")

    @clause("LIF-3", level="durable", needs="full")
    def test_lif_3_no_room_for_more(self, place: RecordedPlace) -> None:
        """Of a write that finds no room no part is stored; with room, the same instance writes."""
        _suffer(place, "full")

    @clause("LIF-6", level="durable", needs="damaged")
    def test_lif_6_damaged_data(self, place: RecordedPlace) -> None:
        """What cannot be read raises an error of ours, and a backup that is put back is used."""
        _suffer(place, "damaged")

    @clause("LIF-6", level="durable", needs="gone")
    def test_lif_6_a_place_that_is_not_there(self, place: RecordedPlace) -> None:
        """Where there is nothing to open every call raises an error of ours, until it is back."""
        _suffer(place, "gone")

    @clause("LIF-4", level="durable", needs="stopped")
    def test_lif_4_health_follows_a_server_that_goes_and_comes(self, place: RecordedPlace) -> None:
        """A health check says what is true now, however often that changes."""
        _ask_for_health(place, "stopped")

    @clause("LIF-4", level="durable", needs="gone")
    def test_lif_4_health_follows_a_place_that_goes_and_comes(self, place: RecordedPlace) -> None:
        """A health check says what is true now, however often that changes."""
        _ask_for_health(place, "gone")


# The times differ, as a backend may wait for a lock by asking for it again and again.
_INTERRUPTED: Final = """
import logging, signal

# A backend may log what became of a connection, which is not for the stream of failures.
logging.getLogger().addHandler(logging.NullHandler())

class Boom(BaseException):
    pass

def boom(*_):
    raise Boom

db.get_sessions()
signal.signal(signal.SIGALRM, boom)
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    if not line.strip():
        break
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2 + 0.07 * number)
        db.add_or_update_msg_to_conv(line.strip(), "c", "interrupted", "t", [], [], 1)
    except Boom:
        print("interrupted", flush=True)
    else:
        print("not interrupted", flush=True)
"""


def _suffer(place: RecordedPlace, fault: str) -> None:
    """Use a place during a fault and after it, with an instance from before and a new one."""
    db = place.open(impatient=True)
    text = _LARGE if fault == "full" else "late"
    writes, reads = _writes(db, text), _reads(db)
    if fault == "full":
        writes = {name: writes[name] for name in ("message", "bulk", "context")}
    for name in writes:
        full_session(db, name)
    full_session(db)
    before = {name: _stored(db, name) for name in writes}
    answers = {name: call() for name, call in reads.items()}
    expect(db.health_check(), True, "health_check() before the fault")
    failed = writes if fault in _OF_WRITES else writes | reads
    with logged() as lines, place.fault(fault):
        fresh = place.open(impatient=True)
        first = next(iter(failed))
        longest = _longest(place)
        alone = {first: _error_of(first, failed[first], longest)}
        rest = {name: failed[name] for name in failed if name != first}
        if fault in _PASSING:
            # Each waits, and not all of them for the database: some for one another.
            beside = _errors_of(rest, longest)
        else:
            alone |= {name: _error_of(name, call, longest) for name, call in rest.items()}
            beside = {}
        if fault in _OF_WRITES:
            for name, call in reads.items():
                _answer_or_error(name, call, answers[name])
        also = partial(put, fresh, first, "fresh", text)
        alone["a new instance's first call"] = _error_of("a new instance", also, longest)
        with _of_rule("LIF-4"):
            _expect_health(db, fresh, None if fault in _OF_WRITES else False)
    with _of_rule("LIF-6"):
        _expect_right_errors(fault, alone, beside, secrets_of(place.place))
        expect_no_secret(secrets_of(place.place), lines, "what was logged")
    with _of_rule("LIF-4"):
        for handle in (db, fresh):
            _expect_recovery(handle)
    with _of_rule("LIF-3"):
        for name, state in before.items():
            if not _is_in_doubt((alone | beside)[name]):
                found = _again(partial(_stored, db, name))
                expect(found, state, f"what is stored after {name} failed")
        for call in failed.values():
            _again(call)
        _again(partial(put, fresh, "s1", "fresh"))
        for handle in (db, fresh):
            found = _again(partial(handle.get_message, "s1", "fresh"))
            expect(found.get("content"), "text", "a later message")
            found = _again(partial(handle.get_message, "message", "late"))
            expect(found.get("content"), text, "the message, again")


def _ask_for_health(place: RecordedPlace, fault: str) -> None:
    one, other = place.open(impatient=True), place.open(impatient=True)
    full_session(one)
    for _ in range(2):
        _expect_health(one, other, expected=True)
        with place.fault(fault):
            _expect_health(one, other, expected=False)
        for handle in (one, other):
            _expect_recovery(handle)
    found = _again(partial(other.get_message, "s1", "a"))
    expect(found.get("content"), {"of": "s1"}, "what was stored before")


def _expect_recovery(db: RecordedDB) -> None:
    what = "health_check() is True again, after the fault"
    wait_until(db.health_check, what, patience=_AFTERMATH)


def _again(call: Callable[[], Any]) -> Any:
    """Make a call after a fault; one that is to be tried again is tried again for a while.

    The instance is impatient, and the machine may be slow.
    """
    limit = Patience(_AFTERMATH)
    while True:
        try:
            return call()
        except BackendUnavailableError as error:
            if not error.retryable or limit.is_over:
                raise
        time.sleep(_PAUSE)


def _expect_health(one: RecordedDB, other: RecordedDB, expected: bool | None) -> None:  # noqa: FBT001
    """Fail unless both answer so; None is either, as long as it is an answer."""
    answers = at_once([one.health_check, other.health_check])
    wanted = {True, False} if expected is None else {expected}
    holds = all(type(answer) is bool and answer in wanted for answer in answers)
    expect_that(holds, f"health_check() of two instances: {shown(expected)}", answers)


def _writes(db: RecordedDB, text: str) -> Calls:
    """Return a write of each kind, each to the session of its name; they can be made again."""
    return {
        "message": lambda: put(db, "message", "late", text),
        "known message": lambda: put(db, "known message", "a", text),
        "bulk": lambda: db.add_or_update_msgs_to_conv("bulk", [message("a"), message("c", text)]),
        "context": lambda: db.add_or_update_context_msg("context", {"late": [text]}),
        "append": lambda: db.append_context_messages("append", [text]),
        "update": lambda: db.update_session("update", metadata=text),
        "delete message": lambda: db.delete_message("delete message", "a"),
        "replace": lambda: db.replace_conversation("replace", [message("b"), message("c", text)]),
        # Each time to another one, as it may be made again.
        "copy": lambda: db.copy_session("copy", f"copy {time.monotonic_ns()}"),
        "delete behind": lambda: db.delete_messages_after("delete behind", "a"),
        "pop message": lambda: db.pop_message("pop message"),
        "delete conversation": lambda: db.delete_conversation("delete conversation"),
        "delete context": lambda: db.delete_context("delete context"),
        "delete session": lambda: db.delete_session("delete session"),
    }


def _reads(db: RecordedDB) -> Calls:
    return {
        "get_session": lambda: db.get_session("s1"),
        "get_sessions": lambda: db.get_sessions(limit=3),
        "get_conversations": lambda: db.get_conversations("s1"),
        "get_message": lambda: db.get_message("s1", "a"),
        "get_context": lambda: db.get_context("s1"),
        "health": lambda: db.health().place,
    }


def _stored(db: RecordedDB, name: str) -> tuple[Any, ...]:
    return db.get_session(name), db.get_conversations(name), db.get_context(name)


def _longest(place: RecordedPlace) -> float:
    """Return after how many seconds a call counts as one that never ends."""
    return 30.0 if place.place.impatient else 5 * PATIENCE


def _errors_of(calls: Calls, longest: float) -> dict[str, Exception]:
    """Make calls, a few at a time, all of which have to fail."""
    names = list(calls)
    errors: dict[str, Exception] = {}
    for start in range(0, len(names), _AT_ONCE):
        group = names[start : start + _AT_ONCE]
        works = [partial(_caught, name, calls[name]) for name in group]
        found = at_once(works, patience=longest)
        errors |= dict(zip(group, found, strict=True))
    return errors


def _error_of(name: str, call: Callable[[], object], longest: float) -> Exception:
    error: Exception = at_once([partial(_caught, name, call)], patience=longest)[0]
    return error


def _caught(name: str, call: Callable[[], object]) -> Exception:
    expected = f"{name}: an error of director-db"
    try:
        result = call()
    except DirectorDBError as error:
        return error
    except Exception as error:
        raise NonconformityError(expected, f"raised {shown_error(error)}", "LIF-6") from error
    raise NonconformityError(expected, f"returned {shown(result)}", "LIF-6")


def _answer_or_error(name: str, call: Callable[[], object], answer: object) -> None:
    try:
        found = call()
    except DirectorDBError:
        return
    except Exception as error:
        expected = f"{name}: an answer, or an error of director-db"
        raise NonconformityError(expected, f"raised {shown_error(error)}", "LIF-6") from error
    expect(found, answer, name)


def _expect_right_errors(
    fault: str, alone: dict[str, Exception], beside: dict[str, Exception], secrets: list[str]
) -> None:
    for name, error in alone.items():
        _expect_cause(name, error)
    for name, error in (alone | beside).items():
        _expect_right_error(fault, name, error)
        expect_no_secret(secrets, texts_of(error), f"the error of {name}, and those it came from")


def _expect_right_error(fault: str, name: str, error: Exception) -> None:
    """Fail unless an error says what a caller may conclude from the fault."""
    kinds: tuple[type[Exception], ...] = (BackendUnavailableError,)
    if fault not in _PASSING:
        kinds += (ConfigurationError, SchemaError)
    expected = f"{name}: {' or '.join(kind.__name__ for kind in kinds)}"
    expect_that(isinstance(error, kinds), expected, shown_error(error))
    if isinstance(error, BackendUnavailableError):
        flags = [error.retryable, error.maybe_applied and fault in _REFUSALS]
        about = f"{name}: retryable, and maybe_applied though it was refused, of {error}"
        expect(flags, [fault in _PASSING, False], about)


def _expect_cause(name: str, error: Exception) -> None:
    cause = error.__cause__
    # A backend may see by itself that a setting or a schema is wrong, without asking the driver.
    if cause is not None or isinstance(error, BackendUnavailableError):
        expected = f"{name}: the driver's exception as __cause__ of {shown_error(error)}"
        is_drivers = isinstance(cause, Exception) and not isinstance(cause, DirectorDBError)
        expect_that(is_drivers, expected, repr(type(cause)))


def _is_in_doubt(error: Exception) -> bool:
    return isinstance(error, BackendUnavailableError) and error.maybe_applied


@contextmanager
def _of_rule(rule: str) -> Iterator[None]:
    """Let what fails in the block be of another rule than the clause's."""
    try:
        yield
    except NonconformityError as error:
        error.rule = rule
        raise
