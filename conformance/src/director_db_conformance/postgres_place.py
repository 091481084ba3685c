"""Places on a real Postgres, wherever the suite runs. The plugin itself needs no test framework."""

from __future__ import annotations

import atexit
import functools
import os
from typing import TYPE_CHECKING, Final

from director_db.testing import Place
from director_db_conformance.pgbouncer import PgBouncer
from director_db_conformance.servers import find_postgres
from director_db_conformance.servers.ladder import asked_version

if TYPE_CHECKING:
    from pathlib import Path

    from director_db_conformance.servers import PostgresServer

PGBOUNCER_VARIABLE: Final = "DIRECTOR_DB_TEST_PGBOUNCER"
"""Puts PgBouncer, in transaction mode, in front of every place."""


def provision(directory: Path) -> Place:  # noqa: ARG001 - its files are the server's
    """Provide an empty database on a server that is shared by the whole run."""
    server = _server()
    database = server.create_database()
    pooler = PgBouncer(database) if PGBOUNCER_VARIABLE in os.environ else None

    def destroy() -> None:
        if pooler is not None:
            pooler.close()
        server.drop_database(database)

    def restart() -> None:
        server.kill()
        server.start()

    return Place(
        "postgres",
        database.environment if pooler is None else pooler.environment,
        restart=restart if server.can_restart else None,
        cut=functools.partial(server.cut, database),
        destroy=destroy,
    )


@functools.cache
def _server() -> PostgresServer:
    server = find_postgres(version=asked_version())
    atexit.register(server.close)
    return server
