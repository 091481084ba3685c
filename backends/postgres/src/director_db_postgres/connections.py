"""Connections to a Postgres server, and why one could not be made."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import deque
from inspect import GEN_CLOSED, getgeneratorstate
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg
from psycopg.errors import error_from_result

from director_db.errors import ConfigurationError
from director_db.logs import WARNING, log
from director_db_postgres.driver_log import LOGGER
from director_db_postgres.errors import OutOfStepError, is_of_the_connection, is_out_of_step
from director_db_postgres.pipeline import PipelinedConnection
from director_db_postgres.refusal import refusal_state
from director_db_postgres.sql.server import IS_READ_ONLY, LIMIT_LOCK_WAITS
from director_db_postgres.waiting import NO_LIMIT, NoAnswerError, watched

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# How long the server may take to hear of a cancelled statement, in seconds.
_CANCEL_PATIENCE: Final = 2.0
_LATE_CANCEL_PATIENCE: Final = 1.0
# And how long it may then take to answer to what it was sent.
_REST_PATIENCE: Final = 2.0

# How many cancellings are kept at most, and for how long at least, in seconds.
_MOST_KEPT: Final = 256
_KEPT_FOR: Final = 120.0


class Connection(PipelinedConnection):
    """A connection as the pool makes it.

    Nothing on it is prepared before it is known that no pooler may give it another server.

    Attributes:
        is_cancelled: whether it was told to cancel what it did, as no answer came in time.
        excused: how long it was `unlimited`, in seconds.
        may_act: whether something may still reach the server that was sent before it was aborted.
    """

    is_cancelled = False
    excused = 0.0
    may_act = False
    _cancellings: deque[tuple[float, Generator[Any, Any, None]]] | None = None
    _patience = NO_LIMIT
    _end = NO_LIMIT

    @classmethod
    def connect(  # type: ignore[override]
        cls, conninfo: str = "", *, connector: Connector, **kwargs: Any
    ) -> Self:
        """Connect, or hand over the connection that was made to look at the schema."""
        with contextlib.suppress(IndexError):
            return connector.ready.pop()  # type: ignore[return-value]
        token = object()
        nameless = None
        try:
            connector.connecting[token] = None
            connection = super().connect(conninfo, **kwargs)
        except psycopg.OperationalError as error:
            text, timed_out = str(error), isinstance(error, psycopg.errors.ConnectionTimeout)
        except UnicodeError as error:
            nameless = f"A Postgres host has a name that cannot be looked up: {error}."
        else:
            connection._cancellings = connector.cancellings  # noqa: SLF001
            patience = float(kwargs.get("connect_timeout") or connector.connect_timeout)
            connection.expect_answers(patience, time.monotonic() + patience)
            connection.find_out(connector)
            connection.expect_answers(NO_LIMIT, NO_LIMIT)
            connector.failure = None
            connection.is_sharded = connector.is_sharded
            return connection
        finally:
            connector.connecting.pop(token, None)
        # Not while the other exception is handled: it would go along, and knows the password.
        if nameless is not None:
            raise ConfigurationError(nameless)
        state = None if timed_out else refusal_state(conninfo, connector.patience)
        failure = connector.failure = Failure(text, state)
        raise failure.error()  # Another thread may have forgotten it by now.

    def find_out(self, connector: Connector) -> None:
        """Find out whether there is a pooler; if not, prepare, and limit waiting for locks.

        A pooler has made up the number of the server's process that it told; one that tells the
        true number is found out by the first statement that is missing. The limit is for others,
        who can use this connection meanwhile. It is no start-up option, which PgBouncer refuses.
        Behind a pooler each transaction has to say it anew.
        """
        failure = None
        is_its_own = False
        self.lock_timeout = connector.lock_timeout
        if not connector.pooled:
            parameters = (str(connector.lock_timeout), self.info.backend_pid)
            # The server may be frozen by now.
            self.expect_answers(connector.patience, time.monotonic() + connector.patience)
            try:
                row = self.execute(LIMIT_LOCK_WAITS, parameters, prepare=False).fetchone()
                is_its_own = row is not None and row[0] is not None
            except psycopg.Error as error:
                # What failed since it was connected is no refusal.
                failure = Failure(
                    str(error), None if is_of_the_connection(error) else error.sqlstate
                )
                self.close()
            except BaseException:
                self.close()
                raise
        if failure is not None:
            # Not while psycopg's own is handled, which knows the password.
            connector.failure = failure
            raise failure.error()
        if not is_its_own and connector.pooled is None:
            connector.tell_pooled("the server's process is not the one it connected to")
        self.knows_lock_timeout = is_its_own
        if not connector.pooled:
            # Our pipelines prepare. psycopg itself is never to: it would deallocate all.
            self.prepare_threshold = sys.maxsize

    def expect_pooler(self) -> None:
        """Go on as behind a pooler, which was found out on another connection."""
        self.prepare_threshold = None
        self.knows_lock_timeout = False

    def expect_answers(self, patience: float, end: float) -> None:
        """Wait for answers until `end`, on the monotonic clock, and `patience` seconds for more."""
        self._patience = patience
        self._end = end
        self.is_cancelled = False

    @contextlib.contextmanager
    def unlimited(self) -> Iterator[None]:
        """Wait as long as it takes, and for what comes after it as long as was left before."""
        started, patience, end = time.monotonic(), self._patience, self._end
        self._patience = self._end = NO_LIMIT
        try:
            yield
        finally:
            seconds = time.monotonic() - started
            self.excused += seconds
            self._patience, self._end = patience, end + seconds

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait as psycopg does, but not longer than `expect_answers` says.

        Raises:
            NoAnswerError: the time is up; the connection is closed.
            OutOfStepError: psycopg met an answer that it has no place for, which it tells by any
                exception of Python's; the connection is closed.
        """
        if self._end < NO_LIMIT:
            gen = watched(gen, self._patience, self._end, self._cancel_late)
        try:
            return super().wait(gen, *args, **kwargs)
        except NoAnswerError:
            self.close()
            raise
        except Exception as error:
            if not is_out_of_step(error):
                self.may_act |= self.closed and not isinstance(error, psycopg.Error)
                raise
            self.may_act = True
            self.close()
            message = f"the answers cannot be read: {type(error).__name__}"
            raise OutOfStepError(message) from error
        except BaseException:
            self.may_act |= self.closed  # psycopg has waited for an answer, and given up.
            raise

    def _cancel_gen(self, *args: Any, **kwargs: Any) -> Any:
        """Begin what psycopg's `cancel_safe` waits for; its connection is open as long as it is.

        PgBouncer before 1.20 crashes, for all its clients, when a server that was silent goes on
        and the client of a cancelling that it has passed on is gone.
        """
        cancelling = super()._cancel_gen(*args, **kwargs)
        kept = self._cancellings
        if kept is not None:
            if len(kept) >= _MOST_KEPT:  # Those that have ended first; the oldest matter most.
                unfinished = [each for each in kept if getgeneratorstate(each[1]) != GEN_CLOSED]
                kept.clear()
                kept.extend(unfinished)
            if len(kept) < _MOST_KEPT:
                kept.append((time.monotonic(), cancelling))
        return cancelling

    def _cancel_late(self) -> None:
        self.is_cancelled = True
        # An older libpq would wait for a frozen server without a limit here, too.
        if psycopg.capabilities.has_cancel_safe():
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=_LATE_CANCEL_PATIENCE)

    def holder_of(self, statement: bytes, session_id: str) -> str:
        """Say who holds the lock of a session's row, as far as the server tells."""
        rows = []
        # On a shard it is a process of another server.
        with contextlib.suppress(psycopg.Error):
            rows = [] if self.is_sharded else self.run(statement, (session_id,)).rows()
        if not rows:
            return "another transaction"
        process, application, state, seconds = rows[0]
        name = f" ({application})" if application else ""
        doing = f", {state} since {seconds:.0f} s" if state else ""
        return f"process {process}{name}{doing}"

    def is_read_only(self) -> bool:
        """Whether the server is read-only by its settings; False if that is unknown.

        Not whether it is a standby: that may have changed since it refused a write.
        """
        with contextlib.suppress(psycopg.Error):
            return bool(self.run(IS_READ_ONLY).rows()[0][0])
        return False

    def abort(self) -> None:
        """Close this connection, which was interrupted and may be in the middle of a statement.

        That is cancelled first: one that waits for a lock would be applied when nobody expects it
        any more, even after later writes. So would one that is still on its way to the server,
        which `may_act` tells. What was to be sent and is not whole is never applied.
        """
        try:
            if self._is_active:
                self.may_act = self.is_whole
                with contextlib.suppress(psycopg.Error):
                    self.cancel_safe(timeout=_CANCEL_PATIENCE)
                if self.is_whole:
                    with contextlib.suppress(psycopg.Error):
                        rest = self._rest(time.monotonic() + _REST_PATIENCE)
                        self.may_act = not super().wait(rest)
        finally:
            self.close()

    @property
    def _is_active(self) -> bool:
        return self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE

    def _rest(self, end: float) -> Generator[Any, Any, bool]:
        """Send what libpq has yet, and read all answers, until a moment on the monotonic clock.

        Returns:
            Whether they tell what has become of it all.

        Raises:
            NoAnswerError: it has not answered to all by then.
        """
        is_known = True
        while self._is_active:
            if time.monotonic() > end:
                message = "no answer came to what was cancelled"
                raise NoAnswerError(message)
            if self.pgconn.flush():
                if (yield psycopg.waiting.Wait.RW) & psycopg.waiting.Ready.R:
                    self.pgconn.consume_input()
            elif self.pgconn.is_busy():
                yield psycopg.waiting.Wait.R
                self.pgconn.consume_input()
            else:
                result = self.pgconn.get_result()
                if result is not None and result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
                    is_known &= not is_of_the_connection(error_from_result(result))
        return is_known and self.pgconn.status == psycopg.pq.ConnStatus.OK

    @property
    def is_idle(self) -> bool:
        """Whether it is in the middle of nothing: no statement, transaction or pipeline."""
        return (
            self.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
            and self.pgconn.pipeline_status == psycopg.pq.PipelineStatus.OFF
        )

    def is_alive(self) -> bool:
        """Whether the server has not ended this idle connection, as far as can be known for free.

        Reads what has arrived already, no more. So a server's restart or an administrator's
        command costs no statement, and no doubt about one. The farewell and the end of the stream
        are two reads.
        """
        try:
            self.pgconn.consume_input()
            self.pgconn.consume_input()
        except psycopg.OperationalError:
            return False
        if not self.is_in_step():
            self.close()
        return not self.closed


