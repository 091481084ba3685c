"""PgBouncer in transaction mode, in front of a database of the tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from director_db_conformance.dsn import parts, replace
from director_db_conformance.ports import LOOPBACK, free_port
from director_db_conformance.servers.account import give, run_as, server_account
from director_db_conformance.servers.folder import ServerFolder
from director_db_conformance.servers.server import Database

if TYPE_CHECKING:
    from types import TracebackType

_PLACES: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/bin", "/opt/homebrew/bin", "/usr/local/bin")

_CONFIGURATION: Final = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = {listen_host}
listen_port = {listen_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = {max_clients}
server_login_retry = 1
logfile = {folder}/pgbouncer.log
pidfile = {folder}/pgbouncer.pid
"""

TOLD: Final = {"POSTGRES_POOLER": "1"}
"""The setting that tells director-db of the pooler."""

_START_ATTEMPTS: Final = 5
_PATIENCE: Final = 20.0
_PAUSE: Final = 0.01


class NoPgBouncerError(RuntimeError):
    """PgBouncer is not installed, or did not start; the text says what to do."""


def find_pgbouncer() -> Path:
    """Return where the program is.

    Raises:
        NoPgBouncerError: it is nowhere.
    """
    search = shutil.which("pgbouncer")
    for place in ([Path(search)] if search else []) + [Path(p) / "pgbouncer" for p in _PLACES]:
        if place.is_file():
            return place
    message = (
        "PgBouncer is not installed. Install it with: apt-get install pgbouncer "
        "(dnf install pgbouncer, brew install pgbouncer)"
    )
    raise NoPgBouncerError(message)


class PgBouncer:
    """A pooler that hands a server connection to a client for one transaction at a time.

    It goes when it is closed, or when the process that made it dies.

    Attributes:
        database: the database, through the pooler.
    """

    def __init__(self, database: Database, *, pool_size: int = 5, max_clients: int = 500) -> None:
        """Start it in front of a database's server.

        Args:
            database: where to lead, unless `database_of` is asked for others.
            pool_size: how many server connections all clients share. Few are better for tests: each
                connection then really is a different one from one transaction to the next.
            max_clients: how many clients it lets in.

        Raises:
            NoPgBouncerError: it is not installed, or did not start.
        """
        self._program = find_pgbouncer()
        self._upstream = parts(database.dsn)
        self._pool_size = pool_size
        self._max_clients = max_clients
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = ServerFolder(server_account())
        try:
            port = self._start()
        except BaseException:
            self.close()
            raise
        self._port = str(port)
        self.database = self.database_of(database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def database_of(self, database: Database) -> Database:
        """Return a database of the same server and owner, through the pooler."""
        return Database(database.name, replace(database.dsn, host=LOOPBACK, port=self._port))

    @property
    def dsn(self) -> str:
        """The URL of the database through the pooler; it holds the password."""
        return self.database.dsn

    @property
    def environment(self) -> dict[str, str]:
        """The settings with which director-db opens the database through the pooler."""
        return self.database.environment | TOLD

    @property
    def log(self) -> str:
        """What it has logged."""
        path = self._home / "pgbouncer.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """End it and remove what it left; nothing happens in a forked child."""
        if not self._folder.is_ours:
            return
        if self._process is not None:
            # It has nothing to write back, and newer ones wait for their clients when asked to end.
            self._process.kill()
            self._process.wait(_PATIENCE)
            self._process = None
        self._folder.remove()

    @property
    def _home(self) -> Path:
        return self._folder.path / "pgbouncer"

    def _start(self) -> int:
        account = self._folder.account
        self._home.mkdir(mode=0o700)
        give(self._home, account)
        # In the clear, since it must log in to the server with it, too.
        user, password = (
            self._upstream.get(key, "").replace('"', '""') for key in ("user", "password")
        )
        self._write("users.txt", f'"{user}" "{password}"\n')
        for _ in range(_START_ATTEMPTS):
            port = free_port()
            configuration = _CONFIGURATION.format(
                host=self._upstream.get("host", "localhost"),
                port=self._upstream.get("port", "5432"),
                listen_host=LOOPBACK,
                listen_port=port,
                folder=self._home,
                pool_size=self._pool_size,
                max_clients=self._max_clients,
            )
            configuration_file = self._write("pgbouncer.ini", configuration)
            self._process = subprocess.Popen(  # noqa: S603
                [self._program, "--quiet", str(configuration_file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
                **run_as(account),
            )
            if self._is_listening(self._process, port):
                return port
            self._process = None
        message = f"{self._program} did not start:\n{self.log[-2000:]}"
        raise NoPgBouncerError(message)

    def _write(self, name: str, text: str) -> Path:
        path = self._home / name
        path.touch(mode=0o600)
        path.write_text(text)
        give(path, self._folder.account)
        return path

    @staticmethod
    def _is_listening(process: subprocess.Popen[bytes], port: int) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection((LOOPBACK, port), timeout=1).close()
            except OSError:
                time.sleep(_PAUSE)
            else:
                # Somebody else may have taken the port; then ours ends by itself.
                return process.poll() is None
        if process.poll() is None:
            process.kill()
            process.wait(_PATIENCE)
        return False
