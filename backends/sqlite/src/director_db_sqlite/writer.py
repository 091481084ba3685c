"""Group commit: the transaction that many callers share, on the one connection that writes.

Who shares it, and who runs it, is the queue's to say: see `director_db.queue`. A caller alone runs
the very statements that a single connection would.
"""

from __future__ import annotations

import random
import sqlite3
import time
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from director_db.locks import is_mine
from director_db.logs import ERROR, LONG, WARNING, log
from director_db.queue import Queue
from director_db_sqlite.checkpoint import Checkpointer
from director_db_sqlite.connections import failure, forget, roll_back
from director_db_sqlite.errors import WAIT, primary_code
from director_db_sqlite.file import FileReplacedError, log_bytes
from director_db_sqlite.locks import LOGGER, locked, long_wait, patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director_db.call import Call
    from director_db.queue import Batch

# Between two tries to get the write lock of the file, in seconds; see `_begin`.
_SHORTEST_PAUSE: Final = 0.0002
_FIRST_LONGEST_PAUSE: Final = 0.005
_LAST_LONGEST_PAUSE: Final = 0.0006
_SHRINKING: Final = 0.9

# What a process leaves free between two of its turns while others wait for theirs, in seconds at
# most, and for how long it takes it that they do.
_LONGEST_GAP: Final = 0.001
_CROWDED: Final = 0.25

# Fewer are run one by one, which is as fast: with four threads faster. So are those of more bytes,
# as a statement keeps its parameters until it is used again.
_FEWEST: Final = 12
_LARGE: Final = 64 * 1024


class Together(Protocol):
    """What an operation may have as its attribute `together`: runs several like it at once."""

    def __call__(self, connection: sqlite3.Connection, operations: Sequence[Any], /) -> bool:
        """Do what several operations do one after another, if each of them would return True.

        Returns:
            False if one of them would not, or it cannot be done at once: what it did is undone,
            and each is run by itself.
        """


def _together(call: Call) -> Together | None:
    return None if call.size > _LARGE else getattr(call.operation, "together", None)


def _take(batch: Batch, call: Call | None) -> list[Call]:
    """Take calls up to the first that is run by itself, which is the last of them."""
    calls = []
    while call is not None:
        calls.append(call)
        call = None if _together(call) is None else batch.take()
    return calls


