"""LIF-3 to LIF-6.

What others see of a write (LIF-1) is in `life_visibility`, LIF-2 is in `durability`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from director_db import (
    BackendUnavailableError,
    ClosedError,
    ConfigurationError,
    ConflictError,
    DirectorDBError,
    InvalidRecordError,
    PluginError,
    SchemaError,
    SessionExistsError,
    SessionNotFoundError,
    UnknownDBTypeError,
)
from director_db.loading import load_backend
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    full_session,
    message,
    msg_ids,
    new_session,
    put,
    session_ids,
    stored,
    unchanged,
)
from director_db_conformance.clauses.at_once import communicate, wait_until
from director_db_conformance.clauses.secrets import expect_no_secret, secrets_of, texts_of
from director_db_conformance.expectation import expect, expect_error, expect_that
from director_db_conformance.model import OPERATIONS, Model
from director_db_conformance.transcript import transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director_db_conformance.transcript import NewPlaces, RecordedDB, RecordedPlace

_OPEN_BY_URL: Final = """
for line in sys.stdin:
    name, _, url = line.strip().partition(" ")
    by_url = load_db(url)
    by_url.create_session(name)
    print(name, by_url.db_type, by_url is load_db(url))
"""

# For what a backend lets go of in the background, in seconds.
_PATIENCE: Final = 5.0


class LifeClauses:
    """First use, failures, closing, errors."""

    # --- LIF-3: failure -------------------------------------------------------------------------

    @clause("LIF-3")
    def test_lif_3_a_failed_call_changes_nothing(self, db: RecordedDB) -> None:
        """Whatever made a call fail, all that is stored is as it was before."""
        full_session(db)
        for kind, call, kwargs in _failures():
            with unchanged(db):
                expect_error(kind, getattr(db, call), **kwargs)

    @clause("LIF-3")
    def test_lif_3_no_part_of_a_refused_call_takes_effect(self, db: RecordedDB) -> None:
        """What is right in a call that is refused is not stored without the rest."""
        full_session(db)
        new_session(db, "without")
        bad, refused = [object()], InvalidRecordError
        with unchanged(db):
            expect_error(refused, db.update_session, "s1", video_id="v", metadata=bad)
            expect_error(refused, db.update_session, "s1", metadata=[1], updated_at=1.5)
            expect_error(refused, db.append_context_messages, "without", [1, bad])
            expect_error(refused, db.append_context_messages, "without", [1], key=5)
            expect_error(refused, db.add_or_update_context_msg, "without", [1], 1, 1.5)

    @clause("LIF-3")
    def test_lif_3_the_next_call_works(self, db: RecordedDB) -> None:
        """After a failed call, the next write and the next read work as if nothing had been."""
        full_session(db)
        for number, (kind, call, kwargs) in enumerate(_failures()):
            expect_error(kind, getattr(db, call), **kwargs)
            put(db, "s1", f"m{number}", number)
            expect(db.get_message("s1", f"m{number}")["content"], number, f"after {call}")
        expect(len(db.get_conversations("s1")), 2 + len(_failures()))

    @clause("LIF-3")
    def test_lif_3_failed_calls_in_a_row(self, db: RecordedDB) -> None:
        """An instance stays usable however many calls fail one after another."""
        full_session(db)
        with unchanged(db):
            for _ in range(3):
                for kind, call, kwargs in _failures():
                    expect_error(kind, getattr(db, call), **kwargs)
        expect([db.health_check()], [True])

    @clause("LIF-3", level="concurrent")
    def test_lif_3_a_failed_call_holds_nothing(self, place: RecordedPlace) -> None:
        """A call that failed leaves nothing locked that another instance needs."""
        one, other = place.open(), place.open()
        full_session(one)
        for number, (kind, call, kwargs) in enumerate(_failures()):
            expect_error(kind, getattr(one, call), **kwargs)
            put(other, "s1", f"m{number}", number)
            expect(one.get_message("s1", f"m{number}")["content"], number, f"after {call}")

    # --- LIF-4: first use -----------------------------------------------------------------------

    @clause("LIF-4")
    def test_lif_4_any_operation_may_be_the_first(self, more_places: NewPlaces) -> None:
        """On a new place every operation finds what it needs, and answers as on an empty one."""
        for operation in OPERATIONS:
            with more_places() as place, place.open() as db:
                call = getattr(db, operation.name)
                if operation.needs_session:
                    error = expect_error(SessionNotFoundError, call, **operation.example)
                    expect(error.session_id, "s1")
                else:
                    expected = getattr(Model(), operation.name)(**operation.example)
                    expect(call(**operation.example), expected, f"from {operation.name}")
                new_session(db)
                expect(session_ids(db.get_sessions()), ["s1"], f"after {operation.name}")
        with more_places() as place, place.open() as db:
            db.health()
            new_session(db)
            expect(session_ids(db.get_sessions()), ["s1"], "after health")

    @clause("LIF-4")
    def test_lif_4_the_first_call_may_be_a_read(self, db: RecordedDB) -> None:
        """On a new place, the first operation creates what is missing; there is nothing to read."""
        expect(db.get_sessions(limit=5, video_id="v"), [])
        expect(db.get_conversations("s1", limit=5), [])
        expect(db.get_context("s1"), {})

    @clause("LIF-4")
    def test_lif_4_the_first_call_may_be_a_delete(self, db: RecordedDB) -> None:
        """Deleting on a new place finds nothing, and is no error."""
        expect([*db.delete_session("s1")], [False, ["conversation", "context", "session"]])

    @clause("LIF-4")
    def test_lif_4_the_first_call_may_be_a_write_that_fails(self, db: RecordedDB) -> None:
        """A first write that has no session says so, and the place can be used from then on."""
        expect_error(SessionNotFoundError, put, db, "s1", "m")
        full_session(db)
        expect(msg_ids(db.get_conversations("s1")), ["a", "b"])

    @clause("LIF-4")
    def test_lif_4_the_first_call_may_be_refused(self, db: RecordedDB) -> None:
        """A first call with a bad value is refused, and the place can be used from then on."""
        expect_error(InvalidRecordError, db.create_session, "")
        expect_error(InvalidRecordError, db.get_sessions, limit=0)
        new_session(db)
        expect(session_ids(db.get_sessions()), ["s1"])

    @clause("LIF-4")
    def test_lif_4_health_check_creates_what_is_missing(self, db: RecordedDB) -> None:
        """A new place becomes usable by a health check, which says True."""
        expect([db.health_check(), db.health_check()], [True, True])
        expect(stored(db), [])
        full_session(db)
        with unchanged(db):
            expect([db.health_check()], [True])

    @clause("LIF-4")
    def test_lif_4_health_describes_the_place(self, db: RecordedDB, place: RecordedPlace) -> None:
        """health() names the DB type, the place, the versions of the parts, and what is at risk."""
        health = db.health()
        fields = ["db_type", "place", "versions", "warnings", "settings"]
        expect(list(health._fields), fields)
        expect(str(health.db_type), str(place.db_type))
        expect(health.place, db.place)
        for kind, parts in ((dict, health.versions), (list, health.warnings)):
            expect_that(type(parts) is kind, f"a {kind.__name__}", parts)
        texts = [*health.versions, *health.versions.values(), *health.warnings]
        texts += [*health.settings, *health.settings.values()]
        expect_that(all(type(text) is str for text in texts), "texts only", texts)
        expect_that(health.versions, "at least one version", health.versions)

    @clause("LIF-4")
    def test_lif_4_health_check_does_not_disturb(self, db: RecordedDB) -> None:
        """A health check between two calls, or after a failed one, changes nothing."""
        full_session(db)
        with unchanged(db):
            expect_error(SessionNotFoundError, put, db, "nobody", "m")
            expect([db.health_check()], [True])
            expect_error(InvalidRecordError, put, db, "s1", "a", {1: 2})
            expect([db.health_check()], [True])

    @clause("LIF-4", needs="connections")
    def test_lif_4_an_instance_opens_nothing_before_it_is_used(self, place: RecordedPlace) -> None:
        """To make an instance costs nothing; the first call opens what it needs."""
        assert place.place.connections is not None  # noqa: S101 - for type checkers
        for _ in range(2):
            before = set(place.place.connections(os.getpid()))
            db = place.open()
            opened = set(place.place.connections(os.getpid())) - before
            expect(sorted(opened), [], "what the constructor has opened")
            expect([db.place, db.closed, repr(db)], [db.place, False, repr(db)])
            opened = set(place.place.connections(os.getpid())) - before
            expect(sorted(opened), [], "what was opened before the first call")
            new_session(db)
            opened = set(place.place.connections(os.getpid())) - before
            expect_that(opened, "something that the first call has opened", "nothing")

    @clause("LIF-4", level="concurrent", needs="url")
    def test_lif_4_a_url_opens_the_place_that_it_names(
        self, place: RecordedPlace, more_places: NewPlaces
    ) -> None:
        """A URL names the database, whatever the environment says of another one."""
        scheme, _, rest = str(place.place.url).partition("://")
        schemes = {scheme, *load_backend(place.db_type).spec.url_schemes}
        with more_places() as other:
            # By a pipe, since it may hold a password.
            urls = "".join(f"{name} {name}://{rest}\n" for name in sorted(schemes))
            process = other.python(_OPEN_BY_URL)
            output, errors = communicate(process, urls)
            expected = [f"{name} {place.db_type} True" for name in sorted(schemes)]
            found = [output.splitlines(), errors, process.returncode]
            expect(found, [expected, "", 0], "what was opened by each scheme, and the exit status")
            found = sorted(session_ids(place.open().get_sessions()))
            expect(found, sorted(schemes), "the sessions stored by URL")
            expect(other.open().get_sessions(), [], "the sessions of the environment's place")

    @clause("LIF-4", level="concurrent")
    def test_lif_4_a_second_first_use_changes_nothing(self, place: RecordedPlace) -> None:
        """An instance that opens a place in use finds what is there and keeps it."""
        one = place.open()
        full_session(one)
        for number in range(3):
            other = place.open()
            with unchanged(one):
                expect([other.health_check()], [True])
                expect(stored(other), stored(one))
            put(other, "s1", f"m{number}")
        expect(msg_ids(one.get_conversations("s1")), ["a", "b", "m0", "m1", "m2"])

    # --- LIF-5: closing -------------------------------------------------------------------------

    @clause("LIF-5")
    def test_lif_5_no_operation_after_close(self, db: RecordedDB) -> None:
        """A closed instance raises ClosedError for every operation, before it looks at anything."""
        full_session(db)
        expect(db.close(), None)
        for operation in OPERATIONS:
            call = getattr(db, operation.name)
            expect_error(ClosedError, call, **operation.example)
            expect_error(ClosedError, call, **(operation.example | operation.refused))
        expect_error(ClosedError, db.health)
        expect_error(ClosedError, db.__enter__)

    @clause("LIF-5")
    def test_lif_5_closing_twice_does_nothing(self, db: RecordedDB) -> None:
        """close() may be called as often as one likes."""
        new_session(db)
        for _ in range(3):
            expect(db.close(), None)
        expect([db.closed], [True])

    @clause("LIF-5")
    def test_lif_5_closing_what_was_never_used(self, db: RecordedDB) -> None:
        """An instance that never did anything can be closed, and is closed from then on."""
        expect([db.closed], [False])
        for _ in range(2):
            expect(db.close(), None)
        expect([db.closed], [True])
        expect_error(ClosedError, db.get_sessions)

    @clause("LIF-5")
    def test_lif_5_closing_lets_go_of_what_was_opened(self, place: RecordedPlace) -> None:
        """A closed instance holds no file and no connection, also if somebody still holds it."""
        for _ in range(3):  # Whatever the first uses in a process open for good.
            _use_and_close(place)
        before = _open_descriptors()
        closed = [_use_and_close(place) for _ in range(12)]
        # Something else in this process may open a file meanwhile, and a connection may end a
        # little later than it was let go; but not each of them.
        wait_until(
            lambda: _open_descriptors() - before < len(closed) // 2,
            f"no descriptors left open by {len(closed)} closed handles",
            patience=_PATIENCE,
        )

    @clause("LIF-5")
    def test_lif_5_health_check_is_false_after_close(self, db: RecordedDB) -> None:
        """A closed instance is not healthy, and says so without an error."""
        expect([db.health_check()], [True])
        db.close()
        expect([db.health_check(), db.health_check()], [False, False])

    @clause("LIF-5")
    def test_lif_5_what_goes_on_working(self, db: RecordedDB, place: RecordedPlace) -> None:
        """A closed instance still says what it was, and that it is closed."""
        new_session(db)
        before = [db.place, str(db.db_type)]
        expect_that(db.place in repr(db), "the place in the repr", repr(db))
        db.close()
        expect([db.place, str(db.db_type)], before)
        expect(str(db.db_type), str(place.db_type))
        expect_that(db.place in repr(db), "the place in the repr", repr(db))
        expect([db.closed], [True])

    @clause("LIF-5")
    def test_lif_5_leaving_with_closes(self, place: RecordedPlace) -> None:
        """An instance that was built directly ends with its block."""
        db = place.open()
        with db as entered:
            expect_that(entered is db, "the instance itself", entered)
            new_session(entered)
            expect([db.closed], [False])
        expect([db.closed], [True])
        expect_error(ClosedError, db.get_sessions)

    @clause("LIF-5")
    def test_lif_5_an_error_in_the_block_is_not_swallowed(self, place: RecordedPlace) -> None:
        """A block that ends with an error closes the instance, and the error goes on."""
        db = place.open()
        new_session(db)

        def use() -> None:
            with db.instance:
                db.update_session("nobody")

        expect_error(SessionNotFoundError, use)
        expect([db.closed], [True])

    @clause("LIF-5", level="concurrent")
    def test_lif_5_closing_one_leaves_the_others(self, place: RecordedPlace) -> None:
        """Another instance on the same place is not disturbed by a close."""
        one, other = place.open(), place.open()
        full_session(one)
        before = stored(other)
        one.close()
        expect(stored(other), before)
        put(other, "s1", "c")
        expect(msg_ids(other.get_conversations("s1")), ["a", "b", "c"])
        one.close()
        expect([other.closed, other.health_check()], [False, True])

    @clause("LIF-5", level="concurrent")
    def test_lif_5_load_db_is_not_closed_by_with(self, place: RecordedPlace) -> None:
        """What load_db() gives is shared in a process, so the end of a block does not close it."""
        process = place.python(
            "with db as entered:\n"
            "    entered.create_session('s1')\n"
            "with load_db() as again:\n"
            "    print(again is db, db.closed, db.get_session('s1')['session_id'])\n"
            "db.close()\n"
            "print(db.closed, load_db().get_session('s1')['session_id'])\n"
        )
        output, errors = process.communicate(timeout=60)
        expect([errors, process.returncode], ["", 0])
        expect(output.split("\n"), ["True False s1", "True s1", ""])

    # --- LIF-6: errors and secrets --------------------------------------------------------------

    @clause("LIF-6")
    def test_lif_6_errors_have_their_parents(self, db: RecordedDB) -> None:
        """Each error is ours and also the built-in one that callers expect for its kind."""
        parents: tuple[tuple[type[DirectorDBError], type[Exception]], ...] = (
            (ConfigurationError, ValueError),
            (UnknownDBTypeError, ConfigurationError),
            (PluginError, ImportError),
            (InvalidRecordError, ValueError),
            (SessionNotFoundError, LookupError),
            (BackendUnavailableError, ConnectionError),
            (SchemaError, DirectorDBError),
            (ClosedError, RuntimeError),
        )
        for error, parent in parents:
            expect_that(
                {DirectorDBError, parent} <= set(error.__mro__),
                f"{error.__name__} is a DirectorDBError and a {parent.__name__}",
                error.__mro__,
            )
        refused = expect_error(InvalidRecordError, db.create_session, "x" * 256)
        expect(refused.path, "session_id")
        expect_that(refused.reason in str(refused), "a message with the reason", str(refused))
        expect_that(len(refused.reason) > 0, "a reason", refused.reason)
        missing = expect_error(SessionNotFoundError, put, db, "nobody", "m")
        expect(missing.session_id, "nobody")
        expect_that("nobody" in str(missing), "a message that names the session", str(missing))

    @clause("LIF-6")
    def test_lif_6_every_error_is_ours(self, db: RecordedDB) -> None:
        """Nothing that a caller can pass makes an exception of the driver come out."""
        full_session(db)
        odd: tuple[Any, ...] = (
            "\0",
            "\ud800",
            "x" * 300,
            10**30,
            10**5000,
            -1,
            float("nan"),
            b"\0",
        )
        odd += (None, True, object(), [], {}, "'; --", "%s %d {}", "\U0010ffff")
        for value in odd:
            for call, kwargs in _calls_with(value):
                transcript.clear()
                _expect_no_foreign_error(getattr(db, call), kwargs)
        expect([db.health_check()], [True])

    @clause("LIF-6")
    def test_lif_6_no_password_shows(self, db: RecordedDB, place: RecordedPlace) -> None:
        """A password of the place is in no repr, no health report and no message or traceback."""
        health = db.health()
        texts = [repr(db), db.place, repr(health), str(health), repr(place.place)]
        errors: list[Exception] = [
            expect_error(SessionNotFoundError, put, db, "nobody", "m"),
            expect_error(InvalidRecordError, db.create_session, ""),
        ]
        db.close()
        errors.append(expect_error(ClosedError, db.get_sessions))
        texts.append(repr(db))
        for error in errors:
            texts += texts_of(error)
        expect_no_secret(secrets_of(place.place), texts, "reprs, health and errors")


def _use_and_close(place: RecordedPlace) -> RecordedDB:
    """Open a handle, write and read on it, close it."""
    db = place.open()
    db.create_session("s1")
    put(db, "s1", "m")
    db.add_or_update_context_msg("s1", [1])
    expect(msg_ids(db.get_conversations("s1")), ["m"])
    db.close()
    return db


def _open_descriptors() -> int:
    """Return how many files and connections this process has open; 0 where no system tells."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len([*Path(folder).iterdir()])
    return 0


