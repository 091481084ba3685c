"""Statements that copy a session with all it holds, and that cut or replace its messages."""

from __future__ import annotations

from typing import Final

from director_db_postgres.sql.messages import MESSAGE_COLUMNS, MESSAGE_FIELDS, upsert_messages
from director_db_postgres.sql.sessions import IS_LOCKED, IS_UPDATED, SESSION_COLUMNS

# Those with IS_LOCKED come after LOCK_SESSION, and do nothing where that has found no session.

_LOCKED: Final = f"""
    SELECT FROM {{schema}}director_sessions AS session
    WHERE session.session_id = $1::text AND {IS_LOCKED}
"""


def _pop_message(condition: str) -> str:
    return f"""
        WITH locked AS ({_LOCKED}),
        last AS (
            SELECT seq FROM {{schema}}director_conversations
            WHERE session_id = $1::text {condition} AND EXISTS (SELECT FROM locked)
            ORDER BY seq DESC LIMIT 1
        )
        DELETE FROM {{schema}}director_conversations
        WHERE session_id = $1::text AND seq = (SELECT last.seq FROM last)
        RETURNING {MESSAGE_COLUMNS}
    """


POP_MESSAGE: Final = _pop_message("")

# Hidden from the planner, as in `messages._part`: it would sort all of a session for a value that
# it takes for rare, in place of going back from the end.
POP_MESSAGE_OF_CONVERSATION: Final = _pop_message("AND coalesce(conv_id = $2::text, FALSE)")

# The place of a message, where the session is locked: to be read, and as a part of others.
SELECT_LOCKED_PLACE: Final = f"""
    SELECT message.seq
    FROM {{schema}}director_sessions AS session
    JOIN {{schema}}director_conversations AS message ON message.session_id = session.session_id
    WHERE session.session_id = $1::text AND message.msg_id = $2::text AND {IS_LOCKED}
"""

DELETE_MESSAGES_AFTER: Final = f"""
    WITH last AS ({SELECT_LOCKED_PLACE})
    DELETE FROM {{schema}}director_conversations
    WHERE session_id = $1::text AND seq > (SELECT last.seq FROM last)
"""

# Their new places are above all old ones; what is left below them then is what was replaced.
REPLACE_MESSAGES: Final = upsert_messages(
    more=", revision",
    array=", $15::bigint[]",
    changes="seq = excluded.seq, revision = coalesce(excluded.revision, stored.revision),",
)

DELETE_REPLACED: Final = f"""
    WITH counted AS (
        SELECT last_seq - $2::bigint AS seq FROM {{schema}}director_sessions AS session
        WHERE session.session_id = $1::text AND {IS_UPDATED}
    )
    DELETE FROM {{schema}}director_conversations
    WHERE session_id = $1::text AND seq <= (SELECT counted.seq FROM counted)
"""

# A session that has the new id already is an error, which undoes the whole: a condition for what
# comes after it would have to look at another session, which may be on another shard.
COPY_SESSION: Final = f"""
    INSERT INTO {{schema}}director_sessions ({SESSION_COLUMNS}, last_seq)
    SELECT $2::text, video_id, collection_id, $3::bigint, $3::bigint, metadata, user_id, last_seq
    FROM {{schema}}director_sessions AS session
    WHERE session.session_id = $1::text AND {IS_LOCKED}
"""

COPY_SESSION_UNTIL: Final = f"""
    {COPY_SESSION}
    AND EXISTS (
        SELECT FROM {{schema}}director_conversations AS last
        WHERE last.session_id = $1::text AND last.msg_id = $4::text
    )
"""

# Before COPY_SESSION on a cluster. There the rows that it inserts come from another shard, and what
# Citus says if one is there already is any error (XX000); of this insert it is the database's own.
CLAIM_SESSION: Final = """
    INSERT INTO {schema}director_sessions (session_id, created_at, updated_at, metadata, last_seq)
    VALUES ($1::text, 0, 0, '{{}}', 0)
"""

RELEASE_SESSION: Final = "DELETE FROM {schema}director_sessions WHERE session_id = $1::text"

COPY_MESSAGES: Final = f"""
    INSERT INTO {{schema}}director_conversations (session_id, seq, {MESSAGE_FIELDS})
    SELECT $2::text, seq, {MESSAGE_FIELDS} FROM {{schema}}director_conversations
    WHERE session_id = $1::text AND EXISTS ({_LOCKED})
"""

COPY_MESSAGES_UNTIL: Final = f"""
    {COPY_MESSAGES}
    AND seq <= (
        SELECT last.seq FROM {{schema}}director_conversations AS last
        WHERE last.session_id = $1::text AND last.msg_id = $3::text
    )
"""

_CONTEXT_FIELDS: Final = """
    context_data, list_key, list_len, bytes, version, created_at, updated_at, metadata
"""

COPY_CONTEXT: Final = f"""
    INSERT INTO {{schema}}director_context_messages (session_id, {_CONTEXT_FIELDS})
    SELECT $2::text, {_CONTEXT_FIELDS} FROM {{schema}}director_context_messages
    WHERE session_id = $1::text AND EXISTS ({_LOCKED})
"""

COPY_ITEMS: Final = f"""
    INSERT INTO {{schema}}director_context_items (session_id, idx, item)
    SELECT $2::text, idx, item FROM {{schema}}director_context_items
    WHERE session_id = $1::text AND EXISTS ({_LOCKED})
"""
