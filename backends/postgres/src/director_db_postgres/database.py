"""The pool of connections, and trying again what a lost one broke off."""

from __future__ import annotations

import atexit
import ctypes
import math
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout

from director_db.errors import BackendUnavailableError, ConfigurationError, DirectorDBError
from director_db.logs import DEBUG, INFO, WARNING, LongWait, tell
from director_db.settings import QUOTED, is_quoted
from director_db_postgres import schema
from director_db_postgres.arrays import ADAPTERS
from director_db_postgres.connections import Connection, Connector
from director_db_postgres.driver_log import LOGGER, POOL, quieten
from director_db_postgres.dsn import DSN
from director_db_postgres.errors import (
    CANCELLED,
    LOCKED,
    LOST_STATEMENT,
    PROTOCOL_VIOLATION,
    READ_ONLY,
    OutOfStepError,
    explain,
    is_of_a_stale_plan,
    is_refusal,
    is_worth_retrying,
    may_be_applied,
    reason,
    sqlstate,
)
from director_db_postgres.waiting import LOCK_WAIT, NO_LIMIT, NoAnswerError, Turn, Turns

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

quieten()

_opened: weakref.WeakSet[Database] = weakref.WeakSet()


@atexit.register
def _close_at_exit() -> None:
    # From Python 3.13 on, the end of the interpreter waits in vain for the threads of a pool that
    # nobody closed. Those of an instance that load_db() shares are closed by now or soon.
    for database in list(_opened):
        database.close(_EXIT_PATIENCE)


