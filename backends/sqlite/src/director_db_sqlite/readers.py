"""The connections that read: each call has one for itself, and none ever waits for a writer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

from director_db.errors import BackendUnavailableError
from director_db_sqlite.connections import forget
from director_db_sqlite.locks import long_wait, patiently

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from director_db_sqlite.connections import Operation

T = TypeVar("T")

MAX_READERS: Final = 32
"""The most connections that read at once; more threads take turns. Each has two open files."""

_PAUSE_FOR_A_TURN: Final = 0.0005


class Readers:
    """Connections that read, kept for the next call."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: Callable[[], str]) -> None:
        """Take what opens a connection that only reads, and what says which file that is."""
        self._connect = connect
        self._path = path
        self._reading: dict[object, None] = {}
        self.idle: list[sqlite3.Connection] = []

    def read(self, operation: Operation[T], deadline: float) -> T:
        """Run an operation that only reads, on one snapshot for each statement.

        Raises:
            BackendUnavailableError: too many others read until the deadline.
        """
        token = object()
        try:
            self._take_a_turn(token, deadline)
            idle = self.idle
            try:
                connection = idle.pop()
            except IndexError:
                connection = patiently(self._connect, deadline, self._path)
            try:
                result = patiently(lambda: operation(connection), deadline, self._path)
            except BaseException:
                # It may be in the middle of a statement, which would keep an old snapshot alive.
                connection.close()
                raise
            if idle is self.idle:
                idle.append(connection)
            else:
                connection.close()  # The file was replaced meanwhile.
            return result
        finally:
            self._reading.pop(token, None)

    def _take_a_turn(self, token: object, deadline: float) -> None:
        # No semaphore: a signal's handler that raises inside one takes a turn away for good.
        wait = None
        while True:
            self._reading[token] = None
            if len(self._reading) <= MAX_READERS:
                return
            self._reading.pop(token, None)
            if wait is None:
                wait = long_wait(self._path, f"for {MAX_READERS} other reads of this process")
            wait.look()
            if time.monotonic() >= deadline:
                wait.give_up()
                message = (
                    f"{self._path()}: {MAX_READERS} other reads of this process did not end in "
                    "time. Try again."
                )
                raise BackendUnavailableError(message, retryable=True)
            time.sleep(_PAUSE_FOR_A_TURN)

    def close(self) -> None:
        """Close every connection that is not in use; the others close when their call ends."""
        # A new list: a connection that is in use then finds that its own is not wanted any more.
        idle, self.idle = self.idle, []
        for connection in idle:
            connection.close()

    def abandon(self) -> None:
        """Forget every connection without closing it."""
        for connection in self.idle:
            forget(connection)
        self._reading, self.idle = {}, []
