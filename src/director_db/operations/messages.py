"""The operations on messages (MSG-1 to MSG-12)."""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, final

from director_db.checks import (
    PAGE,
    lookup_id,
    lookup_ids,
    message_guards,
    message_part,
    message_query,
    message_row,
    message_rows,
    page_size,
    required_id,
    unknown_cursor,
)
from director_db.errors import InvalidRecordError, SessionNotFoundError
from director_db.instance import Instance, operation
from director_db.records import Message, message_records
from director_db.rows import MessageQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from director_db.rows import GuardedMessage, MessageRow


def checked_message(
    session_id: object,
    conv_id: object,
    msg_id: object,
    msg_type: object,
    agents: object,
    actions: object,
    content: object,
    status: object = None,
    created_at: object = None,
    updated_at: object = None,
    metadata: object = None,
    **_ignored: object,
) -> tuple[str, MessageRow]:
    """Check a message to store, without guards, and its session's id.

    The arguments are those of `BaseDB.add_or_update_msg_to_conv`.
    """
    wanted = required_id(session_id, "session_id")
    row = message_row(
        conv_id,
        msg_id,
        msg_type,
        agents,
        actions,
        content,
        status,
        created_at,
        updated_at,
        metadata,
    )
    return wanted, row


def _store_alone(session_id: str, store: Callable[[], bool]) -> bool:
    if not store():
        raise SessionNotFoundError(session_id)
    return True


