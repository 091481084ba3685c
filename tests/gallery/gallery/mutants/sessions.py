"""SES-1, SES-2, SES-3, SES-5, SES-6: creating, reading and changing sessions."""

from __future__ import annotations

import time

from director_db import UNSET
from director_db.checks import encode_metadata
from director_db.payload import decode_payload, encode_payload
from director_db.records import session_record
from director_db.rows import SessionChanges, SessionRow
from gallery.broken import BrokenDB, replace

INSERT = """
    INSERT {or_what} INTO director_sessions
        (session_id, video_id, collection_id, created_at, updated_at, metadata, user_id, last_seq)
    VALUES (?, ?, ?, ?, ?, ?, ?, 0) {on_conflict}
"""


# --- SES-1 --------------------------------------------------------------------------------------


class ExtraKeywordsRefused(BrokenDB, rule="SES-1"):
    """Callers pass ``**self.__dict__``; a strict signature raises TypeError."""

    def create_session(
        self,
        session_id,
        video_id=None,
        collection_id=None,
        created_at=None,
        updated_at=None,
        metadata=None,
    ):
        return super().create_session(
            session_id, video_id, collection_id, created_at, updated_at, metadata
        )


class ExtraKeywordsChecked(BrokenDB, rule="SES-1"):
    """What is dropped is encoded with the rest first, so an object in it is refused."""

    def create_session(self, session_id, *args, **kwargs):
        encode_payload(kwargs, "session")
        return super().create_session(session_id, *args, **kwargs)


class ExtraKeywordsInMetadata(BrokenDB, rule="SES-1"):
    """What has no column of its own is kept in the metadata."""

    def create_session(self, session_id, *args, metadata=None, **kwargs):
        known = ("video_id", "collection_id", "created_at", "updated_at")
        extra = {key: value for key, value in kwargs.items() if key not in known}
        if extra and not args:
            metadata = {**(metadata or {}), **extra}
        return super().create_session(session_id, *args, metadata=metadata, **kwargs)


class CollectionBeforeVideo(BrokenDB, rule="SES-1"):
    """The parameters in the order of the URL, collection first; positional callers swap them."""

    def create_session(self, session_id, collection_id=None, video_id=None, *args, **kwargs):
        return super().create_session(session_id, video_id, collection_id, *args, **kwargs)


class CreateReturnsTheSession(BrokenDB, rule="SES-1"):
    """Handy, until a caller relies on it."""

    def create_session(self, session_id, *args, **kwargs):
        super().create_session(session_id, *args, **kwargs)
        return self.get_session(session_id)


class UpdatedNotBeforeCreated(BrokenDB, rule="SES-1"):
    """An update before the creation looks impossible and is mended."""

    def _insert_session(self, row):
        row = row._replace(updated_at=max(row.created_at, row.updated_at))
        return super()._insert_session(row)


class UpdatedWhenCreated(BrokenDB, rule="SES-1"):
    """`updated_at` that is left out becomes the `created_at` that is given, not now."""

    def create_session(
        self,
        session_id,
        video_id=None,
        collection_id=None,
        created_at=None,
        updated_at=None,
        *a,
        **k,
    ):
        updated_at = created_at if updated_at is None else updated_at
        return super().create_session(
            session_id, video_id, collection_id, created_at, updated_at, *a, **k
        )


class UserIsForgotten(BrokenDB, rule="SES-1"):
    """A column that came later is not among those of the INSERT."""

    def _insert_session(self, row):
        return super()._insert_session(row._replace(user_id=None))


class EmptyUserIsNone(BrokenDB, rule="SES-1"):
    """``user_id or None``."""

    def _insert_session(self, row):
        return super()._insert_session(row._replace(user_id=row.user_id or None))


class CreateReturnsNone(BrokenDB, rule="SES-1"):
    """As it did before there was anything to return."""

    def create_session(self, session_id, *args, **kwargs):
        super().create_session(session_id, *args, **kwargs)


# --- SES-2 --------------------------------------------------------------------------------------


class _Inserts(BrokenDB):
    """Inserts in a way of its own, and says rightly whether the session was new."""

    def _insert(self, row, or_what="", on_conflict=""):
        is_new = self._select_session(row.session_id) is None
        self._execute(INSERT.format(or_what=or_what, on_conflict=on_conflict), *row)
        return is_new


class CreateSaysTrueAgain(BrokenDB, rule="SES-2"):
    """True is taken for "it is there now"."""

    def create_session(self, session_id, *args, **kwargs):
        super().create_session(session_id, *args, **kwargs)
        return True


class DuplicateCreateUpdates(_Inserts, rule="SES-2"):
    """ON CONFLICT DO UPDATE: the second create wins."""

    def _insert_session(self, row):
        on_conflict = """
            ON CONFLICT (session_id) DO UPDATE SET
                video_id = excluded.video_id, collection_id = excluded.collection_id,
                updated_at = excluded.updated_at, metadata = excluded.metadata
        """
        return self._insert(row, on_conflict=on_conflict)


