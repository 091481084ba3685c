"""What this process remembers of the contexts that it saved, within bounds.

Nothing depends on it. Each entry holds the version that it describes, and the database refuses a
change of any other version. So an entry may be lost or out of date at any time.

An entry is taken out while it is used. So nobody else sees it change, and the order of the dict is
the order of use: what was used last is put back last.
"""

from __future__ import annotations

import sys
import threading
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeVar

from director_db import lifecycle
from director_db.locks import is_mine

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from director_db.context.items import ListItems

T = TypeVar("T")

_BYTES_PER_ITEM: Final = 32 + 4  # its digest and its length

MAX_SESSIONS: Final = 1_000
"""The most contexts that are remembered, over all instances of the process."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""The most memory that they take, in bytes."""


class RememberedContext:
    """What is known of a stored context: enough to tell what another value changes in it.

    Whoever took it out of the memory may change it.
    """

    __slots__ = ("digests", "list_key", "rest_digest", "sizes", "version")

    def __init__(
        self, version: int, list_key: str, rest: str, digests: bytearray, sizes: array[int]
    ) -> None:
        """Take the token of the version, and what `Parts` and `ListItems` call so."""
        self.version = version
        self.list_key = list_key
        self.rest_digest = sha256(rest.encode()).digest()
        self.digests = digests
        self.sizes = sizes

    @property
    def cost(self) -> int:
        """How much memory it takes, in bytes; the overhead of its objects is estimated."""
        # A key may be megabytes long, and a character of it takes up to four bytes.
        return 512 + sys.getsizeof(self.list_key) + len(self.sizes) * _BYTES_PER_ITEM

    def has_rest(self, rest: str) -> bool:
        """Whether this text stands beside the list."""
        return self.rest_digest == sha256(rest.encode()).digest()

    def extend(self, version: int, items: ListItems) -> None:
        """Follow an append that made `version` of this one."""
        # In place, as a copy of all digests would make a long list's appends dearer.
        self.digests += items.digests
        self.sizes.extend(items.sizes)
        self.version = version


class ContextMemory:
    """Contexts by their owner, a token of the instance that saved them, and their session."""

    def __init__(self, max_sessions: int = MAX_SESSIONS, max_bytes: int = MAX_BYTES) -> None:
        """Remember nothing yet."""
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything, whoever is in the middle of something: after a fork."""
        # Its owner shows whether a signal's handler runs in the middle of a call of this thread.
        self._lock: Any = threading.RLock()
        self._entries: dict[tuple[object, str], tuple[int, RememberedContext]] = {}
        # Never too low: a signal's handler that raises comes after adding or before subtracting.
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, owner: object, session_id: str) -> RememberedContext | None:
        """Take out what is remembered of a context, None if nothing is."""
        return self._locked(lambda: self._take((owner, session_id)))

    def put(self, owner: object, session_id: str, context: RememberedContext) -> None:
        """Remember a context; those unused for longest make room."""
        self._locked(lambda: self._put((owner, session_id), context))

    def forget(self, owner: object) -> None:
        """Forget all contexts of an owner."""

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
        if is_mine(self._lock):
            return None  # A signal's handler came in the middle; it can do without.
        lock = self._lock
        try:
            lock.acquire()
            return run()
        finally:
            # Without asking first whether we own it: a signal's handler that raises between the
            # question and the answer would leave it locked for good.
            try:  # noqa: SIM105 - to call suppress() would be the very gap
                lock.release()
            except RuntimeError:
                pass


memory: Final = ContextMemory()

# Another thread may have held the lock, and a child that saves soon remembers its own.
lifecycle.call_in_child(memory.clear)
