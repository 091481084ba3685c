"""The pool of connections: opening it, and what becomes of a connection that nobody gave back."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import math
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout

from director_db import lifecycle
from director_db.errors import BackendUnavailableError, ConfigurationError
from director_db.logs import DEBUG, INFO, LongWait, log
from director_db_postgres import schema
from director_db_postgres.arrays import ADAPTERS
from director_db_postgres.connections import Connection, Connector
from director_db_postgres.driver_log import LOGGER, POOL, quieten
from director_db_postgres.dsn import DSN
from director_db_postgres.errors import READ_ONLY, sqlstate
from director_db_postgres.waiting import NO_LIMIT, too_late

if TYPE_CHECKING:
    from director_db_postgres.call import Call
    from director_db_postgres.settings import Settings
    from director_db_postgres.statements import Statements

# Waiting for the pool is cut into pieces, in seconds, as it does not tell that connecting fails;
# short ones after a failure, else long ones, since each piece puts the caller last in the queue.
_WAIT: Final = 1.0
_WAIT_AFTER_FAILURE: Final = 0.1

# After so many looks in a row that miss a connection it is lost, though others are given.
_CERTAIN: Final = 5

_CLOSE_PATIENCE: Final = 5.0
_REFUSAL_PATIENCE: Final = 5.0
# libpq takes 1 for 2.
_SHORTEST_CONNECT_TIMEOUT: Final = 2
_EXIT_PATIENCE: Final = 1.0

quieten()

_opened: weakref.WeakSet[Pool] = weakref.WeakSet()


@atexit.register
def _close_at_exit() -> None:
    # From Python 3.13 on, the end of the interpreter waits in vain for the threads of a pool that
    # nobody closed. Those of an instance that load_db() shares are closed by now or soon.
    lifecycle.outlive_untold_fork()  # In whose child they are the parent's.
    for pool in list(_opened):
        pool.close(_EXIT_PATIENCE)


class Pool:
    """The connections of one instance: the driver's pool, opened when it is first needed.

    Attributes:
        current: the driver's pool; None while there is none.
        holding: the operations that hold a connection; what the driver's pool has given out beyond
            them is lost.
        connector: what each of its connections is made with, and what that has found out.
        utf8: whether the database stores every character; known when the pool is open.
    """

    def __init__(
        self, settings: Settings, statements: Statements, lock_wait: float, *, migrates: bool
    ) -> None:
        """Take the settings; nothing is opened yet.

        Args:
            settings: of the instance.
            statements: those that look for our tables, and create them.
            lock_wait: the longest that a statement waits for a lock, in seconds.
            migrates: whether to carry the old system's tables over where they are all there is.
        """
        self._migrates = migrates
        self._settings = settings
        self._statements = statements
        self._place = settings.place
        self._lock_wait = lock_wait
        self.conninfo = DSN(make_conninfo(**settings.parameters))
        self.utf8 = True
        self._reset()

    def _reset(self) -> None:
        self._opening = threading.RLock()
        self.holding: dict[object, None] = {}
        # Those that wait for one.
        self._wanting: dict[object, None] = {}
        # How many connections were given so far, about: no two threads count at one moment.
        self._given = 0
        self.current: ConnectionPool[Connection] | None = None
        self.connector = self._new_connector()

    def _new_connector(self) -> Connector:
        return Connector(
            min(_REFUSAL_PATIENCE, self._settings.retry_deadline),
            self._place,
            # As for libpq, 0 is no limit.
            connect_timeout=float(self._settings.parameters["connect_timeout"]) or NO_LIMIT,
            lock_wait=self._lock_wait,
            pooled=self._settings.pooler,
        )

    # --- One connection -------------------------------------------------------------------------

    def acquire(self, call: Call, token: object) -> tuple[ConnectionPool[Connection], Connection]:
        """Wait for a free connection, and note under `token` that somebody holds it.

        Returns:
            The connection, and the driver's pool that it belongs to; both for `give_back`.

        Raises:
            BackendUnavailableError: none was free before the call's deadline.
            psycopg.OperationalError: the server cannot be connected to.
        """
        try:
            try:
                self._wanting[token] = None
                return self._acquire(call, token)
            finally:
                self._wanting.pop(token, None)
        except BaseException:
            # By a signal's handler, at the last moment: what was given is one that is lost.
            self.holding.pop(token, None)
            raise

    def _acquire(self, call: Call, token: object) -> tuple[ConnectionPool[Connection], Connection]:
        if self.connector.cancellings:
            self.connector.forget_cancellings()
        pool = self.current or self._open(call)
        deadline = call.deadline
        known = self.connector.failure
        waiting: LongWait | None = None
        looks = given = 0
        while True:
            piece = _WAIT if self.connector.failure is None else _WAIT_AFTER_FAILURE
            try:
                connection = pool.getconn(max(0.001, min(piece, deadline - time.monotonic())))
            except PoolTimeout:
                if waiting is None:
                    waiting = LongWait(LOGGER, lambda: self._place, "for a connection", since=piece)
                waiting.look()
                failure = self.connector.failure
                late = time.monotonic() >= deadline
                if failure is not None and (late or failure is not known):
                    raise failure.error() from None
                if late:
                    raise call.busy() from None
                looks = looks + 1 if failure is None and self._are_lost(pool) else 0
                # Where others get some, there may be one between two hands just then.
                if looks >= _CERTAIN or (looks > 1 and given == self._given):
                    # Nobody has them: exceptions of a signal's handler struck between the pool and
                    # us. It cannot be told, so that all who wait start over with a new one.
                    self._discard(pool)
                    pool = self._open(call)
                    looks = 0
                given = self._given
            except Exception:
                raise
            except BaseException:
                # The pool does not know that this caller has left, and may give it a connection.
                self._discard(pool)
                raise
            else:
                if connection.is_alive():
                    if self.connector.pooled:
                        connection.expect_pooler()
                    # In this order: nobody is to be counted twice.
                    self._wanting.pop(token, None)
                    self.holding[token] = None
                    self._given += 1
                    return pool, connection
                log(LOGGER, INFO, "%s: an idle connection was ended from outside", self._place)
                pool.putconn(connection)

    def why_none(self, call: Call) -> Exception:
        """Return the error of a call whose time is up before it got a connection."""
        if self.connector.failure is not None:
            return self.connector.failure.error()
        if self.current is None:
            message = f"{self._place} could not be opened by another thread in time. Try again."
            return BackendUnavailableError(message, retryable=True)
        return call.busy()

    @property
    def users(self) -> int:
        """How many operations hold a connection or wait for one."""
        return len(self.holding) + len(self._wanting)

    def give_back(
        self, token: object, pool: ConnectionPool[Connection], connection: Connection
    ) -> None:
        """Give a connection back that `acquire` has given for the same token."""
        self.holding.pop(token, None)
        pool.putconn(connection)

    def _are_lost(self, pool: ConnectionPool[Connection]) -> bool:
        """Whether the pool is full with connections that nobody holds, or is about to get."""
        size = self._settings.pool_size
        if len(self.holding) >= size or self.connector.connecting:
            return False
        return int(pool.get_stats()["pool_size"]) >= size

    def _discard(self, pool: ConnectionPool[Connection]) -> None:
        if self.current is pool:
            self.current = None
        pool.close(timeout=0)

    def connect_beside(self) -> Connection:
        """Make a connection that is none of the pool's and has not looked at the tables."""
        connector = self._new_connector()
        connector.cancellings = self.connector.cancellings
        options = {**self._options(), "connector": connector}
        return Connection.connect(self.conninfo, **options)

    def look_why_read_only(self, error: BaseException, connection: Connection) -> None:
        """Mark an error that says "read-only" if waiting for a failover would be in vain."""
        if isinstance(error, psycopg.Error) and sqlstate(error) == READ_ONLY:
            # Another of several hosts may take writes.
            for_good = self._settings.hosts == 1 and connection.is_read_only()
            error.is_read_only_for_good = for_good  # type: ignore[attr-defined]

    # --- Opening and closing --------------------------------------------------------------------

    def _open(self, call: Call) -> ConnectionPool[Connection]:
        """Connect, see to it that our tables are there, and start the pool."""
        deadline = call.deadline
        try:
            if not self._opening.acquire(timeout=max(0.001, deadline - time.monotonic())):
                raise self.why_none(call)
            if self.current is not None:
                return self.current
            if not psycopg.Pipeline.is_supported():
                message = (
                    "psycopg uses a libpq older than version 14, which has no pipelines. Install a "
                    "newer one, or psycopg-binary."
                )
                raise ConfigurationError(message)
            # Here, not in the pool's background: the caller gets the reason of a failure.
            options = self._options()
            left = (deadline - time.monotonic()) / self._settings.hosts  # For each of them.
            patience = min(
                int(self._settings.parameters["connect_timeout"]),
                max(_SHORTEST_CONNECT_TIMEOUT, math.ceil(left)),
            )
            connection = Connection.connect(self.conninfo, connect_timeout=patience, **options)
            try:
                if not self._migrates:
                    connection.expect_answers(call.patience, call.end)
                schema.ensure(
                    connection,
                    self._statements,
                    self._place,
                    migrating=self._migrates,
                    until=call.end,
                )
                if connection.is_cancelled:
                    # A late cancelling must not strike what somebody does on it next.
                    raise too_late()  # noqa: TRY301 - as any failure of this try
                # An index of ours took its own time, not the call's.
                call.end += connection.excused
                call.deadline += connection.excused
                self.utf8 = connection.pgconn.parameter_status(b"server_encoding") == b"UTF8"
            except BaseException as error:
                call.is_late |= connection.is_cancelled
                self.look_why_read_only(error, connection)
                connection.close()
                raise
            self._close_ready()
            self.connector.is_sharded = connection.is_sharded
            self.connector.ready.append(connection)
            pool = ConnectionPool(
                self.conninfo,
                connection_class=Connection,
                kwargs=options,
                min_size=0,
                max_size=self._settings.pool_size,
                open=False,
                name=POOL,
                num_workers=2,
                # Whoever waits asks again; an attempt that waits for its turn would be in the way.
                reconnect_timeout=0,
            )
            pool.open()
            self.current = pool
            log(LOGGER, DEBUG, "%s: opened", self._place)
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
            "connector": self.connector,
            "autocommit": True,
            "context": ADAPTERS,
            "cursor_factory": psycopg.RawCursor,
            # Each connection sets it when it knows that it is not pooled.
            "prepare_threshold": None,
        }

    def close(self, patience: float = _CLOSE_PATIENCE) -> None:
        """Close every connection; the next operation opens new ones.

        Args:
            patience: how long to wait for a connection that is being made, in seconds.
        """
        pool, self.current = self.current, None
        if pool is not None:
            log(LOGGER, DEBUG, "%s: closing", self._place)
            pool.close(patience)
        self._close_ready()
        self.connector.cancellings.clear()

    def _close_ready(self) -> None:
        # A signal's handler may close them in between.
        with contextlib.suppress(IndexError):
            while True:
                self.connector.ready.pop().close()

    def renew_locks(self) -> None:
        """Make the locks anew, and with the next operation a new pool, which has some too."""
        self.close()
        self._reset()

    def abandon(self) -> None:
        """Forget every connection without closing it: this is a forked child."""
        for inherited in (self.current, self.connector):
            # Closing, which the garbage collector would do too, says good-bye to the server on the
            # parent's socket. Keep it for good.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
        self._reset()
