"""MSG-6: reading a conversation by pages."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from director_db import InvalidRecordError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    full_session,
    message,
    msg_ids,
    new_session,
    put,
    unchanged,
)
from director_db_conformance.expectation import expect, expect_error, expect_that

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB

_WRONG_LIMITS: Final = (0, -1, -(10**30), True, False, 1.0, "1", float("nan"), [1])
_IMPOSSIBLE: Final[tuple[Any, ...]] = (
    "",
    "x" * 256,
    "a\0",
    "\ud800",
    5,
    1.0,
    True,
    b"a",
    ["a"],
    {},
    object(),
)

_VERY_LONG: Final = 66_000


class _Two(enum.IntEnum):
    TWO = 2


class MessagePagingClauses:
    """Reading a conversation: whole, its end, on from a message, back from a message."""

    @clause("MSG-6")
    def test_msg_6_every_page_of_a_small_conversation(self, db: RecordedDB) -> None:
        """After reads on from a message, before reads back; a limit takes what is nearest."""
        new_session(db)
        names = [*"31420"]
        for name in names:
            put(db, "s1", name)
        put(db, "s1", "4", "changed")
        limits = (None, 1, 2, 4, 5, 6, 10**30)
        for limit in limits:
            first, last = slice(0, limit), slice(None if limit is None else -min(limit, 9), None)
            got = msg_ids(db.get_conversations("s1", limit=limit))
            expect(got, names[last], f"limit={limit}")
            for place, name in enumerate(names):
                got = msg_ids(db.get_conversations("s1", after=name, limit=limit))
                expect(got, names[place + 1 :][first], f"after={name!r}, limit={limit}")
                got = msg_ids(db.get_conversations("s1", before=name, limit=limit))
                expect(got, names[:place][last], f"before={name!r}, limit={limit}")

    @clause("MSG-6")
    def test_msg_6_conversations_are_read_together(self, db: RecordedDB) -> None:
        """All messages of a session are one list, in their order, whatever their `conv_id`."""
        new_session(db)
        conversations = ("c1", None, "c2", "", "c1", "c2")
        for number, conv_id in enumerate(conversations):
            put(db, "s1", str(number), conv_id=conv_id)
        found = [(record["msg_id"], record["conv_id"]) for record in db.get_conversations("s1")]
        expect(found, [(str(number), conv_id) for number, conv_id in enumerate(conversations)])
        expect(msg_ids(db.get_conversations("s1", after="0", limit=3)), [*"123"])
        expect(msg_ids(db.get_conversations("s1", before="5", limit=3)), [*"234"])

    @clause("MSG-6")
    def test_msg_6_a_long_conversation_comes_whole(self, db: RecordedDB) -> None:
        """Without a limit there is none, and a page may be as long as one likes."""
        new_session(db)
        names = [str(number) for number in range(1500)]
        db.add_or_update_msgs_to_conv("s1", [message(name) for name in names])
        expect(msg_ids(db.get_conversations("s1")), names)
        expect(msg_ids(db.get_conversations("s1", limit=1200)), names[-1200:])
        expect(msg_ids(db.get_conversations("s1", after="0")), names[1:])
        expect(msg_ids(db.get_conversations("s1", before="1499", limit=1200)), names[299:1499])

    @clause("MSG-6")
    def test_msg_6_an_empty_conversation_is_an_empty_list(self, db: RecordedDB) -> None:
        """A session without messages gives an empty list, with a limit too."""
        new_session(db)
        expect(db.get_conversations("s1"), [])
        expect(db.get_conversations("s1", limit=1), [])
        expect(db.get_conversations("s1", limit=None, before=None, after=None), [])

    @clause("MSG-6")
    def test_msg_6_takes_any_int_as_a_limit(self, db: RecordedDB) -> None:
        """A limit beyond every number that a database counts is no limit."""
        full_session(db)
        for limit in (2, 3, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, _Two.TWO):
            expect(msg_ids(db.get_conversations("s1", limit=limit)), ["a", "b"])
            expect(msg_ids(db.get_conversations("s1", after="a", limit=limit)), ["b"])

    @clause("MSG-6")
    def test_msg_6_refuses_what_is_no_limit(self, db: RecordedDB) -> None:
        """A limit is an int of at least 1; anything else is refused and named."""
        full_session(db)
        pages: tuple[dict[str, Any], ...] = ({}, {"before": "b"}, {"after": "a"})
        for limit in _WRONG_LIMITS:
            for page in pages:
                error = expect_error(
                    InvalidRecordError, db.get_conversations, "s1", limit=limit, **page
                )
                expect(error.path, "limit")

    @clause("MSG-6")
    def test_msg_6_refuses_before_together_with_after(self, db: RecordedDB) -> None:
        """A page has one cursor; with two of them it is not clear what is meant."""
        full_session(db)
        for before, after in (("a", "b"), ("b", "a"), ("a", "a"), ("a", "x"), ("x", "a"), ("", "")):
            expect_error(InvalidRecordError, db.get_conversations, "s1", before=before, after=after)
        expect_error(InvalidRecordError, db.get_conversations, "s1", before="b", after="a", limit=1)

    @clause("MSG-6")
    def test_msg_6_an_unknown_cursor_is_not_the_end(self, db: RecordedDB) -> None:
        """A cursor that names no message of the session is refused, never taken for an end."""
        full_session(db)
        new_session(db, "s2")
        put(db, "s2", "elsewhere")
        put(db, "s1", "deleted")
        db.delete_message("s1", "deleted")
        wrong = ("x", "A", "a ", " a", "%", "_", "aa", "elsewhere", "deleted", "s1", *_IMPOSSIBLE)
        for cursor in wrong:
            for name in ("before", "after"):
                error = expect_error(
                    InvalidRecordError, db.get_conversations, "s1", **{name: cursor}
                )
                expect(error.path, name)
                error = expect_error(
                    InvalidRecordError, db.get_conversations, "s1", limit=1, **{name: cursor}
                )
                expect(error.path, name)

    @clause("MSG-6")
    def test_msg_6_a_cursor_needs_a_message(self, db: RecordedDB) -> None:
        """In a conversation that is empty, or was deleted, no cursor is known."""
        new_session(db)
        for name in ("before", "after"):
            expect_error(InvalidRecordError, db.get_conversations, "s1", **{name: "a"})
        put(db, "s1", "a")
        db.delete_conversation("s1")
        for name in ("before", "after"):
            expect_error(InvalidRecordError, db.get_conversations, "s1", **{name: "a"})

    @clause("MSG-6")
    def test_msg_6_a_missing_session_has_no_messages(self, db: RecordedDB) -> None:
        """A session that does not exist gives an empty list, whatever else is asked."""
        full_session(db)
        pages: list[dict[str, Any]] = [{}, {"limit": 1}, {"before": "a"}, {"after": "a"}]
        pages += [{"limit": limit} for limit in _WRONG_LIMITS]
        pages += [{"before": cursor} for cursor in _IMPOSSIBLE]
        pages += [{"before": "a", "after": "b"}, {"limit": 0, "before": "", "after": 5}]
        for page in pages:
            expect(db.get_conversations("nobody", **page), [])
        for page in pages[-6:]:
            expect(db.get_conversations("", **page), [])
            expect(db.get_conversations(5, **page), [])

    @clause("MSG-6")
    def test_msg_6_reading_on_gives_every_message_once(self, db: RecordedDB) -> None:
        """Page after page, forwards and backwards, every message comes once and in order."""
        new_session(db)
        names = [f"m{number}" for number in range(13)]
        db.add_or_update_msgs_to_conv("s1", [message(name) for name in names])
        for size in (1, 3, 12, 13, 50):
            forward = msg_ids(db.get_conversations("s1", before="m1"))
            page = forward
            # A backend that gives a page twice must not keep the suite for ever.
            while page and len(forward) <= len(names):
                page = msg_ids(db.get_conversations("s1", after=forward[-1], limit=size))
                expect_that(len(page) <= size, f"at most {size} messages", page)
                forward += page
            expect(forward, names, f"forwards by {size}")
            backward: list[str] = []
            page = msg_ids(db.get_conversations("s1", limit=size))
            while page and len(backward) <= len(names):
                expect_that(len(page) <= size, f"at most {size} messages", page)
                backward = page + backward
                page = msg_ids(db.get_conversations("s1", before=backward[0], limit=size))
            expect(backward, names, f"backwards by {size}")

    @clause("MSG-6")
    def test_msg_6_a_conversation_may_be_very_long(self, db: RecordedDB) -> None:
        """Without a limit nothing is left out, and no number of messages is one too many."""
        new_session(db)
        # More than a counter of 16 bits holds.
        names = [f"m{number}" for number in range(_VERY_LONG)]
        for first in range(0, _VERY_LONG, 11_000):
            bulk = [message(name, None) for name in names[first : first + 11_000]]
            db.add_or_update_msgs_to_conv("s1", bulk)
        whole = msg_ids(db.get_conversations("s1"))
        expect_that(whole == names, f"{_VERY_LONG} messages in their order", len(whole))
        for place in (32_760, 65_530):
            page = msg_ids(db.get_conversations("s1", after=names[place], limit=10))
            expect(page, names[place + 1 : place + 11], f"after {names[place]}")
        put(db, "s1", "m0")
        put(db, "s1", "last")
        expect(msg_ids(db.get_conversations("s1", limit=3)), [*names[-2:], "last"])
        expect([db.delete_conversation("s1")], [True])
        expect(db.get_conversations("s1"), [], "after delete_conversation")

    @clause("MSG-6")
    def test_msg_6_pages_stay_right_while_messages_change(self, db: RecordedDB) -> None:
        """Updates, deletes and new messages between two pages make none of them come twice."""
        new_session(db)
        for name in "abcdef":
            put(db, "s1", name)
        expect(msg_ids(db.get_conversations("s1", limit=2)), ["e", "f"])
        put(db, "s1", "b", "changed", created_at=2**40)
        put(db, "s1", "e", "changed", created_at=1)
        put(db, "s1", "A")
        db.delete_message("s1", "d")
        expect(msg_ids(db.get_conversations("s1", before="e", limit=2)), ["b", "c"])
        expect(msg_ids(db.get_conversations("s1", after="c", limit=2)), ["e", "f"])
        expect(msg_ids(db.get_conversations("s1", after="f")), ["A"])
        put(db, "s1", "d")
        expect(msg_ids(db.get_conversations("s1", after="f")), ["A", "d"])

    @clause("MSG-6")
    def test_msg_6_returns_the_records_of_the_session_only(self, db: RecordedDB) -> None:
        """A page never holds a message of another session, whatever its cursor is."""
        for name in ("s1", "s2"):
            new_session(db, name)
        for number in range(6):
            put(db, f"s{number % 2 + 1}", f"m{number // 2}", number)
        for page, expected in (
            ({}, [1, 3, 5]),
            ({"limit": 2}, [3, 5]),
            ({"after": "m0"}, [3, 5]),
            ({"after": "m0", "limit": 1}, [3]),
            ({"before": "m2"}, [1, 3]),
            ({"before": "m2", "limit": 1}, [3]),
        ):
            records = db.get_conversations("s2", **page)
            expect([record["content"] for record in records], expected)
            expect({record["session_id"] for record in records}, {"s2"})

    @clause("MSG-6")
    def test_msg_6_a_refused_page_changes_nothing(self, db: RecordedDB) -> None:
        """A page that is refused leaves the data as they are, and the next one is right."""
        full_session(db)
        with unchanged(db):
            expect_error(InvalidRecordError, db.get_conversations, "s1", after="x")
            expect(msg_ids(db.get_conversations("s1", after="a")), ["b"])
            expect_error(InvalidRecordError, db.get_conversations, "s1", limit=0)
            expect(msg_ids(db.get_conversations("s1", limit=1)), ["b"])
