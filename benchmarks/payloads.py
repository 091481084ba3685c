"""The messages that everybody stores: about 1 KB each, and all different."""

from __future__ import annotations

import functools
import random
from typing import Any, Final

TEXT_CHARACTERS: Final = 900
"""With the keys around it, a message's payloads come to about 1 KB of JSON."""

PAGE: Final = 50
"""Messages or sessions of a page."""

_WORDS: Final = (
    *(
        "the",
        "clip",
        "shows",
        "a",
        "harbour",
        "at",
        "dawn",
        "where",
        "two",
        "boats",
        "leave",
        "and",
    ),
    *("gulls", "circle", "above", "an", "old", "pier", "while", "music", "fades", "then", "asks"),
    *("for", "scenes", "with", "rain", "or", "snow", "between", "minute", "nine", "twelve"),
)
_SOURCE_CHARACTERS: Final = 1_000_000
_STEP: Final = 7_919


@functools.cache
def _source() -> str:
    """Return a long text in which nothing repeats: Postgres compresses what does."""
    chance = random.Random(1)  # noqa: S311 - the same text in every run
    words: list[str] = []
    length = 0
    while length < _SOURCE_CHARACTERS + TEXT_CHARACTERS:
        word = f"{chance.choice(_WORDS)}{chance.randrange(100)}"
        words.append(word)
        length += len(word) + 1
    return " ".join(words)


def text(number: int) -> str:
    """Return a text that differs from all others early on, as real ones do."""
    start = number * _STEP % _SOURCE_CHARACTERS
    return f"{number} {_source()[start : start + TEXT_CHARACTERS]}"


def message(number: int, msg_id: str | None = None) -> dict[str, Any]:
    """Return the arguments of `add_or_update_msg_to_conv` but the session."""
    return {
        "conv_id": "c1",
        "msg_id": f"m{number}" if msg_id is None else msg_id,
        "msg_type": "output",
        "agents": ["search"],
        "actions": ["Looking through the video"],
        "content": [{"type": "text", "status": "progress", "text": text(number)}],
        "status": "progress",
        "metadata": {"model": "m-1"},
    }


def context_message(number: int) -> dict[str, Any]:
    """Return a message as models take it."""
    return {"role": "user" if number % 2 else "assistant", "content": text(number)}


class Stream:
    """An answer that streams: ten writes to one message, then the next message.

    So one write in ten inserts and nine update, as where an application stores an answer while it
    comes in.
    """

    WRITES: Final = 10

    def __init__(self, prefix: str = "stream") -> None:
        """Start with the first message; the prefix is that of all ids."""
        self._prefix = prefix
        self._number = 0

    def __call__(self) -> dict[str, Any]:
        """Return the next write."""
        number = self._number
        self._number += 1
        return message(number, f"{self._prefix}-{number // self.WRITES}")
