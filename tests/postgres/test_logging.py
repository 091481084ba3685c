"""What an operator sees of lost connections and of waiting, and what nobody is to see."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial

import pytest

from director_db import BackendUnavailableError

KILL = """
    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
PAYLOAD = "what-the-user-said"
PASSWORD = "s3cr3t-pa55"  # noqa: S105 - of a server that is not there


@pytest.fixture
def lines(caplog):
    """Return what was logged, as (level, text), from a level on."""
    caplog.set_level(logging.DEBUG, "director_db.postgres")

    def lines(level=logging.INFO):
        return [
            (record.levelname, record.getMessage())
            for record in caplog.records
            if record.name == "director_db.postgres" and record.levelno >= level
        ]

    return lines


def upsert(db, msg_id="m"):
    db.add_or_update_msg_to_conv("s", "c", msg_id, "output", [], [], [PAYLOAD])


def test_opening_and_closing(place, new_db, lines):
    db = new_db(place.dsn)
    db.create_session("s")
    db.close()
    assert [("DEBUG", f"{db.place}: opened"), ("DEBUG", f"{db.place}: closing")] == lines(
        logging.DEBUG
    )


def test_a_connection_that_is_lost_and_won_back(place, proxy, new_db, lines):
    db = new_db(place.dsn_by(proxy.port), pool_size=1)
    db.create_session("s")
    proxy.cut_after(0)
    upsert(db)
    (level, lost), (other_level, won) = lines()
    assert ("WARNING", "INFO") == (level, other_level)
    assert lost.startswith(f"{db.place}: ")
    assert "; trying again in 0.0" in lost
    assert won.startswith(f"{db.place}: works again after 2 tries in ")
    assert PAYLOAD not in lost + won


def test_a_write_in_doubt(place, proxy, new_db, lines):
    db = new_db(place.dsn_by(proxy.port), pool_size=1)
    db.create_session("s")
    proxy.cut_after(0)
    with pytest.raises(BackendUnavailableError):
        db.delete_session("s")
    ((level, text),) = lines()
    assert level == "WARNING"
    assert text.endswith("the write may have been stored, and is not sent again")


def test_an_idle_connection_that_was_ended(place, db, lines):
    db.create_session("s")
    with place.connect() as killer:
        killer.execute(KILL)
    db.get_session("s")
    assert [("INFO", f"{db.place}: an idle connection was ended from outside")] == lines()


def test_a_deadline_that_came(new_db, lines):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    db = new_db(f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/d", retry_deadline=0.3)
    with pytest.raises(BackendUnavailableError):
        db.get_session("s")
    *tries, (level, last) = lines()
    assert tries
    assert all("; trying again in " in text for _, text in tries)
    assert level == "WARNING"
    assert "; gave up after 0." in last
    assert PASSWORD not in str(lines(logging.DEBUG))


def test_waiting_for_a_lock_for_longer_than_a_second(place, new_db, lines):
    db = new_db(place.dsn, pool_size=2)
    db.create_session("s")
    with place.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT FROM director_sessions FOR UPDATE")
        writers = [threading.Thread(target=upsert, args=(db, f"m{n}")) for n in range(2)]
        for writer in writers:
            writer.start()
        deadline = time.monotonic() + 30
        while not any(" has waited for " in text for _, text in lines()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        holder.execute("COMMIT")
        for writer in writers:
            writer.join()
    told = [text for _, text in lines() if " has waited for " in text]
    assert any("for the lock of a session, held by process " in text for text in told)
    assert PAYLOAD not in str(lines(logging.DEBUG))


def test_waiting_for_a_connection_for_longer_than_a_second(place, new_db, lines):
    db = new_db(place.dsn, pool_size=1)
    db.create_session("s")
    database = db._database
    read = partial(database.read, lambda connection: connection.execute("SELECT pg_sleep(3)"))
    busy = threading.Thread(target=read)
    busy.start()
    deadline = time.monotonic() + 60
    while not database._pool.holding:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert "s" == db.get_session("s")["session_id"]
    busy.join()
    told = [text for _, text in lines() if " has waited for " in text]
    assert any("for a connection" in text for text in told)


def test_psycopgs_own_lines_are_below_ours(place, proxy, new_db, caplog):
    caplog.set_level(logging.DEBUG, "director_db.postgres")
    db = new_db(place.dsn_by(proxy.port), pool_size=2)
    db.create_session("s")
    for _ in range(3):
        proxy.cut_after(0)
        upsert(db)
    names = {record.name for record in caplog.records if record.levelno >= logging.WARNING}
    assert {"director_db.postgres"} == names
    assert any(
        (record.levelname, record.getMessage()[:9]) == ("DEBUG", "psycopg: ")
        for record in caplog.records
    )


def test_psycopgs_lines_of_others_stay(caplog):
    logging.getLogger("psycopg.pool").warning("discarding closed connection: %s", "theirs")
    logging.getLogger("psycopg").warning("error ignored")
    assert 2 == len([record for record in caplog.records if record.name.startswith("psycopg")])


def test_nothing_is_printed_where_nobody_configured_logging(place, proxy):
    script = f"""
        import socket
        from director_db import BackendUnavailableError
        from director_db_postgres import PostgresDB

        with PostgresDB({place.dsn_by(proxy.port)!r}, pool_size=2) as db:
            db.create_session("s")
            print("ready", flush=True)
            while db.get_session("s")["video_id"] is None:
                try:
                    db.delete_message("s", "none")
                except BackendUnavailableError:
                    pass
        dead = PostgresDB("postgresql://u:{PASSWORD}@127.0.0.1:1/d", retry_deadline=0.2)
        print(dead.health_check())
        dead.close()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "ready\n" == process.stdout.readline()
        for _ in range(20):
            proxy.cut()
            time.sleep(0.05)
        with place.connect() as connection:
            connection.execute("UPDATE director_sessions SET video_id = 'v'")
        out, err = process.communicate(timeout=400)
    finally:
        process.kill()
        process.wait()
    assert ("False\n", "") == (out, err)
