"""The numbered upgrades of our own tables, each a transaction of its own, at the first use.

An upgrade only adds: columns that may be NULL, and indexes. So processes of an older release, which
name the columns that they write, stay right beside newer ones, and ``schema_version`` stays what
they expect; see `director_db.schema_version`. Such a column is added in the catalogue alone,
however many rows there are; an index, which reads them all, has a number of its own, so that nobody
who reads waits for it.

Altering a table waits for all who use it, and all who come meanwhile wait behind that. So one
process at a time asks for the lock, for a moment, after a pause that is much longer.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg

from director_db.errors import BackendUnavailableError, SchemaError
from director_db.logs import INFO, log
from director_db.schema_version import REACHED
from director_db_postgres.driver_log import LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_postgres.connections import Connection
    from director_db_postgres.statements import Statements

UPGRADES: Final[dict[int, tuple[str, ...]]] = {
    2: (
        # Sessions first, as every write takes them first.
        'ALTER TABLE {schema}director_sessions ADD COLUMN user_id TEXT COLLATE "C"',
        "ALTER TABLE {schema}director_conversations ADD COLUMN revision BIGINT",
    ),
    3: (
        # Most applications name no user; their sessions cost nothing here.
        """
        CREATE INDEX IF NOT EXISTS director_sessions_by_user
            ON {schema}director_sessions (user_id, updated_at, created_at, session_id)
            WHERE user_id IS NOT NULL
        """,
    ),
}
"""By the version that they lead to, what turns the tables of the one before into it."""

SCHEMA_VERSION: Final = max(UPGRADES)
"""The version that this release works with."""

# One process upgrades a schema's tables, and the others ask again. A lock of the transaction, not
# of the session: it works through a pooler and cannot be left behind.
_TRY_TO_BE_THE_ONE: Final = """
    SELECT pg_try_advisory_xact_lock(731086873, tableoid::integer)
    FROM {schema}director_meta WHERE key = 'schema_version'
"""

_SET_REACHED: Final = f"""
    INSERT INTO {{schema}}director_meta AS stored (key, value) VALUES ('{REACHED}', $1::text)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""

# An owner may alter a table, but an index also takes a right on the schema, which is looked at only
# when the table is locked.
_SELECT_MISSING_RIGHT: Final = b"""
    SELECT format('GRANT CREATE ON SCHEMA %I TO %I', n.nspname, current_user)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = 'director_sessions' AND n.nspname = coalesce($1::text, current_schema())
        AND pg_has_role(c.relowner, 'USAGE') AND NOT has_schema_privilege(n.oid, 'CREATE')
"""

# A role's own limit is meant for its queries. On Citus the shards are told, too.
_BE_PATIENT: Final = b"""
    SET LOCAL citus.propagate_set_commands = 'local'; SET LOCAL statement_timeout = 0
"""
# Others wait behind us for as long, for each of the tables. A call's first try comes without a
# pause, so it is hardly one.
_FIRST_KNOCK: Final = b"SET LOCAL lock_timeout = '1ms'"
_KNOCK: Final = b"SET LOCAL lock_timeout = '25ms'"
_PAUSE: Final = 0.5

PATIENCE: Final = 30.0
"""How long an upgrade waits for the locks of others, in seconds, if the caller does not say."""


def apply(connection: psycopg.Connection[Any], statements: Statements, number: int) -> None:
    """Bring tables of the version before to that one, inside the caller's transaction."""
    for statement in UPGRADES[number]:
        connection.execute(statements.compose(statement))
    connection.execute(statements.compose(_SET_REACHED), (str(number),))


def upgrade(
    connection: Connection,
    statements: Statements,
    place: str,
    find: Callable[[], int],
    until: float,
) -> None:
    """Upgrade the tables, each number in a transaction of its own: all of it, or nothing.

    Args:
        connection: one in no transaction.
        statements: those of the schema.
        place: the database, for messages.
        find: returns the version that the tables have; another process may have been faster.
        until: when to stop waiting for the locks of others, on the monotonic clock.

    Raises:
        BackendUnavailableError: somebody held a table for all that time; `retryable`.
        SchemaError: this user must not alter the tables, or somebody else has altered them.
    """
    # Whatever the server's default is: after the lock, each statement must see the latest state.
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    is_old = f"{place}: its tables are of an earlier schema version, and"
    missing = connection.execute(_SELECT_MISSING_RIGHT, (statements.schema,)).fetchone()
    if missing is not None:
        message = f"{is_old} their owner must not add an index. As the schema's owner, run in SQL: "
        raise SchemaError(message + missing[0])
    pause, knock = 0.0, _FIRST_KNOCK
    while (number := find() + 1) <= SCHEMA_VERSION:
        is_the_one, held = False, None
        try:
            with connection.transaction():
                connection.execute(_BE_PATIENT)
                row = connection.execute(statements.compose(_TRY_TO_BE_THE_ONE)).fetchone()
                is_the_one = row is not None and row[0]
                if is_the_one:
                    # While nobody else asks, and before this transaction has a number: with one it
                    # would keep dead rows from being cleaned up.
                    time.sleep(pause)
                    if find() < number:
                        # An index takes as long as it takes: broken off, it would start over.
                        with connection.unlimited():
                            connection.execute(knock)
                            apply(connection, statements, number)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            held = error
        except psycopg.errors.InsufficientPrivilege as error:
            message = (
                f"{is_old} this user must not alter them ({error.diag.message_primary}). As their "
                "owner, run: director-db migrate"
            )
            raise SchemaError(message) from error
        except psycopg.errors.DuplicateColumn as error:
            message = (
                f"{is_old} somebody else has added what it needs ({error.diag.message_primary}). "
                "Rename that column, then try again."
            )
            raise SchemaError(message) from error
        if is_the_one and held is None:
            log(LOGGER, INFO, "%s: upgraded to schema version %d", place, number)
            continue
        if time.monotonic() + _PAUSE > until:
            message = (
                f"{is_old} others held them while they were to be upgraded to {number}. Nothing "
                "was changed. Try again, or end the transactions that last: a backup, or one left "
                "idle."
            )
            raise BackendUnavailableError(message, retryable=True) from held
        pause, knock = _PAUSE, _KNOCK
        if not is_the_one:
            time.sleep(random.uniform(0.1, 1) * _PAUSE)  # noqa: S311 - no secret
