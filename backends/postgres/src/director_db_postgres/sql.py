"""The statements, one a name; `Statements` puts the schema's name into them once.

Values are always parameters (``$1``). Each statement names the session in every condition, so that
the tables can be sharded by it. A write first locks the session's row: by updating it, or with
`LOCK_SESSION` where what follows must see what others wrote while it waited for that lock.
"""

from __future__ import annotations

import itertools
from typing import Final

from psycopg import sql

SELECT_SCHEMA_VERSION: Final = (
    "SELECT value FROM {schema}director_meta WHERE key = 'schema_version'"
)

# Without a schema's name the search path is searched; but only its first schema is ours, or else it
# would depend on who comes first whether two users of a database share their tables.
SELECT_OWN_SCHEMA_VERSION: Final = """
    SELECT value FROM director_meta WHERE key = 'schema_version'
    AND tableoid = to_regclass(quote_ident(current_schema()) || '.director_meta')
"""

# --- Sessions -----------------------------------------------------------------------------------

_SESSION_COLUMNS: Final = "session_id, video_id, collection_id, created_at, updated_at, metadata"

INSERT_SESSION: Final = f"""
    INSERT INTO {{schema}}director_sessions ({_SESSION_COLUMNS}, last_seq)
    VALUES ($1, $2, $3, $4, $5, $6, 0)
    ON CONFLICT (session_id) DO NOTHING
"""

SELECT_SESSION: Final = f"""
    SELECT {_SESSION_COLUMNS} FROM {{schema}}director_sessions WHERE session_id = $1
"""

# Each flag says whether the value after it is stored or the column stays.
UPDATE_SESSION: Final = """
    UPDATE {schema}director_sessions SET
        video_id = CASE WHEN $3 THEN $4 ELSE video_id END,
        collection_id = CASE WHEN $5 THEN $6 ELSE collection_id END,
        metadata = CASE WHEN $7 THEN $8 ELSE metadata END,
        updated_at = $2
    WHERE session_id = $1
"""

LOCK_SESSION: Final = """
    SELECT FROM {schema}director_sessions WHERE session_id = $1 FOR UPDATE
"""

# A session that appears between LOCK_SESSION and the statement after it is not locked, and what
# that statement sees of it may be old when it writes; so for it there is no session. Who locks a
# row leaves the transaction's own number in its xmax, whose age is 0, and that of no other number
# is. `pg_current_xact_id()` would say it more plainly, but a sharded server asks itself and not the
# shard. To fail in LOCK_SESSION instead, as by a division, would fill the server's log.
_IS_LOCKED: Final = "age(xmax) = 0"

# What is selected is the state before the statement; the parts go with the session's row. The first
# message by its place, as an EXISTS is answered by reading the table where few sessions are long.
DELETE_SESSION: Final = f"""
    WITH session AS (
        DELETE FROM {{schema}}director_sessions WHERE session_id = $1 AND {_IS_LOCKED}
        RETURNING session_id
    )
    SELECT
        EXISTS (SELECT FROM session) AND (
            SELECT seq FROM {{schema}}director_conversations WHERE session_id = $1
            ORDER BY seq LIMIT 1
        ) IS NOT NULL,
        EXISTS (SELECT FROM session) AND EXISTS (
            SELECT FROM {{schema}}director_context_messages WHERE session_id = $1
        ),
        EXISTS (SELECT FROM session)
"""


def _select_sessions(*, before: bool, video: bool, collection: bool) -> str:
    """Return the statement of a page of sessions; its parameters in the order of the arguments.

    A filter is written as a range, and its column stands first in the order. As an equation, it
    would let the planner walk all sessions by activity and drop those of others: fast if they are
    evenly mixed, and slow as a scan if the wanted ones are all old.
    """
    number = itertools.count(1)
    order = ["updated_at", "created_at", "session_id"]
    cursor = [f"${next(number)}" for _ in order] if before else []
    wanted = [
        (column, f"${next(number)}")
        for column, is_wanted in (("video_id", video), ("collection_id", collection))
        if is_wanted
    ]
    conditions = [f"{column} = {value}" for column, value in wanted[1:]]
    for column, value in wanted[:1]:
        conditions.append(f"{column} >= {value}")
        order.insert(0, column)
        if before:
            cursor.insert(0, value)
        else:
            conditions.append(f"{column} <= {value}")
    if before:
        conditions.append(f"({', '.join(order)}) < ({', '.join(cursor)})")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"""
        SELECT {_SESSION_COLUMNS} FROM {{schema}}director_sessions {where}
        ORDER BY {" DESC, ".join(order)} DESC
        LIMIT ${next(number)}
    """


