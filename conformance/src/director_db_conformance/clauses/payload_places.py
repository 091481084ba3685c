"""Every place that a payload can stand in: to write it, and to read it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from director_db_conformance.clauses.arrange import message, put
from director_db_conformance.expectation import expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director_db_conformance.transcript import RecordedDB

_FIELDS: Final = ("agents", "actions", "content", "metadata")


def store_everywhere(db: RecordedDB, session_id: str, msg_id: str, value: Any) -> None:
    """Store a payload in every place that one can stand in; the session exists."""
    db.update_session(session_id, metadata=value)
    put(db, session_id, msg_id, value, agents=value, actions=value, metadata=value)
    db.add_or_update_context_msg(session_id, value, metadata=value)


def expect_everywhere(db: RecordedDB, session_id: str, msg_id: str, value: Any) -> None:
    """Fail unless a payload comes back from every read, alone and appended."""
    record, page = db.get_message(session_id, msg_id), db.get_conversations(session_id, limit=1)
    context = db.get_context(session_id)
    plain = {} if value is None else value
    for about, actual, expected in (
        ("agents", record["agents"], value),
        ("actions", record["actions"], value),
        ("content", record["content"], value),
        ("a message's metadata", record["metadata"], plain),
        ("a page of messages", page, [record]),
        ("the context", context["context"], value),
        ("the context's metadata", context["metadata"], plain),
        ("get_context_messages", db.get_context_messages(session_id), value),
        ("a session's metadata", db.get_session(session_id)["metadata"], plain),
    ):
        expect(actual, expected, about)
    db.delete_context(session_id)
    db.append_context_messages(session_id, [value, "between"])
    db.append_context_messages(session_id, [value])
    appended = {"reasoning": [value, "between", value]}
    expect(db.get_context_messages(session_id), appended, "items that were appended")


def writes_by_payload(db: RecordedDB) -> Iterator[tuple[str, Callable[[Any], object]]]:
    """Yield a write for every place that a payload can stand in, and its path."""
    yield "metadata", lambda value: db.create_session("new", metadata=value)
    yield "metadata", lambda value: db.update_session("s1", metadata=value)
    for field in _FIELDS:
        yield field, lambda value, f=field: put(db, "s1", "a", **{f: value})  # type: ignore[misc]
        yield (
            f"messages[1].{field}",
            lambda value, f=field: db.add_or_update_msgs_to_conv(  # type: ignore[misc]
                "s1", [message("new"), message("a", **{f: value})]
            ),
        )
    yield "context_messages", lambda value: db.add_or_update_context_msg("s1", value)
    yield "metadata", lambda value: db.add_or_update_context_msg("s1", [], metadata=value)
    yield "messages[0]", lambda value: db.append_context_messages("s1", [value])
