"""LangGraph's savers: each step stores a checkpoint, the whole state with its list of messages.

What stands for a write is a step that replaces the last message of the state; its cost is that of
the whole list. In an application each step adds the writes of its tasks, which are left out here.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import empty_checkpoint, uuid6

from benchmarks.payloads import context_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    Calls = Sequence[Callable[[], Awaitable[object]]]


class _SaverStore:
    def __init__(self, saver: Any, thread: str) -> None:
        self._stack = contextlib.ExitStack()
        self._saver = self._stack.enter_context(saver)
        self._saver.setup()
        self._messages: list[dict[str, Any]] = []
        self._latest: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        self._config = self._latest
        self._step = 0

    def fill(self, count: int) -> None:
        """Put one checkpoint of that length."""
        self.write_many(count - len(self._messages))

    def write(self) -> None:
        """Put a checkpoint whose last message has changed."""
        if self._messages:
            self._messages[-1] = context_message(self._step)
        else:
            self._messages.append(context_message(self._step))
        self._put()

    def write_many(self, count: int) -> None:
        """Put a checkpoint that is longer by so many messages."""
        start = len(self._messages)
        self._messages += [context_message(start + number) for number in range(count)]
        self._put()

    def read(self) -> object:
        """Get the latest checkpoint."""
        return self._saver.get_tuple(self._latest)

    def close(self) -> None:
        """Close the connection."""
        self._stack.close()

    def _put(self) -> None:
        self._step += 1
        self._config = self._saver.put(self._config, *checkpoint_of(self._step, self._messages))


def checkpoint_of(step: int, messages: list[Any]) -> tuple[Any, ...]:
    """Return the arguments of ``put`` behind the config: a checkpoint of that step."""
    checkpoint = empty_checkpoint()
    checkpoint["id"] = str(uuid6(clock_seq=step))
    checkpoint["channel_values"] = {"messages": messages}
    checkpoint["channel_versions"] = {"messages": step}
    metadata = {"source": "loop", "step": step, "parents": {}}
    return checkpoint, metadata, {"messages": step}


class SqliteSaverStore(_SaverStore):
    """``SqliteSaver``."""

    def __init__(self, place: str, session: str) -> None:
        """Create its tables."""
        from langgraph.checkpoint.sqlite import SqliteSaver  # noqa: PLC0415 - a dist of its own

        super().__init__(SqliteSaver.from_conn_string(place), session)


class PostgresSaverStore(_SaverStore):
    """``PostgresSaver``."""

    def __init__(self, place: str, session: str) -> None:
        """Create its tables."""
        from langgraph.checkpoint.postgres import PostgresSaver  # noqa: PLC0415 - as above

        super().__init__(PostgresSaver.from_conn_string(place), session)


@contextlib.asynccontextmanager
async def sqlite_saver_of_coroutines(place: str, count: int) -> AsyncIterator[Calls]:
    """Give threads of one ``AsyncSqliteSaver``; a call puts a checkpoint of one message."""
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # noqa: PLC0415 - as above

    async with AsyncSqliteSaver.from_conn_string(place) as saver:
        await saver.setup()
        yield _calls(saver, count)


@contextlib.asynccontextmanager
async def postgres_saver_of_coroutines(place: str, count: int) -> AsyncIterator[Calls]:
    """The same of an ``AsyncPostgresSaver`` with a pool of ten connections, as ours has."""
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: PLC0415 - as above

    async with postgres_pool(place) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        yield _calls(saver, count)


def postgres_pool(place: str) -> Any:
    """Return a pool for an ``AsyncPostgresSaver``, which opens as a context manager."""
    from psycopg.rows import dict_row  # noqa: PLC0415 - as above
    from psycopg_pool import AsyncConnectionPool  # noqa: PLC0415 - with it

    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    return AsyncConnectionPool(place, min_size=10, max_size=10, open=False, kwargs=options)


def _calls(saver: Any, count: int) -> Calls:
    def storing(number: int) -> Callable[[], Awaitable[object]]:
        config = {"configurable": {"thread_id": f"s{number}", "checkpoint_ns": ""}}
        step = 0

        async def store() -> None:
            nonlocal config, step
            step += 1
            config = await saver.aput(config, *checkpoint_of(step, [context_message(step)]))

        return store

    return list(map(storing, range(count)))
