"""Bare psycopg on one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from benchmarks.raw.store import columns, encode, now, records
from director_db_postgres.arrays import ADAPTERS, BigintArray, TextArray
from director_db_postgres.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Sequence

# What we send as two statements of one transaction, as one.
_COLUMNS = """session_id, seq, conv_id, msg_id, msg_type, agents, actions, content, status,
    created_at, updated_at, metadata"""
_ON_CONFLICT = """ON CONFLICT (session_id, msg_id) DO UPDATE SET
    conv_id = excluded.conv_id, msg_type = excluded.msg_type, agents = excluded.agents,
    actions = excluded.actions, content = excluded.content, status = excluded.status,
    updated_at = excluded.updated_at, metadata = excluded.metadata"""
_UPSERT = f"""
    WITH session AS (
        UPDATE director_sessions SET last_seq = last_seq + 1, updated_at = greatest(updated_at, $10)
        WHERE session_id = $1 RETURNING last_seq
    )
    INSERT INTO director_conversations ({_COLUMNS})
    SELECT $1, last_seq, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 FROM session
    {_ON_CONFLICT}
""".encode()
_BULK = f"""
    WITH session AS (
        UPDATE director_sessions
        SET last_seq = last_seq + $2, updated_at = greatest(updated_at, $3)
        WHERE session_id = $1 RETURNING last_seq - $2 AS base
    )
    INSERT INTO director_conversations ({_COLUMNS})
    SELECT $1, base + place, conv_id, msg_id, msg_type, agents, actions, content, status,
        created_at, updated_at, metadata
    FROM session CROSS JOIN unnest($4, $5, $6, $7, $8, $9, $10, $11, $12, $13) WITH ORDINALITY
        AS new (conv_id, msg_id, msg_type, agents, actions, content, status, created_at,
                updated_at, metadata, place)
    {_ON_CONFLICT}
""".encode()

_APPEND_CONTEXT = b"""
    WITH session AS (
        UPDATE director_sessions SET updated_at = greatest(updated_at, $2)
        WHERE session_id = $1 RETURNING session_id
    ),
    context AS (
        UPDATE director_context_messages
        SET list_len = list_len + 1, bytes = bytes + $3, version = $2, updated_at = $2
        WHERE session_id = (SELECT session_id FROM session) RETURNING list_len
    )
    INSERT INTO director_context_items (session_id, idx, item)
    SELECT $1, list_len - 1, $4 FROM context
"""

_STATEMENTS = Statements(None)


def _parameters(session_id: str, message: dict[str, Any]) -> tuple[Any, ...]:
    time = now()
    return (session_id, *columns(message, time), time, encode(message["metadata"]))


async def upsert_in_pool(
    pool: AsyncConnectionPool[Any], session_id: str, message: dict[str, Any]
) -> None:
    """Do as `RawPostgres.upsert`, on a connection of an asynchronous pool of `raw_pool`."""
    async with pool.connection() as connection:
        await connection.execute(_UPSERT, _parameters(session_id, message), prepare=True)


def raw_pool(dsn: str, size: int) -> AsyncConnectionPool[Any]:
    """Return psycopg's own pool for coroutines, to be opened."""
    return AsyncConnectionPool(
        dsn,
        min_size=size,
        max_size=size,
        open=False,
        kwargs={
            "autocommit": True,
            "cursor_factory": psycopg.AsyncRawCursor,
            "context": ADAPTERS,
        },
    )


class RawPostgres:
    """One connection in autocommit mode, every statement prepared at its first use.

    Ints are sent as bigint, as we send them: psycopg's own choice by size would prepare each
    statement several times.
    """

    def __init__(self, dsn: str) -> None:
        """Connect to a database that has our tables."""
        self._use(
            psycopg.connect(
                dsn, autocommit=True, cursor_factory=psycopg.RawCursor, context=ADAPTERS
            )
        )

    def _use(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._sql = _STATEMENTS

    @classmethod
    def on(cls, connection: psycopg.Connection[Any]) -> RawPostgres:
        """Use a connection that is there already, as of a pool."""
        raw = cls.__new__(cls)
        raw._use(connection)  # noqa: SLF001 - of this class
        return raw

    def upsert(self, session_id: str, message: dict[str, Any]) -> None:
        """Send one statement."""
        self.connection.execute(_UPSERT, _parameters(session_id, message), prepare=True)

    def bulk(self, session_id: str, messages: Sequence[dict[str, Any]]) -> None:
        """Send one statement, with arrays."""
        time = now()
        rows = [columns(message, time) for message in messages]
        texts = zip(*(row[:7] for row in rows), strict=True)
        count = len(messages)
        parameters = (
            session_id,
            count,
            time,
            *map(TextArray, texts),
            BigintArray([time] * count),
            BigintArray([time] * count),
            TextArray([encode(message["metadata"]) for message in messages]),
        )
        self.connection.execute(_BULK, parameters, prepare=True)

    def read(self, session_id: str) -> list[dict[str, Any]]:
        """Select with our statement, decode, build dicts."""
        statement = self._sql.select_first_messages
        cursor = self.connection.execute(statement, (session_id, 2**63 - 1), prepare=True)
        return records(cursor.fetchall())

    def append_context(self, session_id: str, item: Any) -> None:
        """Touch the session and the context and insert one row, in one statement."""
        time, text = now(), encode(item)
        parameters = (session_id, time, len(text), text)
        self.connection.execute(_APPEND_CONTEXT, parameters, prepare=True)

    def delete_session(self, session_id: str) -> object:
        """Lock the session's row and delete it in one pipeline; the cascade takes its parts."""
        with self.connection.pipeline():
            self.connection.execute(self._sql.lock_session, (session_id,), prepare=True)
            cursor = self.connection.execute(self._sql.delete_session, (session_id,), prepare=True)
        return cursor.fetchall()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
