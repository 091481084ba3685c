"""LIF-3, LIF-4 and LIF-6 while a file cannot be used, DEL-3, URLs, and forks."""

from __future__ import annotations

import fcntl
import logging
import sqlite3
import threading
import time

from director_db import BackendUnavailableError, ConfigurationError, DirectorDBError
from director_db.records import Health
from director_db_conformance.clauses import faults
from director_db_sqlite import schema
from director_db_sqlite.database import FileDatabase
from gallery.broken import PASSWORD, ROUND_TRIP, BrokenDB, replace

# --- LIF-6: errors ------------------------------------------------------------------------------


class DriversErrorsLeak(BrokenDB, rule="LIF-6", level="durable"):
    """`_translate` knows none of the driver's exceptions."""

    def _translate(self, error):
        return None


class ReadsLeak(BrokenDB, rule="LIF-6", level="durable"):
    """Writes have a guard; who reads a damaged file gets what the driver says."""

    def _translate(self, error):
        if "malformed" in str(error):
            return None
        return super()._translate(error)


class CauseIsLost(BrokenDB, rule="LIF-6", level="durable"):
    """``raise ... from None``: what the driver said is not known any more."""

    @classmethod
    def break_code(cls):
        BackendUnavailableError.__cause__ = property(lambda _self: None, lambda _self, _cause: None)


class NeverRetryable(BrokenDB, rule="LIF-6", level="durable"):
    """Nobody is ever told to try again."""

    @classmethod
    def break_code(cls):
        _change_retryable(lambda _retryable: False)


class AlwaysRetryable(BrokenDB, rule="LIF-6", level="durable"):
    """Everybody is told to try again, also on a file that is damaged."""

    @classmethod
    def break_code(cls):
        _change_retryable(lambda _retryable: True)


class RetryableIsInverted(BrokenDB, rule="LIF-6", level="durable"):
    """`retryable` says what `permanent` would."""

    @classmethod
    def break_code(cls):
        _change_retryable(lambda retryable: not retryable)


def _change_retryable(change):
    original = BackendUnavailableError.__init__

    def broken(self, message, *, retryable=False, maybe_applied=False):
        original(self, message, retryable=change(retryable), maybe_applied=maybe_applied)

    BackendUnavailableError.__init__ = broken


class AlwaysInDoubt(BrokenDB, rule="LIF-6", level="durable"):
    """Every error says that the write may have been applied, to be on the safe side."""

    @classmethod
    def break_code(cls):
        original = BackendUnavailableError.__init__

        def broken(self, message, *, retryable=False, maybe_applied=False):
            original(self, message, retryable=retryable, maybe_applied=True)

        BackendUnavailableError.__init__ = broken


class PasswordInEveryError(BrokenDB, rule="LIF-6", level="durable"):
    """The error names what was connected to, with all its settings."""

    def _translate(self, error):
        ours = super()._translate(error)
        if ours is not None:
            ours.args = (f"{ours} ({PASSWORD})", *ours.args[1:])
        return ours


class PasswordInTheCause(BrokenDB, rule="LIF-6", level="durable"):
    """Our message is clean; the driver's exception carries the connection string."""

    def _translate(self, error):
        error.args = (*error.args, f"password={PASSWORD}")
        return super()._translate(error)


class PasswordInTheContext(BrokenDB, rule="LIF-6", level="durable"):
    """An exception with the settings was being handled when the driver raised its own."""

    def _translate(self, error):
        error.__context__ = KeyError(PASSWORD)
        return super()._translate(error)


class PasswordIsLogged(BrokenDB, rule="LIF-6", level="durable"):
    """A failure is logged with the settings."""

    def _translate(self, error):
        logging.getLogger("gallery").warning("settings: %s", PASSWORD)
        return super()._translate(error)


class OneErrorForAll(BrokenDB, rule="LIF-6", level="durable"):
    """Whatever the driver says is one error, which nobody can tell from another."""

    def _translate(self, error):
        ours = super()._translate(error)
        return None if ours is None else DirectorDBError(str(ours))


# --- LIF-4: health ------------------------------------------------------------------------------


class HealthIsRemembered(BrokenDB, rule="LIF-4", level="durable"):
    """health() answers what it found the first time."""

    _known = None

    def health(self):
        if self._known is None:
            self._known = super().health()
        return self._known


class IllnessIsRemembered(BrokenDB, rule="LIF-4", level="durable"):
    """Who was ill once is never well again."""

    _failure = None

    @classmethod
    def break_code(cls):
        faults._AFTERMATH = 3.0  # Ten times as long would be waited for what never comes.

    def _check(self):
        if self._failure is not None:
            raise self._failure
        try:
            return super()._check()
        except DirectorDBError as error:
            self._failure = error
            raise


class HealthLooksAtTheSettingsOnly(BrokenDB, rule="LIF-4", level="durable"):
    """health() says what is installed, also where nothing can be opened."""

    def health(self):
        try:
            return super().health()
        except BackendUnavailableError:
            raise
        except DirectorDBError:
            return Health(str(self.db_type), self.place, {"SQLite": sqlite3.sqlite_version}, [])


class ConnectsInTheConstructor(BrokenDB, rule="LIF-4"):
    """The constructor connects, so that mistakes are seen early."""

    def __init__(self, db_path, **kwargs):
        super().__init__(db_path, **kwargs)
        self._early = sqlite3.connect(db_path, check_same_thread=False)
        self._early.execute("PRAGMA user_version")

    def _close(self):
        self._early.close()
        super()._close()


