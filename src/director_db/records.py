"""What callers get, and how it is made of stored rows."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from director_db.payload import MARK, decode_payload, plain_decoder
from director_db.session_change import session_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from director_db.rows import MessageColumns, SessionRow


class Session(TypedDict):
    """A session as `get_session` returns it (SES-3). Times are seconds since the epoch."""

    session_id: str
    video_id: str | None
    collection_id: str | None
    created_at: int
    updated_at: int
    metadata: Any
    user_id: str | None
    version: str


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
    revision: int | None


class Context(TypedDict):
    """A context as `get_context` returns it (CTX-2). Times are seconds since the epoch."""

    session_id: str
    context: Any
    created_at: int
    updated_at: int
    metadata: Any
    version: str


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


class Imported(NamedTuple):
    """What ``director-db import`` has found in the tables of another store.

    Attributes:
        sessions: sessions read.
        messages: messages read, refused ones too.
        stored: messages that were stored.
        already_there: messages that were there, which stay as they are.
        refused: rows that cannot be stored, each of which was named.
    """

    sessions: int
    messages: int
    stored: int
    already_there: int
    refused: int


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


def session_record(row: SessionRow) -> Session:
    """Return the record of a stored session."""
    session_id, video_id, collection_id, created_at, updated_at, metadata, user_id = row
    return {
        "session_id": session_id,
        "video_id": video_id,
        "collection_id": collection_id,
        "created_at": created_at,
        "updated_at": updated_at,
        "metadata": decode_payload(metadata),
        "user_id": user_id,
        "version": session_version(row),
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
            "revision": revision,
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
            revision,
        ) in rows
    ]
