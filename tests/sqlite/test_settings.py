"""What a path, a URL and the environment mean for SQLite, and what is told of them."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from director_db import (
    BackendUnavailableError,
    ConfigurationError,
    UnknownDBTypeError,
    close_all,
    load_db,
)
from director_db_sqlite import SQLiteDB


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield
    close_all()


def test_spellings_of_one_path_are_one_instance(tmp_path, monkeypatch):
    monkeypatch.setenv("SQLITE_DB_PATH", "a.db")
    db = load_db()
    for path in ("./a.db", "../work/a.db", f"{tmp_path}/work/a.db", f"{tmp_path}/work//./a.db"):
        monkeypatch.setenv("SQLITE_DB_PATH", path)
        assert db is load_db(), path
        assert db is load_db(f"sqlite:///{path}"), path
    for other in ("b.db", "../a.db"):
        monkeypatch.setenv("SQLITE_DB_PATH", other)
        assert db is not load_db(), other
    monkeypatch.setenv("SQLITE_DB_PATH", "a.db")
    monkeypatch.setenv("SQLITE_SYNCHRONOUS", "normal")
    assert db is not load_db()
    # The attribute is what was given first.
    assert "a.db" == db.db_path


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    home = str(tmp_path / "home" / "x.db")
    monkeypatch.setenv("SQLITE_DB_PATH", "~/x.db")
    db = load_db()
    db.create_session("s")
    assert home == db.place
    assert db is load_db("sqlite:///~/x.db") is load_db(f"sqlite:///{home}")
    with SQLiteDB("~/x.db") as direct:
        assert "s" == direct.get_session("s")["session_id"]
    assert ["x.db"] == [file.name for file in (tmp_path / "home").glob("*db")]
    assert [] == list((tmp_path / "work").iterdir())
    # Another home is another place, at once.
    monkeypatch.setenv("HOME", str(tmp_path))
    assert db is not load_db()


@pytest.mark.parametrize("path", ["file:x.db", "file:x.db?mode=ro", "FILE:///x.db?mode=ro&cache=a"])
def test_a_uri_of_sqlites_own_is_refused(tmp_path, monkeypatch, path):
    plain = path[5:].partition("?")[0]
    monkeypatch.setenv("SQLITE_DB_PATH", path)
    for name, make in (
        ("SQLITE_DB_PATH", load_db),
        ("SQLITE_DB_PATH", SQLiteDB),
        ("db_path", lambda: SQLiteDB(path)),
    ):
        with pytest.raises(ConfigurationError) as refused:
            make()
        assert f"{name} is the path of a file, and not a URI" in str(refused.value)
        assert f"give '{plain}' alone" in str(refused.value)
    assert [] == list((tmp_path / "work").iterdir())
    with SQLiteDB(f"./{path.replace('/', '')}") as db:
        assert [] == db.get_sessions()  # Whoever means it can have it.


def test_a_newline_is_left_out_and_quotes_are_named(monkeypatch):
    monkeypatch.setenv("SQLITE_DB_PATH", "a.db\n")
    monkeypatch.setenv("SQLITE_SYNCHRONOUS", "full\r\n")
    monkeypatch.setenv("DIRECTOR_DB_MIGRATE", "never\n")
    monkeypatch.setenv("DB_TYPE", "sqlite\n")
    assert "a.db" == load_db().db_path
    for name, value in (
        ("SQLITE_DB_PATH", '"/var/lib/x.db"'),
        ("SQLITE_SYNCHRONOUS", "'full'"),
        ("DIRECTOR_DB_MIGRATE", '"auto"'),
        ("DB_TYPE", '"sqlite"'),
        ("DB_TYPE", "'postgresql://user:hunter2@host/db'"),
    ):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            with pytest.raises(ConfigurationError) as refused:
                load_db()
        told = f"{name} is malformed. It is in quotes, which docker --env-file keeps"
        assert str(refused.value).startswith(told)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["sqlite+aiosqlite", "sqlite+pysqlite", "SQLite+anything"])
def test_a_driver_in_the_scheme_is_left_out(tmp_path, monkeypatch, scheme):
    url = f"{scheme}:///{tmp_path}/x.db"
    db = load_db(url)
    assert str(tmp_path / "x.db") == db.place
    monkeypatch.setenv("DB_TYPE", url)
    assert db is load_db() is load_db(f"sqlite:///{tmp_path}/x.db")
    assert ":memory:" == load_db(f"{scheme}://").place
    with pytest.raises(UnknownDBTypeError):
        load_db("sqlighte+aiosqlite:///x.db")


def test_how_long_a_call_waits_for_locks_is_a_setting(monkeypatch):
    monkeypatch.setenv("SQLITE_OPERATION_TIMEOUT", "0.3")
    db = load_db()
    db.create_session("s")
    with contextlib.closing(sqlite3.connect("director.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailableError, match="SQLITE_OPERATION_TIMEOUT") as caught:
            db.create_session("t")
    assert (True, False) == (caught.value.retryable, caught.value.maybe_applied)
    monkeypatch.setenv("SQLITE_OPERATION_TIMEOUT", "0")
    assert db is not load_db()
    load_db().create_session("t")


@pytest.mark.parametrize("wrong", ["-1", "soon", "inf", "1e9", "'5'"])
def test_a_time_that_is_none_is_named(monkeypatch, wrong):
    monkeypatch.setenv("SQLITE_OPERATION_TIMEOUT", wrong)
    with pytest.raises(ConfigurationError, match="SQLITE_OPERATION_TIMEOUT"):
        load_db()


def test_health_tells_where_settings_come_from(tmp_path, monkeypatch):
    others = {"operation_timeout": "default", "migrate": "default"}
    assert {"db_path": "default", "synchronous": "default", **others} == load_db().health().settings
    monkeypatch.setenv("SQLITE_DB_PATH", "a.db")
    monkeypatch.setenv("SQLITE_SYNCHRONOUS", "full")
    expected = {"db_path": "SQLITE_DB_PATH", "synchronous": "SQLITE_SYNCHRONOUS"}
    assert {**expected, **others} == load_db().health().settings
    with SQLiteDB() as db:
        assert str(tmp_path / "work" / "a.db") == db.place
        assert {**expected, **others} == db.health().settings
    assert "the URL" == load_db("sqlite:///b.db").health().settings["db_path"]
    with SQLiteDB("c.db") as db:
        assert {} == db.health().settings


def test_a_database_url_that_nobody_looks_at_is_told(monkeypatch, caplog):
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:hunter2@host/db")
    told = load_db().health().warnings
    (sentence,) = [warning for warning in told if "DATABASE_URL" in warning]
    assert "DATABASE_URL is ignored, as DB_TYPE is not set" in sentence
    assert "set DB_TYPE to it" in sentence
    assert [sentence] == [record.getMessage() for record in caplog.records]
    assert ["director_db.sqlite"] == [record.name for record in caplog.records]
    assert "hunter2" not in sentence
    close_all()
    # Who names the type has chosen.
    for make in (lambda: load_db("sqlite"), lambda: SQLiteDB("x.db")):
        with make() as db:
            assert [] == [text for text in db.health().warnings if "DATABASE_URL" in text]
    close_all()
    monkeypatch.setenv("DB_TYPE", "sqlite")
    assert [] == [text for text in load_db().health().warnings if "DATABASE_URL" in text]
