"""The statements, one a name; `statements.Statements` puts the schema's name into them once.

Values are always parameters (``$1::text``). Each statement names the session in every condition, so
that the tables can be sharded by it. A write first locks the session's row: by updating it, or with
`LOCK_SESSION`. What it writes beside that comes in statements of their own, in the same transaction
and round trip: each sees what others wrote while the first one waited for the lock.

A sharded server (Citus) takes a statement apart and sends the shards what it has put together
again. So each parameter has its type in its place, always; no STABLE function is applied to a
column in the condition of an UPDATE or DELETE; and no INSERT takes its rows from another write.
"""

from __future__ import annotations

import itertools
from typing import Final

# The first look at a database. The second column is whether the server may be a sharded one.
SELECT_SCHEMA_VERSION: Final = """
    SELECT value, EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus'),
        (SELECT value FROM {schema}director_meta WHERE key = 'upgraded_to')
    FROM {schema}director_meta WHERE key = 'schema_version'
"""

# Without a schema's name the search path is searched; but only its first schema is ours, or else it
# would depend on who comes first whether two users of a database share their tables.
SELECT_OWN_SCHEMA_VERSION: Final = f"""
    {SELECT_SCHEMA_VERSION.replace("{schema}", "")}
    AND tableoid = to_regclass(quote_ident(current_schema()) || '.director_meta')
"""

# --- Sessions -----------------------------------------------------------------------------------

_SESSION_COLUMNS: Final = (
    "session_id, video_id, collection_id, created_at, updated_at, metadata, user_id"
)

INSERT_SESSION: Final = f"""
    INSERT INTO {{schema}}director_sessions ({_SESSION_COLUMNS}, last_seq)
    VALUES ($1::text, $2::text, $3::text, $4::bigint, $5::bigint, $6::text, $7::text, 0)
    ON CONFLICT (session_id) DO NOTHING
"""

SELECT_SESSION: Final = f"""
    SELECT {_SESSION_COLUMNS} FROM {{schema}}director_sessions WHERE session_id = $1::text
"""

# Each flag says whether the value after it is stored or the column stays.
UPDATE_SESSION: Final = """
    UPDATE {schema}director_sessions SET
        video_id = CASE WHEN $3::boolean THEN $4::text ELSE video_id END,
        collection_id = CASE WHEN $5::boolean THEN $6::text ELSE collection_id END,
        metadata = CASE WHEN $7::boolean THEN $8::text ELSE metadata END,
        user_id = CASE WHEN $9::boolean THEN $10::text ELSE user_id END,
        updated_at = $2::bigint
    WHERE session_id = $1::text
"""

# On top of what was read, and of nothing else: whoever waits for the row's lock compares with what
# is stored when he has it. The texts themselves, as a digest of the server's is not the core's.
UPDATE_SESSION_READ: Final = f"""
    {UPDATE_SESSION}
        AND video_id IS NOT DISTINCT FROM $11::text
        AND collection_id IS NOT DISTINCT FROM $12::text
        AND metadata = $13::text
        AND user_id IS NOT DISTINCT FROM $14::text
"""

# For the rest of a transaction.
SET_LOCK_TIMEOUT: Final = b"SELECT set_config('lock_timeout', $1::text, true)"

# For a connection, unless a pooler stands between: the process that answers is then another one
# than that which the connection knows, and others would get what is set here.
LIMIT_LOCK_WAITS: Final = b"""
    SELECT CASE WHEN pg_backend_pid() = $2::integer
        THEN set_config('lock_timeout', $1::text, false) END
"""

IS_READ_ONLY: Final = b"""
    SELECT pg_catalog.current_setting('default_transaction_read_only')::boolean
        AND NOT pg_catalog.pg_is_in_recovery()
"""

# Who locks a row leaves the number of its transaction in it, and any row can be read.
SELECT_HOLDER: Final = """
    SELECT a.pid, a.application_name, a.state,
        extract(epoch FROM clock_timestamp() - a.state_change)::float8
    FROM {schema}director_sessions s
    JOIN pg_catalog.pg_locks l
        ON l.locktype = 'transactionid' AND l.granted AND l.transactionid::text = s.xmax::text
    JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE s.session_id = $1::text
"""

