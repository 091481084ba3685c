"""Carrying the old system's tables over, whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import closing

import pytest

from director_db import (
    BackendUnavailableError,
    ConfigurationError,
    SchemaError,
    load_db,
)
from director_db.records import Migration
from director_db_conformance.clauses.arrange import fields
from director_db_sqlite import SQLiteDB, connections

pytestmark = pytest.mark.sampled

NOTHING = Migration(0, 0, 0, 0, [])

TABLES = """
    CREATE TABLE sessions (session_id TEXT PRIMARY KEY, video_id TEXT, collection_id TEXT,
        created_at INTEGER, updated_at INTEGER, metadata JSON);
    CREATE TABLE conversations (session_id TEXT, conv_id TEXT, msg_id TEXT PRIMARY KEY,
        msg_type TEXT, agents JSON, actions JSON, content JSON, status TEXT, created_at INTEGER,
        updated_at INTEGER, metadata JSON,
        FOREIGN KEY (session_id) REFERENCES sessions(session_id));
    CREATE TABLE context_messages (session_id TEXT PRIMARY KEY, context_data JSON,
        created_at INTEGER, updated_at INTEGER, metadata JSON,
        FOREIGN KEY (session_id) REFERENCES sessions(session_id));
"""


class OldApplication:
    """Writes and reads a file as the old system did."""

    def __init__(self, path):
        self.connection = sqlite3.connect(path)

    def create_tables(self):
        self.connection.executescript(TABLES)

    def session(self, session_id, video_id=None, collection_id=None, times=(1, 2), metadata="{}"):
        self._write(
            "INSERT OR IGNORE INTO sessions VALUES (?, ?, ?, ?, ?, ?)",
            (session_id, video_id, collection_id, *times, metadata),
        )

    def message(self, session_id, msg_id, content='["text"]', times=(3, 4), **fields):
        columns = {
            "conv_id": "c",
            "msg_type": "input",
            "agents": "[]",
            "actions": "[]",
            "status": None,
            "metadata": "{}",
        } | fields
        self._write(
            "INSERT OR REPLACE INTO conversations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                session_id,
                columns["conv_id"],
                msg_id,
                columns["msg_type"],
                columns["agents"],
                columns["actions"],
                content,
                columns["status"],
                *times,
                columns["metadata"],
            ),
        )

    def context(self, session_id, context_data='{"reasoning": []}', times=(5, 6), metadata="{}"):
        self._write(
            "INSERT OR REPLACE INTO context_messages VALUES (?, ?, ?, ?, ?)",
            (session_id, context_data, *times, metadata),
        )

    def _write(self, statement, values):
        self.connection.execute(statement, values)
        self.connection.commit()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "director.db"


@pytest.fixture
def old(path):
    application = OldApplication(path)
    application.create_tables()
    yield application
    application.connection.close()


@pytest.fixture
def busy(old):
    """A file with enough in it to be told from others: 3 sessions, 30 messages, 2 contexts."""
    for number in range(3):
        old.session(f"s{number}", "v", "c", (number, number))
    for number in range(30):
        old.message(f"s{number % 3}", f"m{number}", json.dumps([number]))
    for number in range(2):
        old.context(f"s{number}", json.dumps({"reasoning": [number]}))
    return old


BUSY = Migration(3, 30, 2, 0, [])


def query(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def tables(path):
    return {name for (name,) in query(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")}


def rows(path, prefix=""):
    names = ("sessions", "conversations", "context_messages")
    return [query(path, f"SELECT rowid, * FROM {prefix}{name} ORDER BY rowid") for name in names]


def migrate(path, **options):
    with SQLiteDB(path) as db:
        return db.migrate(**options)


def run(code, *args, **env):
    prelude = "import sys\nfrom director_db import load_db\nargs = sys.argv[1:]\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *args],
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- What is carried over -----------------------------------------------------------------------


def test_every_record_is_the_same(path, old):
    old.session("s1", "v1", "c1", (100, 200), json.dumps({"z": 1, "a": [1.0, -0.0, 1e300, None]}))
    old.session("s2", None, "", (300, 150), None)
    old.message(
        "s1",
        "m1",
        json.dumps(
            [{"type": "text", "text": "h\u00e9 \u0000 \U0001f600 \ud83d"}, {"b": 1, "a": 2}]
        ),
        (101, 102),
        conv_id="",
        msg_type="output",
        agents=json.dumps(["editor", "search"]),
        actions=json.dumps([{"id": 2**70}]),
        status="success",
        metadata=json.dumps({"k": "v"}),
    )
    old.message("s1", "m2", None, (103, None), agents=None, actions=None, metadata=None)
    old.message("s2", "m3", "[]", (0, -5), conv_id=None)
    old.context("s1", json.dumps({"reasoning": [{"role": "user", "content": "x"}]}), (7, 8), None)
    old.context("s2", json.dumps([{"role": "system"}, 1.0]), (9, 10), json.dumps({"m": []}))
    assert Migration(2, 3, 2, 0, []) == migrate(path)
    with SQLiteDB(path) as db:
        assert [
            {
                "session_id": "s1",
                "video_id": "v1",
                "collection_id": "c1",
                "created_at": 100,
                "updated_at": 200,
                "metadata": {"z": 1, "a": [1.0, -0.0, 1e300, None]},
                "user_id": None,
            },
            {
                "session_id": "s2",
                "video_id": None,
                "collection_id": "",
                "created_at": 300,
                "updated_at": 150,
                "metadata": {},
                "user_id": None,
            },
        ] == [fields(session) for session in db.get_sessions()]
        assert '{"z": 1, "a": [1.0, -0.0, 1e+300, null]}' == json.dumps(
            db.get_session("s1")["metadata"]
        )
        assert [
            {
                "session_id": "s1",
                "conv_id": "",
                "msg_id": "m1",
                "msg_type": "output",
                "agents": ["editor", "search"],
                "actions": [{"id": 2**70}],
                "content": [
                    {"type": "text", "text": "h\u00e9 \u0000 \U0001f600 \ud83d"},
                    {"b": 1, "a": 2},
                ],
                "status": "success",
                "created_at": 101,
                "updated_at": 102,
                "metadata": {"k": "v"},
                "revision": None,
            },
            {
                "session_id": "s1",
                "conv_id": "c",
                "msg_id": "m2",
                "msg_type": "input",
                "agents": None,
                "actions": None,
                "content": None,
                "status": None,
                "created_at": 103,
                "updated_at": 103,
                "metadata": {},
                "revision": None,
            },
        ] == db.get_conversations("s1")
        assert ["b", "a"] == list(db.get_message("s1", "m1")["content"][1])
        assert [("m3", None, 0, -5)] == [
            (message["msg_id"], message["conv_id"], message["created_at"], message["updated_at"])
            for message in db.get_conversations("s2")
        ]
        assert {
            "session_id": "s1",
            "context": {"reasoning": [{"role": "user", "content": "x"}]},
            "created_at": 7,
            "updated_at": 8,
            "metadata": {},
        } == fields(db.get_context("s1"))
        assert {
            "session_id": "s2",
            "context": [{"role": "system"}, 1.0],
            "created_at": 9,
            "updated_at": 10,
            "metadata": {"m": []},
        } == fields(db.get_context("s2"))


def test_many_records_are_what_the_old_application_showed(path, old):
    count = 3000
    with old.connection as connection:
        for number in range(100):
            connection.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)",
                (f"s{number}", f"v{number % 7}", "c", number, number * 31 % 100, '{"n": 1}'),
            )
        for number in [*range(count), *range(0, count, 7)]:
            connection.execute(
                "INSERT OR REPLACE INTO conversations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    f"s{number % 100}",
                    f"c{number % 5}",
                    f"m{number}",
                    "output",
                    json.dumps(["agent"] * (number % 3)),
                    "[]",
                    json.dumps([{"text": f"{number} é" * 20, "score": number / 7}]),
                    None,
                    number,
                    number + 1,
                    "{}",
                ),
            )
        for number in range(0, 100, 3):
            connection.execute(
                "INSERT INTO context_messages VALUES (?, ?, ?, ?, ?)",
                (f"s{number}", json.dumps({"reasoning": list(range(number))}), 1, number, "{}"),
            )
    sessions, messages, contexts = rows(path)
    assert Migration(100, count, 34, 0, []) == migrate(path)
    with SQLiteDB(path) as db:
        found = {session["session_id"]: session for session in db.get_sessions()}
        assert len(sessions) == len(found)
        for _rowid, *columns, metadata in sessions:
            assert [*columns, json.loads(metadata), None] == list(
                fields(found[columns[0]]).values()
            )
            assert [
                [*row[1:5], *map(json.loads, row[5:8]), *row[8:11], json.loads(row[11]), None]
                for row in messages
                if row[1] == columns[0]
            ] == [list(message.values()) for message in db.get_conversations(columns[0])]
        assert [
            [row[1], json.loads(row[2]), row[3], row[4], json.loads(row[5])] for row in contexts
        ] == [list(fields(db.get_context(row[1])).values()) for row in contexts]


def test_a_message_that_was_replaced_is_where_the_old_application_showed_it(path, old):
    old.session("s1")
    for msg_id in ("m1", "m2", "m3", "m1"):
        old.message("s1", msg_id, json.dumps([msg_id]))
    migrate(path)
    with SQLiteDB(path) as db:
        assert ["m2", "m3", "m1"] == [m["msg_id"] for m in db.get_conversations("s1")]


def test_a_number_that_the_column_made_of_text_comes_back_as_a_number(path, old):
    old.session("s1")
    old.context("s1", json.dumps(5))
    old.message("s1", "m1", json.dumps(1.5))
    assert [("integer",)] == query(path, "SELECT typeof(context_data) FROM context_messages")
    migrate(path)
    with SQLiteDB(path) as db:
        assert (5, 1.5) == (db.get_context_messages("s1"), db.get_message("s1", "m1")["content"])


def test_orphans_get_a_session_with_their_times(path, old):
    old.session("s1", times=(50, 60))
    old.message("gone", "m1", times=(30, 31))
    old.message("gone", "m2", times=(20, 21))
    old.message("s1", "m3", times=(1, 99))
    old.context("gone", "[1]", times=(25, 40))
    old.context("alone", "[2]", times=(7, 8))
    assert Migration(1, 3, 2, 2, []) == migrate(path)
    with SQLiteDB(path) as db:
        made = dict.fromkeys(["video_id", "collection_id", "user_id"]) | {"metadata": {}}
        assert [
            {"session_id": "s1", "created_at": 50, "updated_at": 60, **made},
            {"session_id": "gone", "created_at": 20, "updated_at": 40, **made},
            {"session_id": "alone", "created_at": 7, "updated_at": 8, **made},
        ] == [fields(session) for session in db.get_sessions()]
        assert ["m1", "m2"] == [m["msg_id"] for m in db.get_conversations("gone")]
        assert ([1], [2]) == (db.get_context_messages("gone"), db.get_context_messages("alone"))


def test_the_tables_are_those_of_a_new_file_and_the_old_ones_are_a_backup(path, busy, tmp_path):
    before = rows(path)
    assert BUSY == migrate(path)
    with SQLiteDB(tmp_path / "new.db") as new:
        assert new.health_check()
    ours = "SELECT name, sql FROM sqlite_schema WHERE name LIKE 'director_%' ORDER BY name"
    assert query(tmp_path / "new.db", ours) == query(path, ours)
    assert [("wal",)] == query(path, "PRAGMA journal_mode")
    assert [("ok",)] == query(path, "PRAGMA integrity_check")
    assert [] == query(path, "PRAGMA foreign_key_check")
    assert before == rows(path, "old_")
    assert not tables(path) & {"sessions", "conversations", "context_messages"}


def test_life_goes_on_after_it(path, busy):
    migrate(path)
    with SQLiteDB(path) as db:
        db.add_or_update_msg_to_conv("s0", "c", "new", "input", [], [], [])
        db.add_or_update_msg_to_conv("s0", "c", "m3", "input", [], [], ["changed"])
        ids = [message["msg_id"] for message in db.get_conversations("s0")]
        assert [*(f"m{number}" for number in range(0, 30, 3)), "new"] == ids
        assert (["changed"], 3) == (
            db.get_message("s0", "m3")["content"],
            db.get_message("s0", "m3")["created_at"],
        )
        assert 2 == db.append_context_messages("s0", [1])
        assert (True, []) == db.delete_session("s0")
        assert {} == db.get_context("s0")


def test_the_old_application_cannot_go_on(path, busy):
    migrate(path)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        busy.message("s0", "late")


def test_it_streams(path, old):
    text = "x" * 4096
    with old.connection as connection:
        connection.executemany(
            "INSERT INTO conversations VALUES ('s', 'c', ?, 't', '[]', '[]', ?, NULL, 1, 1, '{}')",
            ((f"m{number}", json.dumps([f"{number}{text}"])) for number in range(4000)),
        )
    size = path.stat().st_size
    with SQLiteDB(path) as db:
        tracemalloc.start()
        try:
            assert 4000 == db.migrate().messages
            _now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < size / 8


# --- Where there is nothing to do ---------------------------------------------------------------


def test_again_is_nothing(path, busy):
    with SQLiteDB(path) as db:
        assert [BUSY, NOTHING] == [db.migrate(), db.migrate()]
        assert 3 == len(db.get_sessions())
    assert NOTHING == migrate(path)


@pytest.mark.parametrize("there", ["missing", "empty", "ours"])
def test_a_file_without_old_tables_is_as_any_other(path, there):
    if there == "empty":
        path.touch()
    if there == "ours":
        with SQLiteDB(path) as db:
            db.create_session("s1")
    assert NOTHING == migrate(path)
    with SQLiteDB(path) as db:
        assert (there == "ours") == bool(db.get_session("s1"))
        assert [("wal",)] == query(path, "PRAGMA journal_mode")


def test_memory_has_nothing(monkeypatch):
    monkeypatch.setenv("DIRECTOR_DB_MIGRATE", "auto")
    shared = load_db("sqlite:///:memory:")
    monkeypatch.delenv("DIRECTOR_DB_MIGRATE")
    assert shared is load_db("sqlite:///:memory:")
    with SQLiteDB(":memory:", migrate=True) as db:
        db.create_session("s1")
        assert NOTHING == db.migrate()
        assert 1 == len(db.get_sessions())


def test_tables_of_other_frameworks_stay(path, busy):
    with busy.connection as connection:
        connection.executescript(
            "DROP TABLE sessions; CREATE TABLE sessions (id TEXT, app_name TEXT);"
            "INSERT INTO sessions VALUES ('1', 'x');"
            "DROP TABLE context_messages; CREATE VIRTUAL TABLE found USING fts5 (text)"
        )
    assert Migration(0, 30, 0, 3, []) == migrate(path)
    assert [("1", "x")] == query(path, "SELECT * FROM sessions")
    assert {"sessions", "found", "old_conversations"} <= tables(path)
    assert not tables(path) & {"old_sessions", "old_context_messages"}


def test_a_backend_that_the_old_system_never_had():
    class Other(SQLiteDB, db_type="other"):
        _migrate = None

    with (
        Other(":memory:") as db,
        pytest.raises(ConfigurationError, match="type other has no old layout to migrate"),
    ):
        db.migrate()


# --- What cannot be carried over ----------------------------------------------------------------


def spoil(old):
    """Add eight rows that break a rule, and a good one that names the session of one of them."""
    old.session("", times=(1, 1))
    old.session("bad-metadata", metadata="{oops")
    old.message("bad-metadata", "follows", times=(11, 12))
    old.message("", "nobody")
    old.message("s0", "")
    old.message("s0", "nan", '[{"score": NaN}]')
    old.message("s0", "deep", "[" * 201 + "]" * 201)
    old.context("", "[]")
    old.context("s2", "[1", times=(1, 1))


SPOILED = [
    "sessions, rowid 4, session_id: an id has at least 1 character",
    (
        "sessions, rowid 5, metadata: not JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)"
    ),
    "conversations, rowid 32, session_id: an id has at least 1 character",
    "conversations, rowid 33, msg_id: an id has at least 1 character",
    "conversations, rowid 34, content[0].score: nan has no form in JSON",
    f"conversations, rowid 35, content{'[0]' * 200}: nests more than 200 deep",
    "context_messages, rowid 3, session_id: an id has at least 1 character",
    (
        "context_messages, rowid 4, context_data: not JSON: Expecting ',' delimiter: "
        "line 1 column 3 (char 2)"
    ),
]


def test_by_default_one_bad_row_stops_it_and_nothing_is_changed(path, busy):
    spoil(busy)
    busy.connection.close()
    before = path.read_bytes()
    with SQLiteDB(path) as db:
        with pytest.raises(SchemaError, match="8 rows of the old tables cannot be") as caught:
            db.migrate()
        assert all(text in str(caught.value) for text in SPOILED[:5])
        assert "; and 3 more. Correct them" in str(caught.value)
        assert before == path.read_bytes()
        with pytest.raises(SchemaError, match=r"director-db migrate$"):
            db.get_sessions()
    assert [path.name] == [file.name for file in path.parent.iterdir()]


def test_bad_rows_can_be_left_behind(path, busy):
    spoil(busy)
    before = rows(path)
    found = migrate(path, skip_invalid=True)
    assert SPOILED == found.skipped
    assert (3, 31, 2, 1) == found[:4]
    assert before == rows(path, "old_")
    with SQLiteDB(path) as db:
        # Its own row could not be carried over, but what it held is not lost.
        made = db.get_session("bad-metadata")
        assert (11, 12, {}) == (made["created_at"], made["updated_at"], made["metadata"])
        assert ["follows"] == [m["msg_id"] for m in db.get_conversations("bad-metadata")]
        assert {"s0", "s1", "s2", "bad-metadata"} == {s["session_id"] for s in db.get_sessions()}


def test_text_that_is_not_utf_8_is_named(path, busy):
    with busy.connection as connection:
        connection.execute(
            "UPDATE conversations SET content = CAST(x'5b22ff225d' AS TEXT) WHERE msg_id = 'm7'"
        )
        connection.execute("UPDATE sessions SET video_id = CAST(x'ff' AS TEXT) WHERE rowid = 2")
    found = migrate(path, skip_invalid=True)
    assert [
        "sessions, rowid 2, video_id: a str, not bytes",
        (
            "conversations, rowid 8, content: not JSON: 'utf-8' codec can't decode byte 0xff in "
            "position 2: invalid start byte"
        ),
    ] == found.skipped
    assert (2, 29, 2, 1) == found[:4]


def test_the_second_row_of_one_key_does_not_replace_the_first(path, old):
    with old.connection as connection:
        connection.executescript(
            "DROP TABLE conversations; CREATE TABLE conversations (session_id TEXT, conv_id TEXT, "
            "msg_id TEXT, msg_type TEXT, content TEXT)"
        )
        connection.executemany(
            "INSERT INTO conversations VALUES (?, 'c', 'm1', 'input', ?)",
            [("s1", '"first"'), ("s1", '"second"'), ("s2", '"third"')],
        )
    found = migrate(path, skip_invalid=True)
    assert ["conversations, rowid 2, msg_id: an earlier row has the same one"] == found.skipped
    assert (0, 2, 0, 2) == found[:4]
    with SQLiteDB(path) as db:
        # A column that is not there counts as NULL, and a time that nobody knows is 0.
        message = db.get_message("s1", "m1")
        assert ("first", None, {}, 0) == tuple(
            message[key] for key in ("content", "agents", "metadata", "updated_at")
        )


@pytest.mark.parametrize(
    ("statements", "match"),
    [
        ("CREATE TABLE old_conversations (x)", "has a table old_conversations already"),
        (
            "DROP TABLE sessions; CREATE TABLE sessions (session_id, title)",
            "the table sessions lacks collection_id, video_id",
        ),
    ],
)
def test_tables_that_are_in_the_way(path, busy, statements, match):
    with busy.connection as connection:
        connection.executescript(statements)
    busy.connection.close()
    before = path.read_bytes()
    with SQLiteDB(path) as db, pytest.raises(SchemaError, match=match):
        db.migrate()
    assert before == path.read_bytes()


# --- Locks and crashes --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_locked_file_is_an_error_after_the_timeout(path, busy, mode, lock):
    busy.connection.execute(f"PRAGMA journal_mode = {mode}")
    before = rows(path)
    with (
        SQLiteDB(path, operation_timeout=0.3) as db,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute(lock)
        with pytest.raises(BackendUnavailableError, match="locked") as caught:
            db.migrate()
        assert (True, False) == (caught.value.retryable, caught.value.maybe_applied)
        other.execute("ROLLBACK")
        assert before == rows(path)
        assert BUSY == db.migrate()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_locked_file_is_waited_for(path, busy, mode):
    busy.connection.execute(f"PRAGMA journal_mode = {mode}")
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE sessions SET video_id = 'last' WHERE session_id = 's2'")
        release = threading.Timer(1.5, other.execute, ["COMMIT"])
        release.start()
        assert BUSY == migrate(path)
        release.join()
    with SQLiteDB(path) as db:
        assert "last" == db.get_session("s2")["video_id"]


def test_a_reader_of_an_old_file_is_waited_for_too(path, busy, monkeypatch):
    """Without a log, a commit cannot pass a reader."""
    monkeypatch.setattr(connections, "LONGEST_WAIT", 4.0)
    with (
        SQLiteDB(path, operation_timeout=0.3) as db,
        closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other,
    ):
        other.execute("BEGIN")
        assert 3 == len(other.execute("SELECT * FROM sessions").fetchall())
        with pytest.raises(BackendUnavailableError, match="locked") as caught:
            db.migrate()
        assert caught.value.retryable
        assert {"sessions", "conversations", "context_messages"} == tables(path)
        release = threading.Timer(1.5, other.execute, ["COMMIT"])
        release.start()
        with SQLiteDB(path) as patient:
            assert BUSY == patient.migrate()
        release.join()


def test_a_kill_in_the_middle_leaves_the_old_file(path, old):
    with old.connection as connection:
        connection.executemany(
            "INSERT INTO conversations VALUES ('s', 'c', ?, 't', '[]', '[]', ?, NULL, 1, 1, '{}')",
            ((f"m{number}", json.dumps(["x" * 2000])) for number in range(5000)),
        )
    before = rows(path)
    journal = path.with_name("director.db-journal")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        # It holds the commit back, so that the kill is certain to come before it.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sessions").fetchone()
        process = run("load_db().migrate()", SQLITE_DB_PATH=str(path))
        deadline = time.monotonic() + 30
        while not journal.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert journal.exists()
        time.sleep(0.5)
        process.kill()
        process.communicate()
    assert -signal.SIGKILL == process.returncode
    assert {"sessions", "conversations", "context_messages"} == tables(path)
    assert before == rows(path)
    assert Migration(0, 5000, 0, 1, []) == migrate(path)


# --- Without a person who starts it -------------------------------------------------------------


@pytest.mark.parametrize("operation", ["get_sessions", "health", "create_session"])
def test_the_first_use_migrates_if_it_may(path, busy, operation):
    with SQLiteDB(path, migrate=True) as db:
        getattr(db, operation)(*(["new"] if operation == "create_session" else []))
        expected = {"s0", "s1", "s2"} | ({"new"} if operation == "create_session" else set())
        assert expected == {session["session_id"] for session in db.get_sessions()}
        assert 10 == len(db.get_conversations("s1"))
        assert NOTHING == db.migrate()


def test_the_first_use_stops_at_a_bad_row(path, busy):
    spoil(busy)
    with SQLiteDB(path, migrate=True) as db:
        with pytest.raises(SchemaError, match="8 rows"):
            db.get_sessions()
        assert not db.health_check()
        assert (3, 31, 2, 1) == db.migrate(skip_invalid=True)[:4]
        assert 4 == len(db.get_sessions())


def test_the_environment_may_allow_it(path, busy, monkeypatch):
    monkeypatch.setenv("SQLITE_DB_PATH", str(path))
    for value in ("never", ""):
        monkeypatch.setenv("DIRECTOR_DB_MIGRATE", value)
        with pytest.raises(SchemaError, match="director-db migrate"):
            load_db().get_sessions()
    monkeypatch.setenv("DIRECTOR_DB_MIGRATE", "yes")
    with pytest.raises(ConfigurationError, match="DIRECTOR_DB_MIGRATE"):
        load_db()
    monkeypatch.setenv("DIRECTOR_DB_MIGRATE", "auto")
    assert 3 == len(load_db().get_sessions())
    monkeypatch.delenv("DIRECTOR_DB_MIGRATE")
    assert 3 == len(load_db().get_sessions())


def test_many_processes_that_start_at_once_find_it_migrated_once(path, busy):
    code = """
