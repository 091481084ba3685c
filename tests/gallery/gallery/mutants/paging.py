"""MSG-6: reading a conversation."""

from __future__ import annotations

from director_db import InvalidRecordError
from director_db.rows import MessageQuery
from gallery.broken import BrokenDB


def belongs(row, query):
    """Say whether a message is of the part that a query asks for."""
    return query.conv_id in {None, row.conv_id} and query.msg_type in {None, row.msg_type}


class _Paged(BrokenDB):
    """Pages in Python, so that each step can go wrong by itself."""

    def _select_messages(self, query):
        rows = self._all(query.session_id)
        cursor = query.after if query.before is None else query.before
        if cursor is not None:
            place = next((n for n, row in enumerate(rows) if row.msg_id == cursor), None)
            if place is None:
                return None if self._has_session(query.session_id) else []
            rows = self._beside(rows, place, before=query.before is not None)
        rows = [row for row in rows if belongs(row, query)]
        if query.limit is None:
            return rows
        return self._cut(rows, query.limit, first=query.after is not None)

    def _all(self, session_id):
        return list(super()._select_messages(MessageQuery(session_id, None, None, None)))

    def _beside(self, rows, place, *, before):
        return rows[:place] if before else rows[place + 1 :]

    def _cut(self, rows, limit, *, first):
        return rows[:limit] if first else rows[-limit:]


class NewestFirst(BrokenDB, rule="MSG-6"):
    """The page is read backwards for its limit and never turned round."""

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        return rows and rows[::-1]


class LastPageReversed(BrokenDB, rule="MSG-6"):
    """Only the pages that are read backwards are not turned round."""

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        backwards = query.before is not None or (query.limit is not None and query.after is None)
        return rows[::-1] if rows and backwards else rows


class LimitGivesTheFirst(_Paged, rule="MSG-6"):
    """LIMIT as it stands: the first messages, where the last are wanted."""

    def _cut(self, rows, limit, *, first):
        return rows[:limit]


class AfterGivesTheLast(_Paged, rule="MSG-6"):
    """With `after`, the last of them: the page skips what is in between."""

    def _cut(self, rows, limit, *, first):
        return rows[-limit:]


class BeforeGivesTheFirst(BrokenDB, rule="MSG-6"):
    """With `before` and a limit, the first of the conversation: not the page before."""

    def _select_messages(self, query):
        if query.before is None or query.limit is None:
            return super()._select_messages(query)
        rows = super()._select_messages(query._replace(limit=None))
        return rows and rows[: query.limit]


class MessageLimitOffByOne(_Paged, rule="MSG-6"):
    """The extra row that tells whether there is a next page is returned too."""

    def _cut(self, rows, limit, *, first):
        return super()._cut(rows, limit + 1, first=first)


class CursorIncluded(_Paged, rule="MSG-6"):
    """>= and <=: the cursor itself is in the page."""

    def _beside(self, rows, place, *, before):
        return rows[: place + 1] if before else rows[place:]


class BeforeIncludesTheCursor(_Paged, rule="MSG-6"):
    """<= on one side only."""

    def _beside(self, rows, place, *, before):
        return rows[: place + 1] if before else rows[place + 1 :]


class UnknownCursorIsTheEnd(BrokenDB, rule="MSG-6"):
    """The cursor's place is null, and nothing is after null: an empty page, as at the end."""

    def _select_messages(self, query):
        return super()._select_messages(query) or []


class UnknownCursorIsTheStart(BrokenDB, rule="MSG-6"):
    """A cursor that is not found is taken for none: the first page again, and again."""

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        if rows is None:
            return super()._select_messages(query._replace(before=None, after=None))
        return rows


class CursorOfAnySession(BrokenDB, rule="MSG-6"):
    """The cursor's place is looked up by its id alone."""

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        cursor = query.after if query.before is None else query.before
        if rows is None and self._execute(
            "SELECT 1 FROM director_conversations WHERE msg_id = ?", cursor
        ):
            return super()._select_messages(query._replace(before=None, after=None))
        return rows


