"""How long and how large a run is."""

from __future__ import annotations

from typing import Final, NamedTuple


class Scale(NamedTuple):
    """Sizes and patience.

    Attributes:
        name: for the report.
        seconds: for each comparison.
        turn: about how long one contender runs before the next, in seconds.
        window: of one turn of a crowd of threads, in seconds.
        rounds: turns of each crowd.
        conversation: lengths at which a growing conversation is measured, in messages.
        context: lengths at which a growing context is measured, in messages.
        sessions: numbers at which a growing list of sessions is measured.
        longest_for_peers: no longer conversation is built for peers, in messages.
        threads: sizes of crowds.
        starts: how many interpreters are started.
        processes: how many write one file at once.
        fairness_seconds: how long they write, in seconds.
        coroutines: sizes of crowds of coroutines.
        items: lengths of the sessions that frameworks take turns in.
        items_of_all: about how many these sessions have together, those of one length.
        at_once: how many of these sessions have a turn at once.
        durable: whether the Postgres that is started keeps fsync on.
    """

    name: str
    seconds: float
    turn: float
    window: float
    rounds: int
    conversation: tuple[int, ...]
    context: tuple[int, ...]
    sessions: tuple[int, ...]
    longest_for_peers: int
    threads: tuple[int, ...]
    starts: int
    processes: int
    fairness_seconds: float
    coroutines: tuple[int, ...] = (1, 8, 32, 100, 1_000)
    items: tuple[int, ...] = (10, 100, 1_000)
    items_of_all: int = 20_000
    at_once: tuple[int, ...] = (1, 100)
    durable: bool = True


FULL: Final = Scale(
    name="full",
    seconds=4.0,
    turn=0.02,
    window=0.4,
    rounds=9,
    conversation=(100, 1_000, 10_000, 100_000),
    context=(100, 1_000, 10_000),
    sessions=(1_000, 10_000, 100_000, 1_000_000),
    longest_for_peers=10_000,
    threads=(1, 8, 32, 100, 1_000),
    starts=25,
    processes=16,
    fairness_seconds=60.0,
)

QUICK: Final = Scale(
    name="quick",
    seconds=0.5,
    turn=0.02,
    window=0.1,
    rounds=3,
    conversation=(100, 1_000, 10_000),
    context=(100, 1_000, 10_000),
    sessions=(1_000, 10_000, 100_000),
    longest_for_peers=1_000,
    threads=(1, 8, 32, 100, 1_000),
    starts=8,
    processes=16,
    fairness_seconds=10.0,
    items=(10, 100),
)

TINY: Final = Scale(
    name="tiny",
    seconds=0.01,
    turn=0.001,
    window=0.02,
    rounds=2,
    conversation=(100, 200),
    context=(3, 6),
    sessions=(60, 120),
    longest_for_peers=100,
    threads=(1, 2),
    starts=2,
    processes=2,
    fairness_seconds=0.2,
    coroutines=(1, 3),
    items=(2, 5),
    items_of_all=10,
    at_once=(1, 3),
    durable=False,
)
"""For the tests of this package: everything runs, nothing is to be believed."""

SCALES: Final = {scale.name: scale for scale in (FULL, QUICK, TINY)}
