"""``director-db import``: the tables of the frameworks' own stores, made by the frameworks."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pickle
import re
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import psycopg
import pytest
from agents.extensions.memory import SQLAlchemySession
from agents.memory import SQLiteSession
from google.adk.events import Event, EventActions
from google.adk.sessions import DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.schemas import v0
from google.genai import types
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import create_async_engine

from director_db import BackendUnavailableError, load_db
from director_db.cli import main
from director_db_integrations.google_adk import DirectorSessionService
from director_db_integrations.moving_in.old_tables import old_tables
from director_db_integrations.openai_agents import DirectorSession

PROGRAMS = Path(__file__).parent / "programs"
COMMAND = Path(sys.executable).with_name("director-db")

ITEMS = [
    {"role": "user", "content": "Grüße \ud83d \x00 \U0001f600"},
    {"id": "rs_1", "summary": [], "type": "reasoning", "encrypted_content": "gAAAAAB\u2028é=="},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"b":1,"a":2.0}'},
    {"call_id": "c1", "output": [1, 1.0, -0.0, 1e16, None, True], "type": "function_call_output"},
    {"id": "msg_1", "role": "assistant", "content": [{"text": "hi"}], "type": "message"},
    {"id": "msg_1", "role": "assistant", "content": [{"text": "hi"}], "type": "message"},
]


class Old(NamedTuple):
    """A database for old tables."""

    url: str
    alchemy: str
    dsn: str | None

    def execute(self, statement, *parameters):
        """Change it behind the framework's back, or look at it."""
        if self.dsn is None:
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection:
                rows = connection.execute(statement, parameters).fetchall()
                connection.commit()
                return rows
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.execute(statement.replace("?", "%s"), parameters)
            return cursor.fetchall() if cursor.description else []


def in_file(path):
    return Old(f"sqlite:///{path}", f"sqlite+aiosqlite:///{path}", None)


@pytest.fixture
def old_file(tmp_path):
    return in_file(tmp_path / "old.db")


@pytest.fixture
def old_postgres(postgres_database):
    """The same database as the other that a test may have: the tables stand beside ours there."""
    parts = conninfo_to_dict(postgres_database.dsn)
    user, secret = (quote(parts.get(name) or "", "") for name in ("user", "password"))
    rest = f"://{user}:{secret}@{parts['host']}:{parts['port']}/{parts['dbname']}"
    return Old(f"postgresql{rest}", f"postgresql+psycopg{rest}", postgres_database.dsn)


@pytest.fixture(params=["sqlite", "postgres"])
def old(request):
    return request.getfixturevalue("old_file" if request.param == "sqlite" else "old_postgres")


@pytest.fixture
def run(capsys):
    """Import in this process; give the exit status, the counts by their names, and the lines."""

    def run(source, old, *options):
        status = main(
            ["import", "--from", source, old if isinstance(old, str) else old.url, *options]
        )
        shown = capsys.readouterr()
        rows = [line.split("│")[1:3] for line in shown.out.splitlines() if "│" in line]
        counts = {name.strip(): int(count.replace(",", "")) for name, count in rows}
        lines = [line for line in shown.out.splitlines() if line.startswith("Refused: ")]
        return status, counts, lines + shown.err.splitlines()

    return run


def counts(sessions, messages, stored, there=0, refused=0):
    return {
        "sessions": sessions,
        "messages read": messages,
        "stored": stored,
        "already there": there,
        "rows refused": refused,
    }


def said(text):
    return {"role": "user", "content": text}


async def alchemy_session(old, name, *items):
    engine = create_async_engine(old.alchemy)
    session = SQLAlchemySession(name, engine=engine, create_tables=True)
    await session.add_items([*items])
    found = await session.get_items()
    await engine.dispose()
    return found


def sqlite_session(old, name, *items):
    session = SQLiteSession(name, old.url.removeprefix("sqlite:///"))
    asyncio.run(session.add_items([*items]))
    found = asyncio.run(session.get_items())
    session.close()
    return found


def got(name, db=None):
    return asyncio.run(DirectorSession(name, db).get_items())


