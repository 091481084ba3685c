"""CTX-1, CTX-2, and CTX-3 as one caller sees it; CTX-4 is in `context_appending`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import given

from director_db import InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    ANY_JSON,
    FAR_FUTURE,
    clock,
    expect_now,
    full_session,
    new_session,
    unchanged,
)
from director_db_conformance.clauses.drawn import bounded, edited_contexts
from director_db_conformance.expectation import expect, expect_error
from director_db_conformance.transcript import transcript

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB

_FIELDS: Final = ["session_id", "context", "created_at", "updated_at", "metadata"]
_KEYS: Final = [*_FIELDS, "version"]


class ContextClauses:
    """Storing and reading the context of a session."""

    # --- CTX-1: storing -------------------------------------------------------------------------

    @clause("CTX-1")
    def test_ctx_1_stores_what_is_given(self, db: RecordedDB) -> None:
        """A context is stored with its times and its metadata, and reads back the same."""
        new_session(db)
        version = db.add_or_update_context_msg("s1", [1], 5, 6, {"b": 1, "a": 2})
        expect(
            db.get_context("s1"),
            {
                "session_id": "s1",
                "context": [1],
                "created_at": 5,
                "updated_at": 6,
                "metadata": {"b": 1, "a": 2},
                "version": version,
            },
        )

    @clause("CTX-1")
    def test_ctx_1_takes_every_field_by_its_name(self, db: RecordedDB) -> None:
        """The fields may be given by name; other keywords are dropped unchecked."""
        new_session(db)
        db.add_or_update_context_msg(
            metadata=[0],
            updated_at=6,
            created_at=5,
            context_messages={"k": 1},
            session_id="s1",
            conv_id=5,
            db=object(),
            score=float("nan"),
        )
        expect([db.get_context("s1")[key] for key in _FIELDS], ["s1", {"k": 1}, 5, 6, [0]])

    @clause("CTX-1")
    def test_ctx_1_fills_the_defaults(self, db: RecordedDB) -> None:
        """What is not given is now, or an empty dict."""
        new_session(db)
        since = clock()
        db.add_or_update_context_msg("s1", [])
        context = db.get_context("s1")
        expect_now(context["created_at"], since, "created_at")
        expect(context["updated_at"], context["created_at"], "updated_at, from the same clock")
        expect(context["metadata"], {})

    @clause("CTX-1")
    def test_ctx_1_created_at_survives_a_save(self, db: RecordedDB) -> None:
        """A context keeps the time of its creation through saves that do not give one."""
        new_session(db)
        for time in (5, 0, -7, FAR_FUTURE):
            db.add_or_update_context_msg("s1", [time], created_at=time, updated_at=5)
            expect(db.get_context("s1")["created_at"], time)
            db.add_or_update_context_msg("s1", {"k": [time]}, updated_at=9)
            db.add_or_update_context_msg("s1", {"k": [time, 1]}, created_at=None, updated_at=9)
            expect(db.get_context("s1")["created_at"], time)

    @clause("CTX-1")
    def test_ctx_1_created_at_is_stored_if_it_is_given(self, db: RecordedDB) -> None:
        """A save that gives created_at corrects it, also if the value is the same as before."""
        new_session(db)
        for time in (50, 7, 0, -3, FAR_FUTURE):
            db.add_or_update_context_msg("s1", [1], created_at=time, updated_at=5)
            context = db.get_context("s1")
            expect((context["created_at"], context["updated_at"]), (time, 5))

    @clause("CTX-1")
    def test_ctx_1_updated_at_is_what_the_save_says(self, db: RecordedDB) -> None:
        """updated_at is stored as given, also if that is earlier; not given, it is now."""
        new_session(db)
        for time in (50, 70, 7, 0, -3, FAR_FUTURE):
            db.add_or_update_context_msg("s1", [1], updated_at=time)
            expect(db.get_context("s1")["updated_at"], time)
            since = clock()
            db.add_or_update_context_msg("s1", [1])
            expect_now(db.get_context("s1")["updated_at"], since, "updated_at")

    @clause("CTX-1")
    def test_ctx_1_metadata_is_replaced_too(self, db: RecordedDB) -> None:
        """Each save sets the metadata anew, also where only they differ; left out, they are {}."""
        new_session(db)
        for new, expected in (({"a": 1}, {"a": 1}), ([2], [2]), ({"b": 3}, {"b": 3}), (None, {})):
            db.add_or_update_context_msg("s1", ["same"], updated_at=5, metadata=new)
            expect(db.get_context("s1")["metadata"], expected)
        db.add_or_update_context_msg("s1", ["same"], updated_at=5, metadata=[1])
        db.add_or_update_context_msg("s1", ["same"], updated_at=5)
        expect(db.get_context("s1")["metadata"], {})

    @clause("CTX-1")
    def test_ctx_1_a_context_needs_its_session(self, db: RecordedDB) -> None:
        """A context for a session that does not exist raises and stores nothing."""
        new_session(db)
        with unchanged(db):
            error = expect_error(SessionNotFoundError, db.add_or_update_context_msg, "nobody", [1])
            expect(error.session_id, "nobody")
        db.create_session("nobody")
        expect(db.get_context("nobody"), {})

    @clause("CTX-1")
    def test_ctx_1_refuses_before_it_looks(self, db: RecordedDB) -> None:
        """A bad value is refused, and named, whether the session exists or not."""
        full_session(db)
        call = db.add_or_update_context_msg
        with unchanged(db):
            for name in ("s1", "nobody"):
                error = expect_error(InvalidRecordError, call, name, {"a": [object()]})
                expect(error.path, "context_messages.a[0]")
                for field, bad in (("created_at", 1.0), ("updated_at", True), ("metadata", b"")):
                    error = expect_error(InvalidRecordError, call, name, [1], **{field: bad})
                    expect(error.path, field)

    # --- CTX-2: reading -------------------------------------------------------------------------

    @clause("CTX-2")
    def test_ctx_2_returns_any_json_as_it_was_stored(self, db: RecordedDB) -> None:
        """A context is any JSON value; whatever it is, it comes back, and replaces the last one."""
        new_session(db)
        for value in (*ANY_JSON, *ANY_JSON[::-1]):
            db.add_or_update_context_msg("s1", value)
            expect(db.get_context_messages("s1"), value)
            expect(db.get_context("s1")["context"], value)

    @clause("CTX-2")
    def test_ctx_2_no_context_is_an_empty_dict(self, db: RecordedDB) -> None:
        """Without a context, or without a session, both reads give {}."""
        full_session(db, "s2")
        for name in ("nobody", new_session(db)):
            expect(db.get_context_messages(name), {})
            expect(db.get_context(name), {})

    @clause("CTX-2")
    def test_ctx_2_reads_the_empty_session_id_of_an_empty_place(self, db: RecordedDB) -> None:
        """An application that has no session yet may ask for its context: there is none."""
        expect(db.get_context_messages(""), {})
        expect(db.get_context(""), {})

    @clause("CTX-2")
    def test_ctx_2_has_these_keys_in_this_order(self, db: RecordedDB) -> None:
        """A context's record is a plain dict with six keys, always in the same order."""
        new_session(db)
        values: tuple[Any, ...] = ([], {"reasoning": [1]}, None)
        for value in values:
            db.add_or_update_context_msg("s1", value)
            context = db.get_context("s1")
            expect(type(context).__name__, "dict")
            expect(list(context), _KEYS)

    @clause("CTX-2")
    def test_ctx_2_tells_a_stored_empty_dict_from_none(self, db: RecordedDB) -> None:
        """An empty context that was stored is there, with its times; it is not the lack of one."""
        new_session(db)
        empty_contexts: tuple[Any, ...] = ({}, None)
        for empty in empty_contexts:
            db.add_or_update_context_msg("s1", empty, 5, 6)
            expect(db.get_context("s1")["context"], empty)
            expect([db.delete_context("s1")], [True])
            expect(db.get_context("s1"), {})

    # --- CTX-3: saves are whole -----------------------------------------------------------------

    @clause("CTX-3")
    def test_ctx_3_a_save_merges_nothing(self, db: RecordedDB) -> None:
        """What is saved is all that is there; nothing of the value before it is left."""
        new_session(db)
        values: tuple[Any, ...] = (
            {"a": 1, "reasoning": [1, 2, 3]},
            {"b": 2},
            {"reasoning": [3]},
            {"reasoning": [], "c": {}},
            [1, 2, 3, 4],
            [4],
            [],
            [5, 6],
            {"x": [5, 6]},
            {"y": [5, 6]},
            "text",
            [5],
        )
        for value in values:
            db.add_or_update_context_msg("s1", value)
            expect(db.get_context_messages("s1"), value)

    @clause("CTX-3")
    def test_ctx_3_a_list_that_changes_in_every_way(self, db: RecordedDB) -> None:
        """A list that grows, shrinks or changes at any place is stored as it is each time."""
        new_session(db)
        start: list[Any] = [{"role": "user", "n": number} for number in range(6)]
        for shape in _SHAPES:
            for value in (
                start,
                [*start, {"new": 1}],
                [*start, {"new": 1}, {"new": 2}, "last"],
                [*start, {"new": 1}],
                start[:3],
                start,
                [*start[:2], {"changed": 1}, *start[3:]],
                ["first", *start],
                start[1:],
                start[::-1],
                [*start, *start],
                [start[0]],
                [],
                start,
            ):
                db.add_or_update_context_msg("s1", shape(value), updated_at=5)
                expect(db.get_context_messages("s1"), shape(value))

    @clause("CTX-3")
    def test_ctx_3_a_change_that_python_does_not_see(self, db: RecordedDB) -> None:
        """A save of what only looks equal, as 1 and 1.0 do, is stored all the same."""
        new_session(db)
        alike: tuple[tuple[Any, ...], ...] = (
            (1, 1.0, True),
            (0, -0.0, 0.0, False),
            ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
            ([1], [True]),
            ("\xe9", "e\u0301"),
            ("\U0001f600", "\ud83d\ude00"),
            (2**53, float(2**53)),
        )
        for values in alike:
            for shape in (*_SHAPES, lambda value: value[0], lambda value: {"k": value[0]}):
                for value in (*values, values[0]):
                    items = [value, "between", value]
                    db.add_or_update_context_msg("s1", shape(items), updated_at=5)
                    expect(db.get_context_messages("s1"), shape(items))

    @clause("CTX-3")
    def test_ctx_3_a_long_item_of_which_one_character_changes(self, db: RecordedDB) -> None:
        """A change of one character is stored, wherever it stands in however long a message."""
        new_session(db)
        length = 10_000
        for shape in _SHAPES:
            for place in range(3):
                for at in (length - 1, length // 2, 0):
                    items = [{"role": "user", "content": "x" * length} for _ in range(3)]
                    # Twice, so that it is known what is stored.
                    for _ in range(2):
                        db.add_or_update_context_msg("s1", shape(items), updated_at=5)
                    items[place]["content"] = "x" * at + "y" + "x" * (length - 1 - at)
                    db.add_or_update_context_msg("s1", shape(items), updated_at=5)
                    about = f"after a change of character {at} in message {place}"
                    expect(db.get_context_messages("s1"), shape(items), about)

    @clause("CTX-3")
    def test_ctx_3_what_stands_beside_a_list(self, db: RecordedDB) -> None:
        """The keys around a list may come, go, change and move while the list stays or grows."""
        new_session(db)
        items: list[Any] = [{"n": number} for number in range(5)]
        for value in (
            {"reasoning": items},
            {"reasoning": items, "chat": []},
            {"chat": [], "reasoning": items},
            {"chat": [], "reasoning": [*items, 5]},
            {"chat": [1], "reasoning": [*items, 5]},
            {"chat": items, "reasoning": [*items, 5]},
            {"chat": items, "reasoning": "none"},
            {"chat": items},
            {"Chat": items},
            {"chat": {"chat": items}},
            {"chat": [items]},
            items,
            {"reasoning": items, "": [], "k": {"reasoning": [1]}},
            {"reasoning": [], "": items, "k": {"reasoning": [1]}},
            {"k": {"reasoning": [1]}, "": items, "reasoning": None},
            {},
        ):
            db.add_or_update_context_msg("s1", value, updated_at=5)
            expect(db.get_context_messages("s1"), value)

    @clause("CTX-3")
    def test_ctx_3_a_long_list(self, db: RecordedDB) -> None:
        """A context of many messages is saved and read whole as it grows, changes and shrinks."""
        new_session(db)
        items: list[Any] = [{"role": "user", "content": f"number {n}"} for n in range(5100)]
        for value in (
            items[:1000],
            items[:1001],
            items[:1200],
            items,
            [*items[:700], "changed", *items[701:]],
            items[1:],
            items[:999],
            [items[0], *items],
        ):
            db.add_or_update_context_msg("s1", {"reasoning": value})
            expect(db.get_context_messages("s1"), {"reasoning": value})

    @clause("CTX-3")
    def test_ctx_3_lists_of_small_and_odd_items(self, db: RecordedDB) -> None:
        """Lists of numbers, and items that need care, grow and change as others do."""
        new_session(db)
        odd = ["\ud800", 10**4299, "\0", "\t"]
        for shape in _SHAPES:
            for value in (
                [*range(63)],
                [*range(66)],
                [*range(200)],
                [*range(100), "a longer message", *range(101, 201)],
                [*range(201)],
                [*range(100)],
                ["x", *odd, "y"],
                ["x", *odd, "y", "z"],
                ["x", "y", "z"],
                ["x", "y", "z", *odd],
                [{item: 1} for item in odd if isinstance(item, str)],
            ):
                db.add_or_update_context_msg("s1", shape(value), updated_at=5)
                expect(db.get_context_messages("s1"), shape(value))
            for item in (1, odd, "plain"):
                context = db.get_context_messages("s1")
                if isinstance(context, dict):
                    length = db.append_context_messages("s1", [item])
                    expect(length, len(context["reasoning"]) + 1)
                    context["reasoning"].append(item)
                    expect(db.get_context_messages("s1"), context)

    @clause("CTX-3")
    def test_ctx_3_contexts_that_are_edited(self, db: RecordedDB) -> None:
        """However a context is edited between two saves, the last save is what is read."""
        counter = iter(range(10**6))

        @bounded(40)
        @given(edited_contexts)
        def check(versions: list[Any]) -> None:
            transcript.clear()
            name = new_session(db, f"s{next(counter)}")
            for value in versions:
                db.add_or_update_context_msg(name, value, updated_at=5)
                expect(db.get_context_messages(name), value)

        check()


def _as_it_is(items: list[Any]) -> Any:
    return items


def _in_a_dict(items: list[Any]) -> Any:
    return {"reasoning": items}


def _among_others(items: list[Any]) -> Any:
    return {"z": [1], "reasoning": items, "a": {"reasoning": [2]}}


_SHAPES: Final = (_as_it_is, _in_a_dict, _among_others)
