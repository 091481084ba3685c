"""Statements about contexts."""

from __future__ import annotations

from typing import Final

from director_db_postgres.sql.sessions import IS_LOCKED

# Both writes of a context are sent after LOCK_SESSION. First the context's own row, unless there is
# no session or the context is not as expected; then, if the row has the writer's own version now,
# its items and the session's time.

_INSERT_CONTEXT: Final = """
    INSERT INTO {schema}director_context_messages AS stored
        (session_id, context_data, list_key, list_len, bytes, version, created_at, updated_at,
         metadata)
"""

_LOCKED_AND_KNOWN: Final = f"""
    {{schema}}director_sessions AS session
    LEFT JOIN {{schema}}director_context_messages AS known ON known.session_id = session.session_id
    WHERE session.session_id = $1::text AND {IS_LOCKED}
"""

SAVE_CONTEXT: Final = f"""
    {_INSERT_CONTEXT}
    SELECT session.session_id, $3::text, $5::text, $6::bigint, $7::bigint, $8::bigint, $9::bigint,
        $11::bigint, $12::text
    FROM {_LOCKED_AND_KNOWN} AND ($2::bigint < 0 OR $2::bigint = coalesce(known.version, 0))
    ON CONFLICT (session_id) DO UPDATE SET
        context_data = CASE
            WHEN $4::boolean THEN excluded.context_data ELSE stored.context_data
        END,
        list_key = excluded.list_key,
        list_len = excluded.list_len,
        bytes = excluded.bytes,
        version = excluded.version,
        created_at = CASE WHEN $10::boolean THEN excluded.created_at ELSE stored.created_at END,
        updated_at = excluded.updated_at,
        metadata = excluded.metadata
"""

# A comma stands between two items, so that a list's first item comes without.
APPEND_TO_CONTEXT: Final = f"""
    {_INSERT_CONTEXT}
    SELECT session.session_id, $3::text, $2::text, $4::bigint, $5::bigint, $7::bigint, $8::bigint,
        $8::bigint, '{{{{}}}}'
    FROM {_LOCKED_AND_KNOWN} AND (
        known.session_id IS NULL
        OR (
            known.list_key = $2::text
            AND known.bytes + $6::bigint - (known.list_len = 0 AND $4::bigint > 0)::integer
                <= $9::bigint
        )
    )
    ON CONFLICT (session_id) DO UPDATE SET
        list_len = stored.list_len + excluded.list_len,
        bytes = stored.bytes + $6::bigint - (stored.list_len = 0 AND $4::bigint > 0)::integer,
        version = excluded.version,
        updated_at = excluded.updated_at
    RETURNING list_len
"""

SELECT_CONTEXT_VERSION: Final = """
    SELECT version FROM {schema}director_context_messages WHERE session_id = $1::text
"""

_IS_OURS: Final = """
    EXISTS (
        SELECT FROM {schema}director_context_messages AS context
        WHERE context.session_id = $1::text AND context.version = $2::bigint
    )
"""

TOUCH_SESSION: Final = f"""
    UPDATE {{schema}}director_sessions SET updated_at = greatest(updated_at, $3::bigint)
    WHERE session_id = $1::text AND {_IS_OURS}
"""

CUT_ITEMS: Final = f"""
    DELETE FROM {{schema}}director_context_items
    WHERE session_id = $1::text AND idx >= $3::bigint AND {_IS_OURS}
"""

# An item that is stored already is not written. That look is a subquery of its own for each item
# and not a join, which the planner might turn into reading the whole list.
WRITE_ITEMS: Final = """
    INSERT INTO {schema}director_context_items (session_id, idx, item)
    SELECT context.session_id, new.idx, new.item
    FROM {schema}director_context_messages AS context
        CROSS JOIN unnest($3::bigint[], $4::text[]) AS new (idx, item)
    WHERE context.session_id = $1::text AND context.version = $2::bigint
        AND new.item IS DISTINCT FROM (
            SELECT stored.item FROM {schema}director_context_items AS stored
            WHERE stored.session_id = $1::text AND stored.idx = new.idx
        )
    ON CONFLICT (session_id, idx) DO UPDATE SET item = excluded.item
"""

APPEND_ITEMS: Final = """
    INSERT INTO {schema}director_context_items (session_id, idx, item)
    SELECT context.session_id, context.list_len - $3::bigint + new.place - 1, new.item
    FROM {schema}director_context_messages AS context
        CROSS JOIN unnest($4::text[]) WITH ORDINALITY AS new (item, place)
    WHERE context.session_id = $1::text AND context.version = $2::bigint
"""

# What an append whose answer was lost has left behind.
SELECT_CONTEXT_LENGTH: Final = """
    SELECT list_len FROM {schema}director_context_messages
    WHERE session_id = $1::text AND version = $2::bigint
"""

# One statement, so that both tables are seen in one state; the context's own row has index -1. No
# order is asked for: the server would sort long texts, on its disk if there are many, where the
# client sorts rows by a number, which are nearly always in order.
SELECT_CONTEXT: Final = """
    SELECT -1::bigint, session_id, context_data, version, created_at, updated_at, metadata, list_key
    FROM {schema}director_context_messages WHERE session_id = $1::text
    UNION ALL
    SELECT idx, NULL, item, NULL, NULL, NULL, NULL, NULL
    FROM {schema}director_context_items WHERE session_id = $1::text
"""

DELETE_CONTEXT: Final = "DELETE FROM {schema}director_context_messages WHERE session_id = $1::text"
