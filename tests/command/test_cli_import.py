"""The command ``import`` without a framework: what it says, and its exit status."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from importlib import metadata

import pytest

from director_db import load_db
from director_db.cli import main


@pytest.fixture
def old(tmp_path):
    """The tables of a session of the OpenAI Agents SDK."""
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript("""
            CREATE TABLE agent_sessions (session_id TEXT PRIMARY KEY, created_at, updated_at);
            CREATE TABLE agent_messages (
                id INTEGER PRIMARY KEY, session_id, message_data, created_at
            );
        """)
        row = "s1", json.dumps({"role": "user", "content": "Hi"}), "2025-01-01 00:00:00"
        connection.execute("INSERT INTO agent_messages VALUES (7, ?, ?, ?)", row)
        connection.commit()
    return "sqlite:///old.db"


def test_it_imports_without_the_framework(director_db, old, tmp_path):
    done = director_db("import", "--from", "openai-agents", old)
    assert (0, "") == (done.returncode, done.stderr)
    assert "✓ imported" == done.stdout.splitlines()[0]
    assert "│ stored        │ 1 │" in done.stdout
    (message,) = load_db(f"sqlite:///{tmp_path / 'app.db'}").get_conversations("s1")
    assert ({"role": "user", "content": "Hi"}, 1735689600) == (
        message["content"],
        message["created_at"],
    )
    done = director_db(
        "import", "--from", "openai-agents", old, "--dry-run", "--db", "sqlite:///x.db"
    )
    assert "✓ counted; nothing is stored" == done.stdout.splitlines()[0]
    assert "│ that can be stored │ 1 │" in done.stdout
    assert not (tmp_path / "x.db").exists()


def test_another_package_may_bring_a_source(director_db, environment, tmp_path):
    info = tmp_path / "site" / "acme-1.5.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.5\n")
    info.joinpath("entry_points.txt").write_text(
        "[director_db_import]\nacme = acme:source\nbroken = acme:nothing\n"
    )
    (tmp_path / "site" / "acme.py").write_text(
        "from director_db.records import Imported\n\n"
        "def source(url, names, db, refuse):\n"
        "    refuse(f'row of {url} with {names}: \\x1b[2Jno')\n"
        "    return Imported(1_000, 2_000_000, 1_999_998, 1, 1)\n"
    )
    environment["PYTHONPATH"] = str(tmp_path / "site")
    done = director_db("import", "--from", "acme", "any://where", "--table", "a=b=c")
    assert (1, "") == (done.returncode, done.stderr)
    assert (
        "Refused: row of any://where with {'a': 'b=c'}: \\x1b[2Jno\n"
        "✗ imported, but for what is refused\n"
        f"{tmp_path / 'app.db'}\n"
        "╭───────────────┬───────────╮\n"
        "│ sessions      │     1,000 │\n"
        "│ messages read │ 2,000,000 │\n"
        "│ stored        │ 1,999,998 │\n"
        "│ already there │         1 │\n"
        "│ rows refused  │         1 │\n"
        "╰───────────────┴───────────╯\n"
    ) == done.stdout
    done = director_db("import", "--from", "broken", "any://where")
    assert (2, "") == (done.returncode, done.stdout)
    assert "Error: The source broken cannot be loaded: AttributeError: " in done.stderr


def test_what_is_missing_is_said(director_db, monkeypatch, capsys, tmp_path):
    done = director_db("import", "--from", "other", "sqlite:///old.db")
    assert (2, "") == (done.returncode, done.stdout)
    assert (
        "Error: There is no source other; there are google-adk, langchain, llama-index, "
        "openai-agents.\n"
    ) == done.stderr
    for name in ("langchain", "llama-index"):  # What is in their tables, only they can read.
        done = director_db("import", "--from", name, "sqlite:///old.db")
        assert (2, "") == (done.returncode, done.stdout)
        assert done.stderr.startswith(f"Error: The source {name} cannot be loaded: ")
        assert f'pip install "director-db-integrations[{name}]"' in done.stderr
    done = director_db("import", "sqlite:///old.db")
    assert "Error: Missing option '--from'. See: director-db import --help\n" == done.stderr
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [])
    assert 2 == main(["import", "--from", "openai-agents", "sqlite:///old.db"])
    expected = "Error: To import needs another package: pip install director-db-integrations\n"
    assert expected == capsys.readouterr().err
    assert [] == [*tmp_path.iterdir()]
