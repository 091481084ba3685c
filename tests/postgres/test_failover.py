"""A primary that dies under load, and a standby that takes over."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from director_db_conformance.dsn import replace
from director_db_conformance.servers import Standby, find_cluster
from director_db_postgres import PostgresDB
from director_db_postgres.connections import Connection

pytestmark = pytest.mark.sampled

THREADS = 8
BEFORE = 1.5
AFTER = 1.0
"""Seconds of load on each server."""
PATIENCE = 60
TRANSACTIONS = "SELECT count(DISTINCT xmin::text) FROM director_conversations"


def test_a_failover_under_load_loses_nothing_and_costs_nobody_an_error(postgres_cluster):
    with Standby(postgres_cluster, synchronous=True) as standby:
        database = standby.failover(postgres_cluster.create_database())
        # So few connections that some share a transaction.
        with PostgresDB(database.dsn, pool_size=4) as db:
            stored = _fail_over_under_load(db, postgres_cluster, standby)
        with psycopg.connect(database.dsn) as connection:
            (transactions,) = connection.execute(TRANSACTIONS).fetchone()
        assert transactions < stored


def test_a_standby_is_waited_for_until_it_takes_writes(caplog, monkeypatch):
    """As behind a name or an address that moves: the one host that is known is read-only still.

    It takes over right after it has refused a write, before it is asked why.
    """
    ask, is_time = Connection.is_read_only, threading.Event()

    def take_over_first(connection):
        if is_time.is_set():
            is_time.clear()
            primary.kill()
            standby.promote()
        return ask(connection)

    monkeypatch.setattr(Connection, "is_read_only", take_over_first)
    with find_cluster() as primary, ThreadPoolExecutor(1) as executor:
        database = primary.create_database()
        with PostgresDB(database.dsn) as db:
            db.create_session("s")
        with (
            Standby(primary) as standby,
            PostgresDB(replace(database.dsn, port=str(standby.port))) as db,
        ):
            assert "s" == db.get_session("s")["session_id"]
            deleting = executor.submit(db.delete_session, "s")
            deadline = time.monotonic() + PATIENCE
            while "trying again" not in caplog.text:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert not deleting.done()
            is_time.set()
            assert (True, ["conversation", "context"]) == deleting.result()


def _fail_over_under_load(db, primary, standby):
    sessions = [f"s{number}" for number in range(THREADS)]
    for session in sessions:
        db.create_session(session)
    acknowledged = {session: [] for session in sessions}
    stop = threading.Event()

    def work(session):
        count = 0
        while not stop.is_set():
            db.add_or_update_msg_to_conv(session, "c", f"m{count}", "output", [], [], [count])
            acknowledged[session].append(f"m{count}")
            count += 1

    with ThreadPoolExecutor(THREADS) as executor:
        workers = [executor.submit(work, session) for session in sessions]
        try:
            time.sleep(BEFORE)
            primary.kill()
            # Until the standby takes over, nothing more is acknowledged.
            before = {session: len(ids) for session, ids in acknowledged.items()}
            standby.promote()
            time.sleep(AFTER)
        finally:
            stop.set()
        for worker in workers:
            worker.result()

    for session in sessions:
        # Some were written on each of the servers; each is there once, in the order of sending.
        assert 0 < before[session] < len(acknowledged[session])
        messages = db.get_conversations(session)
        assert acknowledged[session] == [message["msg_id"] for message in messages]
        assert [[number] for number in range(len(messages))] == [m["content"] for m in messages]
    stored = sum(map(len, acknowledged.values()))
    assert db.health_check()
    assert (True, ["context"]) == db.delete_session(sessions[0])
    assert [] == db.get_conversations(sessions[0])
    return stored - len(acknowledged[sessions[0]])
