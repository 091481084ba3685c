"""CTX-4: appending to a context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from director_db import InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    ANY_JSON,
    FAR_FUTURE,
    clock,
    expect_now,
    fields,
    full_session,
    new_session,
    unchanged,
)
from director_db_conformance.clauses.drawn import bounded, keys, payloads
from director_db_conformance.expectation import expect, expect_error, expect_that
from director_db_conformance.transcript import transcript

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB


class ContextAppendingClauses:
    """Adding messages to the end of a list in a context."""

    @clause("CTX-4")
    def test_ctx_4_begins_a_context(self, db: RecordedDB) -> None:
        """The first append makes a context of one list, under "reasoning" if no key is given."""
        new_session(db)
        new_session(db, "s2")
        since = clock()
        expect(db.append_context_messages("s1", [{"role": "user"}, None]), 2)
        expect(db.append_context_messages("s2", ["x"], key="chat"), 1)
        context = db.get_context("s1")
        keys = ["session_id", "context", "created_at", "updated_at", "metadata", "version"]
        expect(list(context), keys)
        expect(context["context"], {"reasoning": [{"role": "user"}, None]})
        expect(context["metadata"], {})
        for key in ("created_at", "updated_at"):
            expect_now(context[key], since, key)
        expect(db.get_context_messages("s2"), {"chat": ["x"]})

    @clause("CTX-4")
    def test_ctx_4_adds_to_the_end(self, db: RecordedDB) -> None:
        """Each append adds its items behind all others, in order, and returns the new length."""
        new_session(db)
        whole: list[Any] = []
        appends: list[list[Any]] = [[3], [1, 2], [3], [[]], [{"b": 1}, None, -0.0], [], ["x"] * 20]
        for items in appends:
            whole += items
            expect(db.append_context_messages("s1", items), len(whole))
            expect(db.get_context_messages("s1"), {"reasoning": whole})

    @clause("CTX-4")
    def test_ctx_4_leaves_the_other_keys(self, db: RecordedDB) -> None:
        """What stands beside the list stays, and so does the order of the keys."""
        new_session(db)
        context = {"z": 1, "chat": [1], "a": [0], "reasoning": {"deep": [2]}}
        db.add_or_update_context_msg("s1", context)
        expect(db.append_context_messages("s1", [[2], {"three": 3}], key="chat"), 3)
        expect(db.get_context_messages("s1"), {**context, "chat": [1, [2], {"three": 3}]})
        expect(db.append_context_messages("s1", ["b"], key="a"), 2)
        expect(db.append_context_messages("s1", ["c"], key="chat"), 4)
        changed = {**context, "chat": [1, [2], {"three": 3}, "c"], "a": [0, "b"]}
        expect(db.get_context_messages("s1"), changed)

    @clause("CTX-4")
    def test_ctx_4_a_new_key_comes_after_the_others(self, db: RecordedDB) -> None:
        """A list that the context does not have yet is added behind what is there."""
        new_session(db)
        expected: dict[str, Any] = {"z": [1], "m": 1}
        db.add_or_update_context_msg("s1", expected)
        for key in ("n", "a", "", "Z", "z "):
            expect(db.append_context_messages("s1", [key], key=key), 1)
            expected |= {key: [key]}
            expect(db.get_context_messages("s1"), expected)
        db.add_or_update_context_msg("s1", {})
        expect(db.append_context_messages("s1", [1]), 1)
        expect(db.get_context_messages("s1"), {"reasoning": [1]})

    @clause("CTX-4")
    def test_ctx_4_keeps_metadata_and_created_at(self, db: RecordedDB) -> None:
        """An append changes nothing of a context's record but its value and updated_at."""
        for number, metadata in enumerate(({"k": 1}, [1], 0, None)):
            name = new_session(db, f"s{number}")
            db.add_or_update_context_msg(name, {"reasoning": [1]}, 5, 6, metadata)
            before = db.get_context(name)
            db.append_context_messages(name, [2])
            db.append_context_messages(name, [3], key="other")
            after = db.get_context(name)
            changed = {
                "context": {"reasoning": [1, 2], "other": [3]},
                "updated_at": after["updated_at"],
            }
            expect(fields(after), fields(before) | changed)

    @clause("CTX-4")
    def test_ctx_4_makes_updated_at_now(self, db: RecordedDB) -> None:
        """The context's updated_at becomes now, from an earlier time or a later one."""
        new_session(db)
        for time in (5, FAR_FUTURE):
            for items in ([1], []):
                db.add_or_update_context_msg("s1", {"reasoning": [0]}, updated_at=time)
                since = clock()
                db.append_context_messages("s1", items)
                expect_now(db.get_context("s1")["updated_at"], since, f"updated_at after {items}")

    @clause("CTX-4")
    def test_ctx_4_an_empty_append_creates_what_is_missing(self, db: RecordedDB) -> None:
        """Appending nothing makes the context and the list all the same."""
        new_session(db)
        expect(db.append_context_messages("s1", []), 0)
        expect(db.get_context_messages("s1"), {"reasoning": []})
        expect(db.append_context_messages("s1", (), key="chat"), 0)
        expect(db.get_context_messages("s1"), {"reasoning": [], "chat": []})
        expect(db.append_context_messages("s1", [1, 2], key="chat"), 2)
        expect(db.append_context_messages("s1", [], key="chat"), 2)
        expect(db.get_context_messages("s1"), {"reasoning": [], "chat": [1, 2]})

    @clause("CTX-4")
    def test_ctx_4_takes_lists_and_tuples_of_any_json(self, db: RecordedDB) -> None:
        """The messages are a list or a tuple, and each of them is any JSON value."""
        new_session(db)
        expect(db.append_context_messages("s1", ANY_JSON), len(ANY_JSON))
        expect(db.append_context_messages("s1", [(1, (2,)), ()]), len(ANY_JSON) + 2)
        expect(db.get_context_messages("s1"), {"reasoning": [*ANY_JSON, [1, [2]], []]})

    @clause("CTX-4")
    def test_ctx_4_takes_any_text_as_a_key(self, db: RecordedDB) -> None:
        """A key is any str, and keys that look alike are different lists."""
        new_session(db)
        alike = ["", "a", "A", "a ", "a\0", "\0", "\ud800", "\xe9", "e\u0301", '"', "\\", "%", "0"]
        alike += ["\ud83d\ude00", "\U0001f600", "$.a", "[0]", "\t", "x" * 300]
        for round_ in (1, 2):
            for key in alike:
                expect(db.append_context_messages("s1", [round_], key=key), round_)
        expect(db.get_context_messages("s1"), {key: [1, 2] for key in alike})

    @clause("CTX-4")
    def test_ctx_4_needs_a_list_in_a_dict(self, db: RecordedDB) -> None:
        """An append to anything but a list in a dict is refused and changes nothing."""
        full_session(db)
        no_dicts: tuple[Any, ...] = ([], [1], None, 0, False, "", "text", 1.5)
        no_lists: tuple[Any, ...] = (None, {}, "", "text", 0, False)
        for context in (*no_dicts, *({"k": 1, "reasoning": value} for value in no_lists)):
            db.add_or_update_context_msg("s1", context, updated_at=5)
            with unchanged(db):
                for items in ([1], []):
                    error = expect_error(
                        InvalidRecordError, db.append_context_messages, "s1", items
                    )
                    expect(error.path[: len("context")], "context")

    @clause("CTX-4")
    def test_ctx_4_checks_what_it_is_given(self, db: RecordedDB) -> None:
        """What is no list of messages, no JSON, or no str as a key is refused and named."""
        full_session(db)
        call = db.append_context_messages
        with unchanged(db):
            for name in ("s1", "nobody"):
                for wrong in (None, "text", {"a": 1}, {}, 5, {1}, iter([1])):
                    expect(expect_error(InvalidRecordError, call, name, wrong).path, "messages")
                for bad in (float("inf"), object(), {1: 2}):
                    error = expect_error(InvalidRecordError, call, name, [1, {"x": bad}])
                    where = "messages[1].x"
                    expect(error.path, where)
                for key in (5, b"k", True, ["k"], 0, False, b""):
                    error = expect_error(InvalidRecordError, call, name, [1], key=key)
                    expect(error.path, "key")

    @clause("CTX-4")
    def test_ctx_4_an_append_needs_its_session(self, db: RecordedDB) -> None:
        """An append to the context of a missing session raises and stores nothing."""
        new_session(db)
        with unchanged(db):
            for items in ([1], []):
                error = expect_error(
                    SessionNotFoundError, db.append_context_messages, "nobody", items
                )
                expect(error.session_id, "nobody")
        db.create_session("nobody")
        expect(db.get_context("nobody"), {})

    @clause("CTX-4")
    def test_ctx_4_appends_and_saves_by_turns(self, db: RecordedDB) -> None:
        """An append goes on from the last save, a save replaces what was appended."""
        new_session(db)
        db.append_context_messages("s1", [1, 2])
        db.add_or_update_context_msg("s1", {"reasoning": [1, 2, 3]})
        expect(db.append_context_messages("s1", [4]), 4)
        db.add_or_update_context_msg("s1", {"reasoning": [1]})
        expect(db.append_context_messages("s1", [5]), 2)
        expect(db.get_context_messages("s1"), {"reasoning": [1, 5]})
        db.add_or_update_context_msg("s1", {"chat": [6], "reasoning": [1, 5]})
        expect(db.append_context_messages("s1", [7]), 3)
        expect(db.append_context_messages("s1", [8], key="chat"), 2)
        expect(db.get_context_messages("s1"), {"chat": [6, 8], "reasoning": [1, 5, 7]})
        for value in (
            {"chat": [6, 8], "reasoning": [1, 5, 7, 8]},
            {"chat": [6, 8, 7], "reasoning": [1, 5, 7]},
        ):
            for key in ("chat", "reasoning"):
                db.append_context_messages("s1", [8], key=key)
            db.add_or_update_context_msg("s1", value)
            expect(db.get_context_messages("s1"), value)

    @clause("CTX-4")
    def test_ctx_4_begins_anew_after_a_delete(self, db: RecordedDB) -> None:
        """Nothing of a context that was deleted is in the one that comes after it."""
        for delete in (db.delete_context, db.delete_session):
            new_session(db)
            db.add_or_update_context_msg("s1", {"reasoning": [1, 2], "k": 1}, 5, 6, {"old": 1})
            db.append_context_messages("s1", [3])
            delete("s1")
            new_session(db)
            since = clock()
            expect(db.append_context_messages("s1", [4]), 1)
            context = db.get_context("s1")
            expect(context["context"], {"reasoning": [4]})
            expect(context["metadata"], {})
            expect_now(context["created_at"], since, "created_at")

    @clause("CTX-4")
    def test_ctx_4_reaches_the_context_of_its_session_only(self, db: RecordedDB) -> None:
        """The contexts of other sessions stay as they are."""
        new_session(db)
        for name in ("s2", "S1", "s1 ", "%"):
            full_session(db, name)
        others = [db.get_context(name) for name in ("s2", "S1", "s1 ", "%")]
        db.append_context_messages("s1", [1])
        db.append_context_messages("s1", [2])
        expect([db.get_context(name) for name in ("s2", "S1", "s1 ", "%")], others)
        expect(db.get_context_messages("s1"), {"reasoning": [1, 2]})

    @clause("CTX-4")
    def test_ctx_4_any_items_under_any_key(self, db: RecordedDB) -> None:
        """Whatever is appended under whatever key comes back to the last bit."""
        counter = iter(range(10**6))

        @bounded(40)
        @given(
            st.dictionaries(keys, payloads, max_size=2),
            st.lists(st.tuples(keys, st.lists(payloads, max_size=3)), max_size=4),
        )
        def check(context: dict[str, Any], appends: list[tuple[str, list[Any]]]) -> None:
            transcript.clear()
            name = new_session(db, f"s{next(counter)}")
            db.add_or_update_context_msg(name, context)
            for key, items in appends:
                known = context.get(key, [])
                if not isinstance(known, list):
                    expect_error(
                        InvalidRecordError, db.append_context_messages, name, items, key=key
                    )
                else:
                    context = {**context, key: known + items}
                    length = db.append_context_messages(name, items, key=key)
                    expect(length, len(known) + len(items))
                expect(db.get_context_messages(name), context)

        check()

    @clause("CTX-4")
    def test_ctx_4_the_whole_keeps_its_depth(self, db: RecordedDB) -> None:
        """A context nests at most 200 deep after an append as well, or it stays as it was."""
        new_session(db)
        deepest: list[Any] = []
        for _ in range(197):
            deepest = [deepest]
        # The item itself is 198 deep, and it stands in a list that stands in a dict.
        expect(db.append_context_messages("s1", [deepest]), 1)
        with unchanged(db):
            expect_error(InvalidRecordError, db.append_context_messages, "s1", [[deepest]])
        expect(db.append_context_messages("s1", [1]), 2)
        expect(db.get_context_messages("s1"), {"reasoning": [deepest, 1]})

    @clause("CTX-4")
    def test_ctx_4_the_whole_keeps_its_size(self, db: RecordedDB) -> None:
        """A context is at most 64 MiB after an append as well, or it stays as it was."""
        new_session(db)
        half = "x" * (32 * 1024 * 1024)
        # The context is {"reasoning":["...","..."]}; what is not x takes 22 bytes.
        rest = "x" * (32 * 1024 * 1024 - len('{"reasoning":["",""]}'))
        # From an empty list on, so that both halves come by an append to what is there.
        db.append_context_messages("s1", [])
        expect(db.append_context_messages("s1", [half]), 1)
        error = expect_error(InvalidRecordError, db.append_context_messages, "s1", [rest + "x"])
        expect(error.path[: len("context")], "context")
        expect(db.append_context_messages("s1", [rest]), 2)
        expect(db.get_context_messages("s1"), {"reasoning": [half, rest]})

    @clause("CTX-4")
    def test_ctx_4_the_first_append_keeps_the_size(self, db: RecordedDB) -> None:
        """An append that makes the context, or its list, is at most 64 MiB with all around it."""
        new_session(db)
        # The context would be {"reasoning":["..."]}. Each U+0000 takes six bytes.
        zeros, more = divmod(64 * 1024 * 1024 - len('{"reasoning":[""]}'), 6)
        long = "\0" * zeros + "x" * more
        for context in (None, {}, {"a": "aa"}):
            if context is not None:
                db.add_or_update_context_msg("s1", context)
            with unchanged(db):
                error = expect_error(
                    InvalidRecordError, db.append_context_messages, "s1", [long, 1]
                )
            where = "context" if error.path.startswith("context") else "messages"
            expect(error.path[: len(where)], where)

    @clause("CTX-4")
    def test_ctx_4_the_size_counts_what_saves_left(self, db: RecordedDB) -> None:
        """An append counts what is stored by then, whatever the saves before it have changed."""
        name = new_session(db)
        # Two parts leave no room for the rest, and one does; what is refused is not stored.
        part, rest = ("x" * (length * 1024 * 1024) for length in (4, 58))
        db.add_or_update_context_msg(name, {"reasoning": [1]})
        for saved in ([part, part], [part, part, 1], [1, part, part]):
            db.add_or_update_context_msg(name, {"reasoning": saved})
            error = expect_error(InvalidRecordError, db.append_context_messages, name, [rest])
            expect(error.path[: len("context")], "context")
        db.add_or_update_context_msg(name, {"reasoning": [part]})
        expect(db.append_context_messages(name, [rest]), 2, "after a shorter save")
        expect_error(InvalidRecordError, db.append_context_messages, name, [part])
        error = expect_error(
            InvalidRecordError,
            db.add_or_update_context_msg,
            name,
            {"reasoning": [part, rest, part]},
        )
        expect(error.path, "context_messages")
        found = db.get_context_messages(name)
        as_it_was = found == {"reasoning": [part, rest]}
        expect_that(as_it_was, "the context as it was, of two long items", found)
