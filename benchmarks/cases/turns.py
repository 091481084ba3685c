"""A turn of an agent, in the frameworks of integrations/: beside their own stores."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks import large
from benchmarks.bench import DURABILITY, LABELS, open_ours
from benchmarks.cases.case import OURS, Case, figures, note
from benchmarks.cases.durability import open_weaker
from benchmarks.frameworks.framework import FRAMEWORKS, UNSYNCED, Framework
from benchmarks.peers import installed_peers
from benchmarks.results import Curve, Goal, Row
from benchmarks.statistics import paired_ratios
from benchmarks.timing import FailedError, Passes, interleave_passes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from benchmarks.bench import Bench
    from benchmarks.frameworks.sessions import Sessions

_ADDED: Final = 3
_LEAST: Final = 2  # Passes, of which one of a hundred long sessions takes seconds.

# Enough that a turn rarely finds what another has added; each turn makes a session longer.
_MOST_SESSIONS: Final = 600


class _Contender(NamedTuple):
    """A store with the sessions of a framework in it."""

    name: str
    sessions: Sessions
    place: str
    durability: str

    async def take_turns(self, names: Sequence[str], number: int) -> float:
        """Have a turn in each of these sessions at once; return how many turns a second."""
        async with contextlib.AsyncExitStack() as stack:
            opened = []
            for name in names:
                opened.append(await self.sessions.open(name))
                stack.push_async_callback(self.sessions.close, opened[-1])
            start = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for session in opened:
                    group.create_task(self._take_turn(session, number))
            return len(names) / (time.perf_counter() - start)

    async def _take_turn(self, session: object, number: int) -> None:
        await self.sessions.add(session, range(number * _ADDED, (number + 1) * _ADDED))
        await self.sessions.read(session)

    async def length(self, name: str) -> int:
        """Return how many items a session has."""
        session = await self.sessions.open(name)
        count = len(await self.sessions.read(session))
        await self.sessions.close(session)
        return count


class _Comparison:
    """A framework's own stores beside ours, on one database."""

    def __init__(self, bench: Bench, framework: Framework, backend: str) -> None:
        self._bench = bench
        self._framework = framework
        self._backend = backend
        self._stack = contextlib.AsyncExitStack()
        self._contenders: list[_Contender] = []
        self._names: list[str] = []
        self._fills = 0

    async def open(self) -> None:
        """Open those that are installed, ours first; without any there is nothing to compare."""
        bench, backend, framework = self._bench, self._backend, self._framework
        stores = [each for each in framework.stores if each.backend == backend]
        there = list(installed_peers(backend, stores))
        for store in stores:
            if store not in there:
                bench.notes.append(f"{framework.name}, {store.name} ({backend}) is not installed.")
        if not there:
            return
        place = self._stack.enter_context(bench.place(backend))
        opened = (open_ours if framework.durable else open_weaker)(backend, place)
        db = self._stack.enter_context(contextlib.closing(opened))
        ours = await self._stack.enter_async_context(framework.ours(db))
        durability = DURABILITY[backend] if framework.durable else UNSYNCED
        self._contenders.append(_Contender(OURS, ours, place, durability))
        for store in there:
            place = self._stack.enter_context(bench.place(backend))
            try:
                sessions = await self._stack.enter_async_context(store.sessions(place))
            except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
                self._leave_out(store.name, error)
            else:
                theirs = _Contender(store.name, sessions, place, store.durability)
                self._contenders.append(theirs)

    async def close(self) -> None:
        await self._stack.aclose()

    async def fill(self, items: int) -> None:
        """Make new sessions of a length in all stores."""
        scale = self._bench.scale
        count = max(*scale.at_once, min(_MOST_SESSIONS, scale.items_of_all // items))
        self._fills += 1
        names = self._names = [f"{self._fills}-{number}" for number in range(count)]
        for each in [*self._contenders]:
            try:
                await each.sessions.fill(names, items)
            except Exception as error:
                if each.name == OURS:
                    raise
                self._leave_out(each.name, error)
                self._contenders.remove(each)
            large.settle(self._backend, [each.place], self._bench.server)

    async def measure(self, items: int, at_once: int) -> list[Row]:
        """Measure turns in some of these sessions at once; a row for each store of theirs."""
        failed_here: set[str] = set()
        while True:
            names = self._names
            measured = [each for each in self._contenders if each.name not in failed_here]
            if len(measured) < 2:  # noqa: PLR2004 - ours alone
                return []
            passes = [
                Passes(each.name, _passes(each, names, at_once), each.durability, each.name != OURS)
                for each in measured
            ]
            warmed = self._bench.scale.items[0]  # The same connections serve all lengths.
            sessions = f"{at_once:,} session{'s' if at_once > 1 else ''}"
            try:
                seconds = self._bench.scale.seconds / 4
                timings = await interleave_passes(
                    passes, seconds=seconds, least=_LEAST, warm_up=items == warmed
                )
            except FailedError as failed:
                if failed.name == OURS:
                    raise
                self._leave_out(f"{failed.name} with {items:,} items and {sessions}", failed)
                failed_here.add(failed.name)
                await self.fill(items)  # The others may have had a turn more by then.
                continue
            lengths = {await each.length(names[0]) for each in measured}
            assert len(lengths) == 1, lengths  # noqa: S101 - else they did not do the same
            if failed_here:
                await self.fill(items)  # Who failed has its turn again with more or fewer.
            return [
                Row(
                    _case_name(self._framework, self._backend),
                    f"{LABELS[self._backend]}: {self._framework.name}, {items:,} items, {sessions}",
                    "/s",
                    figures([passes[0], theirs], timings),
                    paired_ratios(timings[OURS], timings[theirs.name]),
                    Goal(1, f"x {theirs.name}", at_least=True),
                )
                for theirs in passes[1:]
            ]

    def _leave_out(self, what: str, error: BaseException) -> None:
        while error.__cause__ is not None and isinstance(error, FailedError):
            error = error.__cause__
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        note(self._bench, f"{self._framework.name}, {what} ({self._backend})", error)


def _passes(
    contender: _Contender, names: Sequence[str], at_once: int
) -> Callable[[int], Awaitable[float]]:
    def run(number: int) -> Awaitable[float]:
        start = number * at_once
        chosen = [names[each % len(names)] for each in range(start, start + at_once)]
        return contender.take_turns(chosen, number)

    return run


def _turns(bench: Bench, framework: Framework, backend: str) -> Iterator[Row | Curve]:
    comparison = _Comparison(bench, framework, backend)
    with asyncio.Runner() as runner:
        try:
            runner.run(comparison.open())
            for items in bench.scale.items:
                runner.run(comparison.fill(items))
                for at_once in bench.scale.at_once:
                    yield from runner.run(comparison.measure(items, at_once))
        finally:
            runner.run(comparison.close())


def _case_name(framework: Framework, backend: str) -> str:
    return f"{framework.module.replace('_', '-')}-{backend}"


def _case(framework: Framework, backend: str) -> Case:
    def run(bench: Bench, backend: str) -> Iterator[Row | Curve]:
        return _turns(bench, framework, backend)

    run.__doc__ = (
        f"Take turns in sessions of {framework.name}, in one of them or a hundred at once: "
        f"{framework.turn}."
    )
    return Case(_case_name(framework, backend), run, backend)


CASES: Final = tuple(
    _case(framework, backend)
    for framework in FRAMEWORKS
    for backend in LABELS
    if any(store.backend == backend for store in framework.stores)
)
"""They need the frameworks, and have a report of their own."""