sys.stdin.readline()
db = load_db()
name = args[0]
db.create_session(name)
db.add_or_update_msg_to_conv(name, "c", "m", "input", [], [], [])
print(len(db.get_conversations("s0")), db.migrate().messages)
"""
    env = {"SQLITE_DB_PATH": str(path), "DIRECTOR_DB_MIGRATE": "auto"}
    processes = [run(code, f"p{number}", **env) for number in range(6)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [("10 0\n", "")] * 6 == [process.communicate(timeout=400) for process in processes]
    with SQLiteDB(path) as db:
        assert 9 == len(db.get_sessions())
        assert 30 == sum(len(db.get_conversations(f"s{number}")) for number in range(3))


def test_of_many_that_migrate_at_once_one_does(path, busy):
    processes = [run("print(*load_db().migrate()[:4])", SQLITE_DB_PATH=str(path)) for _ in range(6)]
    outputs = [process.communicate(timeout=400) for process in processes]
    assert [("0 0 0 0\n", "")] * 5 + [("3 30 2 0\n", "")] == sorted(outputs)


def test_of_many_threads_that_migrate_at_once_one_does(path, busy):
    found = []
    with SQLiteDB(path) as db:
        threads = [threading.Thread(target=lambda: found.append(db.migrate())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [NOTHING] * 7 + [BUSY] == sorted(found)


# --- An old application that goes on ------------------------------------------------------------


def test_old_tables_that_are_there_again_are_a_warning(path, busy):
    def warnings():
        with SQLiteDB(path) as db:
            return [text for text in db.health().warnings if "old application" in text]

    migrate(path)
    assert [] == warnings()
    busy.create_tables()
    assert [] == warnings()
    busy.session("late")
    busy.message("late", "m1")
    expected = (
        "The old application writes to this file: sessions, conversations hold rows, which "
        "director-db does not see. Stop it."
    )
    assert [expected] == warnings()
    before = rows(path)
    with SQLiteDB(path, migrate=True) as db:
        assert NOTHING == db.migrate()
        assert {"s0", "s1", "s2"} == {session["session_id"] for session in db.get_sessions()}
    assert before == rows(path)
