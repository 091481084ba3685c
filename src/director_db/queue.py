"""Group commit: callers who share transactions. One leads, the others follow. Knows no database.

A commit is dear, so callers who come while one is under way share the next. A caller queues its
call. Whoever finds nobody leading becomes the leader, has what is queued run in one transaction,
and wakes the others, each through a lock of its own. Nobody waits for a batch to fill: a caller
alone leads its own call at once.

A backend writes a `Transaction`, which runs one batch of calls, and gives it to a `Queue`.

A signal's handler, and whatever else raises in the middle of a thread, may strike between any two
instructions of a leader. So what it has begun stands in its `Batch`, and the transaction itself
says what has become of it. The leader settles the batch before it goes down; where it cannot,
because it is struck once more, the next one does. Nobody depends on being woken either: who sleeps
looks for itself from time to time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from director_db.call import Call
from director_db.errors import BackendUnavailableError, DirectorDBError
from director_db.locks import in_use_by_this_thread, is_mine, new_lock, stayed_locked
from director_db.logs import WARNING, log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")

MAX_BATCH_CALLS: Final = 64
"""The most calls in one transaction."""

MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
"""The payloads after which a transaction takes no more calls, in bytes."""

# Between two looks of a sleeper that nobody woke, in seconds; see above. Longer where more wait
# than a batch takes: 1,000 threads that looked so often stored half as much.
_LONGEST_SLEEP: Final = 0.1
_LONGEST_OF_A_CROWD: Final = 0.5

# What an operation itself can raise, beside its driver's exceptions.
_OF_OPERATIONS: Final = (DirectorDBError, ArithmeticError, MemoryError, TypeError, ValueError)


class Batch:
    """The calls that share one transaction, taken from the queue one by one.

    Attributes:
        calls: those that were taken so far.
        size: about how much they write, in bytes of payloads.
    """

    __slots__ = ("_alone", "_own", "_queue", "calls", "size")

    def __init__(self, queue: Queue, own: Call, *, alone: bool) -> None:
        """Take none yet.

        Args:
            queue: where they wait.
            own: the leader's own call, which waits there.
            alone: whether to take no other.
        """
        self.calls: list[Call] = []
        self._queue = queue
        self._own = own
        self._alone = alone
        self.size = 0

    def take_first(self) -> Call:
        """Take the call that has waited longest. There always is one."""
        call = None if self._alone else self._queue.take()
        if call is None:
            call = self._own
            self._queue.waiting.remove(call)
        self.calls.append(call)
        self.size = call.size
        return call

    def take(self) -> Call | None:
        """Take the next call; None if no other waits, or the batch is full."""
        queue = self._queue
        if not queue.waiting or self._alone:
            return None  # First, as it is most often so.
        if self.size >= queue.max_bytes or len(self.calls) >= queue.max_calls:
            return None
        call = queue.take()
        if call is not None:
            self.calls.append(call)
            self.size += call.size
        return call

    def fail(self, call: Call, error: Exception) -> None:
        """Give a call the exception with which its operation ended.

        Raises:
            Exception: `error` itself, if no operation raises such a thing: somebody has thrown it
                into the thread that leads, a time-out for one, and it is nothing to a follower.
        """
        if call is not self._own and not isinstance(error, self._queue.errors):
            raise error
        call.error = error

    def fail_all(self, error: Callable[[], BaseException]) -> int:
        """Give each call that has not failed alone an error of its own; return how many."""
        failed = [call for call in self.calls if call.error is None and not call.settled]
        for call in failed:
            call.error = error()
        return len(failed)


class Transaction(Protocol):
    """What a backend writes: it runs one batch at a time, in the thread that leads."""

    def run(self, batch: Batch, deadline: float) -> None:
        """Run calls in one transaction, and commit it.

        Begin, which may wait for the locks of others: callers that come meanwhile are in. Then take
        calls from the batch, set `Call.result` of each or let `Batch.fail` set its error, and
        commit. A call that fails must not take the others with it; where it does, and where the
        commit fails, each gets an error of its own.

        What is raised goes to the leader, whose call it need not have been; the queue then asks
        `recover`, and fails the calls of the batch.

        Args:
            batch: what to take calls from.
            deadline: until when to wait for others, by the monotonic clock.
        """

    def recover(self) -> bool:
        """End what is left of a transaction whose leader was interrupted.

        Asked again if this is interrupted too, so it has to give the same answer.

        Returns:
            Whether it was committed.
        """


class Queue:
    """Runs the calls of many threads in as few transactions as they come in.

    First come, first served. A signal strikes the main thread and no other, so the main thread
    leads for its own call alone: its handlers never raise into what other threads wait for.

    Attributes:
        leading: the lock of the leader. Who changes what a transaction works with, its connection
            for one, holds it.
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
    ) -> None:
        """Take what runs transactions.

        Args:
            transaction: runs one batch at a time.
            place: of the database, for people.
            logger: the name of the logger below ``director_db``.
            errors: what operations raise of their driver's.
        """
        self._transaction = transaction
        self._place = place
        self._logger = logger
        self.errors: tuple[type[Exception], ...] = (*errors, *_OF_OPERATIONS)
        self.max_calls = MAX_BATCH_CALLS
        self.max_bytes = MAX_BATCH_BYTES
        self.reset()

    def reset(self) -> None:
        """Forget every caller, with a lock that nobody owns: after a fork, or gevent's patches."""
        self.leading = new_lock()
        self.waiting: deque[Call] = deque()
        self._batch: Batch | None = None
        self.main_thread = threading.main_thread().ident

    def run(
        self,
        operation: Callable[..., T],
        size: int,
        deadline: float,
        gives_up: Callable[[], bool] | None = None,
    ) -> T:
        """Run an operation in a transaction, in this thread or another one.

        It is stored on return, or has not happened.

        Args:
            operation: what to run.
            size: about how much it writes, in bytes of payloads.
            deadline: until when to wait for others, by the monotonic clock.
            gives_up: asked twice a second and more while it waits: whether to do so before that.

        Raises:
            BackendUnavailableError: it could not begin in time, or who ran it was interrupted.
        """
        call = Call(operation, size)
        self._settle_calls([call], deadline, gives_up, for_itself=True)
        result: T = call.outcome()
        return result

    def run_each(
        self,
        operations: Iterable[tuple[Callable[..., Any], int]],
        deadline: float,
        gives_up: Callable[[], bool] | None = None,
    ) -> list[Call]:
        """Run operations of several callers, all of whom this thread stands for, each as by `run`.

        Returns:
            For each, which comes with its size, its call: its result, or the error of it alone.
        """
        calls = [Call(*each) for each in operations]
        self._settle_calls(calls, deadline, gives_up, for_itself=False)
        return calls

    def _settle_calls(
        self,
        calls: list[Call],
        deadline: float,
        gives_up: Callable[[], bool] | None,
        *,
        for_itself: bool,
    ) -> None:
        if is_mine(self.leading):
            raise in_use_by_this_thread(self._place())
        try:
            for call in calls:
                self.waiting.append(call)
            for call in calls:
                try:
                    woken = True
                    while not call.settled:
                        self._try_to_lead(call, deadline, in_turn=woken)
                        if not call.settled:
                            woken = self._sleep(call, deadline, gives_up)
                except Exception as error:  # noqa: BLE001 - it is raised by `run`
                    self._abandon((call,))
                    # What comes after the commit does not concern callers this thread acts for.
                    if for_itself or not call.settled or call.error is not None:
                        call.error = error
        except BaseException:
            self._abandon(calls)
            raise

    def _abandon(self, calls: Sequence[Call]) -> None:
        """Withdraw calls that have not begun; the others end with their transaction."""
        # Marked first: what strikes in the middle of `_withdraw` leaves them in the queue.
        for call in calls:
            call.abandoned = True
        for call in calls:
            self._withdraw(call)
        self._wake_next()

    def is_led(self) -> bool:
        """Whether another thread leads."""
        try:
            led = not self.leading.acquire(blocking=False)
        finally:
            try:  # noqa: SIM105 - as in `_try_to_lead`
                self.leading.release()
            except RuntimeError:
                pass
        if not led:
            self._wake_next()  # It may have looked in just that moment, and fallen asleep.
        return led

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

    def _sleep(
        self, call: Call, deadline: float, gives_up: Callable[[], bool] | None = None
    ) -> bool:
        """Wait for somebody to wake this thread; False if nobody did."""
        wake = call.wake
        if wake is None:
            # Not before it is needed: a caller alone never sleeps.
            wake = threading.Lock()
            wake.acquire()
            call.wake = wake
            return True  # Whoever left before could not wake us: look again.
        left = deadline - time.monotonic()
        if left > 0 and (gives_up is None or not gives_up()):
            longest = _LONGEST_SLEEP * max(1.0, len(self.waiting) / self.max_calls)
            return wake.acquire(timeout=min(left, longest, _LONGEST_OF_A_CROWD))
        if self._withdraw(call):
            place = self._place()
            if left <= 0:
                log(self._logger, WARNING, "%s: gave up waiting for other threads' writes", place)
            raise stayed_locked(place)
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
        try:
            led = self.leading.acquire(blocking=False)
            if led:
                if self._batch is not None:
                    self.recover()
                if call in self.waiting:
                    self._batch = batch = Batch(self, call, alone=alone)
                    try:
                        self._transaction.run(batch, deadline)
                        self._settle(batch)
                    except BaseException:
                        self.recover()
                        raise
                elif not call.settled:
                    # A leader was struck after it took this call and before it noted it.
                    call.error = self._interrupted()
                    call.settled = True
        except BaseException:
            call.abandoned = True  # Before another thread leads, which would store it.
            raise
        finally:
            try:  # noqa: SIM105 - see `locks.Lock`; to call suppress() would be the very gap
                self.leading.release()
            except RuntimeError:
                pass
        if led and self.waiting:
            # Who queues after this look finds nobody leading.
            self._wake_next()

    def _settle(self, batch: Batch) -> None:
        for call in batch.calls:
            if not call.settled:
                call.settled = True
                if call.wake is not None:
                    call.awaken()
        self._batch = None

    def recover(self) -> None:
        """Settle what an interrupted leader left; whoever calls this holds `leading`."""
        batch = self._batch
        if batch is None:
            return
        failed = 0 if self._transaction.recover() else batch.fail_all(self._interrupted)
        self._settle(batch)
        if failed:
            text = "%s: a thread that was storing writes (%d) was interrupted"
            log(self._logger, WARNING, text, self._place(), failed)

    def _interrupted(self) -> BackendUnavailableError:
        message = f"{self._place()}: the thread that was storing this was interrupted. Try again."
        return BackendUnavailableError(message, retryable=True)
