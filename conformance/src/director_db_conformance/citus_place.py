"""Places on a Citus cluster that the environment names: a schema each, with distributed tables.

A schema and not a database, as that would have to be created, and the extension in it, on every
node: some seconds for each of hundreds of places. Even distributing takes a second, so that a
schema is emptied and renamed for the next place.
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, LiteralString

from director_db.testing import Place, connections_to
from director_db_conformance.dsn import parts, replace
from director_db_conformance.servers.nodes import Node, crash

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

DSN_VARIABLE: Final = "DIRECTOR_DB_TEST_CITUS_DSN"
"""Names a database on a coordinator, with the extension and workers; all places are there."""

NODES_VARIABLE: Final = "DIRECTOR_DB_TEST_CITUS_NODES"
"""The data folders of its nodes, all on this machine, the coordinator's first.

They are separated as in PATH. The tests may then kill the nodes; they run as root, or as the user
that the nodes run as.
"""

REMEDY: Final = (
    f"Set {DSN_VARIABLE} to a database on a Citus coordinator with two workers, and "
    f"{NODES_VARIABLE} to the data folders of the three, so that the tests may kill them; "
    "docs/scaling.md says how such a cluster is set up."
)

# Enough that both workers have some, and few enough to be created for every place.
_SHARDS: Final = 4

# Emptied, and to be dropped at the end.
_free: list[str] = []

_RENAME: Final = "ALTER SCHEMA {schema} RENAME TO {name}"
_EMPTY: Final = "DELETE FROM {schema}.director_sessions"
_VERSIONS: Final = """
    SELECT current_setting('server_version'), extversion FROM pg_extension WHERE extname = 'citus'
"""
_DROP: Final = "DROP SCHEMA IF EXISTS {schema} CASCADE"
_DELETE: Final = "DELETE FROM {schema}.director_sessions WHERE session_id = %s"
_LOCK: Final = "SELECT FROM {schema}.director_sessions WHERE session_id = %s FOR UPDATE"
_CUT: Final = """
    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = %s
"""


def provision() -> Place:
    """Provide a schema of its own with empty, distributed tables."""
    dsn = os.environ[DSN_VARIABLE]
    name = f"director_db_test_{secrets.token_hex(8)}"
    server = _server(dsn)
    is_new = not _free
    if not is_new:
        _run(dsn, _RENAME, _free.pop(), name)
    # By this name its connections are known: others may use the same database.
    own = replace(dsn, application_name=name)
    # In the URL alone: POSTGRES_SCHEMA would count for every other URL, too.
    url = replace(own, schema=name)
    nodes = cluster_nodes()

    def cut() -> None:
        with _connect(dsn) as connection:
            connection.execute(_CUT, (name,))

    def destroy() -> None:
        cut()
        _run(dsn, _EMPTY, name)
        _free.append(name)

    def stop() -> None:
        for node in nodes:
            node.stop()

    def start() -> None:
        for node in nodes:
            node.start()

    place = Place(
        "postgres",
        {"POSTGRES_DSN": url},
        url=url,
        impatient={"retry_deadline": 0.5, "operation_timeout": 1.0},
        restart=functools.partial(crash, nodes) if nodes else None,
        stop=stop if nodes else None,
        start=start if nodes else None,
        cut=cut,
        destroy=destroy,
        delete_session_row=functools.partial(_delete_session_row, dsn, name),
        lock_session_row=functools.partial(_lock_session_row, dsn, name),
        connections=connections_to(int(parts(dsn).get("port", "5432"))),
        server=server,
    )
    if is_new:
        with place.open() as db:
            db.distribute(shards=_SHARDS)
    return place


def cluster_nodes() -> list[Node]:
    """Return the nodes that the tests may kill, the coordinator first; none if none are named."""
    folders = os.environ.get(NODES_VARIABLE, "")
    return [Node(Path(folder)) for folder in folders.split(os.pathsep) if folder]


@functools.cache
def _server(dsn: str) -> str:
    """Return what the server is, for people; see to it that the run leaves nothing on it."""
    atexit.register(_drop_the_free, dsn)
    with _connect(dsn) as connection:
        (versions,) = connection.execute(_VERSIONS).fetchall()
    return "Postgres {} with Citus {} from {}".format(*versions, DSN_VARIABLE)


def _connect(dsn: str) -> psycopg.Connection:
    import psycopg  # noqa: PLC0415 - an extra

    return psycopg.connect(dsn, autocommit=True, connect_timeout=10)


def _run(dsn: str, statement: LiteralString, schema: str, name: str = "") -> None:
    from psycopg import sql  # noqa: PLC0415 - an extra

    names = {"schema": sql.Identifier(schema), "name": sql.Identifier(name)}
    with _connect(dsn) as connection:
        connection.execute(sql.SQL(statement).format(**names))


def _delete_session_row(dsn: str, schema: str, session_id: str) -> None:
    from psycopg import sql  # noqa: PLC0415 - an extra

    statement = sql.SQL(_DELETE).format(schema=sql.Identifier(schema))
    with _connect(dsn) as connection:
        connection.execute(statement, (session_id,))


@contextmanager
def _lock_session_row(dsn: str, schema: str, session_id: str) -> Iterator[None]:
    from psycopg import sql  # noqa: PLC0415 - an extra

    statement = sql.SQL(_LOCK).format(schema=sql.Identifier(schema))
    with _connect(dsn) as connection, connection.transaction():
        connection.execute(statement, (session_id,))
        yield


def _drop_the_free(dsn: str) -> None:
    while _free:
        _run(dsn, _DROP, _free.pop())
