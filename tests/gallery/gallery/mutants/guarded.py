"""MSG-11: guarded writes."""

from __future__ import annotations

from director_db.rows import StoredMessage
from gallery.broken import BrokenDB
from gallery.mutants.concurrency import travel


class RevisionOnlyStored(BrokenDB, rule="MSG-11"):
    """A column like the others: it is stored, and nobody compares."""

    def _upsert_guarded(self, session_id, rows):
        for row in rows:
            self._execute(
                "UPDATE director_conversations SET revision = NULL"
                " WHERE session_id = ? AND msg_id = ? AND NOT ?",
                *(session_id, row.row.msg_id, row.if_absent),
            )
        return super()._upsert_guarded(session_id, rows)


class EqualRevisionReplaces(BrokenDB, rule="MSG-11"):
    """``>=`` for ``>``: a call that is made twice, or two with one number, both take effect."""

    def _upsert_guarded(self, session_id, rows):
        for guarded in rows:
            if guarded.revision is not None and not guarded.if_absent:
                self._execute(
                    "UPDATE director_conversations SET revision = NULL"
                    " WHERE session_id = ? AND msg_id = ? AND revision = ?",
                    *(session_id, guarded.row.msg_id, guarded.revision),
                )
        return super()._upsert_guarded(session_id, rows)


class NoRevisionIsZero(BrokenDB, rule="MSG-11"):
    """``revision or 0``: a message without one takes no negative one, and none of 0."""

    def _upsert_guarded(self, session_id, rows):
        self._execute(
            "UPDATE director_conversations SET revision = 0"
            " WHERE session_id = ? AND revision IS NULL",
            session_id,
        )
        return super()._upsert_guarded(session_id, rows)


class PlainWriteForgetsTheRevision(BrokenDB, rule="MSG-11"):
    """A call that names no revision stores null, and a late write is late no more."""

    def _upsert_messages(self, session_id, rows):
        found = super()._upsert_messages(session_id, rows)
        for row in rows:
            self._execute(
                "UPDATE director_conversations SET revision = NULL"
                " WHERE session_id = ? AND msg_id = ?",
                *(session_id, row.msg_id),
            )
        return found


class PlainWriteIsHeldBack(BrokenDB, rule="MSG-11"):
    """Once a message has a revision, only writes with one reach it."""

    def _upsert_messages(self, session_id, rows):
        stored = [self._select_message(session_id, row.msg_id) for row in rows]
        if all(found is not None and StoredMessage._make(found).revision for found in stored):
            return True
        return super()._upsert_messages(session_id, rows)


class AbsentReplaces(BrokenDB, rule="MSG-11"):
    """`if_absent` is taken for a hint: an upsert inserts what is absent."""

    def _upsert_guarded(self, session_id, rows):
        return super()._upsert_guarded(session_id, [row._replace(if_absent=False) for row in rows])


class AbsentIfNotNewer(BrokenDB, rule="MSG-11"):
    """A higher revision goes before `if_absent`."""

    def _upsert_guarded(self, session_id, rows):
        rows = [row._replace(if_absent=row.if_absent and row.revision is None) for row in rows]
        return super()._upsert_guarded(session_id, rows)


class HeldBackAnswersTrue(BrokenDB, rule="MSG-11"):
    """The call went well, so it says True."""

    def _upsert_guarded(self, session_id, rows):
        answers = super()._upsert_guarded(session_id, rows)
        return None if answers is None else [True] * len(answers)


class HeldBackIsActivity(BrokenDB, rule="MSG-11"):
    """The session's row is locked by an update that moves its time, whatever comes of the write."""

    def _upsert_guarded(self, session_id, rows):
        self._execute(
            "UPDATE director_sessions SET updated_at = max(updated_at, ?) WHERE session_id = ?",
            *(max(guarded.row.updated_at for guarded in rows), session_id),
        )
        return super()._upsert_guarded(session_id, rows)


class GuardedIsNoActivity(BrokenDB, rule="MSG-11"):
    """A path of its own, in which the session's time was forgotten."""

    def _upsert_guarded(self, session_id, rows):
        before = self._select_session(session_id)
        answers = super()._upsert_guarded(session_id, rows)
        if before is not None:
            self._execute(
                "UPDATE director_sessions SET updated_at = ? WHERE session_id = ?",
                *(before.updated_at, session_id),
            )
        return answers


class OneHoldsBackAll(BrokenDB, rule="MSG-11"):
    """All or none, so that a bulk with a late message is not stored."""

    def _upsert_guarded(self, session_id, rows):
        for guarded in rows:
            found = self._select_message(session_id, guarded.row.msg_id)
            stored = None if found is None else StoredMessage._make(found).revision
            late = stored is not None and guarded.revision is not None
            if late and guarded.revision <= stored:
                return [False] * len(rows)
        return super()._upsert_guarded(session_id, rows)


class GuardedByWhatWasBeforeTheBulk(BrokenDB, rule="MSG-11"):
    """The stored revisions are read once, before the first message of the bulk."""

    def _upsert_guarded(self, session_id, rows):
        known = {row.row.msg_id: self._select_message(session_id, row.row.msg_id) for row in rows}
        answers = []
        for guarded in rows:
            found = known[guarded.row.msg_id]
            stored = None if found is None else StoredMessage._make(found).revision
            late = None not in {stored, guarded.revision} and guarded.revision <= stored
            answers.append(not late and not (found is not None and guarded.if_absent))
            if answers[-1] and not super()._upsert_messages(session_id, [guarded.row]):
                return None
            if answers[-1]:
                self._execute(
                    "UPDATE director_conversations SET revision = coalesce(?, revision)"
                    " WHERE session_id = ? AND msg_id = ?",
                    *(guarded.revision, session_id, guarded.row.msg_id),
                )
        return answers


class RevisionIsNotRead(BrokenDB, rule="MSG-11"):
    """It guards, and no one can see where a message stands."""

    def get_message(self, session_id, msg_id):
        found = super().get_message(session_id, msg_id)
        return found and {**found, "revision": None}


class AnyNumberIsARevision(BrokenDB, rule="MSG-11"):
    """``int(revision)`` takes 1.0, True and "1"."""

    def add_or_update_msg_to_conv(self, *args, revision=None, **kwargs):
        if isinstance(revision, (float, bool, str)):
            revision = int(revision)
        return super().add_or_update_msg_to_conv(*args, revision=revision, **kwargs)


class ChecksBeforeItLocks(BrokenDB, rule="MSG-11", level="concurrent"):
    """It reads the stored revision, and then writes: of two at once, the lower one may stay."""

    def _upsert_guarded(self, session_id, rows):
        allowed = []
        for guarded in rows:
            found = self._select_message(session_id, guarded.row.msg_id)
            stored = None if found is None else StoredMessage._make(found).revision
            late = None not in {stored, guarded.revision} and guarded.revision <= stored
            allowed.append(not late and not (found is not None and guarded.if_absent))
        travel()
        for guarded, is_allowed in zip(rows, allowed, strict=True):
            if is_allowed:
                if not super()._upsert_messages(session_id, [guarded.row]):
                    return None
                self._execute(
                    "UPDATE director_conversations SET revision = ?"
                    " WHERE session_id = ? AND msg_id = ?",
                    *(guarded.revision, session_id, guarded.row.msg_id),
                )
        return allowed
