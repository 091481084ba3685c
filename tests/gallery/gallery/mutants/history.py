"""MSG-13, MSG-14 and DEL-4: what is taken back or replaced."""

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
        return self._take(found)

    def _take(self, found):
        self._delete_message(found.session_id, found.msg_id)
        return found


class OnePopOfTwoIsEmpty(TwoPopTheSame, rule="MSG-13", level="concurrent"):
    """Who finds that another was faster with the same message answers that there is none."""

    meeting = threading.Barrier(2)

    def _take(self, found):
        return found if self._delete_message(found.session_id, found.msg_id) else None


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


# --- MSG-14 -------------------------------------------------------------------------------------


def stored_messages(db, session_id):
    """Return the messages of a session by their ids."""
    found = db._select_messages(MessageQuery(session_id, None, None, None)) or []
    return {row.msg_id: row for row in found}


class ReplaceOnlyAdds(BrokenDB, rule="MSG-14"):
    """What is stored already stays: an upsert of the list."""

    def _replace_messages(self, session_id, rows):
        if not rows:
            return super()._replace_messages(session_id, rows)
        return self._upsert_guarded(session_id, rows) is not None


class ReplacedKeepTheirPlaces(BrokenDB, rule="MSG-14"):
    """All others are deleted, then an upsert: who was there stands where it stood."""

    def _replace_messages(self, session_id, rows):
        before = [*stored_messages(self, session_id)]
        found = super()._replace_messages(session_id, rows)
        self._run(lambda connection: self._put_back(connection, session_id, before))
        return found

    def _put_back(self, connection, session_id, before):
        for place, msg_id in enumerate(before, -len(before)):
            connection.execute(
                "UPDATE director_conversations SET seq = ? WHERE session_id = ? AND msg_id = ?",
                (place, session_id, msg_id),
            )


class _DeletesThenStores(BrokenDB):
    """Takes what is there away, and stores the list; the base of what goes wrong with that."""

    def _before(self, session_id, rows):
        """Return the rows to store instead."""
        return rows

    def _between(self):
        """Stand between the two."""

    def _replace_messages(self, session_id, rows):
        rows = self._before(session_id, rows)
        if rows:
            self._delete_messages(session_id)
            self._between()
        return super()._replace_messages(session_id, rows)


class ReplacedBeginAnew(_DeletesThenStores, rule="MSG-14"):
    """DELETE, then INSERT: an id that stays loses its created_at and its revision."""


class ReplacedForgetTheRevision(_DeletesThenStores, rule="MSG-14"):
    """created_at is read before, and the revision forgotten."""

    def _before(self, session_id, rows):
        known = stored_messages(self, session_id)
        return [
            each
            if each.row.created_at_given or each.row.msg_id not in known
            else each._replace(row=each.row._replace(created_at=known[each.row.msg_id].created_at))
            for each in rows
        ]


class ReplaceIsGuarded(BrokenDB, rule="MSG-14"):
    """A revision that is lower than the stored one is held back, as in a bulk."""

    def _replace_messages(self, session_id, rows):
        known = {name: row.revision for name, row in stored_messages(self, session_id).items()}
        held = [
            each._replace(revision=max(each.revision, known[each.row.msg_id]))
            if None not in {each.revision, known.get(each.row.msg_id)}
            else each
            for each in rows
        ]
        return super()._replace_messages(session_id, held)


class ReplaceByNothingDoesNothing(BrokenDB, rule="MSG-14"):
    """``if messages:``: an empty list is no call at all."""

    def _replace_messages(self, session_id, rows):
        return super()._replace_messages(session_id, rows) if rows else True


class ReplaceIsNoActivity(BrokenDB, rule="MSG-14"):
    """The session's time stays, as for a delete."""

    def _replace_messages(self, session_id, rows):
        before = self._select_session(session_id)
        found = super()._replace_messages(session_id, rows)
        if before is not None:
            self._execute(
                "UPDATE director_sessions SET updated_at = ? WHERE session_id = ?",
                *(before.updated_at, session_id),
            )
        return found


class ReplaceTakesTheContext(BrokenDB, rule="MSG-14"):
    """A context of messages that are gone is thought to be of no use."""

    def _replace_messages(self, session_id, rows):
        self._delete_context(session_id)
        return super()._replace_messages(session_id, rows)


class ReplaceCountsTheList(BrokenDB, rule="MSG-14"):
    """``len(messages)``, in which an id that comes twice counts twice."""

    def replace_conversation(self, session_id, messages):
        super().replace_conversation(session_id, messages)
        return len(messages)


class ReplaceInTwoTransactions(_DeletesThenStores, rule="MSG-14", level="concurrent"):
    """The old ones go in a transaction of their own, and whoever reads then finds nothing."""

    def _between(self):
        time.sleep(20 * ROUND_TRIP)


class LockedReplaceInTwoTransactions(
    OneAtATime, ReplaceInTwoTransactions, rule="MSG-14", level="concurrent"
):
    """The same, one thread at a time: only another process sees it."""


