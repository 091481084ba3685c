"""The sessions of the OpenAI Agents SDK: a list of items that is appended to."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from agents.extensions.memory import SQLAlchemySession
from agents.memory import SQLiteSession

from benchmarks.payloads import context_message
from benchmarks.peers.event_loop import LoopedStore, engine_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence


class SQLAlchemySessionStore(LoopedStore):
    """``SQLAlchemySession``: a write is ``add_items`` with one item, and reading ``get_items``."""

    def __init__(self, place: str, session: str) -> None:
        """Create its tables."""
        super().__init__(place)
        self._count = 0
        self._session: Any = self._open(place, session)
        self.run(self._session.add_items([]))

    def _open(self, _place: str, session: str) -> Any:
        return SQLAlchemySession(session, engine=self.engine(), create_tables=True)

    def fill(self, count: int) -> None:
        """Add what is missing."""
        self.write_many(count - self._count)

    def write(self) -> None:
        """Add one item."""
        self.write_many(1)

    def write_many(self, count: int) -> None:
        """Add items."""
        items = [context_message(self._count + number) for number in range(count)]
        self.run(self._session.add_items(items))
        self._count += count

    def read(self) -> object:
        """Get all items."""
        return self.run(self._session.get_items())


class SQLiteSessionStore(SQLAlchemySessionStore):
    """``SQLiteSession``: as above, on the ``sqlite3`` module in a thread."""

    def _open(self, place: str, session: str) -> Any:
        return SQLiteSession(session, place)

    def close(self) -> None:
        """Close the session, too."""
        self._session.close()
        super().close()


@contextlib.asynccontextmanager
async def sessions_of_coroutines(
    place: str, count: int
) -> AsyncIterator[Sequence[Callable[[], Awaitable[object]]]]:
    """Give as many sessions on one engine; a call adds one item."""
    async with engine_at(place) as engine:
        await SQLAlchemySession("s", engine=engine, create_tables=True).get_items()

        def storing(number: int) -> Callable[[], Awaitable[object]]:
            session: Any = SQLAlchemySession(f"s{number}", engine=engine)
            steps = itertools.count()
            return lambda: session.add_items([context_message(next(steps))])

        yield list(map(storing, range(count)))
