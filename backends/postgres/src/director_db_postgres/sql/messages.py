"""Statements about messages."""

from __future__ import annotations

from typing import Final

from director_db_postgres.sql.sessions import IS_LOCKED, IS_UPDATED

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


def _insert_message(more: str = "") -> str:
    return f"""
        INSERT INTO {{schema}}director_conversations AS stored
            (session_id, seq, conv_id, msg_id, msg_type, agents, actions, content, status,
             created_at, updated_at, metadata{more})
    """


_INSERT_MESSAGE: Final = _insert_message()

# Comes before the messages. An assigned place is never given again, so the counter also counts
# updates: gaps are harmless.
COUNT_MESSAGES: Final = """
    UPDATE {schema}director_sessions
    SET last_seq = last_seq + $2::bigint, updated_at = greatest(updated_at, $3::bigint)
    WHERE session_id = $1::text
"""

UPSERT_MESSAGE: Final = f"""
    {_INSERT_MESSAGE}
    SELECT session_id, last_seq, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text,
        $8::text, $9::bigint, $10::bigint, $11::text
    FROM {{schema}}director_sessions AS session
    WHERE session_id = $1::text AND {IS_UPDATED}
    ON CONFLICT (session_id, msg_id) DO UPDATE SET
        created_at = CASE WHEN $12::boolean THEN excluded.created_at ELSE stored.created_at END,
        {_UPDATE_MESSAGE}
"""


def upsert_messages(more: str = "", array: str = "", changes: str = "") -> str:
    """Return the statement of many messages of one session.

    All of them give created_at, or none does: it is no column, which the conflict would know. To
    look for what is stored instead is slow where the planner takes the session's other index.

    Args:
        more: further columns.
        array: their arrays.
        changes: what else changes of a message that is stored.
    """
    return f"""
        {_insert_message(more)}
        SELECT session.session_id, session.last_seq - $2::bigint + new.place,
            new.conv_id, new.msg_id, new.msg_type, new.agents, new.actions, new.content, new.status,
            new.created_at, new.updated_at, new.metadata{more}
        FROM {{schema}}director_sessions AS session CROSS JOIN unnest(
                $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                $10::text[], $11::text[], $12::bigint[], $13::bigint[], $14::text[]{array}
            ) AS new (
                place, conv_id, msg_id, msg_type, agents, actions, content, status,
                created_at, updated_at, metadata{more}
            )
        WHERE session.session_id = $1::text AND {IS_UPDATED}
        ON CONFLICT (session_id, msg_id) DO UPDATE SET
            created_at = CASE WHEN $3::boolean THEN excluded.created_at ELSE stored.created_at END,
            {changes}
            {_UPDATE_MESSAGE}
    """


UPSERT_MESSAGES: Final = upsert_messages()

# The messages of many sessions in one transaction, which would not do on shards. It waits for no
# session: one that is missing, or that somebody else has locked, is left out with its messages.
COUNT_TOGETHER: Final = """
    UPDATE {schema}director_sessions AS session
    SET last_seq = session.last_seq + taken.messages,
        updated_at = greatest(session.updated_at, taken.latest)
    FROM (
        SELECT free.session_id, new.messages, new.latest
        FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS new (session_id, messages, latest)
            JOIN {schema}director_sessions AS free ON free.session_id = new.session_id
        ORDER BY free.session_id
        FOR UPDATE OF free SKIP LOCKED
    ) AS taken
    WHERE session.session_id = taken.session_id
"""

# The last parameters are the keys of those that give created_at.
UPSERT_TOGETHER: Final = f"""
    {_INSERT_MESSAGE}
    SELECT session.session_id, session.last_seq - new.later,
        new.conv_id, new.msg_id, new.msg_type, new.agents, new.actions, new.content, new.status,
        new.created_at, new.updated_at, new.metadata
    FROM unnest(
            $1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::text[]
        ) AS new (
            session_id, later, conv_id, msg_id, msg_type, agents, actions, content, status,
            created_at, updated_at, metadata
        )
        JOIN {{schema}}director_sessions AS session ON session.session_id = new.session_id
    WHERE {IS_UPDATED}
    ON CONFLICT (session_id, msg_id) DO UPDATE SET
        created_at = CASE
            WHEN (excluded.session_id, excluded.msg_id)
                IN (SELECT * FROM unnest($13::text[], $14::text[]))
            THEN excluded.created_at ELSE stored.created_at
        END,
        {_UPDATE_MESSAGE}
    RETURNING session_id, msg_id
"""

