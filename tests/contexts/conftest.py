"""Both backends, as places that several handles open and whose rows can be looked at."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from director_db.context.memory import memory
from director_db.loading import load_backend
from director_db.payload import encode_payload, payload_bytes
from director_db_sqlite.checkpoint import Checkpointer

CONTEXT = """
    SELECT context_data, list_key, list_len, bytes FROM director_context_messages
    WHERE session_id = {}
"""
ITEMS = "SELECT idx, item FROM director_context_items WHERE session_id = {} ORDER BY idx"


class Stored(NamedTuple):
    """What stands in the two tables of a context; `data` is None if nothing does."""

    data: str | None
    list_key: str | None
    list_len: int
    bytes: int
    items: list[str]


class Site:
    """A place for contexts, and what is not part of any contract: its rows."""

    def __init__(self, environment, stack):
        self.environment = environment
        self._stack = stack

    def open(self):
        cls = load_backend(self.environment["DB_TYPE"]).cls
        return self._stack.enter_context(cls(**cls._settings(self.environment, None)))

    def stored(self, session_id):
        contexts = self.query(CONTEXT, session_id)
        items = self.query(ITEMS, session_id)
        assert list(range(len(items))) == [index for index, _ in items]
        (context,) = contexts or [(None, None, 0, 0)]
        stored = Stored(*context, [item for _, item in items])
        assert stored.list_len == len(items)
        assert stored.list_key is not None or not items
        return stored

    def check(self, session_id, value):
        """Check that the rows are whole, and that the length is that of the value."""
        stored = self.stored(session_id)
        assert payload_bytes(encode_payload(value, "value")) == stored.bytes
        return stored


class SQLiteSite(Site):
    @property
    def path(self):
        return Path(self.environment["SQLITE_DB_PATH"])

    def query(self, statement, *parameters):
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(statement.format("?"), parameters).fetchall()

    def written(self):
        """Return how many bytes were written up to now."""
        # The log only grows, as there are no checkpoints.
        return Path(f"{self.path}-wal").stat().st_size


class PostgresSite(Site):
    def __init__(self, environment, stack):
        super().__init__(environment, stack)
        self._connection = stack.enter_context(
            # Nothing prepared, as there may be a pooler in between.
            psycopg.connect(environment["POSTGRES_DSN"], autocommit=True, prepare_threshold=None)
        )

    def query(self, statement, *parameters):
        return self._connection.execute(statement.format("%s"), parameters).fetchall()

    def written(self):
        """Return how many bytes were written up to now."""
        return int(self.query("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])


@pytest.fixture(params=["sqlite", "postgres"])
def site(request, tmp_path, monkeypatch):
    with ExitStack() as stack:
        if request.param == "sqlite":
            # After one, the log starts anew and does not grow, whatever is written.
            monkeypatch.setattr(Checkpointer, "due", False)
            path = str(tmp_path / "director.db")
            yield SQLiteSite({"DB_TYPE": "sqlite", "SQLITE_DB_PATH": path}, stack)
        else:
            yield PostgresSite(request.getfixturevalue("postgres_environment"), stack)


@pytest.fixture
def db(site):
    return site.open()


@pytest.fixture
def other(site):
    """A second handle, which shares nothing with the first, as one in another process."""
    return site.open()


@pytest.fixture
def session(db):
    db.create_session("s", created_at=1000, updated_at=1000)
    return "s"


@pytest.fixture(autouse=True)
def _nothing_remembered():
    memory.clear()
