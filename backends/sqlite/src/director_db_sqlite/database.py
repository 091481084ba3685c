"""A database in a file: opening it, and who reads and writes it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from director_db.errors import BackendUnavailableError, ClosedError, ConfigurationError
from director_db.locks import new_lock
from director_db.logs import DEBUG, INFO, WARNING, log
from director_db_sqlite import old_layout, schema
from director_db_sqlite.connections import connect, connect_to_look, transact
from director_db_sqlite.errors import primary_code
from director_db_sqlite.file import (
    FileReplacedError,
    absolute,
    create_file,
    file_id,
    log_id,
    refuse_foreign_log,
    refuse_log_without_file,
)
from director_db_sqlite.locks import LOGGER, locked, patiently
from director_db_sqlite.log import refuse_log_of_another
from director_db_sqlite.readers import Readers
from director_db_sqlite.upgrades import SCHEMA_VERSION
from director_db_sqlite.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director_db.call import Call
    from director_db.records import Migration
    from director_db_sqlite.connections import Operation
    from director_db_sqlite.file import FileId

T = TypeVar("T")

# Before a file that was replaced is opened again, in seconds.
_PAUSE: Final = 0.002

# The files of which this process, a forked child, has inherited connections that were at work.
# SQLite takes their locks for its own here, so that nothing can be opened safely any more.
_lost_to_a_fork: set[FileId] = set()


class Database(Protocol):
    """Runs operations on the connections of one SQLite database."""

    def read(self, operation: Operation[T], most: int | None = None) -> T:
        """Run an operation that only reads, on one snapshot for each statement.

        Args:
            operation: what to run.
            most: it reads no more rows; None if nobody knows.
        """

    def write(self, operation: Operation[T], size: int) -> T:
        """Run an operation in a transaction; it is durable on return, or has not happened.

        Args:
            operation: what to run; once more if the file was replaced under it. Whatever it keeps
                outside of the transaction has to bear that.
            size: about how much it writes, in bytes of payloads.
        """

    def write_each(
        self, operations: Sequence[tuple[Operation[bool], int]]
    ) -> list[bool | Callable[[], bool]]:
        """Run operations of several callers, each as `write` does.

        Returns:
            For each True if that is its answer, and False if it was not run; else what answers or
            raises.
        """

    def count_written(self, size: int) -> None:
        """Tell, in an operation that writes, how many bytes it writes beyond what it had said."""

    def check(self) -> None:
        """Look at the tables again, and create them if they are gone with their file."""

    def migrate(self, *, skip_invalid: bool) -> Migration:
        """Carry the old system's tables over, where they are all that there is."""

    @property
    def path(self) -> str:
        """Where it is, for people."""

    def close(self, *, for_good: bool = False) -> None:
        """Close every connection; the next operation opens new ones, unless it is for good."""

    def abandon(self, *, in_flight: bool) -> None:
        """Forget every connection without closing it: this is a forked child."""

    def renew_locks(self) -> None:
        """Make every lock anew; no operation is in flight."""


