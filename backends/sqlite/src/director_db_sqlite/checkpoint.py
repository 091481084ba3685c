"""Moving the log into the file, before it grows long."""

from __future__ import annotations

import random
import sqlite3
import time
from typing import TYPE_CHECKING, Final

from director_db import logs
from director_db_sqlite.connections import MAX_IDLE_LOG_BYTES, forget
from director_db_sqlite.errors import WAIT, primary_code
from director_db_sqlite.locks import LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKPOINT_BYTES: Final = 8 * 1024 * 1024
"""About how much this process writes to the log between checkpoints, in bytes."""

# What a small write costs in the log besides its payload: some pages of tables and indexes. An
# insert took 19 KB, an update 13 KB, and less in a batch with others.
_BYTES_PER_CALL: Final = 4 * 4096

# The same for each row of a call that deletes or changes many, and does not say their size.
_BYTES_PER_CHANGE: Final = 1536

# How long the readers of a long log are waited for, in seconds, first and at most; see `run`.
_FIRST_WAIT_FOR_READERS: Final = 0.05
_LONGEST_WAIT_FOR_READERS: Final = 0.25


class Checkpointer:
    """Knows how much was written, and moves it on a connection of its own.

    Up to SQLite 3.51.2 a checkpoint beside a commit of another connection can lose that commit. The
    modes of `wal_checkpoint` that take the write lock themselves are no way out: where they do not
    get it they go on without it, and where an old reader is in the way they hold it and wait. So
    this one is passive, moves what it can at once, and runs while the writer of this process holds
    the write lock in a transaction that writes nothing: only what begins after it starts the log
    anew. With 4 processes of 16 threads each, 1,240 checkpoints in a minute took 20 ms at most, and
    no call waited longer than 96 ms for whatever it was.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """Take what opens a connection that writes."""
        self._connect = connect
        self.connection: sqlite3.Connection | None = None
        # Processes that start together would otherwise all come to it at the same time, after each
        # has filled the log by its whole share.
        self._unchecked = random.randrange(CHECKPOINT_BYTES // 2)  # noqa: S311 - no secret
        self._counted_changes = 0

    def count(self, calls: int, payload_bytes: int, total_changes: int) -> None:
        """Add what a transaction has written.

        Args:
            calls: how many were committed together.
            payload_bytes: about how much they wrote, as far as `add` was not told.
            total_changes: the rows that the connection has ever changed, with those that were
                deleted because they belong to another: `sqlite3.Connection.total_changes`.
        """
        changes = total_changes - self._counted_changes
        if changes < 0:
            changes = total_changes  # It is another connection.
        self._counted_changes = total_changes
        written = payload_bytes + calls * _BYTES_PER_CALL
        self._unchecked += max(written, changes * _BYTES_PER_CHANGE)

    def add(self, size: int) -> None:
        """Add what a call has written, in bytes, which nobody knew before it ran."""
        self._unchecked += size

    def find_log(self, length: int) -> None:
        """Take into account how long the log is that others have left, in bytes.

        Processes that each write little would otherwise never come to a checkpoint.
        """
        if length > MAX_IDLE_LOG_BYTES:
            self._unchecked = CHECKPOINT_BYTES

    @property
    def due(self) -> bool:
        """Whether enough was written since the last checkpoint."""
        return self._unchecked >= CHECKPOINT_BYTES

    def run(self, place: str) -> None:
        """Move what can be moved; the caller's connection holds the write lock.

        What fails is logged; `place` is the file, for people.

        The log starts anew with a write that finds all of it moved and no reader in it. Where reads
        overlap all the time that hardly ever happens by itself. So while nobody can write, wait
        first for those who read an older state, which can then be moved, and then for those who
        read what was moved: who comes after that reads the file itself.
        """
        self._unchecked = CHECKPOINT_BYTES // 2
        try:
            if self.connection is None:
                self.connection = self._connect()
            moved, times_too_long = self._move(self.connection)
            if times_too_long > 1:
                wait = min(_FIRST_WAIT_FOR_READERS * times_too_long**2, _LONGEST_WAIT_FOR_READERS)
                time.sleep(wait)
                if not moved:
                    moved, _ = self._move(self.connection)
                    time.sleep(wait)
        except sqlite3.Error as error:
            # What is in the log is safe there, and the next checkpoint tries again.
            if primary_code(error) not in WAIT:
                text = "%s: the log could not be moved into the file, and grows: %s"
                logs.log(LOGGER, logs.WARNING, text, place, error)
            return
        if moved:
            self._unchecked = 0

    def _move(self, connection: sqlite3.Connection) -> tuple[bool, float]:
        """Return whether all was moved, and the log's length as a multiple of the longest idle."""
        checkpoint = connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        _busy, pages, moved = checkpoint.fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        # Both are -1 where another process is at it.
        return 0 <= pages == moved, pages * page_bytes / MAX_IDLE_LOG_BYTES

    def close(self) -> None:
        """Close the connection; a later checkpoint opens a new one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def abandon(self) -> None:
        """Forget the connection without closing it."""
        forget(self.connection)
        self.connection = None
