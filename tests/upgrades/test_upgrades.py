"""Tables of every earlier version, upgraded beside old writers, kills and locks."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from director_db import BackendUnavailableError, SchemaError
from director_db.loading import load_backend

pytestmark = pytest.mark.sampled

HERE = Path(__file__).parent

# What an older process sends that is still running: columns by name, and no new ones. As the
# statements of version 1 do, the message draws its place from the session's row.
OLD_WRITER = """
    INSERT INTO director_sessions
        (session_id, video_id, collection_id, created_at, updated_at, metadata, last_seq)
    VALUES ('{session}', NULL, 'old', {time}, {time}, '{{}}', 0)
    ON CONFLICT (session_id) DO NOTHING;
    UPDATE director_sessions SET last_seq = last_seq + 1 WHERE session_id = '{session}';
    INSERT INTO director_conversations
        (session_id, seq, conv_id, msg_id, msg_type, agents, actions, content, status, created_at,
         updated_at, metadata)
    SELECT session_id, last_seq, 'c', '{message}', 'input', '[]', '[]', '{content}', NULL, {time},
        {time}, '{{}}'
    FROM director_sessions WHERE session_id = '{session}'
    ON CONFLICT (session_id, msg_id) DO UPDATE SET
        content = excluded.content, updated_at = excluded.updated_at
