"""The levels of conformance, and the clauses that belong to them."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple


class Level(Enum):
    """How much is shown; each level includes those before it."""

    CORE = "core"
    CONCURRENT = "concurrent"
    DURABLE = "durable"

    def includes(self, other: Level) -> bool:
        """Say whether a clause of the other level has to pass for this one."""
        return _ORDER.index(other) <= _ORDER.index(self)


_ORDER: Final = list(Level)


class Clause(NamedTuple):
    """One check of one rule.

    Attributes:
        rule: the id of the rule in CONTRACT.md, such as ``MSG-3``.
        name: the name of the method that checks it.
        level: the first level that it belongs to.
        needs: what a place must offer, an attribute such as ``restart`` or ``url`` or a fault such
            as ``locked``, or ``fork`` where it is the system that must; None for all places.
        meaning: what the rule means to a user, in a sentence or two.
        sync_only: why it says nothing of the asynchronous face; empty if it does.
    """

    rule: str
    name: str
    level: Level
    needs: str | None
    meaning: str
    sync_only: str = ""

    @property
    def title(self) -> str:
        """The rule, and what is checked of it, for people."""
        words = self.name.removeprefix("test_").split("_")
        own = self.rule.lower().split("-")
        return f"{self.rule}: {' '.join(words[len(own) :] if words[: len(own)] == own else words)}"
