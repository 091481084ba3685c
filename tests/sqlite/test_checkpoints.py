"""The log: how it is emptied, and by whom."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from director_db import SchemaError
from director_db_sqlite import SQLiteDB
from director_db_sqlite.checkpoint import CHECKPOINT_BYTES
from director_db_sqlite.connections import MAX_IDLE_LOG_BYTES

MIB = 1024 * 1024
NUMBERS = itertools.count()
MESSAGE = {"conv_id": "c", "msg_type": "t", "agents": [], "actions": [], "content": []}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "director.db"


def checkpoint(db):
    writer = db._database._writer
    writer._checkpoint(writer.connection, time.monotonic())


def log_bytes(path):
    return path.with_name(path.name + "-wal").stat().st_size


@pytest.mark.parametrize(
    "write",
    [
        lambda db, big: db.add_or_update_msg_to_conv(
            "s1", msg_id="m", **MESSAGE | {"content": big}
        ),
        lambda db, big: db.add_or_update_msg_to_conv("s1", msg_id="m", **MESSAGE | {"agents": big}),
        lambda db, big: db.add_or_update_msg_to_conv(
            "s1", msg_id="m", **MESSAGE | {"actions": big}
        ),
        lambda db, big: db.add_or_update_msg_to_conv("s1", msg_id="m", **MESSAGE, metadata=big),
        lambda db, big: db.update_session("s1", metadata=big),
        lambda db, big: db.add_or_update_context_msg("s1", big),
        lambda db, big: db.add_or_update_context_msg("s1", [], metadata=big),
        lambda db, big: db.update_session("s1", metadata={"x": big}, merge=True),
        lambda db, big: db.copy_session("large", f"copy {next(NUMBERS)}"),
    ],
)
def test_every_large_write_counts(path, write):
    with SQLiteDB(path) as db:
        db.create_session("s1")
        db.create_session("large")
        db.add_or_update_msg_to_conv("large", msg_id="m", **MESSAGE | {"content": "x" * MIB})
        for _ in range(40):
            write(db, "x" * MIB)
        assert log_bytes(path) < CHECKPOINT_BYTES + 4 * MIB


def test_small_writes_count_too(path):
    with SQLiteDB(path) as db:
        db.create_session("s1")
        for number in range(2000):
            db.add_or_update_msg_to_conv("s1", msg_id=f"m{number % 7}", **MESSAGE)
        assert log_bytes(path) < 2 * CHECKPOINT_BYTES


def test_deleted_rows_count(path):
    """Deletes have no payloads, but what they touch is as long as it was."""
    sessions = [f"s{number}" for number in range(12)]
    messages = [MESSAGE | {"msg_id": f"m{n}", "content": "x" * 1000} for n in range(2000)]
    with SQLiteDB(path) as db:
        for session in sessions:
            db.create_session(session)
            db.add_or_update_msgs_to_conv(session, messages)
    with SQLiteDB(path) as db:
        for session in sessions:
            db.delete_session(session)
        assert log_bytes(path) < 2 * CHECKPOINT_BYTES


def test_processes_that_write_little_each_keep_the_log_short(path):
    with SQLiteDB(path) as keeps_it_open:
        keeps_it_open.create_session("s1")
        longest = 0
        for _ in range(60):
            with SQLiteDB(path) as db:
                db._database._writer._checkpointer._unchecked = 0
                content = "x" * MIB
                db.add_or_update_msg_to_conv("s1", msg_id="m", **MESSAGE | {"content": content})
            longest = max(longest, log_bytes(path))
        assert longest < 2 * MAX_IDLE_LOG_BYTES


def test_readers_that_overlap_all_the_time_do_not_let_the_log_grow(path):
    """One of them is always there, but each soon ends."""
    stop = threading.Event()

    def read():
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            while not stop.is_set():
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM director_sessions").fetchall()
                time.sleep(0.03)
                reader.execute("COMMIT")

    with SQLiteDB(path) as db:
        db.create_session("s1")
        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
            time.sleep(0.008)
        try:
            for number in range(120):
                content = "x" * MIB
                name = f"m{number % 2}"
                db.add_or_update_msg_to_conv("s1", msg_id=name, **MESSAGE | {"content": content})
            assert log_bytes(path) < 4 * MAX_IDLE_LOG_BYTES
        finally:
            stop.set()
            for reader in readers:
                reader.join()


def test_no_checkpoint_beside_another_writer(path):
    with SQLiteDB(path, operation_timeout=0.1) as db:
        db.create_session("s1")
        before = path.read_bytes()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                checkpoint(db)
            assert before == path.read_bytes()
            other.execute("ROLLBACK")
        checkpoint(db)
        assert before != path.read_bytes()


def test_an_old_reader_holds_up_nobody(path):
    """The checkpoint moves what it can, and the write lock is free again."""
    with SQLiteDB(path) as db, closing(sqlite3.connect(path, isolation_level=None)) as old:
        db.create_session("s1")
        old.execute("BEGIN")
        assert [("s1",)] == old.execute("SELECT session_id FROM director_sessions").fetchall()
        for number in range(30):
            db.add_or_update_msg_to_conv(
                "s1", msg_id=f"m{number}", **MESSAGE | {"content": "x" * MIB}
            )
        assert [(0,)] == old.execute("SELECT count(*) FROM director_conversations").fetchall()
        old.execute("COMMIT")
        for number in range(30):
            db.add_or_update_msg_to_conv(
                "s1", msg_id=f"m{number}", **MESSAGE | {"content": "y" * MIB}
            )
        assert 30 == len(db.get_conversations("s1"))


def test_a_log_of_the_file_before_is_not_taken_for_the_new_ones(path, tmp_path):
    with SQLiteDB(tmp_path / "other.db") as other:
        other.create_session("other")
    with SQLiteDB(path) as db:
        db.create_session("s1")
        (tmp_path / "other.db").rename(path)
        for _ in range(2):
            with pytest.raises(SchemaError, match=r"was replaced .*-wal"):
                db.create_session("s2")
        assert not db.health_check()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    with SQLiteDB(path) as db:
        assert ["other"] == [session["session_id"] for session in db.get_sessions()]
