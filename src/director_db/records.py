"""What callers get, what backends exchange, and the checks and defaults between the two.

Callers get `TypedDict` records; backends see `NamedTuple` rows, already checked, with every
payload encoded as text. Pure functions: no I/O, so that any front end can share them.
"""

from __future__ import annotations

import os
import time
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypedDict

from director_db.errors import InvalidRecordError
from director_db.payload import (
    MARK,
    MAX_BULK_BYTES,
    decode_payload,
    encode_payload,
    payload_bytes,
    plain_decoder,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MAX_TEXT_CHARACTERS: Final = 255
"""The longest id, ``msg_type`` or ``status``, in characters (VAL-4, MSG-8)."""

# Clocks differ, and some sessions are planned.
_FAR_AHEAD: Final = 366 * 24 * 3600

_MIN_TIMESTAMP: Final = -(2**63)
_MAX_TIMESTAMP: Final = 2**63 - 1


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return self.value


UNSET: Final = Unset.UNSET
"""The default of an argument for which None has a meaning of its own."""


# --- What callers get ---------------------------------------------------------------------------


class Session(TypedDict):
    """A session as `get_session` returns it (SES-3). Times are seconds since the epoch."""

    session_id: str
    video_id: str | None
    collection_id: str | None
    created_at: int
    updated_at: int
    metadata: Any


class Message(TypedDict):
    """A message as `get_conversations` returns it (MSG-8). Times are seconds since the epoch."""

    session_id: str
    conv_id: str | None
    msg_id: str
    msg_type: str
    agents: Any
    actions: Any
    content: Any
    status: str | None
    created_at: int
    updated_at: int
    metadata: Any


class Context(TypedDict):
    """A context as `get_context` returns it (CTX-2). Times are seconds since the epoch."""

    session_id: str
    context: Any
    created_at: int
    updated_at: int
    metadata: Any


class DeleteResult(NamedTuple):
    """What `delete_session` found (DEL-2)."""

    success: bool
    failed_components: list[str]


class Migration(NamedTuple):
    """What `BaseDB.migrate` did; all zeros and an empty list where there was nothing to do.

    Attributes:
        sessions: sessions carried over.
        messages: messages carried over.
        contexts: contexts carried over.
        orphan_sessions: sessions made for messages and contexts that had none.
        skipped: one text for each row that stayed behind in the renamed tables, with the reason.
    """

    sessions: int
    messages: int
    contexts: int
    orphan_sessions: int
    skipped: list[str]


class Distribution(NamedTuple):
    """What `BaseDB.distribute` did.

    Attributes:
        version: of what the database is distributed with.
        shards: how many shards there are.
        tables: the tables that were distributed by this call; empty where all were already.
    """

    version: str
    shards: int
    tables: list[str]


class Health(NamedTuple):
    """What `health` reports. Every text is safe to show: passwords are masked.

    Attributes:
        db_type: the DB type.
        place: where the data is.
        versions: of each part, by its name.
        warnings: sentences on what puts data at risk, and on settings that have no effect.
        settings: where each setting comes from, by its name: a variable, or ``"default"``. Empty
            for an instance that was built with arguments.
    """

    db_type: str
    place: str
    versions: dict[str, str]
    warnings: list[str]
    settings: Mapping[str, str] = MappingProxyType({})


# --- What backends exchange ---------------------------------------------------------------------


class SessionRow(NamedTuple):
    """A row of sessions; `metadata` is a payload's text."""

    session_id: str
    video_id: str | None
    collection_id: str | None
    created_at: int
    updated_at: int
    metadata: str


class SessionChanges(NamedTuple):
    """New values for some columns of a session; what is `UNSET` stays."""

    video_id: str | Unset | None
    collection_id: str | Unset | None
    metadata: str | Unset
    updated_at: int


class SessionQuery(NamedTuple):
    """A page of sessions (SES-4).

    `before` is ``(updated_at, created_at, session_id)`` of the session that the page follows.
    """

    limit: int | None
    before: tuple[int, int, str] | None
    video_id: str | None
    collection_id: str | None


class MessageRow(NamedTuple):
    """A message to store; `agents`, `actions`, `content` and `metadata` are payloads' texts.

    On an update, `created_at` replaces the stored one only if `created_at_given` (MSG-2).
    """

    conv_id: str | None
    msg_id: str
    msg_type: str
    agents: str
    actions: str
    content: str
    status: str | None
    created_at: int
    created_at_given: bool
    updated_at: int
    metadata: str

    @property
    def columns(self) -> tuple[str | int | None, ...]:
        """The values that are stored: all fields in their order, but not `created_at_given`."""
        return (*self[:8], self.updated_at, self.metadata)


class StoredMessage(NamedTuple):
    """A message as it is stored, its columns in the order of the record's keys."""

    session_id: str
    conv_id: str | None
    msg_id: str
    msg_type: str
    agents: str
    actions: str
    content: str
    status: str | None
    created_at: int
    updated_at: int
    metadata: str


MessageColumns: TypeAlias = tuple[
    str, str | None, str, str, str, str, str, str | None, int, int, str
]
"""A `StoredMessage`, or a plain tuple as drivers give it: a page need not be made into others."""


class MessageQuery(NamedTuple):
    """A page of the messages of a session, oldest first (MSG-6).

    With `after`: the first `limit` after that message. With `before`, or with neither: the last
    `limit` before it, or at all. Never both.
    """

    session_id: str
    limit: int | None
    before: str | None
    after: str | None


class ContextRow(NamedTuple):
    """A context to store; `context` and `metadata` are payloads' texts, `metadata` may stay.

    `version` is a token drawn for this save; it is stored, and `StoredContext` gives it back.
    """

    session_id: str
    context: str
    version: int
    created_at: int
    created_at_given: bool
    updated_at: int
    metadata: str


class StoredContext(NamedTuple):
    """A context as it is stored.

    A backend that keeps it in parts gives the parts: `context` is then everything beside the list,
    `list_key` and `items` are as in `ContextChange`, and the texts of all items are in order.
    """

    session_id: str
    context: str
    version: int
    created_at: int
    updated_at: int
    metadata: str
    list_key: str | None = None
    items: tuple[str, ...] = ()


class ContextChange(NamedTuple):
    """A save of what changed in a context, for backends that keep its list item by item.

    Attributes:
        row: what is stored beside the items; its `context` is the text of everything beside the
            list, with an empty list in the list's place.
        if_version: as for `BaseDB._save_context`.
        rest_changed: whether `row.context` has to be stored; if not, it is empty, and the
            stored text stays. False only where `if_version` names a stored version.
        list_key: where the list stands, as JSON text: the key of a dict, or ``null`` if the value
            itself is the list. None for a context without a list: then there are no items.
        list_len: how many items the list has; those that are stored beyond it are deleted.
        indexes: the places of `items` in the list, ascending. All, unless `if_version` is given:
            then the items between them stay as they are in that version.
        items: the texts of items to store.
        total_bytes: the length of the whole as one payload.
    """

    row: ContextRow
    if_version: int | None
    rest_changed: bool
    list_key: str | None
    list_len: int
    indexes: Sequence[int]
    items: Sequence[str]
    total_bytes: int


class ContextAppend(NamedTuple):
    """New items for the end of a context's list, added without reading the list (CTX-4).

    Attributes:
        session_id: the session.
        version: a token, as in `ContextRow`.
        list_key: the key of the list, as in `ContextChange`.
        rest: what to store beside the items where there is no context yet.
        items: the texts of the new items, perhaps none.
        alone_bytes: the length of the whole where there is no context yet.
        added_bytes: by how much the whole grows where the list has items; where it is stored empty,
            a new first item needs no comma, so that it grows by one less.
        updated_at: also the `created_at` of a new context.
    """

    session_id: str
    version: int
    list_key: str
    rest: str
    items: Sequence[str]
    alone_bytes: int
    added_bytes: int
    updated_at: int


class Appended(NamedTuple):
    """What became of an append.

    Attributes:
        outcome: `CONFLICT` if the stored context has no such list in parts, or is too long.
        list_len: the new length of the list.
        replaced: the version that was stored before, `NO_CONTEXT` if none was, None if not known.
    """

    outcome: SaveOutcome
    list_len: int = 0
    replaced: int | None = None


NO_CONTEXT: Final = 0
"""The version to expect where no context is stored yet; real tokens are above it."""


class SaveOutcome(Enum):
    """What became of a context's save."""

    SAVED = "saved"
    NO_SESSION = "no session"
    CONFLICT = "another version is stored"
    IN_DOUBT = "stored or not, and replaced by another save since"


class DeletedComponents(NamedTuple):
    """Which parts of a session were there to delete."""

    conversation: bool
    context: bool
    session: bool


# --- Checks and defaults ------------------------------------------------------------------------


def now() -> int:
    """Return the time in whole seconds since the epoch."""
    return int(time.time())


def future_warning(row: SessionRow) -> str:
    """Return what to say of the session on top of the list if its time is far ahead, else ``""``.

    It stays there for good: what is stored into a session moves its time forward only (SES-6).
    """
    seconds = row.updated_at
    if seconds <= now() + _FAR_AHEAD:
        return ""
    unit = "; as milliseconds it would be of our time" if seconds // 1000 <= now() else ""
    return (
        f"The session {row.session_id!r} is on top of the list, as its updated_at {seconds:,} is "
        f"far in the future. Times are in seconds{unit}. update_session() can set another."
    )


def new_version() -> int:
    """Return a token for a save of a context, 1 to 2**63 - 1.

    Random, not counted: a context that was deleted and stored again must not come back to a version
    that somebody remembers of the old one. From the system, as a fork must not repeat them.
    """
    return int.from_bytes(os.urandom(8)) >> 1 or 1


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
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRecordError("limit", f"an int or None, not {type(value).__name__}")
    if value < 1:
        raise InvalidRecordError("limit", "at least 1")
    # More rows than any database counts are no limit, and must not overflow a driver's integer.
    return min(int.__index__(value), _MAX_TIMESTAMP)


def session_row(
    session_id: object,
    video_id: object,
    collection_id: object,
    created_at: object,
    updated_at: object,
    metadata: object,
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
    )


def session_changes(
    video_id: object, collection_id: object, metadata: object, updated_at: object
) -> SessionChanges:
    """Check the new values of a session (SES-5)."""
    return SessionChanges(
        UNSET if video_id is UNSET else optional_text(video_id, "video_id"),
        UNSET if collection_id is UNSET else optional_text(collection_id, "collection_id"),
        UNSET if metadata is UNSET else encode_metadata(metadata, "metadata"),
        now() if updated_at is None else timestamp(updated_at, "updated_at"),
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
        created_at is not None,
        current if updated_at is None else timestamp(updated_at, f"{path}updated_at"),
        encode_metadata(metadata, f"{path}metadata"),
    )


_REQUIRED_MESSAGE_KEYS: Final = ("conv_id", "msg_id", "msg_type", "agents", "actions", "content")


def message_rows(session_id: str, messages: object) -> list[MessageRow]:
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
        rows.append(row)
    return rows


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


def whole_context(row: ContextRow, if_version: int | None) -> ContextChange:
    """Return the save of a context that is stored as one text, for backends that know parts."""
    return ContextChange(
        row,
        if_version,
        rest_changed=True,
        list_key=None,
        list_len=0,
        indexes=(),
        items=(),
        total_bytes=payload_bytes(row.context),
    )


# --- From stored rows to records ----------------------------------------------------------------


def session_record(row: SessionRow) -> Session:
    """Return the record of a stored session."""
    session_id, video_id, collection_id, created_at, updated_at, metadata = row
    return {
        "session_id": session_id,
        "video_id": video_id,
        "collection_id": collection_id,
        "created_at": created_at,
        "updated_at": updated_at,
        "metadata": decode_payload(metadata),
    }


def message_records(rows: Sequence[MessageColumns]) -> list[Message]:
    """Return the records of stored messages, in their order.

    To join the texts of a page and decode them in one call was slower: it copies everything once
    more.
    """
    decode, refusals = plain_decoder()
    try:
        return _message_records(rows, decode)
    except refusals:
        # One text is not as plain as it looks, and nothing says which.
        return _message_records(rows, decode_payload)


def _message_records(rows: Sequence[MessageColumns], decode: Callable[[str], Any]) -> list[Message]:
    """Make the records with a decoder for payloads that have no mark.

    The commonest payloads by far are `[]` and `{}`, and to know them by their text takes a
    fraction of what the decoder takes. Everything stands in the loop, as a call for each payload
    took a fifth of the time of reading.
    """
    other, mark = decode_payload, MARK
    return [
        {
            "session_id": session_id,
            "conv_id": conv_id,
            "msg_id": msg_id,
            "msg_type": msg_type,
            "agents": (
                [] if agents == "[]" else decode(agents) if agents[:1] != mark else other(agents)
            ),
            "actions": (
                []
                if actions == "[]"
                else decode(actions)
                if actions[:1] != mark
                else other(actions)
            ),
            "content": decode(content) if content[:1] != mark else other(content),
            "status": status,
            "created_at": created_at,
            "updated_at": updated_at,
            "metadata": (
                {}
                if metadata == "{}"
                else decode(metadata)
                if metadata[:1] != mark
                else other(metadata)
            ),
        }
        for (
            session_id,
            conv_id,
            msg_id,
            msg_type,
            agents,
            actions,
            content,
            status,
            created_at,
            updated_at,
            metadata,
        ) in rows
    ]


# --- The few checks that all of the above share -------------------------------------------------


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


def _items(value: object, path: str) -> Iterable[object]:
    if isinstance(value, (list, tuple)):
        return value
    raise InvalidRecordError(path, f"a list, not {type(value).__name__}")
