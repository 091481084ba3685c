"""SES-9: copies of sessions."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from director_db import InvalidRecordError, SessionExistsError, SessionNotFoundError
from director_db.rows import CopyRefusal, MessageQuery
from gallery.broken import ROUND_TRIP, BrokenDB

_MEETING = 5


class _ThenChanges(BrokenDB):
    """Copies as it should, and then runs a statement on the copy, whose parameter is its id."""

    statement = ""

    def _copy_session(self, copy):
        copied = super()._copy_session(copy)
        if not isinstance(copied, CopyRefusal):
            self._execute(self.statement, copy.to)
        return copied


class CopyForgetsTheUser(_ThenChanges, rule="SES-9"):
    """The columns were named when there were fewer of them."""

    statement = "UPDATE director_sessions SET user_id = NULL WHERE session_id = ?"


class CopyForgetsTheMetadata(_ThenChanges, rule="SES-9"):
    """The copy is created with its id alone."""

    statement = "UPDATE director_sessions SET metadata = '{}' WHERE session_id = ?"


class CopyForgetsTheContext(_ThenChanges, rule="SES-9"):
    """Messages are thought to be all that there is."""

    statement = "DELETE FROM director_context_messages WHERE session_id = ?"


class CopyForgetsTheItems(_ThenChanges, rule="SES-9"):
    """The context's row is copied, and not the list that is kept beside it."""

    statement = "DELETE FROM director_context_items WHERE session_id = ?"


class CopiedMessagesAreNew(_ThenChanges, rule="SES-9"):
    """They are stored now, so they have the time of now."""

    statement = (
        "UPDATE director_conversations SET created_at = unixepoch(), updated_at = unixepoch()"
        " WHERE session_id = ?"
    )


class CopyForgetsTheRevisions(_ThenChanges, rule="SES-9"):
    """A late write is late no more in the copy."""

    statement = "UPDATE director_conversations SET revision = NULL WHERE session_id = ?"


class CopyBeginsAtTheBeginning(_ThenChanges, rule="SES-9"):
    """The counter of places is not copied: what is stored next comes first, or finds its place."""

    statement = "UPDATE director_sessions SET last_seq = -100 WHERE session_id = ?"


class CopyInAnotherOrder(_ThenChanges, rule="SES-9"):
    """INSERT ... SELECT ... ORDER BY created_at, with places of its own."""

    statement = (
        "UPDATE director_conversations SET seq = -1000000000000000 - created_at * 1000 - seq"
        " WHERE session_id = ?"
    )


class CopyKeepsTheSessionsTimes(BrokenDB, rule="SES-9"):
    """``SELECT *``: the copy is as old as its session, and is not on top of the list."""

    def _copy_session(self, copy):
        copied = super()._copy_session(copy)
        if not isinstance(copied, CopyRefusal):
            first = self._select_session(copy.session_id)
            self._execute(
                "UPDATE director_sessions SET created_at = ?, updated_at = ? WHERE session_id = ?",
                *(first.created_at, first.updated_at, copy.to),
            )
        return copied


class CopyIsAMove(BrokenDB, rule="SES-9"):
    """UPDATE ... SET session_id: there is one session, as before."""

    def _copy_session(self, copy):
        copied = super()._copy_session(copy)
        if not isinstance(copied, CopyRefusal):
            self._delete_session(copy.session_id)
        return copied


class CopyUntilTakesTheContext(BrokenDB, rule="SES-9"):
    """The context of the whole session goes along, and tells of what is not there."""

    def _copy_session(self, copy):
        copied = super()._copy_session(copy)
        if not isinstance(copied, CopyRefusal) and copy.until is not None:
            context = self.get_context(copy.session_id)
            if context:
                self.add_or_update_context_msg(copy.to, context["context"])
        return copied


class CopyUntilIsBefore(BrokenDB, rule="SES-9"):
    """``<`` for ``<=``: the message itself is left out."""

    def _copy_session(self, copy):
        copied = super()._copy_session(copy)
        if not isinstance(copied, CopyRefusal) and copy.until is not None:
            self._delete_message(copy.to, copy.until)
            return copied - 1
        return copied


