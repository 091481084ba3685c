"""The benchmarks of the integrations at a tiny size: all stores do the same, and are measured."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
from agents.extensions.memory import SQLAlchemySession

from benchmarks.bench import LABELS, Bench, open_ours
from benchmarks.cases import turns
from benchmarks.frameworks.framework import FRAMEWORKS
from benchmarks.payloads import text
from benchmarks.peers import installed_peers
from benchmarks.run import run
from benchmarks.scale import TINY

# Their stores warn of themselves: that they are experimental, or no longer maintained.
pytestmark = [pytest.mark.sampled, pytest.mark.filterwarnings("default")]

INSTALLED = [
    pytest.param(framework, backend, id=f"{framework.module}-{backend}")
    for framework in FRAMEWORKS
    for backend in LABELS
    if [*installed_peers(backend, framework.stores)]
]


def test_every_store_that_is_installed_is_measured_at_every_size(tmp_path):
    cases = [case for case in turns.CASES if case.backend == "sqlite"]
    report = run(cases, TINY, folder=tmp_path)
    expected, missing = {}, []
    for framework in FRAMEWORKS:
        there = [*installed_peers("sqlite", framework.stores)]
        missing += [
            f"{framework.name}, {store.name} (sqlite) is not installed."
            for store in framework.stores
            if store.backend == "sqlite" and store not in there
        ]
        for items in TINY.items:
            for sessions in ("1 session", "3 sessions"):
                for store in there:
                    work = f"SQLite: {framework.name}, {items} items, {sessions}"
                    expected[work, store.name] = ("ours", f"≥ 1 x {store.name}")
    assert missing == report.notes
    measured = {
        (row.work, row.figures[1].name): (row.figures[0].name, str(row.goal)) for row in report.rows
    }
    assert expected == measured
    assert 2 * 2 * 2 < len(measured)  # More than one framework has to be there.
    assert all(figure.durability for row in report.rows for figure in row.figures)


@pytest.mark.parametrize(
    ("method", "noted"),
    [
        ("add_items", ["SQLAlchemySession"]),
        (
            "get_items",
            [
                f"SQLAlchemySession with {items} items and {sessions}"
                for items in TINY.items
                for sessions in ("1 session", "3 sessions")
            ],
        ),
    ],
)
def test_a_store_that_fails_is_left_out_and_noted(method, noted, tmp_path, monkeypatch):
    do = getattr(SQLAlchemySession, method)

    async def fail(session, *args):
        if session.session_id:
            raise TimeoutError("locked")
        return await do(session, *args)

    monkeypatch.setattr(SQLAlchemySession, method, fail)
    (case,) = [each for each in turns.CASES if each.name == "openai-agents-sqlite"]
    report = run([case], TINY, folder=tmp_path)
    assert [
        f"OpenAI Agents SDK, {each} (sqlite) was not measured: TimeoutError: locked"
        for each in noted
    ] == report.notes
    assert ["SQLiteSession"] * 4 == [row.figures[1].name for row in report.rows]


@pytest.mark.parametrize("time", [3, 6])
def test_a_store_that_fails_once_costs_one_row(time, tmp_path, monkeypatch):
    """The others have had more turns by then, and go on in new sessions."""
    do, times = SQLAlchemySession.get_items, itertools.count(1)

    async def fail(session, *args):
        if next(times) == time:
            raise TimeoutError("locked")
        return await do(session, *args)

    monkeypatch.setattr(SQLAlchemySession, "get_items", fail)
    (case,) = [each for each in turns.CASES if each.name == "openai-agents-sqlite"]
    report = run([case], TINY, folder=tmp_path)
    (noted,) = report.notes
    assert "SQLAlchemySession with" in noted
    names = [row.figures[1].name for row in report.rows]
    assert (4, 3) == (names.count("SQLiteSession"), names.count("SQLAlchemySession"))


@pytest.mark.parametrize(("framework", "backend"), INSTALLED)
def test_a_turn_finds_what_it_has_added_behind_what_was_there(
    framework, backend, tmp_path, request
):
    server = request.getfixturevalue("postgres_server") if backend == "postgres" else None
    bench = Bench(TINY, tmp_path, server, use_peers=True, notes=[])

    async def take_turn(sessions):
        await sessions.fill(["a", "b"], 2)
        read = {}
        for name, numbers in (("b", range(2, 5)), ("a", range(5, 6))):
            session = await sessions.open(name)
            await sessions.add(session, numbers)
            items = await sessions.read(session)
            read[name] = [f"{item} {getattr(item, 'text', '')}" for item in items]
            await sessions.close(session)
        return read

    async def main():
        with bench.place(backend) as place, contextlib.closing(open_ours(backend, place)) as db:
            async with framework.ours(db) as sessions:
                yield await take_turn(sessions)
        for store in installed_peers(backend, framework.stores):
            with bench.place(backend) as place:
                async with store.sessions(place) as sessions:
                    yield await take_turn(sessions)

    async def collected():
        return [read async for read in main()]

    outcomes = asyncio.run(collected())
    assert 2 <= len(outcomes)
    for read in outcomes:
        for name, numbers in {"a": (0, 1, 5), "b": (0, 1, 2, 3, 4)}.items():
            found = [
                next((number for number in numbers if text(number) in item), None)
                for item in read[name]
            ]
            assert [*numbers] == found