class _Call:
    """One call of an operation, with all its tries.

    Attributes:
        session_id: whose row it locks; None for a call that locks none.
        once: whether it may not be applied twice.
        in_doubt: whether a try that failed may have been applied.
        is_held_up: whether a try waited in vain for a lock.
        is_late: whether the server was told to cancel it, as the time was up.
        holder: who holds the lock of the session's row, for people.
        patience: the longest that it waits for an answer, in seconds.
        end: until when it waits for anything at all, on the monotonic clock.
        deadline: until when it waits for a connection and is tried again.
    """

    __slots__ = (
        "deadline",
        "end",
        "holder",
        "in_doubt",
        "is_held_up",
        "is_late",
        "once",
        "patience",
        "session_id",
    )

    def __init__(
        self,
        settings: Settings,
        session_id: str | None = None,
        *,
        once: bool = False,
        patience: float = NO_LIMIT,
    ) -> None:
        """Start the clock."""
        now = time.monotonic()
        self.session_id = session_id
        self.once = once
        self.in_doubt = False
        self.is_late = False
        self.is_held_up = False
        self.holder = "another transaction"
        self.patience = min(patience, settings.operation_timeout)
        self.end = now + self.patience
        self.deadline = min(self.end, now + settings.retry_deadline)

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.session_id is not None


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
        # Short enough that a call hears of a lock before its own time is up.
        self._lock_wait = min(LOCK_WAIT, settings.operation_timeout / 3)
        self._reset()

    def _reset(self) -> None:
        self._opening = threading.RLock()
        # The operations that hold a connection; what the pool has given out beyond them is lost.
        self._holding: dict[object, None] = {}
        self._pool: ConnectionPool[Connection] | None = None
        self._connector = self._new_connector()
        # Two of a session, so that the server can pass its lock on without a word to us.
        self._turns = Turns(2)
        self._held_up = Turns(max(1, self._settings.pool_size // 2))

    def _new_connector(self) -> Connector:
        return Connector(
            min(_REFUSAL_PATIENCE, self._settings.retry_deadline),
            self.place,
            # As for libpq, 0 is no limit.
            connect_timeout=float(self._settings.parameters["connect_timeout"]) or NO_LIMIT,
            lock_wait=self._lock_wait,
            pooled=self._settings.pooler,
        )

    @property
    def found_pooler(self) -> bool:
        """Whether there is a pooler that the settings do not tell of."""
        return self._connector.found_pooler

    def read(self, operation: Operation[T], *, patience: float = NO_LIMIT) -> T:
        """Run an operation that changes nothing; `patience` is for a call in a hurry, seconds."""
        return self._run(operation, _Call(self._settings, patience=patience))

    def write(self, operation: Operation[T], session_id: str) -> T:
        """Run an operation that may be applied twice without harm."""
        return self._run(operation, _Call(self._settings, session_id))

    def write_in_doubt(self, operation: Operation[T], session_id: str) -> tuple[T, bool]:
        """Run as `write`; the second result is whether an earlier try may have been applied."""
        call = _Call(self._settings, session_id)
        return self._run(operation, call), call.in_doubt

    def write_once(self, operation: Operation[T], session_id: str) -> T:
        """Run an operation that is tried again only if it is known not to have been applied."""
        return self._run(operation, _Call(self._settings, session_id, once=True))

    def administer(self, operation: Operation[T]) -> T:
        """Run an operation once, on a connection of its own, which has not looked at the tables."""
        # Beside the pool, which cannot be opened where there are tables of the old system.
        options = {**self._options(), "connector": self._new_connector()}
        connection = Connection.connect(self._conninfo, **options)
        try:
            return operation(connection)
        except psycopg.Error as error:
            # Not tried again: a second try could not tell whether the first one did it all.
            raise explain(error, self.place, maybe_applied=connection.closed) from error
        finally:
            connection.abort()

    def close(self, patience: float = _CLOSE_PATIENCE) -> None:
        """Close every connection; the next operation opens new ones.

        Args:
            patience: how long to wait for a connection that is being made, in seconds.
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            tell(LOGGER, DEBUG, "%s: closing", self.place)
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

    def _run(self, operation: Operation[T], call: _Call) -> T:
        if call.session_id is None:
            return self._try_on(operation, call)
        return self._in_turn(self._turns, call.session_id, self._try_on, operation, call)

    def _in_turn(
        self,
        turns: Turns,
        name: str,
        run: Callable[[Operation[T], _Call], T],
        operation: Operation[T],
        call: _Call,
    ) -> T:
        turn = Turn(turns, name)
        try:
            if not turn.wait(call.end):
                raise self._locked(call)
            return run(operation, call)
        finally:
            turn.leave()

    def _try_on(self, operation: Operation[T], call: _Call) -> T:
        pause = _FIRST_PAUSE
        started, tries = time.monotonic(), 1
        locked: LongWait | None = None
        # Each connection may have planned its statements for tables that were altered since.
        stale_plans = self._settings.pool_size
        while True:
            try:
                if not call.is_held_up:
                    result = self._try(operation, call)
                else:
                    # Others need connections too.
                    result = self._in_turn(self._held_up, "", self._try, operation, call)
            except psycopg.Error as error:
                failure = error
            except BackendUnavailableError as error:
                error.maybe_applied |= call.in_doubt
                raise
            else:
                if tries > 1:
                    seconds = time.monotonic() - started
                    text = "%s: works again after %d tries in %.1f s"
                    tell(LOGGER, INFO, text, self.place, tries, seconds)
                return result
            state = sqlstate(failure)
            if state in LOST_STATEMENT:
                self._connector.tell_pooled("a prepared statement is missing")
            if (state in LOST_STATEMENT or is_of_a_stale_plan(failure)) and stale_plans:
                stale_plans -= 1
                continue
            if state == LOCKED:
                call.is_held_up = True
                if locked is None:
                    what = f"for the lock of a session, held by {call.holder}"
                    locked = LongWait(LOGGER, lambda: self.place, what, since=self._lock_wait)
                locked.look()
                call.deadline = min(call.end, time.monotonic() + self._settings.retry_deadline)
                if time.monotonic() + self._lock_wait > call.end:
                    raise self._locked(call) from failure
                time.sleep(self._lock_wait * random.uniform(0, 0.5))  # noqa: S311 - no secret
                continue
            if isinstance(failure, NoAnswerError) or (call.is_late and state == CANCELLED):
                raise self._no_answer(call) from failure
            if (
                (call.once and call.in_doubt)
                or not is_worth_retrying(failure, pooler=bool(self._connector.pooled))
                or time.monotonic() + pause > call.deadline
            ):
                seconds = time.monotonic() - started
                self._tell_end(failure, call, seconds)
                raise self._explain(failure, call) from failure
            tries += 1
            text = "%s: %s; trying again in %.2f s"
            tell(LOGGER, WARNING, text, self.place, reason(failure), pause)
            # Random, lest all who were cut off come back at the same moments.
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _explain(self, failure: psycopg.Error, call: _Call) -> DirectorDBError:
        ours = explain(failure, self.place, maybe_applied=call.in_doubt)
        password = self._settings.parameters.get("password", "")
        if sqlstate(failure).startswith("28") and is_quoted(password):
            ours = ConfigurationError(f"{ours} As to the password:{QUOTED}")
        # A pooler refuses also while it waits for its server.
        wants_server = (
            bool(self._connector.pooled)
            and is_refusal(failure)
            and sqlstate(failure) == PROTOCOL_VIOLATION
        )
        if isinstance(ours, BackendUnavailableError) or not (call.in_doubt or wants_server):
            return ours
        # Whatever this try met, an earlier one may be stored.
        return BackendUnavailableError(
            str(ours), retryable=wants_server, maybe_applied=call.in_doubt
        )

    def _tell_end(self, failure: psycopg.Error, call: _Call, seconds: float) -> None:
        """Tell of a failure that is not tried again, where it is none of what was asked."""
        if call.once and call.in_doubt:
            text = "%s: %s; the write may have been stored, and is not sent again"
            tell(LOGGER, WARNING, text, self.place, reason(failure))
        elif is_worth_retrying(failure, pooler=bool(self._connector.pooled)):
            text = "%s: %s; gave up after %.1f s"
            tell(LOGGER, WARNING, text, self.place, reason(failure), seconds)

    def _try(self, operation: Operation[T], call: _Call) -> T:
        token = object()
        pool, connection = self._acquire(call, token)
        try:
            connection.expect_answers(call.patience, call.end)
            result = operation(connection)
            if connection.is_cancelled:
                # A late cancelling must not strike somebody else's statement.
                connection.close()
                if call.writes:
                    # Told to cancel a COMMIT, a server need not wait for its standby any more.
                    message = "the answer came too late to be relied on"
                    raise NoAnswerError(message)  # noqa: TRY301 - as any failure of this try
            return result  # noqa: TRY300
        except psycopg.Error as error:
            # An answer on a connection that is still good says that nothing was applied. Not one
            # that a pooler gives when it has lost the server.
            call.is_late |= connection.is_cancelled
            call.in_doubt |= call.writes and (connection.closed or may_be_applied(error))
            # Not at each try: it is for people, and looks at all locks of the server.
            is_new = not call.is_held_up or time.monotonic() + self._lock_wait > call.end
            if sqlstate(error) == LOCKED and call.session_id is not None and is_new:
                call.holder = connection.holder_of(self._statements.select_holder, call.session_id)
            self._look_why_read_only(error, connection)
            if (
                sqlstate(error) == READ_ONLY
                or is_of_a_stale_plan(error)
                or connection.is_cancelled
                or not connection.is_idle
                or isinstance(error, OutOfStepError)
            ):
                connection.close()
            raise
        except BaseException:
            connection.abort()
            raise
        finally:
            self._holding.pop(token, None)
            pool.putconn(connection)

    def _look_why_read_only(self, error: BaseException, connection: Connection) -> None:
        """Mark an error that says "read-only" if waiting for a failover would be in vain."""
        if isinstance(error, psycopg.Error) and sqlstate(error) == READ_ONLY:
            # Another of several hosts may take writes.
            known = self._settings.parameters
            has_others = any("," in str(known.get(name, "")) for name in ("host", "hostaddr"))
            for_good = not has_others and not connection.is_standby()
            error.is_read_only_for_good = for_good  # type: ignore[attr-defined]

    def _acquire(self, call: _Call, token: object) -> tuple[ConnectionPool[Connection], Connection]:
        deadline = call.deadline
        pool = self._pool or self._open(call)
        known = self._connector.failure
        waiting: LongWait | None = None
        while True:
            piece = _WAIT if self._connector.failure is None else _WAIT_AFTER_FAILURE
            try:
                connection = pool.getconn(max(0.001, min(piece, deadline - time.monotonic())))
            except PoolTimeout:
                if waiting is None:
                    waiting = LongWait(LOGGER, lambda: self.place, "for a connection", since=piece)
                waiting.look()
                failure = self._connector.failure
                late = time.monotonic() >= deadline
                if failure is not None and (late or failure is not known):
                    raise failure.error() from None
                if late:
                    raise self._busy(call) from None
                if failure is None and self._are_lost(pool):
                    # Nobody has them: exceptions of a signal's handler struck between the pool and
                    # us. It cannot be told, so that all who wait start over with a new one.
                    self._discard(pool)
                    pool = self._open(call)
            except Exception:
                raise
            except BaseException:
                # The pool does not know that this caller has left, and may give it a connection.
                self._discard(pool)
                raise
            else:
                if connection.is_alive():
                    if self._connector.pooled:
                        connection.expect_pooler()
                    self._holding[token] = None
                    return pool, connection
                tell(LOGGER, INFO, "%s: an idle connection was ended from outside", self.place)
                pool.putconn(connection)

    def _are_lost(self, pool: ConnectionPool[Connection]) -> bool:
        """Whether the pool is full with connections that nobody holds, or is about to get."""
        size = self._settings.pool_size
        if len(self._holding) >= size or self._connector.connecting:
            return False
        return int(pool.get_stats()["pool_size"]) >= size

    def _busy(self, call: _Call) -> DirectorDBError:
        waited, setting = min(
            (self._settings.retry_deadline, "POSTGRES_RETRY_DEADLINE"),
            (call.patience, "POSTGRES_OPERATION_TIMEOUT"),
        )
        message = (
            f"All {self._settings.pool_size} connections to {self.place} stayed busy for "
            f"{waited:g} s. Try again, or raise POSTGRES_POOL_SIZE, or {setting}."
        )
        return self._given_up(message, call)

    def _no_answer(self, call: _Call) -> DirectorDBError:
        message = (
            f"{self.place} did not answer for {call.patience:g} s. The server, or what lies "
            "between, may be frozen or very busy. Try again, or raise POSTGRES_OPERATION_TIMEOUT."
        )
        return self._given_up(message, call)

    def _locked(self, call: _Call) -> DirectorDBError:
        what = "A table" if call.session_id is None else f"The session {call.session_id!r}"
        message = (
            f"{what} in {self.place} stayed locked for "
            f"{call.patience:g} s, by {call.holder}. Try again, end that transaction, or raise "
            "POSTGRES_OPERATION_TIMEOUT."
        )
        return self._given_up(message, call)

    @staticmethod
    def _given_up(message: str, call: _Call) -> DirectorDBError:
        tell(LOGGER, WARNING, "%s", message)
        return BackendUnavailableError(message, retryable=True, maybe_applied=call.in_doubt)

    def _discard(self, pool: ConnectionPool[Connection]) -> None:
        if self._pool is pool:
            self._pool = None
        pool.close(timeout=0)

    # --- Opening --------------------------------------------------------------------------------

    def _open(self, call: _Call) -> ConnectionPool[Connection]:
        """Connect, see to it that our tables are there, and start the pool."""
        deadline = call.deadline
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
                if not self._migrates:
                    connection.expect_answers(call.patience, call.end)
                schema.ensure(connection, self._statements, self.place, migrating=self._migrates)
                self.utf8 = connection.pgconn.parameter_status(b"server_encoding") == b"UTF8"
            except BaseException as error:
                call.is_late |= connection.is_cancelled
                self._look_why_read_only(error, connection)
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
                name=POOL,
                num_workers=2,
                # Whoever waits asks again; an attempt that waits for its turn would be in the way.
                reconnect_timeout=0,
            )
            pool.open()
            self._pool = pool
            tell(LOGGER, DEBUG, "%s: opened", self.place)
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
            # Each connection sets it when it knows that it is not pooled.
            "prepare_threshold": None,
        }

    def _close_ready(self) -> None:
        while self._connector.ready:
            self._connector.ready.pop().close()
