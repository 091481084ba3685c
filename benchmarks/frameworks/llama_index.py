"""Stores of LlamaIndex's ``Memory``: one for all keys."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore
from sqlalchemy import text

from benchmarks.frameworks.sessions import Sessions, copy_in, copy_rows
from benchmarks.payloads import context_message
from benchmarks.peers.event_loop import engine_at
from director_db_integrations.llama_index import DirectorMemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from director_db import BaseDB


class _Keys(Sessions):
    async def add(self, session: Any, numbers: Sequence[int]) -> None:
        store, key = session
        await store.add_messages(key, [ChatMessage(**context_message(each)) for each in numbers])

    async def read(self, session: Any) -> Sequence[Any]:
        store, key = session
        messages: Sequence[Any] = await store.get_messages(key)
        return messages


@contextlib.asynccontextmanager
async def ours(db: BaseDB) -> AsyncIterator[Sessions]:
    """Give keys in our database."""
    store = DirectorMemoryStore(db)
    yield _Keys(lambda name: (store, name), copy_in(db))


@contextlib.asynccontextmanager
async def sqlalchemy_chat_store(place: str) -> AsyncIterator[Sessions]:
    """Give keys of ``SQLAlchemyChatStore``."""
    async with engine_at(place) as engine:
        copy = copy_rows(engine, "key")

        async def copy_and_analyze(name: str, others: Sequence[str]) -> None:
            await copy(name, others)
            # Its indexes are created in any order, and without knowing more, SQLite takes the one
            # of the keys or that of the status, which all messages have, by that.
            async with engine.begin() as connection:
                await connection.execute(text("ANALYZE"))

        store = SQLAlchemyChatStore(table_name="messages", async_engine=engine)
        yield _Keys(lambda name: (store, name), copy_and_analyze)