# --- Messages -----------------------------------------------------------------------------------

_UPDATE_MESSAGE: Final = """
    conv_id = excluded.conv_id,
    msg_type = excluded.msg_type,
    agents = excluded.agents,
    actions = excluded.actions,
    content = excluded.content,
    status = excluded.status,
    updated_at = excluded.updated_at,
    metadata = excluded.metadata
"""

# An assigned place is never given again, so the counter also counts updates: gaps are harmless.
UPSERT_MESSAGE: Final = f"""
    WITH session AS (
        UPDATE {{schema}}director_sessions
        SET last_seq = last_seq + 1, updated_at = greatest(updated_at, $11)
        WHERE session_id = $1
        RETURNING last_seq
    )
    INSERT INTO {{schema}}director_conversations AS stored
        (session_id, seq, conv_id, msg_id, msg_type, agents, actions, content, status,
         created_at, updated_at, metadata)
    SELECT $1, last_seq, $2, $3, $4, $5, $6, $7, $8, $9, $11, $12
    FROM session
    ON CONFLICT (session_id, msg_id) DO UPDATE SET
        created_at = CASE WHEN $10 THEN excluded.created_at ELSE stored.created_at END,
        {_UPDATE_MESSAGE}
"""

# Whether a row's created_at was given is no column, so the conflict finds it by the row's place.
UPSERT_MESSAGES: Final = f"""
    WITH session AS (
        UPDATE {{schema}}director_sessions
        SET last_seq = last_seq + $2, updated_at = greatest(updated_at, $3)
        WHERE session_id = $1
        RETURNING last_seq - $2 AS base
    )
    INSERT INTO {{schema}}director_conversations AS stored
        (session_id, seq, conv_id, msg_id, msg_type, agents, actions, content, status,
         created_at, updated_at, metadata)
    SELECT $1, base + place, conv_id, msg_id, msg_type, agents, actions, content, status,
        created_at, updated_at, metadata
    FROM session CROSS JOIN
        unnest($4, $5, $6, $7, $8, $9, $10, $11, $13, $14) WITH ORDINALITY
        AS new (conv_id, msg_id, msg_type, agents, actions, content, status,
                created_at, updated_at, metadata, place)
    ON CONFLICT (session_id, msg_id) DO UPDATE SET
        created_at = CASE
            WHEN ($12)[(excluded.seq - (SELECT base FROM session))::integer]
            THEN excluded.created_at
            ELSE stored.created_at
        END,
        {_UPDATE_MESSAGE}
"""

_MESSAGE_COLUMNS: Final = """
    session_id, conv_id, msg_id, msg_type, agents, actions, content, status, created_at,
    updated_at, metadata
"""

SELECT_MESSAGE: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1 AND msg_id = $2
"""

SELECT_FIRST_MESSAGES: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1 ORDER BY seq LIMIT $2
"""

SELECT_LAST_MESSAGES: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1 ORDER BY seq DESC LIMIT $2
"""

# The second part gives one row, with no msg_id, where the session exists and the cursor does not;
# only a single statement sees the two and the page in one state, and takes one round trip.
_SELECT_MESSAGES_BY_CURSOR: Final = f"""
    (
        SELECT {_MESSAGE_COLUMNS} FROM {{{{schema}}}}director_conversations
        WHERE session_id = $1 AND seq {{comparison}} (
            SELECT seq FROM {{{{schema}}}}director_conversations
            WHERE session_id = $1 AND msg_id = $2
        )
        ORDER BY seq {{direction}} LIMIT $3
    )
    UNION ALL
    SELECT session_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM {{{{schema}}}}director_sessions
    WHERE session_id = $1 AND NOT EXISTS (
        SELECT FROM {{{{schema}}}}director_conversations WHERE session_id = $1 AND msg_id = $2
    )
