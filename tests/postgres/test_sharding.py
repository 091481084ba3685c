"""What sharding by the session's id asks of the schema and of the statements."""

from __future__ import annotations

import re

import psycopg
import pytest

from director_db_postgres import PostgresDB, sql

KEYS = """
    SELECT conrelid::regclass::text, conname, contype,
        ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY (conkey))
    FROM pg_constraint
    WHERE conrelid::regclass::text LIKE 'director_%' AND contype IN ('p', 'u', 'f')
"""
UNIQUE_INDEXES = """
    SELECT indrelid::regclass::text, indexrelid::regclass::text,
        ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = indrelid AND attnum = ANY (indkey))
    FROM pg_index WHERE indisunique AND indrelid::regclass::text LIKE 'director_%'
"""
STATEMENTS = {
    name: text
    for name, text in vars(sql).items()
    if name.isupper() and isinstance(text, str) and "director_" in text
}


@pytest.fixture
def tables(postgres_database):
    with PostgresDB(postgres_database.dsn) as db:
        assert db.health_check()
    with psycopg.connect(postgres_database.dsn) as connection:
        yield connection


def test_every_key_contains_the_session(tables):
    keys = tables.execute(KEYS).fetchall()
    foreign = [(table, name) for table, name, kind, _ in keys if kind == "f"]
    assert 3 == len(foreign)
    for table, name, _, columns in keys:
        assert table == "director_meta" or "session_id" in columns, name
    for table, name, columns in tables.execute(UNIQUE_INDEXES).fetchall():
        assert table == "director_meta" or "session_id" in columns, name


def test_there_are_no_triggers_and_no_sequences(tables):
    count = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"
    assert (0,) == tables.execute(count).fetchone()
    assert (0,) == tables.execute("SELECT count(*) FROM pg_sequences").fetchone()


def test_every_condition_names_the_session():
    checked = 0
    for name, text in STATEMENTS.items():
        for condition in re.findall(r"WHERE\s+(.*)", text):
            if "director_meta" in text:
                continue
            checked += 1
            assert "session_id = $1" in condition, name
    assert checked > 10


def test_no_statement_needs_a_session_of_the_server():
    for name, text in STATEMENTS.items():
        words = set(re.findall(r"\w+", text.upper()))
        assert not words & {"LISTEN", "TEMP", "TEMPORARY", "NEXTVAL", "PG_ADVISORY_LOCK"}, name
        assert not re.search(r"^\s*SET\b", text, re.MULTILINE) or "UPDATE" in words, name
