"""Closing and forking while other threads are at work (LIF-1, LIF-5).

Every operation passes its instance's `Gate`. Whoever closes the instance, or forks the process,
first waits until the operations in flight have left: a connection is then never closed under a
running statement, and no lock inside a driver is copied into a child while somebody holds it.

A signal's handler may raise between any two lines of Python, also inside the ``__enter__`` of a
Condition or a Semaphore, which are written in Python, and what was taken there would never be given
back. So nothing here waits under a lock, and to leave is one call into C.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Protocol, cast

from director_db import logs
from director_db.errors import BackendUnavailableError, ClosedError
from director_db.locks import new_lock

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence, Sequence

    from director_db.locks import Lock

FORK_PATIENCE: Final = 10.0
"""How long a fork waits for operations in flight, in seconds, before it happens all the same.

And before that for a backend that is being imported; see `director_db.loading`."""

_POLL: Final = 0.001


class Gate:
    """Knows the operations in flight of one instance, and lets nobody in once it is closed."""

    def __init__(self, owner: str, *, closed: bool = False) -> None:
        """Make an open gate; `owner` is the name that a `ClosedError` shows."""
        self._owner = owner
        # By a token of each operation's own, as a signal's handler may start a second one in the
        # middle of its thread's first. To leave is ``inside.pop(token, None)``.
        self.inside: dict[object, int] = {}
        self.closed = closed
        self._pause: Sequence[object] = ()
        # gevent replaces it, and with it what a lock takes for a thread; see `outlive_patches`.
        self.get_ident = threading.get_ident

    def renewed(self) -> Gate:
        """Return a new gate for the same instance, with nobody inside."""
        return Gate(self._owner, closed=self.closed)

    def enter(self, token: object) -> None:
        """Let an operation in, after a pause.

        Raises:
            ClosedError: the gate is closed.
        """
        while True:
            # In first, then look: who closes does it the other way round, so one sees the other.
            self.inside[token] = threading.get_ident()
            if not self.closed and not self._pause:
                return
            self.inside.pop(token, None)
            if self.closed:
                message = f"This {self._owner} is closed."
                raise ClosedError(message)
            time.sleep(_POLL)

    def pause(self, timeout: float, until_empty: Sequence[object] = (True,)) -> bool:
        """Hold newcomers back and wait for those inside; False if some stayed that long.

        They are held back until `resume`, or until somebody has emptied `until_empty`.
        """
        self._pause = until_empty
        return self.wait_until_empty(timeout)

    def resume(self) -> None:
        """Let those in that `pause` held back."""
        self._pause = ()

    def wait_until_empty(self, timeout: float | None) -> bool:
        """Wait for those inside, `timeout` seconds or for ever; False if some stayed.

        An operation of the calling thread itself is not waited for: it would never end.
        """
        me = threading.get_ident()
        deadline = None if timeout is None else time.monotonic() + timeout
        while any(thread != me for thread in list(self.inside.values())):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        return True


class Patchable(Protocol):
    """What keeps working when gevent replaces the standard library's threads and locks."""

    _gate: Gate
    _closing: Lock

    def _renew_locks(self) -> None: ...


def outlive_patches(instance: Patchable) -> None:
    """Renew the locks of an instance if gevent has replaced threads and locks since they were made.

    An older lock belongs to a thread, so all greenlets of that thread would own it together. With
    ``gunicorn --preload -k gevent``, the application is imported before gevent replaces anything.

    Raises:
        BackendUnavailableError: an operation from before the patches did not end.
    """
    old = instance._gate  # noqa: SLF001 - the protocol above
    if old.get_ident is threading.get_ident:
        return
    try:
        if not old.pause(FORK_PATIENCE):
            message = (
                "gevent replaced the threads of Python while an operation was under way. Call "
                "gevent.monkey.patch_all() first of all, before the application is imported."
            )
            raise BackendUnavailableError(message)
        if instance._gate is old:  # noqa: SLF001 - no greenlet was faster
            gate = old.renewed()
            gate.pause(0)
            instance._gate = gate  # noqa: SLF001
            try:
                instance._closing = new_lock()  # noqa: SLF001
                instance._renew_locks()  # noqa: SLF001
            finally:
                gate.resume()
    finally:
        old.resume()


