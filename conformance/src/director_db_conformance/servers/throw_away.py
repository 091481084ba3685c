"""A server of our own, which tests may treat as badly as they like."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from director_db_conformance.dsn import url
from director_db_conformance.ports import LOOPBACK
from director_db_conformance.servers.server import PostgresServer

if TYPE_CHECKING:
    from director_db_conformance.servers.server import Database

SUPERUSER: Final = "postgres"

OWNER: Final = "director_db"
"""The account that owns the databases. It is no superuser, as in a well-kept production."""

RELOAD: Final = "SELECT pg_reload_conf()"
"""Lets a server take over what ALTER SYSTEM has set."""

SETTINGS: Final = {"max_connections": "500", "lc_messages": "C"}
"""What each is started with; 100 threads beside all peers of the benchmarks connect 430 times."""

# Without fsync, what was committed still survives the death of the server, since the system has it;
# only a power cut would lose it. synchronous_commit stays on: off, a killed server forgets. And so
# does full_page_writes: SIGKILL may end a write between the two halves of a page.
VOLATILE: Final = {"fsync": "off"}

_CREATE_OWNER: Final = "CREATE ROLE {role} LOGIN PASSWORD {secret}"
_ALTER_ROLE: Final = "ALTER ROLE {role} PASSWORD {secret}"

_HOLD_ANSWERS: Final = "ALTER SYSTEM SET synchronous_standby_names = 'nobody'"
_LET_ANSWERS_GO: Final = "ALTER SYSTEM RESET synchronous_standby_names"
_IS_HELD: Final = "SELECT FROM pg_stat_activity WHERE datname = %s AND wait_event = 'SyncRep'"
_LONGEST_HOLD: Final = 0.5
_PAUSE: Final = 0.005


class ServerFailedError(RuntimeError):
    """A server, or a program that prepares one, ended by itself; the text has its last words."""


class ThrowAwayServer(PostgresServer):
    """A server that was made for the tests and goes with them."""

    can_restart = True

    def __init__(self, source: str, version: str) -> None:
        """Choose its passwords; it has yet to be made, and to be started.

        Args:
            source: where it comes from, for people.
            version: its version.
        """
        self._password = secrets.token_urlsafe(16)
        # With what people put into passwords, and what URLs and connection strings must quote.
        self._owner_password = f"{secrets.token_urlsafe(16)} @:/%'\"\\"
        self._address = LOOPBACK
        self._port = 0
        self._cuts: Counter[str] = Counter()
        super().__init__(source, version, "")

    @property
    def dsn(self) -> str:
        """The URL of the superuser; it holds the password."""
        return self._url(SUPERUSER, self._password)

    def cut(self, database: Database) -> None:
        """End every connection to a database; every second time, some right after their commits.

        What they have committed is then stored, and nobody has been told so. By chance that hardly
        ever happens, since a commit's answer follows at once; here each waits for a standby that
        does not exist.
        """
        self._cuts[database.name] += 1
        with self.connect() as connection:
            row = connection.execute("SHOW synchronous_standby_names").fetchone()
        if row != ("",) or self._cuts[database.name] % 2:
            super().cut(database)
            return
        try:
            with self.connect() as connection:
                connection.execute(_HOLD_ANSWERS)
                connection.execute(RELOAD)
                deadline = time.monotonic() + _LONGEST_HOLD
                while time.monotonic() < deadline:
                    if connection.execute(_IS_HELD, (database.name,)).fetchone() is not None:
                        break
                    time.sleep(_PAUSE)
                super().cut(database)
        finally:
            with self.connect() as connection:
                connection.execute(_LET_ANSWERS_GO)
                connection.execute(RELOAD)

    def _welcome(self) -> None:
        """Create the account that owns the databases, and let logging in cost little."""
        from psycopg import sql  # noqa: PLC0415 - an extra

        accounts = [
            (_CREATE_OWNER, OWNER, self._owner_password),
            (_ALTER_ROLE, SUPERUSER, self._password),
        ]
        with self.connect() as connection:
            for statement, role, password in accounts:
                connection.execute(
                    sql.SQL(statement).format(
                        role=sql.Identifier(role), secret=sql.Literal(_scram_secret(password))
                    )
                )

    def _url(self, user: str, password: str) -> str:
        return url(
            {
                "user": user,
                "password": password,
                "host": self._address,
                "port": str(self._port),
                "dbname": "postgres",
            }
        )


def _scram_secret(password: str) -> str:
    """Return what a server stores of a password, for one iteration in place of 4,096.

    Each client works through all of them, at each connection: 6 ms in place of 1. And a random
    password of a server that lives for minutes needs no stretching.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    client, server = (
        hmac.digest(salted, name, "sha256") for name in (b"Client Key", b"Server Key")
    )
    parts = (salt, hashlib.sha256(client).digest(), server)
    salt_text, stored, server_key = (base64.b64encode(part).decode() for part in parts)
    return f"SCRAM-SHA-256$1:{salt_text}${stored}:{server_key}"
