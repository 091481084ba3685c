"""Group commit on the wire: writes of many callers in one transaction and one round trip.

Who shares one, and who sends it, is the queue's to say: see `director_db.queue`. What is sent
together is no more than the first try of each of its writes. Where it fails, for whatever reason,
nothing is stored, or nobody knows; then each caller goes on by itself, as if it had been alone, and
meets its own error.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import psycopg

from director_db.errors import BackendUnavailableError
from director_db.logs import INFO, WARNING, tell
from director_db.queue import Queue
from director_db_postgres.call import Call
from director_db_postgres.driver_log import LOGGER
from director_db_postgres.errors import LOCKED, reason, sqlstate
from director_db_postgres.sql import SET_LOCK_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director_db.batch import Batch
    from director_db.batch import Call as Queued
    from director_db_postgres.connections import Connection
    from director_db_postgres.pipeline import Answer, Step
    from director_db_postgres.settings import Settings

T = TypeVar("T")

MAX_WRITE_BYTES: Final = 256 * 1024
"""What is larger goes by itself, in bytes: others would wait until it is on the server."""

LOCK_WAIT_TOGETHER: Final = 0.1
"""The longest that writes which share a transaction wait for a lock, in seconds.

Longer than the transactions of other processes take; somebody who forgot one holds up nobody else.
"""

LEADERS: Final = 2
"""How many batches are under way while none is held up: the server works on one of them while the
other is put together. With one, 8 threads stored less than each for itself; with three, 32 did."""

# How long a caller that was struck waits for what was sent for it, in seconds.
_STRUCK_PATIENCE: Final = 2.0
_POLL: Final = 0.002


class Write(Generic[T]):
    """One caller's write that may share a transaction, and may be applied twice without harm.

    Attributes:
        call: its time, and what is known of it.
        steps: returns its statements; asked when the server's encoding is known.
        told: returns what their answers say; none came where the session was deleted meanwhile.
        result: what it returned, if it is done.
        is_sent: whether it may have been sent with others.
        is_done: whether it is stored.
        is_over: whether nothing of it is under way any more.
    """

    __slots__ = ("call", "is_done", "is_over", "is_sent", "result", "steps", "told")

    def __init__(
        self,
        call: Call,
        steps: Callable[[], Sequence[Step]],
        told: Callable[[Sequence[Answer]], T],
    ) -> None:
        """Take a write that has not begun."""
        self.call = call
        self.steps = steps
        self.told = told
        self.result: T | None = None
        self.is_sent = self.is_done = self.is_over = False

    def __call__(self, connection: Connection) -> T:
        """Write it in a transaction of its own."""
        steps = self.steps()
        try:
            if len(steps) == 1:
                return self.told([connection.run_waiting(*steps[0])])
            return self.told(connection.run_together(*steps))
        except psycopg.errors.ForeignKeyViolation:
            # Something in the database, such as a trigger, deleted the session in our own
            # transaction.
            return self.told(())

    def wait_until_over(self) -> None:
        """Let what was sent for a caller that was struck end, before it goes on and writes more."""
        limit = time.monotonic() + _STRUCK_PATIENCE
        while self.is_sent and not self.is_over and time.monotonic() < limit:
            time.sleep(_POLL)


class Group:
    """Runs the first tries of writes, those that wait for one together.

    Attributes:
        queue: where they wait.
        locked: sessions that were found locked, by a call that waits for them; their writes go by
            themselves as long as it does.
    """

    def __init__(
        self,
        settings: Settings,
        attempt: Callable[[Callable[[Connection], Any], Call], Any],
        lock_wait: float,
    ) -> None:
        """Take what tries an operation once, a method of who has this.

        Args:
            settings: of the instance.
            attempt: tries an operation for a call.
            lock_wait: the longest that a statement waits for a lock, in seconds.
        """
        self._settings = settings
        self._attempt = weakref.WeakMethod(attempt)
        self._lock_timeout = str(math.ceil(1000 * min(LOCK_WAIT_TOGETHER, lock_wait)))
        # The others are for reads.
        at_once = max(1, settings.pool_size // 2)
        place = settings.place
        self.queue = Queue(
            self, lambda: place, LOGGER, (psycopg.Error,), at_once=at_once, leaders=LEADERS
        )
        self.reset()

    def reset(self) -> None:
        """Forget every caller, with locks that nobody owns."""
        # Weak: whatever strikes a call, it is no longer here than it lives.
        self.locked: weakref.WeakValueDictionary[str, Call] = weakref.WeakValueDictionary()
        self._is_crowded = False
        self.queue.reset()

    def takes(self, session_id: str, size: int) -> bool:
        """Whether a write may share a transaction.

        Not the main thread's, as only there a signal's handler raises: what it strikes is cancelled
        on the server, and nobody else's.
        """
        return (
            threading.get_ident() != self.queue.main_thread
            and size <= MAX_WRITE_BYTES
            and session_id not in self.locked
        )

    def try_together(self, write: Write[Any], size: int) -> None:
        """Make the first try of a write, with those of others; `Write.is_done` if that worked.

        Raises:
            BackendUnavailableError: the server did not answer in the time of the call.
        """
        call = write.call
        try:
            self.queue.run(write, size, call.deadline)
        except BackendUnavailableError:
            # It did not begin in time, or who sent it was struck.
            call.in_doubt |= write.is_sent
        except BaseException:
            write.wait_until_over()
            raise
        late = write.is_sent and not write.is_done and call.failure is None
        if late and time.monotonic() >= call.end:
            raise call.no_answer()

    # --- A transaction --------------------------------------------------------------------------

    def run(self, batch: Batch, deadline: float) -> None:
        """Send the writes of a batch, and note what has become of each."""
        attempt_once = self._attempt()
        assert attempt_once is not None  # noqa: S101 - a call of its holder's is under way
        # Not the leader's own call, which another leader may have taken.
        attempt = Call(self._settings, _write_of(batch.own).call.session_id)
        attempt.deadline = deadline
        writes: list[Write[Any]] = []
        try:
            results = attempt_once(lambda one: self._send(one, batch, attempt, writes), attempt)
        except self.queue.errors as error:
            self._part(batch, attempt, error)
        else:
            for write, result in zip(writes, results, strict=True):
                write.result = result
                write.is_done = True
        finally:
            for queued in batch.calls:
                _write_of(queued).is_over = True

    def recover(self) -> bool:
        """Whether it was committed: nobody knows of one whose leader was struck."""
        return False

    def _send(
        self, connection: Connection, batch: Batch, attempt: Call, writes: list[Write[Any]]
    ) -> Sequence[Any]:
        """Write what waits by now; return the results, in the order of `writes`."""
        if self._is_crowded:
            # Those who were woken by the latest batch run until they queue, and no longer.
            time.sleep(0)
        # Several sessions may be on several shards, whose commit takes two phases.
        while batch.take() is not None and not connection.is_sharded:
            pass
        # First, then look who was struck, which does it the other way round: one sees the other.
        for queued in batch.calls:
            _write_of(queued).is_sent = True
        writes += [_write_of(queued) for queued in batch.calls if not queued.abandoned]
        self._is_crowded = len(writes) > 1
        if len(writes) == 1:
            (write,) = writes
            attempt.session_id = write.call.session_id
            connection.expect_answers(attempt.patience, write.call.end)
            return (write(connection),)
        if not writes:
            return ()  # Another leader was faster.
        attempt.is_shared = True
        # In one order, so that no two transactions wait for each other. Those of one session keep
        # theirs, as the sort is stable.
        writes.sort(key=_session)
        connection.expect_answers(attempt.patience, min(write.call.end for write in writes))
        steps = [write.steps() for write in writes]
        _, *answers = connection.run_together(
            (SET_LOCK_TIMEOUT, (self._lock_timeout,)), *(step for each in steps for step in each)
        )
        left = iter(answers)
        return [
            write.told(list(islice(left, len(each))))
            for write, each in zip(writes, steps, strict=True)
        ]

    def _part(self, batch: Batch, attempt: Call, error: Exception) -> None:
        """Let each caller go on by itself."""
        while batch.take() is not None:
            pass  # No connection could be made for these, either.
        writes = list(map(_write_of, batch.calls))
        of_driver = error if isinstance(error, psycopg.Error) else None
        in_doubt = attempt.in_doubt or of_driver is None
        met_lock = len(writes) > 1 and of_driver is not None and sqlstate(of_driver) == LOCKED
        for write in writes:
            call = write.call
            call.in_doubt |= write.is_sent and in_doubt
            if met_lock:
                self.locked[call.session_id or ""] = call
            elif len(writes) == 1 and of_driver is not None:
                # It is its own, and so it goes on as after any first try.
                call.failure, call.is_late = of_driver, attempt.is_late
                call.holder = attempt.holder
        if len(writes) > 1:
            text = "%s: %s; the writes that were sent together (%d) go on one by one"
            said = type(error).__name__ if of_driver is None else reason(of_driver)
            level = INFO if met_lock else WARNING
            tell(LOGGER, level, text, self._settings.place, said, len(writes))


def _write_of(queued: Queued) -> Write[Any]:
    return cast("Write[Any]", queued.operation)


def _session(write: Write[Any]) -> str:
    return write.call.session_id or ""
