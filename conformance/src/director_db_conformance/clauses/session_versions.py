"""SES-8: changing a session on top of what was read, and merging its metadata."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db import UNSET, ConflictError, InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    fields,
    full_session,
    new_session,
    put,
    unchanged,
)
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

# RFC 7396, appendix A: what is stored, the patch, the result. Of no patch at all the RFC says null
# where `metadata` None stands for {} (VAL-8).
_RFC_7396: Final[tuple[tuple[Any, Any, Any], ...]] = (
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, {}),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
)

_RFC_7396_SECTION_3: Final = (
    {
        "title": "Goodbye!",
        "author": {"givenName": "John", "familyName": "Doe"},
        "tags": ["example", "sample"],
        "content": "This will be unchanged",
    },
    {
        "title": "Hello!",
        "phoneNumber": "+01-123-456-7890",
        "author": {"familyName": None},
        "tags": ["example"],
    },
    {
        "title": "Hello!",
        "author": {"givenName": "John"},
        "tags": ["example"],
        "content": "This will be unchanged",
        "phoneNumber": "+01-123-456-7890",
    },
)

_EXACT: Final[dict[str, Any]] = {
    "z": 1.0, "zero": -0.0, "int": 10**400, "big": 2**64 + 1, "float": 1e16, "small": 5e-324,
    "nul\0": "a\0b", "\ud800": "\udfff", "\u00e9": "e\u0301", "": {"": [None, {"b": 1, "a": 2.0}]},
    "astral": "\U0001f600", "two": "\ud83d\ude00", "yes": True, "null": None, "a.b": {"$": []},
}  # fmt: skip
"""What is easily changed on the way, under keys in no order."""

_CHANGES: Final[tuple[dict[str, Any], ...]] = (
    {"video_id": "v2"},
    {"video_id": None},
    {"video_id": ""},
    {"video_id": "None"},
    {"collection_id": None},
    {"collection_id": "v2"},
    {"user_id": "u1"},
    {"user_id": "u2", "video_id": "u1"},
    {"metadata": {"a": 1, "b": 2}},
    {"metadata": {"b": 2, "a": 1}},
    {"metadata": {"b": 2, "a": 1.0}},
    {"metadata": None},
    {"metadata": []},
)


def _version(db: RecordedDB) -> Any:
    return db.get_session("s1").get("version")


def _expect_conflict(db: RecordedDB, version: Any, **changes: Any) -> None:
    """Fail unless a change on top of that version is refused, and leaves everything as it is."""
    now_stored = _version(db)
    with unchanged(db):
        error = expect_error(
            ConflictError,
            partial(db.update_session, "s1", **changes, updated_at=2**40, if_version=version),
        )
    expect([error.session_id, error.version], ["s1", now_stored], "what the error says")


class SessionVersionClauses:
    """Versions of a session, changes on top of one, and merge patches."""

    # --- Versions -------------------------------------------------------------------------------

    @clause("SES-8")
    def test_ses_8_a_version_tells_what_update_session_changes(self, db: RecordedDB) -> None:
        """It is another one for every change but of the time, and the same for the same again."""
        new_session(db)
        first = _version(db)
        seen = [first]
        for change in _CHANGES:
            db.update_session("s1", **change)
            seen.append(_version(db))
            expect(db.get_sessions()[0], db.get_session("s1"))
        expect({type(version) for version in seen}, {str})
        expect(len({*seen}), len(seen), "different versions")
        last = seen[-1]
        db.update_session("s1")
        db.update_session("s1", updated_at=5)
        put(db, "s1", "m")
        db.append_context_messages("s1", [1])
        expect(_version(db), last, "the version after what changes none of the four")
        same = {"video_id": "v1", "collection_id": "c1", "user_id": None, "metadata": {"k": [1]}}
        db.update_session("s1", **same)
        expect(_version(db), first, "the version of the same again")

    @clause("SES-8")
    def test_ses_8_changes_only_on_top_of_the_version(self, db: RecordedDB) -> None:
        """With the stored version a session is changed as ever; with another one it is not."""
        full_session(db)
        stale = ["x"]
        for time, change in enumerate(_CHANGES):
            version = _version(db)
            for other in stale[-2:]:
                _expect_conflict(db, other, **change)
            before = db.get_session("s1")
            told = db.update_session("s1", **change, updated_at=time, if_version=version)
            expect(told, None)
            changed = {key: {} if key == "metadata" and value is None else value
                       for key, value in change.items()}  # fmt: skip
            expect(fields(db.get_session("s1")), fields(before) | changed | {"updated_at": time})
            stale.append(version)
        db.update_session("s1", updated_at=7, if_version=_version(db))
        expect(db.get_session("s1")["updated_at"], 7)
        _expect_conflict(db, stale[-1])

    @clause("SES-8")
    def test_ses_8_none_stands_for_no_session(self, db: RecordedDB) -> None:
        """None is what a session that is not there has for a version."""
        for known in (db.get_session("s1").get("version"), "x", UNSET):
            for merge in (False, True):
                call = partial(
                    db.update_session, "s1", metadata={"a": 1}, merge=merge, if_version=known
                )
                expect(expect_error(SessionNotFoundError, call).session_id, "s1")
        expect(db.get_sessions(), [])
        new_session(db)
        _expect_conflict(db, None, metadata={})
        db.update_session("s1", video_id="v2", if_version=UNSET, merge=True)
        expect(db.get_session("s1")["video_id"], "v2")

    @clause("SES-8")
    def test_ses_8_its_arguments_are_checked(self, db: RecordedDB) -> None:
        """A version is a text or None, `merge` is True or False, and a patch any payload."""
        full_session(db)
        versions: list[Any] = [5, 0, True, b"a", ["a"], "x" * 256, "a\0", "\ud800"]
        flags: list[Any] = [1, 0, None, "yes", []]
        patches: list[tuple[str, Any]] = [
            ("metadata.a", {"a": float("nan")}),
            ("metadata.a.b", {"a": {"b": b""}}),
            ("metadata", {1: 2}),
        ]
        refused: list[tuple[str, dict[str, Any]]] = [
            *(("if_version", {"if_version": bad, "metadata": {}}) for bad in versions),
            *(("merge", {"merge": bad, "metadata": {}}) for bad in flags),
            *((path, {"merge": True, "metadata": bad}) for path, bad in patches),
        ]
        with unchanged(db):
            for path, arguments in refused:
                for name in ("s1", "nobody"):
                    call = partial(db.update_session, name, **arguments)
                    expect(expect_error(InvalidRecordError, call).path, path)
        for strange in ("", "0", "x" * 255, f" {_version(db)}", _version(db)[:-1]):
            _expect_conflict(db, strange, metadata={})

    # --- Merging --------------------------------------------------------------------------------

    @clause("SES-8")
    def test_ses_8_merges_as_rfc_7396_says(self, db: RecordedDB) -> None:
        """All examples of the RFC, and its document that is patched."""
        new_session(db)
        for stored, patch, merged in (*_RFC_7396, _RFC_7396_SECTION_3):
            db.update_session("s1", metadata=stored)
            db.update_session("s1", metadata=patch, merge=True)
            expect(db.get_session("s1")["metadata"], merged, f"{stored} with {patch}")

    @clause("SES-8")
    def test_ses_8_a_merge_keeps_what_it_does_not_name(self, db: RecordedDB) -> None:
        """Every other value comes back exactly, and every key stays in its place."""
        new_session(db)
        for outer in (False, True):
            stored: dict[str, Any] = {"o": _EXACT, "p": 1} if outer else {**_EXACT}
            db.update_session("s1", metadata=stored)
            expect(db.get_session("s1")["metadata"], stored)
            inner = {"new": {"d": None, "c": [None, 1.0]}, "z": 2, "yes": None, "first": -0.0}
            db.update_session("s1", metadata={"o": inner} if outer else inner, merge=True)
            merged = {key: 2 if key == "z" else value for key, value in _EXACT.items()}
            del merged["yes"]
            merged |= {"new": {"c": [None, 1.0]}, "first": -0.0}
            expect(db.get_session("s1")["metadata"], {"o": merged, "p": 1} if outer else merged)
        db.update_session("s1", metadata={"a": 1, "b": 2, "c": 3})
        db.update_session("s1", metadata={"d": 4, "b": None, "a": {"x": {}}}, merge=True)
        expect(db.get_session("s1")["metadata"], {"a": {"x": {}}, "c": 3, "d": 4})

    @clause("SES-8")
    def test_ses_8_a_merge_is_a_change_as_any_other(self, db: RecordedDB) -> None:
        """The other fields, the time and the parts of the session are as without it."""
        full_session(db)
        before = db.get_session("s1")
        parts = db.get_conversations("s1"), db.get_context("s1")
        db.update_session("s1", metadata={"l": 2}, video_id=None, updated_at=3, merge=True)
        expected: dict[str, Any] = {"video_id": None, "updated_at": 3}
        expected["metadata"] = {"k": [1], "l": 2}
        expect(fields(db.get_session("s1")), fields(before) | expected)
        db.update_session("s1", user_id="u1", updated_at=4, merge=True)
        expected |= {"user_id": "u1", "updated_at": 4}
        expect(fields(db.get_session("s1")), fields(before) | expected)
        db.update_session("s1", metadata={"l": 2}, updated_at=5, merge=False)
        expect(db.get_session("s1")["metadata"], {"l": 2})
        expect((db.get_conversations("s1"), db.get_context("s1")), parts)
        full_session(db, "s2")
        with unchanged(db):
            time = db.get_session("s1")["updated_at"]
            db.update_session("s1", metadata={}, updated_at=time, merge=True)
            db.update_session("s1", metadata={"none": None}, updated_at=time, merge=True)

    @clause("SES-8")
    def test_ses_8_a_merge_on_top_of_a_version(self, db: RecordedDB) -> None:
        """Both at once: the patch goes into that very metadata, or nowhere."""
        new_session(db)
        version = _version(db)
        db.update_session("s1", metadata={"l": 2}, merge=True, if_version=version)
        expect(db.get_session("s1")["metadata"], {"k": [1], "l": 2})
        _expect_conflict(db, version, metadata={"l": 3}, merge=True)
        db.update_session("s1", metadata={"k": None}, merge=True, if_version=_version(db))
        expect(db.get_session("s1")["metadata"], {"l": 2})

    @clause("SES-8")
    def test_ses_8_merged_metadata_keeps_its_bounds(self, db: RecordedDB) -> None:
        """Two parts that are together too long are refused, and what was stored stays."""
        new_session(db)
        half = "x" * (33 * 1024 * 1024)
        db.update_session("s1", metadata={"a": half})
        call = partial(db.update_session, "s1", metadata={"b": half}, video_id="late", merge=True)
        expect(expect_error(InvalidRecordError, call).path, "metadata")
        found = db.get_session("s1")
        expect([found["video_id"], len(found["metadata"]["a"])], ["v1", len(half)])
        expect(list(found["metadata"]), ["a"])
        deep: Any = 1
        for _ in range(200):
            deep = {"a": deep}
        for patch, merged in ((deep, deep), ({"b": 1}, {**deep, "b": 1})):
            db.update_session("s1", metadata=patch, merge=True)
            expect(db.get_session("s1")["metadata"], merged)

    # --- At once --------------------------------------------------------------------------------

    @clause("SES-8", level="concurrent")
    def test_ses_8_merges_of_different_keys_at_once_all_stay(self, place: RecordedPlace) -> None:
        """Whoever merges keys of his own finds them, whatever others merge, and so do they."""
        handles = [place.open(), place.open()]
        new_session(handles[0])

        def work(number: int) -> None:
            db, own = handles[number % 2], f"w{number}"
            for step in range(12):
                db.update_session(
                    "s1", metadata={own: step, "all": {own: {"n": step}}}, merge=True, updated_at=1
                )
                found = db.get_session("s1")["metadata"]
                expect([found[own], found["all"][own]], [step, {"n": step}], own)

        at_once([partial(work, number) for number in range(THREADS)])
        found = handles[1].get_session("s1")["metadata"]
        expect(found.pop("k"), [1])
        nested = found.pop("all")
        expect({key: found[key] for key in sorted(found)}, {f"w{n}": 11 for n in range(THREADS)})
        expect({key: nested[key] for key in sorted(nested)},
               {f"w{n}": {"n": 11} for n in range(THREADS)})  # fmt: skip

    @clause("SES-8", level="concurrent")
    def test_ses_8_of_changes_at_once_one_is_stored(self, place: RecordedPlace) -> None:
        """Of those who change a session on top of one version, one wins and the others hear it."""
        handles = [place.open(), place.open()]
        new_session(handles[0])

        def change(version: str, step: int, number: int) -> bool:
            patch = {"by": [step, number]}
            try:
                handles[number % 2].update_session(
                    "s1", metadata=patch, merge=number % 3 > 0, if_version=version
                )
            except ConflictError as error:
                expect_that(error.version != version, "the version that won", error)
                return False
            return True

        for step in range(12):
            version = _version(handles[0])
            told = at_once([partial(change, version, step, number) for number in range(THREADS)])
            (winner,) = [number for number, is_stored in enumerate(told) if is_stored]
            expect(handles[0].get_session("s1")["metadata"]["by"], [step, winner])

    @clause("SES-8", level="concurrent")
    def test_ses_8_no_step_of_threads_and_processes_is_lost(self, place: RecordedPlace) -> None:
        """Counters of one's own are merged, and one that all share is changed by its version."""
        db = place.open()
        db.create_session("s1", metadata={"all": 0})

        def work(name: str) -> None:
            wait_until(lambda: db.get_session("s1")["metadata"]["all"], "a process begins")
            for step in range(_STEPS):
                add_one(db, name, step)

        with processes(place, _ADD_ONES, 3) as workers:
            at_once([partial(finish_all, workers), *(partial(work, name) for name in ("t1", "t2"))])
        found = db.get_session("s1")["metadata"]
        expect(found.pop("all"), 5 * _STEPS)
        own = dict.fromkeys(["0", "1", "2", "t1", "t2"], _STEPS - 1)
        expect({key: found[key] for key in sorted(found)}, own)


_STEPS: Final = 8
_MOST_TRIES: Final = 1000

_ADD_ONES: Final = f"""{TOGETHER}
from director_db_conformance.clauses.session_versions import add_one
for step in range({_STEPS}):
    together()
    add_one(db, args[0], step)
"""


def add_one(db: Any, name: str, step: int) -> None:
    """Store the step under a key of one's own, and add one to what all share."""
    db.update_session("s1", metadata={name: step}, merge=True)
    for _ in range(_MOST_TRIES):
        found = db.get_session("s1")
        try:
            db.update_session(
                "s1",
                metadata={"all": found["metadata"]["all"] + 1},
                merge=True,
                if_version=found["version"],
            )
        except ConflictError:
            continue
        return
    expected = "a change on top of what was read"
    raise NonconformityError(expected, f"{_MOST_TRIES} conflicts")
