"""The pool of connections, and trying again what a lost one broke off."""

from __future__ import annotations

import atexit
import ctypes
import math
import random
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout

from director_db.errors import BackendUnavailableError, ConfigurationError, DirectorDBError
from director_db.records import Migration
from director_db_postgres import schema
from director_db_postgres.arrays import ADAPTERS
from director_db_postgres.connections import Connection, Connector
from director_db_postgres.dsn import DSN
from director_db_postgres.errors import (
    READ_ONLY,
    explain,
    is_of_a_stale_plan,
    is_worth_retrying,
    may_be_applied,
    sqlstate,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_postgres.settings import Settings
    from director_db_postgres.sql import Statements

    Operation = Callable[[Connection], "T"]

T = TypeVar("T")

# Waiting for the pool is cut into pieces, in seconds, as it does not tell that connecting fails;
# short ones after a failure, else long ones, since each piece puts the caller last in the queue.
_WAIT: Final = 1.0
_WAIT_AFTER_FAILURE: Final = 0.1

_CLOSE_PATIENCE: Final = 5.0
_REFUSAL_PATIENCE: Final = 5.0
# libpq takes 1 for 2.
_SHORTEST_CONNECT_TIMEOUT: Final = 2
_EXIT_PATIENCE: Final = 1.0

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 1.0

_opened: weakref.WeakSet[Database] = weakref.WeakSet()


@atexit.register
def _close_at_exit() -> None:
    # From Python 3.13 on, the end of the interpreter waits in vain for the threads of a pool that
    # nobody closed. Those of an instance that load_db() shares are closed by now or soon.
    for database in list(_opened):
        database.close(_EXIT_PATIENCE)


class Database:
    """Runs operations on pooled connections, and again if a connection was lost."""

    def __init__(
        self, settings: Settings, statements: Statements, *, migrates: bool = False
    ) -> None:
        """Take the settings; nothing is opened yet.

        With `migrates`, the first use carries the old system's tables over.
        """
        self._migrates = migrates
        self._settings = settings
        self._statements = statements
        self._conninfo = DSN(make_conninfo(**settings.parameters))
        self.place = settings.place
        self.utf8 = True
        self._reset()

    def _reset(self) -> None:
        self._opening = threading.RLock()
        # The operations that hold a connection; what the pool has given out beyond them is lost.
        self._holding: dict[object, None] = {}
        self._pool: ConnectionPool[Connection] | None = None
        self._connector = self._new_connector()

    def _new_connector(self) -> Connector:
        return Connector(min(_REFUSAL_PATIENCE, self._settings.retry_deadline))

    def read(self, operation: Operation[T]) -> T:
        """Run an operation that changes nothing."""
        return self._run(operation, once=False, writes=False)[0]

    def write(self, operation: Operation[T]) -> T:
        """Run an operation that may be applied twice without harm."""
        return self._run(operation, once=False, writes=True)[0]

    def write_in_doubt(self, operation: Operation[T]) -> tuple[T, bool]:
        """Run as `write`; the second result is whether an earlier try may have been applied."""
        return self._run(operation, once=False, writes=True)

    def write_once(self, operation: Operation[T]) -> T:
        """Run an operation that is tried again only if it is known not to have been applied."""
        return self._run(operation, once=True, writes=True)[0]

    def migrate(self, *, skip_invalid: bool) -> Migration:
        """Create what is missing, carrying the old system's tables over; tried once."""
        # Beside the pool, which could not be opened: the old tables would be refused.
        options = {**self._options(), "connector": self._new_connector()}
        connection = Connection.connect(self._conninfo, **options)
        try:
            migration = schema.ensure(
                connection,
                self._statements,
                self.place,
                migrating=True,
                skip_invalid=skip_invalid,
            )
        except psycopg.Error as error:
            # Not tried again: a second try could not tell whether the first one did it all.
            raise explain(error, self.place, maybe_applied=connection.closed) from error
        finally:
            connection.abort()
        return migration or Migration(0, 0, 0, 0, [])

    def close(self, patience: float = _CLOSE_PATIENCE) -> None:
        """Close every connection; the next operation opens new ones.

        Args:
            patience: how long to wait for a connection that is being made, in seconds.
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(patience)
        self._close_ready()

    def renew_locks(self) -> None:
        """Make the locks anew, and with the next operation a new pool, which has some too."""
        self.close()
        self._reset()

    def abandon(self) -> None:
        """Forget every connection without closing it: this is a forked child."""
        for inherited in (self._pool, self._connector):
            # Closing, which the garbage collector would do too, says good-bye to the server on the
            # parent's socket. Keep it for good.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
        self._reset()

    # --- Trying, and trying again ---------------------------------------------------------------

    def _run(self, operation: Operation[T], *, once: bool, writes: bool) -> tuple[T, bool]:
        deadline = time.monotonic() + self._settings.retry_deadline
        pause = _FIRST_PAUSE
        in_doubt = False
        # Each connection may have planned its statements for tables that were altered since.
        stale_plans = self._settings.pool_size
        while True:
            token = object()
            try:
                pool, connection = self._acquire(deadline, token)
            except psycopg.Error as error:
                failure = error
            except BackendUnavailableError as error:
                error.maybe_applied |= in_doubt
                raise
            else:
                try:
                    return operation(connection), in_doubt
                except psycopg.Error as error:
                    failure = error
                    # An answer on a connection that is still good says that nothing was applied.
                    # Not one that a pooler gives when it has lost the server.
                    in_doubt |= writes and (connection.closed or may_be_applied(error))
                    if sqlstate(error) == READ_ONLY or is_of_a_stale_plan(error):
                        connection.close()
                except BaseException:
                    connection.abort()
                    raise
                finally:
                    self._holding.pop(token, None)
                    pool.putconn(connection)
            if is_of_a_stale_plan(failure) and stale_plans:
                stale_plans -= 1
                continue
            if (
                (once and in_doubt)
                or not is_worth_retrying(failure, pooler=bool(self._settings.pooler))
                or time.monotonic() + pause > deadline
            ):
                raise explain(failure, self.place, maybe_applied=in_doubt) from failure
            # Random, lest all who were cut off come back at the same moments.
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _acquire(
        self, deadline: float, token: object
    ) -> tuple[ConnectionPool[Connection], Connection]:
        pool = self._pool or self._open(deadline)
        known = self._connector.failure
        while True:
            piece = _WAIT if self._connector.failure is None else _WAIT_AFTER_FAILURE
            try:
                connection = pool.getconn(max(0.001, min(piece, deadline - time.monotonic())))
            except PoolTimeout:
                failure = self._connector.failure
                late = time.monotonic() >= deadline
                if failure is not None and (late or failure is not known):
                    raise failure.error() from None
                if late:
                    raise self._busy() from None
                if failure is None and self._are_lost(pool):
                    # Nobody has them: exceptions of a signal's handler struck between the pool and
                    # us. It cannot be told, so that all who wait start over with a new one.
                    self._discard(pool)
                    pool = self._open(deadline)
            except Exception:
                raise
            except BaseException:
                # The pool does not know that this caller has left, and may give it a connection.
                self._discard(pool)
                raise
            else:
                if connection.is_alive():
                    self._holding[token] = None
                    return pool, connection
                pool.putconn(connection)

    def _are_lost(self, pool: ConnectionPool[Connection]) -> bool:
        """Whether the pool is full with connections that nobody holds, or is about to get."""
        size = self._settings.pool_size
        if len(self._holding) >= size or self._connector.connecting:
            return False
        return int(pool.get_stats()["pool_size"]) >= size

    def _busy(self) -> DirectorDBError:
        message = (
            f"All {self._settings.pool_size} connections to {self.place} stayed busy for "
            f"{self._settings.retry_deadline:g} s. Try again, or raise POSTGRES_POOL_SIZE."
        )
        return BackendUnavailableError(message, retryable=True)

    def _discard(self, pool: ConnectionPool[Connection]) -> None:
        if self._pool is pool:
            self._pool = None
        pool.close(timeout=0)

    # --- Opening --------------------------------------------------------------------------------

    def _open(self, deadline: float) -> ConnectionPool[Connection]:
        """Connect, see to it that our tables are there, and start the pool."""
        try:
            if not self._opening.acquire(timeout=max(0.001, deadline - time.monotonic())):
                message = f"{self.place} could not be opened by another thread in time. Try again."
                raise BackendUnavailableError(message, retryable=True)
            if self._pool is not None:
                return self._pool
            if not psycopg.Pipeline.is_supported():
                message = (
                    "psycopg uses a libpq older than version 14, which has no pipelines. Install a "
                    "newer one, or psycopg-binary."
                )
                raise ConfigurationError(message)
            # Here, not in the pool's background: the caller gets the reason of a failure.
            options = self._options()
            patience = min(
                int(self._settings.parameters["connect_timeout"]),
                max(_SHORTEST_CONNECT_TIMEOUT, math.ceil(deadline - time.monotonic())),
            )
            connection = Connection.connect(self._conninfo, connect_timeout=patience, **options)
            try:
                schema.ensure(connection, self._statements, self.place, migrating=self._migrates)
                self.utf8 = connection.pgconn.parameter_status(b"server_encoding") == b"UTF8"
            except BaseException:
                connection.close()
                raise
            self._close_ready()
            self._connector.is_sharded = connection.is_sharded
            self._connector.ready.append(connection)
            pool = ConnectionPool(
                self._conninfo,
                connection_class=Connection,
                kwargs=options,
                min_size=0,
                max_size=self._settings.pool_size,
                open=False,
                name="director-db",
                num_workers=2,
                # Whoever waits asks again; an attempt that waits for its turn would be in the way.
                reconnect_timeout=0,
            )
            pool.open()
            self._pool = pool
            _opened.add(self)
            return pool
        finally:
            # First of all, and without asking whether it is ours, which it is not after a time-out:
            # an exception that a signal's handler raises before it would leave it locked for good.
            try:  # noqa: SIM105
                self._opening.release()
            except RuntimeError:
                pass

    def _options(self) -> dict[str, Any]:
        return {
            "connector": self._connector,
            "autocommit": True,
            "context": ADAPTERS,
            "cursor_factory": psycopg.RawCursor,
            # Whether our pipelines prepare. psycopg itself is never to: it would deallocate all.
            "prepare_threshold": None if self._settings.pooler else sys.maxsize,
        }

    def _close_ready(self) -> None:
        while self._connector.ready:
            self._connector.ready.pop().close()
