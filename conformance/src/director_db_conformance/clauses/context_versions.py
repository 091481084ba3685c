"""CTX-5: saving on top of what was read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db import UNSET, ConflictError, InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import full_session, new_session, put, unchanged
from director_db_conformance.clauses.at_once import (
    THREADS,
    TOGETHER,
    at_once,
    finish_all,
    processes,
    wait_until,
)
from director_db_conformance.expectation import (
    NonconformityError,
    expect,
    expect_error,
    expect_that,
)

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB, RecordedPlace

# A backend may store them in parts or as one text.
_CONTEXTS: Final[tuple[Any, ...]] = (
    {"reasoning": [1], "rest": 1},
    {"reasoning": [1, 2], "rest": 1},
    {"reasoning": [1, 2], "rest": 2},
    [1, 2, 3],
    [],
    {},
    {"reasoning": ["\ud800"]},
    "text",
    None,
    {"reasoning": [1], "rest": 1},
)

_STRANGE: Final = ("", "0", "x", "0" * 16, "f" * 16, "-" + "1" * 15, "\u0661" * 16, "x" * 255)
"""Texts that no context ever had for a version."""


def _version(db: RecordedDB) -> Any:
    return db.get_context("s1").get("version")


def _expect_conflict(db: RecordedDB, version: Any, value: Any = "late") -> None:
    """Fail unless a save on top of that version is refused, and leaves everything as it is."""
    now_stored = _version(db)
    with unchanged(db):
        error = expect_error(
            ConflictError,
            partial(db.add_or_update_context_msg, "s1", value, 5, 2**40, if_version=version),
        )
    expect([error.session_id, error.version], ["s1", now_stored], "what the error says")


class ContextVersionClauses:
    """Versions of a context, and saves on top of one."""

    @clause("CTX-5")
    def test_ctx_5_each_save_and_append_makes_a_new_version(self, db: RecordedDB) -> None:
        """What is stored anew has a version that it never had, also if the value is the same."""
        new_session(db)
        seen = []
        for value in _CONTEXTS:
            for _ in range(2):
                told = db.add_or_update_context_msg("s1", value)
                expect(_version(db), told, "the version after a save, and what the save returned")
                seen.append(told)
            if isinstance(value, dict):
                for items in ([], [1]):
                    db.append_context_messages("s1", items)
                    seen.append(_version(db))
        expect({type(version) for version in seen}, {str})
        expect(len({*seen}), len(seen), "different versions")
        last = _version(db)
        put(db, "s1", "m")
        db.update_session("s1", metadata=1)
        db.get_context_messages("s1")
        expect(_version(db), last, "the version after what is no save")

    @clause("CTX-5")
    def test_ctx_5_stores_only_on_top_of_the_version(self, db: RecordedDB) -> None:
        """With the stored version a save is stored as ever; with an earlier one it is refused."""
        full_session(db)
        versions = [_version(db)]
        for number, value in enumerate(_CONTEXTS):
            version = db.add_or_update_context_msg(
                "s1", value, 5, 6, {"n": number}, if_version=versions[-1]
            )
            found = db.get_context("s1")
            expect(
                [found[key] for key in ("context", "created_at", "updated_at", "metadata")],
                [value, 5, 6, {"n": number}],
            )
            for earlier in versions[-2:]:
                _expect_conflict(db, earlier, value)
            versions.append(version)
        # Refused saves have left nothing behind by which a later one is taken for an earlier.
        db.add_or_update_context_msg("s1", [1, 2, 3], if_version=versions[-1])
        expect(db.get_context_messages("s1"), [1, 2, 3])
        db.add_or_update_context_msg("s1", [1, 2, 4])
        expect(db.get_context_messages("s1"), [1, 2, 4])

    @clause("CTX-5")
    def test_ctx_5_a_stored_save_is_as_any_other(self, db: RecordedDB) -> None:
        """Times and the session's last activity follow it, and what is left out its default."""
        new_session(db)
        version = db.add_or_update_context_msg("s1", [1], 5, 6, {"k": 1}, if_version=None)
        db.add_or_update_context_msg("s1", [2], updated_at=2000, if_version=version)
        found = db.get_context("s1")
        expect([found["created_at"], found["updated_at"], found["metadata"]], [5, 2000, {}])
        expect(db.get_session("s1")["updated_at"], 2000)

    @clause("CTX-5")
    def test_ctx_5_an_append_is_a_change(self, db: RecordedDB) -> None:
        """What was read before an append is stale, also if the append was empty."""
        new_session(db)
        version = db.add_or_update_context_msg("s1", {"reasoning": [1]})
        for items in ([2], []):
            db.append_context_messages("s1", items)
            _expect_conflict(db, version, {"reasoning": [1, "late"]})
            version = _version(db)
        db.add_or_update_context_msg("s1", {"reasoning": [1, 2, 3]}, if_version=version)
        expect(db.append_context_messages("s1", [4]), 4)
        expect(db.get_context_messages("s1"), {"reasoning": [1, 2, 3, 4]})

    @clause("CTX-5")
    def test_ctx_5_none_stands_for_no_context(self, db: RecordedDB) -> None:
        """None is the version of a context that is not there, so the first save has one, too."""
        new_session(db)
        for value in _CONTEXTS:
            expect(db.get_context("s1").get("version"), None)
            _expect_conflict(db, "f" * 16)
            version = db.add_or_update_context_msg("s1", value, if_version=None)
            expect(db.get_context_messages("s1"), value)
            _expect_conflict(db, None)
            db.delete_context("s1")
            _expect_conflict(db, version)

    @clause("CTX-5")
    def test_ctx_5_a_version_does_not_come_back(self, db: RecordedDB) -> None:
        """A context that was deleted and stored again is another one, be it equal."""
        seen = set()
        for value in ({"reasoning": [1]}, [1], 1):
            for remove in (db.delete_context, db.delete_session) * 2:
                new_session(db)
                version = db.add_or_update_context_msg("s1", value, 5, 5)
                remove("s1")
                new_session(db)
                again = db.add_or_update_context_msg("s1", value, 5, 5)
                _expect_conflict(db, version, value)
                seen |= {version, again}
                db.delete_session("s1")
        expect(len(seen), 24, "different versions")

    @clause("CTX-5")
    def test_ctx_5_unset_is_as_left_out(self, db: RecordedDB) -> None:
        """Without a version a save is stored on top of any, and of none."""
        new_session(db)
        for value in _CONTEXTS:
            db.add_or_update_context_msg("s1", value, if_version=UNSET)
            expect(db.get_context_messages("s1"), value)

    @clause("CTX-5")
    def test_ctx_5_a_version_is_checked_as_every_argument(self, db: RecordedDB) -> None:
        """It is a text or None; one that was never given out is a conflict, whatever it is."""
        full_session(db)
        refused: list[Any] = [5, 0, True, b"a", ["a"], "x" * 256, "a\0", "\ud800"]
        with unchanged(db):
            for bad in refused:
                for name in ("s1", "nobody"):
                    call = partial(db.add_or_update_context_msg, name, [], if_version=bad)
                    expect(expect_error(InvalidRecordError, call).path, "if_version")
        version = _version(db)
        for strange in (*_STRANGE, version.upper() + " ", f" {version}", version[:-1]):
            _expect_conflict(db, strange)
        db.delete_context("s1")
        for strange in _STRANGE:
            _expect_conflict(db, strange)

    @clause("CTX-5")
    def test_ctx_5_a_missing_session_is_no_conflict(self, db: RecordedDB) -> None:
        """Where there is no session, the error says so, whatever version is given."""
        new_session(db)
        version = db.add_or_update_context_msg("s1", [1])
        db.delete_session("s1")
        with unchanged(db):
            for known in (version, None, "x", UNSET):
                call = partial(db.add_or_update_context_msg, "s1", [], if_version=known)
                expect(expect_error(SessionNotFoundError, call).session_id, "s1")

    @clause("CTX-5", level="concurrent")
    def test_ctx_5_who_saved_last_does_not_know_better(self, place: RecordedPlace) -> None:
        """A handle that remembers what it has saved still finds that another one came after."""
        one, other = place.open(), place.open()
        new_session(one)
        for value in ({"reasoning": [1], "rest": 1}, [1], "text"):
            version = one.add_or_update_context_msg("s1", value)
            newer = other.add_or_update_context_msg("s1", {"reasoning": ["theirs"]})
            _expect_conflict(one, version, value)
            one.add_or_update_context_msg("s1", value, if_version=newer)
            expect(other.get_context_messages("s1"), value)
            _expect_conflict(other, newer)

    @clause("CTX-5", level="concurrent")
    def test_ctx_5_of_saves_at_once_one_is_stored(self, place: RecordedPlace) -> None:
        """Of those who save on top of one version, one wins and all others are told."""
        handles = [place.open(), place.open()]
        new_session(handles[0])

        def save(version: Any, number: int) -> str | None:
            db = handles[number % 2]
            value: Any = {"reasoning": [number] * 20} if number % 3 else [number]
            try:
                told = db.add_or_update_context_msg("s1", value, if_version=version)
            except ConflictError as error:
                expect_that(error.version not in {None, version}, "the version that won", error)
                return None
            return str(told)

        version = None
        for _ in range(12):
            told = at_once([partial(save, version, number) for number in range(THREADS)])
            (winner,) = [number for number, version in enumerate(told) if version is not None]
            found = handles[0].get_context("s1")
            expected = {"reasoning": [winner] * 20} if winner % 3 else [winner]
            expect([found["context"], found["version"]], [expected, told[winner]])
            version = found["version"]

    @clause("CTX-5", level="concurrent")
    def test_ctx_5_no_step_of_threads_and_processes_is_lost(self, place: RecordedPlace) -> None:
        """Who reads, adds one, and saves on top of what was read, adds one to the whole."""
        db = place.open()
        new_session(db)
        db.add_or_update_context_msg("s1", {"reasoning": [0], "n": 0})

        def work() -> None:
            wait_until(lambda: db.get_context_messages("s1")["n"], "a process begins")
            for _ in range(_STEPS):
                add_one(db)

        with processes(place, _ADD_ONES, 3) as workers:
            at_once([partial(finish_all, workers), work, work])
        found = db.get_context_messages("s1")
        expect([found["n"], found["reasoning"]], [5 * _STEPS, [*range(5 * _STEPS + 1)]])


_STEPS: Final = 9
_MOST_TRIES: Final = 1000

_ADD_ONES: Final = f"""{TOGETHER}
from director_db_conformance.clauses.context_versions import add_one
for step in range({_STEPS}):
    together()
    add_one(db)
"""


def add_one(db: Any) -> None:
    """Add one to the context of ``s1``, on top of what is stored then."""
    for _ in range(_MOST_TRIES):
        found = db.get_context("s1")
        value = found["context"]
        value["n"] += 1
        value["reasoning"].append(value["n"])
        try:
            db.add_or_update_context_msg("s1", value, if_version=found["version"])
        except ConflictError:
            continue
        return
    expected = "a save on top of what was read"
    raise NonconformityError(expected, f"{_MOST_TRIES} conflicts")
