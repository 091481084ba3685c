"""Callers who share transactions: one leads, the others follow. Knows no database.

A commit is dear, so callers who come while one is under way share the next. A caller queues its
call. Whoever finds nobody leading becomes the leader, has what is queued run in one transaction,
and wakes the others, each through a lock of its own. Nobody waits for a batch to fill: a caller
alone leads its own call at once.

A backend writes a `Transaction`, which runs one batch of calls, and gives it to a `Queue`. Where
its database takes several writers, the next may lead while a leader is held up.

A signal's handler, and whatever else raises in the middle of a thread, may strike between any two
instructions of a leader. So what it has begun stands in its `Batch`, and the transaction itself
says what has become of it. The leader settles the batch before it goes down; where it cannot,
because it is struck once more, the next one does. Nobody depends on being woken either: who sleeps
looks for itself from time to time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

from director_db.batch import Batch, Call
from director_db.errors import BackendUnavailableError, DirectorDBError
from director_db.locks import in_use_by_this_thread, new_lock
from director_db.logs import WARNING, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db.batch import Transaction

T = TypeVar("T")

MAX_BATCH_CALLS: Final = 64
"""The most calls in one transaction."""

MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
"""The payloads after which a transaction takes no more calls, in bytes."""

# Between two looks of a sleeper that nobody woke, in seconds; see above.
_LONGEST_SLEEP: Final = 0.1

# How long a leader may take before the next caller leads beside it, in seconds.
_LONG: Final = 0.05

# What an operation itself can raise, beside its driver's exceptions.
_OF_OPERATIONS: Final = (DirectorDBError, ArithmeticError, MemoryError, TypeError, ValueError)


class _Lane:
    """A place for one leader.

    Attributes:
        leading: the lock of the leader.
        batch: what it has begun and not settled.
        since: when it began, on the monotonic clock.
    """

    __slots__ = ("batch", "leading", "since")

    def __init__(self) -> None:
        self.leading = new_lock()
        self.batch: Batch | None = None
        self.since = 0.0


class Queue:
    """Runs the calls of many threads in as few transactions as they come in.

    First come, first served. A signal strikes the main thread and no other, so the main thread
    leads for its own call alone: its handlers never raise into what other threads wait for.

    Attributes:
        leading: the lock of the leader, where there is but one at once. Who changes what a
            transaction works with, its connection for one, holds it.
        waiting: the calls that have not begun.
        max_calls: the most calls in one transaction.
        max_bytes: the payloads after which a transaction takes no more calls, in bytes.
        errors: what an operation itself can raise; see `Batch.fail`.
        main_thread: the main thread's number.
    """

    def __init__(
        self,
        transaction: Transaction,
        place: Callable[[], str],
        logger: str,
        errors: tuple[type[Exception], ...] = (),
        *,
        at_once: int = 1,
        leaders: int = 1,
    ) -> None:
        """Take what runs transactions.

        Args:
            transaction: runs one batch at a time.
            place: of the database, for people.
            logger: the name of the logger below ``director_db``.
            errors: what operations raise of their driver's.
            at_once: the most transactions at once.
            leaders: how many of them while none takes long: a batch is the larger, the fewer run.
        """
        self._transaction = transaction
        self._place = place
        self._logger = logger
        self.errors: tuple[type[Exception], ...] = (*errors, *_OF_OPERATIONS)
        self.max_calls = MAX_BATCH_CALLS
        self.max_bytes = MAX_BATCH_BYTES
        self._at_once = at_once
        self._leaders = leaders
        self.reset()

    def reset(self) -> None:
        """Forget every caller, with a lock that nobody owns: after a fork, or gevent's patches."""
        self._lanes = [_Lane() for _ in range(self._at_once)]
        self.leading = self._lanes[0].leading
        self.waiting: deque[Call] = deque()
        self.main_thread = threading.main_thread().ident

    def run(self, operation: Callable[..., T], size: int, deadline: float) -> T:
        """Run an operation in a transaction, in this thread or another one.

        It is stored on return, or has not happened.

        Args:
            operation: what to run.
            size: about how much it writes, in bytes of payloads.
            deadline: until when to wait for others, by the monotonic clock.

        Raises:
            BackendUnavailableError: it could not begin in time, or who ran it was interrupted.
        """
        for lane in self._lanes:
            if lane.leading._is_owned():  # noqa: SLF001 - what threading.Condition asks, too
                raise in_use_by_this_thread(self._place())
        call = Call(operation, size)
        try:
            self.waiting.append(call)
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
        error = call.error
        if error is None:
            result: T = call.result
            return result
        try:
            raise error
        finally:
            del error, call  # A cycle: the error's traceback holds this frame.

    # --- Waiting --------------------------------------------------------------------------------

    def take(self) -> Call | None:
        """Take the first call that somebody waits for from the queue; only a leader may."""
        try:
            while (first := self.waiting.popleft()).abandoned:
                pass
        except IndexError:
            return None
        return first

    def _first(self) -> Call | None:
        """Return the first call that somebody waits for."""
        try:
            while (first := self.waiting[0]).abandoned:
                self._withdraw(first)
        except IndexError:
            return None
        return first

    def _withdraw(self, call: Call) -> bool:
        try:
            self.waiting.remove(call)
        except ValueError:
            return False
        return True

    def _wake_next(self) -> None:
        first = self._first()
        if first is not None:
            first.awaken()

    def _sleep(self, call: Call, deadline: float) -> bool:
        """Wait for somebody to wake this thread; False if nobody did."""
        wake = call.wake
        if wake is None:
            # Not before it is needed: a caller alone never sleeps.
            wake = threading.Lock()
            wake.acquire()
            call.wake = wake
            return True  # Whoever left before could not wake us: look again.
        left = deadline - time.monotonic()
        if left > 0:
            return wake.acquire(timeout=min(left, _LONGEST_SLEEP))
        if self._withdraw(call):
            place = self._place()
            tell(self._logger, WARNING, "%s: gave up waiting for other threads' writes", place)
            message = f"{place} stayed locked by other threads of this process. Try again."
            raise BackendUnavailableError(message, retryable=True)
        # It has begun, and a commit waits for none.
        return wake.acquire(timeout=_LONGEST_SLEEP)

    # --- Leading --------------------------------------------------------------------------------

    def _try_to_lead(self, call: Call, deadline: float, *, in_turn: bool = True) -> None:
        """Run a batch if nobody else does; `call` may be in it, or further behind.

        The main thread only `in_turn`, as it would let nobody else lead if it wrote all the time:
        others who come first take everybody along. Out of turn where nobody has woken it for a
        whole sleep: a leader was struck with this call in its hand, or the first in the queue is
        the very call that this one interrupts.
        """
        alone = threading.get_ident() == self.main_thread
        if alone and in_turn and self._first() is not call:
            return
        led = False
        lane = self._lanes[0]
        try:
            quick = 0
            for lane in self._lanes:
                led = lane.leading.acquire(blocking=False)
                if led:
                    break
                if time.monotonic() - lane.since < _LONG:
                    quick += 1
                    if quick == self._leaders:
                        break
            if led:
                if lane.batch is not None:
                    self.recover()
                if call in self.waiting:
                    lane.since = time.monotonic()
                    lane.batch = batch = Batch(self, call, alone=alone)
                    try:
                        self._transaction.run(batch, deadline)
                        self._settle(batch)
                        lane.batch = None
                    except BaseException:
                        self.recover()
                        raise
                elif not call.settled and self._is_lost(call):
                    # A leader was struck after it took this call and before it noted it.
                    call.error = self._interrupted()
                    call.settled = True
        finally:
            # Without asking whether we own it; see `locks.Lock`.
            try:  # noqa: SIM105 - to call suppress() would be the very gap
                lane.leading.release()
            except RuntimeError:
                pass
        if led and self.waiting:
            # Who queues after this look finds nobody leading.
            self._wake_next()

    def _is_lost(self, call: Call) -> bool:
        """Whether no leader has a call that has left the queue: who had it was struck.

        Whoever has it in hand leads since before this was asked. So each place is seen to be free
        once, and what its leader left there is settled.
        """
        for lane in self._lanes:
            try:
                if not lane.leading.acquire(blocking=False):
                    return False
                self.recover()
            finally:
                with contextlib.suppress(RuntimeError):  # As in `_try_to_lead`.
                    lane.leading.release()
        return not call.settled

    def _settle(self, batch: Batch) -> None:
        for call in batch.calls:
            if not call.settled:
                call.settled = True
                if call.wake is not None:
                    call.awaken()

    def recover(self) -> None:
        """Settle what an interrupted leader left; whoever calls this holds its lock."""
        for lane in self._lanes:
            batch = lane.batch
            if batch is None or not lane.leading._is_owned():  # noqa: SLF001 - as above
                continue
            failed = 0 if self._transaction.recover() else batch.fail_all(self._interrupted)
            self._settle(batch)
            lane.batch = None
            if failed:
                text = "%s: a thread that was storing writes (%d) was interrupted; they failed"
                tell(self._logger, WARNING, text, self._place(), failed)

    def _interrupted(self) -> BackendUnavailableError:
        message = f"{self._place()}: the thread that was storing this was interrupted. Try again."
        return BackendUnavailableError(message, retryable=True)
