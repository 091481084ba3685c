"""Running contenders in turns, and timing them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

Item = TypeVar("Item")

WARM_UP_CALLS: Final = 3
"""Calls before anything is timed: they connect, prepare statements and fill caches."""

MIN_ROUNDS: Final = 7
MAX_ROUNDS: Final = 400


class Contender(NamedTuple):
    """One way to do the work.

    Attributes:
        name: for people.
        call: does one unit of work, with all that must be durable on return.
        before: makes ready for one call, untimed.
        durability: what has happened to the data when `call` returns; empty for reads.
        is_peer: whether it is somebody else's library.
    """

    name: str
    call: Callable[[], Any]
    before: Callable[[], Any] | None = None
    durability: str = ""
    is_peer: bool = False


class Crowd(NamedTuple):
    """One way to do the work from many threads; each has a callable of its own."""

    name: str
    calls: Sequence[Callable[[], Any]]
    durability: str = ""
    is_peer: bool = False


class Coroutines(NamedTuple):
    """One way to do the work from many coroutines of one loop; each has a callable of its own."""

    name: str
    calls: Sequence[Callable[[], Awaitable[object]]]
    durability: str = ""
    is_peer: bool = False


class Passes(NamedTuple):
    """One way to do the work in passes, each of which does as much and returns its rate."""

    name: str
    run: Callable[[int], Awaitable[float]]
    durability: str = ""
    is_peer: bool = False


Timings = dict[str, list[float]]
"""By contender, one figure for each round, the same rounds for all."""


class FailedError(Exception):
    """A contender did not do its work; the text says which one and why."""

    def __init__(self, name: str, cause: BaseException) -> None:
        """Take the contender's name and what it raised."""
        super().__init__(f"{name}: {type(cause).__name__}: {cause}".splitlines()[0])
        self.name = name


def interleave(
    contenders: Sequence[Contender],
    *,
    seconds: float,
    turn: float,
    max_rounds: int = MAX_ROUNDS,
) -> Timings:
    """Run contenders in turns and return the seconds for each call.

    A round gives every contender one turn, in an order that changes from round to round, so that
    neither a slow minute of the machine nor the place in the order favours anybody.

    Args:
        contenders: what to run.
        seconds: about how long to go on; a few rounds are run even if that takes longer.
        turn: about how long each runs before the next, in seconds; 0 for a single call, where calls
            change the size of what is measured.
        max_rounds: where to stop earlier.

    Raises:
        FailedError: a contender raised.
    """
    counts = {contender.name: _calls_in_a_turn(contender, turn) for contender in contenders}
    timings: Timings = {contender.name: [] for contender in contenders}
    with _quiet_collector():
        deadline = time.perf_counter() + seconds
        for number in range(max_rounds):
            for contender in in_turn(contenders, number):
                timings[contender.name].append(_time(contender, counts[contender.name]))
            if number + 1 >= MIN_ROUNDS and time.perf_counter() >= deadline:
                break
    return timings


def interleave_crowds(
    crowds: Sequence[Crowd], *, window: float, rounds: int
) -> tuple[Timings, Timings]:
    """Run crowds of threads in turns.

    Args:
        crowds: what to run.
        window: how long one turn is, in seconds.
        rounds: how many turns each has, after one that does not count.

    Returns:
        Their calls for each second, and how long each call took, in seconds.

    Raises:
        FailedError: a call raised.
    """
    rates: Timings = {crowd.name: [] for crowd in crowds}
    waits: Timings = {crowd.name: [] for crowd in crowds}
    with _quiet_collector():
        for number in range(-1, rounds):
            for crowd in in_turn(crowds, number):
                rate, waited = _rate(crowd, window)
                if number >= 0:
                    rates[crowd.name].append(rate)
                    waits[crowd.name] += waited
    return rates, waits


async def interleave_coroutines(
    crowds: Sequence[Coroutines], *, window: float, rounds: int
) -> tuple[Timings, Timings]:
    """Run crowds of coroutines in turns, as `interleave_crowds` does those of threads."""
    rates: Timings = {crowd.name: [] for crowd in crowds}
    waits: Timings = {crowd.name: [] for crowd in crowds}
    with _quiet_collector():
        for number in range(-1, rounds):
            for crowd in in_turn(crowds, number):
                rate, waited = await _rate_of_coroutines(crowd, window)
                if number >= 0:
                    rates[crowd.name].append(rate)
                    waits[crowd.name] += waited
    return rates, waits


