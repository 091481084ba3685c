"""The checks of arguments and their defaults: from what callers give to the rows of backends.

Pure functions: no I/O, so that any front end can share them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from director_db.errors import InvalidRecordError
from director_db.payload import encode_payload, payload_bytes
from director_db.payload_rules import MAX_BULK_BYTES
from director_db.rows import (
    UNSET,
    GuardedMessage,
    MessageQuery,
    MessageRow,
    SessionChanges,
    SessionCopy,
    SessionRow,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


MAX_IDS: Final = 100_000
"""The most ids that are looked for at once (MSG-12)."""

MAX_TEXT_CHARACTERS: Final = 255
"""The longest id, ``msg_type`` or ``status``, in characters (VAL-4, MSG-8)."""

# Clocks differ, and some sessions are planned.
_FAR_AHEAD: Final = 366 * 24 * 3600

PAGE: Final = 1000
"""How many records an iteration reads at once, if it is not told."""

_MIN_TIMESTAMP: Final = -(2**63)
_MAX_TIMESTAMP: Final = 2**63 - 1


def now() -> int:
    """Return the time in whole seconds since the epoch."""
    return int(time.time())


def future_warning(row: SessionRow) -> str:
    """Return a warning if the latest session's time is more than a year ahead, else ``""``.

    Such a session stays on top of the list: writes only move its time forward (SES-6).
    """
    seconds = row.updated_at
    if seconds <= now() + _FAR_AHEAD:
        return ""
    unit = "; as milliseconds it would be of our time" if seconds // 1000 <= now() else ""
    return (
        f"The session {row.session_id!r} is on top of the list, as its updated_at {seconds:,} is "
        f"far in the future. Times are in seconds{unit}. update_session() can set another."
    )


def flag(value: object, path: str) -> bool:
    """Return an argument that is True or False, and nothing that only counts as such."""
    if not isinstance(value, bool):
        raise InvalidRecordError(path, f"True or False, not {type(value).__name__}")
    return value


def lookup_id(value: object) -> str | None:
    """Return an id to look for, None if no record can have it (VAL-4)."""
    if not isinstance(value, str):
        return None
    text = str.__str__(value)
    return text if text and _fault_of_text(text) is None else None


def required_id(value: object, path: str) -> str:
    """Return the id of a record to write: 1 to 255 characters (VAL-4)."""
    text = _text(value, path)
    if not text:
        raise InvalidRecordError(path, "an id has at least 1 character")
    return text


def optional_text(value: object, path: str) -> str | None:
    """Return a text of 0 to 255 characters, or None (VAL-4, MSG-8)."""
    return None if value is None else _text(value, path)


def timestamp(value: object, path: str) -> int:
    """Return a time in seconds since the epoch, 64-bit (VAL-5)."""
    if isinstance(value, bool) or not isinstance(value, int):
        from director_db.remedies import time_remedy  # noqa: PLC0415 - for what is refused only

        reason = f"a time is int seconds since the epoch, not {type(value).__name__}"
        raise InvalidRecordError(path, reason + time_remedy(value))
    seconds = int.__index__(value)
    if not _MIN_TIMESTAMP <= seconds <= _MAX_TIMESTAMP:
        raise InvalidRecordError(path, "a time has at most 64 bits")
    return seconds


def page_limit(value: object) -> int | None:
    """Return the most rows of a page, None for no limit (SES-4, MSG-6)."""
    return None if value is None else _rows(value, "limit", "an int or None")


def page_size(value: object) -> int:
    """Return the most rows of each page of an iteration (SES-7, MSG-10)."""
    return _rows(value, "page", "an int")


def _rows(value: object, path: str, wanted: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRecordError(path, f"{wanted}, not {type(value).__name__}")
    if value < 1:
        raise InvalidRecordError(path, "at least 1")
    # More rows than any database counts are no limit, and must not overflow a driver's integer.
    return min(int.__index__(value), _MAX_TIMESTAMP)


def session_row(
    session_id: object,
    video_id: object,
    collection_id: object,
    created_at: object,
    updated_at: object,
    metadata: object,
    user_id: object = None,
) -> SessionRow:
    """Check a session to create and fill its defaults (SES-1)."""
    current = now()
    return SessionRow(
        required_id(session_id, "session_id"),
        optional_text(video_id, "video_id"),
        optional_text(collection_id, "collection_id"),
        current if created_at is None else timestamp(created_at, "created_at"),
        current if updated_at is None else timestamp(updated_at, "updated_at"),
        encode_metadata(metadata, "metadata"),
        optional_text(user_id, "user_id"),
    )


def session_changes(
    video_id: object,
    collection_id: object,
    metadata: object,
    updated_at: object,
    user_id: object = UNSET,
) -> SessionChanges:
    """Check the new values of a session (SES-5)."""
    return SessionChanges(
        UNSET if video_id is UNSET else optional_text(video_id, "video_id"),
        UNSET if collection_id is UNSET else optional_text(collection_id, "collection_id"),
        UNSET if metadata is UNSET else encode_metadata(metadata, "metadata"),
        now() if updated_at is None else timestamp(updated_at, "updated_at"),
        UNSET if user_id is UNSET else optional_text(user_id, "user_id"),
    )


def session_cursor(before: object) -> tuple[int, int, str] | None:
    """Return the place in the order of sessions that a session dict stands at (SES-4)."""
    if before is None:
        return None
    if not isinstance(before, dict):
        reason = f"a session as get_sessions returns it, not {type(before).__name__}"
        raise InvalidRecordError("before", reason)
    missing = [key for key in ("updated_at", "created_at", "session_id") if key not in before]
    if missing:
        raise InvalidRecordError("before", f"lacks {', '.join(missing)}")
    return (
        timestamp(before["updated_at"], "before.updated_at"),
        timestamp(before["created_at"], "before.created_at"),
        required_id(before["session_id"], "before.session_id"),
    )


def message_row(
    conv_id: object,
    msg_id: object,
    msg_type: object,
    agents: object,
    actions: object,
    content: object,
    status: object,
    created_at: object,
    updated_at: object,
    metadata: object,
    *,
    path: str = "",
) -> MessageRow:
    """Check a message to store and fill its defaults (MSG-2, MSG-8).

    The arguments are those of `BaseDB.add_or_update_msg_to_conv`; `path` is what stands before the
    name of a field in an error, as ``messages[2].``.
    """
    current = now()
    return MessageRow(
        optional_text(conv_id, f"{path}conv_id"),
        required_id(msg_id, f"{path}msg_id"),
        _text(msg_type, f"{path}msg_type"),
        encode_payload(agents, f"{path}agents"),
        encode_payload(actions, f"{path}actions"),
        encode_payload(content, f"{path}content"),
        optional_text(status, f"{path}status"),
        current if created_at is None else timestamp(created_at, f"{path}created_at"),
        current if updated_at is None else timestamp(updated_at, f"{path}updated_at"),
        encode_metadata(metadata, f"{path}metadata"),
        created_at is not None,
    )


def session_copy(session_id: object, to: object, until: object) -> SessionCopy:
    """Check a copy of a session to make (SES-9)."""
    return SessionCopy(
        required_id(session_id, "session_id"),
        required_id(to, "to"),
        None if until is None else required_id(until, "until"),
        now(),
    )


def message_guards(
    row: MessageRow, revision: object, if_absent: object, *, path: str = ""
) -> GuardedMessage:
    """Check the guards of a message to store; `path` is as for `message_row` (MSG-11)."""
    if revision is not None:
        if isinstance(revision, bool) or not isinstance(revision, int):
            reason = f"an int or None, not {type(revision).__name__}"
            raise InvalidRecordError(f"{path}revision", reason)
        revision = int.__index__(revision)
        if not _MIN_TIMESTAMP <= revision <= _MAX_TIMESTAMP:
            raise InvalidRecordError(f"{path}revision", "a revision has at most 64 bits")
    return GuardedMessage(row, revision, flag(if_absent, f"{path}if_absent"))


_REQUIRED_MESSAGE_KEYS: Final = ("conv_id", "msg_id", "msg_type", "agents", "actions", "content")


def message_rows(session_id: str, messages: object) -> list[GuardedMessage]:
    """Check the messages of a bulk write, each a dict of a message's fields (MSG-7).

    A message may carry the session's own id, as `get_conversations` returns it; another one is
    refused, and so is a bulk of more than 256 MiB.
    """
    rows = []
    total = 0
    for index, message in enumerate(_items(messages, "messages")):
        path = f"messages[{index}]"
        if not isinstance(message, dict):
            raise InvalidRecordError(path, f"a dict of a message, not {type(message).__name__}")
        missing = [key for key in _REQUIRED_MESSAGE_KEYS if key not in message]
        if missing:
            raise InvalidRecordError(path, f"lacks {', '.join(missing)}")
        own = message.get("session_id", session_id)
        if not isinstance(own, str) or str.__str__(own) != session_id:
            reason = f"belongs to another session, not to {session_id!r}"
            raise InvalidRecordError(f"{path}.session_id", reason)
        row = message_row(
            message["conv_id"],
            message["msg_id"],
            message["msg_type"],
            message["agents"],
            message["actions"],
            message["content"],
            message.get("status"),
            message.get("created_at"),
            message.get("updated_at"),
            message.get("metadata"),
            path=f"{path}.",
        )
        total += message_bytes(row)
        if total > MAX_BULK_BYTES:
            mib = MAX_BULK_BYTES // 1024 // 1024
            raise InvalidRecordError(path, f"together longer than {mib} MiB as JSON up to here")
        guards = message.get("revision"), message.get("if_absent", False)
        rows.append(message_guards(row, *guards, path=f"{path}."))
    return rows


def message_part(conv_id: object, msg_type: object) -> tuple[str | None, str | None] | None:
    """Return the filters for messages, None for any value; None if no message can match (VAL-4)."""
    try:
        return optional_text(conv_id, "conv_id"), optional_text(msg_type, "msg_type")
    except InvalidRecordError:
        return None


def message_query(
    session_id: str,
    limit: object,
    before: object,
    after: object,
    conv_id: str | None = None,
    msg_type: str | None = None,
) -> MessageQuery:
    """Check a page of messages to read (MSG-6); the last two come from `message_part`."""
    rows_limit = page_limit(limit)
    if before is not None and after is not None:
        raise InvalidRecordError("before", "cannot be given together with after")
    cursor = lookup_id(after if before is None else before)
    if cursor is None and (before is not None or after is not None):
        raise unknown_cursor(before, after)
    if before is not None:
        return MessageQuery(session_id, rows_limit, cursor, None, conv_id, msg_type)
    return MessageQuery(session_id, rows_limit, None, cursor, conv_id, msg_type)


def lookup_ids(ids: object) -> list[str]:
    """Return the ids to look for, each once, without those that no record can have (MSG-12)."""
    items = _items(ids, "ids")
    if len(items) > MAX_IDS:
        raise InvalidRecordError("ids", f"at most {MAX_IDS:,} at once; these are {len(items):,}")
    possible = (lookup_id(item) for item in items)
    return list(dict.fromkeys(item for item in possible if item is not None))


def unknown_cursor(before: object, after: object) -> InvalidRecordError:
    """Return the error of a page beside a message that is not in the session (MSG-6)."""
    return unknown_message(*(("after", after) if before is None else ("before", before)))


def unknown_message(name: str, value: object) -> InvalidRecordError:
    """Return the error of an argument that is to name a message of the session (MSG-6, DEL-4)."""
    # Whatever it is was passed here, and the repr of some objects raises, that of a long int too.
    what = str.__repr__(value) if isinstance(value, str) else f"of type {type(value).__name__}"
    return InvalidRecordError(name, f"there is no message {what} in the session")


def message_bytes(row: MessageRow) -> int:
    """Return the length of a message's payloads in bytes of UTF-8."""
    # Not by sum() and map(), which take longer than the four: it is on the path of each message.
    return (
        payload_bytes(row.agents)
        + payload_bytes(row.actions)
        + payload_bytes(row.content)
        + payload_bytes(row.metadata)
    )


