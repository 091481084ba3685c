"""What a queue's leader works on: the calls of a batch, and the transaction that runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import threading
    from collections import deque
    from collections.abc import Callable


class Call:
    """One caller's operation, and what became of it.

    Attributes:
        operation: what to run; what it is given is the transaction's to say.
        size: about how much it writes, in bytes of payloads.
        result: what it returned.
        error: what it raised, or why it came to nothing; None if it is stored.
        settled: whether `result` or `error` is final.
        abandoned: whether nobody waits for it: it must not begin any more.
        wake: what its caller sleeps on; None until it does.
    """

    __slots__ = ("abandoned", "error", "operation", "result", "settled", "size", "wake")

    def __init__(self, operation: Callable[..., Any], size: int) -> None:
        """Take an operation that has not begun."""
        self.operation = operation
        self.size = size
        self.result: Any = None
        self.error: BaseException | None = None
        self.settled = False
        self.abandoned = False
        self.wake: threading.Lock | None = None

    def awaken(self) -> None:
        """Let its caller look what has happened."""
        wake = self.wake
        if wake is not None:
            try:  # noqa: SIM105 - for each call of a batch, and suppress() takes longer
                wake.release()
            except RuntimeError:
                pass  # It is awake.


class _Queue(Protocol):
    """What a batch asks of the queue that it takes calls from; see `director_db.queue.Queue`."""

    waiting: deque[Call]
    max_calls: int
    max_bytes: int
    errors: tuple[type[Exception], ...]

    def take(self) -> Call | None: ...


class Batch:
    """The calls that share one transaction, taken from the queue one by one.

    Attributes:
        calls: those that were taken so far.
        own: the leader's own call, which may be among them, or further behind.
        size: about how much they write, in bytes of payloads.
    """

    __slots__ = ("_alone", "_queue", "calls", "own", "size")

    def __init__(self, queue: _Queue, own: Call, *, alone: bool) -> None:
        """Take none yet.

        Args:
            queue: where they wait.
            own: the leader's own call, which waits there.
            alone: whether to take no other.
        """
        self.calls: list[Call] = []
        self._queue = queue
        self.own = own
        self._alone = alone
        self.size = 0

    def take_first(self) -> Call:
        """Take the call that has waited longest. There always is one, if one leads at once."""
        call = None if self._alone else self._queue.take()
        if call is None:
            call = self.own
            self._queue.waiting.remove(call)
        self.calls.append(call)
        self.size = call.size
        return call

    def take(self) -> Call | None:
        """Take the next call; None if no other waits, or the batch is full.

        Where several lead at once, the first one is taken so, too: others may have taken all.
        """
        queue = self._queue
        if not queue.waiting:
            return None  # First, as it is most often so.
        if self._alone:
            try:
                return None if self.calls else self.take_first()
            except ValueError:
                return None
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
        if call is not self.own and not isinstance(error, self._queue.errors):
            raise error
        call.error = error

    def fail_all(self, error: Callable[[], BaseException]) -> int:
        """Give each call that has not failed alone an error of its own; return how many."""
        failed = [call for call in self.calls if call.error is None and not call.settled]
        for call in failed:
            call.error = error()
        return len(failed)


class Transaction(Protocol):
    """What a backend writes: it runs one batch, in the thread that leads.

    Where a queue runs several at once, it is told of none but by its argument.
    """

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
