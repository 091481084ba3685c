"""The version of stored tables: what a release may use, and what it has to upgrade first.

Two rows of ``director_meta`` tell it. ``schema_version`` is the version that a release has to know
at least; ``upgraded_to`` the version that the tables have, and missing where that is the same. So
an upgrade that only adds what older releases leave alone lets them go on: their processes beside
the new ones, their health checks, and whoever has to go back to them.
"""

from __future__ import annotations

import re
from typing import Final

REQUIRED: Final = "schema_version"
REACHED: Final = "upgraded_to"


class SchemaVersion:
    """The version that a backend's tables have.

    Attributes:
        number: the version; None if no release of ours has written these rows.
        is_too_new: whether a release that knows versions up to `known` must not use them.
    """

    def __init__(self, required: object, reached: object, known: int) -> None:
        """Take the values of the two rows, None where there is none, and what the release knows."""
        least = _number(required)
        self.number = least if reached is None else _number(reached)
        self.is_too_new = least is not None and least > known
        if least is None or self.number is None or self.number < least:
            self.number = None


def _number(text: object) -> int | None:
    plain = isinstance(text, str) and re.fullmatch("[1-9][0-9]{0,7}", text)
    return int(plain[0]) if plain else None