async def interleave_passes(
    passes: Sequence[Passes], *, seconds: float, least: int, warm_up: bool
) -> Timings:
    """Run passes in turns, as many of each, as they change what is measured; return their rates.

    Args:
        passes: what to run; each is given the number of the pass, from 0.
        seconds: about how long to go on.
        least: how many are run even if that takes longer.
        warm_up: whether the first one does not count.

    Raises:
        FailedError: a pass raised.
    """
    rates: Timings = {each.name: [] for each in passes}
    least += warm_up
    with _quiet_collector():
        deadline = time.perf_counter() + seconds
        for number in range(MAX_ROUNDS):
            for each in in_turn(passes, number):
                try:
                    rate = await each.run(number)
                except Exception as error:
                    raise FailedError(each.name, error) from error
                if number or not warm_up:
                    rates[each.name].append(rate)
            if number + 1 >= least and time.perf_counter() >= deadline:
                break
    return rates


def in_turn(items: Sequence[Item], number: int) -> list[Item]:
    """Return the order of a round: each may be first, and each may follow each."""
    start = number // 2 % len(items)
    turned = [*items[start:], *items[:start]]
    return turned[::-1] if number % 2 else turned


def _calls_in_a_turn(contender: Contender, seconds: float) -> int:
    for _ in range(WARM_UP_CALLS):
        _time(contender, 1)
    once = min(_time(contender, 1) for _ in range(WARM_UP_CALLS))
    few = max(1, min(1000, int(seconds / max(once, 1e-7))))
    # The first calls are the slow ones, so the count is taken from a few.
    each = _time(contender, few)
    return max(1, min(100_000, int(seconds / max(each, 1e-8))))


def _time(contender: Contender, count: int) -> float:
    """Return the seconds for each of `count` calls."""
    call, before = contender.call, contender.before
    clock = time.perf_counter
    try:
        if before is None:
            repeat = range(count)
            start = clock()
            for _ in repeat:
                call()
            return (clock() - start) / count
        total = 0.0
        for _ in range(count):
            before()
            start = clock()
            call()
            total += clock() - start
    except Exception as error:
        raise FailedError(contender.name, error) from error
    return total / count


def _rate(crowd: Crowd, window: float) -> tuple[float, list[float]]:
    waits: list[list[float]] = [[] for _ in crowd.calls]
    begun = [0.0] * len(crowd.calls)
    failures: list[Exception] = []
    start_line = threading.Barrier(len(crowd.calls) + 1)
    clock = time.perf_counter

    def work(place: int, call: Callable[[], Any]) -> None:
        waited = waits[place]
        start_line.wait()
        now = begun[place] = clock()
        deadline = now + window
        try:
            while now < deadline and not failures:
                call()
                before, now = now, clock()
                waited.append(now - before)
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(place, call)) for place, call in enumerate(crowd.calls)
    ]
    for thread in threads:
        thread.start()
    start_line.wait()
    for thread in threads:
        thread.join()
    if failures:
        raise FailedError(crowd.name, failures[0]) from failures[0]
    # From the first one on, as this thread may be let on late, until the last one has ended: what
    # was begun within the window counts, and so does its time.
    waited = list(chain(*waits))
    return len(waited) / (clock() - min(begun)), waited


async def _rate_of_coroutines(crowd: Coroutines, window: float) -> tuple[float, list[float]]:
    clock = time.perf_counter
    start = clock()
    waited: list[float] = []

    async def work(call: Callable[[], Awaitable[object]]) -> None:
        # One at least, though on a busy machine the window be over before anything has begun.
        while (begun := clock()) < start + window or not waited:
            await call()
            waited.append(clock() - begun)

    try:
        async with asyncio.TaskGroup() as group:
            for call in crowd.calls:
                group.create_task(work(call))
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        raise FailedError(crowd.name, first) from first
    return len(waited) / (clock() - start), waited


@contextlib.contextmanager
def _quiet_collector() -> Iterator[None]:
    """Keep what was there before out of the collector's way; it goes on collecting the rest."""
    # What somebody has frozen for good, as our tests do, would else be walked from now on.
    for_good = gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not for_good:
            gc.unfreeze()
