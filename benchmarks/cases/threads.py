"""Many threads that store or read messages at once."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg_pool import ConnectionPool

from benchmarks import large
from benchmarks.bench import DURABILITY, LABELS, open_ours, open_raw
from benchmarks.cases.case import (
    OURS,
    RAW,
    Case,
    db_with_sessions,
    figures,
    note,
    place_with_sessions,
    quantiles_of,
)
from benchmarks.payloads import Stream
from benchmarks.peers import installed_peers
from benchmarks.raw.postgres import RawPostgres
from benchmarks.results import Curve, Goal, Row
from benchmarks.statistics import paired_ratios
from benchmarks.timing import Crowd, FailedError, interleave_crowds
from director_db_postgres.arrays import ADAPTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.bench import Bench
    from benchmarks.timing import Timings
    from director_db import BaseDB

ONE_BY_ONE: Final = "ours, one by one"
POOL_SIZE: Final = 10
POOLED: Final = f"raw, a pool of {POOL_SIZE}"

EIGHT: Final = "ours, one by one, 8 threads"
"""What 32 threads on Postgres are to be twice as fast as."""
FEWER: Final = "ours, 32 threads"
"""What 100 threads are to be no slower than."""

_AGAINST: Final = {"sqlite": ONE_BY_ONE, "postgres": POOLED}
_GOALS: Final = {
    "sqlite": Goal(4, f"x {ONE_BY_ONE}", at_least=True),
    "postgres": Goal(1.5, f"x {POOLED}", at_least=True),
}
_GOAL_FROM: Final = 32
_BESIDE: Final = {
    # That there is a queue is to cost a lone caller, who does not enter it, at most a twentieth.
    1: (ONE_BY_ONE, 1, 0.95),
    32: (EIGHT, 8, 2),
    # No fewer, but for the noise.
    100: (FEWER, 32, 0.95),
}
"""On Postgres: what so many threads are compared with besides, in the same rounds; of how many
threads that is, and how many times as much they are to store."""

_MOST_STORES: Final = 100
"""For more threads no server has a connection each."""

_READ: Final = (10, 1_000)
"""Messages of the sessions that are read."""


def upserts(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Store 1 KB messages from 1, 8, 32, 100 and 1,000 threads, each in a session of its own.

    *Ours, one by one*: the same, where no commit may take more than one call. Raw, SQLite: one
    connection under a lock, one commit for each message. Raw, Postgres: one connection for each
    thread, where ours has its pool of 10; and psycopg's own pool with 10 connections.

    Peers: a store of its own for each thread, as they are used; LangGraph stores a state of one
    message at each step. What fails (a file that stays locked) is left out and noted. For 1,000
    threads there are no peers, and no connection for each.

    On Postgres, in rows of their own and in the same rounds: 32 threads beside eight one by one,
    100 beside 32, and one beside one of an instance without group commit.

    The row says how long the calls took: half of them no longer than p50, 99 in 100 than p99.
    """
    sizes = bench.scale.threads
    rates: dict[str, list[tuple[float, float]]] = {}
    peers: set[str] = set()
    for threads in sizes:
        with contextlib.ExitStack() as stack:
            crowds = [*_ours_and_raw(bench, backend, threads, stack)]
            beside = [*_beside(bench, threads, stack)] if backend == "postgres" else []
            crowds += [*beside, *_peers(bench, backend, threads, stack)]
            timings, waits = _without_those_that_fail(bench, backend, crowds)
            by_name = {crowd.name: crowd for crowd in crowds}
            crowds = [crowd for crowd in crowds if crowd not in beside]
            against = _AGAINST[backend]
            work = f"{LABELS[backend]}: upserts, {_of_threads(threads)}"
            yield Row(
                f"threads-{backend}",
                work,
                "/s",
                figures(crowds, timings),
                paired_ratios(timings[OURS], timings[against]),
                _GOALS[backend] if threads >= _GOAL_FROM else None,
                {"ratio to": against, **quantiles_of(crowds, waits)},
            )
            if backend == "postgres" and threads in _BESIDE:
                name, _, goal = _BESIDE[threads]
                yield Row(
                    f"threads-{backend}",
                    f"{work}, beside {name.removeprefix('ours, ')}",
                    "/s",
                    figures([by_name[OURS], by_name[name]], timings),
                    paired_ratios(timings[OURS], timings[name]),
                    Goal(goal, f"x {name}", at_least=True),
                    {"ratio to": name},
                )
            for figure in figures(crowds, timings):
                rates.setdefault(figure.name, []).append((threads, figure.spread.median))
                if figure.is_peer:
                    peers.add(figure.name)
    for name, points in rates.items():
        yield Curve("threads", backend, name, points, name in peers)


