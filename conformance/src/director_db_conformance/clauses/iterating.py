"""MSG-10, SES-7: records one by one, read in pages."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from director_db import ClosedError, InvalidRecordError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import msg_ids, new_session, put, session_ids
from director_db_conformance.expectation import expect, expect_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director_db_conformance.transcript import RecordedDB

_WRONG_PAGES: Final = (None, 0, -1, -(10**30), True, False, 1.0, "1", float("nan"), [1])


class IterationClauses:
    """Iterating over the messages of a session, and over the sessions."""

    @clause("MSG-10")
    def test_msg_10_gives_the_messages_of_msg_6(self, db: RecordedDB) -> None:
        """All of the session, oldest first, whatever the size of a page."""
        new_session(db)
        expect(list(db.iter_conversations("s1")), [])
        for name in "3142057":
            put(db, "s1", name, {"of": name})
        put(db, "s1", "4", "changed", conv_id=None)
        new_session(db, "s2")
        put(db, "s2", "3", "another's")
        whole = db.get_conversations("s1")
        expect(list(db.iter_conversations("s1")), whole)
        for page in (1, 2, 3, 6, 7, 8, 10**30):
            expect(list(db.iter_conversations("s1", page=page)), whole, f"page={page}")

    @clause("MSG-10")
    def test_msg_10_a_session_that_is_not_there_has_no_messages(self, db: RecordedDB) -> None:
        """Nothing comes, whatever the page; and nothing for an id that no session can have."""
        for session_id in ("s1", "", "x" * 256, "a\0", None, 5):
            expect(list(db.iter_conversations(session_id)), [])
            expect(list(db.iter_conversations(session_id, page=0)), [], "page=0")

    @clause("MSG-10")
    def test_msg_10_refuses_a_page_below_one(self, db: RecordedDB) -> None:
        """The size of a page is an int of at least 1; it is refused where the reading begins."""
        new_session(db)
        for page in _WRONG_PAGES:
            found = db.iter_conversations("s1", page=page)
            expect(expect_error(InvalidRecordError, next, found).path, "page", f"page={page!r}")

    @clause("MSG-10")
    def test_msg_10_goes_on_where_the_last_message_was_deleted(self, db: RecordedDB) -> None:
        """If the last message of a page is deleted, what follows comes all the same, and once."""
        found = _begun(db, [*"abcdefg"], page=2, taken=2)
        db.delete_message("s1", "b")
        expect(msg_ids(list(islice(found, 2))), ["c", "d"])
        for name in "cda":
            db.delete_message("s1", name)
        expect(msg_ids(list(found)), ["e", "f", "g"])
        found = _begun(db, [*"abcdefgh"], page=4, taken=4)
        for name in "dc":
            db.delete_message("s1", name)
        put(db, "s1", "c")
        expect(msg_ids(list(islice(found, 4))), ["e", "f", "g", "h"], "though c is the last now")

    @clause("MSG-10")
    def test_msg_10_goes_on_where_the_end_was_cut_off(self, db: RecordedDB) -> None:
        """What was read is deleted but for the beginning, and other messages are stored."""
        names = [f"m{number:03}" for number in range(40)]
        found = _begun(db, names, page=4, taken=36)
        for name in names[3:]:
            db.delete_message("s1", name)
        for name in ("x", "y"):
            put(db, "s1", name)
        expect(msg_ids(list(found)), ["x", "y"])

    @clause("MSG-10")
    def test_msg_10_goes_on_where_all_were_deleted(self, db: RecordedDB) -> None:
        """Where nothing is left, nothing follows, and what is stored then comes."""
        found = _begun(db, [*"abcd"], page=2, taken=2)
        db.delete_conversation("s1")
        expect(list(found), [])
        found = _begun(db, [*"abcd"], page=2, taken=2)
        db.delete_conversation("s1")
        for name in ("x", "y", "z"):
            put(db, "s1", name)
        expect(msg_ids(list(found)), ["x", "y", "z"])
        found = _begun(db, [*"abcd"], page=2, taken=2)
        db.delete_session("s1")
        expect(list(found), [])

    @clause("MSG-10")
    def test_msg_10_sees_what_is_stored_before_its_page_is_read(self, db: RecordedDB) -> None:
        """A message that is added or changed before its page is read comes as it is then."""
        found = _begun(db, [*"abcd"], page=2, taken=1)
        put(db, "s1", "b", "too late")
        put(db, "s1", "d", "changed")
        put(db, "s1", "e")
        contents = [(record["msg_id"], record["content"]) for record in found]
        expect(contents, [("b", "text"), ("c", "text"), ("d", "changed"), ("e", "text")])

    @clause("MSG-10")
    def test_msg_10_what_comes_is_the_callers_own(self, db: RecordedDB) -> None:
        """Changing a record does not change what comes after it."""
        names = []
        for record in _begun(db, [*"abcde"], page=2, taken=0):
            names.append(record.pop("msg_id"))
            record.clear()
        expect(names, [*"abcde"])

    @clause("MSG-10")
    def test_msg_10_raises_after_close(self, db: RecordedDB) -> None:
        """Each page is read by an operation of its own, and none may begin after `close`."""
        messages = _begun(db, [*"abcd"], page=2, taken=2)
        for name in ("s2", "s3"):
            new_session(db, name)
        sessions = db.iter_sessions(page=2)
        list(islice(sessions, 2))
        db.close()
        for found in (messages, sessions, db.iter_conversations("s1"), db.iter_sessions()):
            expect_error(ClosedError, next, found)

    @clause("SES-7")
    def test_ses_7_gives_the_sessions_of_ses_4(self, db: RecordedDB) -> None:
        """All sessions, or those of a video, collection or user, in the order of the list."""
        expect(list(db.iter_sessions()), [])
        for number, collection in enumerate("ccccddddd"):
            user = "xyz"[number % 3]
            times = {"created_at": number // 4, "updated_at": number // 3}
            db.create_session(f"s{number}", "ab"[number % 2], collection, **times, user_id=user)
        wanted: tuple[dict[str, Any], ...] = (
            {},
            {"video_id": "a"},
            {"collection_id": "d"},
            {"video_id": "a", "collection_id": "d"},
            {"user_id": "x"},
            {"user_id": "y", "video_id": "a"},
            {"video_id": "nothing"},
            {"video_id": "a\0"},
        )
        for only in wanted:
            whole = db.get_sessions(**only)
            expect(list(db.iter_sessions(**only)), whole, f"{only}")
            for page in (1, 2, 3, 8, 9, 10, 10**30):
                expect(list(db.iter_sessions(page=page, **only)), whole, f"page={page}, {only}")

    @clause("SES-7")
    def test_ses_7_goes_on_where_sessions_were_deleted(self, db: RecordedDB) -> None:
        """Those that are left come once each, whatever was deleted of those before."""
        for number in range(8):
            db.create_session(f"s{number}", created_at=1, updated_at=-number)
        found = db.iter_sessions(page=2)
        expect(session_ids(list(islice(found, 2))), ["s0", "s1"])
        for name in ("s0", "s1", "s3"):
            db.delete_session(name)
        rest = []
        for record in found:
            rest.append(record["session_id"])
            record.clear()
        expect(rest, ["s2", "s4", "s5", "s6", "s7"])

    @clause("SES-7")
    def test_ses_7_refuses_a_page_below_one(self, db: RecordedDB) -> None:
        """The size of a page is an int of at least 1."""
        for page in _WRONG_PAGES:
            found = db.iter_sessions(page=page)
            expect(expect_error(InvalidRecordError, next, found).path, "page", f"page={page!r}")


def _begun(db: RecordedDB, names: list[str], *, page: int, taken: int) -> Iterator[dict[str, Any]]:
    """Store messages in a new session, and return an iteration that has given the first ones."""
    db.delete_session("s1")
    new_session(db)
    for name in names:
        put(db, "s1", name)
    found: Iterator[dict[str, Any]] = iter(db.iter_conversations("s1", page=page))
    expect(msg_ids(list(islice(found, taken))), names[:taken], "the first messages")
    return found
