"""What a commit has reached when it returns: the setting `synchronous`."""

from __future__ import annotations

import pytest

from director_db import ConfigurationError, load_db
from director_db_sqlite import SQLiteDB

FULL, NORMAL = 2, 1


def synchronous_of(db):
    """Return the setting of each connection that writes, as SQLite tells it."""
    writer = db._database._writer
    db.create_session("s1")
    writer._checkpoint(writer.connection, 0)
    return [
        connection.execute("PRAGMA synchronous").fetchone()[0]
        for connection in (writer.connection, writer._checkpointer.connection)
    ]


def test_a_write_is_on_the_disk_by_default(tmp_path):
    with SQLiteDB(tmp_path / "x.db") as db:
        assert [FULL, FULL] == synchronous_of(db)
        assert not [warning for warning in db.health().warnings if "power" in warning]


def test_normal_on_request_and_health_warns_of_it(tmp_path):
    with SQLiteDB(tmp_path / "x.db", synchronous="normal") as db:
        assert [NORMAL, NORMAL] == synchronous_of(db)
        (warning,) = [warning for warning in db.health().warnings if "power" in warning]
        assert "SQLITE_SYNCHRONOUS=normal" in warning


@pytest.mark.parametrize(
    ("value", "expected"), [(None, FULL), ("", FULL), ("FULL", FULL), ("Normal", NORMAL)]
)
def test_the_environment_says_so(tmp_path, monkeypatch, value, expected):
    monkeypatch.setenv("SQLITE_DB_PATH", str(tmp_path / "x.db"))
    if value is not None:
        monkeypatch.setenv("SQLITE_SYNCHRONOUS", value)
    assert [expected] * 2 == synchronous_of(load_db())


def test_connections_opened_after_a_close_have_it_too(tmp_path):
    with SQLiteDB(tmp_path / "x.db", synchronous="normal") as db:
        db.create_session("s1")
        db._database.close()
        assert [NORMAL, NORMAL] == synchronous_of(db)


@pytest.mark.parametrize("wrong", ["off", "extra", "2", "full "])
def test_other_words_are_refused(tmp_path, monkeypatch, wrong):
    with pytest.raises(
        ConfigurationError, match=f"synchronous is 'full' or 'normal', not '{wrong}'"
    ):
        SQLiteDB(tmp_path / "x.db", synchronous=wrong)
    monkeypatch.setenv("SQLITE_SYNCHRONOUS", wrong)
    with pytest.raises(ConfigurationError, match=f"SQLITE_SYNCHRONOUS is .*, not '{wrong}'"):
        load_db()


def test_other_types_are_refused():
    with pytest.raises(ConfigurationError, match="synchronous is 'full' or 'normal', not None"):
        SQLiteDB(synchronous=None)