def reads(bench: Bench, backend: str) -> Iterator[Row]:
    """Read sessions of 10 and of 1,000 messages of 1 KB from 1, 8, 32 and 100 threads.

    Each thread has a session of its own. Raw: a connection for each thread, the same SELECT, and
    msgspec's decoder on each of the four payloads.
    """
    for count in _READ:
        for threads in bench.scale.threads:
            if threads > _MOST_STORES:
                continue
            with contextlib.ExitStack() as stack:
                place = stack.enter_context(place_with_sessions(bench, backend, threads))
                names = [f"s{number}" for number in range(threads)]
                large.add_messages(backend, place, [(n, at) for n in names for at in range(count)])
                large.settle(backend, [place], bench.server)
                db = stack.enter_context(contextlib.closing(open_ours(backend, place)))
                stores = [
                    stack.enter_context(contextlib.closing(open_raw(backend, place))) for _ in names
                ]
                crowds = [
                    Crowd(OURS, [partial(db.get_conversations, name) for name in names]),
                    Crowd(
                        RAW,
                        [partial(store.read, n) for store, n in zip(stores, names, strict=True)],
                    ),
                ]
                timings, waits = interleave_crowds(
                    crowds, window=bench.scale.window, rounds=bench.scale.rounds
                )
                yield Row(
                    f"read-threads-{backend}",
                    f"{LABELS[backend]}: read {count:,} messages, {_of_threads(threads)}",
                    "/s",
                    figures(crowds, timings),
                    paired_ratios(timings[OURS], timings[RAW]),
                    facts={"ratio to": RAW, **quantiles_of(crowds, waits)},
                )


def _of_threads(count: int) -> str:
    return f"{count:,} thread{'s' if count > 1 else ''}"


def _ours_and_raw(
    bench: Bench, backend: str, threads: int, stack: contextlib.ExitStack
) -> Iterator[Crowd]:
    durability = DURABILITY[backend]
    db = stack.enter_context(db_with_sessions(bench, backend, threads))
    yield Crowd(OURS, [_storing(db, place) for place in range(threads)], durability)
    db = stack.enter_context(db_with_sessions(bench, backend, threads))
    _one_by_one(db, backend)
    calls = [_storing(db, place) for place in range(threads)]
    yield Crowd(ONE_BY_ONE, calls, durability)
    if backend == "sqlite" or threads <= _MOST_STORES:
        yield Crowd(RAW, _raw_calls(bench, backend, threads, stack), durability)
    if backend == "postgres":
        yield Crowd(POOLED, _pooled_calls(bench, threads, stack), durability)


def _beside(bench: Bench, threads: int, stack: contextlib.ExitStack) -> Iterator[Crowd]:
    name, count, _ = _BESIDE.get(threads, (OURS, threads, 1))
    if count < threads:  # As many are measured in any case.
        db = stack.enter_context(db_with_sessions(bench, "postgres", count))
        if name == EIGHT:
            _one_by_one(db, "postgres")
        calls = [_storing(db, place) for place in range(count)]
        yield Crowd(name, calls, DURABILITY["postgres"])