"""
# What an older process looks at when it starts, and in its health check.
OLD_LOOK = "SELECT value FROM director_meta WHERE key = 'schema_version'"


class Place:
    """A database of one of the backends, with tables of version 1 and records in them."""

    def __init__(self, db_type, env):
        self.db_type, self.env = db_type, env
        for part in (db_type, "rows"):
            self.run((HERE / f"version_1.{part}.sql").read_text(encoding="utf-8"))
        self.records = json.loads((HERE / "version_1.json").read_text(encoding="utf-8"))

    def open(self, **options):
        cls = load_backend(self.db_type).cls
        return cls(**{**cls._settings(self.env, None), **options})

    def run(self, script):
        """Run a script in one transaction."""
        if self.db_type == "postgres":
            with psycopg.connect(self.env["POSTGRES_DSN"]) as connection:
                connection.execute(script)
        else:
            with closing(sqlite3.connect(self.env["SQLITE_DB_PATH"], timeout=60)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN IMMEDIATE; {script}; COMMIT")

    def rows(self, query):
        if self.db_type == "postgres":
            with psycopg.connect(self.env["POSTGRES_DSN"]) as connection:
                return connection.execute(query).fetchall()
        with closing(sqlite3.connect(self.env["SQLITE_DB_PATH"], timeout=60)) as connection:
            return connection.execute(query).fetchall()

    @property
    def version(self):
        return dict(self.rows("SELECT key, value FROM director_meta"))

    def columns(self):
        """Everything that the tables and indexes are made of."""
        if self.db_type == "sqlite":
            made = self.rows("SELECT name, sql FROM sqlite_schema ORDER BY 1")
            return [(name, " ".join((text or "").split())) for name, text in made]
        return [
            self.rows(
                "SELECT table_name, ordinal_position, column_name, data_type, is_nullable,"
                " collation_name, column_default FROM information_schema.columns"
                " WHERE table_schema = 'public' ORDER BY 1, 2"
            ),
            self.rows("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"),
        ]

    @contextmanager
    def held(self):
        """Hold what an upgrade needs: as a backup or a long report does, or a writer."""
        if self.db_type == "postgres":
            with psycopg.connect(self.env["POSTGRES_DSN"]) as connection:
                connection.execute("SELECT count(*) FROM director_sessions")
                yield
        else:
            with closing(sqlite3.connect(self.env["SQLITE_DB_PATH"])) as connection:
                connection.execute("BEGIN IMMEDIATE")
                yield
                connection.rollback()


@pytest.fixture(params=["sqlite", "postgres"])
def old(request, tmp_path):
    if request.param == "sqlite":
        path = str(tmp_path / "old.db")
        Path(path).touch(0o600)
        return Place("sqlite", {"SQLITE_DB_PATH": path})
    return Place("postgres", {"POSTGRES_DSN": request.getfixturevalue("postgres_database").dsn})


def upgrades_of(old):
    return importlib.import_module(f"director_db_{old.db_type}.upgrades").UPGRADES


def known(record, old):
    """Return of a record what the older release has read, as a text; it had fewer keys."""
    return json.dumps({key: record.get(key) for key in old})


def expect_records(db, records):
    assert records
    for expected in records:
        session, messages, context = (expected[key] for key in ("session", "messages", "context"))
        name = session["session_id"]
        assert known(db.get_session(name), session) == json.dumps(session)
        found = db.get_conversations(name)
        assert [known(*pair) for pair in zip(found, messages, strict=True)] == [
            json.dumps(message) for message in messages
        ]
        assert known(db.get_context(name), context) == json.dumps(context)


def test_every_old_record_is_read_back(old):
    with old.open() as db:
        expect_records(db, old.records)
        names = [record["session"]["session_id"] for record in old.records]
        assert [session["session_id"] for session in db.get_sessions()] == names
        assert db.health().versions["schema"] == "3"
    assert old.version == {"schema_version": "1", "upgraded_to": "3"}


def test_old_records_are_written_on(old):
    with old.open() as db:
        db.add_or_update_msg_to_conv("s1", "conv", "m0", "output", [], [], "again")
        db.add_or_update_msg_to_conv("s1", "conv", "new", "output", [], [], "new")
        assert [message["msg_id"] for message in db.get_conversations("s1")] == [
            "m0", "m1", "m3", "m4", "new",
        ]  # fmt: skip
        assert db.append_context_messages("s2", [4]) == 5
        assert db.delete_session("s1") == (True, [])


def test_upgraded_tables_are_those_that_are_made_new(old, tmp_path):
    upgraded = old.open()
    with upgraded:
        assert upgraded.health_check() is True
    made = old.columns()
    if old.db_type == "sqlite":
        new = Place.__new__(Place)
        new.db_type, new.env = "sqlite", {"SQLITE_DB_PATH": str(tmp_path / "new.db")}
    else:
        new = old
        new.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    with new.open() as db:
        assert db.get_sessions() == []
    assert new.columns() == made


def test_an_older_process_goes_on_beside_a_newer_one(old):
    """It sees the version that it knows, and what it writes is read; what it leaves out is None."""
    with old.open() as db:
        db.get_sessions()
        assert old.rows(OLD_LOOK) == [("1",)]
        writes = {"session": "late", "message": "m", "time": 5}
        old.run(OLD_WRITER.format(content='"one"', **writes))
        old.run(OLD_WRITER.format(content='"two"', **writes))
        assert db.get_session("late")["collection_id"] == "old"
        assert [message["content"] for message in db.get_conversations("late")] == ["two"]
        db.add_or_update_msg_to_conv("late", "c", "n", "output", [], [], [])
        assert [message["msg_id"] for message in db.get_conversations("late")] == ["m", "n"]
        expect_records(db, old.records)


OPEN_AND_WRITE = """
import sys
from director_db import load_db
number = int(sys.argv[1])
db = load_db()
print("ready", flush=True)
sys.stdin.readline()
db.create_session(f"new{number}")
db.add_or_update_msg_to_conv(f"new{number}", "c", "m", "input", [], [], number)
print(db.get_conversations(f"new{number}")[0]["content"])
"""


@pytest.mark.timeout(900)
def test_twenty_processes_upgrade_at_once_beside_old_writers(old):
    env = {**os.environ, **old.env, "DB_TYPE": old.db_type}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_WRITE, str(number)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(20)
    ]
    written, ended, failures = [], threading.Event(), []

    def write():
        try:
            while not ended.is_set() and len(written) < 20_000:
                message = f"m{len(written)}"
                old.run(OLD_WRITER.format(session="beside", message=message, content="7", time=1))
                written.append(message)
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {process.stdout.readline() for process in processes} == {"ready\n"}
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        found = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        ended.set()
        writer.join()
        for process in processes:
            process.kill()
            process.wait()
    assert found == [f"{number}\n" for number in range(20)]
    assert failures == []
    with old.open() as db:
        expect_records(db, old.records)
        assert [message["msg_id"] for message in db.get_conversations("beside")] == written
        assert len(written) > 0
        assert len([s for s in db.get_sessions() if s["session_id"].startswith("new")]) == 20


class _Killing(tuple):
    """Statements of which only some are sent; then the process is killed."""

    __slots__ = ()
    after = 0

    def __iter__(self):
        for number, statement in enumerate(super().__iter__()):
            if number == self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            yield statement
        if self.after >= len(self):
            os.kill(os.getpid(), signal.SIGKILL)


def _upgrade_and_die(db_type, env, number, after):
    cls = load_backend(db_type).cls
    module = __import__(f"director_db_{db_type}.upgrades", fromlist=["UPGRADES"])
    _Killing.after = after
    module.UPGRADES[number] = _Killing(module.UPGRADES[number])
    with cls(**cls._settings(env, None)) as db:
        db.get_sessions()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_an_upgrade_that_is_killed_in_the_middle_has_not_begun(old):
    """Each number is all or nothing, and the next process begins at the one that is missing."""
    reached = {2: {"schema_version": "1"}, 3: {"schema_version": "1", "upgraded_to": "2"}}
    before = {2: old.columns()}
    for number, after in ((2, 0), (2, 1), (2, 2), (3, 0), (3, 1)):
        process = multiprocessing.get_context("spawn").Process(
            target=_upgrade_and_die, args=(old.db_type, old.env, number, after)
        )
        process.start()
        process.join(300)
        assert process.exitcode == -signal.SIGKILL
        assert old.version == reached[number]
        assert old.columns() == before.setdefault(number, old.columns())
        old.run(OLD_WRITER.format(session="s1", message=f"late{after}", content="1", time=1))
        old.run(f"DELETE FROM director_conversations WHERE msg_id = 'late{after}'")
    assert "user_id" in str(before[3])
    assert "director_sessions_by_user" not in str(before[3])
    with old.open() as db:
        expect_records(db, old.records)
        assert db.health().versions["schema"] == "3"
    assert "director_sessions_by_user" in str(old.columns())


def test_whoever_holds_the_tables_delays_an_upgrade_and_nobody_else(old):
    with old.open(operation_timeout=2.0) as db:
        with old.held():
            started = time.monotonic()
            with pytest.raises(BackendUnavailableError) as caught:
                db.get_sessions()
            assert caught.value.retryable is True
            assert caught.value.maybe_applied is False
            assert time.monotonic() - started < 60
            assert db.health_check() is False
            assert old.version == {"schema_version": "1"}
        deadline = time.monotonic() + 120
        while not db.health_check():  # A busy machine may not manage in two seconds.
            assert time.monotonic() < deadline
        expect_records(db, old.records)


def test_the_error_of_an_upgrade_that_is_held_up_says_so(old):
    if old.db_type != "postgres":
        pytest.skip("SQLite has one lock, and its error names it")
    told, deadline = "", time.monotonic() + 120
    with old.open(operation_timeout=4.0) as db, old.held():
        # On a busy machine the time may be up before the server is reached.
        while "Nothing was changed" not in told and time.monotonic() < deadline:
            with pytest.raises(BackendUnavailableError) as caught:
                db.get_sessions()
            told = str(caught.value)
    assert "held them while they were to be upgraded to 2. Nothing was changed" in told


WAITING = """
    SELECT DISTINCT pid FROM pg_locks
    WHERE NOT granted AND mode = 'AccessExclusiveLock' AND relation = 'director_sessions'::regclass
