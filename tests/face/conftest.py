"""What the tests of the asynchronous face share."""

from __future__ import annotations

import asyncio
import threading

import pytest

from director_db.asyncio import CARRIED_OUT, AsyncDB
from director_db_postgres import PostgresDB
from director_db_sqlite import SQLiteDB


class HeldDB(SQLiteDB, db_type="held"):
    """SQLite whose `delete_message` waits inside the storage operation until it is let go on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def _delete_message(self, session_id, msg_id):
        self.begun.release()
        assert self.go_on.wait(120)
        return super()._delete_message(session_id, msg_id)

    async def until_begun(self, times=1):
        """Wait until so many more of them have begun."""
        for _ in range(times):
            await eventually(lambda: self.begun.acquire(blocking=False))


@pytest.fixture(params=["sqlite", "postgres"])
def sync_db(request, tmp_path):
    if request.param == "sqlite":
        db = SQLiteDB(tmp_path / "director.db")
    else:
        db = PostgresDB(request.getfixturevalue("postgres_database").dsn)
    yield db
    db.close()


@pytest.fixture
def db(sync_db):
    return AsyncDB(sync_db)


@pytest.fixture
def held(tmp_path):
    instance = HeldDB(tmp_path / "held.db")
    instance.create_session("s1")
    for number in range(100):
        instance.add_or_update_msg_to_conv("s1", "c", f"m{number}", "t", [], [], number)
    yield instance
    instance.go_on.set()
    instance.close()


async def eventually(condition):
    """Wait until a condition holds; bounded, in minutes."""
    for _ in range(12_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError


@pytest.fixture(name="eventually")
def fixture_eventually():
    return eventually


@pytest.fixture
def carried_out():
    """Return what says whether a call that was cancelled has taken effect, or what it returned."""

    async def carried_out(task):
        try:
            return await task
        except asyncio.CancelledError as cancelled:  # `gather` makes an error of its own.
            return getattr(cancelled, "__notes__", None) == [CARRIED_OUT]

    return carried_out
