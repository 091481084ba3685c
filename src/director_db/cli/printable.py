"""What people may see of a text: one line, without passwords and control characters."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

_MASK: Final = "***"

_PASSWORD_IN_URL: Final = re.compile(r"(://[^\s:/@]*:)\S+@")
# In a URL that somebody mistyped, as postgres:user:password@host.
_PASSWORD_BEFORE_HOST: Final = re.compile(r":(?!//|\*\*\*@)\S+@")
# Of a URL, or of libpq, where it may stand in quotes.
_PASSWORD_PARAMETER: Final = re.compile(
    r"(?i)(\b\w*(?:password|passwd|secret|token)\s*=\s*)"
    r"(?:'(?:[^'\\]|\\.)*'?|\"[^\"]*\"?|(?:\\.|[^\s&'\"])+(?:&[^\s&='\"]+(?![^\s&]*=))*)"
)


def one_line(message: str, given: Iterable[str] = ()) -> str:
    """Return a message as one line without the passwords that stand in URLs.

    Backends mask what they say of themselves. This is for all else: a URL that was typed where none
    belongs, or a piece of one in a driver's message.

    Args:
        message: what is to be shown.
        given: what the user typed, where a URL may be; the environment is looked at in any case.
    """
    # The longest first: one may be a part of another.
    passwords = _passwords((*given, *os.environ.values()))
    for password in sorted(passwords, key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(password)}(?!\w)", _MASK, message)
    message = _PASSWORD_IN_URL.sub(rf"\1{_MASK}@", message)
    message = _PASSWORD_BEFORE_HOST.sub(f":{_MASK}@", message)
    message = _PASSWORD_PARAMETER.sub(rf"\1{_MASK}", message)
    return visible(" ".join(message.split()))


def visible(text: str) -> str:
    r"""Return a text with its control characters escaped: a terminal would obey them.

    >>> print(visible("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _passwords(texts: Iterable[str]) -> set[str]:
    """Return the passwords in URLs, as they are written and as they are meant."""
    found: set[str] = set()
    for text in texts:
        scheme, separator, rest = text.partition("://")
        if not separator:
            continue
        # An @ may stand in the password, and as well in what follows the host: take either end.
        for credentials in (rest.partition("@")[0], rest.rpartition("@")[0]):
            user, _, password = credentials.partition(":")
            # Where it is also the name of the user or the type, it is no secret, and masking it
            # would spoil every message.
            if "@" in rest and password and password not in {user, scheme}:
                found |= {password, unquote(password)}
    return found
