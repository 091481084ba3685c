"""Places on a real Postgres, wherever the suite runs. The plugin itself needs no test framework."""

from __future__ import annotations

import atexit
import functools
import os
from typing import TYPE_CHECKING, Final

from director_db.testing import Place, connections_to
from director_db_conformance import citus_place
from director_db_conformance.dsn import parts
from director_db_conformance.pgbouncer import TOLD, PgBouncer
from director_db_conformance.postgres_faults import delete_session_row, faults_of, lock_session_row
from director_db_conformance.servers import find_postgres
from director_db_conformance.servers.server import Database
from director_db_conformance.servers.server_sources import asked_version

if TYPE_CHECKING:
    from pathlib import Path

    from director_db_conformance.servers import PostgresServer

PGBOUNCER_VARIABLE: Final = "DIRECTOR_DB_TEST_PGBOUNCER"
"""Puts PgBouncer, in transaction mode, in front of every place; as "forgotten", untold."""


def provision(directory: Path) -> Place:  # noqa: ARG001 - its files are the server's
    """Provide an empty database on a server that all places of this process share.

    On a cluster of Citus it is a schema, with its tables.
    """
    if citus_place.DSN_VARIABLE in os.environ:
        return citus_place.provision()
    asked = os.environ.get(PGBOUNCER_VARIABLE)
    return place_on(_server(), pooled=asked is not None, announced=asked != "forgotten")


def place_on(
    server: PostgresServer,
    *,
    pooled: bool = False,
    announced: bool = True,
    encoding: str | None = None,
) -> Place:
    """Make an empty database on a server into a place.

    Args:
        server: the server; its restart, if it can do that, is of all its databases.
        pooled: put PgBouncer, in transaction mode, in front of it.
        announced: whether the settings say so.
        encoding: of the database; None for the server's own.
    """
    database = server.create_database(encoding)
    entrance, environment = database, database.environment
    if pooled:
        entrance = _pooler(server).database_of(database)
        environment = entrance.environment | (TOLD if announced else {})

    def destroy() -> None:
        (server.give_back if encoding is None else server.drop_database)(database)

    def restart() -> None:
        server.kill()
        server.start()

    movable = server.can_restart
    return Place(
        "postgres",
        environment,
        url=entrance.dsn,
        impatient={"retry_deadline": 0.5, "operation_timeout": 1.0},
        restart=restart if movable else None,
        stop=server.stop if movable else None,
        start=server.start if movable else None,
        freeze=server.freeze if movable else None,
        thaw=server.thaw if movable else None,
        cut=functools.partial(server.cut, database),
        destroy=destroy,
        delete_session_row=functools.partial(delete_session_row, database),
        lock_session_row=functools.partial(lock_session_row, database),
        connections=connections_to(int(parts(entrance.dsn).get("port", "5432"))),
        faults=faults_of(server, database, pooled=pooled),
        server=f"Postgres {server}{', through PgBouncer' if pooled else ''}",
        # Each process starts a server of its own. Somebody's may have too few connections for more.
        apart=movable,
    )


@functools.cache
def _server() -> PostgresServer:
    server = find_postgres(version=asked_version())
    atexit.register(server.close)
    return server


@functools.cache
def _pooler(server: PostgresServer) -> PgBouncer:
    # One for all databases: to start one for each took a fifth of a run. A process that ends
    # without its exit functions, such as a trial of the gallery, leaves it to its reaper.
    pooler = PgBouncer(Database("postgres", server.owner_dsn))
    atexit.register(pooler.close)
    return pooler