class Writer:
    """Runs the transactions of the calls in its queue.

    Attributes:
        queue: the calls; to write is ``queue.run``, which raises `FileReplacedError` where the file
            is not there any more, or another one is.
        connection: the one that writes; None until the first call.
        count_written: tells that an operation wrote so many bytes more than it had said.
    """

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
        self.count_written = self._checkpointer.add
        self.queue = Queue(self, path, LOGGER, (sqlite3.Error,))
        self.connection: sqlite3.Connection | None = None
        self._crowded_until = 0.0
        # Whether the COMMIT of the latest transaction has begun, and has not failed.
        self._committing = False

    # --- A transaction --------------------------------------------------------------------------

    def run(self, batch: Batch, deadline: float) -> None:
        """Run the calls of a batch in one transaction.

        Each in a savepoint, alone or with others, but the first if it is taken alone.
        """
        self._committing = False
        connection = self.connection
        if connection is None:
            if not self._is_there():
                raise FileReplacedError  # Whose log lies there is looked at before it is opened.
            connection = self._open(deadline)
        # The checkpoint's connection goes by the path: another file there is none of ours.
        if self._checkpointer.due and self._is_there():
            self._checkpoint(connection, deadline)
        self._begin(connection, deadline)
        call = batch.take_first()
        calls = _take(batch, call)
        if len(calls) == 1:
            try:
                call.result = call.operation(connection)
            except Exception as error:  # noqa: BLE001 - raised again if it is not the call's
                batch.fail(call, error)
                # It needs no savepoint: what is rolled back is its own.
                self._fail_if_replaced(batch)
                self._end(connection)
                return
            calls = _take(batch, batch.take())
        while calls:
            for together, alike in groupby(calls, _together):
                if not self._run_alike(connection, batch, [*alike], together):
                    self._fail_if_replaced(batch)
                    self._end(connection)
                    return
            calls = _take(batch, batch.take())
        self._commit(connection, batch)

    def _run_alike(
        self,
        connection: sqlite3.Connection,
        batch: Batch,
        calls: list[Call],
        together: Together | None,
    ) -> bool:
        """Run calls, at once if that can be; False if the whole transaction has failed."""
        if together is not None and len(calls) >= _FEWEST:
            try:
                connection.execute("SAVEPOINT one_call")
                if together(connection, [call.operation for call in calls]):
                    connection.execute("RELEASE one_call")
                    for call in calls:
                        call.result = True
                    return True
                connection.execute("ROLLBACK TO one_call")
                connection.execute("RELEASE one_call")
            except self.queue.errors as error:
                if not self._undo(connection):
                    self._fail_all(batch, error)
                    return False
            # Now each by itself, so that what failed is told to the one whose fault it is.
        for call in calls:
            try:
                connection.execute("SAVEPOINT one_call")
                call.result = call.operation(connection)
                connection.execute("RELEASE one_call")
            except Exception as error:  # noqa: BLE001 - raised again if it is not the call's
                batch.fail(call, error)
                if not self._undo(connection):
                    self._fail_all(batch, error)
                    return False
        return True

    def recover(self) -> bool:
        """Roll back what a leader that was interrupted left open; whether it was committed."""
        connection = self.connection
        if connection is not None and connection.in_transaction:
            self._committing = False
            self._end(connection)
        return self._committing

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

    def _commit(self, connection: sqlite3.Connection, batch: Batch) -> None:
        # Once for the whole batch and at the last moment. Each caller for itself, before it queues,
        # would have to give up the interpreter for it: with 32 threads a tenth of what they stored.
        if self._fail_if_replaced(batch):
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
            self._fail_all(batch, error, committing=True)
            self._end(connection)
        else:
            self._checkpointer.count(len(batch.calls), batch.size, connection.total_changes)
            self._warn_if_long("a commit", began)

    def _fail_if_replaced(self, batch: Batch) -> bool:
        """Have all calls run again on the file that is there now, if it is another one."""
        if self._is_there():
            return False
        for call in batch.calls:
            call.error = FileReplacedError()
        return True

    def _checkpoint(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Empty the log in a transaction that writes nothing: the next one starts it anew."""
        self._begin(connection, deadline)
        began = time.monotonic()
        try:
            self._checkpointer.run(self._path())
        finally:
            roll_back(connection)
        self._warn_if_long("a checkpoint", began)

    def _warn_if_long(self, what: str, began: float) -> None:
        seconds = time.monotonic() - began
        if seconds >= LONG:
            log(LOGGER, WARNING, "%s: %s took %.1f s; check the disk", self._path(), what, seconds)

    def _fail_all(self, batch: Batch, cause: Exception, *, committing: bool = False) -> None:
        text = "%s: a transaction failed, and with it all of its writes (%d): %s"
        log(LOGGER, ERROR, text, self._path(), len(batch.calls), cause)
        # Its traceback holds the batch, and so what all the others wanted to store.
        cause.__traceback__ = None
        batch.fail_all(lambda: failure(cause, self._path(), committing=committing))

    def _end(self, connection: sqlite3.Connection) -> None:
        """Roll back; a connection that cannot even do that is given up."""
        roll_back(connection)
        if connection.in_transaction:
            self.connection = None  # First: nothing can be asked of one that was closed.
            connection.close()

    # --- Life -----------------------------------------------------------------------------------

    def adopt(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Write on a connection that was opened for something else, if there is none yet."""
        try:
            # A lock that cannot be had is told at once, and waited for by `_begin`.
            connection.execute("PRAGMA busy_timeout = 0")
            self._checkpointer.find_log(log_bytes(self._path()))
            if is_mine(self.queue.leading):
                self._keep(connection)
            else:
                keep = partial(self._keep, connection)
                locked(self.queue.leading, keep, self._path(), deadline)
        except BaseException:
            if connection is not self.connection:
                connection.close()
            raise

    def _keep(self, connection: sqlite3.Connection) -> None:
        if self.connection is None:
            self.connection = connection
        else:
            connection.close()

    def _open(self, deadline: float) -> sqlite3.Connection:
        self.adopt(patiently(self._connect, deadline, self._path), deadline)
        return cast("sqlite3.Connection", self.connection)

    def close(self) -> None:
        """Close the connections; the next write opens new ones."""
        with self.queue.leading:
            # While the transaction of a leader that was struck can still say what became of it.
            self.queue.recover()
            self._checkpointer.close()
            connection, self.connection = self.connection, None
            if connection is not None:
                connection.close()

    def reset(self) -> None:
        """Have no connection and no caller, with locks that nobody holds."""
        self.connection = None
        self._crowded_until = 0.0
        self.queue.reset()

    def abandon(self) -> None:
        """Forget the connections without closing them, and every caller: this is a forked child."""
        forget(self.connection)
        self._checkpointer.abandon()
        self.reset()
