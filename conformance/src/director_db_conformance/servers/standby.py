"""A second server that follows a throw-away cluster and can take over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from director_db_conformance.dsn import replace
from director_db_conformance.ports import LOOPBACK
from director_db_conformance.servers.cluster import Cluster
from director_db_conformance.servers.server import Database
from director_db_conformance.servers.throw_away import RELOAD, ServerFailedError

if TYPE_CHECKING:
    from typing import LiteralString

_NAME: Final = "director_db_standby"

_REQUIRE_STANDBY: Final = f"ALTER SYSTEM SET synchronous_standby_names = '{_NAME}'"
_IS_STREAMING: Final = (
    "SELECT 1 FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"
)
_IS_SYNCHRONOUS: Final = (
    "SELECT 1 FROM pg_stat_replication WHERE application_name = %s AND sync_state = 'sync'"
)
_PROMOTE: Final = "SELECT pg_promote(wait => true)"

_PATIENCE: Final = 60.0
_PAUSE: Final = 0.02


class Standby(Cluster):
    """A streaming standby. It answers reads; after `promote`, writes."""

    def __init__(self, primary: Cluster, *, synchronous: bool = False) -> None:
        """Copy a running cluster, start the copy as its standby, and wait until it follows.

        Args:
            primary: the cluster to follow. Close the standby before it.
            synchronous: from now on, a commit on the primary waits until the standby has it on
                disk. It waits for ever once the standby is gone.
        """
        self._primary = primary
        self._synchronous = synchronous
        super().__init__(
            f"a standby of {primary.source}",
            primary._installation,  # noqa: SLF001 - a standby is its primary's other half
            durable=primary._durable,  # noqa: SLF001
        )

    def promote(self) -> None:
        """Make it a primary that takes writes, and wait until it does."""
        with self.connect() as connection:
            connection.execute(_PROMOTE)

    def failover(self, database: Database) -> Database:
        """Return a database of the primary by a URL that names both servers.

        It asks for read-write: a client finds whichever of the two takes writes at that time.
        """
        ports = f"{self._primary.port},{self.port}"
        dsn = replace(
            database.dsn,
            host=f"{LOOPBACK},{LOOPBACK}",
            port=ports,
            target_session_attrs="read-write",
        )
        return Database(database.name, dsn)

    def _prepare(self) -> None:
        # Passwords are part of what is copied.
        self._password = self._primary._password  # noqa: SLF001
        self._owner_password = self._primary._owner_password  # noqa: SLF001
        self._make_data()
        source = replace(self._primary.dsn, application_name=_NAME)
        self.run(
            "pg_basebackup",
            *("-D", str(self._data), "--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            f"--dbname={source}",
        )

    def _welcome(self) -> None:
        self._wait_for(_IS_STREAMING)
        if self._synchronous:
            with self._primary.connect() as connection:
                connection.execute(_REQUIRE_STANDBY)
                connection.execute(RELOAD)
            self._wait_for(_IS_SYNCHRONOUS)

    def _wait_for(self, condition: LiteralString) -> None:
        deadline = time.monotonic() + _PATIENCE
        with self._primary.connect() as connection:
            while connection.execute(condition, (_NAME,)).fetchone() is None:
                if time.monotonic() > deadline:
                    message = f"The standby did not follow in {_PATIENCE} s:\n{self.log[-2000:]}"
                    raise ServerFailedError(message)
                time.sleep(_PAUSE)