def context_items(messages: object) -> list[object]:
    """Return the items of an append as a list (CTX-4)."""
    return list(_items(messages, "messages"))


def encode_metadata(value: object, path: str) -> str:
    """Return the stored text of a metadata payload; None means ``{}`` (VAL-8)."""
    return "{}" if value is None else encode_payload(value, path)


def _text(value: object, path: str) -> str:
    # Nearly all are like this, and a message has five of them.
    if (
        type(value) is str
        and value.isascii()
        and len(value) <= MAX_TEXT_CHARACTERS
        and "\0" not in value
    ):
        return value
    if not isinstance(value, str):
        from director_db.remedies import text_remedy  # noqa: PLC0415 - for what is refused only

        raise InvalidRecordError(path, f"a str, not {type(value).__name__}{text_remedy(value)}")
    text = str.__str__(value)
    fault = _fault_of_text(text)
    if fault is not None:
        raise InvalidRecordError(path, fault)
    return text


def _fault_of_text(text: str) -> str | None:
    if len(text) > MAX_TEXT_CHARACTERS:
        return f"at most {MAX_TEXT_CHARACTERS} characters; this one has {len(text):,}"
    if "\0" in text:
        return "the character U+0000 cannot stand in it"
    if text.isascii():  # Nearly all are, and it is known without looking.
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a lone surrogate cannot stand in it"
    return None


def _items(value: object, path: str) -> Sequence[object]:
    if isinstance(value, (list, tuple)):
        return value
    raise InvalidRecordError(path, f"a list, not {type(value).__name__}")
