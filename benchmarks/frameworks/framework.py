"""Which frameworks there are, and which stores they have of their own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.peers.peer import MADE_WAL, SERVER, WAL, Peer

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from benchmarks.frameworks.sessions import Sessions
    from director_db import BaseDB

_SHARED: Final = "sqlalchemy"  # What all sessions are made with imports it.

UNSYNCED: Final = "waits for no disk: survives a kill, not a power cut"


class Framework(NamedTuple):
    """A framework that can be measured.

    Attributes:
        name: as its users know it.
        module: of `benchmarks.frameworks`; its `ours` gives the sessions in our database.
        turn: what is called to add three items and to read all.
        stores: its own, each with the function of that module which gives its sessions.
        durable: whether these wait for the disk; if not, neither does ours beside them.
    """

    name: str
    module: str
    turn: str
    stores: tuple[Peer, ...]
    durable: bool = True

    def ours(self, db: BaseDB) -> AbstractAsyncContextManager[Sessions]:
        """Give sessions of the framework in our database."""
        module = importlib.import_module(f"benchmarks.frameworks.{self.module}")
        sessions: AbstractAsyncContextManager[Sessions] = module.ours(db)
        return sessions


def _on_sqlalchemy(name: str, target: str, *modules: str) -> tuple[Peer, ...]:
    """Return a store that takes any engine of SQLAlchemy, on both databases."""
    needed = (*modules, _SHARED)
    return (
        Peer(name, "sqlite", (*needed, "aiosqlite"), _at(target), MADE_WAL),
        Peer(name, "postgres", needed, _at(target), SERVER),
    )


def _at(target: str) -> str:
    return f"benchmarks.frameworks.{target}"


FRAMEWORKS: Final = (
    Framework(
        "OpenAI Agents SDK",
        "openai_agents",
        "`add_items` with three items of a run, and `get_items`",
        (
            Peer(
                "SQLiteSession",
                "sqlite",
                ("agents", _SHARED),
                _at("openai_agents:sqlite_session"),
                WAL,
            ),
            *_on_sqlalchemy("SQLAlchemySession", "openai_agents:sqlalchemy_session", "agents"),
        ),
    ),
    Framework(
        "LangGraph",
        "langgraph",
        "a step of a graph: `aput_writes` with three messages, `aput` of a state that is longer by "
        "them, and `aget_tuple`",
        (
            Peer(
                "AsyncSqliteSaver",
                "sqlite",
                ("langgraph.checkpoint.sqlite", "aiosqlite", _SHARED),
                _at("langgraph:async_sqlite_saver"),
                WAL,
            ),
            Peer(
                "AsyncPostgresSaver",
                "postgres",
                ("langgraph.checkpoint.postgres", _SHARED),
                _at("langgraph:async_postgres_saver"),
                SERVER,
            ),
        ),
    ),
    Framework(
        "Google ADK",
        "google_adk",
        "`append_event` three times, and `get_session`",
        _on_sqlalchemy(
            "DatabaseSessionService", "google_adk:database_session_service", "google.adk"
        ),
    ),
    Framework(
        "LangChain",
        "langchain",
        "`aadd_messages` with three messages, and `aget_messages`",
        _on_sqlalchemy(
            "SQLChatMessageHistory", "langchain:sql_chat_message_history", "langchain_community"
        ),
    ),
    Framework(
        "LlamaIndex",
        "llama_index",
        "`add_messages` with three messages, and `get_messages`",
        _on_sqlalchemy(
            "SQLAlchemyChatStore", "llama_index:sqlalchemy_chat_store", "llama_index.core"
        ),
    ),
    Framework(
        "Agent Framework",
        "agent_framework",
        "`save_messages` with three messages, and `get_messages`. Its own provider keeps a file "
        "for each session and waits for no disk, so ours has ``SQLITE_SYNCHRONOUS=normal`` there, "
        "which loses as much: nothing by a kill, the latest by a power cut",
        (
            Peer(
                "FileHistoryProvider",
                "sqlite",
                ("agent_framework", _SHARED),
                _at("agent_framework:file_history_provider"),
                UNSYNCED,
            ),
        ),
        durable=False,
    ),
)
"""Those of integrations/ that have a durable store of their own; the others keep what they are told
in memory."""