def test_items_of_sqlalchemy_sessions_are_read_as_they_were(old, db, run):
    first = asyncio.run(alchemy_session(old, "s1", *ITEMS))
    second = asyncio.run(alchemy_session(old, "s/2 ü", said("other")))
    asyncio.run(alchemy_session(old, "s1", said("later")))
    assert (0, counts(2, 8, 8), []) == run("openai-agents", old)
    assert json.dumps([*first, said("later")]) == json.dumps(got("s1"))
    assert second == got("s/2 ü")
    assert {"framework": "openai-agents"} == db.get_session("s1")["metadata"]
    names = [row["msg_id"].rpartition(":")[0] for row in db.get_conversations("s1")]
    assert ["", "rs_1", "", "", "msg_1", "msg_1", ""] == names
    # And the application goes on.
    asyncio.run(DirectorSession("s1").add_items([said("on")]))
    assert [*first, said("later"), said("on")] == got("s1")


def test_items_of_sqlite_sessions_are_read_as_they_were(old_file, db, run):
    first = sqlite_session(old_file, "s1", *ITEMS)
    sqlite_session(old_file, "s2", said("gone"))
    old_file.execute("DELETE FROM agent_messages WHERE session_id = 's2'")
    sqlite_session(old_file, "orphan", said("no row of its session"))
    old_file.execute("DELETE FROM agent_sessions WHERE session_id = 'orphan'")
    assert (0, counts(3, 7, 7), []) == run("openai-agents", old_file)
    assert json.dumps(first) == json.dumps(got("s1"))
    assert [] == got("s2")
    assert db.get_session("s2")
    assert [said("no row of its session")] == got("orphan")


def test_items_come_in_the_order_of_the_class_that_has_stored_them(tmp_path, db, run):
    made_by = {
        "by_id": lambda old, *items: sqlite_session(old, "by_id", *items),
        "by_time": lambda old, *items: asyncio.run(alchemy_session(old, "by_time", *items)),
    }
    for name, make in made_by.items():
        old = in_file(tmp_path / f"{name}.db")
        make(old, said("0"), said("1"), said("2"))
        old.execute("UPDATE agent_messages SET created_at = '2025-01-0' || (9 - id)")
        expected = make(old)
        assert (0, counts(1, 3, 3), []) == run("openai-agents", old)
        assert expected == got(name)
    assert got("by_id") == got("by_time")[::-1]


def test_times_are_kept(old_file, db, run):
    sqlite_session(old_file, "s1", said("a"), said("b"))
    old_file.execute("UPDATE agent_messages SET created_at = '2025-01-02 03:04:0' || id")
    old_file.execute(
        "UPDATE agent_sessions SET created_at = '2024-12-31', updated_at = '2025-02-01'"
    )
    sqlite_session(old_file, "odd", said("a"))
    old_file.execute("UPDATE agent_messages SET created_at = 'long ago' WHERE session_id = 'odd'")
    before = int(time.time())
    assert 0 == run("openai-agents", old_file)[0]
    times = [(row["created_at"], row["updated_at"]) for row in db.get_conversations("s1")]
    assert [(1735787041, 1735787041), (1735787042, 1735787042)] == times
    session = db.get_session("s1")
    assert (1735603200, 1738368000) == (session["created_at"], session["updated_at"])
    assert before <= db.get_conversations("odd")[0]["created_at"]


def test_times_of_a_server_elsewhere_are_kept(old_postgres, settings, db, run):
    (name,) = old_postgres.execute("SELECT current_database()")[0]
    old_postgres.execute(f"ALTER DATABASE {name} SET timezone TO 'Asia/Tokyo'")
    before = int(time.time())
    asyncio.run(alchemy_session(old_postgres, "s1", said("a")))
    after = int(time.time())
    assert 0 == run("openai-agents", old_postgres)[0]
    assert before <= db.get_conversations("s1")[0]["created_at"] <= after
    assert before <= db.get_session("s1")["created_at"] <= after


def test_again_it_stores_what_is_new_and_leaves_what_is_there(old, db, run):
    asyncio.run(alchemy_session(old, "s1", *ITEMS))
    assert (0, counts(1, 6, 6), []) == run("openai-agents", old)
    first = db.get_conversations("s1")[0]
    db.add_or_update_msgs_to_conv("s1", [first | {"content": "written since"}])
    db.update_session("s1", metadata={"mine": 1}, updated_at=5)
    asyncio.run(DirectorSession("s1").add_items([said("new here")]))
    stored = db.get_session("s1"), db.get_conversations("s1")
    assert (0, counts(1, 6, 0, 6), []) == run("openai-agents", old)
    assert stored == (db.get_session("s1"), db.get_conversations("s1"))
    asyncio.run(alchemy_session(old, "s1", said("new there")))
    assert (0, counts(1, 7, 1, 6), []) == run("openai-agents", old)
    assert [*stored[1], said("new there")] == [
        *db.get_conversations("s1")[:-1],
        db.get_conversations("s1")[-1]["content"],
    ]


