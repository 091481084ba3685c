"""``director-db import``: the tables of the frameworks' own stores, made by the frameworks."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import os
import pickle
import re
import sqlite3
import subprocess
import sys
import time
import tracemalloc
import warnings
from contextlib import closing
from operator import methodcaller
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
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, ToolMessage
from llama_index.core.base.llms.types import ImageBlock, TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.llms import ChatMessage as IndexMessage
from llama_index.core.storage.chat_store.base_db import MessageStatus
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from director_db import BackendUnavailableError, load_db
from director_db.cli import main
from director_db_integrations.google_adk import DirectorSessionService
from director_db_integrations.langchain import DirectorChatMessageHistory
from director_db_integrations.llama_index import DirectorMemoryStore
from director_db_integrations.moving_in import importing
from director_db_integrations.moving_in.old_tables import old_tables
from director_db_integrations.openai_agents import DirectorSession

pytestmark = pytest.mark.sampled

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # It says that it is not maintained.
    from langchain_community.chat_message_histories import SQLChatMessageHistory

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


class OpenAIAgents:
    """A framework's own store whose messages have a row each, and ours.

    Attributes:
        source: its name.
        table: the table of the messages.
        column: that of their texts.
        messages: some, in their variety.
        wrong: texts that are none of its messages, and how it is said.
    """

    source = "openai-agents"
    table, column = "agent_messages", "message_data"
    messages = ITEMS
    wrong = (
        ('{"role": "user", "content": NaN}', "content.content: nan has no form in JSON"),
        ("[1]", "message_data: a dict, as the SDK's items are, not list"),
    )

    said = staticmethod(said)
    got = staticmethod(got)

    def named(self, message):
        """Return the id that the framework has given a message."""
        return message.get("id", "")

    def made(self, old, name, *messages):
        """Store messages as the framework does, and return what it reads."""
        return asyncio.run(alchemy_session(old, name, *messages))

    def add(self, name, *messages):
        """Store messages in director-db."""
        asyncio.run(DirectorSession(name).add_items([*messages]))


class LangChain:
    """The same of LangChain."""

    source = "langchain"
    table = "message_store"
    column = "message"
    messages = (
        HumanMessage(["Grüße \ud83d \x00", {"type": "image_url", "image_url": {"url": "data:"}}]),
        AIMessage(
            [
                {"type": "thinking", "thinking": "…", "signature": "é=="},
                {"type": "text", "text": ""},
            ],
            id="run-1",
            tool_calls=[{"name": "f", "args": {"b": 1, "a": 2.0}, "id": "c", "type": "tool_call"}],
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
            additional_kwargs={"z": [1, 1.0, -0.0, 1e16, None, True], "a": {}},
        ),
        ToolMessage("2", tool_call_id="c", status="error", artifact={"rows": [1]}),
        ChatMessage("no", role="critic", id="msg_1"),
        ChatMessage("no", role="critic", id="msg_1"),
    )
    wrong = (
        (
            '{"type": "human", "data": {"content": [{"a": NaN}], "type": "human"}}',
            "content.data.content[0].a: nan has no form in JSON",
        ),
        (
            '{"type": "robot", "data": {}}',
            "message: LangChain cannot read it: ValueError('Got unexpected message type: robot')",
        ),
        ('{"type": "human"}', "message: LangChain cannot read it: KeyError('data')"),
        ("[1]", "message: LangChain cannot read it: TypeError("),
        ('{"type": "ai", "data": {"content": 1}}', "message: LangChain cannot read it: 2 valid"),
    )

    said = HumanMessage

    def named(self, message):
        return message.id or ""

    def made(self, old, name, *messages):
        engine = create_engine(old.alchemy.replace("+aiosqlite", ""))
        history = SQLChatMessageHistory(name, connection=engine)
        history.add_messages(messages)
        found = history.messages
        engine.dispose()
        return found

    def add(self, name, *messages):
        DirectorChatMessageHistory(name).add_messages(messages)

    def got(self, name):
        return DirectorChatMessageHistory(name).messages


class LlamaIndex:
    """The same of LlamaIndex."""

    source = "llama-index"
    table = "llama_index_memory"
    column = "data"
    messages = (
        IndexMessage("Grüße \ud83d \x00", role="system"),
        IndexMessage(role="user", blocks=[ImageBlock(image=b"\x89PNG\r\n\x1a\n00")]),
        IndexMessage(
            role="assistant",
            blocks=[
                ThinkingBlock(content="…", additional_information={"signature": "é=="}),
                TextBlock(text="x"),
                ToolCallBlock(tool_call_id="c", tool_name="f", tool_kwargs={"b": 1, "a": 2.0}),
            ],
            additional_kwargs={"z": [1, 1.0, -0.0, 1e16, None, True], "a": {}},
        ),
        IndexMessage("2", role="tool", additional_kwargs={"tool_call_id": "c"}),
        IndexMessage("2", role="tool", additional_kwargs={"tool_call_id": "c"}),
    )
    wrong = (
        (
            '{"role": "user", "additional_kwargs": {"a": NaN}, "blocks": []}',
            "content.additional_kwargs.a: nan has no form in JSON",
        ),
        ('{"role": "robot", "blocks": []}', "data: LlamaIndex cannot read it: 1 validation error"),
        # What such a column of SQLite makes a number of.
        ("5", "data: a text of JSON, not int"),
        ("[1]", "data: LlamaIndex cannot read it: 1 validation error for ChatMessage Input should"),
        # It looks for the file.
        (
            f'{{"role": "user", "blocks": [{{"block_type": "image", "path": "{"x" * 300}"}}]}}',
            "data: LlamaIndex cannot read it: OSError(36, 'File name too long')",
        ),
    )

    said = IndexMessage

    def named(self, _message):
        return ""

    def made(self, old, name, *messages):
        async def add(store):
            if messages:
                await store.add_messages(name, messages)

        return asyncio.run(chat_store(old, add, name))

    def add(self, name, *messages):
        asyncio.run(DirectorMemoryStore().add_messages(name, messages))

    def got(self, name):
        return asyncio.run(DirectorMemoryStore().get_messages(name))


async def chat_store(old, call, key, status=MessageStatus.ACTIVE):
    engine = create_async_engine(old.alchemy)
    store = SQLAlchemyChatStore(LlamaIndex.table, async_engine=engine)
    await call(store)
    found = await store.get_messages(key, status)
    await engine.dispose()
    return found


KINDS = {kind.source: kind() for kind in (OpenAIAgents, LangChain, LlamaIndex)}


@pytest.fixture(params=KINDS)
def kind(request):
    """A framework whose messages have a row each."""
    return KINDS[request.param]


# Where processes are started: not all with all.
in_processes = pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("openai-agents", "sqlite"),
        ("openai-agents", "postgres"),
        ("langchain", "postgres"),
        ("llama-index", "sqlite"),
    ],
    indirect=True,
)


def rows(db, name):
    """What a session has from outside, but for the ids and the times."""
    own = {"session_id", "msg_id", "created_at", "updated_at"}
    return [
        {key: value for key, value in row.items() if key not in own}
        for row in db.get_conversations(name)
    ]


def test_messages_are_read_as_they_were(kind, old, db, run):
    first = kind.made(old, "s1", *kind.messages)
    second = kind.made(old, "s/2 ü", kind.said("other"))
    kind.made(old, "s1", kind.said("later"))
    number = len(kind.messages) + 2
    assert (0, counts(2, number, number), []) == run(kind.source, old)
    expected = [*first, kind.said("later")]
    assert expected == kind.got("s1")
    # The keys of dicts and the types of numbers too.
    assert repr(expected) == repr(kind.got("s1"))
    assert second == kind.got("s/2 ü")
    # From outside they are what the integration would have stored.
    assert {"framework": kind.source} == db.get_session("s1")["metadata"]
    names = [row["msg_id"].rpartition(":")[0] for row in db.get_conversations("s1")]
    assert [kind.named(message) for message in expected] == names
    kind.add("stored here", *expected)
    assert rows(db, "stored here") == rows(db, "s1")
    # And the application goes on.
    kind.add("s1", kind.said("on"))
    assert [*expected, kind.said("on")] == kind.got("s1")


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


def test_again_it_stores_what_is_new_and_leaves_what_is_there(kind, old, db, run):
    first = kind.made(old, "s1", *kind.messages)
    number = len(first)
    assert (0, counts(1, number, number), []) == run(kind.source, old)
    changed = {"status": "written since", "revision": None}
    db.add_or_update_msgs_to_conv("s1", [db.get_conversations("s1")[0] | changed])
    db.update_session("s1", metadata={"mine": 1}, updated_at=5)
    kind.add("s1", kind.said("new here"))
    stored = db.get_session("s1"), db.get_conversations("s1")
    assert "written since" == stored[1][0]["status"]
    assert (0, counts(1, number, 0, number), []) == run(kind.source, old)
    assert stored == (db.get_session("s1"), db.get_conversations("s1"))
    kind.made(old, "s1", kind.said("new there"))
    assert (0, counts(1, number + 1, 1, number), []) == run(kind.source, old)
    assert stored[1] == db.get_conversations("s1")[:-1]
    assert [*first, kind.said("new here"), kind.said("new there")] == kind.got("s1")


def test_sessions_of_one_id_from_two_databases_lose_nothing(kind, tmp_path, db, run):
    for name in ("a", "b"):
        old = in_file(tmp_path / f"{name}.db")
        kind.made(old, "s1", kind.said(name))
        assert (0, counts(1, 1, 1), []) == run(kind.source, old)
    assert [kind.said("a"), kind.said("b")] == kind.got("s1")


@pytest.fixture
def long(kind, old_file):
    """Two sessions of 2,500 messages."""
    messages = [kind.said(f"{number}") for number in range(2500)]
    for name in ("s1", "s2"):
        kind.made(old_file, name, *messages)
    return messages


@in_processes
def test_killed_in_the_middle_it_goes_on(kind, old_file, long, settings, db, run):
    killed = subprocess.run(
        [sys.executable, PROGRAMS / "killed_import.py", "--from", kind.source, old_file.url],
        env=os.environ | settings,
        check=False,
    )
    assert -9 == killed.returncode
    assert long[:1500] == kind.got("s1")
    assert (0, counts(2, 5000, 3500, 1500), []) == run(kind.source, old_file)
    assert long == kind.got("s1") == kind.got("s2")


@in_processes
def test_two_at_once_store_each_message_once(kind, old_file, long, settings, db):
    both = [
        subprocess.Popen(
            [COMMAND, "import", "--from", kind.source, old_file.url],
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
    assert long == kind.got("s1") == kind.got("s2")


def test_what_cannot_be_imported_is_named_and_the_rest_is(kind, old_file, db, run):
    wrong = [
        ("not JSON", f"{kind.column}: not JSON (Expecting value"),
        (b"\xff\xfe", f"{kind.column}: not UTF-8"),
        ("[" * 100_000, f"{kind.column}: not JSON ("),
        *kind.wrong,
    ]
    right = [kind.said("first"), kind.said("last"), kind.said("of all")]
    kind.made(old_file, "s1", right[0], *[kind.said("")] * len(wrong), *right[1:])
    kind.made(old_file, "x" * 256, kind.said("nowhere"))
    for number, (text, _) in enumerate(wrong, 2):
        old_file.execute(f"UPDATE {kind.table} SET {kind.column} = ? WHERE id = {number}", text)
    status, found, lines = run(kind.source, old_file)
    # The session whose id is none, and its message.
    refused = len(wrong) + 2
    assert (1, counts(2, refused + 2, 3, 0, refused)) == (status, found)
    assert refused == len(lines)
    assert right == kind.got("s1")
    for number, (_, reason) in enumerate(wrong, 2):
        place = f"Refused: {kind.table} id={number} of session 's1': "
        assert 1 == sum(line.startswith(f"{place}{reason}") for line in lines), place
    assert 2 == sum("xxx" in line and "session_id: " in line for line in lines)
    # Once more, it is for the same reasons.
    assert (1, counts(2, refused + 2, 0, 3, refused), sorted(lines)) == (
        *(again := run(kind.source, old_file))[:2],
        sorted(again[2]),
    )
    # The same with nothing written.
    dry = run(kind.source, old_file, "--dry-run", "--db", "sqlite:///none.db")
    assert (1, sorted(lines)) == (dry[0], sorted(dry[2]))
    del found["already there"]
    found["that can be stored"] = found.pop("stored")
    assert found == dry[1]
    assert not Path("none.db").exists()


@pytest.mark.parametrize("at_once", [500, 2])
def test_what_is_mended_later_is_named_and_not_put_behind_the_rest(
    kind, old_file, db, run, monkeypatch, at_once
):
    """Nobody would see that a conversation has another order."""
    monkeypatch.setattr(importing, "_MESSAGES", at_once)
    said = [kind.said(name) for name in "abcdefghi"]
    kind.made(old_file, "s1", *said)
    update = f"UPDATE {kind.table} SET {kind.column} = ? WHERE id = ?"
    text = f"SELECT {kind.column} FROM {kind.table} WHERE id = ?"
    mended = {}
    # A gap of more than two batches, and the end; one that stays as it is.
    for number in (2, 3, 4, 5, 6, 8, 9):
        ((mended[number],),) = old_file.execute(text, number)
        old_file.execute(update, "not JSON", number)
    assert (1, counts(1, 9, 2, 0, 7)) == run(kind.source, old_file)[:2]
    wrong = mended.pop(3)
    for number, data in mended.items():
        old_file.execute(update, data, number)
    status, found, lines = run(kind.source, old_file)
    assert (1, counts(1, 9, 2, 2, 5)) == (status, found)
    at = f"Refused: {kind.table} id={{}} of session 's1': "
    assert [at.format(3) + f"{kind.column}: not JSON"] == [
        line[: len(at) - 1 + len(f"{kind.column}: not JSON")] for line in lines if "id=3 " in line
    ]
    late = [line for line in lines if "messages that come after it are there" in line]
    assert [at.format(number) for number in (2, 4, 5, 6)] == [line[: len(at) - 1] for line in late]
    assert [said[0], said[6], *said[7:]] == kind.got("s1")
    old_file.execute(update, wrong, 3)
    assert db.delete_session("s1").success
    assert (0, counts(1, 9, 9), []) == run(kind.source, old_file)
    assert said == kind.got("s1")


def test_a_full_temporary_folder_is_named(old_file, db, run, monkeypatch):
    class Full(io.BytesIO):
        def __init__(self, _size):
            super().__init__()

        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    db.create_session("s1")
    sqlite_session(old_file, "s1", *ITEMS)
    with monkeypatch.context() as full:
        full.setattr(importing, "SpooledTemporaryFile", Full)
        status, _, lines = run("openai-agents", old_file)
    assert 2 == status
    assert "kept in the temporary folder: No space left" in " ".join(lines)
    assert 0 == run("openai-agents", old_file)[0]
    assert len(ITEMS) == len(db.get_conversations("s1"))


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
def test_the_old_file_is_untouched(kind, tmp_path, db, run):
    folder = tmp_path / "old"
    folder.mkdir()
    old = in_file(folder / "old.db")
    kind.made(old, "s1", *kind.messages)
    old.execute("PRAGMA journal_mode = WAL")
    number = len(kind.messages)
    # What its application has not yet brought into the file is read as well, and left there.
    with closing(sqlite3.connect(folder / "old.db")) as alive:
        alive.execute(f"DELETE FROM {kind.table} WHERE id = {number}")
        alive.commit()
        before = digest(folder)
        assert {"old.db", "old.db-wal"} == before.keys()
        assert (0, counts(1, number - 1, number - 1), []) == run(kind.source, old)
        assert before == digest(folder)
    with (
        old_tables(old.url, {}) as tables,
        pytest.raises(BackendUnavailableError, match="readonly"),
    ):
        [*tables.rows(f"DELETE FROM {kind.table} RETURNING id")]


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_the_old_tables_of_a_server_are_untouched(kind, old_postgres, db, run):
    kind.made(old_postgres, "s1", *kind.messages)
    asking = f"SELECT xmin::text, m::text FROM {kind.table} m ORDER BY id"
    before = old_postgres.execute(asking)
    assert len(kind.messages) == len(before)
    assert 0 == run(kind.source, old_postgres)[0]
    assert before == old_postgres.execute(asking)
    with (
        pytest.raises(BackendUnavailableError, match="read-only transaction"),
        old_tables(old_postgres.url, {}) as tables,
    ):
        tables._connection.execute(f"DELETE FROM {kind.table}")


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_the_old_tables_may_be_in_the_same_file(kind, tmp_path, db, run):
    old = in_file(tmp_path / "director.db")
    first = kind.made(old, "s1", *[kind.said(f"{number}") for number in range(500)])
    assert (0, counts(1, 500, 500), []) == run(kind.source, old)
    assert first == kind.got("s1") == kind.made(old, "s1")


def test_tables_may_have_other_names(kind, old, db, run):
    kind.made(old, "s1", *kind.messages)
    old.execute(f'ALTER TABLE {kind.table} RENAME TO "my ""items"""')
    number, stored = len(kind.messages), 0
    for name in ('my "items"', f'{"main" if old.dsn is None else "public"}.my "items"'):
        names = ("--table", f"{kind.table}={name}")
        there = stored
        stored = number
        assert (0, counts(1, number, number - there, there), []) == run(kind.source, old, *names)
    assert number == len(kind.got("s1"))


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_what_is_wrong_is_said_and_nothing_is_written(old_file, old_postgres, tmp_path, db, run):
    sqlite_session(old_file, "s1", *ITEMS)
    (tmp_path / "text.db").write_text("no database " * 100)
    url = "openai-agents", old_file.url
    cases = [
        (("other", old_file.url), "There is no source other; there are .*openai-agents"),
        (("google-adk", old_file.url), "has no table sessions. It has: agent_messages, agent_ses"),
        (("google-adk", old_postgres.url), "has no table sessions. It has: none"),
        (("langchain", old_file.url), "has no table message_store. .* --table message_store=NAME"),
        (("llama-index", old_file.url), "has no table llama_index_memory. It has: agent_messages"),
        (
            ("llama-index", old_file.url, "--table", "llama_index_memory=agent_messages"),
            "agent_messages .* has no column key, timestamp, status, data",
        ),
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


def test_messages_of_llama_index_keep_their_status_and_times(old, db, run):
    async def moved():
        store = DirectorMemoryStore()
        return [await store.get_messages("k1", status) for status in (*MessageStatus, None)]

    def archived(number, status=None):
        archive = methodcaller("archive_oldest_messages", "k1", number)
        return asyncio.run(chat_store(old, archive, "k1", status))

    kind = KINDS["llama-index"]
    kind.made(old, "k1", *[kind.said(f"{number}") for number in range(4)])
    kind.made(old, "k2", kind.said("of another status"))
    archived(2)
    # Not the order of the ids, but that of the times; they are in nanoseconds.
    later = "(9 - id) * CAST(1500000000 AS bigint)"
    old.execute(f"UPDATE {kind.table} SET timestamp = 1735787041000000000 + {later}")
    expected = [archived(0, status) for status in (*MessageStatus, None)]
    assert [2, 2, 4] == [len(messages) for messages in expected]
    old.execute(f"UPDATE {kind.table} SET status = 'robot' WHERE key = 'k2'")
    status, found, (line,) = run("llama-index", old)
    assert (1, counts(2, 5, 4, 0, 1)) == (status, found)
    assert (
        "Refused: llama_index_memory id=5 of session 'k2': status: LlamaIndex cannot read it: "
        "ValueError(\"'robot' is not a valid MessageStatus\")"
    ) == line
    assert expected == asyncio.run(moved())
    times = [1735787041 + each for each in (7, 9, 10, 12)]
    stored = db.get_conversations("k1")
    assert times == [row["created_at"] for row in stored] == [row["updated_at"] for row in stored]
    session = db.get_session("k1")
    assert [times[0], times[-1]] == [session["created_at"], session["updated_at"]]
    # What it has archived since is left as it is here.
    archived(1)
    assert counts(2, 5, 0, 4, 1) == run("llama-index", old)[1]
    assert expected == asyncio.run(moved())


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
    async def go_on(service, number):
        session = await service.get_session(**key("s1"))
        delta = {"own": "new", "app:n": "new", "user:m": 1}
        await service.append_event(session, said_to_adk(number, **delta))
        return await told(service, "s1")

    async def later():
        async with DatabaseSessionService(old.alchemy) as service:
            await go_on(service, 5)

    made_in_adk(old, s1=3)
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


def made_in_adk(old, **events):
    """Make sessions with so many events each."""

    async def make():
        async with DatabaseSessionService(old.alchemy) as service:
            for name, count in events.items():
                await make_adk(service, name, count)

    asyncio.run(make())


def test_rows_of_adk_that_cannot_be_imported_are_named(old_file, db, run):
    made_in_adk(old_file, s1=4, s2=1)
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


def test_odd_rows_of_adk_do_not_stop_the_rest(old_file, db, run):
    made_in_adk(old_file, s1=1, s2=1)
    odd = '{"author": "a", "content": "hi"}'
    old_file.execute("UPDATE events SET event_data = ? WHERE session_id = 's1'", odd)
    old_file.execute("UPDATE sessions SET update_time = 10000000000000 WHERE id = 's1'")
    old_file.execute(
        "INSERT INTO user_states (app_name, user_id, state, update_time)"
        " SELECT app_name, CAST(x'ff' AS TEXT), state, update_time FROM user_states"
    )
    status, _, lines = run("google-adk", old_file)
    assert 1 == status
    assert ["event_data.content: a dict, or null", "session_id: a str, not NoneType"] == sorted(
        line.removesuffix(".").split(": ", 2)[2] for line in lines
    )
    assert asyncio.run(DirectorSessionService().get_session(**key("s1"))).events == []
    assert 1 == len(asyncio.run(DirectorSessionService().get_session(**key("s2"))).events)


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
