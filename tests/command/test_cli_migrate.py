"""The command ``migrate``: what it prints, and its exit status."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from director_db_sqlite import SQLiteDB


@pytest.fixture
def path(tmp_path):
    """A file of the old system: 2 sessions, 3 messages and 2 contexts, one of them an orphan."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            CREATE TABLE sessions (session_id TEXT PRIMARY KEY, video_id TEXT, collection_id TEXT,
                created_at INTEGER, updated_at INTEGER, metadata JSON);
            CREATE TABLE conversations (session_id TEXT, conv_id TEXT, msg_id TEXT PRIMARY KEY,
                msg_type TEXT, agents JSON, actions JSON, content JSON, status TEXT,
                created_at INTEGER, updated_at INTEGER, metadata JSON);
            CREATE TABLE context_messages (session_id TEXT PRIMARY KEY, context_data JSON,
                created_at INTEGER, updated_at INTEGER, metadata JSON);
            INSERT INTO sessions VALUES ('s1', 'v', 'c', 1, 2, '{}'), ('s2', 'v', 'c', 3, 4, '{}');
            INSERT INTO conversations VALUES
                ('s1', 'c', 'm1', 'input', '[]', '[]', '["hi"]', NULL, 1, 1, '{}'),
                ('s1', 'c', 'm2', 'output', '[]', '[]', '["ho"]', 'success', 2, 2, '{}'),
                ('s2', 'c', 'm3', 'input', '[]', '[]', '[]', NULL, 3, 3, '{}');
            INSERT INTO context_messages VALUES
                ('s1', '{"reasoning": []}', 1, 2, '{}'), ('gone', '[]', 5, 6, '{}');
            """
        )
    return path


def spoil(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE conversations SET content = '[NaN]' WHERE msg_id = 'm3'")
        connection.commit()


def counts(shown):
    found = re.findall(r"^│ (\w[\w ]*\w) +│ +([\d,]+) │$", shown, re.MULTILINE)
    return {name: int(number) for name, number in found}


def test_it_tells_what_was_carried_over(director_db, path):
    refused = director_db("init")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith("Stop the old application, then run: director-db migrate\n")

    done = director_db("migrate")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == [
        "✓ migrated; the old tables are a backup now",
        str(path),
    ]
    assert counts(done.stdout) == {
        "sessions": 2,
        "messages": 3,
        "contexts": 2,
        "sessions made for orphans": 1,
        "rows left behind": 0,
    }
    with SQLiteDB(path) as db:
        assert {"s1", "s2", "gone"} == {session["session_id"] for session in db.get_sessions()}
        assert [["hi"], ["ho"]] == [message["content"] for message in db.get_conversations("s1")]
    assert director_db("health").returncode == 0


def test_again_there_is_nothing_to_do(director_db, path):
    director_db("migrate")
    again = director_db("migrate")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines() == ["✓ nothing to migrate", str(path)]


def test_a_missing_file_is_created_and_has_nothing(director_db, tmp_path):
    done = director_db("migrate", "--db", "sqlite:///new.db")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["✓ nothing to migrate", str(tmp_path / "new.db")]
    assert (tmp_path / "new.db").is_file()


def test_a_row_that_breaks_a_rule_is_an_error_in_one_line(director_db, path):
    spoil(path)
    before = path.read_bytes()
    done = director_db("migrate")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {path}: 1 row of the old tables cannot be carried over")
    assert "conversations, rowid 3, content[0]: nan has no form in JSON" in line
    assert line.endswith("director-db migrate --skip-invalid")
    assert before == path.read_bytes()


def test_rows_that_are_left_behind_are_named(director_db, path):
    spoil(path)
    done = director_db("migrate", "--skip-invalid")
    assert (done.returncode, done.stderr) == (0, "")
    assert (2, 1) == (counts(done.stdout)["messages"], counts(done.stdout)["rows left behind"])
    assert done.stdout.splitlines()[-1] == (
        "Left behind: conversations, rowid 3, content[0]: nan has no form in JSON"
    )


def test_a_backend_that_the_old_system_never_had_is_an_error(director_db, backend):
    backend("young", "_migrate = None")
    done = director_db("migrate", "--db", "young")
    assert (done.returncode, done.stdout) == (2, "")
    expected = "Error: A database of type young has no old layout to migrate.\n"
    assert expected == done.stderr


def test_a_setting_that_means_nothing_is_an_error(director_db, path):
    done = director_db("health", DIRECTOR_DB_MIGRATE="yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: DIRECTOR_DB_MIGRATE is 'auto' or 'never' (the default), not 'yes'.\n"
    )


def test_the_environment_may_allow_the_first_use_to_migrate(director_db, path):
    assert director_db("health", DIRECTOR_DB_MIGRATE="never").returncode == 1
    assert director_db("health", DIRECTOR_DB_MIGRATE="auto").returncode == 0
    assert director_db("health", DIRECTOR_DB_MIGRATE="never").returncode == 0


def test_on_a_terminal(in_terminal, path):
    status, shown = in_terminal("migrate", NO_COLOR="1")
    assert status == 0
    assert counts(shown)["messages"] == 3
    assert str(path) in shown


def test_help_says_what_becomes_of_the_tables_and_imports_no_driver(environment):
    script = (
        "import sys; from director_db.cli import main; status = main(['migrate', '--help']);"
        "unwanted = {'sqlite3', 'rich', 'director_db.legacy.old_layout'};"
        "print(status, sorted(unwanted & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "0 []"
    assert "--skip-invalid" in done.stdout
    assert "old_conversations" in done.stdout
