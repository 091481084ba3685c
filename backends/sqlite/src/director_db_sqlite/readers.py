"""The connections that read: each call has one for itself, and none ever waits for a writer."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, Final, TypeVar

from director_db.errors import BackendUnavailableError
from director_db.locks import new_lock
from director_db_sqlite.connections import forget
from director_db_sqlite.locks import long_wait, patiently

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from director_db.locks import Lock
    from director_db.logs import LongWait
    from director_db_sqlite.connections import Operation

T = TypeVar("T")

MAX_READERS: Final = 2
"""So many long reads at once, and so many short ones beside them; more threads take turns.

SQLite's driver gives the interpreter's lock away for each row, and gets it back from whoever runs
Python code meanwhile. Two use both sides of that; with 32 a page of 1,000 messages took three times
the processor time on two cores, most of it to switch between threads.
"""

FEW: Final = 100
"""A read of no more rows than these is a short one: it waits for no long one."""

_LOOK: Final = 0.05  # Seconds after which who waits for one turn looks at the others again.


class Readers:
    """Connections that read, kept for the next call."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: Callable[[], str]) -> None:
        """Take what opens a connection that only reads, and what says which file that is."""
        self._connect = connect
        self._path = path
        self._waits = count()
        self.renew()
        self.idle: list[sqlite3.Connection] = []

    def read(self, operation: Operation[T], deadline: float, most: int | None = None) -> T:
        """Run an operation that only reads, on one snapshot for each statement.

        Args:
            operation: what to run.
            deadline: until when to wait for others, by the monotonic clock.
            most: it reads no more rows; None if nobody knows.

        Raises:
            BackendUnavailableError: too many others read until the deadline.
        """
        turns = self._turns if most is None or most > FEW else self._short_turns
        turn, wait = turns[0], None
        try:
            while True:
                for turn in turns:
                    if turn.acquire(blocking=False):
                        break
                else:
                    wait = self._look(wait, deadline)
                    turn = turns[next(self._waits) % len(turns)]
                    if not turn.acquire(timeout=_LOOK):
                        continue
                break
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
            # As in `locked`. A signal's handler may read in the middle of another read: then one
            # more may read beside it for a moment, and none fewer ever after.
            try:  # noqa: SIM105
                turn.release()
            except RuntimeError:
                pass

    def _look(self, wait: LongWait | None, deadline: float) -> LongWait:
        if wait is None:
            wait = long_wait(self._path, "for other reads of this process")
        wait.look()
        if time.monotonic() >= deadline:
            wait.give_up()
            message = f"{self._path()}: other reads of this process did not end in time. Try again."
            raise BackendUnavailableError(message, retryable=True)
        return wait

    def renew(self) -> None:
        """Make new turns, of the kind of lock that there is now."""
        self._turns, self._short_turns = _new_turns(), _new_turns()

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
        self.renew()
        self.idle = []


def _new_turns() -> list[Lock]:
    return [new_lock() for _ in range(MAX_READERS)]
