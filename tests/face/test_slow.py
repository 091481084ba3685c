"""A database that is slow, or does not answer at all for a while: the loop runs on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from director_db import BackendUnavailableError, payload
from director_db.asyncio import AsyncDB
from director_db_conformance.proxy import Proxy
from director_db_postgres import PostgresDB
from director_db_sqlite import SQLiteDB

LIMIT = 120
"""Seconds that an operation may take: it is to wait here for as long as the test wants."""

PAYLOAD = ["x" * 1000] * 5000
"""5 MB."""

WRITERS = 6

LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
"""


@contextmanager
def locked(path):
    """Let another process hold the lock that every write needs, as a disk that hangs in a sync."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "locked\n" == process.stdout.readline()
    try:
        yield
    finally:
        process.communicate("go\n", timeout=120)


@contextmanager
def paused(proxy):
    """Let nothing through between the instance and its server."""
    proxy.pause()
    try:
        yield
    finally:
        proxy.resume()


@pytest.fixture(params=["sqlite", "postgres"])
def stalling(request, tmp_path):
    """What opens a database, its calls limited to so many seconds, and what makes it stall."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            path = tmp_path / "director.db"
            open_db, stall = partial(SQLiteDB, path), partial(locked, path)
        else:
            server = request.getfixturevalue("postgres_server")
            database = request.getfixturevalue("postgres_database")
            proxy = stack.enter_context(Proxy(server.host, server.port))
            open_db = partial(PostgresDB, proxy.reroute(database.dsn))
            stall = partial(paused, proxy)
        yield lambda limit: stack.enter_context(open_db(operation_timeout=limit)), stall


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_loop_ticks_on_while_the_database_does_not(stalling, loop, eventually, record_property):
    """However slow the machine is: a loop that waits for the database would not tick at all."""
    factory = asyncio.new_event_loop
    if loop == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    open_db, stall = stalling
    db = AsyncDB(open_db(LIMIT))
    gaps = []

    async def tick():
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            gaps.append(time.monotonic() - before)

    async def write(number):
        await db.add_or_update_msg_to_conv("s1", "c", f"m{number}", "t", [], [], PAYLOAD)

    async def main():
        await db.create_session("s1")
        ticking = asyncio.create_task(tick())
        with stall():
            begun = db._executor._begun
            writing = [asyncio.create_task(write(number)) for number in range(WRITERS)]
            await eventually(lambda: db._executor._begun > begun + WRITERS)
            before = len(gaps)
            await eventually(lambda: len(gaps) - before >= 300)
            # All that time the database was in the way.
            assert not any(task.done() for task in writing)
            record_property("longest gap while payloads were encoded, s", max(gaps[:before]))
            record_property("longest gap while the database stalled, s", max(gaps[before:]))
        await asyncio.gather(*writing)
        messages = await db.get_conversations("s1")
        assert [(f"m{number}", PAYLOAD) for number in range(WRITERS)] == sorted(
            (message["msg_id"], message["content"]) for message in messages
        )
        ticking.cancel()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_large_values_are_encoded_one_after_another(tmp_path, monkeypatch):
    """A loop that wants the interpreter's lock stands in line with all who encode at once."""
    check, encoding, most = payload.check_payload, [], Counter()

    def watch(value, path, **how):
        encoding.append(path)
        most[path] = max(most[path], encoding.count(path))
        time.sleep(0.01)
        encoding.remove(path)
        return check(value, path, **how)

    monkeypatch.setattr(payload, "check_payload", watch)

    async def main():
        async with AsyncDB(SQLiteDB(tmp_path / "x.db")) as db, asyncio.TaskGroup() as group:
            await db.create_session("s1")
            for number in range(16):
                message = ("s1", "c", f"m{number}", "t", [1], [], [{"parts": PAYLOAD[:600]}])
                group.create_task(db.add_or_update_msg_to_conv(*message, if_absent=True))

    asyncio.run(main())
    assert 1 == most["content"]
    assert 1 < most["agents"]


def test_a_cancelled_call_that_waits_too_long_tells_that(stalling, eventually):
    """Cancelling does not cut a call short; its own limit does, and its error is the cause."""
    open_db, stall = stalling
    db = AsyncDB(open_db(0.5))

    async def main():
        await db.create_session("s1")
        with stall():
            begun = db._executor._begun
            task = asyncio.create_task(db.update_session("s1", video_id="new"))
            await eventually(lambda: db._executor._begun > begun)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
        assert BackendUnavailableError is type(caught.value.__cause__)
        assert caught.value.__cause__.retryable
        await eventually(db.sync_db.health_check)

    asyncio.run(main())
    assert "s1" == asyncio.run(db.get_session("s1"))["session_id"]
