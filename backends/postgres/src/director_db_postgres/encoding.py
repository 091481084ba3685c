"""Payloads for servers whose encoding is not UTF-8. Pure functions."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from director_db.rows import MessageRow

_NON_ASCII: Final = re.compile(r"[^\x00-\x7f]+")


def to_ascii(text: str) -> str:
    r"""Return the ASCII form of a payload's text, which stands for the same value (VAL-1).

    JSON is ASCII outside its strings, so every other character may become an escape where it
    stands: an astral one a pair with lower-case digits (``\ud83d\ude00``). A marked text, which
    tells surrogates by upper-case digits, is ASCII already.
    """
    return text if text.isascii() else _NON_ASCII.sub(_escape, text)


def message_in_ascii(row: MessageRow) -> MessageRow:
    """Return a message with each of its payloads in the ASCII form."""
    return row._replace(
        agents=to_ascii(row.agents),
        actions=to_ascii(row.actions),
        content=to_ascii(row.content),
        metadata=to_ascii(row.metadata),
    )


def _escape(match: re.Match[str]) -> str:
    # The encoder's own escapes have lower-case digits; without its quotes they are what we need.
    return json.dumps(match[0])[1:-1]
