"""Distributing the tables, and what `health` says of it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from director_db import ConfigurationError, SchemaError
from director_db_postgres import PostgresDB

ALL = [
    "director_sessions",
    "director_conversations",
    "director_context_messages",
    "director_context_items",
]
SHARDS = 4


def fill(db):
    for number in range(10):
        db.create_session(f"s{number}", updated_at=number)
        db.add_or_update_msg_to_conv(f"s{number}", "c", "m", "output", [], [], [number])
        db.append_context_messages(f"s{number}", [number, "x"])


def expect_filled(db):
    sessions = [session["session_id"] for session in db.get_sessions(limit=100)]
    assert sorted(f"s{number}" for number in range(10)) == sorted(sessions)
    for number in range(10):
        assert [number] == db.get_message(f"s{number}", "m")["content"]
        assert {"reasoning": [number, "x"]} == db.get_context_messages(f"s{number}")


@pytest.fixture
def by_hand(dsn, schema):
    """Run SQL as an operator would."""

    def run(statement):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(statement.format(schema=schema))

    return run


def test_tables_with_rows_are_distributed_once(db):
    fill(db)
    assert "Citus" in db.health().versions
    (warning,) = db.health().warnings
    assert "all tables are on the coordinator alone" in warning
    done = db.distribute(shards=SHARDS)
    assert (SHARDS, ALL) == (done.shards, done.tables)
    assert [] == db.health().warnings
    expect_filled(db)
    again = db.distribute(shards=2)
    assert (SHARDS, []) == (again.shards, again.tables)
    expect_filled(db)


def test_what_is_half_done_is_warned_of_and_completed(db, by_hand):
    fill(db)
    by_hand("SELECT create_distributed_table('{schema}.director_sessions', 'session_id')")
    (warning,) = db.health().warnings
    assert "Only some tables are distributed" in warning
    assert "director_sessions" not in warning
    assert "director_context_items" in warning
    done = db.distribute()
    assert ALL[1:] == done.tables
    assert [] == db.health().warnings
    expect_filled(db)


def test_tables_that_are_distributed_otherwise_are_refused(db, by_hand):
    by_hand("SELECT create_reference_table('{schema}.director_sessions')")
    (warning,) = db.health().warnings
    assert "director_sessions is distributed, but not by session_id" in warning
    with pytest.raises(SchemaError, match="undistribute_table"):
        db.distribute()


def test_a_worker_is_refused(dsn, schema, db):
    db.distribute(shards=SHARDS)
    with psycopg.connect(dsn) as connection:
        host, port = connection.execute(
            "SELECT nodename, nodeport FROM pg_dist_node WHERE shouldhaveshards LIMIT 1"
        ).fetchone()
    worker = psycopg.conninfo.make_conninfo(dsn, host=host, port=port)
    there = type(db)(worker, schema=schema)
    with there, pytest.raises(ConfigurationError, match="is a worker of Citus"):
        there.distribute()


def test_tables_of_the_first_version_are_upgraded_on_all_shards(dsn, schema):
    version_1 = Path(__file__).parents[1] / "upgrades" / "version_1.postgres.sql"
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = '%s'::regclass AND attnum > 0"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE SCHEMA {schema}; SET search_path TO {schema}")
        admin.execute(version_1.read_text(encoding="utf-8"))
        spread = "SELECT create_distributed_table(%s, 'session_id', colocate_with => %s)"
        for table in ALL:
            admin.execute(spread, (table, "none" if table == ALL[0] else ALL[0]))
        with PostgresDB(dsn, schema=schema) as db:
            fill(db)
            expect_filled(db)
            assert "3" == db.health().versions["schema"]
            assert db.create_session("mine", user_id="u") is True
            assert ["mine"] == [session["session_id"] for session in db.get_sessions(user_id="u")]
        for table, column in ((ALL[0], "user_id"), (ALL[1], "revision")):
            found = admin.execute(
                "SELECT success, result LIKE %s FROM run_command_on_shards(%s, %s)",
                (
                    f"%{column}%",
                    table,
                    f"SELECT string_agg(attname, ',') FROM ({columns}) AS a",
                ),
            ).fetchall()
            assert {(True, True)} == set(found)
