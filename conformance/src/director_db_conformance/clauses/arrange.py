"""What the clauses of several families begin with, and how they look at what is stored."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from director_db_conformance.expectation import expect, expect_that

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director_db_conformance.transcript import RecordedDB

FAR_FUTURE: Final = 2**40
"""A time that no clock shows while the suite is in use."""

ANY_JSON: Final[tuple[Any, ...]] = (
    None,
    0,
    1,
    1.0,
    -0.0,
    True,
    False,
    "",
    "text",
    "[]",
    "null",
    [],
    [[]],
    [None],
    [{}],
    {},
    {"": ""},
    {"reasoning": []},
    {"reasoning": None},
    {"reasoning": [1], "chat": [2]},
    [{"role": "user", "content": "hi"}],
)
"""A payload of every kind, those that are taken for nothing among them."""


def new_session(db: RecordedDB, session_id: str = "s1") -> str:
    """Create a session, last active at 1000, and return its id."""
    db.create_session(session_id, "v1", "c1", 1000, 1000, {"k": [1]})
    return session_id


def full_session(db: RecordedDB, session_id: str = "s1") -> str:
    """Create a session with two messages and a context, all of the time 1000."""
    new_session(db, session_id)
    for name in ("a", "b"):
        put(db, session_id, name, {"of": session_id}, created_at=1000, updated_at=1000)
    context = {"reasoning": [{"of": session_id}], "rest": 1}
    db.add_or_update_context_msg(session_id, context, 1000, 1000, {"k": 1})
    return session_id


def put(
    db: RecordedDB, session_id: Any, msg_id: Any, /, content: Any = "text", **fields: object
) -> None:
    """Store a message with as few words as possible."""
    fields = {"conv_id": "c", "msg_type": "input", "agents": [], "actions": []} | fields
    db.add_or_update_msg_to_conv(session_id, msg_id=msg_id, content=content, **fields)


def message(msg_id: object, content: object = "text", **fields: object) -> dict[str, Any]:
    """Return a message for a bulk."""
    plain = {"conv_id": "c", "msg_type": "input", "agents": [], "actions": []}
    return {**plain, "msg_id": msg_id, "content": content, **fields}


def writes_to(db: RecordedDB, session_id: Any) -> dict[str, Callable[[], object]]:
    """Return every write that a session has to exist for; each is valid by itself."""
    return {
        "update_session": lambda: db.update_session(session_id, video_id="late"),
        "message": lambda: put(db, session_id, "late"),
        "known message": lambda: put(db, session_id, "a", "late"),
        "bulk": lambda: db.add_or_update_msgs_to_conv(session_id, [message("a"), message("late")]),
        "replacing": lambda: db.replace_conversation(session_id, [message("late")]),
        "replacing by nothing": lambda: db.replace_conversation(session_id, []),
        "empty bulk": lambda: db.add_or_update_msgs_to_conv(session_id, []),
        "context": lambda: db.add_or_update_context_msg(session_id, {"late": []}),
        "append": lambda: db.append_context_messages(session_id, ["late"]),
        "empty append": lambda: db.append_context_messages(session_id, []),
    }


def fields(record: dict[str, Any]) -> dict[str, Any]:
    """Return a session or a context without its version, which no caller can foretell."""
    return {key: value for key, value in record.items() if key != "version"}


def msg_ids(messages: list[dict[str, Any]]) -> list[str]:
    """Return the ids of messages, in their order."""
    return [record["msg_id"] for record in messages]


def session_ids(sessions: list[dict[str, Any]]) -> list[str]:
    """Return the ids of sessions, in their order."""
    return [record["session_id"] for record in sessions]


def stored(db: RecordedDB) -> list[tuple[Any, ...]]:
    """Return all that can be read: each session with its messages and its context."""
    return [
        (session, db.get_conversations(name), db.get_context(name))
        for session in db.get_sessions()
        for name in [session["session_id"]]
    ]


@contextmanager
def unchanged(db: RecordedDB) -> Iterator[None]:
    """Fail unless all that can be read is the same before and after the block."""
    before = stored(db)
    yield
    expect(stored(db), before, "what is stored, as before")


def clock() -> int:
    """Return the time in whole seconds."""
    return int(time.time())


def expect_now(actual: object, since: int, about: str) -> None:
    """Fail unless a time was read from the clock between `since` and this moment."""
    until = clock()
    expect_that(
        type(actual) is int and since <= actual <= until,
        f"{about}: now, from {since} to {until}",
        actual,
    )
