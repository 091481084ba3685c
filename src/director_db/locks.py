"""A lock of threads that outlives a signal's handler."""

from __future__ import annotations

import threading
from typing import Protocol, cast

from director_db.errors import BackendUnavailableError


class Lock(Protocol):
    """A lock that knows which thread owns it: `threading.RLock`.

    One that was interrupted between taking it and knowing that it did can give it back, and one
    that does not own it cannot. So a ``finally`` releases it without asking, and drops the
    RuntimeError that says that it was not its own: an exception between the question and the answer
    would leave it locked for good.
    """

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...  # noqa: D102, FBT001, FBT002

    def release(self) -> None: ...  # noqa: D102

    def __enter__(self) -> bool: ...

    def __exit__(self, *_exception: object) -> None: ...

    def _is_owned(self) -> bool: ...


def new_lock() -> Lock:
    """Make a lock that nobody owns."""
    return cast("Lock", threading.RLock())


def is_mine(lock: Lock) -> bool:
    """Whether this thread owns a lock: it is in the middle of something, and a handler asks."""
    return lock._is_owned()  # noqa: SLF001 - what threading.Condition asks, too


def in_use_by_this_thread(place: str) -> BackendUnavailableError:
    """Return the error of a call that a signal's handler makes in the middle of another one."""
    message = f"{place} is in use by this very thread, which was interrupted. Try again later."
    return BackendUnavailableError(message, retryable=True)


def stayed_locked(place: str) -> BackendUnavailableError:
    """Return the error of a call whose time went by while other threads held the lock."""
    message = f"{place} stayed locked by other threads of this process. Try again."
    return BackendUnavailableError(message, retryable=True)
