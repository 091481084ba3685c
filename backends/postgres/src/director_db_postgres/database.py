"""Running operations on pooled connections, and again where a lost connection broke one off."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import psycopg

from director_db.errors import BackendUnavailableError, ConfigurationError, DirectorDBError
from director_db.logs import INFO, WARNING, LongWait, log
from director_db.settings import QUOTED, is_quoted
from director_db_postgres.call import Call
from director_db_postgres.driver_log import LOGGER
from director_db_postgres.errors import (
    CANCELLED,
    LOCKED,
    LOST_STATEMENT,
    PROTOCOL_VIOLATION,
    READ_ONLY,
    OutOfStepError,
    as_in_doubt,
    explain,
    is_of_a_stale_plan,
    is_refusal,
    is_worth_retrying,
    may_be_applied,
    reason,
    sqlstate,
)
from director_db_postgres.group import Group
from director_db_postgres.pool import Pool
from director_db_postgres.waiting import LOCK_WAIT, NO_LIMIT, NoAnswerError, Turn, Turns, too_late

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director_db.rows import MessageRow
    from director_db_postgres.connections import Connection
    from director_db_postgres.settings import Settings
    from director_db_postgres.statements import Statements

    Operation = Callable[[Connection], "T"]

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 1.0

# With so many connections or fewer, reads and writes may each take all.
_FEW: Final = 3


class Database:
    """Runs operations on pooled connections, and again if a connection was lost."""

    def __init__(
        self, settings: Settings, statements: Statements, *, migrates: bool = False
    ) -> None:
        """Take the settings; nothing is opened yet.

        With `migrates`, the first use carries the old system's tables over.
        """
        self._settings = settings
        self._statements = statements
        self.place = settings.place
        # Short enough that a call hears of a lock before its own time is up.
        self._lock_wait = min(LOCK_WAIT, settings.operation_timeout / 3)
        self._pool = Pool(settings, statements, self._lock_wait, migrates=migrates)
        self._group = Group(settings, statements, self._pool, self._try)
        self._forget_turns()

    def _forget_turns(self) -> None:
        def turns(at_once: int, what: str) -> Turns:
            return Turns(at_once, lambda: LongWait(LOGGER, lambda: self.place, what))

        size = self._settings.pool_size
        # Two of a session, so that the server can pass its lock on without a word to us.
        self._turns = turns(2, "for others that write to the same session")
        self._held_up = turns(max(1, size // 2), "for a lock")
        # Neither reads nor writes take the last connection from the others; but not where so few
        # are left that calls for one locked session would hold all that writes may have.
        most = size - (size > _FEW)
        self._sides = turns(most, "for a connection"), turns(most, "for a connection")

    @property
    def utf8(self) -> bool:
        """Whether the database stores every character; known after the first operation."""
        return self._pool.utf8

    @property
    def found_pooler(self) -> bool:
        """Whether there is a pooler that the settings do not tell of."""
        return self._pool.connector.found_pooler

    def read(self, operation: Operation[T], *, patience: float = NO_LIMIT) -> T:
        """Run an operation that changes nothing; `patience` is for a call in a hurry, seconds."""
        return self._run(operation, Call(self._settings, patience=patience))

    def write(self, operation: Operation[T], session_id: str) -> T:
        """Run an operation that may be applied twice without harm."""
        return self._run(operation, Call(self._settings, session_id))

    def write_message(self, operation: Operation[bool], session_id: str, row: MessageRow) -> bool:
        """Run as `write` the operation that stores a message, or store it together with others."""
        call = Call(self._settings, session_id)
        waits = not self._turns.has_place(session_id)
        if self._group.takes(row, waits=waits) and self._group.store(call, row):
            return True
        return self._run(operation, call)

    def write_messages(
        self, messages: Sequence[tuple[Operation[bool], str, MessageRow]]
    ) -> list[bool | Callable[[], bool]]:
        """Run as `write_message` those of several callers, and store together what can be.

        Returns:
            For each True if it is stored, and False if nothing was done; else what does it alone,
            or raises why not.
        """
        calls = [Call(self._settings, session_id) for _, session_id, _ in messages]
        rows = [row for _, _, row in messages]
        answers = self._group.store_each(list(zip(calls, rows, strict=True)))

        def alone(is_stored: Callable[[], bool], operation: Operation[bool], call: Call) -> bool:
            return is_stored() or self._run(operation, call)

        return [
            answer if isinstance(answer, bool) else partial(alone, answer, operation, call)
            for answer, (operation, _, _), call in zip(answers, messages, calls, strict=True)
        ]

    def write_in_doubt(self, operation: Operation[T], session_id: str) -> tuple[T, bool]:
        """Run as `write`; the second result is whether an earlier try may have been applied."""
        call = Call(self._settings, session_id)
        return self._run(operation, call), call.in_doubt

    def write_once(self, operation: Operation[T], session_id: str) -> T:
        """Run an operation that is tried again only if it is known not to have been applied."""
        return self._run(operation, Call(self._settings, session_id, once=True))

    def administer(self, operation: Operation[T]) -> T:
        """Run an operation once, on a connection of its own, which has not looked at the tables."""
        # Beside the pool, which cannot be opened where there are tables of the old system.
        connection = self._pool.connect_beside()
        try:
            return operation(connection)
        except psycopg.Error as error:
            # Not tried again: a second try could not tell whether the first one did it all.
            raise explain(error, self.place, maybe_applied=connection.closed) from error
        finally:
            connection.abort()

    def close(self) -> None:
        """Close every connection; the next operation opens new ones."""
        self._pool.close()

    def renew_locks(self) -> None:
        """Make the locks anew; the next operation opens a new pool."""
        self._pool.renew_locks()
        self._group.reset()
        self._forget_turns()

    def abandon(self) -> None:
        """Forget every connection without closing it: this is a forked child."""
        self._pool.abandon()
        self._group.reset()
        self._forget_turns()

    # --- Trying, and trying again ---------------------------------------------------------------

    def _run(self, operation: Operation[T], call: Call) -> T:
        if call.session_id is None:
            return self._try_on(operation, call)
        line = self._turns, call.session_id
        return self._in_turn(line, call.end, call.locked, self._try_on, operation, call)

    def _in_turn(
        self,
        line: tuple[Turns, str],
        end: float,
        late: Callable[[], Exception],
        run: Callable[[Operation[T], Call], T],
        operation: Operation[T],
        call: Call,
    ) -> T:
        turn = None
        try:
            turn = Turn(*line)
            if not turn.wait(end):
                raise late()
            return run(operation, call)
        finally:
            if turn is not None:
                # At once: what strikes on the way into a function leaves it undone.
                turn.line.pop(turn.place, None)
                turn.leave()

    def _try_on(self, operation: Operation[T], call: Call) -> T:
        pause = _FIRST_PAUSE
        started, tries = time.monotonic(), 1
        # It may have waited for its session, and not for a connection.
        call.deadline = min(call.end, started + self._settings.retry_deadline)
        locked: LongWait | None = None
        # Each connection may have planned its statements for tables that were altered since.
        stale_plans = self._settings.pool_size
        while True:
            try:
                result = self._try_once(operation, call)
            except psycopg.Error as error:
                failure = error
            else:
                if tries > 1:
                    seconds = time.monotonic() - started
                    text = "%s: works again after %d tries in %.1f s"
                    log(LOGGER, INFO, text, self.place, tries, seconds)
                return result
            state = sqlstate(failure)
            if state in LOST_STATEMENT:
                self._pool.connector.tell_pooled("a prepared statement is missing")
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
                    raise call.locked() from failure
                time.sleep(self._lock_wait * random.uniform(0, 0.5))  # noqa: S311 - no secret
                continue
            if isinstance(failure, NoAnswerError) or (call.is_late and state == CANCELLED):
                raise call.no_answer() from failure
            if (
                (call.once and call.in_doubt)
                or not is_worth_retrying(failure, pooler=bool(self._pool.connector.pooled))
                or time.monotonic() + pause > call.deadline
            ):
                seconds = time.monotonic() - started
                self._log_end(failure, call, seconds)
                raise self._explain(failure, call) from failure
            tries += 1
            text = "%s: %s; trying again in %.2f s"
            log(LOGGER, WARNING, text, self.place, reason(failure), pause)
            # Random, lest all who were cut off come back at the same moments.
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _try_once(self, operation: Operation[T], call: Call) -> T:
        try:
            if not call.is_held_up:
                return self._try(operation, call)
            # Others need connections too.
            line = self._held_up, ""
            return self._in_turn(line, call.end, call.locked, self._try, operation, call)
        except DirectorDBError as error:
            if not call.in_doubt:
                raise
            raise as_in_doubt(error)  # noqa: B904 - it has its cause

    def _explain(self, failure: psycopg.Error, call: Call) -> DirectorDBError:
        ours = explain(failure, self.place, maybe_applied=call.in_doubt)
        password = self._settings.parameters.get("password", "")
        if sqlstate(failure).startswith("28") and is_quoted(password):
            ours = ConfigurationError(f"{ours} As to the password:{QUOTED}")
        # A pooler refuses also while it waits for its server.
        wants_server = (
            bool(self._pool.connector.pooled)
            and is_refusal(failure)
            and sqlstate(failure) == PROTOCOL_VIOLATION
        )
        if isinstance(ours, BackendUnavailableError) or not (call.in_doubt or wants_server):
            return ours
        # Whatever this try met, an earlier one may be stored.
        return BackendUnavailableError(
            str(ours), retryable=wants_server, maybe_applied=call.in_doubt
        )

    def _log_end(self, failure: psycopg.Error, call: Call, seconds: float) -> None:
        """Log a failure that is not tried again, unless what was asked is at fault."""
        if call.once and call.in_doubt:
            text = "%s: %s; the write may have been stored, and is not sent again"
            log(LOGGER, WARNING, text, self.place, reason(failure))
        elif is_worth_retrying(failure, pooler=bool(self._pool.connector.pooled)):
            text = "%s: %s; gave up after %.1f s"
            log(LOGGER, WARNING, text, self.place, reason(failure), seconds)

    def _try(self, operation: Operation[T], call: Call) -> T:
        line, late = (self._sides[call.writes], ""), partial(self._pool.why_none, call)
        return self._in_turn(line, call.deadline, late, self._try_now, operation, call)

    def _try_now(self, operation: Operation[T], call: Call) -> T:
        token = object()
        pool, connection = self._pool.acquire(call, token)
        try:
            connection.expect_answers(call.patience, call.end)
            result = operation(connection)
            if connection.is_cancelled:
                # A late cancelling must not strike somebody else's statement.
                connection.close()
                if call.writes:
                    # Told to cancel a COMMIT, a server need not wait for its standby any more.
                    raise too_late()  # noqa: TRY301 - as any failure of this try
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
            self._pool.look_why_read_only(error, connection)
            if (
                sqlstate(error) == READ_ONLY
                or is_of_a_stale_plan(error)
                or connection.is_cancelled
                or not connection.is_idle
                or isinstance(error, OutOfStepError)
            ):
                connection.close()
            raise
        except DirectorDBError:
            # Of the operation itself, as a merge that was refused: the connection is good.
            if connection.is_cancelled or not connection.is_idle:
                connection.abort()
            raise
        except BaseException:
            connection.abort()
            raise
        finally:
            self._pool.holding.pop(token, None)  # See `_in_turn`.
            self._pool.give_back(token, pool, connection)