class MessageOperations(Instance):
    """The part of `BaseDB` that stores messages."""

    @final
    @operation
    def add_or_update_msg_to_conv(
        self,
        /,
        session_id: str,
        conv_id: str | None,
        msg_id: str,
        msg_type: str,
        agents: Any,
        actions: Any,
        content: Any,
        status: str | None = None,
        created_at: int | None = None,
        updated_at: int | None = None,
        metadata: Any = None,
        *,
        revision: int | None = None,
        if_absent: bool = False,
        **_ignored: object,
    ) -> bool:
        """Insert a message, or replace every field of the one with this id (MSG-1).

        An update keeps the message's place in the conversation (MSG-3) and, unless `created_at` is
        given, its `created_at` (MSG-2). The session's `updated_at` follows (SES-6).

        With `revision` or `if_absent`, nothing is changed where a message is there that is as new
        (MSG-11): a late write cannot undo a later one.

        Args:
            session_id: the session, which must exist (MSG-5).
            conv_id: the conversation, 0 to 255 characters or None.
            msg_id: 1 to 255 characters, unique in its session (MSG-4).
            msg_type: usually ``"input"`` or ``"output"``; 0 to 255 characters.
            agents: any JSON value.
            actions: any JSON value.
            content: any JSON value.
            status: 0 to 255 characters, or None; a `str` Enum is stored as its value.
            created_at: int seconds since the epoch; None keeps the stored one, or means now.
            updated_at: int seconds since the epoch; None means now.
            metadata: any JSON value; None means ``{}``.
            revision: an int of 64 bits, which grows with each version of the message; None stores
                in any case, and leaves the stored one.
            if_absent: store only where there is no message with this id.
            _ignored: other keywords are ignored, so that callers can pass ``**self.__dict__``.

        Returns:
            True if it was stored, False if `revision` or `if_absent` held it back.

        Raises:
            InvalidRecordError: a value has no exact form, with its path as ``content[0].score``.
            SessionNotFoundError: there is no such session; nothing is stored.
        """
        wanted, row = checked_message(
            session_id,
            conv_id,
            msg_id,
            msg_type,
            agents,
            actions,
            content,
            status,
            created_at,
            updated_at,
            metadata,
        )
        if revision is None and if_absent is False:
            if not self._upsert_messages(wanted, (row,)):
                raise SessionNotFoundError(wanted)
            return True
        return self._store_guarded(wanted, [message_guards(row, revision, if_absent)])[0]

    @final
    @operation
    def _store_together(
        self, messages: Sequence[tuple[str, MessageRow]]
    ) -> list[bool | Callable[[], bool]]:
        """Store messages of several callers; each is an operation of its own (see `awaited`).

        Returns:
            For each True if it is stored, False if it has not begun; else what is left of its
            operation, to be called in another thread. It is in flight until that has ended.
        """
        # One answer too few or too many is told before anything else begins.
        each = list(zip(self._upsert_together(messages), messages, strict=True))
        return [
            answer
            if isinstance(answer, bool)
            else self._still_in_flight(partial(_store_alone, session_id, answer))
            for answer, (session_id, _) in each
        ]

    @final
    @operation
    def add_or_update_msgs_to_conv(
        self, session_id: str, messages: Sequence[Mapping[str, Any]]
    ) -> list[bool]:
        """Insert or update messages, all or none, as if one after another (MSG-7).

        Args:
            session_id: the session of all of them, which must exist.
            messages: dicts with the arguments of `add_or_update_msg_to_conv` but `session_id`. An
                id may come twice. Their payloads together come to at most 256 MiB. An empty list
                only checks that the session exists.

        Returns:
            For each message whether it was stored, or held back by its `revision` or `if_absent`
            (MSG-11), which does not keep the others from being stored.

        Raises:
            InvalidRecordError: a message is not as described; the path starts ``messages[2]``.
            SessionNotFoundError: there is no such session.
        """
        wanted = required_id(session_id, "session_id")
        guarded = message_rows(wanted, messages)
        if any(each.revision is not None or each.if_absent for each in guarded):
            return self._store_guarded(wanted, guarded)
        rows = [each.row for each in guarded]
        found = self._upsert_messages(wanted, rows) if rows else self._has_session(wanted)
        if not found:
            raise SessionNotFoundError(wanted)
        return [True] * len(rows)

    @final
    @operation
    def get_conversations(
        self,
        session_id: str,
        *,
        limit: int | None = None,
        before: str | None = None,
        after: str | None = None,
        conv_id: str | None = None,
        msg_type: str | None = None,
    ) -> list[Message]:
        """Return the messages of a session, oldest first: the order of first insertion (MSG-6).

        With `conv_id` or `msg_type` those that have it, and the limit counts them alone. They are
        sought along the order, so ``limit=1`` finds the latest of a kind fast if it is not far.

        Args:
            session_id: the session; one that does not exist has no messages.
            limit: the most messages to return, at least 1; None for all.
            before: a message id; the last `limit` messages before it are returned.
            after: a message id; the first `limit` messages after it are returned. With neither, the
                last `limit` of all.
            conv_id: only messages of this conversation; None for any.
            msg_type: only messages of this type; None for any.

        Raises:
            InvalidRecordError: `before` and `after` together, a `limit` below 1, or a message id
                that is not in the session. A session that does not exist is ``[]`` first.
        """
        wanted = lookup_id(session_id)
        if wanted is None:
            return []
        part = message_part(conv_id, msg_type)
        try:
            query = message_query(wanted, limit, before, after, *(part or ()))
        except InvalidRecordError:
            if self._has_session(wanted):
                raise
            return []
        rows = self._select_messages(query)
        if rows is None:
            raise unknown_cursor(before, after)
        return [] if part is None else message_records(rows)

    @final
    def iter_conversations(
        self,
        session_id: str,
        *,
        page: int = PAGE,
        conv_id: str | None = None,
        msg_type: str | None = None,
    ) -> Iterator[Message]:
        """Return the messages of a session one by one, oldest first, read in pages (MSG-10).

        They are the records of `get_conversations`, for what is too long for one list. Each page is
        read when its first message is asked for; so is what is raised.

        If others write meanwhile: a message that was there from the beginning to the end comes
        once, in its place, also if the last message of a page is deleted, and none that was deleted
        comes after that. If that last one is stored again, the next page follows its new place.

        Args:
            session_id: the session; one that does not exist has no messages.
            page: how many to read at once, at least 1.
            conv_id: only messages of this conversation; None for any.
            msg_type: only messages of this type; None for any.

        Raises:
            InvalidRecordError: `page` is below 1. A session that does not exist has none first.
        """
        pages = self._message_pages(session_id, page=page, conv_id=conv_id, msg_type=msg_type)
        return chain.from_iterable(pages)

    @final
    @operation
    def get_message(self, session_id: str, msg_id: str) -> Message | dict[str, Any]:
        """Return one message, ``{}`` if it is not there (MSG-9)."""
        session, message = lookup_id(session_id), lookup_id(msg_id)
        if session is None or message is None:
            return {}
        row = self._select_message(session, message)
        return {} if row is None else message_records((row,))[0]

    @final
    @operation
    def get_messages(self, session_id: str, ids: Sequence[str]) -> list[Message]:
        """Return the messages with these ids, oldest first (MSG-12).

        Args:
            session_id: the session; one that does not exist has no messages.
            ids: a list of at most 100,000 message ids, in any order. One that is not there is left
                out; one that comes twice counts once.

        Raises:
            InvalidRecordError: `ids` is no list, or too long. A session that does not exist is
                ``[]`` first.
        """
        wanted = lookup_id(session_id)
        if wanted is None:
            return []
        try:
            msg_ids = lookup_ids(ids)
        except InvalidRecordError:
            if self._has_session(wanted):
                raise
            return []
        return message_records(self._select_messages_by_id(wanted, msg_ids)) if msg_ids else []

    @final
    @operation
    def delete_message(self, session_id: str, msg_id: str) -> bool:
        """Delete one message; True if it was there. The others keep their places (MSG-9)."""
        session, message = lookup_id(session_id), lookup_id(msg_id)
        if session is None or message is None:
            return False
        return self._delete_message(session, message)

    @final
    @operation
    def delete_conversation(self, session_id: str) -> bool:
        """Delete all messages of a session; True if there was one (DEL-1)."""
        wanted = lookup_id(session_id)
        return wanted is not None and self._delete_messages(wanted)

    def _message_pages(
        self,
        session_id: str,
        *,
        page: int = PAGE,
        conv_id: str | None = None,
        msg_type: str | None = None,
    ) -> Iterator[list[Message]]:
        """Yield pages of messages, none empty; no operation is under way between two of them."""
        part = message_part(conv_id, msg_type)
        is_whole = part == (None, None)
        seen: list[str] = []
        again: set[str] = set()
        cursor = None
        while True:
            found = self._page_after(session_id, page, cursor, part)
            if found is None:
                # The cursor was deleted. Any other that came may have been stored again since, and
                # so stand behind what is new: from the first message.
                again = {*seen}
                found = self._page_after(session_id, page, None, part) or []
            if is_whole:
                # Only those at the start: one that was stored again stands behind what is new.
                skipped = 0
                while skipped < len(found) and found[skipped]["msg_id"] in again:
                    skipped += 1
                new = found[skipped:]
            else:
                # In a part they may stand between others, which have been changed to belong to it.
                new = [message for message in found if message["msg_id"] not in again]
            more = bool(found) and len(found) >= page
            cursor = found[-1]["msg_id"] if found else None  # Before the records are the caller's.
            if new:
                again = set() if is_whole else again
                seen.extend(message["msg_id"] for message in new)
                yield new
            if not more:
                return

    @operation
    def _page_after(
        self,
        session_id: str,
        page: int,
        cursor: str | None,
        part: tuple[str | None, str | None] | None,
    ) -> list[Message] | None:
        """Return a page, the first one after no cursor; None if the cursor is not there."""
        wanted = lookup_id(session_id)
        if wanted is None:
            return []
        try:
            limit = page_size(page)
        except InvalidRecordError:
            if self._has_session(wanted):
                raise
            return []
        if part is None:
            return []
        if cursor is None:
            return message_records(self._select_first_messages(wanted, limit, *part))
        rows = self._select_messages(MessageQuery(wanted, limit, None, cursor, *part))
        return None if rows is None else message_records(rows)

    def _store_guarded(self, session_id: str, rows: Sequence[GuardedMessage]) -> list[bool]:
        answers = self._upsert_guarded(session_id, rows)
        if answers is None:
            raise SessionNotFoundError(session_id)
        return list(answers)

    def _has_session(self, session_id: str) -> bool:
        return self._select_session(session_id) is not None
