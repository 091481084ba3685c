"""The operations on sessions (SES-1 to SES-8, DEL-2)."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, cast, final

from director_db.checks import (
    PAGE,
    flag,
    lookup_id,
    optional_text,
    page_limit,
    page_size,
    required_id,
    session_changes,
    session_cursor,
    session_row,
)
from director_db.context.memory import memory
from director_db.errors import BackendUnavailableError, InvalidRecordError, SessionNotFoundError
from director_db.instance import Instance, operation
from director_db.records import DeleteResult, Session, session_record
from director_db.rows import UNSET, DeletedComponents, SaveOutcome, SessionQuery, Unset
from director_db.session_change import SessionChange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class SessionOperations(Instance):
    """The part of `BaseDB` that stores sessions."""

    @final
    @operation
    def create_session(
        self,
        /,
        session_id: str,
        video_id: str | None = None,
        collection_id: str | None = None,
        created_at: int | None = None,
        updated_at: int | None = None,
        metadata: Any = None,
        user_id: str | None = None,
        **_ignored: object,
    ) -> bool:
        """Store a session; one that exists already stays as it is (SES-1, SES-2).

        Args:
            session_id: 1 to 255 characters (VAL-4).
            video_id: 0 to 255 characters, or None.
            collection_id: 0 to 255 characters, or None.
            created_at: int seconds since the epoch; None means now (VAL-5).
            updated_at: int seconds since the epoch; None means now.
            metadata: any JSON value; None means ``{}`` (VAL-8).
            user_id: 0 to 255 characters, or None.
            _ignored: other keywords are ignored, so that callers can pass ``**self.__dict__``.

        Returns:
            True if this call created the session, False if it was there. A backend of contract 1.0
            cannot tell, and returns None.

        Raises:
            InvalidRecordError: a value breaks one of these bounds; nothing is stored.
        """
        row = session_row(
            session_id, video_id, collection_id, created_at, updated_at, metadata, user_id
        )
        return self._insert_session(row)

    @final
    @operation
    def get_session(self, session_id: str) -> Session | dict[str, Any]:
        """Return the session, ``{}`` if there is none (SES-3).

        Returns:
            A dict with exactly ``session_id, video_id, collection_id, created_at, updated_at,
            metadata, user_id, version``. The last is a text for `update_session` (SES-8).
        """
        wanted = lookup_id(session_id)
        row = None if wanted is None else self._select_session(wanted)
        return {} if row is None else session_record(row)

    @final
    @operation
    def get_sessions(
        self,
        *,
        limit: int | None = None,
        before: Mapping[str, Any] | None = None,
        video_id: str | None = None,
        collection_id: str | None = None,
        user_id: str | None = None,
    ) -> list[Session]:
        """Return sessions by last activity, the latest first (SES-4, SES-6).

        The order is ``updated_at``, then ``created_at``, then ``session_id``, all descending.

        Args:
            limit: the most sessions to return, at least 1; None for all.
            before: the last session of the page before, as returned; what follows it is returned,
                also if it was deleted meanwhile.
            video_id: only sessions of this video; None for any.
            collection_id: only sessions of this collection; None for any.
            user_id: only sessions of this user; None for any.

        Raises:
            InvalidRecordError: `limit` is below 1, or `before` is no session.
        """
        rows_limit = page_limit(limit)
        cursor = session_cursor(before)
        try:
            video = optional_text(video_id, "video_id")
            collection = optional_text(collection_id, "collection_id")
            user = optional_text(user_id, "user_id")
        except InvalidRecordError:
            return []  # No session can have such an id (VAL-4).
        query = SessionQuery(rows_limit, cursor, video, collection, user)
        return [session_record(row) for row in self._select_sessions(query)]

    @final
    def iter_sessions(
        self,
        *,
        video_id: str | None = None,
        collection_id: str | None = None,
        user_id: str | None = None,
        page: int = PAGE,
    ) -> Iterator[Session]:
        """Return sessions one by one by last activity, the latest first, read in pages (SES-7).

        They are the records of `get_sessions`, for what is too long for one list. Each page is read
        when its first session is asked for; so is what is raised. A session whose `updated_at` does
        not change meanwhile comes once, whatever is deleted.

        Args:
            video_id: only sessions of this video; None for any.
            collection_id: only sessions of this collection; None for any.
            user_id: only sessions of this user; None for any.
            page: how many to read at once, at least 1.

        Raises:
            InvalidRecordError: `page` is below 1.
        """
        pages = self._session_pages(
            video_id=video_id, collection_id=collection_id, user_id=user_id, page=page
        )
        return chain.from_iterable(pages)

    @final
    @operation
    def update_session(
        self,
        session_id: str,
        *,
        video_id: str | Unset | None = UNSET,
        collection_id: str | Unset | None = UNSET,
        metadata: Any = UNSET,
        updated_at: int | None = None,
        user_id: str | Unset | None = UNSET,
        merge: bool = False,
        if_version: str | Unset | None = UNSET,
    ) -> None:
        """Change the given fields of a session and no other (SES-5).

        With `merge` the metadata is a JSON merge patch: it changes the keys that it names, and
        callers who merge other keys at once lose nothing. With `if_version` nothing is changed
        where another writer came first (SES-8).

        Args:
            session_id: the session to change.
            video_id: 0 to 255 characters; None stores null.
            collection_id: 0 to 255 characters; None stores null.
            metadata: any JSON value, replaced whole; None stores ``{}`` (VAL-8).
            updated_at: int seconds since the epoch; None means now.
            user_id: 0 to 255 characters; None stores null.
            merge: whether `metadata`, if it is a dict, is merged into the stored (RFC 7396): null
                removes a key, a dict is merged into that of its key, anything else replaces.
            if_version: the version that `get_session` gave; None is that of no session. Left out,
                whatever is stored is changed.

        Raises:
            InvalidRecordError: a value breaks one of these bounds, or the merged metadata do.
            SessionNotFoundError: there is no such session.
            ConflictError: the session has another version than `if_version`; nothing is changed.
        """
        changes = session_changes(video_id, collection_id, metadata, updated_at, user_id)
        wanted = required_id(session_id, "session_id")
        version = UNSET if if_version is UNSET else optional_text(if_version, "if_version")
        # A patch that is no dict replaces, and so does None, which stands for an empty one.
        merges = flag(merge, "merge") and isinstance(metadata, dict)
        if merges or version is not UNSET:
            self._update_stored(wanted, SessionChange(changes, version, merge=merges))
        elif not self._update_session(wanted, changes):
            raise SessionNotFoundError(wanted)

    @final
    @operation
    def delete_session(self, session_id: str) -> DeleteResult:
        """Delete a session, its messages and its context in one transaction (DEL-2).

        Returns:
            ``(success, failed_components)``; the latter lists those of ``"conversation"``,
            ``"context"``, ``"session"`` that were not there; `success` is False only if none was.
        """
        wanted = lookup_id(session_id)
        if wanted is None:
            deleted = DeletedComponents(conversation=False, context=False, session=False)
        else:
            memory.take(self._owner, wanted)
            deleted = self._delete_session(wanted)
        failed = [name for name, there in deleted._asdict().items() if not there]
        return DeleteResult(any(deleted), failed)

    def _update_stored(self, session_id: str, change: SessionChange) -> None:
        outcome = self._change_session(session_id, change)
        if outcome is SaveOutcome.NO_SESSION:
            raise SessionNotFoundError(session_id)
        if outcome is SaveOutcome.IN_DOUBT:
            message = (
                f"{self.place}: the connection was lost while session {session_id!r} was changed, "
                "and the second try found it changed. Read it to see whether by this call."
            )
            raise BackendUnavailableError(message, maybe_applied=True)
        if change.refusal is not None:
            raise change.refusal

    def _session_pages(
        self,
        *,
        video_id: str | None = None,
        collection_id: str | None = None,
        user_id: str | None = None,
        page: int = PAGE,
    ) -> Iterator[list[Session]]:
        """Yield pages of sessions, none empty; no operation is under way between two of them."""
        limit = page_size(page)
        last = None
        while found := self.get_sessions(
            limit=limit,
            before=last,
            video_id=video_id,
            collection_id=collection_id,
            user_id=user_id,
        ):
            last = cast("Mapping[str, Any]", found[-1].copy())  # The record itself is the caller's.
            yield found
            if len(found) < limit:
                return