def test_sessions_of_one_id_from_two_databases_lose_nothing(tmp_path, db, run):
    for name in ("a", "b"):
        old = in_file(tmp_path / f"{name}.db")
        sqlite_session(old, "s1", said(name))
        assert (0, counts(1, 1, 1), []) == run("openai-agents", old)
    assert [said("a"), said("b")] == got("s1")


@pytest.fixture
def long(old_file):
    """Two sessions of 2,500 items."""
    items = [said(f"{number}") for number in range(2500)]
    for name in ("s1", "s2"):
        sqlite_session(old_file, name, *items)
    return items


def test_killed_in_the_middle_it_goes_on(old_file, long, settings, db, run):
    killed = subprocess.run(
        [sys.executable, PROGRAMS / "killed_import.py", "--from", "openai-agents", old_file.url],
        env=os.environ | settings,
        check=False,
    )
    assert -9 == killed.returncode
    assert long[:1500] == got("s1")
    assert (0, counts(2, 5000, 3500, 1500), []) == run("openai-agents", old_file)
    assert long == got("s1") == got("s2")


def test_two_at_once_store_each_message_once(old_file, long, settings, db):
    both = [
        subprocess.Popen(
            [COMMAND, "import", "--from", "openai-agents", old_file.url],
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    shown = [process.communicate()[0] for process in both]
    assert [0, 0] == [process.returncode for process in both]
    stored = [
        int(line.split("│")[2].replace(",", ""))
        for text in shown
        for line in text.splitlines()
        if "stored" in line
    ]
    assert 5000 == sum(stored)
    assert long == got("s1") == got("s2")


def test_what_cannot_be_imported_is_named_and_the_rest_is(old_file, db, run):
    sqlite_session(old_file, "s1", *[said(f"{number}") for number in range(8)])
    sqlite_session(old_file, "x" * 256, said("nowhere"))
    for number, data in enumerate(
        ["not JSON", '{"role": "user", "content": NaN}', "[1]", b"\xff\xfe", "[" * 100_000], 2
    ):
        old_file.execute(f"UPDATE agent_messages SET message_data = ? WHERE id = {number}", data)
    status, found, lines = run("openai-agents", old_file)
    assert (1, counts(2, 9, 3, 0, 7)) == (status, found)
    assert [said("0"), said("6"), said("7")] == got("s1")
    parts = [line.partition(" of session 's1': ") for line in lines if "'s1'" in line]
    named = {place: reason for place, _, reason in parts}
    reasons = [named[f"Refused: agent_messages id={number}"] for number in range(2, 7)]
    assert reasons[0].startswith("message_data: not JSON (Expecting value")
    assert reasons[1].startswith("content.content: ")
    assert reasons[2] == "message_data: a dict, as the SDK's items are, not list"
    assert reasons[3] == "message_data: not UTF-8"
    assert reasons[4].startswith("message_data: not JSON (")
    # The session, and its message.
    assert 2 == sum("xxx" in line and "session_id: " in line for line in lines)
    # The same with nothing written.
    dry = run("openai-agents", old_file, "--dry-run", "--db", "sqlite:///none.db")
    assert (1, lines) == (dry[0], dry[2])
    assert {"sessions": 2, "messages read": 9, "that can be stored": 3, "rows refused": 7} == dry[1]
    assert not Path("none.db").exists()


def test_a_dry_run_writes_nothing(old, settings, db, run, tmp_path):
    asyncio.run(alchemy_session(old, "s1", *ITEMS))
    assert 0 == run("openai-agents", old, "--dry-run")[0]
    assert not (tmp_path / "director.db").exists()
    if settings["DB_TYPE"] == "postgres" and old.dsn:
        assert [(None,)] == old.execute("SELECT to_regclass('director_sessions')")


def digest(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.stat().st_size and not path.name.endswith("-shm")
    }


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_the_old_file_is_untouched(tmp_path, db, run):
    folder = tmp_path / "old"
    folder.mkdir()
    old = in_file(folder / "old.db")
    sqlite_session(old, "s1", *ITEMS)
    # What its application has not yet brought into the file is read as well, and left there.
    with closing(sqlite3.connect(folder / "old.db")) as alive:
        alive.execute("INSERT INTO agent_messages (session_id, message_data) VALUES ('s1', '{}')")
        alive.commit()
        before = digest(folder)
        assert {"old.db", "old.db-wal"} == before.keys()
        assert (0, counts(1, 7, 7), []) == run("openai-agents", old)
        assert before == digest(folder)
    with (
        old_tables(old.url, {}) as tables,
        pytest.raises(BackendUnavailableError, match="readonly"),
    ):
        [*tables.rows("DELETE FROM agent_messages RETURNING id")]


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_the_old_tables_of_a_server_are_untouched(old_postgres, db, run):
    asyncio.run(alchemy_session(old_postgres, "s1", *ITEMS))
    asking = "SELECT xmin::text, m.* FROM agent_messages m ORDER BY id"
    before = old_postgres.execute(asking)
    assert 0 == run("openai-agents", old_postgres)[0]
    assert before == old_postgres.execute(asking)
    with (
        pytest.raises(BackendUnavailableError, match="read-only transaction"),
        old_tables(old_postgres.url, {}) as tables,
    ):
        tables._connection.execute("DELETE FROM agent_messages")


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_the_old_tables_may_be_in_the_same_file(tmp_path, db, run):
    old = in_file(tmp_path / "director.db")
    first = sqlite_session(old, "s1", *[said(f"{number}") for number in range(500)])
    old.execute("PRAGMA journal_mode = DELETE")  # To change that, nobody else may be reading.
    assert (0, counts(1, 500, 500), []) == run("openai-agents", old)
    assert first == got("s1") == sqlite_session(old, "s1")


def test_tables_may_have_other_names(old, db, run):
    asyncio.run(alchemy_session(old, "s1", *ITEMS))
    old.execute('ALTER TABLE agent_messages RENAME TO "my ""items"""')
    names = ("--table", 'agent_messages=my "items"')
    assert (0, counts(1, 6, 6), []) == run("openai-agents", old, *names)
    assert 6 == len(got("s1"))


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_what_is_wrong_is_said_and_nothing_is_written(old_file, old_postgres, tmp_path, db, run):
    sqlite_session(old_file, "s1", *ITEMS)
    (tmp_path / "text.db").write_text("no database " * 100)
    url = "openai-agents", old_file.url
    cases = [
        (("other", old_file.url), "There is no source other; there are .*openai-agents"),
        (("google-adk", old_file.url), "has no table sessions. It has: agent_messages, agent_ses"),
        (("google-adk", old_postgres.url), "has no table sessions. It has: none"),
        (
            (*url, "--table", "agent_messages=agent_sessions"),
            "agent_sessions .* has no column id, m",
        ),
        (
            (*url, "--table", "messages=x"),
            "There is no table messages to rename; there are agent_s",
        ),
        ((*url, "--table", "messages"), "'messages' is not NAME=OTHER"),
        (("openai-agents", f"sqlite:///{tmp_path}/none.db"), "There is no file .*none.db"),
        (("openai-agents", f"sqlite:///{tmp_path}/text.db"), "cannot be read: file is not a datab"),
        (("openai-agents", "old.db"), "named by a URL, as sqlite:///old.db"),
        (("openai-agents", "mysql://u:secret-1@h/d"), "they are in SQLite or Postgres"),
        (("openai-agents", "sqlite://host/old.db"), "names a file and nothing else"),
        (("openai-agents", "sqlite:///:memory:"), "names a file and nothing else"),
        (("openai-agents", "postgresql://u:secret-1@h/d?ssl=x"), "sslmode, and not ssl"),
        (
            ("openai-agents", "postgresql://u:secret-1@127.0.0.1:1/d"),
            "tables cannot be read: .*refu",
        ),
    ]
    for arguments, expected in cases:
        status, _, (line,) = run(*arguments)
        assert 2 == status
        assert re.search(expected, line), line
        assert "secret-1" not in line
    assert not (tmp_path / "director.db").exists()


def test_memory_is_bounded(old_file, run):
    sqlite_session(old_file, "s1", said("x" * 50_000))
    old_file.execute(
        "INSERT INTO agent_messages (session_id, message_data) WITH RECURSIVE n(i) AS"
        " (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
        " SELECT 's1', message_data FROM agent_messages, n"
    )
    tracemalloc.start()
    try:
        found = run("openai-agents", old_file, "--dry-run")[1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 2001 == found["that can be stored"]
    assert peak < 60_000_000  # Of more than 100 MB.


def said_to_adk(number, **delta):
    return Event(
        author="user" if number % 2 else "bot",
        invocation_id=f"i{number // 2}",
        content=types.Content(role="user" if number % 2 else "model", parts=[types.Part(text="é")]),
        actions=EventActions(state_delta=delta),
        timestamp=1735787041 + (number // 2) / 7,
    )


async def make_adk(service, name, events):
    state = {"app:a": [1, 1.5], "user:u": {"ü": None}, "own": -1, "temp:t": 1}
    session = await service.create_session(
        app_name="app", user_id="u/1", session_id=name, state=state
    )
    for number in range(events):
        event = said_to_adk(number, own=number, **{"app:n": number, "user:n": number, "temp:x": 1})
        await service.append_event(session, event)


def key(name):
    return {"app_name": "app", "user_id": "u/1", "session_id": name}


async def told(service, *names):
    """All that a session service says of sessions."""
    read = [await service.get_session(**key(name)) for name in names]
    few = GetSessionConfig(num_recent_events=3)
    late = GetSessionConfig(after_timestamp=1735787041.2)
    read += [
        await service.get_session(**key(name), config=config)
        for name in names
        for config in (few, late)
    ]
    listed = await service.list_sessions(app_name="app")
    return (
        [each.model_dump(mode="json") for each in [*read, *listed.sessions]],
        await service.get_user_state(app_name="app", user_id="u/1"),
    )


def test_sessions_of_adk_are_read_as_they_were(old, db, run):
    async def make():
        async with DatabaseSessionService(old.alchemy) as service:
            await make_adk(service, "s1", 9)
            await make_adk(service, "s2", 0)
            return await told(service, "s1", "s2")

    expected = asyncio.run(make())
    # Four keys of states, and nine events.
    assert (0, counts(2, 13, 13), []) == run("google-adk", old)
    assert expected == asyncio.run(told(DirectorSessionService(), "s1", "s2"))
    assert [9, 0, 3, 5, 0, 0, 0, 0] == [len(each["events"]) for each in expected[0]]
    rows = db.get_conversations("google-adk/app/u%2F1/s1")
    assert [1735787041, 1735787041] == [rows[0]["created_at"], rows[0]["updated_at"]]
    assert (0, counts(2, 13, 0, 13), []) == run("google-adk", old)
    assert rows == db.get_conversations("google-adk/app/u%2F1/s1")


def test_a_session_of_adk_goes_on_and_is_left_as_it_is(old, db, run):
    async def make():
        async with DatabaseSessionService(old.alchemy) as service:
            await make_adk(service, "s1", 3)

    async def go_on(service, number):
        session = await service.get_session(**key("s1"))
        delta = {"own": "new", "app:n": "new", "user:m": 1}
        await service.append_event(session, said_to_adk(number, **delta))
        return await told(service, "s1")

    async def later():
        async with DatabaseSessionService(old.alchemy) as service:
            await go_on(service, 5)

    asyncio.run(make())
    assert 0 == run("google-adk", old)[0]
    stored = asyncio.run(go_on(DirectorSessionService(), 4))
    assert ["i0", "i0", "i1", "i2"] == [each["invocation_id"] for each in stored[0][0]["events"]]
    assert (0, counts(1, 7, 0, 7), []) == run("google-adk", old)
    assert stored == asyncio.run(told(DirectorSessionService(), "s1"))
    # What came to the old tables since is no part of the session any more, and said to be none.
    asyncio.run(later())
    status, found, lines = run("google-adk", old)
    # One key of the user's state is new there, and was new here.
    assert (1, counts(1, 9, 0, 8, 1)) == (status, found)
    assert 1 == sum("stored after its session was imported" in line for line in lines)
    assert stored == asyncio.run(told(DirectorSessionService(), "s1"))
    # Another session of the same id is not mixed with it.
    asyncio.run(DirectorSessionService().delete_session(**key("s1")))
    asyncio.run(make_adk(DirectorSessionService(), "s1", 1))
    stored = asyncio.run(told(DirectorSessionService(), "s1"))
    status, found, lines = run("google-adk", old)
    assert (1, counts(1, 9, 0, 5, 5)) == (status, found)
    assert 5 == sum("has another session of this id" in line for line in lines)
    assert stored == asyncio.run(told(DirectorSessionService(), "s1"))


def test_a_session_of_adk_is_there_as_a_whole_or_not(old_file, settings, db, run):
    async def make():
        async with DatabaseSessionService(old_file.alchemy) as service:
            await make_adk(service, "s1", 3)
            return await told(service, "s1")

    expected = asyncio.run(make())
    # Those of the app and the user, the events; before the head it dies.
    killed = subprocess.run(
        [sys.executable, PROGRAMS / "killed_import.py", "--from", "google-adk", old_file.url],
        env=os.environ | settings,
        check=False,
    )
    assert -9 == killed.returncode
    assert asyncio.run(DirectorSessionService().get_session(**key("s1"))) is None
    assert (0, counts(1, 7, 0, 7), []) == run("google-adk", old_file)
    assert expected == asyncio.run(told(DirectorSessionService(), "s1"))


def test_rows_of_adk_that_cannot_be_imported_are_named(old_file, db, run):
    async def make():
        async with DatabaseSessionService(old_file.alchemy) as service:
            await make_adk(service, "s1", 4)
            await make_adk(service, "s2", 1)

    asyncio.run(make())
    first, second, third, fourth = [
        name
        for (name,) in old_file.execute(
            "SELECT id FROM events WHERE session_id = 's1' ORDER BY timestamp, id"
        )
    ]
    for event, data in (
        (first, "no"),
        (second, "{}"),
        (third, '{"author": "a", "timestamp": "x"}'),
    ):
        old_file.execute("UPDATE events SET event_data = ? WHERE id = ?", data, event)
    old_file.execute("UPDATE sessions SET state = '[]' WHERE id = 's2'")
    old_file.execute("UPDATE user_states SET state = 'null'")
    status, found, lines = run("google-adk", old_file)
    assert 1 == status
    assert found["rows refused"] == len(lines) == 6
    session = asyncio.run(DirectorSessionService().get_session(**key("s1")))
    assert [fourth] == [event.id for event in session.events]
    assert asyncio.run(DirectorSessionService().get_session(**key("s2"))) is None
    text = "\n".join(lines)
    for expected in (
        f"events id='{first}' of session app/u/1/s1: event_data: not JSON",
        f"events id='{second}' of session app/u/1/s1: event_data: an event of ADK, with an author",
        f"events id='{third}' of session app/u/1/s1: event_data.timestamp: seconds",
        "session app/u/1/s2: state: a dict, not list",
        "user_states app/u/1: state: a dict, not NoneType",
    ):
        assert expected in text


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_actions_of_the_older_schema_are_never_unpickled(old, db, run, tmp_path):
    async def make():
        engine = create_async_engine(old.alchemy)
        async with engine.begin() as connection:
            await connection.run_sync(v0.Base.metadata.create_all)
        async with DatabaseSessionService(db_engine=engine) as service:
            await make_adk(service, "s1", 2)
            await make_adk(service, "s2", 0)
            found = (await service.get_session(**key("s2"))).model_dump()
        await engine.dispose()
        return found

    expected = asyncio.run(make())
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    old.execute("UPDATE events SET actions = ?", trap)
    status, found, lines = run("google-adk", old)
    assert (1, counts(2, 4, 4, 0, 1)) == (status, found)
    (line,) = lines
    assert line.startswith(
        "Refused: session app/u/1/s1, 2 events: the older schema of ADK has pickled"
    )
    assert "adk migrate session" in line
    assert not (tmp_path / "sprung").exists()
    found = asyncio.run(DirectorSessionService().get_session(**key("s2")))
    assert expected == found.model_dump()
    assert asyncio.run(DirectorSessionService().get_session(**key("s1"))) is None


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_user_sees_the_counts(old_file, settings, tmp_path):
    sqlite_session(old_file, "s1", *ITEMS, {"role": "user", "content": float("nan")})
    shown = subprocess.run(
        [COMMAND, "import", "--from", "openai-agents", old_file.url],
        env=os.environ | settings,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert 1 == shown.returncode
    assert "" == shown.stderr
    assert (
        "Refused: agent_messages id=7 of session 's1': content.content: nan has no form in JSON\n"
        "✗ imported, but for what is refused\n"
        f"{tmp_path / 'director.db'}\n"
        "╭───────────────┬───╮\n"
        "│ sessions      │ 1 │\n"
        "│ messages read │ 7 │\n"
        "│ stored        │ 6 │\n"
        "│ already there │ 0 │\n"
        "│ rows refused  │ 1 │\n"
        "╰───────────────┴───╯\n"
    ) == shown.stdout
    assert 6 == len(load_db(f"sqlite:///{tmp_path / 'director.db'}").get_conversations("s1"))
