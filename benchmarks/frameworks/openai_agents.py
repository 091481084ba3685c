"""Sessions of the OpenAI Agents SDK, which a run reads once and adds its items to."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from agents.extensions.memory import SQLAlchemySession
from agents.memory import SQLiteSession

from benchmarks.frameworks.sessions import Sessions, copy_in, copy_rows
from benchmarks.payloads import context_message
from benchmarks.peers.event_loop import engine_at
from director_db_integrations.openai_agents import DirectorSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from director_db import BaseDB

_COLUMN = "session_id"


class _Sessions(Sessions):
    async def add(self, session: Any, numbers: Sequence[int]) -> None:
        await session.add_items([*map(context_message, numbers)])

    async def read(self, session: Any) -> Sequence[Any]:
        items: Sequence[Any] = await session.get_items()
        return items


class _Files(_Sessions):
    async def open(self, name: str) -> Any:
        session = self._new(name)
        await session.get_items(limit=1)  # It connects, each session for itself.
        return session

    async def close(self, session: Any) -> None:
        session.close()


@contextlib.asynccontextmanager
async def ours(db: BaseDB) -> AsyncIterator[Sessions]:
    """Give sessions in our database."""
    yield _Sessions(lambda name: DirectorSession(name, db), copy_in(db))


@contextlib.asynccontextmanager
async def sqlite_session(place: str) -> AsyncIterator[Sessions]:
    """Give sessions of ``SQLiteSession``."""
    async with engine_at(place) as engine:
        yield _Files(lambda name: SQLiteSession(name, place), copy_rows(engine, _COLUMN))


@contextlib.asynccontextmanager
async def sqlalchemy_session(place: str) -> AsyncIterator[Sessions]:
    """Give sessions of ``SQLAlchemySession`` on one engine."""
    async with engine_at(place) as engine:
        await SQLAlchemySession("", engine=engine, create_tables=True).get_items()
        yield _Sessions(
            lambda name: SQLAlchemySession(name, engine=engine), copy_rows(engine, _COLUMN)
        )