def _one_by_one(db: BaseDB, backend: str) -> None:
    """Let no commit of an instance take more than one call: the path without group commit."""
    inner: Any = db
    if backend == "sqlite":
        # By the limit of its queue, so that all else stays the same.
        inner._database._writer.queue.max_calls = 1  # noqa: SLF001 - nobody else needs to set it
    else:
        # As the writes of the main thread: each on a connection of the pool.
        inner._database._group.takes = lambda _row, **_: False  # noqa: SLF001 - the same


def _pooled_calls(
    bench: Bench, threads: int, stack: contextlib.ExitStack
) -> Sequence[Callable[[], object]]:
    place = stack.enter_context(place_with_sessions(bench, "postgres", threads))
    pool = ConnectionPool(
        place,
        min_size=POOL_SIZE,
        max_size=POOL_SIZE,
        open=True,
        kwargs={"autocommit": True, "cursor_factory": psycopg.RawCursor, "context": ADAPTERS},
    )
    stack.callback(pool.close)
    pool.wait()

    def storing(number: int) -> Callable[[], object]:
        stream, session = Stream(), f"s{number}"

        def store() -> None:
            with pool.connection() as connection:
                RawPostgres.on(connection).upsert(session, stream())

        return store

    return [storing(number) for number in range(threads)]


def _raw_calls(
    bench: Bench, backend: str, threads: int, stack: contextlib.ExitStack
) -> Sequence[Callable[[], object]]:
    place = stack.enter_context(place_with_sessions(bench, backend, threads))
    lock = threading.Lock()
    stores = []
    for _ in range(threads if backend == "postgres" else 1):
        store = open_raw(backend, place)
        stores.append(stack.enter_context(contextlib.closing(store)))

    def storing(number: int) -> Callable[[], object]:
        store, stream, session = stores[number % len(stores)], Stream(), f"s{number}"
        return lambda: store.upsert(session, stream())

    calls = [storing(number) for number in range(threads)]
    return calls if backend == "postgres" else [_under(lock, call) for call in calls]


def _storing(db: BaseDB, number: int) -> Callable[[], object]:
    stream, session = Stream(), f"s{number}"
    return lambda: db.add_or_update_msg_to_conv(session, **stream())


def _under(lock: threading.Lock, call: Callable[[], object]) -> Callable[[], object]:
    def locked() -> None:
        with lock:
            call()

    return locked


def _without_those_that_fail(
    bench: Bench, backend: str, crowds: list[Crowd]
) -> tuple[Timings, Timings]:
    """Measure crowds; a peer that fails on the way is taken out and noted, and it begins anew."""
    while True:
        try:
            return interleave_crowds(crowds, window=bench.scale.window, rounds=bench.scale.rounds)
        except FailedError as error:
            (failed,) = [crowd for crowd in crowds if crowd.name == error.name]
            if not failed.is_peer:
                raise
            where = f"{failed.name} with {len(failed.calls)} threads ({backend})"
            note(bench, where, error.__cause__ or error)
            crowds.remove(failed)


def _peers(
    bench: Bench, backend: str, threads: int, stack: contextlib.ExitStack
) -> Iterator[Crowd]:
    use_peers = bench.use_peers and threads <= _MOST_STORES
    for peer in installed_peers(backend) if use_peers else ():
        place = stack.enter_context(bench.place(backend))
        calls: list[Callable[[], object]] = []
        try:
            for number in range(threads):
                opened = peer.open(place, f"s{number}")
                store = stack.enter_context(contextlib.closing(opened))
                store.fill(1)
                calls.append(store.write)
            crowd = Crowd(peer.name, calls, peer.durability, is_peer=True)
            # Alone first: what fails among threads would end the whole comparison.
            interleave_crowds([crowd], window=bench.scale.window, rounds=0)
        except FailedError as error:
            note(bench, f"{peer.name} with {threads} threads ({backend})", error.__cause__ or error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            note(bench, f"{peer.name} with {threads} threads ({backend})", error)
        else:
            yield crowd


CASES: Final = (
    *(Case(f"threads-{backend}", upserts, backend) for backend in LABELS),
    *(Case(f"read-threads-{backend}", reads, backend) for backend in LABELS),
)
