"""What is reported of repeated measurements."""

from __future__ import annotations

import pytest

from benchmarks.results import Goal, Verdict
from benchmarks.statistics import Spread, paired_ratios, quantile
from benchmarks.timing import in_turn


def test_the_middle_and_the_tenths():
    spread = Spread.of([float(number) for number in range(101)][::-1])
    assert (50, 10, 90, 101) == (spread.median, spread.p10, spread.p90, spread.rounds)
    assert spread.low < 50 < spread.high
    assert (41, 59) == (pytest.approx(spread.low, abs=2), pytest.approx(spread.high, abs=2))


def test_an_even_number_has_its_middle_between_two():
    assert 2.5 == Spread.of([4, 1, 3, 2]).median
    assert 1.0 == quantile([1, 2], 0)
    assert 2.0 == quantile([1, 2], 1)


@pytest.mark.parametrize("count", range(1, 9))
def test_of_few_the_bounds_are_among_them(count):
    values = [float(number) for number in range(count)]
    spread = Spread.of(values)
    assert 0 <= spread.low <= spread.median <= spread.high <= values[-1]


def test_what_is_counted_has_no_spread():
    assert Spread(3, 3, 3, 3, 3, 1) == Spread.exactly(3)


def test_ratios_are_taken_round_by_round():
    # The machine is ten times slower in the second round, and the ratio is the same in each.
    ratios = paired_ratios([2, 20, 2], [1, 10, 1])
    assert (2, 2, 2, 3) == (ratios.median, ratios.p10, ratios.p90, ratios.rounds)


def test_ratios_need_the_same_rounds():
    with pytest.raises(ValueError, match="zip"):
        paired_ratios([1, 2], [1])


def spread(low, median, high):
    return Spread(median, low, high, low, high, 9)


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (spread(1.0, 1.1, 1.15), Verdict.PASS),
        (spread(1.0, 1.1, 1.2), Verdict.UNCLEAR),
        (spread(1.1, 1.2, 1.3), Verdict.UNCLEAR),
        (spread(1.2, 1.3, 1.4), Verdict.BELOW),
    ],
)
def test_a_goal_is_judged_by_the_median_if_that_is_certain(measured, verdict):
    assert verdict is Goal(1.15, "x raw").verdict(measured)


def test_a_goal_may_be_a_least():
    goal = Goal(4, "x alone", at_least=True)
    assert Verdict.PASS is goal.verdict(spread(4.1, 4.5, 5))
    assert Verdict.BELOW is goal.verdict(spread(2, 3, 3.9))
    assert ("≥ 4 x alone", "≤ 1.15 x raw") == (str(goal), str(Goal(1.15, "x raw")))


def test_how_much_of_a_goal_was_reached():
    assert 0.75 == Goal(4, "x", at_least=True).reached(Spread.exactly(3))
    assert 0.5 == Goal(1, "ms").reached(Spread.exactly(2))
    assert float("inf") == Goal(0, "modules").reached(Spread.exactly(0))


def test_each_may_be_first_and_each_may_follow_each():
    orders = {"".join(in_turn("abc", number)) for number in range(6)}
    assert {"abc", "cba", "bca", "acb", "cab", "bac"} == orders
