"""CTX-4: appending to a context that is a list itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from director_db import InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    ANY_JSON,
    clock,
    expect_now,
    full_session,
    new_session,
    unchanged,
)
from director_db_conformance.expectation import expect, expect_error, expect_that

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB


class ContextListClauses:
    """Appends without a key."""

    @clause("CTX-4")
    def test_ctx_4_without_a_key_it_adds_to_the_context_itself(self, db: RecordedDB) -> None:
        """With key=None the context is the list: it begins one, and adds to one that is there."""
        new_session(db)
        since = clock()
        expect(db.append_context_messages("s1", [{"role": "user"}, None], key=None), 2)
        context = db.get_context("s1")
        expect([context["context"], context["metadata"]], [[{"role": "user"}, None], {}])
        for field in ("created_at", "updated_at"):
            expect_now(context[field], since, field)
        whole: list[Any] = []
        db.add_or_update_context_msg("s1", whole, 5, 6, ["m"])
        appends: list[list[Any]] = [[3], [1, 2], [], [[]], [{"b": 1}, None, -0.0], ["\ud800"], [7]]
        for items in (*appends, [*ANY_JSON], ["x"] * 20):
            whole += items
            since = clock()
            expect(db.append_context_messages("s1", items, key=None), len(whole))
            context = db.get_context("s1")
            expect([context[field] for field in ("context", "created_at", "metadata")],
                   [whole, 5, ["m"]])  # fmt: skip
            expect_now(context["updated_at"], since, "updated_at")
        new_session(db, "s2")
        expect(db.append_context_messages("s2", (), key=None), 0)
        expect(db.get_context("s2")["context"], [], "an empty append begins a list as well")

    @clause("CTX-4")
    def test_ctx_4_a_list_takes_no_key_and_a_dict_needs_one(self, db: RecordedDB) -> None:
        """A context of the other form is refused and stays; the list under "null" is another."""
        full_session(db)
        contexts: list[Any] = [{}, {"reasoning": []}, {"null": [1]}, {"": []}, None, "text", 0]
        contexts += [[], [1], [[1]], ["\ud800"], [*range(99)]]
        for context in contexts:
            db.add_or_update_context_msg("s1", context, updated_at=5)
            is_list = isinstance(context, list)
            keys = ("reasoning", "", "null", "None") if is_list else (None,)
            with unchanged(db):
                for key, items in ((key, items) for key in keys for items in ([1], [])):
                    append = partial(db.append_context_messages, "s1", items, key=key)
                    expect(expect_error(InvalidRecordError, append).path, "context")
            if is_list:
                expect(db.append_context_messages("s1", ["x"], key=None), len(context) + 1)
                expect(db.get_context_messages("s1"), [*context, "x"])
        db.add_or_update_context_msg("s1", {"null": [1]})
        expect(db.append_context_messages("s1", [2], key="null"), 2)
        call = partial(db.append_context_messages, "nobody", [1], key=None)
        expect(expect_error(SessionNotFoundError, call).session_id, "nobody")

    @clause("CTX-4")
    def test_ctx_4_a_list_is_appended_to_and_saved_by_turns(self, db: RecordedDB) -> None:
        """An append to a list goes on from the last save, a save replaces what was appended."""
        new_session(db)
        items: list[Any] = []
        for turn in range(6):
            items = [*items, {"n": turn}, {"more": [turn]}]
            length = db.append_context_messages("s1", items[-2:], key=None)
            expect([length, db.get_context_messages("s1")], [len(items), items])
            items = [*items[turn % 3 :], "saved"] if turn % 2 else [*items, "saved"]
            db.add_or_update_context_msg("s1", items)
            expect(db.get_context_messages("s1"), items)
        for delete in (db.delete_context, db.delete_session):
            delete("s1")
            new_session(db)
            expect(db.append_context_messages("s1", [1], key=None), 1)
            expect(db.get_context("s1")["context"], [1])
        db.delete_context("s1")
        expect(db.append_context_messages("s1", [1]), 1)
        expect(db.get_context_messages("s1"), {"reasoning": [1]}, "the form is the first append's")

    @clause("CTX-4")
    def test_ctx_4_a_list_keeps_its_bounds(self, db: RecordedDB) -> None:
        """A list is at most 200 deep and 64 MiB long after an append, or it stays as it was."""
        new_session(db)
        deepest: list[Any] = []
        for _ in range(198):
            deepest = [deepest]
        # The item itself is 199 deep, and it stands in the list.
        expect(db.append_context_messages("s1", [deepest], key=None), 1)
        with unchanged(db):
            error = expect_error(
                InvalidRecordError, db.append_context_messages, "s1", [[deepest]], key=None
            )
            expect(error.path[: len("messages[0]")], "messages[0]")
        half = "x" * (32 * 1024 * 1024)
        # The context is ["...","..."]; what is not x takes 7 bytes.
        rest = half[: -len('["",""]')]
        for begins in (True, False):
            db.delete_context("s1")
            if begins:
                db.append_context_messages("s1", [], key=None)
            expect(db.append_context_messages("s1", [half], key=None), 1)
            call = partial(db.append_context_messages, "s1", [rest + "x"], key=None)
            expect(expect_error(InvalidRecordError, call).path[: len("context")], "context")
            expect(db.append_context_messages("s1", [rest], key=None), 2)
            found = db.get_context_messages("s1")
            expect_that(found == [half, rest], "a list of two long items", type(found))
