"""Group commit on the wire: messages of many callers in one transaction and one round trip.

Who shares one, and who sends it, is the queue's to say: see `director_db.queue`. Only callers queue
who would have to wait in any case, for a connection or for others of their session; as long as few
come, each goes by itself.

What is sent together waits for no session, and but a moment for a message, so hardly anybody is
held up by a lock that somebody else holds, and two processes cannot wait for each other.

It is no more than a first try of each write. What has not been stored so goes on by itself as if it
had been alone, and meets its own error; but not where no answer came at all, in time or before the
thread that sent it was struck. That batch may still reach the server, at any time, and would be
stored over what its callers have written since.
"""

from __future__ import annotations

import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import psycopg

from director_db.errors import BackendUnavailableError, DirectorDBError
from director_db.logs import DEBUG, WARNING, log
from director_db.queue import Queue
from director_db_postgres.bulk import together
from director_db_postgres.call import Call
from director_db_postgres.driver_log import LOGGER
from director_db_postgres.encoding import message_in_ascii
from director_db_postgres.errors import (
    CANCELLED,
    LOST_STATEMENT,
    OutOfStepError,
    is_worth_retrying,
    reason,
    sqlstate,
)
from director_db_postgres.sql.server import SET_LOCK_TIMEOUT
from director_db_postgres.waiting import NoAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director_db.call import Call as Queued
    from director_db.queue import Batch
    from director_db.rows import MessageRow
    from director_db_postgres.connections import Connection
    from director_db_postgres.pool import Pool
    from director_db_postgres.settings import Settings
    from director_db_postgres.statements import Statements

MAX_WRITE_BYTES: Final = 256 * 1024
"""What is larger goes by itself, in characters: others would wait until it is on the server."""

MAX_BATCH_BYTES: Final = 2 * MAX_WRITE_BYTES
"""After so much a batch takes no more, in characters."""

# Fewer of a process's coroutines store no more together than each for itself, on a connection each.
_FEWEST: Final = 4

# Who has so much of its time left is taken for a call that has just come.
_ALMOST_ALL: Final = 0.75

LONG: Final = 0.5
"""How long a batch may be under way before the others go by themselves, in seconds."""

# After so many small batches in a row, callers go by themselves again. A crowd makes small ones,
# too: the thread that is woken last misses every second batch. With four here, ten and twelve
# threads stored less together than each for itself.
_CALM: Final = 2

# Who has less than this part of the time of a call left goes by itself: a batch waits no longer for
# its answer than the first of its calls may, and one without an answer is not sent again.
_SHORTEST: Final = 0.5

# How long a batch waits for the lock of a message, in milliseconds; those of sessions it skips.
_LOCK_WAIT: Final = "50"

# How long a caller that was struck waits for what was sent for it, in seconds.
_STRUCK_PATIENCE: Final = 4.5
_POLL: Final = 0.002


class Write:
    """One caller's message on its way into a batch.

    Attributes:
        call: its time, and what is known of it.
        row: the message.
        is_sent: whether it may have been sent.
        is_stored: whether the server said that it is stored.
        is_unanswered: whether it was sent and no answer came in time, so that it must not be sent
            again.
        is_struck: the same of one whose leader was struck before an answer came.
        is_over: whether nothing of it is under way any more.
    """

    __slots__ = ("call", "is_over", "is_sent", "is_stored", "is_struck", "is_unanswered", "row")

    def __init__(self, call: Call, row: MessageRow) -> None:
        """Take a message that nobody has sent."""
        self.call = call
        self.row = row
        self.is_sent = self.is_stored = self.is_over = False
        self.is_unanswered = self.is_struck = False

    def __call__(self) -> bool:
        """Return what became of it."""
        return self.is_stored

    @property
    def session_id(self) -> str:
        """Whose message it is."""
        return cast("str", self.call.session_id)

    def wait_until_over(self) -> None:
        """Let what was sent for a caller that was struck end, before it goes on and writes more."""
        limit = time.monotonic() + _STRUCK_PATIENCE
        while self.is_sent and not self.is_over and time.monotonic() < limit:
            time.sleep(_POLL)