def _failures() -> list[tuple[type[DirectorDBError], str, dict[str, Any]]]:
    """Return calls that fail on what `full_session` has made, with what they raise."""
    bad = {"deep": [object()]}
    known = {**message("a", bad), "session_id": "s1"}
    put_many = "add_or_update_msgs_to_conv"
    two = [message("a"), message("b")]
    return [
        *(
            (SessionNotFoundError, operation.name, operation.example | {"session_id": "nobody"})
            for operation in OPERATIONS
            if operation.needs_session
        ),
        (SessionNotFoundError, put_many, {"session_id": "nobody", "messages": two}),
        *(
            (InvalidRecordError, operation.name, operation.example | operation.refused)
            for operation in OPERATIONS
            if operation.changes != "nothing" and not operation.name.startswith(("delete_", "pop_"))
        ),
        (InvalidRecordError, "create_session", {"session_id": "s9", "created_at": 1.5}),
        (InvalidRecordError, "add_or_update_msg_to_conv", known),
        (
            InvalidRecordError,
            "add_or_update_msg_to_conv",
            known | {"content": "new", "status": "x" * 256},
        ),
        (
            InvalidRecordError,
            put_many,
            {"session_id": "s1", "messages": [message("a", "new"), message("c", bad)]},
        ),
        (
            InvalidRecordError,
            "add_or_update_context_msg",
            {"session_id": "s1", "context_messages": bad},
        ),
        (
            InvalidRecordError,
            "append_context_messages",
            {"session_id": "s1", "messages": [1, bad]},
        ),
    ]


