"""LlamaIndex's ``SQLAlchemyChatStore``: a table of messages by key."""

from __future__ import annotations

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore

from benchmarks.payloads import context_message
from benchmarks.peers.event_loop import LoopedStore


class ChatStoreStore(LoopedStore):
    """A write is ``add_message``, many are ``add_messages``, reading is ``get_messages``."""

    # SQLite takes at most 32,766 parameters in a statement, and each message has five.
    _MOST = 5_000

    def __init__(self, place: str, session: str) -> None:
        """Create its table."""
        super().__init__(place)
        self._key = session
        self._count = 0
        self._store = SQLAlchemyChatStore(table_name="messages", async_engine=self.engine())
        self.run(self._store.get_messages(self._key))

    def fill(self, count: int) -> None:
        """Add what is missing."""
        while self._count < count:
            self.write_many(min(self._MOST, count - self._count))

    def write(self) -> None:
        """Add one message."""
        self.run(self._store.add_message(self._key, self._next()))

    def write_many(self, count: int) -> None:
        """Add messages."""
        self.run(self._store.add_messages(self._key, [self._next() for _ in range(count)]))

    def read(self) -> object:
        """Get all messages, as objects of the library."""
        return self.run(self._store.get_messages(self._key))

    def _next(self) -> ChatMessage:
        self._count += 1
        return ChatMessage(**context_message(self._count))
