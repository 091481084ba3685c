"""The tables on a Citus cluster: whether they are distributed by session, and doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from director_db.errors import ConfigurationError, SchemaError
from director_db.records import Distribution
from director_db_postgres.schema import WAIT_FOR_LOCKS

if TYPE_CHECKING:
    from director_db_postgres.pipeline import PipelinedConnection

DEFAULT_SHARDS: Final = 4
"""What `distribute` takes; docs/scaling.md has the measurements that speak for it."""

# In an order in which each refers to those before it.
TABLES: Final = (
    "director_sessions",
    "director_conversations",
    "director_context_messages",
    "director_context_items",
)

SELECT_VERSION: Final = b"""
    SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'citus'
"""

# Runs where the extension is: a plain server has no such catalogue. A table that it knows and
# that is on the coordinator all the same has this method and model.
_SELECT_TABLES: Final = b"""
    SELECT
        c.relname::text,
        p.logicalrelid IS NOT NULL AND NOT (p.partmethod = 'n' AND p.repmodel = 's'),
        p.partmethod = 'h' AND column_to_column_name(p.logicalrelid, p.partkey) = 'session_id',
        p.colocationid::bigint,
        g.shardcount::bigint
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_dist_partition p ON p.logicalrelid = c.oid
    LEFT JOIN pg_catalog.pg_dist_colocation g ON g.colocationid = p.colocationid
    WHERE n.nspname = coalesce($1::text, current_schema()::text) AND c.relname = ANY ($2::text[])
"""

_SELECT_NODES: Final = b"""
    SELECT
        (SELECT groupid = 0 FROM pg_catalog.pg_dist_local_group),
        (SELECT count(*) FROM pg_catalog.pg_dist_node WHERE isactive AND shouldhaveshards)
"""

# Of two at once the second finds it done. A lock of the transaction: it cannot be left behind.
_LOCK: Final = b"SELECT pg_advisory_xact_lock(7310868735422735731)"

# Rows are copied to their shards, which may take longer than any statement of an application.
_BE_PATIENT: Final = b"SET LOCAL statement_timeout = 0"

_DISTRIBUTE_FIRST: Final = b"""
    SELECT create_distributed_table(
        format('%I.%I', coalesce($1::text, current_schema()::text), $2::text)::regclass,
        'session_id', colocate_with => 'none', shard_count => $3::integer
    )
"""
_DISTRIBUTE: Final = b"""
    SELECT create_distributed_table(
        format('%I.%I', coalesce($1::text, current_schema()::text), $2::text)::regclass,
        'session_id',
        colocate_with => format('%I.%I', coalesce($1::text, current_schema()::text), $3::text)
    )
"""


class Tables(NamedTuple):
    """How the four tables are.

    Attributes:
        version: of the extension.
        local: the tables that are on one server, in the order of `TABLES`.
        wrong: a table that is distributed in another way, None if there is none.
        shards: how many shards the sessions have; 0 if they are local.
    """

    version: str
    local: list[str]
    wrong: str | None
    shards: int

    def warning(self) -> str | None:
        """Say what should be done, for `health`; None where nothing has to be."""
        if self.wrong is not None:
            return _is_wrong(self.wrong)
        if len(self.local) == len(TABLES):
            return (
                f"Citus {self.version} is there, and all tables are on the coordinator alone. To "
                "distribute them, run: director-db distribute"
            )
        if self.local:
            return (
                f"Only some tables are distributed: {', '.join(self.local)} still on the "
                "coordinator alone, so that operations fail. Run: director-db distribute"
            )
        return None


def look(connection: PipelinedConnection, schema: str | None) -> Tables | None:
    """Return how the tables are; None where there is no Citus."""
    version = connection.execute(SELECT_VERSION).fetchone()
    if version is None:
        return None
    rows = connection.execute(_SELECT_TABLES, (schema, list(TABLES))).fetchall()
    kinds = {name: (known, by_session, group) for name, known, by_session, group, _ in rows}
    sessions = kinds.get(TABLES[0], (False, False, None))
    wrong = [
        name
        for name, (known, by_session, group) in kinds.items()
        if known and not (by_session and group == sessions[2])
    ]
    local = [name for name in TABLES if not kinds.get(name, (False,))[0]]
    shards = [count for name, *_, count in rows if name == TABLES[0] and count]
    return Tables(version[0], local, min(wrong, default=None), shards[0] if shards else 0)


def require_cluster(connection: PipelinedConnection, place: str) -> None:
    """See to it that this is the coordinator of a cluster with somebody to take shards.

    Raises:
        ConfigurationError: it is not.
    """
    version = connection.execute(SELECT_VERSION).fetchone()
    if version is None:
        message = (
            f"{place} is a Postgres without the extension citus, so that its tables stay on one "
            "server. To distribute them, install Citus on the coordinator and its workers, run "
            "CREATE EXTENSION citus in this database on each, and SELECT citus_add_node() for each "
            "worker."
        )
        raise ConfigurationError(message)
    is_coordinator, takers = connection.execute(_SELECT_NODES).fetchall()[0]
    if not is_coordinator:
        message = f"{place} is a worker of Citus. Distribute on the coordinator."
        raise ConfigurationError(message)
    if not takers:
        message = (
            f"{place} has Citus {version[0]} and no node that takes shards. Add the workers: "
            "SELECT citus_add_node('worker1', 5432)"
        )
        raise ConfigurationError(message)


def distribute(
    connection: PipelinedConnection, schema: str | None, place: str, shards: int | None
) -> Distribution:
    """Distribute the tables that are local; all of them or none.

    Args:
        connection: one in no transaction, to the coordinator of a cluster, with our tables.
        schema: theirs; None means the first in the search path.
        place: the database, for messages.
        shards: how many shards; None means `DEFAULT_SHARDS`.

    Raises:
        SchemaError: a table is distributed already, but not as ours have to be.
    """
    with connection.transaction():
        connection.execute(WAIT_FOR_LOCKS)
        connection.execute(_LOCK)
        tables = look(connection, schema)
        assert tables is not None  # noqa: S101 - a cluster has the extension
        if tables.wrong is not None:
            message = f"{place}: {_is_wrong(tables.wrong)}"
            raise SchemaError(message)
        if not tables.local:
            return Distribution(tables.version, tables.shards, [])
        connection.execute(_BE_PATIENT)
        for table in tables.local:
            if table == TABLES[0]:
                count = DEFAULT_SHARDS if shards is None else shards
                connection.execute(_DISTRIBUTE_FIRST, (schema, table, count))
            else:
                connection.execute(_DISTRIBUTE, (schema, table, TABLES[0]))
        made = look(connection, schema)
    assert made is not None  # noqa: S101 - the extension was there
    return Distribution(made.version, made.shards, tables.local)


def _is_wrong(table: str) -> str:
    return (
        f"{table} is distributed, but not by session_id and beside director_sessions. Undo it with "
        f"SELECT undistribute_table('{table}', cascade_via_foreign_keys => true), then run: "
        "director-db distribute"
    )
