"""The backend's own statements, and how they go together: each with one part changed."""

from __future__ import annotations

from director_db_postgres.connections import Connection
from gallery.postgres.broken import BrokenPostgresDB, edit_sql

_LOCKED = ("age(session.xmax) = 0", "true")
_UPDATED = ("age(session.xmin) = 0", "true")


def _lock_nothing():
    edit_sql("LOCK_SESSION", (" FOR UPDATE", ""))
    for name in ("DELETE_SESSION", "SAVE_CONTEXT", "APPEND_TO_CONTEXT"):
        edit_sql(name, _LOCKED)


class SessionIsNotLocked(BrokenPostgresDB, rule="CTX-3", level="concurrent"):
    """A save compares versions without the lock that keeps the stored one as it is."""

    by = "of_saves_at_once"

    @classmethod
    def break_code(cls):
        _lock_nothing()


class DeleteWithoutALock(BrokenPostgresDB, rule="DEL-2", level="concurrent"):
    """A delete tells what a snapshot showed that is older than its turn."""

    by = "a_delete_tells_of"

    @classmethod
    def break_code(cls):
        _lock_nothing()


class EachStatementByItself(BrokenPostgresDB, rule="MSG-3", level="concurrent"):
    """Autocommit: the place is counted in one transaction and taken in the next."""

    by = "places_stay_while_others"

    @classmethod
    def break_code(cls):
        together = Connection.run_together
        _lock_nothing()
        for name in ("UPSERT_MESSAGE", "UPSERT_MESSAGES"):
            edit_sql(name, _UPDATED)

        def broken(self, *steps):
            return [answer for step in steps for answer in together(self, step)]

        Connection.run_together = broken


class LastActivityGoesBack(BrokenPostgresDB, rule="SES-6"):
    """The session takes the time of whatever was stored last."""

    by = "never_goes_back"

    @classmethod
    def break_code(cls):
        edit_sql("COUNT_MESSAGES", ("greatest(updated_at, $3::bigint)", "$3::bigint"))


class ItemsBeyondTheEnd(BrokenPostgresDB, rule="CTX-3"):
    """A list that became shorter keeps the rows of its old end."""

    by = "a_list_that_changes_in_every_way"

    @classmethod
    def break_code(cls):
        edit_sql("CUT_ITEMS", ("idx >= $3::bigint", "idx >= $3::bigint AND false"))


class ItemsStayAsTheyWere(BrokenPostgresDB, rule="CTX-3"):
    """ON CONFLICT DO NOTHING: an item that changed keeps its old text."""

    by = "a_list_that_changes_in_every_way"

    @classmethod
    def break_code(cls):
        edit_sql("WRITE_ITEMS", ("DO UPDATE SET item = excluded.item", "DO NOTHING"))


class NoSuchCursorIsNull(BrokenPostgresDB, rule="MSG-6"):
    """A cursor that is no message compares with NULL, and finds nothing after it."""

    by = "an_unknown_cursor_is_not_the_end"

    @classmethod
    def break_code(cls):
        for name in ("SELECT_MESSAGES_AFTER", "SELECT_MESSAGES_BEFORE"):
            edit_sql(name, ("AND NOT EXISTS (", "AND false AND NOT EXISTS ("))
