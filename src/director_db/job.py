"""One coroutine's call on its way to a thread and back; see `director_db.executor`."""

from __future__ import annotations

import contextvars
from math import inf
from typing import TYPE_CHECKING, Any, Final

from director_db.call import Outcome
from director_db.errors import BackendUnavailableError

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Hashable


def nothing() -> None:
    """Do nothing."""


class Job(Outcome):
    """A call, and what became of it.

    Attributes:
        call: what to run.
        context: where: without one, a copy of the caller's.
        session: whose lock it may wait for; None if nobody's.
        has_begun: whether a thread has taken it.
        done: called in the thread that ran it, when it has ended.
        until: when it ends, if it has not begun, by the monotonic clock.
        result: what it returned.
        error: what it raised; None if it returned.
    """

    __slots__ = (
        "_unwanted",
        "call",
        "context",
        "done",
        "has_begun",
        "session",
        "until",
    )

    def __init__(
        self,
        call: Callable[[], Any],
        done: Callable[[], object],
        context: contextvars.Context | None = None,
        session: Hashable = None,
    ) -> None:
        """Take a call that has not begun."""
        self.call = call
        self.session = session
        self.context = contextvars.copy_context() if context is None else context
        self.done = done
        self.has_begun = False
        self.until = inf
        self._unwanted = False
        self.result = None
        self.error = None

    @property
    def is_withdrawn(self) -> bool:
        """Whether it is never to begin."""
        return self._unwanted and not self.has_begun

    def withdraw(self) -> bool:
        """Let it never begin; False if it has begun. Under the lock of who lets it begin."""
        self._unwanted = True
        if self.is_withdrawn:
            self.forget()
        return self.is_withdrawn

    def forget(self) -> None:
        """Let go of what the call was given, and of its caller's context: it never begins."""
        self.call = self.done = nothing
        self.context = contextvars.Context()

    def run(self) -> None:
        """Run it; nothing is raised."""
        try:
            self.result = self.context.run(self.call)
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            self.error = error
        self.done()


def is_waited_for(waiting: deque[Job]) -> bool:
    """Whether there is a job to begin; those before it that never will are dropped."""
    while waiting and waiting[0].is_withdrawn:
        waiting.popleft()
    return bool(waiting)


def take_late(waiting: deque[Job], now: float) -> Job | None:
    """Take the first job that has waited for too long; one that never has may be before it."""
    for place, job in zip(range(2), waiting, strict=False):
        if job.until <= now:
            del waiting[place]
            return job
    return None


NO_THREAD: Final = (RuntimeError, MemoryError)
"""What a system raises that starts none."""


def no_turn() -> BackendUnavailableError:
    """Return the error of a call that was held back for too long."""
    message = "Too many calls wait for the lock of this session, or for any. Try again later."
    return BackendUnavailableError(message, retryable=True)


def no_thread(cause: BaseException) -> BackendUnavailableError:
    """Return the error of a call for which the system starts no thread."""
    message = f"The system starts no thread for this call: {cause!r}. Try again later."
    error = BackendUnavailableError(message, retryable=True)
    error.__cause__ = cause
    return error


def error_of_its_own(error: BaseException) -> BaseException:
    """Return an error for one of several callers, as threads that raise the same one mix it up.

    It has the same cause, and no traceback, which would hold what the others have stored.
    """
    try:
        own = type(error).__new__(type(error), *error.args)
    except Exception:  # noqa: BLE001 - its class may refuse
        return error
    own.args = (
        error.args
    )  # Those of an OSError's subclass are set by its __init__, which is not called.
    vars(own).update(vars(error))
    if hasattr(error, "__notes__"):
        own.__notes__ = [*error.__notes__]
    own.__cause__ = error.__cause__
    return own
