"""Calls that coroutines await: each runs in a thread, and its event loop hears when it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from director_db import lifecycle
from director_db.checks import message_bytes
from director_db.job import Job, error_of_its_own, nothing
from director_db.queue import MAX_BATCH_CALLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db.base import BaseDB
    from director_db.executor import Executor
    from director_db.rows import MessageRow

CARRIED_OUT: Final = "The call had begun, and was carried out."
"""A note of the `CancelledError` of a call that took effect; one that never began has none."""

R = TypeVar("R")
T = TypeVar("T")

# After so many characters a batch takes no more messages, so that its first ones wait for few.
_MOST_CHARACTERS: Final = 256 * 1024


class Callbacks:
    """Functions that threads have an event loop call, which is woken once for all of them.

    To wake it takes a call of the system, which gives the interpreter's lock away; calls that share
    a commit end together. A hundred coroutines on SQLite took a sixth less time for each call.

    A signal's handler may raise anywhere in the loop's thread. What is pending then waits for the
    next run, and each call runs them as it begins and as it is cancelled.

    Attributes:
        pending: those that have not been called yet.
    """

    __slots__ = ("_loop", "_waking", "pending")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.pending: deque[Callable[[], None]] = deque()
        self._waking = False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Callbacks:
        """Return those of a loop. The loop has them, so that both go together."""
        try:
            own = vars(loop)
        except TypeError:  # One without room for them is woken each time.
            return cls(loop)
        callbacks: Callbacks = own.get(_CALLBACKS) or own.setdefault(_CALLBACKS, cls(loop))
        return callbacks

    def add(self, callback: Callable[[], None]) -> None:
        """Have a function called on the loop, more than once if that is interrupted."""
        self.pending.append(callback)
        self.wake()

    def wake(self) -> None:
        """Have the loop call what is pending."""
        if self._waking:
            return  # It has not begun yet.
        try:
            self._waking = True
            self._loop.call_soon_threadsafe(self.run)
        except RuntimeError:
            self._waking = False
            if self._loop.is_closed():
                self.pending.clear()  # Nobody waits any more.
        except BaseException:
            self._waking = False
            raise

    def run(self) -> None:
        """Call what is pending; on the loop."""
        self._waking = False  # First: what comes from here on wakes it again.
        pending = self.pending
        try:
            while pending:
                callback = pending[0]
                callback()
                # A collection of garbage in it may close a coroutine, which runs all of them.
                if pending and pending[0] is callback:
                    pending.popleft()
        finally:
            if pending and not self._loop.is_closed():
                self._loop.call_soon(self.run)


_CALLBACKS: Final = "_director_db_callbacks"


class Message(Job):
    """A call that stores a message, alone or together with others.

    Attributes:
        db: where.
        check: returns its session's id and its row.
        callbacks: those of its loop.
        end: the one that says there that it has ended.
    """

    __slots__ = ("callbacks", "check", "db", "end")

    def __init__(
        self,
        call: Callable[[], Any],
        db: BaseDB,
        check: Callable[[], tuple[str, MessageRow]],
        callbacks: Callbacks,
        end: Callable[[], None],
        session: str | None,
    ) -> None:
        super().__init__(call, partial(callbacks.add, end), session=session)
        self.db = db
        self.check = check
        self.callbacks = callbacks
        self.end = end

    def forget(self) -> None:
        """Let go of what the call is given, which may be large: it never begins."""
        super().forget()
        self.check, self.end = _never, nothing


def _never() -> tuple[str, MessageRow]:
    raise AssertionError


async def outcome(
    executor: Executor[Message],
    call: Callable[[], R],
    *,
    session: str | None = None,
    apart: bool = False,
    message: tuple[BaseDB, Callable[[], tuple[str, MessageRow]]] | None = None,
) -> R:
    """Run a call in a thread, and return or raise what it does.

    A `session` is the one whose lock it may wait for. With a `message`, where it goes and what
    checks it, it may be stored together with others.

    A cancelled call that has not begun never begins. One that has begun ends, and only then is
    CancelledError raised: its cause is the error of the call, or None if the call has succeeded.
    """
    if not lifecycle.mark[0]:
        lifecycle.outlive_untold_fork()
    loop = asyncio.get_running_loop()
    callbacks = Callbacks.of(loop)
    if callbacks.pending:
        callbacks.run()
    waiter = loop.create_future()
    ended = False

    def end() -> None:
        nonlocal ended
        ended = True
        # Another may have ended it in between: a collection of garbage runs anything.
        with contextlib.suppress(asyncio.InvalidStateError):
            if not waiter.done():
                waiter.set_result(None)

    def begin(function: Callable[[], T]) -> T:
        if loop.is_closed():
            reason = "The event loop was closed before the call began."
            raise RuntimeError(reason)
        return function()

    job: Job
    if message is not None:
        db, check = message
        job = Message(partial(begin, call), db, partial(begin, check), callbacks, end, session)
        executor.submit_together(job)
    else:
        job = Job(partial(begin, call), partial(callbacks.add, end), session=session)
        (executor.run_apart if apart else executor.submit)(job)
    try:
        await waiter
    except asyncio.CancelledError as cancelled:
        callbacks.run()
        if executor.withdraw(job):
            raise
        while not ended:
            waiter = loop.create_future()
            # It is cancelled already; one more changes nothing.
            with contextlib.suppress(asyncio.CancelledError):
                await waiter
        error, job.error = job.error, None
        if error is None and job.has_begun:
            cancelled.add_note(CARRIED_OUT)
        raise cancelled from error
    except BaseException:
        executor.withdraw(job)  # The coroutine is closed: its loop has gone.
        raise
    result: R = job.outcome()
    return result


def store_together(executor: Executor[Message]) -> None:
    """Store in this thread the messages of calls that wait, and tell their loops.

    What is not stored goes on in a thread of its own, and meets its error there.
    """
    job = executor.take_gathered()
    if job is None:
        return  # Without another look: one that comes only now would be taken, and run by nobody.
    following = executor.take_gathered()
    jobs = deque((job,) if following is None else (job, following))
    try:
        if following is None:
            executor.run_as_its_own(job)
            return
        messages = _checked(executor, jobs)
        executor.send_for_gathered()  # Who waits still need not wait for these.
        if jobs:
            _store(executor, jobs, messages)
    except BaseException as error:  # noqa: BLE001 - no memory, for one; nobody may wait for ever
        for job in jobs:
            job.error = error_of_its_own(error)
            job.done()


def _checked(executor: Executor[Message], jobs: deque[Message]) -> list[tuple[str, MessageRow]]:
    """Check messages, and take more until they are enough; those that fail leave `jobs`."""
    messages: list[tuple[str, MessageRow]] = []
    size = 0
    while len(messages) < len(jobs):
        job = jobs[len(messages)]
        try:
            message = job.context.run(job.check)
            size += message_bytes(message[1])
        except BaseException:  # noqa: BLE001 - it meets it again
            executor.give_back(job)
            jobs.remove(job)
        else:
            messages.append(message)
        if len(messages) == len(jobs) < MAX_BATCH_CALLS and size < _MOST_CHARACTERS:
            more = executor.take_gathered()
            if more is not None:
                jobs.append(more)
    return messages


def _store(
    executor: Executor[Message], jobs: deque[Message], messages: list[tuple[str, MessageRow]]
) -> None:
    """Store messages, and answer each; those that have their answer leave `jobs`."""
    answers: list[bool | Callable[[], bool]]
    try:
        answers = jobs[0].db._store_together(messages)  # noqa: SLF001 - one concept
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "maybe_applied", False):
            raise
        answers = [job.call for job in jobs]  # It is closed, for one, and each meets that.
    to_wake = set()
    try:
        for answer in answers:
            job = jobs[0]
            if answer is True:
                job.result = True
                to_wake.add(job.callbacks)
                job.callbacks.pending.append(job.end)
            elif answer is False:
                executor.give_back(job)
            else:
                job.call = answer
                executor.submit(job)
            jobs.popleft()
    finally:
        # Only now: a loop that is woken takes the interpreter's lock, and its next calls would come
        # in two parts.
        with contextlib.ExitStack() as stack:  # All, whatever one of them raises.
            for callbacks in to_wake:
                stack.callback(callbacks.wake)
