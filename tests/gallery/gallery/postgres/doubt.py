"""Lost connections and errors: what is tried again, what is told, and what shows."""

from __future__ import annotations

from director_db import BackendUnavailableError
from director_db.records import Appended, SaveOutcome
from director_db_postgres.database import Database
from director_db_postgres.errors import explain
from gallery.broken import replace
from gallery.postgres.broken import BrokenPostgresDB

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
