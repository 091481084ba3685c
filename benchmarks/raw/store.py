"""What both bare drivers can do, and how they write and read JSON."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

CONTEXT_KEY: Final = "reasoning"
"""The key of the list in the contexts that are measured."""


def _make_encoder() -> Callable[[Any], str]:
    """Return the standard library's C encoder, made once.

    `json.dumps` with options and `JSONEncoder.encode` make it anew at each call, which takes longer
    than most payloads do: a limit that paid for it would flatter every write of ours.
    """
    encoder = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    quote = json.encoder.encode_basestring
    parts = make(None, encoder.default, quote, None, ":", ",", False, False, True)  # noqa: FBT003
    return lambda value: "".join(parts(value, 0))


encode: Final[Callable[[Any], str]] = _make_encoder()

_decode: Final[Callable[[str], Any]] = msgspec.json.Decoder().decode


class RawStore(Protocol):
    """The work without our code around it: nothing is checked, translated or tried again."""

    def upsert(self, session_id: str, message: dict[str, Any]) -> None:
        """Insert or update one message in one transaction."""

    def bulk(self, session_id: str, messages: Sequence[dict[str, Any]]) -> None:
        """Insert or update messages in one transaction."""

    def read(self, session_id: str) -> list[dict[str, Any]]:
        """Return all messages of a session as dicts."""

    def append_context(self, session_id: str, item: Any) -> None:
        """Add one item to a context whose list is kept as rows, in one transaction."""

    def delete_session(self, session_id: str) -> object:
        """Delete a session with its parts in one transaction."""

    def close(self) -> None:
        """Close the connection."""


def columns(message: dict[str, Any], now: int) -> tuple[Any, ...]:
    """Return the columns from ``conv_id`` to ``status`` and the times, payloads encoded."""
    return (
        message["conv_id"],
        message["msg_id"],
        message["msg_type"],
        encode(message["agents"]),
        encode(message["actions"]),
        encode(message["content"]),
        message["status"],
        now,
    )


def records(rows: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return the rows of messages as dicts, each payload decoded by msgspec.

    The fastest way that was found: a dict made from the row's fields by `zip` takes a third longer,
    and to join the payloads of all rows and decode them in one call a tenth.
    """
    decode = _decode
    return [
        {
            "session_id": session_id,
            "conv_id": conv_id,
            "msg_id": msg_id,
            "msg_type": msg_type,
            "agents": decode(agents),
            "actions": decode(actions),
            "content": decode(content),
            "status": status,
            "created_at": created_at,
            "updated_at": updated_at,
            "metadata": decode(metadata),
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


def now() -> int:
    """Return the time in whole seconds since the epoch."""
    return int(time.time())
