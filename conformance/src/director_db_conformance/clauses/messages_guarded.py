"""MSG-11: writes that a later one is guarded against."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from director_db import InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    full_session,
    message,
    msg_ids,
    new_session,
    put,
    unchanged,
)
from director_db_conformance.clauses.at_once import THREADS, at_once
from director_db_conformance.expectation import expect, expect_error

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB, RecordedPlace


def _write(db: RecordedDB, msg_id: str, content: Any = "text", **fields: Any) -> Any:
    """Store a message of ``s1``, and return what the call returned."""
    plain = message(msg_id, content, **fields)
    return db.add_or_update_msg_to_conv("s1", **plain)


class GuardedMessageClauses:
    """Revisions, and what is only stored where nothing is."""

    @clause("MSG-11")
    def test_msg_11_a_lower_or_equal_revision_is_held_back(self, db: RecordedDB) -> None:
        """Only a higher revision replaces; the result tells, and nothing else is touched."""
        new_session(db)
        put(db, "s1", "other")
        for revision, is_stored in (
            (3, True), (3, False), (2, False), (-7, False), (4, True), (4, False),
            (2**63 - 1, True), (2**63 - 1, False), (5, False),
        ):  # fmt: skip
            before = db.get_conversations("s1"), db.get_session("s1")
            fields = {"revision": revision, "updated_at": 2000 + revision % 9}
            content = {"at": revision, "stored": is_stored}
            expect(_write(db, "m", content, **fields), is_stored, f"with revision {revision}")
            if is_stored:
                found = db.get_message("s1", "m")
                expect([found["content"], found["revision"]], [content, revision])
            else:
                expect((db.get_conversations("s1"), db.get_session("s1")), before)
        expect(msg_ids(db.get_conversations("s1")), ["other", "m"])

    @clause("MSG-11")
    def test_msg_11_the_first_revision_may_be_any(self, db: RecordedDB) -> None:
        """A message that has no revision yet, or is not there, takes every one."""
        new_session(db)
        for revision in (0, -(2**63), 2**63 - 1, 1):
            put(db, "s1", "known")
            for name in ("known", "new"):
                expect(_write(db, name, "text", revision=revision), True)
                expect(db.get_message("s1", name)["revision"], revision)
                db.delete_message("s1", name)

    @clause("MSG-11")
    def test_msg_11_a_write_without_a_revision_is_never_held_back(self, db: RecordedDB) -> None:
        """It stores as ever, and leaves the revision, so that a late guarded write stays late."""
        new_session(db)
        _write(db, "m", 5, revision=5)
        expect(_write(db, "m", "plain"), True)
        found = db.get_message("s1", "m")
        expect([found["content"], found["revision"]], ["plain", 5])
        expect(db.add_or_update_msgs_to_conv("s1", [message("m", "bulk")]), [True])
        found = db.get_message("s1", "m")
        expect([found["content"], found["revision"]], ["bulk", 5])
        expect(_write(db, "m", "late", revision=4), False)
        expect(_write(db, "m", None, revision=None, if_absent=False), True)
        expect([db.get_message("s1", "m")[key] for key in ("content", "revision")], [None, 5])

    @clause("MSG-11")
    def test_msg_11_if_absent_replaces_nothing(self, db: RecordedDB) -> None:
        """With `if_absent` a message is inserted or left, whatever its revision."""
        full_session(db)
        with unchanged(db):
            expect(_write(db, "a", "late", if_absent=True, updated_at=9999), False)
            expect(_write(db, "a", "late", if_absent=True, revision=7), False)
        expect(_write(db, "c", "new", if_absent=True), True)
        expect(_write(db, "d", "new", if_absent=True, revision=7), True)
        with unchanged(db):
            expect(_write(db, "d", "late", if_absent=True, revision=8), False)
        expect(msg_ids(db.get_conversations("s1")), [*"abcd"])
        expect([record["revision"] for record in db.get_conversations("s1")], [None] * 3 + [7])
        db.delete_message("s1", "a")
        expect(_write(db, "a", "again", if_absent=True), True)
        expect(msg_ids(db.get_conversations("s1")), [*"bcda"])

    @clause("MSG-11")
    def test_msg_11_a_stored_write_is_as_any_other(self, db: RecordedDB) -> None:
        """Places, times and the session's last activity follow what is stored, guarded or not."""
        new_session(db)
        _write(db, "m", 1, revision=1, created_at=5, updated_at=2000)
        put(db, "s1", "n", updated_at=2001)
        _write(db, "m", 2, revision=2, updated_at=2002)
        _write(db, "new", 1, if_absent=True, updated_at=3)
        put(db, "s1", "last", updated_at=4)
        expect(msg_ids(db.get_conversations("s1")), ["m", "n", "new", "last"])
        found = db.get_message("s1", "m")
        expect([found["created_at"], found["updated_at"]], [5, 2002])
        expect(db.get_session("s1")["updated_at"], 2002)
        _write(db, "m", 3, revision=3, created_at=6, updated_at=1)
        expect(db.get_message("s1", "m")["created_at"], 6)
        expect(db.get_session("s1")["updated_at"], 2002)

    @clause("MSG-11")
    def test_msg_11_a_bulk_tells_of_each(self, db: RecordedDB) -> None:
        """One that is held back keeps none of the others from being stored."""
        new_session(db)
        _write(db, "known", 5, revision=5, updated_at=5)
        answers = db.add_or_update_msgs_to_conv(
            "s1",
            [
                message("a", "plain", updated_at=6),
                message("known", "late", revision=5, updated_at=9000),
                message("b", "first", revision=2, updated_at=2002),
                message("b", "late", revision=1, updated_at=9000),
                message("b", "second", revision=3, updated_at=7),
                message("b", "plain", updated_at=8),
                message("c", "first", if_absent=True, updated_at=9),
                message("c", "late", if_absent=True, updated_at=9000),
                message("known", "next", revision=6, updated_at=10),
            ],
        )
        expect(answers, [True, False, True, False, True, True, True, False, True])
        keys = ("msg_id", "content", "revision", "updated_at")
        expect(
            [tuple(record[key] for key in keys) for record in db.get_conversations("s1")],
            [("known", "next", 6, 10), ("a", "plain", None, 6), ("b", "plain", 3, 8),
             ("c", "first", None, 9)],
        )  # fmt: skip
        expect(db.get_session("s1")["updated_at"], 2002, "of what was stored")
        expect(db.add_or_update_msgs_to_conv("s1", []), [])
        expect(db.add_or_update_msgs_to_conv("s1", [message("d"), message("a")]), [True, True])
        with unchanged(db):
            late = [message("c", if_absent=True), message("known", revision=6)]
            expect(db.add_or_update_msgs_to_conv("s1", late), [False, False])

    @clause("MSG-11")
    def test_msg_11_what_was_read_can_be_written_elsewhere(self, db: RecordedDB) -> None:
        """A record carries its revision with it, into another session or back where it was."""
        new_session(db)
        _write(db, "m", 1, revision=4)
        put(db, "s1", "n")
        records = db.get_conversations("s1")
        with unchanged(db):
            expect(db.add_or_update_msgs_to_conv("s1", records[:1]), [False])
        new_session(db, "s2")
        others = [{**record, "session_id": "s2"} for record in records]
        expect(db.add_or_update_msgs_to_conv("s2", others), [True, True])
        expect(db.get_conversations("s2"), others)

    @clause("MSG-11")
    def test_msg_11_a_guard_is_checked_as_every_argument(self, db: RecordedDB) -> None:
        """A revision is an int of 64 bits, and `if_absent` True or False."""
        new_session(db)
        revisions: list[Any] = [1.0, True, "1", 2**63, -(2**63) - 1, [1]]
        flags: list[Any] = [1, 0, None, "yes", []]
        refused = [("revision", bad) for bad in revisions] + [("if_absent", bad) for bad in flags]
        with unchanged(db):
            for field, bad in refused:
                for name in ("s1", "nobody"):
                    plain = message("m", **{field: bad})
                    call = partial(db.add_or_update_msg_to_conv, name, **plain)
                    error = expect_error(InvalidRecordError, call)
                    expect(error.path, field)
                    bulk = [message("a"), plain]
                    error = expect_error(
                        InvalidRecordError, db.add_or_update_msgs_to_conv, name, bulk
                    )
                    expect(error.path, f"messages[1].{field}")
            for guard in ({"revision": 1}, {"if_absent": True}):
                call = partial(db.add_or_update_msg_to_conv, "nobody", **message("m", **guard))
                expect(expect_error(SessionNotFoundError, call).session_id, "nobody")
                bulk = [message("m", **guard)]
                expect_error(SessionNotFoundError, db.add_or_update_msgs_to_conv, "nobody", bulk)

    @clause("MSG-11", level="concurrent")
    def test_msg_11_of_writes_at_once_the_highest_revision_stays(
        self, place: RecordedPlace
    ) -> None:
        """However workers race, what is stored has the highest revision, and none went back."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        drawn = random.Random(11)  # noqa: S311 - the same in each run
        steps = 24
        revisions = drawn.sample(range(1000), THREADS * steps)
        stored: list[list[int]] = [[] for _ in range(THREADS)]
        latest = [-1, -1]

        def work(number: int) -> None:
            db = handles[number % 2]
            for step in range(steps):
                revision = revisions[number * steps + step]
                if step % 3:
                    is_stored = _write(db, "m", revision, revision=revision)
                else:
                    own = f"{number}.{step}"
                    bulk = [message(own), message("m", revision, revision=revision)]
                    first, is_stored = db.add_or_update_msgs_to_conv("s1", bulk)
                    expect(first, True, "what is told of a message of its own")
                if is_stored:
                    stored[number].append(revision)

        def watch(number: int) -> None:
            found = handles[number].get_message("s1", "m")
            if found:
                expect(found["content"], found["revision"], "of one write")
                expect(found["revision"] >= latest[number], True, "that it never goes back")
                latest[number] = found["revision"]

        at_once(
            [partial(work, number) for number in range(THREADS)],
            watched_by=[partial(watch, number) for number in range(2)],
        )
        found = handles[0].get_message("s1", "m")
        expect([found["content"], found["revision"]], [max(revisions)] * 2)
        for own in stored:
            expect(own, sorted(own), "the order in which one worker's were stored")

    @clause("MSG-11", level="concurrent")
    def test_msg_11_of_those_who_insert_at_once_one_is_told_so(self, place: RecordedPlace) -> None:
        """With `if_absent` a message is inserted once, and only who did it hears True."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        told: list[tuple[bool, int]] = []

        def work(msg_id: str, number: int) -> None:
            told.append((_write(handles[number % 2], msg_id, number, if_absent=True), number))

        for attempt in range(10):
            told.clear()
            at_once([partial(work, f"m{attempt}", number) for number in range(THREADS)])
            winners = [number for is_stored, number in told if is_stored]
            expect(winners, [handles[0].get_message("s1", f"m{attempt}")["content"]])