class FileDatabase:
    """A database in a file.

    The file, its ``-wal`` and its ``-shm`` must never be opened by anything but SQLite in this
    process: closing a descriptor drops all POSIX locks that the process holds on the file.
    """

    def __init__(
        self,
        path: str,
        directory: str | None,
        patience: float,
        *,
        synchronous: str = "full",
        migrates: bool = False,
    ) -> None:
        """Take a path, the folder it is relative to, and the seconds to wait for locks.

        Without a folder, the path is relative to the working directory when it is first opened.
        With `migrates`, the first use carries the old system's tables over.
        """
        self._given = path
        self._directory = directory
        self._opened: str | None = None
        self._patience = patience
        self._synchronous = synchronous
        self._migrates = migrates
        self._closed = False
        self._readers = Readers(self._connect_to_read, self._where)
        self._writer = Writer(self._connect, self._where, self._is_there)
        self._reset()

    def _reset(self) -> None:
        self._opening = new_lock()
        self._file: FileId | None = None
        self._log: FileId | None = None
        # What is being opened.
        self._touched: FileId | None = None

    @property
    def path(self) -> str:
        """The absolute path: the one that was opened, or would be now."""
        return self._opened or absolute(self._given, self._directory)

    def _where(self) -> str:
        return self.path

    def _connect(self, *, writable: bool = True) -> sqlite3.Connection:
        connection = connect(
            self.path, self._patience, synchronous=self._synchronous, writable=writable
        )
        if self._closed:
            # By a signal's handler, in the middle of an operation that would open it again.
            connection.close()
            message = f"{self.path} was closed in the middle of this operation. Nothing was done."
            raise ClosedError(message)
        return connection

    def _connect_to_read(self) -> sqlite3.Connection:
        # Whoever opens another file than the one that was looked at may lay an old log over it.
        if not self._is_there():
            raise FileReplacedError
        return self._connect(writable=False)

    def read(self, operation: Operation[T], most: int | None = None) -> T:
        """Run an operation that only reads; it never waits for a writer."""
        deadline = time.monotonic() + self._patience
        while True:
            self._ensure_open(deadline)
            try:
                return self._readers.read(operation, deadline, most)
            except FileReplacedError:
                self._give_up_after(deadline)

    def write(self, operation: Operation[T], size: int) -> T:
        """Run an operation in a transaction, alone or together with those of other threads."""
        deadline = time.monotonic() + self._patience
        if self._file is None or self._writer.connection is None:
            self._ensure_open(deadline)
        run = partial(self._writer.queue.run, operation, size, deadline)
        return self._until_stored(run, run, deadline)

    def count_written(self, size: int) -> None:
        """See `Database`: the log is emptied in time."""
        self._writer.count_written(size)

    def write_each(
        self, operations: Sequence[tuple[Operation[bool], int]]
    ) -> list[bool | Callable[[], bool]]:
        """Run operations of several callers, each as `write` does."""
        if self._file is None or self._writer.connection is None:
            return [False] * len(operations)  # To open it may take long.
        deadline = time.monotonic() + self._patience
        queue = self._writer.queue
        calls = queue.run_each(operations, deadline)
        if self._is_there():
            self._note_log()
        else:
            # Whatever went wrong with it; asked now, as the first to go on opens another.
            for call in calls:
                if isinstance(call.error, sqlite3.Error):
                    call.error = FileReplacedError()

        def rest(call: Call, operation: Operation[bool], size: int) -> Callable[[], bool]:
            run = partial(queue.run, operation, size, deadline)
            return partial(self._until_stored, call.outcome, run, deadline)

        return [
            (call.error is None and bool(call.result)) or rest(call, *each)
            for call, each in zip(calls, operations, strict=True)
        ]

    def _until_stored(self, run: Callable[[], T], again: Callable[[], T], deadline: float) -> T:
        """Run a write, and repeat it while the file is replaced under it."""
        was_read_only = False
        while True:
            try:
                result = run()
                break
            except FileReplacedError:
                pass  # Nothing was done, also if another thread has opened the new one meanwhile.
            except sqlite3.Error as error:
                # Not whatever went wrong with a file that is not there any more.
                if self._is_there():
                    if was_read_only or primary_code(error) != sqlite3.SQLITE_READONLY:
                        raise
                    # What was read-only when it was opened stays so for this process until all of
                    # its connections are closed, those that read included; it may not be so any
                    # more.
                    was_read_only = True
                    self.close()
                    run = again
                    continue
            self._give_up_after(deadline)
            self._ensure_open(deadline)
            run = again
        self._note_log()
        return result

    def _give_up_after(self, deadline: float) -> None:
        if time.monotonic() >= deadline:
            message = f"{self.path} was replaced again and again. Try again."
            raise BackendUnavailableError(message, retryable=True)
        time.sleep(_PAUSE)

    def _note_log(self) -> None:
        """Remember whose log it is, once something is written."""
        if self._log is None:
            self._log = log_id(self.path)

    def _is_there(self) -> bool:
        """Whether the path still names the file that was opened."""
        return self._file is not None and self._file == file_id(self._opened or self.path)

    def migrate(self, *, skip_invalid: bool) -> Migration:
        """Carry the old system's tables over; a file that has ours already stays as it is."""
        deadline = time.monotonic() + self._patience
        return (
            self._ensure_open(deadline, migrating=True, skip_invalid=skip_invalid)
            or old_layout.no_migration()
        )

    def close(self, *, for_good: bool = False) -> None:
        """Close every connection; the last one in the world also empties the log."""
        self._closed = self._closed or for_good
        if self._file is not None:
            log(LOGGER, DEBUG, "%s: closing", self.path)
        self._readers.close()
        self._writer.close()
        # The last connection in the world has deleted it, and the next log is another one.
        if self._is_there() and log_id(self.path) != self._log:
            self._log = None
        if for_good:
            self._file = None  # Nothing of it is open: a child may use it.

    def renew_locks(self) -> None:
        """Make every lock anew; the next operation opens the file as the first one did."""
        self.close()
        self._readers.renew()
        self._writer.reset()
        self._reset()

    def abandon(self, *, in_flight: bool) -> None:
        """Forget every connection without closing it."""
        if in_flight:
            _lost_to_a_fork.update(each for each in (self._file, self._touched) if each is not None)
        self._readers.abandon()
        self._writer.abandon()
        self._reset()

    # --- Opening --------------------------------------------------------------------------------

    def _ensure_open(
        self, deadline: float, *, migrating: bool = False, skip_invalid: bool = False
    ) -> Migration | None:
        """See to it that the file is there and has our tables; cheap when it is known.

        A file that was deleted or replaced would take every later write with it when the process
        ends, so the path is looked at each time: here for a read, before its COMMIT for a write.

        Returns:
            What was migrated; None if nothing was.
        """
        if self._is_there():
            return None
        return locked(
            self._opening,
            lambda: self._open_noted(deadline, migrating=migrating, skip_invalid=skip_invalid),
            self.path,
            deadline,
        )

    def _open_noted(
        self, deadline: float, *, migrating: bool, skip_invalid: bool
    ) -> Migration | None:
        try:
            return self._open(deadline, migrating=migrating, skip_invalid=skip_invalid)
        finally:
            self._touched = None  # A fork is safe again.

    def _open(self, deadline: float, *, migrating: bool, skip_invalid: bool) -> Migration | None:
        self._opened = self.path
        current = file_id(self.path)
        if self._file is not None:
            if self._file == current:
                return None  # Another thread was faster.
            became = "is gone" if current is None else "was replaced by another file"
            log(LOGGER, WARNING, "%s %s; opening what is there now", self.path, became)
            self.close()
            if current is not None:
                refuse_foreign_log(self.path, self._log)
        elif self._writer.connection is not None or self._readers.idle:
            # Who opened it was struck, or could not look at the tables again: it may be another.
            self.close()
        self._file = self._log = None
        if current is None:
            refuse_log_without_file(self.path)
            create_file(self.path)
            self._touched = current = file_id(self.path)
        elif current in _lost_to_a_fork:
            message = (
                f"{self.path} cannot be used in this process: it was forked while an operation on "
                "that file was under way, or while it was open and Python was not told of the fork "
                "(uWSGI: set lazy-apps, or py-call-uwsgi-fork-hooks). Fork earlier, or start "
                "processes with spawn."
            )
            raise BackendUnavailableError(message)
        else:
            self._touched = current
            refuse_log_of_another(self.path)
            self._refuse_others_files(deadline, migrating=migrating or self._migrates)
        migration = self._create_or_check(
            deadline, migrating=migrating or self._migrates, skip_invalid=skip_invalid
        )
        # As it was before it was opened, which may have taken long: if it was replaced meanwhile,
        # what was opened may be the one before, and the path does not name that any more.
        self._file = current
        log(LOGGER, DEBUG, "%s: opened", self.path)
        if migration is not None:
            numbers = (migration.sessions, migration.messages, migration.contexts)
            text = "%s: carried %d sessions, %d messages and %d contexts of the old system over"
            log(
                LOGGER,
                INFO,
                f"{text}, %d rows left behind",
                self.path,
                *numbers,
                len(migration.skipped),
            )
        return migration

    def _refuse_others_files(self, deadline: float, *, migrating: bool) -> None:
        """Look whose file it is before anything can change it.

        Raises:
            SchemaError: it is none that this release can use.
        """

        def look() -> schema.Layout:
            with contextlib.closing(connect_to_look(self.path, self._patience)) as connection:
                return schema.find_layout(connection, self.path)

        try:
            found = patiently(look, deadline, self._where)
        except sqlite3.OperationalError:
            # A transaction that a crash has left half done can be undone by a writer only, for one.
            # Whatever else it is, the connection that comes next will tell.
            return
        if found is schema.Layout.OLD and not migrating:
            schema.refuse_old_layout(self.path)

    def _create_or_check(
        self, deadline: float, *, migrating: bool, skip_invalid: bool
    ) -> Migration | None:
        migration = None
        connection = patiently(self._connect, deadline, self._where)

        def look() -> schema.Layout:
            return schema.find_layout(connection, self.path)

        try:
            found = patiently(look, deadline, self._where)
            if found is schema.Layout.OLD and not migrating:
                schema.refuse_old_layout(self.path)
            if found is schema.Layout.NONE:
                # Not an old file before it is migrated: if that fails, it must be as it was.
                patiently(lambda: _switch_to_wal(connection, self.path), deadline, self._where)
            # One transaction for each number of an upgrade.
            while found is not schema.Layout.OURS:
                made = transact(
                    connection,
                    lambda connection: self._create(
                        connection, migrating=migrating, skip_invalid=skip_invalid
                    ),
                    self.path,
                    deadline,
                )
                migration = migration or made
                # A migration may have taken longer than anybody waits for a lock.
                deadline = max(deadline, time.monotonic() + self._patience)
                before, found = found, patiently(look, deadline, self._where)
                if before is schema.Layout.OUTDATED and found is schema.Layout.OURS:
                    text = "%s: upgraded to schema version %d"
                    log(LOGGER, INFO, text, self.path, SCHEMA_VERSION)
            if _journal_mode(connection) != "wal":
                patiently(lambda: _switch_to_wal(connection, self.path), deadline, self._where)
        except BaseException:
            connection.close()
            raise
        self._writer.adopt(connection, deadline)
        return migration

    def _create(
        self, connection: sqlite3.Connection, *, migrating: bool, skip_invalid: bool
    ) -> Migration | None:
        # Another process may have been faster; now the write lock is ours.
        found = schema.find_layout(connection, self.path)
        if found is schema.Layout.OURS:
            return None
        if found is schema.Layout.OUTDATED:
            schema.upgrade_tables(connection, self.path)
            return None
        if found is schema.Layout.OLD and not migrating:
            schema.refuse_old_layout(self.path)
        schema.create(connection)
        if found is schema.Layout.NONE:
            return None
        return old_layout.carry_over(connection, self.path, skip_invalid=skip_invalid)

    def check(self) -> None:
        """Look at the tables again, and create them if they are gone with their file."""
        found = self.read(lambda connection: schema.find_layout(connection, self.path))
        if found is not schema.Layout.OURS:
            self._file = None
            self._ensure_open(time.monotonic() + self._patience)


def _journal_mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def _switch_to_wal(connection: sqlite3.Connection, path: str) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        message = (
            f"{path}: SQLite cannot use its write-ahead log there (it stays in mode {mode!r}). "
            "Choose a file on a local disk."
        )
        raise ConfigurationError(message)
