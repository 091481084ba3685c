"""Lost connections and errors: what is tried again, what is told, and what shows."""

from __future__ import annotations

import logging

import psycopg
from psycopg import generators

from director_db import BackendUnavailableError
from director_db.rows import Appended, SaveOutcome
from director_db_postgres.connections import Connection
from director_db_postgres.database import Database
from director_db_postgres.errors import OutOfStepError, explain, is_out_of_step
from gallery.broken import replace
from gallery.postgres.broken import BrokenPostgresDB

_ERRORS = {"rule": "LIF-6", "level": "durable"}
_CUT = {"rule": "LIF-3", "level": "durable"}


class AppendsAreTriedAgain(BrokenPostgresDB, **_CUT):
    """Whatever a lost connection broke off is sent again, also what may have been stored."""

    by = "cut_connections"
    own_server = True

    @classmethod
    def break_code(cls):
        Database.write_once = Database.write


class LostCommitIsNoCommit(BrokenPostgresDB, **_CUT):
    """No answer to a commit is taken for none."""

    by = "cut_connections"
    own_server = True

    @classmethod
    def break_code(cls):
        def broken(error, place, *, maybe_applied=False):
            return explain(error, place)

        replace(explain, broken)


class LostCommitIsACommit(BrokenPostgresDB, **_CUT):
    """What may have been stored is told as stored."""

    by = "cut_connections"
    own_server = True

    def _append_context(self, append):
        try:
            return super()._append_context(append)
        except BackendUnavailableError as error:
            if not error.maybe_applied:
                raise
            return Appended(SaveOutcome.SAVED, len(append.items))


def _change_errors(change):
    healthy = BackendUnavailableError.__init__

    def broken(self, *args, **kwargs):
        healthy(self, *args, **kwargs)
        change(self)

    BackendUnavailableError.__init__ = broken


class DriversErrorsComeOut(BrokenPostgresDB, **_ERRORS):
    """The exception of the driver is raised as it is."""

    by = "lets_nobody_in"

    @classmethod
    def break_code(cls):
        replace(explain, lambda error, place, *, maybe_applied=False: error)

    def _translate(self, error):
        return None


class NothingIsWorthATry(BrokenPostgresDB, **_ERRORS):
    """`retryable` is False, always."""

    by = "a_lock_that_somebody_else_holds"

    @classmethod
    def break_code(cls):
        def change(error):
            error.retryable = False

        _change_errors(change)


class EverythingIsWorthATry(BrokenPostgresDB, **_ERRORS):
    """`retryable` is True, always."""

    by = "lets_nobody_in"

    @classmethod
    def break_code(cls):
        def change(error):
            error.retryable = True

        _change_errors(change)


class EverythingIsInDoubt(BrokenPostgresDB, **_ERRORS):
    """`maybe_applied` is True to be on the safe side, also where the server has refused."""

    by = "a_lock_that_somebody_else_holds"

    @classmethod
    def break_code(cls):
        def change(error):
            error.maybe_applied = True

        _change_errors(change)


class PasswordInErrors(BrokenPostgresDB, **_ERRORS):
    """The connection string says which database could not be reached."""

    by = "lets_nobody_in"

    @classmethod
    def break_code(cls):
        connect = Connection.connect.__func__

        def broken(cls, conninfo="", **kwargs):
            try:
                return connect(cls, conninfo, **kwargs)
            except Exception as error:
                error.add_note(str(conninfo))
                raise

        Connection.connect = classmethod(broken)


class PasswordInTheLog(BrokenPostgresDB, **_ERRORS):
    """Each connection is logged with all that it was made with."""

    by = "lets_nobody_in"

    @classmethod
    def break_code(cls):
        connect = Connection.connect.__func__

        def broken(cls, conninfo="", **kwargs):
            logging.getLogger("director_db.postgres").warning("connecting to %s", str(conninfo))
            return connect(cls, conninfo, **kwargs)

        Connection.connect = classmethod(broken)


class HealthOnceAndForAll(BrokenPostgresDB, rule="LIF-4", level="durable"):
    """Once healthy, healthy for ever."""

    by = "health_follows_a_place_that_goes"
    _known = None

    def health(self):
        if self._known is None:
            self._known = super().health()
        return self._known


# --- A driver that finds other answers than it waits for, and trips over them ---------------------

_TRIPPING_DRIVER = """
def fetch_many(pgconn):
    try:
        return (yield from healthy(pgconn))
    except OperationalError:
        raise IndexError("pop from an empty deque") from None
"""


def _let_the_driver_trip():
    """Let psycopg say of a lost connection what it says where a pooler answers too much."""
    names = {
        "__name__": generators.__name__,
        "healthy": generators.fetch_many,
        "OperationalError": psycopg.OperationalError,
    }
    exec(_TRIPPING_DRIVER, names)  # noqa: S102 - the backend looks at the module that raises
    generators.fetch_many = names["fetch_many"]


class TripsComeOut(BrokenPostgresDB, **_CUT):
    """An exception out of the driver that is none of its own is nobody's business."""

    by = "cut_connections"

    @classmethod
    def break_code(cls):
        _let_the_driver_trip()
        replace(is_out_of_step, lambda error: False)


class TripsAreNoAnswer(BrokenPostgresDB, **_CUT):
    """Answers that cannot be read say that nothing was stored."""

    by = "cut_connections"
    own_server = True

    @classmethod
    def break_code(cls):
        _let_the_driver_trip()
        healthy = Database._try

        def broken(self, operation, call):
            before = call.in_doubt
            try:
                return healthy(self, operation, call)
            except OutOfStepError:
                call.in_doubt = before
                raise

        Database._try = broken
