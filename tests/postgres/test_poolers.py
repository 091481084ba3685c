"""A pooler that nobody told us of: no statement runs as another, and it is found out."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from director_db import BackendUnavailableError
from director_db.testing import connections_to
from director_db_conformance.clauses.at_once import wait_until
from director_db_conformance.dsn import parts
from director_db_postgres import connections
from director_db_postgres.connections import Connection

ROUNDS = 5
SECONDS = 0.4


@pytest.fixture
def pooler(place, pgbouncer):
    with pgbouncer(SimpleNamespace(name=place.name, dsn=place.dsn), pool_size=2) as pooler:
        yield pooler


def message(db, msg_id):
    db.add_or_update_msg_to_conv("s", "c", msg_id, "output", [], [], [msg_id])


@pytest.fixture
def rounds(pooler, new_db, db):
    """Let a reader and a deleter of nothing run through the pooler; return what was lost."""
    db.create_session("s")

    def repeat(stop, errors, call):
        try:
            while time.monotonic() < stop:
                call()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            errors.append(error)

    def run(**settings):
        lost, errors = 0, []
        for _ in range(ROUNDS):
            for number in range(5):
                message(db, f"m{number}")
            stop = time.monotonic() + SECONDS
            with contextlib.ExitStack() as stack:
                one, two = (new_db(pooler.dsn, **settings) for _ in range(2))
                for instance in (one, two):
                    stack.callback(instance.close)
                threads = [
                    threading.Thread(target=repeat, args=(stop, errors, call))
                    for call in (
                        lambda one=one: one.get_message("s", "m3"),
                        lambda two=two: two.delete_message("s", "nope"),
                        lambda two=two: two.get_session("s"),
                    )
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            ids = [found["msg_id"] for found in db.get_conversations("s")]
            lost += ids != [f"m{number}" for number in range(5)]
        return lost, errors

    return run


def test_a_read_never_runs_what_another_client_prepared(rounds):
    assert (0, []) == rounds()


def test_nor_where_the_pooler_cannot_be_told_by_its_number(rounds):
    """As with one that passes the number of the server's process on."""
    assert (0, []) == rounds(pooler=False)


@contextlib.contextmanager
def held(pooler):
    """Take one of the pooler's two connections of the server away."""
    with psycopg.connect(pooler.dsn, prepare_threshold=None) as holder:
        holder.execute("SELECT 1")
        yield


def test_a_statement_of_another_client_is_not_ours(pooler, new_db, db):
    """The very way in which a message was lost, step by step."""
    db.create_session("s")
    message(db, "m3")
    reader, deleter = (new_db(pooler.dsn, pooler=False, pool_size=1) for _ in range(2))
    with contextlib.ExitStack() as second:
        with held(pooler):
            # Both prepare two statements, each on the server's connection that is left.
            assert deleter.delete_message("s", "nope") is False
            second.enter_context(held(pooler))
        assert "s" == reader.get_session("s")["session_id"]
        assert "m3" == reader.get_message("s", "m3")["msg_id"]
        first = contextlib.ExitStack()
        first.enter_context(held(pooler))
    with first:
        assert "m3" == reader.get_message("s", "m3")["msg_id"]
    assert "m3" == db.get_message("s", "m3")["msg_id"]
    assert reader._database.found_pooler


def warnings_of(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if (record.name, record.levelname) == ("director_db.postgres", "WARNING")
    ]