# It gives the transaction its number, also where it finds no session. Without one, ages are counted
# from the number that comes next, and that once for the whole transaction: a later statement would
# take the transaction that has got that number meanwhile for this one.
LOCK_SESSION: Final = """
    SELECT FROM {schema}director_sessions
    WHERE session_id = $1::text AND pg_current_xact_id() IS NOT NULL
    FOR UPDATE
"""

# A session that appears between LOCK_SESSION and the statement after it is not locked, and what
# that statement sees of it may be old when it writes; so for it there is no session. Who locks a
# row leaves the transaction's own number in its xmax, and who updates it, in the new version's
# xmin. The age of that number is 0, and that of no other is, once there is one. To compare with
# `pg_current_xact_id()` would say it more plainly, but in a write a sharded server asks itself and
# not the shard; a SELECT is sent as it is. To fail in LOCK_SESSION instead,
# as by a division, would fill the server's log.
_IS_LOCKED: Final = "age(session.xmax) = 0"
_IS_UPDATED: Final = "age(session.xmin) = 0"

# What is selected is the state before the statement; the parts go with the session's row. The first
# message by its place, as an EXISTS is answered by reading the table where few sessions are long.
DELETE_SESSION: Final = f"""
    WITH locked AS (
        SELECT FROM {{schema}}director_sessions AS session
        WHERE session_id = $1::text AND {_IS_LOCKED}
    ),
    deleted AS (
        DELETE FROM {{schema}}director_sessions
        WHERE session_id = $1::text AND EXISTS (SELECT FROM locked)
        RETURNING session_id
    )
    SELECT
        EXISTS (SELECT FROM deleted) AND (
            SELECT seq FROM {{schema}}director_conversations WHERE session_id = $1::text
            ORDER BY seq LIMIT 1
        ) IS NOT NULL,
        EXISTS (SELECT FROM deleted) AND EXISTS (
            SELECT FROM {{schema}}director_context_messages WHERE session_id = $1::text
        ),
        EXISTS (SELECT FROM deleted)
"""