class Failure:
    """Why a connection could not be made."""

    def __init__(self, text: str, state: str | None) -> None:
        """Take libpq's message and the server's SQLSTATE."""
        self._text = text
        self._state = state

    def error(self) -> psycopg.OperationalError:
        """Return an exception, a new one for each who raises it.

        It carries less than psycopg's own, which knows the connection with its password.
        """
        error = psycopg.OperationalError(self._text)
        error.sqlstate = self._state
        error.is_refusal = True  # type: ignore[attr-defined]
        return error


class Connector:
    """What the pool's connections share with those who wait for them."""

    def __init__(
        self,
        patience: float,
        place: str,
        *,
        connect_timeout: float,
        lock_wait: float,
        pooled: bool | None,
    ) -> None:
        """Start with what the settings say.

        Args:
            patience: for asking why a connection failed, in seconds.
            place: the database, for messages.
            connect_timeout: how long the first answer on a new connection may take, in seconds.
            lock_wait: how long a statement may wait for a lock, in seconds.
            pooled: whether a pooler may give each transaction another connection of the server;
                None if each connection is to find out.
        """
        self.patience = patience
        self.connect_timeout = connect_timeout
        self.lock_timeout = math.ceil(lock_wait * 1000)
        self.pooled = pooled
        # Whether that was found out against the settings, or without them.
        self.found_pooler = False
        self._place = place
        self.ready: list[Connection] = []
        # The attempts to connect that are under way.
        self.connecting: dict[object, None] = {}
        self.failure: Failure | None = None
        # What the server, or a pooler, was told to cancel, and when.
        self.cancellings: deque[tuple[float, Generator[Any, Any, None]]] = deque()
        # What the first connection saw.
        self.is_sharded = False

    def forget_cancellings(self) -> None:
        """Close the connections of those that began long ago."""
        began = time.monotonic() - _KEPT_FOR
        with contextlib.suppress(IndexError):  # Another thread does the same.
            while self.cancellings[0][0] < began:
                self.cancellings.popleft()

    def tell_pooled(self, sign: str) -> None:
        """Go on as with a pooler, and say so once."""
        self.pooled = True
        if not self.found_pooler:
            self.found_pooler = True
            log(
                LOGGER,
                WARNING,
                "%s is reached through a pooler: %s. Going on without prepared statements; set "
                "POSTGRES_POOLER=1, or POSTGRES_POOLER=0 if each connection keeps its server, as "
                "in PgBouncer's session mode.",
                self._place,
                sign,
            )
