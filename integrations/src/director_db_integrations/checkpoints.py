"""What a thread of LangGraph is in director-db: its session, and the ids of its messages."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, Final, NamedTuple, cast

from director_db_integrations.messages import message

CHECKPOINT: Final = "checkpoint"
CHANNEL: Final = "channel"
"""The value of a channel in one version, for all checkpoints that have it."""
WRITE: Final = "write"
WRITES: Final = "writes"
"""Stands before all writes of a checkpoint, which may be stored before the checkpoint is; without
writes there is none, so that nobody looks for them."""
NAMESPACE: Final = "namespace"
"""Says that a subgraph has checkpoints: no index would tell that there are none."""

_LONGEST: Final = 255  # Characters of an id (VAL-4).
_PLAIN: Final = re.compile(r"[\w.-]*")  # No separator.
_DEEPEST: Final = 100  # Of 200 that a payload may nest (VAL-6).
_LARGEST: Final = 10_000  # Bits of an integer; 4,300 digits are more (VAL-2).
_READABLE: Final = bytes(range(0x20, 0x7F))
_ESCAPED: Final = 5  # How many characters more than one another byte takes in JSON, at most.
_SMALL: Final = 256  # Characters, or bits, of a value that is stored again in each checkpoint.


class Place(NamedTuple):
    """Where checkpoints are: a thread, and in it the graph ("") or a subgraph."""

    thread: str
    ns: str

    @property
    def session(self) -> str:
        """The id of the thread's session: the thread's, unless no session can have that."""
        return self.thread if _fits(self.thread, 1) else f"langgraph#{_digest(self.thread)}"

    @property
    def session_metadata(self) -> dict[str, str]:
        """The metadata of a session that is created for the thread."""
        named = {} if self.session == self.thread else {"thread_id": self.thread}
        return {"framework": "langgraph"} | named

    @property
    def conv_id(self) -> str:
        """The conversation: the namespace, unless it is too long."""
        return self.ns if _fits(self.ns, 0) else f"#{_digest(self.ns)}"

    def key(self, kind: str, *parts: str) -> str:
        """Return the id of a message, which no other has. Each kind has its number of parts."""
        if self.ns:
            parts += (self.ns,)
        text = ":".join([kind, *parts])
        if len(text) <= _LONGEST and all(map(_PLAIN.fullmatch, parts)):
            return text
        return f"{kind}#{_digest(*parts)}"

    def channel(self, channel: str, version: object) -> str:
        """Return the id of a channel's value in a version."""
        return self.key(CHANNEL, channel, str(version))

    def message(
        self, kind: str, key: str, content: object, *, conv_id: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Return a message to store; without a `conv_id` it is in that of the namespace."""
        conv_id = self.conv_id if conv_id is None else conv_id
        return message(key, kind, content) | {"conv_id": conv_id} | fields


def thread_of(session: dict[str, Any]) -> str:
    """Return the thread of a session, as `get_sessions` gives it."""
    metadata = session["metadata"]
    named = metadata.get("thread_id") if isinstance(metadata, dict) else None
    if isinstance(named, str) and Place(named, "").session == session["session_id"]:
        return named
    thread: str = session["session_id"]
    return thread


def is_small(value: object) -> bool:
    """Return whether a channel's value costs less in each checkpoint than as a message."""
    kind = type(value)
    if kind is str:
        return len(cast("str", value)) <= _SMALL
    if kind is int:
        return cast("int", value).bit_length() <= _SMALL
    return value is None or kind is bool or (kind is float and math.isfinite(cast("float", value)))


def is_text(data: bytes) -> bool:
    """Return whether bytes are shorter as a text of their values than in base64.

    Serialised messages are, most of which is what was said. It takes half of the time, too.
    """
    more = _ESCAPED * len(data.translate(None, _READABLE)) + data.count(b'"') + data.count(b"\\")
    return 3 * more <= len(data)


class NotPlainError(Exception):
    """A value that JSON would not give back as what it is."""


def plain_copy(value: Any, depth: int = 0) -> Any:
    """Return a value of JSON as it is now: a graph goes on with its lists and dicts.

    Raises:
        NotPlainError: it would not come back as what it is, types and all.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is int:
        if value.bit_length() <= _LARGEST:
            return value
    elif kind is float:
        if math.isfinite(value):
            return value
    elif depth < _DEEPEST:
        if kind is list:
            return [plain_copy(item, depth + 1) for item in value]
        if kind is dict and all(type(key) is str for key in value):
            return {key: plain_copy(item, depth + 1) for key, item in value.items()}
    raise NotPlainError


def _fits(text: str, least: int) -> bool:
    if not least <= len(text) <= _LONGEST or "\0" in text:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
