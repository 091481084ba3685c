"""The numbered upgrades of our own tables, all in one transaction at the first use.

An upgrade only adds: columns that may be NULL, and indexes. So processes of an older release, which
name the columns that they write, stay right beside newer ones, and ``schema_version`` stays what
they expect; see `director_db.schema_version`. Such a column is added in the catalogue alone,
however many rows there are.

Altering a table waits for all who use it, and all who come meanwhile wait behind that. So it waits
for moments only, lets the others pass, and tries again.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg

from director_db.errors import BackendUnavailableError, SchemaError
from director_db.logs import INFO, tell
from director_db.schema_version import REACHED
from director_db_postgres.driver_log import LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_postgres.pipeline import PipelinedConnection
    from director_db_postgres.statements import Statements

UPGRADES: Final[dict[int, tuple[str, ...]]] = {
    2: (
        # Sessions first, as every write takes them first.
        'ALTER TABLE {schema}director_sessions ADD COLUMN user_id TEXT COLLATE "C"',
        # Most applications name no user; their sessions cost nothing here.
        """
        CREATE INDEX director_sessions_by_user
            ON {schema}director_sessions (user_id, updated_at, created_at, session_id)
            WHERE user_id IS NOT NULL
        """,
        "ALTER TABLE {schema}director_conversations ADD COLUMN revision BIGINT",
    ),
}
"""By the version that they lead to, what turns the tables of the one before into it."""

SCHEMA_VERSION: Final = max(UPGRADES)
"""The version that this release works with."""

LOCK: Final = b"SELECT pg_advisory_xact_lock(7310868735422735730)"
"""Creating and upgrading come one after another.

One key for all schemas of a database: they are rare, and a wait for another one is short. A lock of
the transaction, not of the session: it works through a pooler and cannot be left behind.
"""

_SET_REACHED: Final = f"""
    INSERT INTO {{schema}}director_meta AS stored (key, value)
    VALUES ('{REACHED}', '{SCHEMA_VERSION}')
    ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""

# Others wait behind us for as long.
_WAIT_BRIEFLY: Final = b"SET LOCAL lock_timeout = '500ms'"
# A role's own limit is meant for its queries.
_TAKE_TIME: Final = b"SET LOCAL statement_timeout = 0"
_LONGEST_PAUSE: Final = 1.0

PATIENCE: Final = 30.0
"""How long an upgrade waits for the locks of others, in seconds, if the caller does not say."""


def apply(connection: psycopg.Connection[Any], statements: Statements, version: int) -> None:
    """Bring tables of that version to this release's, inside the caller's transaction."""
    for number in range(version + 1, SCHEMA_VERSION + 1):
        for statement in UPGRADES[number]:
            connection.execute(statements.compose(statement))
    connection.execute(statements.compose(_SET_REACHED))


def upgrade(
    connection: PipelinedConnection,
    statements: Statements,
    place: str,
    find: Callable[[], int],
    until: float,
) -> None:
    """Upgrade the tables, in a transaction of its own; it is all done, or nothing is.

    Args:
        connection: one in no transaction.
        statements: those of the schema.
        place: the database, for messages.
        find: returns the version that the tables have; another process may have been faster.
        until: when to stop waiting for the locks of others, on the monotonic clock.

    Raises:
        BackendUnavailableError: somebody held a table for all that time; `retryable`.
        SchemaError: this user must not alter the tables.
    """
    # Whatever the server's default is: after the lock, each statement must see the latest state.
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    while True:
        try:
            with connection.transaction():
                connection.execute(_WAIT_BRIEFLY)
                connection.execute(_TAKE_TIME)
                connection.execute(LOCK)
                version = find()
                if version < SCHEMA_VERSION:
                    apply(connection, statements, version)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            pause = random.uniform(0.5, 1) * _LONGEST_PAUSE  # noqa: S311 - no secret
            if time.monotonic() + pause > until:
                message = (
                    f"{place}: its tables are of an earlier schema version, and others held them "
                    f"while they were to be upgraded to {SCHEMA_VERSION}. Nothing was changed. Try "
                    "again, or end the transactions that last: a backup, or one left idle."
                )
                raise BackendUnavailableError(message, retryable=True) from error
            time.sleep(pause)
        except psycopg.errors.InsufficientPrivilege as error:
            message = (
                f"{place}: its tables are of an earlier schema version, and this user must not "
                f"alter them ({error.diag.message_primary}). As their owner, run: "
                "director-db migrate"
            )
            raise SchemaError(message) from error
        else:
            if version < SCHEMA_VERSION:
                tell(LOGGER, INFO, "%s: upgraded to schema version %d", place, SCHEMA_VERSION)
            return
