"""Running contenders in turns; nothing here is about how long anything takes."""

from __future__ import annotations

import asyncio
import threading

import pytest

from benchmarks.timing import (
    MIN_ROUNDS,
    Contender,
    Coroutines,
    Crowd,
    FailedError,
    Passes,
    interleave,
    interleave_coroutines,
    interleave_passes,
)
from benchmarks.timing import interleave_crowds as race


def test_every_contender_has_a_figure_for_every_round():
    timings = interleave(
        [Contender("a", lambda: None), Contender("b", lambda: None)],
        seconds=0,
        turn=0.001,
        max_rounds=99,
    )
    assert {"a": MIN_ROUNDS, "b": MIN_ROUNDS} == {name: len(each) for name, each in timings.items()}
    assert all(figure > 0 for each in timings.values() for figure in each)


def test_there_are_no_more_rounds_than_allowed():
    timings = interleave([Contender("a", lambda: None)], seconds=60, turn=0.001, max_rounds=3)
    assert 3 == len(timings["a"])


def test_a_turn_may_be_one_call():
    calls = []
    interleave([Contender("a", lambda: calls.append(1))], seconds=60, max_rounds=5, turn=0)
    # Warm-up: three calls, three to find out how long one takes, one to find out better.
    assert 7 + 5 == len(calls)


def test_what_makes_ready_comes_before_each_call():
    order = []
    contender = Contender("a", lambda: order.append("call"), before=lambda: order.append("before"))
    interleave([contender], seconds=0, turn=0.001, max_rounds=2)
    assert ["before", "call"] * (len(order) // 2) == order
    assert len(order) > 0


def test_who_fails_is_named():
    def fail():
        raise ValueError("no disk")  # noqa: TRY003 - what a driver may say

    with pytest.raises(FailedError, match=r"^mine: ValueError: no disk$") as caught:
        interleave([Contender("mine", fail)], seconds=0, turn=0)
    assert "mine" == caught.value.name


def test_a_crowd_has_a_thread_for_each_call():
    names = set()
    crowd = Crowd("a", [lambda: names.add(threading.get_ident())] * 3)
    rates, waits = race([crowd], window=0.01, rounds=2)
    assert 2 == len(rates["a"])
    assert len(waits["a"]) >= 6
    assert all(rate > 0 for rate in rates["a"])
    assert threading.get_ident() not in names


def test_a_thread_that_fails_is_told():
    def fail():
        raise ValueError("locked")

    with pytest.raises(FailedError, match="crowd: ValueError: locked"):
        race([Crowd("crowd", [fail, lambda: None])], window=0.01, rounds=1)


def test_coroutines_are_of_one_loop_and_each_call_has_its_time():
    loops = set()

    async def call():
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0.002)

    crowd = Coroutines("a", [call] * 3)
    rates, waits = asyncio.run(interleave_coroutines([crowd], window=0.01, rounds=2))
    assert (1, 2) == (len(loops), len(rates["a"]))
    assert len(waits["a"]) >= 6
    assert min(waits["a"]) >= 0.001


def test_a_coroutine_that_fails_is_told():
    async def fail():
        raise ValueError("locked")

    with pytest.raises(FailedError, match="crowd: ValueError: locked"):
        asyncio.run(interleave_coroutines([Coroutines("crowd", [fail])], window=0.01, rounds=1))


@pytest.mark.parametrize(("warm_up", "counted"), [(False, [0, 1]), (True, [1, 2])])
def test_passes_take_turns_and_a_warm_up_does_not_count(warm_up, counted):
    order = []

    def passing(name):
        async def run(number):
            order.append((number, name))
            return float(number)

        return Passes(name, run)

    passes = [passing("a"), passing("b")]
    rates = asyncio.run(interleave_passes(passes, seconds=0, least=2, warm_up=warm_up))
    assert {"a": counted, "b": counted} == rates
    numbers = range(counted[-1] + 1)
    assert [[(each, "a"), (each, "b")] for each in numbers] == [
        sorted(order[2 * each : 2 * each + 2]) for each in numbers
    ]
    assert ["a", "b", "b", "a"] == [name for _, name in order[:4]]


def test_a_pass_that_fails_is_told():
    async def fail(_):
        raise ValueError("locked")

    with pytest.raises(FailedError, match="mine: ValueError: locked"):
        asyncio.run(interleave_passes([Passes("mine", fail)], seconds=0, least=1, warm_up=False))
