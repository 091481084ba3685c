"""What is reported of repeated measurements: the median, its certainty, and the spread."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

# Standard deviations on both sides that hold 95 %.
_CERTAIN = 1.96


class Spread(msgspec.Struct, frozen=True):
    """Repeated measurements of one thing, in short.

    Medians, not means: one stall of a disk or of the scheduler would outweigh everything else.

    Attributes:
        median: the middle.
        p10: a tenth of the measurements is below.
        p90: a tenth of them is above.
        low: with 95 % certainty the true median is not below this.
        high: nor above this.
        rounds: how many measurements there were.
    """

    median: float
    p10: float
    p90: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarise measurements, at least one."""
        ordered = sorted(values)
        count = len(ordered)
        # How many of `count` values fall below the true median is a toss of as many coins.
        reach = _CERTAIN * math.sqrt(count) / 2
        first = max(0, math.floor(count / 2 - reach))
        last = min(count - 1, math.ceil(count / 2 + reach) - 1)
        return cls(
            quantile(ordered, 0.5),
            quantile(ordered, 0.1),
            quantile(ordered, 0.9),
            ordered[first],
            ordered[max(first, last)],
            count,
        )

    @classmethod
    def exactly(cls, value: float) -> Self:
        """Take what was counted, and so has no spread."""
        return cls(value, value, value, value, value, 1)


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """Return the value below which a fraction of sorted values lies, between two if need be."""
    place = fraction * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def paired_ratios(ours: Sequence[float], others: Sequence[float]) -> Spread:
    """Return ours as a multiple of the other, round by round.

    Two things that were measured within moments of one another met the same noise, so the ratio of
    each round is steadier than the ratio of the two medians.
    """
    return Spread.of([mine / other for mine, other in zip(ours, others, strict=True)])