"""

SELECT_MESSAGES_AFTER: Final = _SELECT_MESSAGES_BY_CURSOR.format(comparison=">", direction="ASC")

SELECT_MESSAGES_BEFORE: Final = _SELECT_MESSAGES_BY_CURSOR.format(comparison="<", direction="DESC")

DELETE_MESSAGE: Final = """
    DELETE FROM {schema}director_conversations WHERE session_id = $1 AND msg_id = $2
"""

DELETE_MESSAGES: Final = "DELETE FROM {schema}director_conversations WHERE session_id = $1"

# --- Context ------------------------------------------------------------------------------------

# Both writes of a context are sent after LOCK_SESSION, so that `known` is what the writer before us
# stored. Where there is no session, or its context is not as expected, no part finds a row.

# An item that is stored already is not written; one beyond the stored list need not be looked for.
# That look is a subquery of its own for each item and not a join, which the planner might turn into
# reading the whole list.
SAVE_CONTEXT: Final = f"""
    WITH known AS (
        SELECT version, list_len FROM {{schema}}director_context_messages WHERE session_id = $1
    ),
    session AS (
        UPDATE {{schema}}director_sessions
        SET updated_at = greatest(updated_at, $11)
        WHERE session_id = $1 AND {_IS_LOCKED}
            AND ($2 < 0 OR $2 = coalesce((SELECT version FROM known), 0))
        RETURNING session_id
    ),
    context AS (
        INSERT INTO {{schema}}director_context_messages AS stored
            (session_id, context_data, list_key, list_len, bytes, version, created_at, updated_at,
             metadata)
        SELECT session_id, $3, $5, $6, $7, $8, $9, $11, $12
        FROM session
        ON CONFLICT (session_id) DO UPDATE SET
            context_data = CASE WHEN $4 THEN excluded.context_data ELSE stored.context_data END,
            list_key = excluded.list_key,
            list_len = excluded.list_len,
            bytes = excluded.bytes,
            version = excluded.version,
            created_at = CASE WHEN $10 THEN excluded.created_at ELSE stored.created_at END,
            updated_at = excluded.updated_at,
            metadata = excluded.metadata
        RETURNING session_id
    ),
    deleted AS (
        DELETE FROM {{schema}}director_context_items
        WHERE session_id = $1 AND idx >= $6 AND $6 < (SELECT list_len FROM known)
            AND EXISTS (SELECT FROM context)
    ),
    written AS (
        INSERT INTO {{schema}}director_context_items (session_id, idx, item)
        SELECT session_id, new.idx, new.item
        FROM context CROSS JOIN unnest($13, $14) AS new (idx, item)
        WHERE context.session_id = $1 AND (
            new.idx >= coalesce((SELECT list_len FROM known), 0)
            OR new.item IS DISTINCT FROM (
                SELECT stored.item FROM {{schema}}director_context_items AS stored
                WHERE stored.session_id = $1 AND stored.idx = new.idx
            )
        )
        ON CONFLICT (session_id, idx) DO UPDATE SET item = excluded.item
    )
    SELECT EXISTS (SELECT FROM context), (SELECT version FROM known)
"""

# A comma stands between two items, so that a list's first item comes without.
APPEND_TO_CONTEXT: Final = f"""
    WITH known AS (
        SELECT version, list_key = $2 AS same_list,
            bytes + $6 - (list_len = 0 AND $4 > 0)::integer AS bytes
        FROM {{schema}}director_context_messages
        WHERE session_id = $1
    ),
    session AS (
        UPDATE {{schema}}director_sessions
        SET updated_at = greatest(updated_at, $8)
        WHERE session_id = $1 AND {_IS_LOCKED} AND (
            NOT EXISTS (SELECT FROM known)
            OR coalesce((SELECT same_list AND bytes <= $9 FROM known), false)
        )
        RETURNING session_id
    ),
    context AS (
        INSERT INTO {{schema}}director_context_messages AS stored
            (session_id, context_data, list_key, list_len, bytes, version, created_at, updated_at,
             metadata)
        SELECT session_id, $3, $2, $4, $5, $7, $8, $8, '{{{{}}}}'
        FROM session
        ON CONFLICT (session_id) DO UPDATE SET
            list_len = stored.list_len + excluded.list_len,
            bytes = (SELECT bytes FROM known),
            version = excluded.version,
            updated_at = excluded.updated_at
        RETURNING session_id, list_len
    ),
    written AS (
        INSERT INTO {{schema}}director_context_items (session_id, idx, item)
        SELECT session_id, list_len - $4 + place - 1, item
        FROM context CROSS JOIN unnest($10) WITH ORDINALITY AS new (item, place)
    )
    SELECT (SELECT list_len FROM context), (SELECT version FROM known)
