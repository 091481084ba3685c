"""Source 1 of servers: a server that the environment names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from director_db_conformance.servers.offer import Offer, UnavailableError
from director_db_conformance.servers.server import PostgresServer

if TYPE_CHECKING:
    import psycopg

VARIABLE: Final = "DIRECTOR_DB_TEST_POSTGRES_DSN"

_MAY_CREATE: Final = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"

_PATIENCE: Final = 10  # seconds


class ConfiguredServerError(RuntimeError):
    """The server that the environment names cannot serve; going on without it would hide that."""


class ConfiguredServer:
    """The server of ``DIRECTOR_DB_TEST_POSTGRES_DSN``."""

    name = "configured server"
    remedy = f"set {VARIABLE} to a server and an account that may create databases"

    def offer(self, version: int | None) -> Offer:
        """Offer that server, after asking it for its version.

        Raises:
            ConfiguredServerError: it cannot be reached, or gives no right to create databases.
        """
        dsn = os.environ.get(VARIABLE)
        if not dsn:
            message = f"{VARIABLE} is not set"
            raise UnavailableError(message)
        with _connect(dsn) as connection:
            number = connection.info.server_version
            row = connection.execute(_MAY_CREATE).fetchone()
        if row is None or not row[0]:
            message = f"The account in {VARIABLE} may not create databases. Grant it CREATEDB."
            raise ConfiguredServerError(message)
        major, minor = divmod(number, 10_000)
        if version is not None and version != major:
            message = f"version {version} is needed; {VARIABLE} names {major}.{minor}"
            raise UnavailableError(message)
        found = f"{major}.{minor}"
        return Offer(VARIABLE, found, lambda _durable: PostgresServer(VARIABLE, found, dsn))


def _connect(dsn: str) -> psycopg.Connection:
    import psycopg  # noqa: PLC0415 - an extra

    try:
        return psycopg.connect(dsn, autocommit=True, connect_timeout=_PATIENCE)
    except psycopg.Error as error:
        # libpq repeats no password in these.
        message = f"{VARIABLE} is set, but its server cannot be used: {error}"
        raise ConfiguredServerError(message) from error
