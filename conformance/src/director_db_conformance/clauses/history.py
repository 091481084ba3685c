"""MSG-13, MSG-14 and DEL-4: taking back and rewriting what is in a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director_db import InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    full_session,
    message,
    msg_ids,
    new_session,
    put,
    stored,
    unchanged,
)
from director_db_conformance.expectation import expect, expect_error, expect_that

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB


class HistoryClauses:
    """The last message taken back, and all replaced."""

    # --- MSG-13: taking the last message back ---------------------------------------------------

    @clause("MSG-13")
    def test_msg_13_gives_the_last_by_its_place_until_there_is_none(self, db: RecordedDB) -> None:
        """What is popped is the message as it was read; times, ids and updates change no place."""
        new_session(db)
        for name, time in (("m2", 9), ("m1", 1), ("m9", 5), ("m0", 2)):
            put(db, "s1", name, {"of": name}, created_at=time, updated_at=time, metadata=[name])
        put(db, "s1", "m2", "updated last", revision=4)
        records = db.get_conversations("s1")
        for number in (3, 2, 1, 0):
            expect(db.pop_message("s1"), records[number])
            expect(db.get_conversations("s1"), records[:number], "what is left")
        expect([db.pop_message("s1"), db.pop_message("s1")], [None, None], "of no message")

    @clause("MSG-13")
    def test_msg_13_gives_the_last_of_one_conversation(self, db: RecordedDB) -> None:
        """With a conv_id only messages of exactly that conversation count; None is no conv_id."""
        new_session(db)
        ids = ["c", "", "C", None, "c", "c ", None]
        for number, conv_id in enumerate(ids):
            put(db, "s1", f"m{number}", conv_id=conv_id)
        for conv_id, expected in (
            ("c", "m4"), ("c", "m0"), ("c", None), ("", "m1"), ("", None), ("none", None),
            (None, "m6"), ("C", "m2"), (None, "m5"), (None, "m3"), (None, None),
        ):  # fmt: skip
            popped = db.pop_message("s1", conv_id=conv_id)
            expect(popped and popped["msg_id"], expected, f"with the conv_id {conv_id!r}")

    @clause("MSG-13")
    def test_msg_13_touches_nothing_else(self, db: RecordedDB) -> None:
        """Session, context, other messages and sessions stay, and what is stored later is last."""
        full_session(db)
        full_session(db, "s2")
        before = stored(db)
        put(db, "s1", "c", updated_at=0, revision=7)
        expect(db.pop_message("s1")["msg_id"], "c")
        expect(stored(db), before, "what is stored, as before")
        put(db, "s1", "c", updated_at=0)
        expect(db.get_message("s1", "c")["revision"], None, "of a message that is stored anew")
        expect(db.pop_message("s1", conv_id="c")["msg_id"], "c")
        expect([db.pop_message("s1")["msg_id"] for _ in "ab"], ["b", "a"])
        db.add_or_update_msgs_to_conv("s1", [message("a"), message("d"), message("b")])
        expect(msg_ids(db.get_conversations("s1")), ["a", "d", "b"], "what was popped is new")

    @clause("MSG-13")
    def test_msg_13_what_is_not_there_is_none(self, db: RecordedDB) -> None:
        """No session, no message, and ids that nobody can have: None, and nothing happens."""
        full_session(db)
        new_session(db, "empty")
        with unchanged(db):
            for session_id in ("empty", "nobody", "", "s1\0", "\ud800", "x" * 256, None, 5):
                expect(db.pop_message(session_id), None, f"of {session_id!r:.20}")
            for conv_id in ("nobody", "c\0", "\ud800", "x" * 256, 5, b"c", ["c"]):
                expect(db.pop_message("s1", conv_id=conv_id), None, f"of {conv_id!r:.20}")

    # --- MSG-14: replacing a conversation -------------------------------------------------------

    @clause("MSG-14")
    def test_msg_14_only_the_new_messages_are_there_in_their_order(self, db: RecordedDB) -> None:
        """What is not in the list is gone, and what is stands where the list has it."""
        new_session(db)
        db.add_or_update_msgs_to_conv("s1", [message(name, "old") for name in "abcd"])
        new = [message(name, f"new {name}", status=name, conv_id=None) for name in "dxby"]
        expect(db.replace_conversation("s1", new), 4)
        found = db.get_conversations("s1")
        expect(msg_ids(found), [*"dxby"])
        expect([record["content"] for record in found], [f"new {name}" for name in "dxby"])
        expect([record["status"] for record in found], [*"dxby"])
        expect([record["conv_id"] for record in found], [None] * 4)
        expect([db.get_message("s1", "a"), db.get_message("s1", "c")], [{}, {}])
        put(db, "s1", "b", "again")
        put(db, "s1", "a")
        expect(msg_ids(db.get_conversations("s1")), [*"dxbya"], "after later writes")
        expect(msg_ids(db.get_conversations("s1", after="b")), [*"ya"])
        expect(db.replace_conversation("s1", tuple(new[:1])), 1, "of a tuple")
        expect(msg_ids(db.get_conversations("s1")), ["d"])

    @clause("MSG-14")
    def test_msg_14_an_id_that_stays_is_the_same_message(self, db: RecordedDB) -> None:
        """It keeps created_at and revision unless they are given; one that is new has its own."""
        new_session(db)
        old = [message(name, created_at=5, updated_at=6, revision=7) for name in "abc"]
        db.add_or_update_msgs_to_conv("s1", old)
        new = [
            message("c", created_at=8, updated_at=9),
            message("a", updated_at=3, revision=4),
            message("n", created_at=1, updated_at=2),
            message("b", updated_at=1),
        ]
        db.replace_conversation("s1", new)
        keys = ("msg_id", "created_at", "updated_at", "revision", "status", "metadata")
        expect(
            [[record[key] for key in keys] for record in db.get_conversations("s1")],
            [
                ["c", 8, 9, 7, None, {}],
                ["a", 5, 3, 4, None, {}],
                ["n", 1, 2, None, None, {}],
                ["b", 5, 1, 7, None, {}],
            ],
        )
        late = message("b", "late", revision=7)
        expect(db.add_or_update_msg_to_conv("s1", **late), False, "of a write that comes late")
        db.replace_conversation("s1", [])
        db.replace_conversation("s1", [message("a", created_at=2, updated_at=2)])
        expect([db.get_message("s1", "a")[key] for key in keys[1:4]], [2, 2, None], "stored anew")

    @clause("MSG-14")
    def test_msg_14_what_was_read_can_be_written_back(self, db: RecordedDB) -> None:
        """Records fit as they are, in any order; no revision and no if_absent holds one back."""
        new_session(db)
        rows = [message(name, {"of": name}, revision=3, updated_at=900) for name in "abcd"]
        db.add_or_update_msgs_to_conv("s1", rows)
        records = db.get_conversations("s1")
        for order in (records[::-1], records[1:] + records[:1], records):
            expect(db.replace_conversation("s1", order), 4)
            expect(db.get_conversations("s1"), order)
        guarded = [{**record, "if_absent": True, "revision": 1} for record in records]
        expect(db.replace_conversation("s1", guarded), 4)
        expect([record["revision"] for record in db.get_conversations("s1")], [1] * 4)

    @clause("MSG-14")
    def test_msg_14_an_id_may_come_twice(self, db: RecordedDB) -> None:
        """It has the place of the first and the fields of the last, and counts once."""
        new_session(db)
        put(db, "s1", "c", created_at=1, updated_at=1, revision=9)
        new = [
            message("b", "first", created_at=5, updated_at=9000, revision=2),
            message("a", "only", updated_at=1001),
            message("b", "second", revision=1, updated_at=3),
            message("c", "first", updated_at=4),
            message("b", "last", updated_at=1002, if_absent=True),
            message("c", "last", updated_at=5),
        ]
        expect(db.replace_conversation("s1", new), 3)
        keys = ("msg_id", "content", "updated_at", "revision")
        expect(
            [[record[key] for key in keys] for record in db.get_conversations("s1")],
            [["b", "last", 1002, 1], ["a", "only", 1001, None], ["c", "last", 5, 9]],
        )
        found = [db.get_message("s1", name)["created_at"] for name in "bc"]
        expect(found, [5, 1], "created_at")
        expect(db.get_session("s1")["updated_at"], 1002, "of what is stored")

    @clause("MSG-14")
    def test_msg_14_is_an_activity_as_a_bulk_is(self, db: RecordedDB) -> None:
        """The session's time moves forward to the latest; context and other sessions stay."""
        full_session(db)
        full_session(db, "s2")
        before = stored(db)
        expect(db.replace_conversation("s1", []), 0)
        expect(db.get_conversations("s1"), [], "after an empty list")
        expect(db.get_session("s1")["updated_at"], 1000, "after an empty list")
        expect(db.replace_conversation("s1", [message("x", updated_at=7)]), 1)
        expect(db.get_session("s1")["updated_at"], 1000, "after an earlier message")
        new = [message("x", updated_at=2000), message("y", updated_at=3)]
        expect(db.replace_conversation("s1", new), 2)
        session, messages, context = stored(db)[0]
        expect(session["updated_at"], 2000)
        expect(msg_ids(messages), ["x", "y"])
        ((own, _, own_context),) = [each for each in before if each[0]["session_id"] == "s1"]
        expect([{**session, "updated_at": 1000}, context], [own, own_context], "all but the time")
        expect(stored(db)[1:], [each for each in before if each[0] != own], "another session")

    @clause("MSG-14")
    def test_msg_14_is_checked_as_a_bulk_is(self, db: RecordedDB) -> None:
        """What MSG-7 refuses is refused with its path; then all old messages are there still."""
        full_session(db)
        good = message("a")
        missing = {key: value for key, value in good.items() if key != "agents"}
        refused: list[tuple[Any, str]] = [
            (None, "messages"),
            ({"a": 1}, "messages"),
            ([good, 5], "messages[1]"),
            ([missing], "messages[0]"),
            ([good, message("b", [object()])], "messages[1].content[0]"),
            ([good, good, message("")], "messages[2].msg_id"),
            ([message("b", created_at=1.5)], "messages[0].created_at"),
            ([message("b", session_id="s2")], "messages[0].session_id"),
            ([message("b", revision=True)], "messages[0].revision"),
            ([message("b", if_absent=None)], "messages[0].if_absent"),
        ]
        with unchanged(db):
            for messages, path in refused:
                for name in ("s1", "nobody"):
                    error = expect_error(
                        InvalidRecordError, db.replace_conversation, name, messages
                    )
                    expect(error.path, path)
            for messages in ([], [good]):
                missed = expect_error(
                    SessionNotFoundError, db.replace_conversation, "nobody", messages
                )
                expect(missed.session_id, "nobody")
            expect_error(InvalidRecordError, db.replace_conversation, "", [good])

    # --- DEL-4: going back ----------------------------------------------------------------------

    @clause("DEL-4")
    def test_del_4_deletes_what_stands_behind_a_message(self, db: RecordedDB) -> None:
        """The place alone counts: not the times, not the conv_id, and not the ids."""
        new_session(db)
        for number, name in enumerate("dbace"):
            conv_id = None if number % 2 else "c"
            put(db, "s1", name, created_at=-number, updated_at=-number, conv_id=conv_id)
        put(db, "s1", "d", "updated last", updated_at=900)
        records = db.get_conversations("s1")
        expect(msg_ids(records), [*"dbace"])
        for name, count, kept in (("e", 0, 5), ("c", 1, 4), ("c", 0, 4), ("b", 2, 2), ("d", 1, 1)):
            expect(db.delete_messages_after("s1", name), count, f"behind {name}")
            found = db.get_conversations("s1")
            expect(found, records[:kept], "what is left")
        expect(db.delete_messages_after("s1", "d"), 0, "behind the last one")

    @clause("DEL-4")
    def test_del_4_touches_nothing_else(self, db: RecordedDB) -> None:
        """Session, context and other sessions stay, and what is stored later is last."""
        full_session(db)
        full_session(db, "s2")
        before = stored(db)
        more = [message(name, updated_at=0, revision=3) for name in ("c", "d")]
        db.add_or_update_msgs_to_conv("s1", more)
        expect(db.delete_messages_after("s1", "b"), 2)
        expect(stored(db), before, "what is stored, as before")
        db.add_or_update_msgs_to_conv("s1", [message("d", revision=1), message("a")])
        expect(msg_ids(db.get_conversations("s1")), ["a", "b", "d"], "what was deleted is new")

    @clause("DEL-4")
    def test_del_4_names_a_message_that_is_not_there(self, db: RecordedDB) -> None:
        """Nothing is silent: only where there is no session there is nothing behind anything."""
        full_session(db)
        new_session(db, "empty")
        put(db, "empty", "gone")
        db.delete_message("empty", "gone")
        with unchanged(db):
            for session_id, msg_id in (
                ("s1", "nobody"), ("s1", "A"), ("s1", ""), ("s1", "x" * 256), ("s1", "a\0"),
                ("s1", None), ("s1", 5), ("empty", "a"), ("empty", "gone"),
            ):  # fmt: skip
                call = db.delete_messages_after
                error = expect_error(InvalidRecordError, call, session_id, msg_id)
                expect(error.path, "msg_id")
                if isinstance(msg_id, str):
                    expect_that(repr(msg_id) in error.reason, f"{msg_id!r} is named", error.reason)
            for nobody in ("nobody", "", "s1\0", "\ud800", "x" * 256, None, 5):
                for cursor in ("a", "", None):
                    expect(db.delete_messages_after(nobody, cursor), 0)
