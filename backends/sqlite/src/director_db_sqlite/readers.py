"""The connections that read: each call has one for itself, and none ever waits for a writer."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final, TypeVar

from director_db.errors import BackendUnavailableError
from director_db.locks import new_lock
from director_db_sqlite.connections import forget
from director_db_sqlite.locks import acquire, patiently

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from director_db.locks import Lock
    from director_db_sqlite.connections import Operation

T = TypeVar("T")

MAX_READERS: Final = 2
"""So many read at once; more threads take turns.

SQLite's driver gives the interpreter's lock away for each row, and gets it back from whoever runs
Python code meanwhile. Two use both sides of that; with 32 a long page takes ten times the processor
time, most of it to switch between threads.
"""


class Readers:
    """Connections that read, kept for the next call."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: Callable[[], str]) -> None:
        """Take what opens a connection that only reads, and what says which file that is."""
        self._connect = connect
        self._path = path
        self._turns = _new_turns()
        self._waits = count()
        self.idle: list[sqlite3.Connection] = []

    def read(self, operation: Operation[T], deadline: float) -> T:
        """Run an operation that only reads, on one snapshot for each statement.

        Raises:
            BackendUnavailableError: too many others read until the deadline.
        """
        turns = self._turns
        turn = turns[0]
        try:
            for turn in turns:
                if turn.acquire(blocking=False):
                    break
            else:
                turn = turns[next(self._waits) % len(turns)]
                self._wait_for(turn, deadline)
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
            # As in `locked`; but a signal's handler may read in the middle of another read.
            try:  # noqa: SIM105
                turn.release()
            except RuntimeError:
                pass

    def _wait_for(self, turn: Lock, deadline: float) -> None:
        path = self._path()
        if not acquire(turn, path, deadline):
            message = f"{path}: other reads of this process did not end in time. Try again."
            raise BackendUnavailableError(message, retryable=True)

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
        self._turns, self.idle = _new_turns(), []


def _new_turns() -> list[Lock]:
    return [new_lock() for _ in range(MAX_READERS)]
