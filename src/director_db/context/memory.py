"""What this process remembers of the contexts that it saved, within bounds.

A memory only saves work. A version's token goes with all that is remembered, and the database
refuses a change of any other version, so it may be lost, old, or another thread's at any time.

An entry is taken out while it is used: nobody else then sees it change, and what is used last is
put back last, which makes the order of the dict the order of use.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db.context.parts import RememberedContext

T = TypeVar("T")

MAX_SESSIONS: Final = 1_000
"""The most contexts that are remembered, over all instances of the process."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""The most memory that they take, in bytes."""


class ContextMemory:
    """Contexts by their owner, a token of the instance that saved them, and their session."""

    def __init__(self, max_sessions: int = MAX_SESSIONS, max_bytes: int = MAX_BYTES) -> None:
        """Remember nothing yet."""
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything, whoever is in the middle of something: after a fork."""
        # Owned by a thread, so that a signal's handler that comes in the middle is told apart.
        self._lock: Any = threading.RLock()
        self._entries: dict[tuple[object, str], tuple[int, RememberedContext]] = {}
        # Never too low: what is interrupted by a signal's handler has added already, or has not
        # subtracted yet.
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, owner: object, session_id: str) -> RememberedContext | None:
        """Return what is remembered of a context, which is the caller's own from then on."""
        return self._locked(lambda: self._take((owner, session_id)))

    def put(self, owner: object, session_id: str, context: RememberedContext) -> None:
        """Remember a context; what was not used for longest makes room."""
        self._locked(lambda: self._put((owner, session_id), context))

    def forget(self, owner: object) -> None:
        """Remember nothing of an owner's contexts any more."""

        def forget() -> None:
            for key in [key for key in self._entries if key[0] is owner]:
                self._take(key)

        self._locked(forget)

    def _take(self, key: tuple[object, str]) -> RememberedContext | None:
        cost, context = self._entries.pop(key, (0, None))
        self._bytes -= cost
        return context

    def _put(self, key: tuple[object, str], context: RememberedContext) -> None:
        self._take(key)
        cost = context.cost
        if cost > self._max_bytes:
            return
        self._bytes += cost
        self._entries[key] = (cost, context)
        if self._bytes > self._max_bytes:
            self._bytes = sum(cost for cost, _ in self._entries.values())
        while len(self._entries) > self._max_sessions or self._bytes > self._max_bytes:
            self._take(next(iter(self._entries)))

    def _locked(self, run: Callable[[], T]) -> T | None:
        if self._lock._is_owned():  # noqa: SLF001 - what threading.Condition asks, too
            return None  # A signal's handler came in the middle; it can do without.
        lock = self._lock
        try:
            lock.acquire()
            return run()
        finally:
            # Without asking whether we own it: an exception of a signal's handler between the
            # question and the answer would leave it locked for good.
            try:  # noqa: SIM105 - to call suppress() would be the very gap
                lock.release()
            except RuntimeError:
                pass


memory: Final = ContextMemory()

if hasattr(os, "register_at_fork"):
    # Another thread may have been in the middle; and a child that saves soon remembers its own.
    os.register_at_fork(after_in_child=memory.clear)