"""

# What an append whose answer was lost has left behind.
SELECT_CONTEXT_LENGTH: Final = """
    SELECT list_len FROM {schema}director_context_messages WHERE session_id = $1 AND version = $2
"""

# One statement, so that both tables are seen in one state; the context's own row has index -1. No
# order is asked for: the server would sort long texts, on its disk if there are many, where the
# client sorts rows by a number, which are nearly always in order.
SELECT_CONTEXT: Final = """
    SELECT -1::bigint, session_id, context_data, version, created_at, updated_at, metadata, list_key
    FROM {schema}director_context_messages WHERE session_id = $1
    UNION ALL
    SELECT idx, NULL, item, NULL, NULL, NULL, NULL, NULL
    FROM {schema}director_context_items WHERE session_id = $1
"""

DELETE_CONTEXT: Final = "DELETE FROM {schema}director_context_messages WHERE session_id = $1"

# --- Health -------------------------------------------------------------------------------------

# Fails where a table is missing; reads no row.
PROBE_TABLES: Final = """
    SELECT FROM {schema}director_sessions, {schema}director_conversations,
        {schema}director_context_messages, {schema}director_context_items
    LIMIT 0
"""

SELECT_SERVER: Final = b"""
    SELECT
        current_setting('server_version'),
        current_setting('server_version_num')::integer,
        current_setting('server_encoding'),
        current_setting('synchronous_commit'),
        current_setting('fsync')
"""


class Statements:
    """The statements with the schema's name in them, composed once for each instance."""

    def __init__(self, schema: str | None) -> None:
        """Compose for a schema; None leaves the names to the connection's search path."""
        self.schema = schema
        self.select_schema_version = self.compose(
            SELECT_OWN_SCHEMA_VERSION if schema is None else SELECT_SCHEMA_VERSION
        )
        self.probe_tables = self.compose(PROBE_TABLES)
        self.insert_session = self.compose(INSERT_SESSION)
        self.select_session = self.compose(SELECT_SESSION)
        self.update_session = self.compose(UPDATE_SESSION)
        self.lock_session = self.compose(LOCK_SESSION)
        self.delete_session = self.compose(DELETE_SESSION)
        self.upsert_message = self.compose(UPSERT_MESSAGE)
        self.upsert_messages = self.compose(UPSERT_MESSAGES)
        self.select_message = self.compose(SELECT_MESSAGE)
        self.select_first_messages = self.compose(SELECT_FIRST_MESSAGES)
        self.select_last_messages = self.compose(SELECT_LAST_MESSAGES)
        self.select_messages_after = self.compose(SELECT_MESSAGES_AFTER)
        self.select_messages_before = self.compose(SELECT_MESSAGES_BEFORE)
        self.delete_message = self.compose(DELETE_MESSAGE)
        self.delete_messages = self.compose(DELETE_MESSAGES)
        self.save_context = self.compose(SAVE_CONTEXT)
        self.append_to_context = self.compose(APPEND_TO_CONTEXT)
        self.select_context_length = self.compose(SELECT_CONTEXT_LENGTH)
        self.select_context = self.compose(SELECT_CONTEXT)
        self.delete_context = self.compose(DELETE_CONTEXT)
        self._select_sessions = {
            flags: self.compose(
                _select_sessions(before=flags[0], video=flags[1], collection=flags[2])
            )
            for flags in itertools.product((False, True), repeat=3)
        }

    def select_sessions(self, *, before: bool, video: bool, collection: bool) -> bytes:
        """Return the statement of a page; its parameters in the order of the arguments."""
        return self._select_sessions[before, video, collection]

    def compose(self, statement: str) -> bytes:
        """Put the schema's name into a statement of this package."""
        prefix: sql.Composable = sql.SQL("")
        if self.schema is not None:
            prefix = sql.SQL("{}.").format(sql.Identifier(self.schema))
        return sql.SQL(statement).format(schema=prefix).as_bytes(None)
