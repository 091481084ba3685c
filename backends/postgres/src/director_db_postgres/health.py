"""What `health()` tells of a server: its versions, and what somebody should know or mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg

from director_db import CONTRACT_VERSION, __version__
from director_db_postgres import citus, old_layout
from director_db_postgres.sql import server
from director_db_postgres.upgrades import SCHEMA_VERSION
from director_db_postgres.version import __version__ as plugin_version

if TYPE_CHECKING:
    from director_db_postgres.connections import Connection
    from director_db_postgres.statements import Statements

MIN_SERVER: Final = 15
"""The oldest major version of the server that is tested."""


class ServerHealth(NamedTuple):
    """What a server answered.

    Attributes:
        version: of the server, for people.
        number: the same as a number, 150004 for 15.4.
        encoding: of the database.
        synchronous_commit: the server's setting.
        fsync: the server's setting.
        old_tables: tables of the old system that hold rows.
        shards: how Citus spreads our tables; None where it is not installed.
    """

    version: str
    number: int
    encoding: str
    synchronous_commit: str
    fsync: str
    old_tables: list[str]
    shards: citus.Tables | None

    @classmethod
    def look(cls, connection: Connection, statements: Statements) -> ServerHealth:
        """Ask a server.

        Raises:
            psycopg.Error: it cannot answer, or a table of ours is missing.
        """
        connection.run(statements.probe_tables)
        (row,) = connection.run(server.SELECT_SERVER).rows()
        old_tables = old_layout.tables_with_rows(connection, statements)
        return cls._make((*row, old_tables, citus.look(connection, statements.schema)))

    def versions(self) -> dict[str, str]:
        """Return the versions of everything that takes part."""
        versions = {
            "director-db": __version__,
            "director-db-postgres": plugin_version,
            "contract": CONTRACT_VERSION,
            "schema": str(SCHEMA_VERSION),
            "PostgreSQL": self.version,
            "psycopg": psycopg.__version__,
            "libpq": _dotted(psycopg.pq.version()),
        }
        if self.shards is not None:
            versions["Citus"] = self.shards.version
        return versions

    def warnings(self, *, found_pooler: bool) -> list[str]:
        """Return what somebody should know or mend, a sentence or two each."""
        warnings = []
        if self.shards is not None:
            warning = self.shards.warning()
            warnings += [] if warning is None else [warning]
        if self.synchronous_commit == "off":
            warnings.append(
                "synchronous_commit is off: a crash of the server loses the latest writes."
            )
        if self.fsync == "off":
            warnings.append("fsync is off: a power cut may destroy the whole database.")
        if self.encoding != "UTF8":
            warnings.append(
                f"The database's encoding is {self.encoding}: ids are limited to its characters, "
                "and other text takes more space. Create databases with ENCODING 'UTF8'."
            )
        if self.number < MIN_SERVER * 10_000:
            warnings.append(
                f"PostgreSQL {self.version} is older than {MIN_SERVER}, the oldest tested."
            )
        if found_pooler:
            warnings.append(
                "A pooler is in between, and POSTGRES_POOLER does not say so: set it to 1, or to 0 "
                "if each connection keeps its server. Until then statements are not prepared, and "
                "a statement timeout or other options may not be in force."
            )
        if self.old_tables:
            warnings.append(
                f"The old application writes to this database: {', '.join(self.old_tables)} hold "
                "rows, which director-db does not see. Stop it."
            )
        return warnings


def _dotted(version: int) -> str:
    """Write a version of libpq, such as 180006, as people do."""
    return f"{version // 10_000}.{version % 10_000}"
