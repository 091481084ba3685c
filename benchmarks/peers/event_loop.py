"""Calling asynchronous libraries, and SQLAlchemy's engines for them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import create_async_engine

from director_db_conformance.dsn import parts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


class LoopedStore:
    """A store with an event loop of its own, and an engine in it.

    To enter the loop costs some tens of microseconds for each call, which an application that is
    asynchronous throughout does not pay.
    """

    def __init__(self, place: str) -> None:
        """Make the loop and the engine."""
        self._loop = asyncio.new_event_loop()
        self._engine: AsyncEngine | None = None
        self._place = place

    def engine(self) -> AsyncEngine:
        """Return the engine for the place, a path or a DSN."""
        if self._engine is None:
            self._engine = engine_of(self._place)
        return self._engine

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it to its end."""
        return self._loop.run_until_complete(coroutine)

    def close(self) -> None:
        """Close the engine and the loop."""
        if self._engine is not None:
            self.run(self._engine.dispose())
        self.run(self._loop.shutdown_asyncgens())
        self.run(self._loop.shutdown_default_executor())
        self._loop.close()


@contextlib.asynccontextmanager
async def engine_at(place: str) -> AsyncIterator[AsyncEngine]:
    """Give an engine for a place, and dispose of it."""
    engine = engine_of(place)
    try:
        yield engine
    finally:
        await engine.dispose()


def engine_of(place: str) -> AsyncEngine:
    """Return an engine for a place, a path or a DSN."""
    if place.startswith("postgresql://"):
        known = parts(place)
        url = URL.create(
            "postgresql+psycopg",
            username=known["user"],
            password=known["password"],
            host=known["host"],
            port=int(known["port"]),
            database=known["dbname"],
        )
        # As many connections as ours has; by default it keeps five.
        return create_async_engine(url, pool_size=10, max_overflow=0)
    url = URL.create("sqlite+aiosqlite", database=place)
    # Of a hundred writers some wait for longer than the 5 s that it has by default.
    engine = create_async_engine(url, connect_args={"timeout": 60})
    event.listen(engine.sync_engine, "connect", _make_equally_durable)
    return engine


def _make_equally_durable(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()
