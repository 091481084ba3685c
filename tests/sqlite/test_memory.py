"""``:memory:``: private to its instance, and gone with it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from director_db import BackendUnavailableError, load_db
from director_db_sqlite import SQLiteDB


def test_each_instance_has_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SQLiteDB(":memory:") as one, SQLiteDB(":memory:") as two:
        one.create_session("s1")
        assert "s1" == one.get_session("s1")["session_id"]
        assert {} == two.get_session("s1")
        assert ":memory:" == one.place == one.db_path
        assert one.health_check()
    assert [] == list(tmp_path.iterdir())


def test_load_db_shares_one(monkeypatch):
    monkeypatch.setenv("SQLITE_DB_PATH", ":memory:")
    load_db().create_session("s1")
    assert "s1" == load_db().get_session("s1")["session_id"]


def test_threads_share_it():
    with SQLiteDB(":memory:") as db:
        db.create_session("s")

        def write(number):
            db.add_or_update_msg_to_conv("s", "c", f"m{number}", "t", [], [], number)
            return db.get_message("s", f"m{number}")["content"]

        with ThreadPoolExecutor(8) as pool:
            assert list(range(200)) == list(pool.map(write, range(200)))
        assert 200 == len(db.get_conversations("s"))


@pytest.mark.parametrize("call", [lambda db: db.get_session("s"), lambda db: db.health()])
def test_a_call_waits_no_longer_for_others_than_it_may(call):
    with SQLiteDB(":memory:", operation_timeout=0.2) as db, ThreadPoolExecutor(1) as pool:
        db.create_session("s")
        begun, leave = threading.Event(), threading.Event()
        busy = pool.submit(db._database.read, lambda _connection: (begun.set(), leave.wait(120))[1])
        assert begun.wait(120)
        with pytest.raises(BackendUnavailableError, match="stayed locked by other threads"):
            call(db)
        leave.set()
        assert busy.result(120)
        assert "s" == db.get_session("s")["session_id"]


def test_a_failed_write_is_undone():
    with SQLiteDB(":memory:") as db:
        db.create_session("s1")

        def fail(connection):
            connection.execute("DELETE FROM director_sessions")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            db._database.write(fail, 0)
        assert 1 == len(db.get_sessions())
