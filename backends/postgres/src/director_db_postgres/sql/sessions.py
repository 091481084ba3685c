"""Statements about sessions, and what says that a transaction has locked one."""

from __future__ import annotations

import itertools
from typing import Final

SESSION_COLUMNS: Final = (
    "session_id, video_id, collection_id, created_at, updated_at, metadata, user_id"
)

INSERT_SESSION: Final = f"""
    INSERT INTO {{schema}}director_sessions ({SESSION_COLUMNS}, last_seq)
    VALUES ($1::text, $2::text, $3::text, $4::bigint, $5::bigint, $6::text, $7::text, 0)
    ON CONFLICT (session_id) DO NOTHING
"""

SELECT_SESSION: Final = f"""
    SELECT {SESSION_COLUMNS} FROM {{schema}}director_sessions WHERE session_id = $1::text
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
IS_LOCKED: Final = "age(session.xmax) = 0"
IS_UPDATED: Final = "age(session.xmin) = 0"

# What is selected is the state before the statement; the parts go with the session's row. The first
# message by its place, as an EXISTS is answered by reading the table where few sessions are long.
DELETE_SESSION: Final = f"""
    WITH locked AS (
        SELECT FROM {{schema}}director_sessions AS session
        WHERE session_id = $1::text AND {IS_LOCKED}
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
        SELECT {SESSION_COLUMNS} FROM {{schema}}director_sessions {where}
        ORDER BY {" DESC, ".join(order)} DESC
        LIMIT ${next(number)}::bigint
    """