class CursorByItsTime(_Paged, rule="MSG-6"):
    """The page after a message holds what was created later: ties are skipped."""

    def _select_messages(self, query):
        found = super()._select_messages(query)
        if found and query.after is not None:
            cursor = self._select_message(query.session_id, query.after)
            found = [row for row in found if row.created_at > cursor.created_at]
        return found


class CursorsRemembered(_Paged, rule="LIF-1", level="concurrent"):
    """Where a message stood is remembered until this handle deletes something."""

    def _select_messages(self, query):
        cursor = query.after if query.before is None else query.before
        known = self.__dict__.setdefault("_cursors", {})
        rows = self._all(query.session_id)
        names = [row.msg_id for row in rows]
        if cursor in names:
            known.setdefault((query.session_id, cursor), names.index(cursor))
        place = known.get((query.session_id, cursor))
        if place is None:
            return super()._select_messages(query)
        rows = self._beside(rows, place, before=query.before is not None)
        rows = [row for row in rows if belongs(row, query)]
        limit = len(rows) if query.limit is None else query.limit
        return self._cut(rows, limit, first=query.after is not None) if rows else rows

    def _delete_message(self, session_id, msg_id):
        self.__dict__.pop("_cursors", None)
        return super()._delete_message(session_id, msg_id)

    def _delete_messages(self, session_id):
        self.__dict__.pop("_cursors", None)
        return super()._delete_messages(session_id)

    def _delete_session(self, session_id):
        self.__dict__.pop("_cursors", None)
        return super()._delete_session(session_id)


class EmptyCursorIsNone(BrokenDB, rule="MSG-6"):
    """``if after:``: an empty cursor reads from the start."""

    def get_conversations(self, session_id, *, limit=None, before=None, after=None, **part):
        return super().get_conversations(
            session_id, limit=limit, before=before or None, after=after or None, **part
        )


class BothCursorsAccepted(BrokenDB, rule="MSG-6"):
    """`before` wins over `after` and nobody is told."""

    def get_conversations(self, session_id, *, before=None, after=None, **kwargs):
        if before is not None:
            after = None
        return super().get_conversations(session_id, before=before, after=after, **kwargs)


class NoMessagesBeforeChecks(BrokenDB, rule="MSG-6"):
    """The arguments are checked first, so a session that is missing raises for a bad limit."""

    def get_conversations(self, session_id, *, limit=None, **kwargs):
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            message = "at least 1"
            raise InvalidRecordError("limit", message)
        return super().get_conversations(session_id, limit=limit, **kwargs)


class MissingSessionIsNoCursor(BrokenDB, rule="MSG-6"):
    """A cursor into a session that is missing is refused, where the answer is []."""

    def _select_messages(self, query):
        if query.before is not None or query.after is not None:
            return super()._select_messages(query) or None
        return super()._select_messages(query)


class ZeroMessagesAreAll(BrokenDB, rule="MSG-6"):
    """``if limit:``."""

    def get_conversations(self, session_id, *, limit=None, **kwargs):
        return super().get_conversations(session_id, limit=None if limit == 0 else limit, **kwargs)


class HundredAtMost(BrokenDB, rule="MSG-6"):
    """A page has at most 100 messages, whatever is asked for."""

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        return rows and rows[-100:]


class TenThousandAtMost(BrokenDB, rule="MSG-6"):
    """The window that a search engine has for its results."""

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        return rows and rows[:10_000]


class PlacesOf16Bits(_Paged, rule="MSG-6"):
    """The counter of places begins anew when its column is full."""

    def _all(self, session_id):
        rows = super()._all(session_id)
        return rows[2**16 :] + rows[: 2**16]


class OneConversationOnly(BrokenDB, rule="MSG-6"):
    """`conv_id` of the first message filters the rest."""

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        return rows and [row for row in rows if row.conv_id == rows[0].conv_id]


class EmptyConversationIsNone(BrokenDB, rule="MSG-6"):
    """No rows are no list."""

    def get_conversations(self, session_id, **kwargs):
        return super().get_conversations(session_id, **kwargs) or None


class PagesAreTuples(BrokenDB, rule="MSG-6"):
    """Whatever the driver gives is handed on."""

    def get_conversations(self, session_id, **kwargs):
        return tuple(super().get_conversations(session_id, **kwargs))