class CursorOfAnotherMoment(BrokenDB, rule="MSG-14", level="concurrent"):
    """The cursor's place is read first, and may have changed by the time the page is."""

    def _select_messages(self, query):
        place = self._place(query)
        if not place:
            return super()._select_messages(query)
        # Until it has changed, if somebody changes it.
        deadline = time.monotonic() + _MEETING / 10
        while place == self._place(query):
            if time.monotonic() > deadline:
                return super()._select_messages(query)
            time.sleep(ROUND_TRIP)
        names = self._beside(query, place[0][0])
        rows = super()._select_messages(MessageQuery(query.session_id, None, None, None))
        return [row for row in rows if (row.msg_id,) in names]

    def _place(self, query):
        return self._execute(
            "SELECT seq FROM director_conversations WHERE session_id = ? AND msg_id = ?",
            *(query.session_id, query.after or query.before),
        )

    def _beside(self, query, place):
        comparison = ">" if query.after else "<"
        return self._execute(
            "SELECT msg_id FROM director_conversations WHERE session_id = ?"
            f" AND seq {comparison} ?",
            *(query.session_id, place),
        )


class ReplaceTakesWhatCameAfter(BrokenDB, rule="MSG-14", level="concurrent"):
    """It stores the list, and then deletes all others, those that came after it too."""

    def _replace_messages(self, session_id, rows):
        found = super()._replace_messages(session_id, rows)
        time.sleep(20 * ROUND_TRIP)
        for msg_id in stored_messages(self, session_id).keys() - {row.row.msg_id for row in rows}:
            self._delete_message(session_id, msg_id)
            time.sleep(ROUND_TRIP)
        return found


# --- DEL-4 --------------------------------------------------------------------------------------


class GoesBackByTime(BrokenDB, rule="DEL-4"):
    """``WHERE created_at > ...``: those behind it that are of the same second stay."""

    def _delete_messages_after(self, session_id, msg_id):
        found = stored_messages(self, session_id)
        if msg_id not in found:
            return super()._delete_messages_after(session_id, msg_id)
        late = [each for each in found.values() if each.created_at > found[msg_id].created_at]
        return sum(self._delete_message(session_id, each.msg_id) for each in late)


class GoesBackInOneConversation(BrokenDB, rule="DEL-4"):
    """Only what has the message's own conv_id is deleted."""

    def _delete_messages_after(self, session_id, msg_id):
        rows = [*stored_messages(self, session_id).values()]
        at = next((place for place, row in enumerate(rows) if row.msg_id == msg_id), None)
        if at is None:
            return super()._delete_messages_after(session_id, msg_id)
        behind = [row for row in rows[at + 1 :] if row.conv_id == rows[at].conv_id]
        return sum(self._delete_message(session_id, row.msg_id) for row in behind)


class GoesBackBeforeIt(BrokenDB, rule="DEL-4"):
    """``>=``: the message itself goes, too."""

    def _delete_messages_after(self, session_id, msg_id):
        deleted = super()._delete_messages_after(session_id, msg_id)
        return deleted and deleted + self._delete_message(session_id, msg_id)


class GoesBackAndSaysSo(BrokenDB, rule="DEL-4"):
    """True or False, as of other deletes."""

    def delete_messages_after(self, session_id, msg_id):
        return super().delete_messages_after(session_id, msg_id) > 0


class GoesBackSilently(BrokenDB, rule="DEL-4"):
    """No message, so nothing behind it: 0."""

    def _delete_messages_after(self, session_id, msg_id):
        return super()._delete_messages_after(session_id, msg_id) or 0


class GoesBackToTheBeginning(BrokenDB, rule="DEL-4"):
    """``seq > NULL`` was mended with coalesce: what is behind nothing is everything."""

    def _delete_messages_after(self, session_id, msg_id):
        deleted = super()._delete_messages_after(session_id, msg_id)
        if deleted is None:
            deleted = len(stored_messages(self, session_id))
            self._delete_messages(session_id)
        return deleted


class GoingBackIsActivity(BrokenDB, rule="DEL-4"):
    """It is a write, so it moves the session's time."""

    def _delete_messages_after(self, session_id, msg_id):
        self._execute(
            "UPDATE director_sessions SET updated_at = updated_at + 1 WHERE session_id = ?",
            session_id,
        )
        return super()._delete_messages_after(session_id, msg_id)


class GoingBackTakesTheContext(BrokenDB, rule="DEL-4"):
    """The context tells of what is deleted, so it goes."""

    def _delete_messages_after(self, session_id, msg_id):
        self._delete_context(session_id)
        return super()._delete_messages_after(session_id, msg_id)


class GoesBackOneByOne(BrokenDB, rule="DEL-4", level="concurrent"):
    """It reads what is behind the message and deletes that from the end: what comes since stays."""

    def _delete_messages_after(self, session_id, msg_id):
        names = [*stored_messages(self, session_id)]
        if msg_id not in names:
            return super()._delete_messages_after(session_id, msg_id)
        behind = names[names.index(msg_id) + 1 :]
        for name in reversed(behind):
            self._delete_message(session_id, name)
            time.sleep(5 * ROUND_TRIP)
        return len(behind)


class CountsThenGoesBack(BrokenDB, rule="DEL-4", level="concurrent"):
    """How many there are is counted first, and others count the same."""

    meeting = threading.Barrier(2)

    def _delete_messages_after(self, session_id, msg_id):
        names = [*stored_messages(self, session_id)]
        if msg_id in names[:-1]:
            with suppress(threading.BrokenBarrierError):
                self.meeting.wait(_MEETING)
        deleted = super()._delete_messages_after(session_id, msg_id)
        return deleted if deleted is None else len(names) - names.index(msg_id) - 1
