"""LangGraph's savers: each step stores a checkpoint, the whole state with its list of messages.

What stands for a write is a step that replaces the last message of the state; its cost is that of
the whole list. In an application each step adds the writes of its tasks, which are left out here.
"""

from __future__ import annotations

import contextlib
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint, uuid6

from benchmarks.payloads import context_message


class _SaverStore:
    def __init__(self, saver: Any) -> None:
        self._stack = contextlib.ExitStack()
        self._saver = self._stack.enter_context(saver)
        self._saver.setup()
        self._messages: list[dict[str, Any]] = []
        self._config: Any = {"configurable": {"thread_id": "s1", "checkpoint_ns": ""}}
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
        return self._saver.get_tuple({"configurable": {"thread_id": "s1", "checkpoint_ns": ""}})

    def close(self) -> None:
        """Close the connection."""
        self._stack.close()

    def _put(self) -> None:
        self._step += 1
        checkpoint = empty_checkpoint()
        checkpoint["id"] = str(uuid6(clock_seq=self._step))
        checkpoint["channel_values"] = {"messages": self._messages}
        checkpoint["channel_versions"] = {"messages": self._step}
        self._config = self._saver.put(
            self._config,
            checkpoint,
            {"source": "loop", "step": self._step, "parents": {}},
            {"messages": self._step},
        )


class SqliteSaverStore(_SaverStore):
    """``SqliteSaver``."""

    def __init__(self, place: str) -> None:
        """Create its tables."""
        from langgraph.checkpoint.sqlite import SqliteSaver  # noqa: PLC0415 - a dist of its own

        super().__init__(SqliteSaver.from_conn_string(place))


class PostgresSaverStore(_SaverStore):
    """``PostgresSaver``."""

    def __init__(self, place: str) -> None:
        """Create its tables."""
        from langgraph.checkpoint.postgres import PostgresSaver  # noqa: PLC0415 - as above

        super().__init__(PostgresSaver.from_conn_string(place))
