"""Messages as the integrations write them."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, Final
from urllib.parse import quote

_ID: Final = 255  # Characters of an id (VAL-4).
_LONGEST: Final = 222  # Characters of a given id; 33 more make it unique, and 255 are allowed.


def message(msg_id: str, msg_type: str, content: Any) -> dict[str, Any]:
    """Return a message for `add_or_update_msgs_to_conv` that has no more than these."""
    return {
        "conv_id": None,
        "msg_id": msg_id,
        "msg_type": msg_type,
        "agents": [],
        "actions": [],
        "content": content,
    }


def is_id(value: object) -> bool:
    """Return whether a framework's id can be that of a message, or the start of it (VAL-4)."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()


def unique_id(named: object = None, of: str | None = None) -> str:
    """Return an id that no message has; it starts with the framework's, where that can be one.

    With `of`, which says what the message is, it is the same each time.
    """
    unique = uuid.uuid4().hex if of is None else hashlib.sha256(of.encode()).hexdigest()[:32]
    return f"{named}:{unique}" if is_id(named) else unique


def quoted_id(prefix: str, *parts: str) -> str:
    """Return an id of these parts and no others: they are quoted, and a long one is hashed."""
    name = "/".join([prefix, *(quote(part, "", errors="surrogatepass") for part in parts)])
    return name if len(name) <= _ID else f"{prefix}:{hashlib.sha256(name.encode()).hexdigest()}"
