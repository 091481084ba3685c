"""The statements, one a name. Values are always parameters."""

from __future__ import annotations

import functools
from typing import Final

SELECT_SCHEMA_VERSION: Final = """
    SELECT (SELECT value FROM director_meta WHERE key = 'schema_version'),
        (SELECT value FROM director_meta WHERE key = 'upgraded_to')
"""

# --- Sessions -----------------------------------------------------------------------------------

INSERT_SESSION: Final = """
    INSERT INTO director_sessions
        (session_id, video_id, collection_id, created_at, updated_at, metadata, user_id, last_seq)
    VALUES (?, ?, ?, ?, ?, ?, ?, 0)
    ON CONFLICT (session_id) DO NOTHING
"""

_SESSION_COLUMNS: Final = """
    session_id, video_id, collection_id, created_at, updated_at, metadata, user_id
"""

SELECT_SESSION: Final = f"SELECT {_SESSION_COLUMNS} FROM director_sessions WHERE session_id = ?"

# Each flag says whether the value after it is stored or the column stays.
UPDATE_SESSION: Final = """
    UPDATE director_sessions SET
        video_id = CASE WHEN ? THEN ? ELSE video_id END,
        collection_id = CASE WHEN ? THEN ? ELSE collection_id END,
        metadata = CASE WHEN ? THEN ? ELSE metadata END,
        user_id = CASE WHEN ? THEN ? ELSE user_id END,
        updated_at = ?
    WHERE session_id = ?
"""

# An assigned place is never given again, so the counter also counts updates: gaps are harmless.
# `updated_at` stands in three indexes, and SQLite writes an index again for every column that is
# set, to whatever value. Nearly always a session's is as late as the write's: both are counted in
# seconds. So it is set only where the first statement finds that it has to be.
TAKE_PLACES: Final = """
    UPDATE director_sessions SET last_seq = last_seq + ?
    WHERE session_id = ? AND updated_at >= ?
    RETURNING last_seq
"""

TAKE_PLACES_LATER: Final = """
    UPDATE director_sessions SET last_seq = last_seq + ?, updated_at = max(updated_at, ?)
    WHERE session_id = ?
    RETURNING last_seq
"""

MOVE_SESSION: Final = "UPDATE director_sessions SET updated_at = ? WHERE session_id = ?"

DELETE_SESSION: Final = "DELETE FROM director_sessions WHERE session_id = ?"


@functools.cache
def select_sessions(*, before: bool, video: bool, collection: bool, user: bool) -> str:
    """Return the statement of a page of sessions; its parameters in the order of the arguments."""
    conditions = [
        text
        for text, wanted in (
            ("(updated_at, created_at, session_id) < (?, ?, ?)", before),
            ("video_id = ?", video),
            ("collection_id = ?", collection),
            ("user_id = ?", user),
        )
        if wanted
    ]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"""
        SELECT {_SESSION_COLUMNS} FROM director_sessions {where}
        ORDER BY updated_at DESC, created_at DESC, session_id DESC
        LIMIT ?
    """


# --- Messages -----------------------------------------------------------------------------------

_MESSAGE: Final = """
    conv_id, msg_id, msg_type, agents, actions, content, status, created_at, updated_at, metadata
"""

_MESSAGE_FIELDS: Final = f"{_MESSAGE}, revision"

_UPDATE_MESSAGE: Final = """
    conv_id = excluded.conv_id,
    msg_type = excluded.msg_type,
    agents = excluded.agents,
    actions = excluded.actions,
    content = excluded.content,
    status = excluded.status,
    created_at = CASE WHEN ? THEN excluded.created_at ELSE created_at END,
    updated_at = excluded.updated_at,
    metadata = excluded.metadata
"""

UPSERT_MESSAGE: Final = f"""
    INSERT INTO director_conversations (session_id, seq, {_MESSAGE})
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (session_id, msg_id) DO UPDATE SET
        {_UPDATE_MESSAGE}
"""

# Messages of many callers in one statement each; see `upsert`. The size is that of the list, whose
# rows without a session do nothing.