# After LOCK_SESSION, and before COUNT_GUARDED of the same message; of many, one pair after another,
# as a row that is updated takes its lock along.
UPSERT_GUARDED: Final = f"""
    INSERT INTO {{schema}}director_conversations AS stored
        (session_id, seq, conv_id, msg_id, msg_type, agents, actions, content, status,
         created_at, updated_at, metadata, revision)
    SELECT session_id, last_seq + 1, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text,
        $8::text, $9::bigint, $10::bigint, $11::text, $13::bigint
    FROM {{schema}}director_sessions AS session
    WHERE session_id = $1::text AND {IS_LOCKED}
    ON CONFLICT (session_id, msg_id) DO UPDATE SET
        created_at = CASE WHEN $12::boolean THEN excluded.created_at ELSE stored.created_at END,
        revision = coalesce(excluded.revision, stored.revision),
        {_UPDATE_MESSAGE}
    WHERE NOT $14::boolean AND coalesce(stored.revision < excluded.revision, true)
"""

# Nothing where the message was held back: it is then not of this transaction, or counted already.
COUNT_GUARDED: Final = """
    WITH stored AS (
        SELECT updated_at FROM {schema}director_conversations AS message
        WHERE message.session_id = $1::text AND message.msg_id = $2::text AND age(message.xmin) = 0
    )
    UPDATE {schema}director_sessions
    SET last_seq = last_seq + 1,
        updated_at = greatest(updated_at, (SELECT stored.updated_at FROM stored))
    WHERE session_id = $1::text AND EXISTS (SELECT FROM stored)
"""

MESSAGE_FIELDS: Final = """
    conv_id, msg_id, msg_type, agents, actions, content, status, created_at, updated_at, metadata,
    revision
"""

MESSAGE_COLUMNS: Final = f"session_id, {MESSAGE_FIELDS}"

SELECT_MESSAGE: Final = f"""
    SELECT {MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1::text AND msg_id = $2::text
"""

# No order is asked for: the server would sort long texts, or walk all the session in that order.
SELECT_MESSAGES_BY_ID: Final = f"""
    SELECT {MESSAGE_COLUMNS}, seq FROM {{schema}}director_conversations
    WHERE session_id = $1::text AND msg_id = ANY($2::text[])
"""

SELECT_FIRST_MESSAGES: Final = f"""
    SELECT {MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1::text ORDER BY seq LIMIT $2::bigint
"""

SELECT_LAST_MESSAGES: Final = f"""
    SELECT {MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1::text ORDER BY seq DESC LIMIT $2::bigint
"""

# The second part gives one row, with no msg_id, where the session exists and the cursor does not;
# only a single statement sees the two and the page in one state, and takes one round trip.
_SELECT_MESSAGES_BY_CURSOR: Final = f"""
    (
        SELECT {MESSAGE_COLUMNS} FROM {{{{schema}}}}director_conversations
        WHERE session_id = $1::text AND seq {{comparison}} (
            SELECT seq FROM {{{{schema}}}}director_conversations
            WHERE session_id = $1::text AND msg_id = $2::text
        )
        {{part}}
        ORDER BY seq {{direction}} LIMIT $3::bigint
    )
    UNION ALL
    SELECT session_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM {{{{schema}}}}director_sessions
    WHERE session_id = $1::text AND NOT EXISTS (
        SELECT FROM {{{{schema}}}}director_conversations
        WHERE session_id = $1::text AND msg_id = $2::text
    )
"""

SELECT_MESSAGES_AFTER: Final = _SELECT_MESSAGES_BY_CURSOR.format(
    comparison=">", direction="ASC", part=""
)

SELECT_MESSAGES_BEFORE: Final = _SELECT_MESSAGES_BY_CURSOR.format(
    comparison="<", direction="DESC", part=""
)


# Only messages of a conversation, or a type, or both; NULL stands for any. There is no index of
# them: each would cost every write more than 2 %. So a page is sought along the places. The planner
# must not see how rare a value is, or it would take the whole table for the shorter way; of a
# COALESCE it expects that half of the rows pass.
def _part(conv_id: str, msg_type: str) -> str:
    return (
        f"AND coalesce(conv_id = {conv_id}::text, {conv_id}::text IS NULL)"
        f" AND coalesce(msg_type = {msg_type}::text, {msg_type}::text IS NULL)"
    )


SELECT_FIRST_OF_PART: Final = f"""
    SELECT {MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1::text {_part("$3", "$4")} ORDER BY seq LIMIT $2::bigint
"""

SELECT_LAST_OF_PART: Final = f"""
    SELECT {MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1::text {_part("$3", "$4")} ORDER BY seq DESC LIMIT $2::bigint
"""

SELECT_PART_AFTER: Final = _SELECT_MESSAGES_BY_CURSOR.format(
    comparison=">", direction="ASC", part=_part("$4", "$5")
)

SELECT_PART_BEFORE: Final = _SELECT_MESSAGES_BY_CURSOR.format(
    comparison="<", direction="DESC", part=_part("$4", "$5")
)

DELETE_MESSAGE: Final = """
    DELETE FROM {schema}director_conversations WHERE session_id = $1::text AND msg_id = $2::text
"""

DELETE_MESSAGES: Final = "DELETE FROM {schema}director_conversations WHERE session_id = $1::text"
