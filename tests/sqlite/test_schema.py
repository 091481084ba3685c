"""What a file may hold, and what becomes of it."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing

import pytest

from director_db import SchemaError
from director_db_sqlite import SQLiteDB

OLD_TABLES = """
    CREATE TABLE sessions (session_id TEXT PRIMARY KEY, video_id TEXT, collection_id TEXT,
        created_at INTEGER, updated_at INTEGER, metadata JSON);
    CREATE TABLE conversations (session_id TEXT, conv_id TEXT, msg_id TEXT PRIMARY KEY,
        msg_type TEXT, agents JSON, actions JSON, content JSON, status TEXT, created_at INTEGER,
        updated_at INTEGER, metadata JSON,
        FOREIGN KEY (session_id) REFERENCES sessions(session_id));
    CREATE TABLE context_messages (session_id TEXT PRIMARY KEY, context_data JSON,
        created_at INTEGER, updated_at INTEGER, metadata JSON,
        FOREIGN KEY (session_id) REFERENCES sessions(session_id));
    INSERT INTO sessions VALUES ('s1', 'v', 'c', 1, 2, '{}');
"""
META = "CREATE TABLE director_meta (key, value);"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "director.db"


def script(path, statements):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
        connection.commit()


def query(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def refuse(path, match):
    """Every way to use the file is refused, and its bytes stay as they were."""
    before = path.read_bytes()
    with SQLiteDB(path) as db:
        for operation in (db.get_sessions, db.health, lambda: db.create_session("x")):
            with pytest.raises(SchemaError, match=match):
                operation()
        assert db.health_check() is False
    assert before == path.read_bytes()
    assert [path.name] == [file.name for file in path.parent.iterdir()]


def test_a_new_file_is_for_its_user_alone(path):
    with SQLiteDB(path) as db:
        db.create_session("s1")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert {"director.db": 0o600, "director.db-wal": 0o600, "director.db-shm": 0o600} == modes


def test_the_settings_of_a_new_file(path):
    with SQLiteDB(path) as db:
        db.create_session("s1")
        assert [("wal",)] == query(path, "PRAGMA journal_mode")
        assert [("ok",)] == query(path, "PRAGMA integrity_check")
        assert {1} == {
            strict
            for name, strict in query(path, "SELECT name, strict FROM pragma_table_list")
            if name.startswith("director_")
        }
        versions = [("schema_version", "1"), ("upgraded_to", "3")]
        assert versions == query(path, "SELECT key, value FROM director_meta ORDER BY key")


def test_the_settings_of_its_connections(path):
    def settings(connection):
        names = ("synchronous", "foreign_keys", "wal_autocheckpoint", "query_only")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    with SQLiteDB(path) as db:
        full = 2
        assert [full, 1, 0, 0] == db._database.write(settings, 0)
        assert [full, 1, 0, 1] == db._database.read(settings)


def test_an_empty_file_is_a_new_one(path):
    path.touch()
    with SQLiteDB(path) as db:
        assert [] == db.get_sessions()


def test_deleting_the_row_by_sql_leaves_no_orphans(path):
    with SQLiteDB(path) as db:
        for name in ("s1", "s2"):
            db.create_session(name)
            db.add_or_update_msg_to_conv(name, "c", "m", "t", [], [], [])
            db.add_or_update_context_msg(name, [1])
        script(
            path, "PRAGMA foreign_keys = ON; DELETE FROM director_sessions WHERE session_id='s1'"
        )
        assert [[], {}] == [db.get_conversations("s1"), db.get_context("s1")]
        for table in ("director_sessions", "director_conversations", "director_context_messages"):
            assert [("s2",)] == query(path, f"SELECT session_id FROM {table}")


def test_the_old_layout_is_refused_and_left_alone(path):
    script(path, OLD_TABLES)
    refuse(path, "director-db migrate")


@pytest.mark.parametrize("table", ["sessions", "conversations", "context_messages"])
def test_a_part_of_the_old_layout_is_refused_too(path, table):
    script(path, OLD_TABLES)
    for other in {"sessions", "conversations", "context_messages"} - {table}:
        script(path, f"DROP TABLE {other}")
    refuse(path, "director-db migrate")


def crash(path, statements):
    """Leave the log of a process that was killed, with all that it has written."""
    code = "import os, sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2]); "
    subprocess.run([sys.executable, "-c", f"{code} os._exit(0)", path, statements], check=True)


@pytest.mark.parametrize(
    ("statements", "match"),
    [
        (OLD_TABLES, "director-db migrate"),
        (f"{META} INSERT INTO director_meta VALUES ('schema_version', '4')", "Upgrade director-db"),
        ("CREATE TABLE director_sessions (x)", "no table director_meta"),
    ],
)
def test_the_log_that_a_crash_left_beside_others_tables_stays(path, statements, match):
    crash(path, f"PRAGMA journal_mode = WAL; {statements}")
    log = path.with_name(path.name + "-wal")
    before = path.read_bytes(), log.read_bytes()
    assert len(before[1]) > 4096
    with SQLiteDB(path) as db:
        for operation in (db.get_sessions, db.health, lambda: db.create_session("x")):
            with pytest.raises(SchemaError, match=match):
                operation()
    assert before == (path.read_bytes(), log.read_bytes())


def test_a_transaction_that_a_crash_left_half_done_is_undone(path):
    """Before the log, there was a journal; only a connection that may write can play it back."""
    script(path, "CREATE TABLE other (x); INSERT INTO other VALUES (1)")
    many = "WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n WHERE x < 90000) "
    crash(path, f"PRAGMA cache_size = 1; BEGIN; {many} INSERT INTO other SELECT x FROM n")
    assert path.with_name(path.name + "-journal").stat().st_size > 512
    with SQLiteDB(path) as db:
        db.create_session("s1")
        assert [(1,)] == query(path, "SELECT x FROM other")


def test_tables_of_other_frameworks_are_no_matter(path):
    script(
        path, "CREATE TABLE sessions (id TEXT, app_name TEXT); INSERT INTO sessions VALUES (1, 2)"
    )
    with SQLiteDB(path) as db:
        db.create_session("s1")
        assert [("1", "2")] == query(path, "SELECT * FROM sessions")


def test_a_newer_schema_is_refused(path):
    with SQLiteDB(path) as db:
        assert db.health_check()
    script(path, "UPDATE director_meta SET value = '4'; PRAGMA wal_checkpoint(TRUNCATE)")
    with SQLiteDB(path) as db:
        with pytest.raises(SchemaError, match=r"schema version 4.*Upgrade director-db"):
            db.get_sessions()
        assert not db.health_check()
    assert [("4",), ("4",)] == query(path, "SELECT value FROM director_meta")


@pytest.mark.parametrize(
    ("statements", "match"),
    [
        ("CREATE TABLE director_sessions (x)", "a table director_sessions but no table"),
        ("CREATE TABLE Director_Context_Items (x)", "a table director_context_items but no table"),
        ("CREATE VIEW director_conversations AS SELECT 1", "a view director_conversations but no"),
        ("CREATE VIEW director_meta AS SELECT 1", "a view director_meta but no table"),
        (
            "CREATE TABLE x (y); CREATE INDEX director_sessions_by_video ON x (y)",
            "an index director_sessions_by_video but no table",
        ),
        ("CREATE TABLE director_meta (key, value)", "never wrote"),
        ("CREATE TABLE director_meta (a, b)", "not as director-db made it"),
        (
            f"{META} INSERT INTO director_meta VALUES ('schema_version', 'x')",
            "never wrote",
        ),
        (
            f"{META} INSERT INTO director_meta VALUES ('schema_version', '1')",
            "lacks director_context_items",
        ),
    ],
)
def test_tables_that_are_not_ours_are_refused(path, statements, match):
    script(path, statements)
    refuse(path, match)


def test_a_schema_that_changes_under_an_open_instance_is_told(path):
    with SQLiteDB(path) as db:
        assert db.health_check()
        script(path, "UPDATE director_meta SET value = '99'")
        assert not db.health_check()
        script(path, "UPDATE director_meta SET value = '2'")
        assert db.health_check()
        script(path, "DROP TABLE director_context_items")
        with pytest.raises(SchemaError, match="lacks director_context_items"):
            db.health()


def test_text_in_another_encoding_is_refused(path):
    script(path, "PRAGMA encoding = 'UTF-16le'; CREATE TABLE other (x)")
    refuse(path, "UTF-16le")


def test_a_link_to_a_file_that_is_not_there_yet(path, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with SQLiteDB(link) as db:
        db.create_session("s1")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_hard_links_are_warned_of(path, tmp_path):
    with SQLiteDB(path) as db:
        assert not any("hard links" in warning for warning in db.health().warnings)
        (tmp_path / "other.db").hardlink_to(path)
        assert any("hard links" in warning for warning in db.health().warnings)


def test_a_file_that_is_no_database_is_refused(path):
    path.write_bytes(b"this is a text file, long enough to have a header of a hundred bytes" * 50)
    refuse(path, "is not a SQLite database")
