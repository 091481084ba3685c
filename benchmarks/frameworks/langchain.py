"""Chat message histories of LangChain."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from langchain_community.chat_message_histories import SQLChatMessageHistory

from benchmarks.frameworks.langchain_messages import message
from benchmarks.frameworks.sessions import Sessions, copy_in, copy_rows
from benchmarks.peers.event_loop import engine_at
from director_db_integrations.langchain import DirectorChatMessageHistory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from director_db import BaseDB


class _Histories(Sessions):
    async def open(self, name: str) -> Any:
        history = self._new(name)
        await history.aadd_messages([])  # It looks whether its table is there.
        return history

    async def add(self, session: Any, numbers: Sequence[int]) -> None:
        await session.aadd_messages([*map(message, numbers)])

    async def read(self, session: Any) -> Sequence[Any]:
        messages: Sequence[Any] = await session.aget_messages()
        return messages


@contextlib.asynccontextmanager
async def ours(db: BaseDB) -> AsyncIterator[Sessions]:
    """Give histories in our database."""
    yield _Histories(lambda name: DirectorChatMessageHistory(name, db), copy_in(db))


@contextlib.asynccontextmanager
async def sql_chat_message_history(place: str) -> AsyncIterator[Sessions]:
    """Give histories of ``SQLChatMessageHistory`` on one engine."""
    async with engine_at(place) as engine:
        yield _Histories(
            lambda name: SQLChatMessageHistory(name, connection=engine),
            copy_rows(engine, "session_id"),
        )