@functools.cache
def move_sessions(size: int) -> str:
    """Return what sets the time of those sessions that are not as late yet."""
    return f"""
        UPDATE director_sessions SET updated_at = new.latest
        FROM {_list_of(size, "session_id, latest")}
        WHERE director_sessions.session_id = new.session_id
            AND director_sessions.updated_at < new.latest
    """


@functools.cache
def count_messages(size: int) -> str:
    """Return what takes places in many sessions."""
    return f"""
        UPDATE director_sessions SET last_seq = last_seq + new.messages
        FROM {_list_of(size, "session_id, messages")}
        WHERE director_sessions.session_id = new.session_id
    """


@functools.cache
def upsert_messages(size: int) -> str:
    """Return what stores messages, in the order of the list, in places that were taken for them.

    Behind each session's id comes how many of its messages follow.
    """
    return f"""
        INSERT INTO director_conversations (session_id, seq, {_MESSAGE})
        SELECT new.session_id, session.last_seq - new.later, {_qualified(_MESSAGE)}
        FROM {_list_of(size, f"session_id, later, {_MESSAGE}")}
            CROSS JOIN director_sessions AS session ON session.session_id = new.session_id
        WHERE TRUE
        ON CONFLICT (session_id, msg_id) DO UPDATE SET
            {_UPDATE_MESSAGE}
    """


def _list_of(size: int, columns: str) -> str:
    row = f"({', '.join('?' * (1 + columns.count(',')))})"
    rows = ", ".join([row] * size)
    return f"(WITH new ({columns}) AS (VALUES {rows}) SELECT * FROM new) AS new"


def _qualified(columns: str) -> str:
    return ", ".join(f"new.{column.strip()}" for column in columns.split(","))


_UPSERT_REVISION: Final = f"""
    INSERT INTO director_conversations (session_id, seq, {_MESSAGE_FIELDS})
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (session_id, msg_id) DO UPDATE SET
        {_UPDATE_MESSAGE},
        revision = coalesce(excluded.revision, revision)
"""

# A row that is held back by its guard is not changed, and not counted.
UPSERT_GUARDED: Final = f"""
    {_UPSERT_REVISION}
    WHERE NOT ? AND coalesce(revision < excluded.revision, TRUE)
"""

_MESSAGE_COLUMNS: Final = f"session_id, {_MESSAGE_FIELDS}"

SELECT_MESSAGE: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM director_conversations WHERE session_id = ? AND msg_id = ?
"""

SELECT_PLACE: Final = "SELECT seq FROM director_conversations WHERE session_id = ? AND msg_id = ?"

# No order is asked for: with one, the planner might walk all the session in it.
SELECT_MESSAGES_BY_ID: Final = f"""
    SELECT {_MESSAGE_COLUMNS}, seq FROM director_conversations
    WHERE session_id = ? AND msg_id IN (SELECT value FROM json_each(?))
"""


@functools.cache
def select_messages(*, backward: bool, cursor: bool, conv: bool, kind: bool) -> str:
    """Return the statement of a page of messages; its parameters in the order of the conditions.

    The place of the cursor is found in the same statement, as a replacement of the messages changes
    it. A page without a cursor begins at a place, before or behind all others.

    There is no index of conversations or types: each would cost every write more than 2 %. The page
    is sought along the places, and what does not belong to it is not read beyond its type.
    """
    comparison, direction = ("<", "DESC") if backward else (">", "ASC")
    conditions = f"seq {comparison} {f'({SELECT_PLACE})' if cursor else '?'}"
    conditions += " AND conv_id = ?" if conv else ""
    conditions += " AND msg_type = ?" if kind else ""
    return f"""
        SELECT {_MESSAGE_COLUMNS} FROM director_conversations
        WHERE session_id = ? AND {conditions} ORDER BY seq {direction} LIMIT ?
    """


DELETE_MESSAGE: Final = "DELETE FROM director_conversations WHERE session_id = ? AND msg_id = ?"

DELETE_MESSAGES: Final = "DELETE FROM director_conversations WHERE session_id = ?"

# --- History ------------------------------------------------------------------------------------

_POP_MESSAGE: Final = f"""
    DELETE FROM director_conversations WHERE session_id = ? AND seq = (
        SELECT seq FROM director_conversations WHERE session_id = ? {{}} ORDER BY seq DESC LIMIT 1
    )
    RETURNING {_MESSAGE_COLUMNS}
