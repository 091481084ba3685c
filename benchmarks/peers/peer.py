"""Which peers there are, and what each must be able to do to be measured."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from benchmarks.frameworks.sessions import Sessions

    StoreFromCoroutines = Callable[
        [str, int], AbstractAsyncContextManager[Sequence[Callable[[], Awaitable[object]]]]
    ]


class PeerStore(Protocol):
    """One conversation in a peer's own database."""

    def fill(self, count: int) -> None:
        """Make the conversation, at first empty, `count` messages long."""

    def write(self) -> None:
        """Store one message durably: a new one, or the newest text of the last one."""

    def write_many(self, count: int) -> None:
        """Store new messages durably, in one call."""

    def read(self) -> object:
        """Return the whole conversation."""

    def close(self) -> None:
        """Close what is open."""


class Peer(NamedTuple):
    """A library that can be measured.

    Attributes:
        name: its class, as its users know it.
        backend: ``sqlite`` or ``postgres``.
        modules: what must be importable.
        target: ``module:Class`` of the `PeerStore`, built with the place and the session's id; of
            `ASYNC_PEERS` a function: of the place and a number of coroutines, which each store in a
            conversation of their own, it gives the call of each. Of the stores of
            `benchmarks.frameworks` one of the place, which gives its `Sessions`.
        durability: what has happened when a write returns, and what we set to make it equal.
        keeps_all: whether each write stores the whole conversation again.
    """

    name: str
    backend: str
    modules: tuple[str, ...]
    target: str
    durability: str
    keeps_all: bool = False

    def open(self, place: str, session: str = "s1") -> PeerStore:
        """Open a place, a path or a DSN, for a session that nobody has used before."""
        store: PeerStore = self._load()(place, session)
        return store

    def coroutines(
        self, place: str, count: int
    ) -> AbstractAsyncContextManager[Sequence[Callable[[], Awaitable[object]]]]:
        """Open a place for so many coroutines."""
        calls: StoreFromCoroutines = self._load()
        return calls(place, count)

    def sessions(self, place: str) -> AbstractAsyncContextManager[Sessions]:
        """Open a place for the sessions of a framework."""
        sessions: AbstractAsyncContextManager[Sessions] = self._load()(place)
        return sessions

    def _load(self) -> Any:
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


WAL: Final = "WAL (its own choice), synchronous=FULL (SQLite's default)"
MADE_WAL: Final = "rollback journal by default; WAL set for this run, synchronous=FULL"
SERVER: Final = "synchronous_commit=on, fsync=on"

PEERS: Final = (
    Peer(
        "Agents SDK SQLiteSession",
        "sqlite",
        ("agents",),
        "benchmarks.peers.agents_sdk:SQLiteSessionStore",
        WAL,
    ),
    Peer(
        "Agents SDK SQLAlchemySession",
        "sqlite",
        ("agents", "sqlalchemy", "aiosqlite"),
        "benchmarks.peers.agents_sdk:SQLAlchemySessionStore",
        WAL,
    ),
    Peer(
        "LangGraph SqliteSaver",
        "sqlite",
        ("langgraph.checkpoint.sqlite",),
        "benchmarks.peers.langgraph:SqliteSaverStore",
        WAL,
        keeps_all=True,
    ),
    Peer(
        "LlamaIndex SQLAlchemyChatStore",
        "sqlite",
        ("llama_index.core", "sqlalchemy", "aiosqlite"),
        "benchmarks.peers.llama_index:ChatStoreStore",
        MADE_WAL,
    ),
    Peer(
        "Agents SDK SQLAlchemySession",
        "postgres",
        ("agents", "sqlalchemy"),
        "benchmarks.peers.agents_sdk:SQLAlchemySessionStore",
        SERVER,
    ),
    Peer(
        "LangGraph PostgresSaver",
        "postgres",
        ("langgraph.checkpoint.postgres",),
        "benchmarks.peers.langgraph:PostgresSaverStore",
        SERVER,
        keeps_all=True,
    ),
    Peer(
        "LlamaIndex SQLAlchemyChatStore",
        "postgres",
        ("llama_index.core", "sqlalchemy"),
        "benchmarks.peers.llama_index:ChatStoreStore",
        SERVER,
    ),
)

ASYNC_PEERS: Final = (
    Peer(
        "Agents SDK SQLAlchemySession",
        "sqlite",
        ("agents", "sqlalchemy", "aiosqlite"),
        "benchmarks.peers.agents_sdk:sessions_of_coroutines",
        WAL,
    ),
    Peer(
        "LangGraph AsyncSqliteSaver",
        "sqlite",
        ("langgraph.checkpoint.sqlite", "aiosqlite"),
        "benchmarks.peers.langgraph:sqlite_saver_of_coroutines",
        WAL,
    ),
    Peer(
        "Agents SDK SQLAlchemySession",
        "postgres",
        ("agents", "sqlalchemy"),
        "benchmarks.peers.agents_sdk:sessions_of_coroutines",
        SERVER,
    ),
    Peer(
        "LangGraph AsyncPostgresSaver",
        "postgres",
        ("langgraph.checkpoint.postgres",),
        "benchmarks.peers.langgraph:postgres_saver_of_coroutines",
        SERVER,
    ),
)
"""Those that have a store for coroutines, which those of one loop share."""

PACKAGES: Final = (
    "openai-agents",
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-postgres",
    "google-adk",
    "langchain-community",
    "llama-index-core",
    "agent-framework-core",
    "SQLAlchemy",
)
"""The distributions whose versions a report names."""


def installed_peers(backend: str, known: Sequence[Peer] = PEERS) -> Iterator[Peer]:
    """Yield the peers of a backend whose modules are there."""
    for peer in known:
        if peer.backend == backend and all(map(_is_there, peer.modules)):
            yield peer


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False
