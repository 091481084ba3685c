"""The password shows nowhere: not in a repr, an error, a traceback or a log."""

from __future__ import annotations

import logging
import pickle
import traceback

import pytest
from psycopg.conninfo import make_conninfo

from director_db import BackendUnavailableError, ConfigurationError, load_db
from director_db_postgres import PostgresDB

SECRET = "hush-hush"  # noqa: S105 - what is looked for


def everything_about(error):
    """What tools show of an error: its text, its causes, and what their parts are."""
    seen = []
    found = error
    while found is not None:
        seen += [str(found), repr(found), repr(vars(found)), repr(found.args)]
        found = found.__cause__ or found.__context__
    seen += traceback.format_exception(error)
    own = traceback.TracebackException.from_exception(error, capture_locals=True)
    seen += [
        value
        for frame in own.stack
        if "director_db" in frame.filename
        for value in (frame.locals or {}).values()
    ]
    return "\n".join(seen)


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.DEBUG)
    yield caplog
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql+psycopg 2://u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}@h/d?ssl=1",
        f"postgresql://u:{SECRET}%zz@h/d",
        f"postgresql://u:{SECRET}@h/d?colour=blue",
        f"host=h password={SECRET} nonsense",
        f"host=h password='{SECRET}",
        SECRET,
        f"postgresql://u:{SECRET}/q@127.0.0.1/db",
        f"postgresql://u:p@{SECRET}@127.0.0.1/db",
        f"postgresql://u:12/{SECRET}@127.0.0.1:1/db",
        f"postgresql://u:{SECRET}@h:99999/db",
        f"postgresql://u:p@h/d?sslmode={SECRET}",
        f"postgresql://u:p@h/d?connect_timeout={SECRET}",
    ],
)
def test_a_malformed_dsn(monkeypatch, dsn):
    monkeypatch.setenv("DB_TYPE", "postgres")
    monkeypatch.setenv("POSTGRES_DSN", dsn)
    with pytest.raises(ConfigurationError) as caught:
        load_db()
    shown = "\n".join([str(caught.value), *traceback.format_exception(caught.value)])
    assert SECRET not in shown
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "settings",
    [
        {"POSTGRES_PASSWORD": SECRET, "POSTGRES_PORT": "x"},
        {"POSTGRES_PASSWORD": SECRET, "POSTGRES_POOL_SIZE": "x"},
        {"POSTGRES_DSN": f"postgresql://u:{SECRET}@h/d?sslmode=x"},
        {"POSTGRES_DSN": f"postgresql://u:{SECRET}@h/d", "POSTGRES_SCHEMA": "x" * 64},
        {
            "POSTGRES_DSN": f"postgresql://u:{SECRET}@h/d",
            "POSTGRES_POOLER": "1",
            "POSTGRES_STATEMENT_TIMEOUT": "1",
        },
        {"POSTGRES_DSN": f"postgresql://u:{SECRET}@h/d?options=x", "POSTGRES_POOLER": "1"},
    ],
)
def test_malformed_settings_beside_a_password(monkeypatch, settings):
    monkeypatch.setenv("DB_TYPE", "postgres")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_db()
    assert SECRET not in everything_about(caught.value)


def test_malformed_arguments_beside_a_password(monkeypatch):
    # The caller's own frame shows what the caller wrote; ours do not.
    for url in (f"postgresql://u:{SECRET}@h:99999/db", f"postgresq://u:{SECRET}@h/db"):
        with pytest.raises(ConfigurationError) as caught:
            load_db(url)
        assert SECRET not in everything_about(caught.value)
    for wrong in ({"pool_size": 0}, {"retry_deadline": "5"}, {"schema": ""}):
        with pytest.raises(ConfigurationError) as caught:
            PostgresDB(f"postgresql://u:{SECRET}@h/d", **wrong)
        assert SECRET not in everything_about(caught.value)


def test_a_tool_that_cuts_what_it_shows():
    with PostgresDB(f"postgresql://u:{SECRET}@h/d") as db:
        assert SECRET not in repr(db._database._pool.conninfo[:80])


def test_a_refused_password(server, new_db, logged):
    db = new_db(server.dsn(password=SECRET))
    with pytest.raises(ConfigurationError) as caught:
        db.get_session("s")
    assert SECRET not in everything_about(caught.value)


@pytest.mark.parametrize("host", ["a..b", f"{'x' * 64}.b"])
def test_a_host_whose_name_cannot_be_looked_up(new_db, logged, host):
    db = new_db(f"postgresql://u:{SECRET}@{host}/d")
    with pytest.raises(ConfigurationError, match="cannot be looked up") as caught:
        db.get_session("s")
    assert SECRET not in everything_about(caught.value)


def test_nobody_there(new_db, logged):
    db = new_db(f"postgresql://u:{SECRET}@127.0.0.1:1,127.0.0.1:2/d", retry_deadline=0.1)
    with pytest.raises(BackendUnavailableError) as caught:
        db.get_session("s")
    assert SECRET not in everything_about(caught.value)
    copied = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert SECRET not in repr(vars(copied))


def test_a_password_that_is_refused_while_the_pool_runs(place, new_db, logged):
    with place.connect() as admin:
        admin.execute(f"CREATE ROLE changing LOGIN PASSWORD '{SECRET}'")
        admin.execute("GRANT ALL ON SCHEMA public TO changing")
        try:
            db = new_db(make_conninfo(place.dsn, user="changing", password=SECRET))
            db.create_session("s")
            admin.execute("ALTER ROLE changing PASSWORD 'other'")
            admin.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE usename = 'changing'"
            )
            with pytest.raises(ConfigurationError, match="refused this user") as caught:
                db.get_session("s")
            assert SECRET not in everything_about(caught.value)
            admin.execute(f"ALTER ROLE changing PASSWORD '{SECRET}'")
            assert db.get_session("s")["session_id"] == "s"
            db.close()
        finally:
            admin.execute("DROP OWNED BY changing")
            admin.execute("DROP ROLE changing")


def test_an_instance():
    db = PostgresDB(f"postgresql://u:{SECRET}@h/d?sslpassword={SECRET}")
    shown = [
        repr(db),
        db.place,
        *map(repr, vars(db).values()),
        *map(repr, vars(db._database).values()),
    ]
    assert not any(SECRET in text for text in shown)