"""

POP_MESSAGE: Final = _POP_MESSAGE.format("")

POP_MESSAGE_OF_CONVERSATION: Final = _POP_MESSAGE.format("AND conv_id = ?")

# Its new place is above all old ones, so that those before it are what was replaced.
REPLACE_MESSAGE: Final = f"{_UPSERT_REVISION}, seq = excluded.seq"

DELETE_MESSAGES_AFTER: Final = """
    DELETE FROM director_conversations WHERE session_id = ? AND seq > ?
"""

DELETE_MESSAGES_UP_TO: Final = """
    DELETE FROM director_conversations WHERE session_id = ? AND seq <= ?
"""

COPY_SESSION: Final = """
    INSERT INTO director_sessions
        (session_id, video_id, collection_id, created_at, updated_at, metadata, user_id, last_seq)
    SELECT ?, video_id, collection_id, ?, ?, metadata, user_id, last_seq
    FROM director_sessions WHERE session_id = ?
    ON CONFLICT (session_id) DO NOTHING
"""

COPY_MESSAGES: Final = f"""
    INSERT INTO director_conversations (session_id, seq, {_MESSAGE_FIELDS})
    SELECT ?, seq, {_MESSAGE_FIELDS} FROM director_conversations WHERE session_id = ? AND seq <= ?
"""

_CONTEXT_FIELDS: Final = """
    context_data, list_key, list_len, bytes, version, created_at, updated_at, metadata
"""

COPY_CONTEXT: Final = f"""
    INSERT INTO director_context_messages (session_id, {_CONTEXT_FIELDS})
    SELECT ?, {_CONTEXT_FIELDS} FROM director_context_messages WHERE session_id = ?
"""

COPY_ITEMS: Final = """
    INSERT INTO director_context_items (session_id, idx, item)
    SELECT ?, idx, item FROM director_context_items WHERE session_id = ?
"""

# --- Context ------------------------------------------------------------------------------------

# One row where there is a session, with NULLs where it has no context.
SELECT_CONTEXT_LIST: Final = """
    SELECT session.updated_at, context.version, list_key, list_len, bytes
    FROM director_sessions AS session
    LEFT JOIN director_context_messages AS context ON context.session_id = session.session_id
    WHERE session.session_id = ?
"""

# Each flag says whether the value that was given is stored or the column stays.
UPSERT_CONTEXT: Final = """
    INSERT INTO director_context_messages
        (session_id, context_data, list_key, list_len, bytes, version, created_at, updated_at,
         metadata)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (session_id) DO UPDATE SET
        context_data = CASE WHEN ? THEN excluded.context_data ELSE context_data END,
        list_key = excluded.list_key,
        list_len = excluded.list_len,
        bytes = excluded.bytes,
        version = excluded.version,
        created_at = CASE WHEN ? THEN excluded.created_at ELSE created_at END,
        updated_at = excluded.updated_at,
        metadata = excluded.metadata
"""

# An item that is stored already is not written, so that a whole save costs what it changes.
UPSERT_ITEM: Final = """
    INSERT INTO director_context_items (session_id, idx, item) VALUES (?, ?, ?)
    ON CONFLICT (session_id, idx) DO UPDATE SET item = excluded.item
    WHERE item <> excluded.item
"""

DELETE_ITEMS: Final = "DELETE FROM director_context_items WHERE session_id = ? AND idx >= ?"

GROW_CONTEXT: Final = """
    UPDATE director_context_messages SET list_len = ?, bytes = ?, version = ?, updated_at = ?
    WHERE session_id = ?
"""

SELECT_CONTEXT: Final = """
    SELECT session_id, context_data, version, created_at, updated_at, metadata, list_key
    FROM director_context_messages WHERE session_id = ?
"""

SELECT_ITEM_ROWS: Final = """
    SELECT idx, item FROM director_context_items WHERE session_id = ? ORDER BY idx
"""

SELECT_ITEMS: Final = "SELECT item FROM director_context_items WHERE session_id = ? ORDER BY idx"

DELETE_CONTEXT: Final = "DELETE FROM director_context_messages WHERE session_id = ?"