class Group:
    """Sends the messages of callers who wait together.

    Attributes:
        queue: where they wait.
    """

    def __init__(
        self,
        settings: Settings,
        statements: Statements,
        pool: Pool,
        attempt: Callable[[Callable[[Connection], None], Call], None],
    ) -> None:
        """Take what a batch needs.

        Args:
            settings: of the instance.
            statements: those that store messages.
            pool: the connections.
            attempt: tries an operation for a call once, a method of who has this.
        """
        self._settings = settings
        self._statements = statements
        self._pool = pool
        self._attempt = weakref.WeakMethod(attempt)
        # Reads get one at least, and those who send together another.
        self._alone = max(1, settings.pool_size - 2)
        self.queue = Queue(self, lambda: settings.place, LOGGER, (psycopg.Error,))
        self.queue.max_bytes = MAX_BATCH_BYTES
        self.reset()

    def reset(self) -> None:
        """Forget every caller, with a lock that nobody owns."""
        self._small = _CALM
        self._sent_at: float | None = None
        self.queue.reset()

    def takes(self, row: MessageRow, *, waits: bool) -> bool:
        """Whether a message is to queue.

        Not the main thread's, as only there a signal's handler raises: what it strikes is cancelled
        on the server, and nobody else's.

        Args:
            row: the message.
            waits: whether it would wait for others of its session.
        """
        if waits or self._pool.users >= self._alone:
            self._small = 0
        elif self._small >= _CALM:
            return False
        return (
            not self._pool.connector.is_sharded
            and threading.get_ident() != self.queue.main_thread
            and _size(row) <= MAX_WRITE_BYTES
            and not self._is_held_up()
        )

    def store(self, call: Call, row: MessageRow) -> bool:
        """Store a message together with others; False if it has to go by itself.

        Raises:
            BackendUnavailableError: the time of the call is over, or the server did not answer.
        """
        write = Write(call, row)
        run = partial(self.queue.run, write, _size(row), call.deadline, self._is_held_up)
        return self._is_stored(write, run)

    def store_each(
        self, messages: Sequence[tuple[Call, MessageRow]]
    ) -> list[bool | Callable[[], bool]]:
        """Store messages of several callers together, in this thread.

        Returns:
            For each True if it is stored, and False if nothing was done; else a function that
            returns or raises what `store` would.
        """
        writes = [Write(*each) for each in messages]
        sizes = [(write, _size(write.row)) for write in writes]
        small = [each for each in sizes if each[1] <= MAX_WRITE_BYTES]
        if len(small) < _FEWEST or self._pool.connector.is_sharded or self._is_held_up():
            return [False] * len(writes)
        deadline = min(write.call.deadline for write, _ in small)
        try:
            calls = self.queue.run_each(small, deadline, self._is_held_up)
        except BaseException:
            for write, _ in small:
                write.wait_until_over()
            raise
        answers = {
            write: self._answer(write, queued)
            for (write, _), queued in zip(small, calls, strict=True)
        }
        return [answers.get(write, False) for write in writes]

    def _answer(self, write: Write, queued: Queued) -> bool | Callable[[], bool]:
        if queued.error is None and write.is_stored:
            return True
        if self._may_begin_anew(write, queued):
            return False
        return partial(self._is_stored, write, queued.outcome)

    def _may_begin_anew(self, write: Write, queued: Queued) -> bool:
        """Whether nothing was done for a message: its session is locked, for one.

        Not if much of its time has gone, as it would have all of it once more.
        """
        call = write.call
        return (
            not (write.is_sent and queued.error is not None)
            and not (write.is_unanswered or write.is_struck)
            and not call.in_doubt
            and call.end - time.monotonic() >= _ALMOST_ALL * self._settings.operation_timeout
        )

    def _is_stored(self, write: Write, run: Callable[[], bool]) -> bool:
        call = write.call
        try:
            if run():
                return True
        except BackendUnavailableError:
            # It did not begin in time, or who sent it was struck.
            call.in_doubt |= write.is_sent
        except BaseException:
            write.wait_until_over()
            raise
        if write.is_struck:
            raise call.interrupted()
        is_late = time.monotonic() >= call.end
        if write.is_unanswered or (is_late and call.in_doubt):
            raise call.no_answer()
        if is_late:
            raise call.busy()
        return False

    def _is_held_up(self) -> bool:
        sent_at = self._sent_at
        if sent_at is None or time.monotonic() - sent_at <= LONG:
            return False
        return self.queue.is_led()  # If not, its leader was struck at the last moment.

    # --- A transaction --------------------------------------------------------------------------

    def run(self, batch: Batch, deadline: float) -> None:
        """Send the messages of a batch, and note what has become of each."""
        attempt_once = self._attempt()
        assert attempt_once is not None  # noqa: S101 - a call of its holder's is under way
        attempt = Call(self._settings, "")
        # To open the pool may take as long as the leader has; an answer, see `_send`.
        attempt.deadline, attempt.end = deadline, min(attempt.end, deadline)
        attempt.is_held_up = True  # It meets no session's lock, so nobody asks who holds one.
        used: list[Connection] = []

        def send(connection: Connection) -> None:
            used.append(connection)
            self._send(connection, batch)

        try:
            attempt_once(send, attempt)
        except self.queue.errors as error:
            self._part(batch, attempt, error)
        finally:
            self._sent_at = None
            may_act = any(connection.may_act for connection in used)
            is_whole = any(connection.is_whole for connection in used)
            for queued in batch.calls:
                write = _write_of(queued)
                write.is_sent &= is_whole  # What is not whole is never applied.
                write.is_struck = write.is_sent and may_act
                write.is_over = True
                queued.result = write()

    def recover(self) -> bool:
        """Whether it was committed: nobody knows of one whose leader was struck."""
        return False

    def _send(self, connection: Connection, batch: Batch) -> None:
        """Store what waits by now."""
        while batch.take() is not None:
            pass
        if connection.is_sharded:
            return  # One transaction for several sessions would take two phases.
        connection.is_whole = False  # So far nothing of it can have been sent.
        writes = list(map(_write_of, batch.calls))
        # First, then look who was struck, which does it the other way round: one sees the other.
        for write in writes:
            write.is_sent = True
        soon = time.monotonic() + _SHORTEST * self._settings.operation_timeout
        sent: dict[tuple[str, str], Write] = {}
        for queued, write in zip(batch.calls, writes, strict=True):
            key = (write.session_id, write.row.msg_id)
            # One statement cannot change a row twice: who comes second goes by itself.
            write.is_sent = not queued.abandoned and write.call.end > soon and key not in sent
            if write.is_sent:
                sent[key] = write
        if not sent:
            return
        self._small = 0 if len(sent) > self._alone else self._small + 1
        connection.expect_answers(
            self._settings.operation_timeout, min(write.call.end for write in sent.values())
        )
        rows = {
            key: write.row if self._pool.utf8 else message_in_ascii(write.row)
            for key, write in sent.items()
        }
        sessions, messages = together(rows)
        self._sent_at = time.monotonic()
        _, _, stored = connection.run_together(
            (SET_LOCK_TIMEOUT, (_LOCK_WAIT,)),
            (self._statements.count_together, sessions),
            (self._statements.upsert_together, messages),
        )
        keys = [*stored.rows()]
        if not sent.keys() >= {*keys}:
            # Without their ids: they are somebody else's.
            message = "the answer names other messages than those that were sent"
            raise OutOfStepError(message)
        for key in keys:
            sent[key].is_stored = True

    def _part(self, batch: Batch, attempt: Call, error: Exception) -> None:
        """Let each caller go on by itself."""
        if not batch.calls:
            while batch.take() is not None:
                pass  # There is no connection for these.
        # What is no error of the driver's may have come while its answer was read, or before.
        of_driver = isinstance(error, (psycopg.Error, DirectorDBError, UnicodeError))
        state = sqlstate(error) if isinstance(error, psycopg.Error) else ""
        is_unanswered = isinstance(error, NoAnswerError) or (attempt.is_late and state == CANCELLED)
        for queued in batch.calls:
            write = _write_of(queued)
            write.is_stored = False
            write.is_unanswered = write.is_sent and is_unanswered
            write.call.in_doubt |= write.is_sent and (attempt.in_doubt or not of_driver)
        said, level = type(error).__name__, WARNING
        if isinstance(error, psycopg.Error):
            said = reason(error)
            if state in LOST_STATEMENT:
                self._pool.connector.tell_pooled("a prepared statement is missing")
            elif not is_worth_retrying(error, pooler=bool(self._pool.connector.pooled)):
                level = DEBUG  # What was asked is at fault, and its caller hears of it.
        fate = "may be stored or not" if is_unanswered else "go on one by one"
        text = "%s: %s; the messages that were sent together (%d) %s"
        log(LOGGER, level, text, self._settings.place, said, len(batch.calls), fate)


def _write_of(queued: Queued) -> Write:
    return cast("Write", queued.operation)


def _size(row: MessageRow) -> int:
    return len(row.agents) + len(row.actions) + len(row.content) + len(row.metadata)