class CopyUntilATime(BrokenDB, rule="SES-9"):
    """What was created until then, wherever it stands."""

    def _copy_session(self, copy):
        copied = super()._copy_session(copy._replace(until=None))
        if isinstance(copied, CopyRefusal) or copy.until is None:
            return copied
        self._delete_context(copy.to)
        last = self._select_message(copy.to, copy.until)
        if last is None:
            self._delete_session(copy.to)
            return CopyRefusal.NO_MESSAGE
        found = self._select_messages(MessageQuery(copy.to, None, None, None))
        late = [each for each in found if each.created_at > last[8]]
        return copied - sum(self._delete_message(copy.to, each.msg_id) for each in late)


class CopyUntilNobodyIsEmpty(BrokenDB, rule="SES-9"):
    """A message that is not there is before all others, so nothing is copied."""

    def _copy_session(self, copy):
        copied = super()._copy_session(copy)
        if copied is CopyRefusal.NO_MESSAGE:
            super()._copy_session(copy._replace(until=None))
            self._delete_messages(copy.to)
            self._delete_context(copy.to)
            return 0
        return copied


class CopyReplaces(BrokenDB, rule="SES-9"):
    """INSERT OR REPLACE: a session of that id is gone."""

    def _copy_session(self, copy):
        copied = super()._copy_session(copy)
        if copied is CopyRefusal.TAKEN and copy.to != copy.session_id:
            self._delete_session(copy.to)
            return super()._copy_session(copy)
        return copied


class CopyOfATakenIdIsSilent(BrokenDB, rule="SES-9"):
    """As `create_session`, it leaves what is there, and counts nothing."""

    def copy_session(self, session_id, to, *, until=None):
        try:
            return super().copy_session(session_id, to, until=until)
        except SessionExistsError:
            return 0


class CopyOfATakenIdIsRefused(BrokenDB, rule="SES-9"):
    """A taken id is as a bad one, and no caller can tell the two."""

    def copy_session(self, session_id, to, *, until=None):
        try:
            return super().copy_session(session_id, to, until=until)
        except SessionExistsError as error:
            raise InvalidRecordError("to", str(error)) from error


class CopyOfNobodyIsEmpty(BrokenDB, rule="SES-9"):
    """A session that is missing has no messages, and neither has its copy."""

    def copy_session(self, session_id, to, *, until=None):
        try:
            return super().copy_session(session_id, to, until=until)
        except SessionNotFoundError:
            self.create_session(to)
            return 0


class CopyReadsTwice(BrokenDB, rule="SES-9", level="concurrent"):
    """The messages first, and then the context, which is of another moment."""

    def _copy_session(self, copy):
        copied = super()._copy_session(copy)
        if isinstance(copied, CopyRefusal) or copy.until is not None:
            return copied
        seen = set()
        until = time.monotonic() + _MEETING
        while len(seen) < 4 and time.monotonic() < until:
            context = self._select_context(copy.session_id)
            if context is None:
                return copied
            seen.add(context.version)
            time.sleep(ROUND_TRIP)
        self.add_or_update_context_msg(copy.to, self.get_context_messages(copy.session_id))
        return copied


class CopyGrows(BrokenDB, rule="SES-9", level="concurrent"):
    """The session is there before what is in it: two transactions."""

    def _copy_session(self, copy):
        source = self._select_session(copy.session_id)
        if source is None or copy.until is not None or self._select_session(copy.to) is not None:
            return super()._copy_session(copy)
        self._insert_session(source._replace(session_id=copy.to))
        time.sleep(50 * ROUND_TRIP)
        self._delete_session(copy.to)
        return super()._copy_session(copy)


class BothCopiesWin(BrokenDB, rule="SES-9", level="concurrent"):
    """Look whether the id is free, then copy: what is there by then is taken for one's own."""

    meeting = threading.Barrier(2)

    def _copy_session(self, copy):
        is_free = self._select_session(copy.to) is None
        if is_free:
            with suppress(threading.BrokenBarrierError):
                self.meeting.wait(_MEETING)
        copied = super()._copy_session(copy)
        if copied is CopyRefusal.TAKEN and is_free:
            return len(self._select_messages(MessageQuery(copy.session_id, None, None, None)))
        return copied


class CopyOfWhatIsDeleted(BrokenDB, rule="SES-9", level="concurrent"):
    """The session's row is read, and its parts later: by then it may be gone."""

    def _copy_session(self, copy):
        source = self._select_session(copy.session_id)
        time.sleep(50 * ROUND_TRIP)
        copied = super()._copy_session(copy)
        if copied is CopyRefusal.NO_SESSION and source is not None:
            self._insert_session(source._replace(session_id=copy.to))
            return 0
        return copied