class DuplicateCreateTouches(_Inserts, rule="SES-2"):
    """The session stays, but counts as active."""

    def _insert_session(self, row):
        on_conflict = """
            ON CONFLICT (session_id) DO UPDATE SET updated_at = max(updated_at, excluded.updated_at)
        """
        return self._insert(row, on_conflict=on_conflict)


class DuplicateCreateReplaces(_Inserts, rule="SES-2"):
    """INSERT OR REPLACE deletes first, and the cascade takes the messages and the context."""

    def _insert_session(self, row):
        return self._insert(row, or_what="OR REPLACE")


class DuplicateCreateRaises(_Inserts, rule="SES-2"):
    """A plain INSERT meets the primary key."""

    def _insert_session(self, row):
        return self._insert(row)


class DuplicateCreateFillsGaps(_Inserts, rule="SES-2"):
    """COALESCE: what was null takes the second create's value."""

    def _insert_session(self, row):
        on_conflict = """
            ON CONFLICT (session_id) DO UPDATE SET
                video_id = coalesce(video_id, excluded.video_id),
                collection_id = coalesce(collection_id, excluded.collection_id)
        """
        return self._insert(row, on_conflict=on_conflict)


class DuplicateCreateUnchecked(BrokenDB, rule="SES-2"):
    """Known ids return at once, before the arguments are looked at."""

    def create_session(self, session_id, *args, **kwargs):
        if self.get_session(session_id):
            return False
        return super().create_session(session_id, *args, **kwargs)


# --- SES-3 --------------------------------------------------------------------------------------


class MissingSessionIsNone(BrokenDB, rule="SES-3"):
    """``fetchone()`` is handed on."""

    def get_session(self, session_id):
        return super().get_session(session_id) or None


class SessionKeysSorted(BrokenDB, rule="SES-3"):
    """The keys in an order of their own."""

    def get_session(self, session_id):
        return dict(sorted(super().get_session(session_id).items()))


class SessionWithItsCounter(BrokenDB, rule="SES-3"):
    """SELECT *: a column for the backend's own use comes along."""

    def get_session(self, session_id):
        found = super().get_session(session_id)
        return {**found, "last_seq": 0} if found else found


class ListedSessionWithoutMetadata(BrokenDB, rule="SES-3"):
    """The list leaves the payload out, to be quick."""

    def get_sessions(self, **kwargs):
        return [
            {key: value for key, value in session.items() if key != "metadata"}
            for session in super().get_sessions(**kwargs)
        ]


# --- SES-5 --------------------------------------------------------------------------------------


class LeftOutBecomesNull(BrokenDB, rule="SES-5"):
    """None is the default of every argument, so what is left out is emptied."""

    def _update_session(self, session_id, changes):
        video, collection, metadata = (None if v is UNSET else v for v in changes[:3])
        changes = SessionChanges(video, collection, metadata or "{}", changes.updated_at)
        return super()._update_session(session_id, changes)


class NoneMeansUnchanged(BrokenDB, rule="SES-5"):
    """None means "not given", so that nothing can be set to null any more."""

    def _update_session(self, session_id, changes):
        changes = changes._replace(
            video_id=UNSET if changes.video_id is None else changes.video_id,
            collection_id=UNSET if changes.collection_id is None else changes.collection_id,
        )
        return super()._update_session(session_id, changes)


class EmptyMeansUnchanged(BrokenDB, rule="SES-5"):
    """``if video_id:`` takes an empty text for none at all."""

    def _update_session(self, session_id, changes):
        changes = changes._replace(
            video_id=UNSET if changes.video_id == "" else changes.video_id,
            collection_id=UNSET if changes.collection_id == "" else changes.collection_id,
        )
        return super()._update_session(session_id, changes)


class UserCannotBeChanged(BrokenDB, rule="SES-5"):
    """The statement of the update does not know the column that came later."""

    def _update_session(self, session_id, changes):
        return super()._update_session(session_id, changes._replace(user_id=UNSET))


class UserIsAlwaysSet(BrokenDB, rule="SES-5"):
    """A user that is left out is taken for none."""

    def _update_session(self, session_id, changes):
        user_id = None if changes.user_id is UNSET else changes.user_id
        return super()._update_session(session_id, changes._replace(user_id=user_id))


class UpdateNeverGoesBack(BrokenDB, rule="SES-5"):
    """`updated_at` as in SES-6, the larger one, where it is to be as given."""

    def _update_session(self, session_id, changes):
        found = self._select_session(session_id)
        if found is not None:
            later = max(found.updated_at, changes.updated_at)
            changes = changes._replace(updated_at=later)
        return super()._update_session(session_id, changes)


class UpdateWithoutATimeKeepsIt(BrokenDB, rule="SES-5"):
    """`updated_at` that is not given stays, and a call with the id alone does nothing."""

    def update_session(self, session_id, *, updated_at=None, **kwargs):
        if updated_at is None:
            updated_at = self.get_session(session_id).get("updated_at")
        super().update_session(session_id, updated_at=updated_at, **kwargs)


class UpdateOfNothingPasses(BrokenDB, rule="SES-5"):
    """UPDATE of no row is no error in SQL."""

    def _update_session(self, session_id, changes):
        super()._update_session(session_id, changes)
        return True