"""


def test_others_use_the_tables_while_upgrades_wait(old):
    """On Postgres, all would stand behind a lock that is waited for; so it is for moments only."""
    if old.db_type != "postgres":
        pytest.skip("readers of SQLite never wait")
    failures, at_once, pauses, written_after = [], 0, [], 0

    def upgrade():
        with old.open(operation_timeout=30.0) as db:
            try:
                db.get_sessions()
            except BackendUnavailableError as error:
                failures.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    write = "SET LOCAL lock_timeout = '10s';" + OLD_WRITER
    with old.held(), psycopg.connect(old.env["POSTGRES_DSN"], autocommit=True) as admin:
        for thread in threads:
            thread.start()
        deadline = (passed := time.monotonic()) + 20
        while written_after < 3 and time.monotonic() < deadline:
            waiting = [pid for (pid,) in admin.execute(WAITING)]
            at_once = max(at_once, len(waiting))
            if not waiting:
                time.sleep(0.001)
                continue
            pauses.append(time.monotonic() - passed)
            # This one stands behind the lock, or comes just after it.
            written_after += 1
            old.run(write.format(session="s1", message="m", content=written_after, time=1))
            passed = time.monotonic()
        assert old.version == {"schema_version": "1"}
        assert [thread.is_alive() for thread in threads] == [True] * 4
    for thread in threads:
        thread.join()
    assert failures == []
    assert written_after == 3
    # One at a time asks, and most of the time nobody does.
    assert at_once == 1
    assert max(pauses[1:]) > 0.25
    with old.open() as db:
        assert db.get_message("s1", "m")["content"] == 3


@pytest.mark.parametrize(("method", "seconds"), [("get_sessions", 3), ("health", 7)])
def test_an_index_takes_longer_than_a_call_may_wait(old, monkeypatch, method, seconds):
    """The call ends with it, those who read go on, and who writes waits until it is there."""
    if old.db_type != "postgres":
        pytest.skip("an index of SQLite is no answer that is waited for")
    slow = (*upgrades_of(old)[3], f"SELECT pg_sleep({seconds})")
    monkeypatch.setitem(upgrades_of(old), 3, slow)
    ended = []

    def upgrade():
        with old.open(operation_timeout=2.0 if seconds < 5 else 60.0) as db:
            getattr(db, method)()
            ended.append(time.monotonic())

    started = time.monotonic()
    thread = threading.Thread(target=upgrade)
    thread.start()
    try:
        columns = (
            "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'ShareLock' AND relation ="
        )
        while old.rows(columns + " 'director_sessions'::regclass") == [(0,)] and thread.is_alive():
            time.sleep(0.01)
        assert old.version == {"schema_version": "1", "upgraded_to": "2"}
        assert old.rows("SELECT count(*) FROM director_sessions") == [(len(old.records),)]
        assert ended == []
        with pytest.raises(psycopg.errors.LockNotAvailable):
            old.run(
                "SET LOCAL lock_timeout = '50ms';"
                + OLD_WRITER.format(session="s1", message="m", content="1", time=1)
            )
        assert ended == []
    finally:
        thread.join()
    assert [moment - started > seconds for moment in ended] == [True]
    assert old.version == {"schema_version": "1", "upgraded_to": "3"}


def test_what_an_older_process_creates_meanwhile_is_upgraded_as_any_other(old, monkeypatch):
    """Nobody waits for a lock without a limit where another process was faster to create."""
    if old.db_type != "postgres":
        pytest.skip("SQLite has one lock")
    old.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    look = """
        DO $$ BEGIN
            IF current_setting('lock_timeout') = '0' THEN RAISE 'no limit'; END IF;
        END $$
    """
    monkeypatch.setitem(upgrades_of(old), 2, (look, *upgrades_of(old)[2]))
    found = []
    with old.open() as db:
        thread = threading.Thread(target=lambda: found.append(db.get_sessions()))
        with psycopg.connect(old.env["POSTGRES_DSN"]) as older:
            older.execute("SELECT pg_advisory_xact_lock(7310868735422735730)")
            thread.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while older.execute(waiting).fetchone() == (0,) and thread.is_alive():
                time.sleep(0.01)
            older.execute((HERE / "version_1.postgres.sql").read_text(encoding="utf-8"))
        thread.join()
    assert found == [[]]
    assert old.version == {"schema_version": "1", "upgraded_to": "3"}


def test_a_column_that_somebody_else_added_is_told(old):
    old.run("ALTER TABLE director_sessions ADD COLUMN user_id TEXT")
    before = old.columns()
    with old.open() as db:
        with pytest.raises(SchemaError, match=r"user_id.*Rename that column, then try again"):
            db.get_sessions()
        assert old.columns() == before
        old.run("ALTER TABLE director_sessions RENAME COLUMN user_id TO theirs")
        expect_records(db, old.records)


def test_an_older_process_leaves_a_revision_as_it_was(old):
    """So a revision guards a message only when no older process writes any more."""
    with old.open() as db:
        db.get_sessions()
        writes = {"session": "late", "message": "m", "time": 5}
        old.run(OLD_WRITER.format(content='"one"', **writes))
        old.run("UPDATE director_conversations SET revision = 7 WHERE session_id = 'late'")
        old.run(OLD_WRITER.format(content='"two"', **writes))
        found = db.get_message("late", "m")
        assert (found["content"], found["revision"]) == ("two", 7)


def test_a_newer_upgrade_that_this_release_may_use(old):
    """What only adds, as all upgrades do so far, is no matter to an older release; to this, too."""
    with old.open() as db:
        db.get_sessions()
    old.run("UPDATE director_meta SET value = '4' WHERE key = 'upgraded_to'")
    with old.open() as db:
        expect_records(db, old.records)
        assert db.health_check() is True
    assert old.version == {"schema_version": "1", "upgraded_to": "4"}
    old.run("UPDATE director_meta SET value = '4' WHERE key = 'schema_version'")
    with old.open() as db:
        with pytest.raises(SchemaError, match=r"schema version 4.*knows 3.*Upgrade"):
            db.get_sessions()
        assert db.health_check() is False


@pytest.mark.parametrize("reached", ["x", "0", "", "02", "-1"])
def test_a_version_that_nobody_has_written_is_not_ours(old, reached):
    old.run(f"INSERT INTO director_meta (key, value) VALUES ('upgraded_to', '{reached}')")
    before = old.columns()
    with old.open() as db, pytest.raises(SchemaError, match="schema version '1'"):
        db.get_sessions()
    assert old.columns() == before
