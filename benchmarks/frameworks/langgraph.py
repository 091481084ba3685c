"""Checkpointers of LangGraph: a step stores what its task wrote, and the state with its messages.

A thread has one checkpoint at first: the older ones of a long thread would make only the file
larger. What a thread is at, the graph knows that runs in it, so opening reads nothing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from benchmarks.frameworks.langchain_messages import message
from benchmarks.frameworks.sessions import Sessions, copy_in, copy_rows
from benchmarks.peers.event_loop import engine_at
from benchmarks.peers.langgraph import checkpoint_of, postgres_pool
from director_db_integrations.langgraph import DirectorSaver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.frameworks.sessions import Copy
    from director_db import BaseDB


class _Thread:
    def __init__(self, name: str) -> None:
        self.name = name
        self.step = 0
        self.messages: list[Any] = []
        self.config: Any = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}


class _Threads(Sessions):
    def __init__(self, saver: Any, copy: Copy) -> None:
        super().__init__(_Thread, copy)
        self._saver = saver
        self._threads: dict[str, _Thread] = {}

    async def fill(self, names: Sequence[str], count: int) -> None:
        await super().fill(names, count)
        first = self._threads[names[0]]
        for name in names[1:]:
            thread = self._threads[name] = _Thread(name)
            thread.step, thread.messages = first.step, first.messages
            configured = first.config["configurable"] | {"thread_id": name}
            thread.config = {"configurable": configured}

    async def open(self, name: str) -> Any:
        return self._threads.setdefault(name, _Thread(name))

    async def add(self, session: Any, numbers: Sequence[int]) -> None:
        said = [message(number) for number in numbers]
        await self._saver.aput_writes(session.config, [("messages", said)], f"t{session.step}")
        await self._put(session, said)

    async def add_many(self, session: Any, numbers: Sequence[int]) -> None:
        await self._put(session, [message(number) for number in numbers])

    async def read(self, session: Any) -> Sequence[Any]:
        found = await self._saver.aget_tuple({"configurable": {"thread_id": session.name}})
        messages: Sequence[Any] = found.checkpoint["channel_values"]["messages"]
        return messages

    async def _put(self, thread: _Thread, said: list[Any]) -> None:
        thread.step += 1
        thread.messages = [*thread.messages, *said]
        stored = checkpoint_of(thread.step, thread.messages)
        thread.config = await self._saver.aput(thread.config, *stored)


@contextlib.asynccontextmanager
async def ours(db: BaseDB) -> AsyncIterator[Sessions]:
    """Give threads in our database."""
    yield _Threads(DirectorSaver(db), copy_in(db))


@contextlib.asynccontextmanager
async def async_sqlite_saver(place: str) -> AsyncIterator[Sessions]:
    """Give threads of ``AsyncSqliteSaver``."""
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # noqa: PLC0415 - its own dist

    async with (
        AsyncSqliteSaver.from_conn_string(place) as saver,
        _threads_of(saver, place) as threads,
    ):
        yield threads


@contextlib.asynccontextmanager
async def async_postgres_saver(place: str) -> AsyncIterator[Sessions]:
    """Give threads of ``AsyncPostgresSaver`` with a pool of ten connections, as ours has."""
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: PLC0415 - as above

    async with (
        postgres_pool(place) as pool,
        _threads_of(AsyncPostgresSaver(pool), place) as threads,
    ):
        yield threads


@contextlib.asynccontextmanager
async def _threads_of(saver: Any, place: str) -> AsyncIterator[Sessions]:
    await saver.setup()
    async with engine_at(place) as engine:
        yield _Threads(saver, copy_rows(engine, "thread_id"))
