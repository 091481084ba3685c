"""VAL-7, and VAL-8: whose an object is, and what metadata is where there is none."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import full_session, message, new_session, put
from director_db_conformance.expectation import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_conformance.transcript import RecordedDB


class OwnershipClauses:
    """What is passed and what is returned is the caller's own; metadata."""

    # --- VAL-7: ownership -----------------------------------------------------------------------

    @clause("VAL-7")
    def test_val_7_arguments_are_not_changed(self, db: RecordedDB) -> None:
        """A call leaves the caller's lists and dicts as they are, tuples and all."""
        payload: Any = [{"b": [1, (2, 3)], "a": {}}, ("x",)]
        messages = [message("a", payload, metadata=payload), message("b", payload, created_at=None)]
        arguments = [payload, messages]
        before = copy.deepcopy(arguments)
        db.create_session("s1", metadata=payload)
        db.update_session("s1", metadata=payload)
        put(db, "s1", "m", payload, agents=payload, actions=payload, metadata=payload)
        db.add_or_update_msgs_to_conv("s1", messages)
        db.add_or_update_context_msg("s1", {"reasoning": payload}, metadata=payload)
        db.append_context_messages("s1", payload)
        session = db.get_session("s1")
        cursor = copy.deepcopy(session)
        db.get_sessions(before=session)
        expect(arguments, before)
        expect(session, cursor)

    @clause("VAL-7")
    def test_val_7_arguments_are_not_kept(self, db: RecordedDB) -> None:
        """What a caller does to its objects after a call does not reach what is stored."""
        payload: Any = [{"a": [1]}]
        messages = [message("b", payload)]
        context = {"reasoning": payload}
        db.create_session("s1", metadata=payload)
        put(db, "s1", "a", payload, agents=payload, actions=payload, metadata=payload)
        db.add_or_update_msgs_to_conv("s1", messages)
        db.add_or_update_context_msg("s1", context, metadata=payload)
        payload[0]["a"].append("changed")
        payload.append("changed")
        messages.clear()
        context.clear()
        plain = [{"a": [1]}]
        expect(db.get_session("s1")["metadata"], plain)
        first, second = db.get_conversations("s1")
        expect([first[key] for key in ("agents", "actions", "content", "metadata")], [plain] * 4)
        expect(second["content"], plain)
        saved = db.get_context("s1")
        expect([saved["context"], saved["metadata"]], [{"reasoning": plain}, plain])
        db.append_context_messages("s1", payload)
        payload.clear()
        expect(len(db.get_context_messages("s1")["reasoning"]), 3)

    @clause("VAL-7")
    def test_val_7_a_changed_object_can_be_saved_again(self, db: RecordedDB) -> None:
        """An application may keep one context, change it in place and save it each time."""
        new_session(db)
        items: list[Any] = [{"n": 0}]
        context: dict[str, Any] = {"reasoning": items}
        db.add_or_update_context_msg("s1", context)
        for step in ("append", "inside", "pop", "key"):
            match step:
                case "append":
                    items.append({"n": 1})
                case "inside":
                    items[0]["n"] = 2
                case "pop":
                    items.pop()
                case _:
                    context["other"] = []
            db.add_or_update_context_msg("s1", context)
            expect(db.get_context_messages("s1"), copy.deepcopy(context), step)
        db.get_context_messages("s1")["reasoning"].append("the reader's own")
        db.add_or_update_context_msg("s1", context)
        expect(db.get_context_messages("s1"), {"reasoning": [{"n": 2}], "other": []})

    @clause("VAL-7")
    def test_val_7_results_are_the_callers_own(self, db: RecordedDB) -> None:
        """Changing a result changes neither what is stored nor any other result."""
        full_session(db)
        for read in _reads(db, "s1", "a"):
            first, expected = read(), copy.deepcopy(read())
            _spoil(first)
            expect(read(), expected)

    @clause("VAL-7")
    def test_val_7_empty_results_are_the_callers_own(self, db: RecordedDB) -> None:
        """The {} or [] of what is not there is a new one at each call; nothing sticks to it."""
        db.create_session("empty")
        for name in ("nobody", "empty", "", 5):
            for read in _reads(db, name, "m"):
                first, expected = read(), copy.deepcopy(read())
                _spoil(first)
                expect(read(), expected)
        result = db.delete_session("nobody")
        result.failed_components.clear()
        expect(len(db.delete_session("nobody").failed_components), 3)

    @clause("VAL-7")
    def test_val_7_parts_of_results_are_not_shared(self, db: RecordedDB) -> None:
        """Two fields that are both empty, or equal, are two objects."""
        new_session(db)
        put(db, "s1", "a", [], agents=[], actions=[], metadata=None)
        put(db, "s1", "b", [], agents=[], actions=[], metadata=None)
        db.add_or_update_context_msg("s1", {"a": [], "b": [], "c": {}})
        first, second = db.get_conversations("s1")
        first["content"].append(1)
        first["metadata"]["x"] = 1
        for record in (first, second):
            expect([record["agents"], record["actions"]], [[], []])
        expect([second["content"], second["metadata"]], [[], {}])
        context = db.get_context("s1")
        context["context"]["a"].append(1)
        context["metadata"]["x"] = 1
        expect(context["context"], {"a": [1], "b": [], "c": {}})
        expect(db.get_context("s1")["metadata"], {})

    # --- VAL-8: no metadata ---------------------------------------------------------------------

    @clause("VAL-8")
    def test_val_8_none_means_an_empty_dict(self, db: RecordedDB) -> None:
        """metadata=None is {} everywhere, on an insert and on an update."""
        for first in (None, {"k": 1}):
            name = f"s{first}"
            db.create_session(name, metadata=first)
            put(db, name, "m", metadata=first)
            put(db, name, "b", metadata=first)
            db.add_or_update_context_msg(name, [], metadata=first)
            db.update_session(name, metadata=None)
            put(db, name, "m", metadata=None)
            db.add_or_update_msgs_to_conv(name, [message("b", metadata=None)])
            db.add_or_update_context_msg(name, [], metadata=None)
            records = [*db.get_conversations(name), db.get_session(name), db.get_context(name)]
            expect([record["metadata"] for record in records], [{}] * 4)
        db.create_session("new", metadata=None)
        expect(db.get_session("new")["metadata"], {})

    @clause("VAL-8")
    def test_val_8_metadata_is_any_payload_and_replaced_whole(self, db: RecordedDB) -> None:
        """Metadata need not be a dict; nothing of what it was before is merged into it."""
        new_session(db)
        values: tuple[Any, ...] = (
            {"a": 1, "b": {"c": 2}},
            {"b": {}},
            [],
            0,
            "",
            False,
            "text",
            [None],
            {},
            {"a": 0},
        )
        for value in values:
            db.update_session("s1", metadata=value)
            put(db, "s1", "m", metadata=value)
            db.add_or_update_msgs_to_conv("s1", [message("n", metadata=value)])
            db.add_or_update_context_msg("s1", [], metadata=value)
            records = [*db.get_conversations("s1"), db.get_session("s1"), db.get_context("s1")]
            expect([record["metadata"] for record in records], [value] * 4)


def _reads(db: RecordedDB, session_id: Any, msg_id: Any) -> list[Callable[[], Any]]:
    return [
        lambda: db.get_session(session_id),
        lambda: db.get_sessions(video_id=session_id),
        db.get_sessions,
        lambda: db.get_conversations(session_id),
        lambda: db.get_conversations(session_id, limit=1),
        lambda: db.get_message(session_id, msg_id),
        lambda: db.get_context_messages(session_id),
        lambda: db.get_context(session_id),
    ]


def _spoil(value: Any) -> None:
    """Change a list or a dict, and everything in it."""
    for part in [*value.values()] if isinstance(value, dict) else value:
        if isinstance(part, (dict, list)):
            _spoil(part)
    if isinstance(value, dict):
        value["spoiled"] = 1
    else:
        value.append("spoiled")