def select_sessions(*, before: bool, user: bool, video: bool, collection: bool) -> str:
    """Return the statement of a page of sessions; its parameters in the order of the arguments.

    A filter is written as a range, and its column stands first in the order. As an equation, it
    would let the planner walk all sessions by activity and drop those of others: fast if they are
    evenly mixed, and slow as a scan if the wanted ones are all old.
    """
    number = itertools.count(1)
    order = ["updated_at", "created_at", "session_id"]
    types = ["bigint", "bigint", "text"]
    cursor = [f"${next(number)}::{kind}" for kind in types] if before else []
    wanted = [
        (column, f"${next(number)}::text")
        for column, is_wanted in (
            ("user_id", user),
            ("video_id", video),
            ("collection_id", collection),
        )
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
        LIMIT ${next(number)}::bigint
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
    WHERE session_id = $1::text AND {_IS_UPDATED}
    ON CONFLICT (session_id, msg_id) DO UPDATE SET
        created_at = CASE WHEN $12::boolean THEN excluded.created_at ELSE stored.created_at END,
        {_UPDATE_MESSAGE}
"""


# All of them give created_at, or none does: it is no column, which the conflict would know. To look
# for what is stored instead is slow where the planner takes the session's other index.
def _upsert_messages(more: str = "", array: str = "", changes: str = "") -> str:
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
        WHERE session.session_id = $1::text AND {_IS_UPDATED}
        ON CONFLICT (session_id, msg_id) DO UPDATE SET
            created_at = CASE WHEN $3::boolean THEN excluded.created_at ELSE stored.created_at END,
            {changes}
            {_UPDATE_MESSAGE}
    """


UPSERT_MESSAGES: Final = _upsert_messages()

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
    WHERE {_IS_UPDATED}
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
    WHERE session_id = $1::text AND {_IS_LOCKED}
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

_MESSAGE_FIELDS: Final = """
    conv_id, msg_id, msg_type, agents, actions, content, status, created_at, updated_at, metadata,
    revision
"""

_MESSAGE_COLUMNS: Final = f"session_id, {_MESSAGE_FIELDS}"

SELECT_MESSAGE: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1::text AND msg_id = $2::text
"""

# No order is asked for: the server would sort long texts, or walk all the session in that order.
SELECT_MESSAGES_BY_ID: Final = f"""
    SELECT {_MESSAGE_COLUMNS}, seq FROM {{schema}}director_conversations
    WHERE session_id = $1::text AND msg_id = ANY($2::text[])
"""

SELECT_FIRST_MESSAGES: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1::text ORDER BY seq LIMIT $2::bigint
"""

SELECT_LAST_MESSAGES: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1::text ORDER BY seq DESC LIMIT $2::bigint
"""

# The second part gives one row, with no msg_id, where the session exists and the cursor does not;
# only a single statement sees the two and the page in one state, and takes one round trip.
_SELECT_MESSAGES_BY_CURSOR: Final = f"""
    (
        SELECT {_MESSAGE_COLUMNS} FROM {{{{schema}}}}director_conversations
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
    SELECT {_MESSAGE_COLUMNS} FROM {{schema}}director_conversations
    WHERE session_id = $1::text {_part("$3", "$4")} ORDER BY seq LIMIT $2::bigint
"""

SELECT_LAST_OF_PART: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM {{schema}}director_conversations
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

# --- History ------------------------------------------------------------------------------------

# All come after LOCK_SESSION, and do nothing where that has found no session: see
# _IS_LOCKED.

_LOCKED: Final = f"""
    SELECT FROM {{schema}}director_sessions AS session
    WHERE session.session_id = $1::text AND {_IS_LOCKED}
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
        RETURNING {_MESSAGE_COLUMNS}
    """


POP_MESSAGE: Final = _pop_message("")

# Hidden from the planner, as in _part: it would sort all of a session for a value that it takes for
# rare, in place of going back from the end.
POP_MESSAGE_OF_CONVERSATION: Final = _pop_message("AND coalesce(conv_id = $2::text, FALSE)")

# The place of a message, where the session is locked: to be read, and as a part of others.
SELECT_LOCKED_PLACE: Final = f"""
    SELECT message.seq
    FROM {{schema}}director_sessions AS session
    JOIN {{schema}}director_conversations AS message ON message.session_id = session.session_id
    WHERE session.session_id = $1::text AND message.msg_id = $2::text AND {_IS_LOCKED}
"""

DELETE_MESSAGES_AFTER: Final = f"""
    WITH last AS ({SELECT_LOCKED_PLACE})
    DELETE FROM {{schema}}director_conversations
    WHERE session_id = $1::text AND seq > (SELECT last.seq FROM last)
"""

# Their new places are above all old ones; what is left below them then is what was replaced.
REPLACE_MESSAGES: Final = _upsert_messages(
    more=", revision",
    array=", $15::bigint[]",
    changes="seq = excluded.seq, revision = coalesce(excluded.revision, stored.revision),",
)

DELETE_REPLACED: Final = f"""
    WITH counted AS (
        SELECT last_seq - $2::bigint AS seq FROM {{schema}}director_sessions AS session
        WHERE session.session_id = $1::text AND {_IS_UPDATED}
    )
    DELETE FROM {{schema}}director_conversations
    WHERE session_id = $1::text AND seq <= (SELECT counted.seq FROM counted)
"""

# A session that has the new id already is an error, which undoes the whole: a condition for what
# comes after it would have to look at another session, which may be on another shard.
COPY_SESSION: Final = f"""
    INSERT INTO {{schema}}director_sessions ({_SESSION_COLUMNS}, last_seq)
    SELECT $2::text, video_id, collection_id, $3::bigint, $3::bigint, metadata, user_id, last_seq
    FROM {{schema}}director_sessions AS session
    WHERE session.session_id = $1::text AND {_IS_LOCKED}
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
    INSERT INTO {{schema}}director_conversations (session_id, seq, {_MESSAGE_FIELDS})
    SELECT $2::text, seq, {_MESSAGE_FIELDS} FROM {{schema}}director_conversations
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

# --- Context ------------------------------------------------------------------------------------

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
    WHERE session.session_id = $1::text AND {_IS_LOCKED}
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

# --- Health -------------------------------------------------------------------------------------

# Fails where a table is missing; reads no row.
PROBE_TABLES: Final = """
    SELECT
        (SELECT revision FROM {schema}director_conversations WHERE false),
        (SELECT user_id FROM {schema}director_sessions WHERE false),
        (SELECT version FROM {schema}director_context_messages WHERE false),
        (SELECT idx FROM {schema}director_context_items WHERE false)
"""

SELECT_SERVER: Final = b"""
    SELECT
        current_setting('server_version'),
        current_setting('server_version_num')::integer,
        current_setting('server_encoding'),
        current_setting('synchronous_commit'),
        current_setting('fsync')
"""
