"""MSG-13: what is taken back."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from director_db import SessionNotFoundError
from director_db.rows import MessageQuery
from gallery.broken import ROUND_TRIP, BrokenDB
from gallery.mutants.behind_a_lock import OneAtATime

# How long who has read waits for somebody who has read the same, in seconds.
_MEETING = 5


def last_message(db, session_id, conv_id=None):
    """Read what a pop would give, and leave it."""
    found = db._select_messages(MessageQuery(session_id, None, None, None)) or []
    found = [row for row in found if conv_id in (None, row.conv_id)]
    return found[-1] if found else None


# --- MSG-13 -------------------------------------------------------------------------------------


class PopsTheFirst(BrokenDB, rule="MSG-13"):
    """A queue in place of a stack."""

    def _pop_message(self, session_id, conv_id):
        found = self._select_messages(MessageQuery(session_id, None, None, None)) or []
        found = [row for row in found if conv_id in (None, row.conv_id)]
        if found:
            self._delete_message(session_id, found[0].msg_id)
        return found[0] if found else None


class PopsTheLatest(BrokenDB, rule="MSG-13"):
    """ORDER BY updated_at: what was changed last is popped, and not what stands last."""

    def _pop_message(self, session_id, conv_id):
        found = self._select_messages(MessageQuery(session_id, None, None, None)) or []
        found = [row for row in found if conv_id in (None, row.conv_id)]
        latest = max(found, key=lambda row: row.updated_at, default=None)
        if latest is not None:
            self._delete_message(session_id, latest.msg_id)
        return latest


class PopOnlyLooks(BrokenDB, rule="MSG-13"):
    """The message is given, and stays."""

    def _pop_message(self, session_id, conv_id):
        return last_message(self, session_id, conv_id)


class PopsWhateverTheConversation(BrokenDB, rule="MSG-13"):
    """The last message of the session, if that is not of the conversation, too."""

    def _pop_message(self, session_id, conv_id):
        return super()._pop_message(session_id, None)


class PopsOnlyIfTheLastIsOfTheConversation(BrokenDB, rule="MSG-13"):
    """It looks at the last message alone: one of another conversation hides all before it."""

    def _pop_message(self, session_id, conv_id):
        last = last_message(self, session_id)
        if last is None or conv_id not in {None, last.conv_id}:
            return None
        return super()._pop_message(session_id, conv_id)


class EmptyConversationIsAny(BrokenDB, rule="MSG-13"):
    """``if conv_id:`` takes an empty text for none."""

    def _pop_message(self, session_id, conv_id):
        return super()._pop_message(session_id, conv_id or None)


class PopOfNothingIsEmpty(BrokenDB, rule="MSG-13"):
    """``{}`` for no message, as `get_message` has it."""

    def pop_message(self, session_id, *, conv_id=None):
        return super().pop_message(session_id, conv_id=conv_id) or {}


class PopNeedsItsSession(BrokenDB, rule="MSG-13"):
    """A session that is missing is taken for a mistake of the caller."""

    def pop_message(self, session_id, *, conv_id=None):
        popped = super().pop_message(session_id, conv_id=conv_id)
        if popped is None and not self.get_session(session_id):
            raise SessionNotFoundError(session_id)
        return popped


class PopIsActivity(BrokenDB, rule="MSG-13"):
    """It is a write, so it moves the session's time."""

    def _pop_message(self, session_id, conv_id):
        popped = super()._pop_message(session_id, conv_id)
        if popped is not None:
            self._execute(
                "UPDATE director_sessions SET updated_at = updated_at + 1 WHERE session_id = ?",
                session_id,
            )
        return popped


class PoppedPlacesAreGivenAgain(BrokenDB, rule="MSG-13"):
    """The counter of places goes back, and the revision of what was popped is found again."""

    kept: dict = {}  # noqa: RUF012 - of all handles

    def _pop_message(self, session_id, conv_id):
        popped = super()._pop_message(session_id, conv_id)
        if popped is not None:
            self.kept[session_id, popped[2]] = popped[-1]
        return popped

    def _upsert_messages(self, session_id, rows):
        found = super()._upsert_messages(session_id, rows)
        for row in rows:
            revision = self.kept.pop((session_id, row.msg_id), None)
            if found and revision is not None:
                self._execute(
                    "UPDATE director_conversations SET revision = ?"
                    " WHERE session_id = ? AND msg_id = ?",
                    *(revision, session_id, row.msg_id),
                )
        return found


class TwoPopTheSame(BrokenDB, rule="MSG-13", level="concurrent"):
    """It reads the last message, and then deletes it: two who read at once both have it."""

    meeting = threading.Barrier(2)

    def _pop_message(self, session_id, conv_id):
        found = last_message(self, session_id, conv_id)
        if found is None:
            return None
        with suppress(threading.BrokenBarrierError):
            self.meeting.wait(_MEETING)
        self._delete_message(session_id, found.msg_id)
        return found


class OnePopOfTwoIsEmpty(BrokenDB, rule="MSG-13", level="concurrent"):
    """Who finds that another was faster with the same message answers that there is none."""

    meeting = threading.Barrier(2)

    def _pop_message(self, session_id, conv_id):
        found = last_message(self, session_id, conv_id)
        if found is None:
            return None
        with suppress(threading.BrokenBarrierError):
            self.meeting.wait(_MEETING)
        return found if self._delete_message(session_id, found.msg_id) else None


class PopsWhatWasTheLast(BrokenDB, rule="MSG-13", level="concurrent"):
    """It reads the last message and deletes that one, whatever was stored behind it since."""

    def _pop_message(self, session_id, conv_id):
        while (found := last_message(self, session_id, conv_id)) is not None:
            time.sleep(50 * ROUND_TRIP)
            if self._delete_message(session_id, found.msg_id):
                return found
        return None


class LockedTwoPopTheSame(OneAtATime, BrokenDB, rule="MSG-13", level="concurrent"):
    """It reads the last message and then deletes it, one thread at a time."""

    def _pop_message(self, session_id, conv_id):
        with self.lock:
            found = last_message(self, session_id, conv_id)
            time.sleep(30 * ROUND_TRIP)
            if found is not None:
                self._delete_message(session_id, found.msg_id)
            return found
