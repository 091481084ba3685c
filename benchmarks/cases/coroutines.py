"""Many coroutines of one event loop that store messages at once."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks.bench import DURABILITY, LABELS
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
from benchmarks.peers import ASYNC_PEERS, installed_peers
from benchmarks.raw.postgres import raw_pool, upsert_in_pool
from benchmarks.results import Curve, Row
from benchmarks.statistics import paired_ratios
from benchmarks.timing import Coroutines, FailedError, interleave_coroutines
from director_db.asyncio import AsyncDB
from director_db_postgres.settings import DEFAULT_POOL_SIZE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from benchmarks.bench import Bench
    from director_db import BaseDB

_TO_THREAD: Final = "ours, to_thread"


def upserts(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Store 1 KB messages from 1 to 1,000 coroutines, each in a session of its own.

    *Ours, to_thread*: the synchronous face in `asyncio.to_thread`, whose threads are few. Raw,
    Postgres: psycopg's own pool for coroutines, of as many connections as ours has. Peers: their
    own stores for coroutines, one for all; LangGraph's store a state of one message at each call.

    The row says how long the calls took: half of them no longer than p50, 99 in 100 than p99.
    """
    rates: dict[str, list[tuple[float, float]]] = {}
    peers: set[str] = set()
    for callers in bench.scale.coroutines:
        row = asyncio.run(_row(bench, backend, callers))
        for figure in row.figures:
            rates.setdefault(figure.name, []).append((callers, figure.spread.median))
            if figure.is_peer:
                peers.add(figure.name)
        yield row
    for name, points in rates.items():
        yield Curve("coroutines", backend, name, points, name in peers)


async def _row(bench: Bench, backend: str, callers: int) -> Row:
    durability = DURABILITY[backend]
    async with contextlib.AsyncExitStack() as stack:
        async_db = AsyncDB(stack.enter_context(db_with_sessions(bench, backend, callers)))
        sync_db = stack.enter_context(db_with_sessions(bench, backend, callers))
        crowds = [
            Coroutines(OURS, _calls(callers, partial(_store, async_db)), durability),
            Coroutines(
                _TO_THREAD, _calls(callers, partial(_store_in_a_thread, sync_db)), durability
            ),
        ]
        if backend == "postgres":
            place = stack.enter_context(place_with_sessions(bench, backend, callers))
            pool = await stack.enter_async_context(raw_pool(place, DEFAULT_POOL_SIZE))
            crowds.append(
                Coroutines(RAW, _calls(callers, partial(upsert_in_pool, pool)), durability)
            )
        against = crowds[-1].name
        crowds += [crowd async for crowd in _peers(bench, backend, callers, stack)]
        timings, waits = await interleave_coroutines(
            crowds, window=bench.scale.window, rounds=bench.scale.rounds
        )
    return Row(
        f"coroutines-{backend}",
        f"{LABELS[backend]}: upserts, {callers:,} coroutine{'s' if callers > 1 else ''}",
        "/s",
        figures(crowds, timings),
        paired_ratios(timings[OURS], timings[against]),
        facts={"ratio to": against, **quantiles_of(crowds, waits)},
    )


async def _peers(
    bench: Bench, backend: str, callers: int, stack: contextlib.AsyncExitStack
) -> AsyncIterator[Coroutines]:
    for peer in installed_peers(backend, ASYNC_PEERS) if bench.use_peers else ():
        try:
            place = stack.enter_context(bench.place(backend))
            calls = await stack.enter_async_context(peer.coroutines(place, callers))
            crowd = Coroutines(peer.name, calls, peer.durability, is_peer=True)
            # Alone first: what fails would end the whole comparison.
            await interleave_coroutines([crowd], window=bench.scale.window, rounds=0)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            reason = error.__cause__ if isinstance(error, FailedError) else error
            note(bench, f"{peer.name} with {callers:,} callers ({backend})", reason or error)
        else:
            yield crowd


def _calls(
    callers: int, store: Callable[[str, dict[str, Any]], Awaitable[object]]
) -> list[Callable[[], Awaitable[object]]]:
    def storing(number: int) -> Callable[[], Awaitable[object]]:
        stream, session = Stream(), f"s{number}"
        return lambda: store(session, stream())

    return [storing(number) for number in range(callers)]


def _store(db: AsyncDB, session_id: str, message: dict[str, Any]) -> Awaitable[object]:
    return db.add_or_update_msg_to_conv(session_id, **message)


def _store_in_a_thread(db: BaseDB, session_id: str, message: dict[str, Any]) -> Awaitable[object]:
    return asyncio.to_thread(db.add_or_update_msg_to_conv, session_id, **message)


CASES: Final = tuple(Case(f"coroutines-{backend}", upserts, backend) for backend in LABELS)
