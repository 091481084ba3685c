"""What a run gives: rows with goals, curves, and where it was. Kept as JSON."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from benchmarks.statistics import Spread  # noqa: TC001 - msgspec looks at the types

if TYPE_CHECKING:
    from pathlib import Path


class Verdict(Enum):
    """Whether a goal was met."""

    PASS = "pass"  # noqa: S105 - no password
    BELOW = "below"
    UNCLEAR = "unclear"


class Goal(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a measurement is to reach.

    Attributes:
        bound: at most this; with `at_least`, no less.
        of: what is measured, with the bound's unit, as ``"x raw"`` or ``"ms"``.
    """

    bound: float
    of: str
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.of}"

    def verdict(self, measured: Spread) -> Verdict:
        """Judge by the median, unless its own uncertainty reaches across the bound.

        Then nobody can tell: measure again, longer or on a quieter machine.
        """
        if self._met(measured.low) != self._met(measured.high):
            return Verdict.UNCLEAR
        return Verdict.PASS if self._met(measured.median) else Verdict.BELOW

    def reached(self, measured: Spread) -> float:
        """Return how much of the goal was reached: 1 or more is met, 0.9 is just below."""
        if self.at_least:
            return measured.median / self.bound
        return self.bound / measured.median if measured.median > 0 else float("inf")

    def _met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one contender took.

    Attributes:
        name: the contender: ``"ours"``, ``"raw"``, or a peer's name.
        spread: seconds for each call, or calls for each second, as the row's unit says.
        durability: what has happened to the data when it returns; empty for reads.
        is_peer: whether it is somebody else's library.
    """

    name: str
    spread: Spread
    durability: str = ""
    is_peer: bool = False


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the table.

    Attributes:
        case: the case that gave it, for ``--only``.
        work: what was done.
        unit: of the figures: ``"s"``, ``"/s"``, or empty where something was counted.
        figures: of each contender, ours first.
        measured: what the goal is about.
        goal: what it is to reach; None where the row only informs.
        facts: what else was seen, such as bytes written, by name.
    """

    case: str
    work: str
    unit: str
    figures: list[Figure]
    measured: Spread | None = None
    goal: Goal | None = None
    facts: dict[str, str] = {}

    @property
    def verdict(self) -> Verdict | None:
        """Whether the goal was met, None where there is none."""
        if self.goal is None or self.measured is None:
            return None
        return self.goal.verdict(self.measured)


class Curve(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the cost of one thing grows.

    Attributes:
        plot: the picture that it belongs to: ``conversation``, ``context``, ``sessions``,
            ``threads`` or ``coroutines``.
        backend: the database.
        name: what it is, for the legend.
        points: sizes, each with the median: seconds for each call, or calls for each second.
        is_peer: whether it is somebody else's library.
    """

    plot: str
    backend: str
    name: str
    points: list[tuple[float, float]]
    is_peer: bool = False


class Report(msgspec.Struct, omit_defaults=True):
    """One run.

    Attributes:
        date: when it began, in UTC.
        scale: ``full``, ``quick`` or ``tiny``.
        machine: what it ran on, by name.
        seconds: how long it took.
        rows: the table.
        curves: what the pictures show.
        notes: what could not be measured, and why.
    """

    date: str
    scale: str
    machine: dict[str, str]
    seconds: float = 0.0
    rows: list[Row] = []
    curves: list[Curve] = []
    notes: list[str] = []

    def save(self, path: Path) -> None:
        """Write it as JSON, a row or a curve in a line, so that a change of one is one line."""
        parts = []
        for name, value in msgspec.to_builtins(self).items():
            if isinstance(value, list):
                lines = ",\n".join(_json(each) for each in value)
                parts.append(f"{_json(name)}: [\n{lines}\n]")
            else:
                parts.append(f"{_json(name)}: {_json(value)}")
        path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what `save` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