class VersionBeforeTables(BrokenDB, rule="LIF-4", level="durable"):
    """One commit for each statement of the schema, and the version is stored first.

    A lock keeps the others out meanwhile; it goes with the process that dies.
    """

    @classmethod
    def break_code(cls):
        original = FileDatabase._create_or_check

        def one_at_a_time(self, deadline, **kwargs):
            with open(f"{self.path}.lock", "w") as lock:  # noqa: PTH123
                fcntl.flock(lock, fcntl.LOCK_EX)
                return original(self, deadline, **kwargs)

        def broken(connection):
            *tables, version = schema.CREATE
            for statement in (tables[0], version, *tables[1:]):
                connection.execute(statement)
                connection.execute("COMMIT")
                time.sleep(5 * ROUND_TRIP)
                connection.execute("BEGIN IMMEDIATE")

        FileDatabase._create_or_check = one_at_a_time
        replace(schema.create, broken)


class UrlIsIgnored(BrokenDB, rule="LIF-4", level="concurrent"):
    """The environment says where the data is, and a URL picks the type alone."""

    @classmethod
    def _settings(cls, environ, url):
        return super()._settings(environ, None)


class UrlIsRelative(BrokenDB, rule="LIF-4", level="concurrent"):
    """All slashes of a URL are taken off: an absolute path becomes a relative one."""

    @classmethod
    def _settings(cls, environ, url):
        found = super()._settings(environ, url)
        return found if url is None else found | {"db_path": found["db_path"].lstrip("/")}


class UrlIsRefused(BrokenDB, rule="LIF-4", level="concurrent"):
    """Nobody has tried a URL."""

    @classmethod
    def _settings(cls, environ, url):
        if url is not None:
            message = "This backend takes no URL."
            raise ConfigurationError(message)
        return super()._settings(environ, url)


# --- LIF-1: forks -------------------------------------------------------------------------------


class ForkedWithConnectionsOpen(BrokenDB, rule="LIF-1", level="concurrent"):
    """The connections are open during a fork; the child believes to hold their locks."""

    def _prepare_fork(self):
        pass


class ChildClosesWhatItInherits(BrokenDB, rule="LIF-1", level="concurrent"):
    """The child closes the connections of its parent, to be tidy."""

    def _prepare_fork(self):
        pass

    def _abandon(self):
        self._database.close()
        super()._abandon()


# --- DEL-3 --------------------------------------------------------------------------------------


class NoForeignKeys(BrokenDB, rule="DEL-3"):
    """Deletes take all parts along by themselves, so no table refers to another."""

    @classmethod
    def break_code(cls):
        _change_references("")


class NoCascade(BrokenDB, rule="DEL-3"):
    """The tables refer to each other, and a session with messages cannot be deleted with SQL."""

    @classmethod
    def break_code(cls):
        _change_references("REFERENCES director_sessions")


class ContextsStay(BrokenDB, rule="DEL-3"):
    """Messages have a foreign key, contexts have none."""

    @classmethod
    def break_code(cls):
        *others, contexts, items, version = schema.CREATE
        contexts = contexts.replace(_REFERENCE, "")
        schema.CREATE = (*others, contexts, items, version)


_REFERENCE = "REFERENCES director_sessions ON DELETE CASCADE"


def _change_references(reference):
    schema.CREATE = tuple(statement.replace(_REFERENCE, reference) for statement in schema.CREATE)


# --- LIF-3: what is stored ----------------------------------------------------------------------


class HalfABulkWhenItIsFull(BrokenDB, rule="LIF-3", level="durable"):
    """A bulk is one transaction for each message, so the small ones are stored."""

    def _upsert_messages(self, session_id, rows):
        found = True
        for row in rows:
            found = found and super()._upsert_messages(session_id, [row])
        return found


class OnceBrokenAlwaysBroken(BrokenDB, rule="LIF-3", level="durable"):
    """A connection that failed is kept, and fails whoever comes next."""

    _failure = None

    def _upsert_messages(self, session_id, rows):
        if self._failure is not None:
            message = "The connection is broken."
            raise BackendUnavailableError(message) from self._failure
        try:
            return super()._upsert_messages(session_id, rows)
        except Exception as error:
            self._failure = error
            raise


class _Slow(BrokenDB):
    """Takes as long for an answer as a server some way off does."""

    def __init__(self, db_path, **kwargs):
        super().__init__(db_path, **kwargs)
        self._connection = threading.local()

    def _sent(self):
        """Return what this thread's connection has sent, and read no answer to."""
        return self._connection.__dict__.setdefault("sent", [])


class InterruptedWriteIsLeftOver(_Slow, rule="LIF-3", level="concurrent"):
    """An interrupted connection is used again: it does the call before, and tells that of the next.

    So the failed call is stored, and one that was told to be stored is not.
    """

    def _upsert_messages(self, session_id, rows):
        self._sent().append((session_id, rows))
        time.sleep(8 * ROUND_TRIP)
        return super()._upsert_messages(*self._sent().pop(0))


class InterruptedAnswerIsLeftOver(_Slow, rule="LIF-3", level="concurrent"):
    """An interrupted connection is used again: what it reads is the answer to the call before."""

    def _select_message(self, session_id, msg_id):
        self._sent().append(super()._select_message(session_id, msg_id))
        time.sleep(8 * ROUND_TRIP)
        return self._sent().pop(0)
