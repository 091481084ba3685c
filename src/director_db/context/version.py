"""The version of a stored context: a token that does not come back (CTX-5)."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from director_db.checks import optional_text
from director_db.rows import NO_CONTEXT, UNSET

_MAX_VERSION: Final = 2**63 - 1


def new_version() -> int:
    """Return a token for a save of a context, 1 to 2**63 - 1.

    Random, not counted: a context that was deleted and stored again must not come back to a version
    that somebody remembers of the old one. From the system, as a fork must not repeat them.
    """
    return int.from_bytes(os.urandom(8)) >> 1 or 1


def version_text(version: int) -> str:
    """Return the version of a context as callers see it (CTX-5)."""
    return f"{version:016x}"


def expected_version(value: object) -> int | None:
    """Return the token that a context has to have, None for any (CTX-5)."""
    if value is UNSET:
        return None
    text = optional_text(value, "if_version")
    if text is None:
        return NO_CONTEXT
    with contextlib.suppress(ValueError):
        token = int(text, 16)
        if NO_CONTEXT < token <= _MAX_VERSION and version_text(token) == text:
            return token
    return new_version()  # It was never given out, so that nothing stored has it.