@pytest.mark.parametrize("pooled", [None, False])
def test_it_is_found_out_and_told_once(pooler, new_db, caplog, pooled):
    db, other = (new_db(pooler.dsn, pooler=pooled, pool_size=3) for _ in range(2))
    db.create_session("s")
    stop = time.monotonic() + 10
    while (told := warnings_of(caplog)) == [] and time.monotonic() < stop:
        threads = [
            threading.Thread(target=each.get_session, args=("s",)) for each in (db, other) * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert told
    assert len(told) <= 2  # one for each instance
    found = [each for each in (db, other) if each._database.found_pooler]
    assert len(told) == len(found)
    for each in found:
        assert any("POSTGRES_POOLER" in warning for warning in each.health().warnings)
    assert "POSTGRES_POOLER=1" in told[0]
    assert "postgres:***@" in told[0]


def test_one_that_was_told_of_is_no_news(pooler, new_db, caplog):
    db = new_db(pooler.dsn, pooler=True)
    assert not [text for text in db.health().warnings if "POSTGRES_POOLER" in text]
    assert [] == warnings_of(caplog)


def prepared_on(db):
    """Return the names of what each connection of an instance has prepared."""
    pool = db._database._pool.current
    taken = [pool.getconn() for _ in range(pool.get_stats()["pool_available"])]
    try:
        return [
            {name for (name,) in connection.execute(b"SELECT name FROM pg_prepared_statements")}
            for connection in taken
        ]
    finally:
        for connection in taken:
            pool.putconn(connection)


def test_without_a_pooler_all_is_prepared_under_names_of_its_own(place, new_db, caplog):
    names = []
    for _ in range(2):
        db = new_db(place.dsn, pool_size=1)
        db.create_session("s")
        message(db, "m")
        assert "m" == db.get_message("s", "m")["msg_id"]
        (found,) = prepared_on(db)
        assert len(found) >= 3
        names.append(found)
    assert names[0].isdisjoint(names[1])
    prefixes = {name.rpartition("_")[0] for found in names for name in found}
    assert all(len(prefix) >= len("director_") + 16 for prefix in prefixes)
    assert [] == warnings_of(caplog)


def test_nothing_is_prepared_before_it_is_known(place, new_db, monkeypatch):
    seen = []
    find_out = Connection.find_out

    def look(self, connector):
        seen.append(self.prepare_threshold)
        find_out(self, connector)
        seen.append(self.prepare_threshold)

    monkeypatch.setattr(Connection, "find_out", look)
    new_db(place.dsn).create_session("s")
    assert seen[0] is None
    assert isinstance(seen[1], int)


def test_a_connection_that_ends_while_it_is_asked_is_tried_again(place, new_db, monkeypatch):
    ends = iter([True, True, False, False, False])
    find_out = Connection.find_out

    def end(self, connector):
        if next(ends):
            with place.connect() as killer:
                killer.execute("SELECT pg_terminate_backend(%s, 10000)", (self.info.backend_pid,))
        find_out(self, connector)

    monkeypatch.setattr(Connection, "find_out", end)
    db = new_db(place.dsn)
    db.create_session("s")
    assert "s" == db.get_session("s")["session_id"]


def test_a_cancelling_that_the_pooler_has_not_passed_on_is_kept(
    pgbouncer, postgres_cluster, new_db, monkeypatch, again
):
    """PgBouncer 1.18 crashes when its client leaves before the server has answered."""
    with pgbouncer(postgres_cluster.create_database()) as pooler:
        find = connections_to(int(parts(pooler.dsn)["port"]))
        new_db(pooler.dsn, pooler=True).create_session("s")
        db = new_db(pooler.dsn, pooler=True, operation_timeout=1)
        again(db.get_session, "s")
        postgres_cluster.freeze()
        try:
            with pytest.raises(BackendUnavailableError, match="did not answer"):
                db.get_session("s")
            (*_, (_, cancelling)) = db._database._pool.connector.cancellings
            socket = f"/proc/self/fd/{cancelling.gi_frame.f_locals['cancel_conn'].socket}"
            assert (kept := str(Path(socket).readlink())) in find(os.getpid())
        finally:
            postgres_cluster.thaw()
        wait_until(db.health_check, "the instance is healthy again")
        assert kept in find(os.getpid())
        monkeypatch.setattr(connections, "_KEPT_FOR", 0)
        del cancelling
        again(db.get_session, "s")
        assert kept not in find(os.getpid())