class UpdateCreates(BrokenDB, rule="SES-5"):
    """An upsert: updating a session that is missing makes one."""

    def _update_session(self, session_id, changes):
        time_given = changes.updated_at
        self._insert_session(SessionRow(session_id, None, None, time_given, time_given, "{}"))
        return super()._update_session(session_id, changes)


class UpdateMergesMetadata(BrokenDB, rule="SES-5"):
    """``{**old, **new}`` where the new value replaces the old one."""

    def _update_session(self, session_id, changes):
        found = self._select_session(session_id)
        if found is not None and changes.metadata is not UNSET:
            old, new = decode_payload(found.metadata), decode_payload(changes.metadata)
            if isinstance(old, dict) and isinstance(new, dict):
                changes = changes._replace(metadata=encode_payload({**old, **new}, "metadata"))
        return super()._update_session(session_id, changes)


class UpdateReturnsTrue(BrokenDB, rule="SES-5"):
    """It says whether a row was changed."""

    def update_session(self, session_id, **kwargs):
        super().update_session(session_id, **kwargs)
        return True


class UpdateMovesTheCreation(BrokenDB, rule="SES-5"):
    """The whole row is written again, with a new time of its creation."""

    def _update_session(self, session_id, changes):
        found = super()._update_session(session_id, changes)
        self._execute(
            "UPDATE director_sessions SET created_at = ? WHERE session_id = ?",
            changes.updated_at,
            session_id,
        )
        return found


# --- SES-6 --------------------------------------------------------------------------------------


class _KeepsActivity(BrokenDB):
    """Puts the session's `updated_at` to what `_after` says when a write is done."""

    def _after(self, before, written):
        """Return the time of the session, from its own before and those of what was written."""
        raise NotImplementedError

    def _keep(self, session_id, before, written):
        if before is not None:
            self._execute(
                "UPDATE director_sessions SET updated_at = ? WHERE session_id = ?",
                self._after(before.updated_at, written),
                session_id,
            )

    def _upsert_messages(self, session_id, rows):
        before = self._select_session(session_id)
        found = super()._upsert_messages(session_id, rows)
        self._keep(session_id, before, [row.updated_at for row in rows])
        return found


class MessageIsNoActivity(_KeepsActivity, rule="SES-6"):
    """Messages live in a table of their own, and nobody thinks of the session's."""

    def _after(self, before, written):
        return before


class ActivityGoesBack(_KeepsActivity, rule="SES-6"):
    """The last write counts, not the latest."""

    def _after(self, before, written):
        return max(written)


class ActivityOfTheLastInABulk(_KeepsActivity, rule="SES-6"):
    """The last message of a bulk counts, not the latest."""

    def _after(self, before, written):
        return max(before, written[-1])


class ActivityIsNow(_KeepsActivity, rule="SES-6"):
    """The clock counts, not the time that the caller gives."""

    def _after(self, before, written):
        return max(before, int(time.time()))


class ContextIsNoActivity(BrokenDB, rule="SES-6"):
    """Saving a context forgets the session's time."""

    incremental_contexts = False

    def _save_context(self, row, *, if_version):
        before = self._select_session(row.session_id)
        outcome = super()._save_context(row, if_version=if_version)
        if before is not None:
            self._execute(
                "UPDATE director_sessions SET updated_at = ? WHERE session_id = ?",
                before.updated_at,
                row.session_id,
            )
        return outcome


class TheSameIsNoActivity(BrokenDB, rule="SES-6"):
    """A message that is stored already, in every field, is not stored again."""

    def _upsert_messages(self, session_id, rows):
        stored = [self._select_message(session_id, row.msg_id) for row in rows]
        if all(
            found is not None and tuple(found)[:-1] == (session_id, *row.columns)
            for found, row in zip(stored, rows, strict=True)
        ):
            return True
        return super()._upsert_messages(session_id, rows)


class DeletingIsActivity(BrokenDB, rule="SES-6"):
    """A deleted message counts as activity."""

    def _delete_message(self, session_id, msg_id):
        found = super()._delete_message(session_id, msg_id)
        self._execute(
            "UPDATE director_sessions SET updated_at = ? WHERE session_id = ?",
            int(time.time()),
            session_id,
        )
        return found


class EmptyBulkIsActivity(BrokenDB, rule="SES-6"):
    """A bulk of nothing counts as activity."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        answers = super().add_or_update_msgs_to_conv(session_id, messages)
        if not messages:
            self.update_session(session_id)
        return answers


# --- VAL-8 --------------------------------------------------------------------------------------


class NoMetadataIsNull(BrokenDB, rule="VAL-8"):
    """None is a fine JSON value, so it is stored as null."""

    @classmethod
    def break_code(cls):
        replace(encode_metadata, encode_payload)


class MetadataMustBeADict(BrokenDB, rule="VAL-8"):
    """Metadata is thought to be a dict; other values come back empty."""

    @classmethod
    def break_code(cls):
        def broken(row):
            record = session_record(row)
            if not isinstance(record["metadata"], dict):
                record["metadata"] = {}
            return record

        replace(session_record, broken)
