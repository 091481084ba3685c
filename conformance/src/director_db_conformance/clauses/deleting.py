"""DEL-1 to DEL-3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from director_db import DeleteResult, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    clock,
    expect_now,
    full_session,
    message,
    msg_ids,
    new_session,
    put,
    session_ids,
    stored,
    unchanged,
)
from director_db_conformance.expectation import expect, expect_error

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB, RecordedPlace

_NOTHING_THERE: Final = ["conversation", "context", "session"]
_ALIKE: Final = ("S1", "s", "s1 ", " s1", "s_", "s%", "%", "_", "s10", "s\uff11")


class DeletingClauses:
    """Deleting the parts of a session, and all of it."""

    # --- DEL-1: conversation and context --------------------------------------------------------

    @clause("DEL-1")
    def test_del_1_deletes_all_messages(self, db: RecordedDB) -> None:
        """Deleting a conversation leaves no message; the session and its context stay."""
        full_session(db)
        put(db, "s1", "other", conv_id="another")
        put(db, "s1", "none", conv_id=None)
        db.update_session("s1", updated_at=1000)
        session, context = db.get_session("s1"), db.get_context("s1")
        expect([db.delete_conversation("s1")], [True])
        expect(db.get_conversations("s1"), [])
        expect(db.get_message("s1", "a"), {})
        expect(db.get_session("s1"), session)
        expect(db.get_context("s1"), context)

    @clause("DEL-1")
    def test_del_1_delete_conversation_says_whether_there_was_one(self, db: RecordedDB) -> None:
        """True if there was at least one message, else False, for a missing session too."""
        full_session(db)
        expect([db.delete_conversation("s1") for _ in range(3)], [True, False, False])
        put(db, "s1", "one")
        expect([db.delete_conversation("s1") for _ in range(2)], [True, False])
        expect([db.delete_conversation("nobody")], [False])
        new_session(db, "s2")
        db.add_or_update_context_msg("s2", [1])
        expect([db.delete_conversation("s2")], [False], "a session with a context only")

    @clause("DEL-1")
    def test_del_1_deletes_the_context(self, db: RecordedDB) -> None:
        """Deleting a context leaves the session and its messages."""
        full_session(db)
        session, messages = db.get_session("s1"), db.get_conversations("s1")
        expect([db.delete_context("s1")], [True])
        expect(db.get_context_messages("s1"), {})
        expect(db.get_context("s1"), {})
        expect(db.get_session("s1"), session)
        expect(db.get_conversations("s1"), messages)

    @clause("DEL-1")
    def test_del_1_delete_context_says_whether_there_was_one(self, db: RecordedDB) -> None:
        """True if there was a context, an empty one or null too, else False."""
        full_session(db)
        expect([db.delete_context("s1") for _ in range(3)], [True, False, False])
        empty_contexts: tuple[Any, ...] = ({}, [], None)
        for empty in empty_contexts:
            db.add_or_update_context_msg("s1", empty)
            expect([db.delete_context("s1") for _ in range(2)], [True, False])
        expect([db.delete_context("nobody")], [False])

    @clause("DEL-1")
    def test_del_1_a_deleted_context_leaves_nothing(self, db: RecordedDB) -> None:
        """A context that is stored after a delete has nothing of the old one."""
        new_session(db)
        db.add_or_update_context_msg("s1", {"reasoning": [1, 2], "k": 1}, 5, 6, {"old": 1})
        db.delete_context("s1")
        since = clock()
        db.add_or_update_context_msg("s1", {"reasoning": [3]})
        context = db.get_context("s1")
        expect([context["context"], context["metadata"]], [{"reasoning": [3]}, {}])
        expect_now(context["created_at"], since, "created_at")

    @clause("DEL-1")
    def test_del_1_deletes_in_one_session_only(self, db: RecordedDB) -> None:
        """Sessions whose ids look alike keep their messages and their contexts."""
        for name in _ALIKE:
            full_session(db, name)
        with unchanged(db):
            expect([db.delete_conversation("s1"), db.delete_context("s1")], [False, False])
        full_session(db)
        before = [part for part in stored(db) if part[0]["session_id"] != "s1"]
        expect([db.delete_conversation("s1"), db.delete_context("s1")], [True, True])
        after = [part for part in stored(db) if part[0]["session_id"] != "s1"]
        expect(after, before, "the other sessions")

    # --- DEL-2: the whole session ---------------------------------------------------------------

    @clause("DEL-2")
    def test_del_2_says_what_was_not_there(self, db: RecordedDB) -> None:
        """The result names the parts that were missing, always in the same order."""
        for messages in (True, False):
            for context in (True, False):
                new_session(db)
                if messages:
                    put(db, "s1", "m")
                if context:
                    db.add_or_update_context_msg("s1", {})
                parts = (("conversation", messages), ("context", context))
                missing = [name for name, there in parts if not there]
                expect(db.delete_session("s1"), DeleteResult(True, missing))  # noqa: FBT003
        expect(db.delete_session("s1"), DeleteResult(False, _NOTHING_THERE))  # noqa: FBT003
        expect(db.delete_session("nobody"), DeleteResult(False, _NOTHING_THERE))  # noqa: FBT003

    @clause("DEL-2")
    def test_del_2_the_result_is_a_named_tuple(self, db: RecordedDB) -> None:
        """The result can be unpacked and has names; the missing parts are a list."""
        full_session(db)
        success, failed = db.delete_session("s1")
        expect([success, failed], [True, []])
        result = db.delete_session("s1")
        expect([result.success, result.failed_components], [False, _NOTHING_THERE])

    @clause("DEL-2")
    def test_del_2_a_part_that_was_deleted_before_is_missing(self, db: RecordedDB) -> None:
        """What was deleted by itself is not there any more when the session is deleted."""
        full_session(db)
        db.delete_message("s1", "a")
        db.delete_context("s1")
        expect(db.delete_session("s1").failed_components, ["context"])
        full_session(db)
        db.delete_conversation("s1")
        expect(db.delete_session("s1").failed_components, ["conversation"])
        full_session(db)
        for name in ("a", "b"):
            db.delete_message("s1", name)
        expect(db.delete_session("s1").failed_components, ["conversation"])

    @clause("DEL-2")
    def test_del_2_nothing_is_left(self, db: RecordedDB) -> None:
        """After a delete, no read finds the session, a message or the context."""
        full_session(db)
        db.append_context_messages("s1", [1])
        db.delete_session("s1")
        expect(db.get_session("s1"), {})
        expect(db.get_sessions(), [])
        expect(db.get_sessions(video_id="v1"), [])
        expect(db.get_conversations("s1"), [])
        expect(db.get_message("s1", "a"), {})
        expect(db.get_context_messages("s1"), {})
        expect(db.get_context("s1"), {})

    @clause("DEL-2")
    def test_del_2_a_session_that_is_created_again_is_empty(self, db: RecordedDB) -> None:
        """A session that gets the id of a deleted one has no messages, context or fields of it."""
        full_session(db)
        db.append_context_messages("s1", [1])
        db.delete_session("s1")
        db.create_session("s1", created_at=5, updated_at=6)
        session = db.get_session("s1")
        keys = ("video_id", "collection_id", "created_at", "updated_at", "metadata")
        expect([session[key] for key in keys], [None, None, 5, 6, {}])
        expect(db.get_conversations("s1"), [])
        expect(db.get_context("s1"), {})

    @clause("DEL-2")
    def test_del_2_a_session_that_is_created_again_starts_anew(self, db: RecordedDB) -> None:
        """Times and places of old messages have no influence on new ones with their ids."""
        full_session(db)
        db.delete_session("s1")
        new_session(db)
        since = clock()
        for name in "ba":
            put(db, "s1", name)
        db.add_or_update_context_msg("s1", {"reasoning": [2]})
        records = db.get_conversations("s1")
        expect(msg_ids(records), [*"ba"])
        expect_now(records[0]["created_at"], since, "created_at of the message")
        expect_now(db.get_context("s1")["created_at"], since, "created_at of the context")
        expect(db.get_context_messages("s1"), {"reasoning": [2]})

    @clause("DEL-2")
    def test_del_2_takes_many_messages(self, db: RecordedDB) -> None:
        """A long conversation goes with its session, all of it."""
        new_session(db)
        db.add_or_update_msgs_to_conv("s1", [message(f"m{number}") for number in range(2500)])
        db.add_or_update_context_msg("s1", {"reasoning": [*range(2500)]})
        expect(db.delete_session("s1").failed_components, [])
        new_session(db)
        expect(db.get_conversations("s1"), [])
        expect(db.get_context("s1"), {})

    @clause("DEL-2")
    def test_del_2_deletes_one_session_only(self, db: RecordedDB) -> None:
        """Sessions whose ids look alike stay, with all that is theirs."""
        for name in _ALIKE:
            full_session(db, name)
        with unchanged(db):
            expect(db.delete_session("s1").failed_components, _NOTHING_THERE)
            full_session(db)
            expect(db.delete_session("s1").failed_components, [])
        for number, name in enumerate(_ALIKE):
            expect(db.delete_session(name).failed_components, [], f"{name!r}")
            left = session_ids(db.get_sessions())
            expect(sorted(left), sorted(_ALIKE[number + 1 :]), f"after {name!r}")

    # --- DEL-3: no orphans ----------------------------------------------------------------------

    @clause("DEL-3", needs="delete_session_row")
    def test_del_3_messages_and_context_go_with_the_row_of_their_session(
        self, place: RecordedPlace
    ) -> None:
        """Who deletes a session with SQL leaves nothing behind that a later session would get."""
        db = place.open()
        for name in ("s1", "s2"):
            full_session(db, name)
            db.append_context_messages(name, ["more"])
        before = [record for record in stored(db) if record[0]["session_id"] == "s2"]
        place.delete_session_row("s1")
        expect(stored(db), before, "what is stored")
        _expect_no_parts(db, "s1")
        expect(db.delete_session("s1").failed_components, _NOTHING_THERE)
        new_session(db)
        _expect_no_parts(db, "s1")
        put(db, "s1", "b")
        put(db, "s1", "a")
        expect(msg_ids(db.get_conversations("s1")), ["b", "a"], "messages of the new session")
        expect(db.append_context_messages("s1", ["new"]), 1, "the length of the new context")
        expect(db.get_context_messages("s1"), {"reasoning": ["new"]})

    @clause("DEL-3", needs="delete_session_row")
    def test_del_3_a_context_that_is_remembered_goes_as_well(self, place: RecordedPlace) -> None:
        """A context that is saved again after its session was deleted with SQL is stored whole."""
        db = place.open()
        items = [["item", number] for number in range(20)]
        for _ in range(3):
            new_session(db)
            db.add_or_update_context_msg("s1", {"reasoning": items})
            place.delete_session_row("s1")
            expect_error(SessionNotFoundError, db.add_or_update_context_msg, "s1", items)
            new_session(db)
            db.add_or_update_context_msg("s1", {"reasoning": [*items, "last"]})
            expect(db.get_context_messages("s1"), {"reasoning": [*items, "last"]})
            place.delete_session_row("s1")


def _expect_no_parts(db: RecordedDB, name: str) -> None:
    expect(db.get_conversations(name), [], "its messages")
    expect(db.get_message(name, "a"), {}, "a message of it")
    expect(db.get_context(name), {}, "its context")
