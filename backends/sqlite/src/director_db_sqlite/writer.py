"""Group commit: one connection writes, and many callers share one transaction.

A caller queues its call. Whoever finds nobody leading becomes the leader, runs what is queued in
one transaction, commits it once, and wakes the others, each through a lock of its own. A caller
alone is its own leader, and runs the very statements that a single connection would.

A signal's handler, and whatever else raises in the middle of a thread, may strike between any two
instructions of a leader. So what it has begun stands in `_batch`, and the transaction itself says
what has become of it: while it is open, nothing of it happened. The leader says so to the others
before it goes down; where it cannot, because it is struck once more, the next one does. Nobody
depends on being woken either: who sleeps looks for itself from time to time.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from director_db.errors import BackendUnavailableError, DirectorDBError
from director_db.logs import ERROR, LONG, WARNING, tell
from director_db_sqlite.checkpoint import Checkpointer
from director_db_sqlite.connections import failure, forget, roll_back
from director_db_sqlite.errors import WAIT, primary_code
from director_db_sqlite.file import FileReplacedError, log_bytes
from director_db_sqlite.locks import (
    LOGGER,
    in_use_by_this_thread,
    long_wait,
    new_lock,
    patiently,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_sqlite.connections import Operation

T = TypeVar("T")

MAX_BATCH_CALLS: Final = 64
"""The most calls in one transaction."""

MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
"""The payloads after which a transaction takes no more calls, in bytes."""

# What an operation itself can raise. All else strikes the thread that leads, a time-out that
# somebody has thrown into it for one, and is nothing to those whose calls it runs.
_OF_OPERATIONS: Final = (
    sqlite3.Error,
    DirectorDBError,
    ArithmeticError,
    MemoryError,
    TypeError,
    ValueError,
)

# Between two looks of a sleeper that nobody woke, in seconds; see above.
_LONGEST_SLEEP: Final = 0.1

# Between two tries to get the write lock of the file, in seconds; see `_begin`.
_SHORTEST_PAUSE: Final = 0.0002
_FIRST_LONGEST_PAUSE: Final = 0.005
_LAST_LONGEST_PAUSE: Final = 0.0006
_SHRINKING: Final = 0.9

# What a process leaves free between two of its turns while others wait for theirs, in seconds at
# most, and for how long it takes it that they do.
_LONGEST_GAP: Final = 0.001
_CROWDED: Final = 0.25


class Call:
    """A write that somebody waits for."""

    __slots__ = ("abandoned", "error", "operation", "result", "settled", "size", "wake")

    def __init__(self, operation: Operation[Any], size: int) -> None:
        self.operation = operation
        self.size = size
        self.result: Any = None
        self.error: BaseException | None = None
        self.settled = False
        # Nobody waits for it any more: one that has not begun must never begin.
        self.abandoned = False
        self.wake = threading.Lock()
        self.wake.acquire()


class Writer:
    """Runs writes in as few transactions as they come in, on one connection."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        path: Callable[[], str],
        is_there: Callable[[], bool],
    ) -> None:
        """Take what opens a connection that writes, and what knows the file.

        Args:
            connect: opens a connection.
            path: of the file, for people.
            is_there: whether it is still the one that the connection has open.
        """
        self._connect = connect
        self._path = path
        self._is_there = is_there
        self._checkpointer = Checkpointer(connect)
        self.max_batch_calls = MAX_BATCH_CALLS
        self.reset()

    def reset(self) -> None:
        """Have no connection and no caller, with locks that nobody holds."""
        self.connection: sqlite3.Connection | None = None
        self.leading = new_lock()
        self._main_thread = threading.main_thread().ident
        self._waiting: deque[Call] = deque()
        # The calls that the open transaction has begun, and whether its COMMIT has.
        self._batch: list[Call] = []
        self._committing = False
        self._crowded_until = 0.0

    def write(self, operation: Operation[T], size: int, deadline: float) -> T:
        """Run an operation in a transaction; it is durable on return, or has not happened.

        Args:
            operation: what to run, once; in which thread is not said.
            size: about how much it writes, in bytes of payloads.
            deadline: until when to wait for the locks of others, by the monotonic clock.

        Raises:
            BackendUnavailableError: it could not begin in time, or who ran it was interrupted.
            FileReplacedError: the file is not there any more, or another one is.
        """
        if self.leading._is_owned():  # noqa: SLF001 - what threading.Condition asks, too
            raise in_use_by_this_thread(self._path())
        call = Call(operation, size)
        try:
            self._waiting.append(call)
            self._try_to_lead(call, deadline)
            while not call.settled:
                woken = self._sleep(call, deadline)
                if not call.settled:
                    self._try_to_lead(call, deadline, in_turn=woken)
        except BaseException:
            # It is withdrawn if it has not begun. If it has, it ends with its transaction. Marked
            # first, by an assignment, before which nothing strikes: what strikes in the middle of
            # `_withdraw` would leave it in the queue, and somebody would store it later.
            call.abandoned = True
            self._withdraw(call)
            self._wake_next()
            raise
        if call.error is None:
            return cast("T", call.result)
        try:
            raise call.error
        finally:
            del call  # A cycle: the error's traceback holds this frame.

    # --- Waiting --------------------------------------------------------------------------------

    def _withdraw(self, call: Call) -> bool:
        try:
            self._waiting.remove(call)
        except ValueError:
            return False
        return True

    def _sleep(self, call: Call, deadline: float) -> bool:
        """Wait for somebody to wake this thread; False if nobody did."""
        left = deadline - time.monotonic()
        if left > 0:
            return call.wake.acquire(timeout=min(left, _LONGEST_SLEEP))
        if self._withdraw(call):
            tell(LOGGER, WARNING, "%s: gave up waiting for other threads' writes", self._path())
            message = f"{self._path()} stayed locked by other threads of this process. Try again."
            raise BackendUnavailableError(message, retryable=True)
        # It has begun, and a commit waits for none.
        return call.wake.acquire(timeout=_LONGEST_SLEEP)

    def _wake_next(self) -> None:
        first = self._first()
        if first is not None:
            with contextlib.suppress(RuntimeError):  # It may be awake.
                first.wake.release()

    def _first(self) -> Call | None:
        """Return the first call that somebody waits for."""
        try:
            while (first := self._waiting[0]).abandoned:
                self._withdraw(first)
        except IndexError:
            return None
        return first

    def _take(self) -> Call | None:
        """Take the first call that somebody waits for from the queue; only a leader may."""
        try:
            while (first := self._waiting.popleft()).abandoned:
                pass
        except IndexError:
            return None
        return first

    # --- Leading --------------------------------------------------------------------------------

    def _try_to_lead(self, call: Call, deadline: float, *, in_turn: bool = True) -> None:
        """Run a batch if nobody else does; `call` may be in it, or further behind.

        A signal strikes the main thread and no other, so its handler never raises into what other
        threads wait for: the main thread leads for itself alone. `in_turn` only, as it would let
        nobody else lead if it wrote all the time: others who come first take everybody along. Out
        of turn where nobody has woken it for a whole sleep: a leader was struck with this call in
        its hand, or the first in the queue is the very call that this one interrupts.
        """
        alone = threading.get_ident() == self._main_thread
        if alone and in_turn and self._first() is not call:
            return
        led = False
        try:
            led = self.leading.acquire(blocking=False)
            if led:
                self._lead(call, deadline, alone=alone)
        finally:
            # Without asking whether we own it, as in `locked`.
            try:  # noqa: SIM105
                self.leading.release()
            except RuntimeError:
                pass
        if led and self._waiting:
            # Who queues after this look finds nobody leading.
            self._wake_next()

    def _lead(self, own: Call, deadline: float, *, alone: bool) -> None:
        connection = self.connection
        if self._batch or self._committing or (connection and connection.in_transaction):
            self._recover()
        if own.settled:
            return  # By the leader before, at the last moment.
        if own not in self._waiting:
            # A leader was struck after it took this call and before it noted it.
            own.error = self._interrupted()
            own.settled = True
            return
        try:
            if connection is None or self.connection is None:
                connection = self._open(deadline)
            # The checkpoint's connection goes by the path: another file there is none of ours.
            if self._checkpointer.due and self._is_there():
                self._checkpoint(connection, deadline)
            self._begin(connection, deadline)
            first = None if alone else self._take()
            if first is None:
                self._waiting.remove(own)
                first = own
            self._batch.append(first)
            try:
                first.result = first.operation(connection)
            except Exception as error:
                if first is not own and not isinstance(error, _OF_OPERATIONS):
                    raise
                # It needs no savepoint: what is rolled back is its own.
                first.error = error if self._is_there() else FileReplacedError()
                self._end(connection)
            else:
                if alone or not self._waiting or self._run_others(connection, own):
                    self._commit(connection)
            self._settle()
        except BaseException:
            self._recover()
            raise

    def _begin(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Take the write lock, and wait for other processes that hold it.

        SQLite's own waiting doubles its pauses up to 0.1 s: who has waited for long asks rarely,
        and is overtaken by all who have just come. With 16 processes, some waited for 2 to 4 s.
        Here it is the other way round: pauses are random and shrink, so who has waited for long
        asks most often. And who had to wait lately leaves a gap before it comes again: on a slow
        disk the lock is free for so short a time that nobody else would ever ask just then. A lock
        file on which the kernel lets processes queue was rejected: there is no end to its waiting
        that a caller could choose.
        """
        if self._crowded_until:
            if time.monotonic() < self._crowded_until:
                time.sleep(random.uniform(_SHORTEST_PAUSE, _LONGEST_GAP))  # noqa: S311 - no secret
            else:
                self._crowded_until = 0.0
        pause, wait = _FIRST_LONGEST_PAUSE, None
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if primary_code(error) not in WAIT:
                    raise
                if wait is None:
                    wait = long_wait(self._path, "for the write lock, which another connection has")
                if time.monotonic() >= deadline:
                    wait.give_up()
                    raise
                wait.look()
            else:
                return
            time.sleep(random.uniform(_SHORTEST_PAUSE, pause))  # noqa: S311 - the same
            pause = max(_LAST_LONGEST_PAUSE, pause * _SHRINKING)
            self._crowded_until = time.monotonic() + _CROWDED

    def _run_others(self, connection: sqlite3.Connection, own: Call) -> bool:
        """Run what is queued; False if the transaction has ended meanwhile, and all have failed."""
        batch = self._batch
        size = batch[0].size
        while len(batch) < self.max_batch_calls and size < MAX_BATCH_BYTES:
            call = self._take()
            if call is None:
                break
            batch.append(call)
            size += call.size
            try:
                connection.execute("SAVEPOINT one_call")
                call.result = call.operation(connection)
                connection.execute("RELEASE one_call")
            except Exception as error:
                if call is not own and not isinstance(error, _OF_OPERATIONS):
                    raise
                call.error = error
                if not self._undo(connection):
                    self._fail_all(error)
                    self._end(connection)
                    return False
        return True

    def _undo(self, connection: sqlite3.Connection) -> bool:
        """Roll one call back; False if that cannot be done: a full disk, for one, has ended all."""
        if not connection.in_transaction:
            return False
        try:
            connection.execute("ROLLBACK TO one_call")
            connection.execute("RELEASE one_call")
        except sqlite3.Error:
            return False
        return True

    def _commit(self, connection: sqlite3.Connection) -> None:
        # Once for the whole batch and at the last moment. Each caller for itself, before it queues,
        # would have to give up the interpreter for it: with 32 threads a tenth of what they stored.
        if not self._is_there():
            for call in self._batch:
                call.error = FileReplacedError()
            self._end(connection)
            return
        # From here on, a transaction that is not open any more has been committed: nothing can
        # strike between a COMMIT that fails and the line that takes this back.
        self._committing = True
        began = time.monotonic()
        try:
            connection.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as error:
            self._committing = False
            self._fail_all(error)
            self._end(connection)
        else:
            written = sum([call.size for call in self._batch])
            self._checkpointer.count(len(self._batch), written, connection.total_changes)
            self._tell_if_long("a commit", began)

    def _checkpoint(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Empty the log in a transaction that writes nothing: the next one starts it anew."""
        self._begin(connection, deadline)
        began = time.monotonic()
        try:
            self._checkpointer.run()
        finally:
            roll_back(connection)
        self._tell_if_long("a checkpoint", began)

    def _tell_if_long(self, what: str, began: float) -> None:
        seconds = time.monotonic() - began
        if seconds >= LONG:
            tell(LOGGER, WARNING, "%s: %s took %.1f s; check the disk", self._path(), what, seconds)

    def _fail_all(self, cause: Exception) -> None:
        """Give everyone in the batch who has not failed alone an error of their own."""
        text = "%s: a transaction failed, and with it all of its writes (%d): %s"
        tell(LOGGER, ERROR, text, self._path(), len(self._batch), cause)
        for call in self._batch:
            if call.error is None:
                call.error = failure(cause, self._path())

    def _settle(self) -> None:
        for call in self._batch:
            if not call.settled:
                call.settled = True
                try:  # noqa: SIM105
                    call.wake.release()
                except RuntimeError:
                    pass  # It is awake already, to see whether it should lead.
        self._batch = []
        self._committing = False

    def _recover(self) -> None:
        """Settle what a leader left when it was struck: this thread just now, or the one before."""
        if self.connection is not None and self.connection.in_transaction:
            self._committing = False
            self._end(self.connection)
        failed = 0
        if not self._committing:
            for call in self._batch:
                if call.error is None and not call.settled:
                    call.error = self._interrupted()
                    failed += 1
        self._settle()
        if failed:
            text = "%s: a thread that was storing writes (%d) was interrupted; they failed"
            tell(LOGGER, WARNING, text, self._path(), failed)

    def _end(self, connection: sqlite3.Connection) -> None:
        """Roll back; a connection that cannot even do that is given up."""
        roll_back(connection)
        if connection.in_transaction:
            self.connection = None  # First: nothing can be asked of one that was closed.
            connection.close()

    def _interrupted(self) -> BackendUnavailableError:
        message = f"{self._path()}: the thread that was storing this was interrupted. Try again."
        return BackendUnavailableError(message, retryable=True)

    # --- Life -----------------------------------------------------------------------------------

    def adopt(self, connection: sqlite3.Connection) -> None:
        """Write on a connection that was opened for something else, if there is none yet."""
        # A lock that cannot be had is told at once, and waited for by `_begin`.
        connection.execute("PRAGMA busy_timeout = 0")
        self._checkpointer.find_log(log_bytes(self._path()))
        with self.leading:
            if self.connection is None:
                self.connection = connection
            else:
                connection.close()

    def _open(self, deadline: float) -> sqlite3.Connection:
        self.adopt(patiently(self._connect, deadline, self._path))
        return cast("sqlite3.Connection", self.connection)

    def close(self) -> None:
        """Close the connections; the next write opens new ones."""
        with self.leading:
            # While the transaction of a leader that was struck can still say what became of it.
            self._recover()
            self._checkpointer.close()
            connection, self.connection = self.connection, None
            if connection is not None:
                connection.close()

    def abandon(self) -> None:
        """Forget the connections without closing them, and every caller: this is a forked child."""
        forget(self.connection)
        self._checkpointer.abandon()
        self.reset()
