"""MSG-13: taking back what is in a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from director_db_conformance.expectation import expect

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB


class HistoryClauses:
    """The last message, taken back."""

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