def _calls_with(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield calls with a value in each argument by itself, then in all arguments but the ids."""
    for operation in OPERATIONS:
        for name in operation.arguments:
            yield operation.name, operation.example | {name: value}
        others = [name for name in operation.arguments if name not in {"session_id", "msg_id"}]
        yield operation.name, operation.example | dict.fromkeys(others, value)
    for key in ("session_id", "created_at", "updated_at"):
        cursor = {"session_id": "s1", "created_at": 1, "updated_at": 1, key: value}
        yield "get_sessions", {"before": cursor}
    times = dict.fromkeys(["created_at", "updated_at"], value)
    yield "create_session", {"session_id": "new", "metadata": value, "video_id": value, **times}
    messages = [message("m", value), message(value)]
    yield "add_or_update_msgs_to_conv", {"session_id": "s1", "messages": messages}
    yield "append_context_messages", {"session_id": "s1", "messages": [value]}


def _expect_no_foreign_error(call: Callable[..., object], kwargs: dict[str, Any]) -> None:
    try:
        call(**kwargs)
    except (ConflictError, InvalidRecordError, SessionExistsError, SessionNotFoundError):
        return
    except Exception as error:  # noqa: BLE001 - any other is what is looked for
        kinds = [kind.__name__ for kind in type(error).__mro__]
        expect_that(kinds == [], "a result, or InvalidRecordError", f"{kinds[0]}: {error}")