class ForkAware(Protocol):
    """What survives a fork of its process."""

    def _before_fork(self, deadline: float) -> None: ...

    def _after_fork_in_parent(self) -> None: ...

    def _after_fork_in_child(self) -> None: ...


_instances: weakref.WeakSet[ForkAware] = weakref.WeakSet()
_paused: list[ForkAware] = []

forks: Final[list[int]] = []
"""The threads that fork this process, or are about to; the first does, and the others wait.

Two at once would take each other's pauses for their own. It is no lock: a signal's handler may
strike whoever holds one, and the last line of a fork is the system's to call.
"""

_in_child: list[Callable[[], object]] = []

# Linux empties a page that is marked so in a child, whoever forked.
_WIPE_ON_FORK: Final = 18


def _mark() -> tuple[MutableSequence[int], bool]:
    """Return what begins with 1, and whether it begins with 0 in a child of any fork."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_WIPE_ON_FORK)
        page[0] = 1
        return cast("MutableSequence[int]", page), True
    return [1], False


mark, _tells = _mark()
"""Begins with 0 in a child of which nobody has told Python; see `outlive_untold_fork`."""

# Re-entrant, as a signal's handler may make a call in the middle.
_untold = threading.RLock()


def outlive_untold_fork() -> None:
    """Do in a child what its fork has not done: that of a library in C, as uWSGI's.

    The operations in flight were not waited for, and no file was closed before it. Elsewhere it
    does nothing; what is called often looks at `mark` first.
    """
    with _untold:
        if not mark[0]:
            for function in _in_child:
                function()
            _after_fork_in_child()


def call_in_child(function: Callable[[], object]) -> None:
    """Have a function called in each child, also in one of which nobody tells Python."""
    _in_child.append(function)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def survive_forks(instance: ForkAware) -> None:
    """Tell `instance` of every fork of this process, for as long as it lives."""
    _instances.add(instance)


def _all_instances() -> list[ForkAware]:
    while True:
        try:
            return list(_instances)
        except RuntimeError:  # Another thread has just added one.
            continue


def _wait_for_other_forks() -> None:
    """Be the first of `forks`; longer than it takes, nobody waits for another thread's."""
    me, limit = threading.get_ident(), time.monotonic() + 3 * FORK_PATIENCE
    while forks[:1] != [me] and time.monotonic() < limit:
        if me in forks:
            time.sleep(_POLL)
        else:  # At the end of another's fork it is emptied.
            forks.append(me)


def _before_fork() -> None:
    outlive_untold_fork()
    _wait_for_other_forks()
    deadline = time.monotonic() + FORK_PATIENCE
    for instance in _all_instances():
        _paused.append(instance)
        try:
            instance._before_fork(deadline)  # noqa: SLF001 - the protocol above
        except Exception as error:  # noqa: BLE001 - see _log_failure
            _log_failure(instance, error)


def _after_fork_in_parent() -> None:
    while _paused:
        instance = _paused.pop()
        try:
            instance._after_fork_in_parent()  # noqa: SLF001
        except Exception as error:  # noqa: BLE001
            _log_failure(instance, error)


def _after_fork_in_child() -> None:
    if _tells and mark[0]:
        return  # A call that came before this hook has done it.
    forks.clear()
    _paused.clear()
    for instance in _all_instances():
        if _tells and mark[0]:
            return  # The same, of a signal's handler.
        try:
            instance._after_fork_in_child()  # noqa: SLF001
        except Exception as error:  # noqa: BLE001
            _log_failure(instance, error)
    mark[0] = 1


def _log_failure(instance: ForkAware, error: Exception) -> None:
    """Log what went wrong with one instance; the others are to be prepared all the same."""
    text = "%r did not survive a fork unharmed"
    logs.log(getattr(instance, "db_type", ""), logs.ERROR, text, instance, cause=error)


if hasattr(os, "register_at_fork"):
    # First, and no line of Python: a signal's handler can strike the others before they begin.
    os.register_at_fork(after_in_parent=forks.clear)
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
