"""The operations on the history of a session: taking back, rewriting, copying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from director_db.checks import (
    lookup_id,
    message_rows,
    optional_text,
    required_id,
    session_copy,
    unknown_message,
)
from director_db.errors import InvalidRecordError, SessionExistsError, SessionNotFoundError
from director_db.instance import Instance, operation
from director_db.records import message_records
from director_db.rows import CopyRefusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from director_db.records import Message
    from director_db.rows import GuardedMessage


class HistoryOperations(Instance):
    """The part of `BaseDB` that takes messages back, and makes new histories of old ones."""

    @final
    @operation
    def pop_message(self, session_id: str, *, conv_id: str | None = None) -> Message | None:
        """Delete the last message of a session and return it, to one of all who ask (MSG-13).

        The others keep their places, and the session its last activity (SES-6).

        Args:
            session_id: the session; one that does not exist has no messages.
            conv_id: the conversation whose last message is wanted; None for any.

        Returns:
            The message as `get_message` gives it; None if there is none.

        Raises:
            BackendUnavailableError: with `maybe_applied`, the message may be deleted and have been
                given to nobody; what is stored shows it.
        """
        wanted = lookup_id(session_id)
        try:
            conversation = optional_text(conv_id, "conv_id")
        except InvalidRecordError:
            return None  # No message can have such an id (VAL-4).
        row = None if wanted is None else self._pop_message(wanted, conversation)
        return None if row is None else message_records((row,))[0]

    @final
    @operation
    def replace_conversation(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> int:
        """Replace all messages of a session by these, in one step (MSG-14).

        Whoever reads sees all of the old ones or all of the new. These have new places, in their
        order. One whose id was there keeps its `created_at` and its `revision`, unless they are
        given. No `revision` and no `if_absent` holds anything back. The session's `updated_at`
        follows what is stored (SES-6); its context stays.

        Args:
            session_id: the session, which must exist (MSG-5).
            messages: dicts as for `add_or_update_msgs_to_conv`; an empty list leaves none.

        Returns:
            How many messages the session has now.

        Raises:
            InvalidRecordError: a message is not as described; the path starts ``messages[2]``.
            SessionNotFoundError: there is no such session.
            BackendUnavailableError: with `maybe_applied`, they may be replaced or not.
        """
        wanted = required_id(session_id, "session_id")
        rows: dict[str, GuardedMessage] = {}
        for new in message_rows(wanted, messages):
            before = rows.get(new.row.msg_id)
            if before is not None:
                row, revision, _ = new
                revision = before.revision if revision is None else revision
                rows[row.msg_id] = before._replace(row=row.over(before.row), revision=revision)
            else:
                rows[new.row.msg_id] = new
        if not self._replace_messages(wanted, [*rows.values()]):
            raise SessionNotFoundError(wanted)
        return len(rows)

    @final
    @operation
    def delete_messages_after(self, session_id: str, msg_id: str) -> int:
        """Delete all messages that stand behind one, which stays; say how many (DEL-4).

        What counts is the place (MSG-3), whatever their times and conversations. The others keep
        their places, and the session its last activity (SES-6).

        Args:
            session_id: the session; one that does not exist has no messages.
            msg_id: the message to go back to.

        Raises:
            InvalidRecordError: the session exists, and the message is not in it; to delete nothing
                then would look as if it were the last.
            BackendUnavailableError: with `maybe_applied`, they may be deleted or not.
        """
        wanted, message = lookup_id(session_id), lookup_id(msg_id)
        if wanted is None:
            return 0
        if message is not None:
            deleted = self._delete_messages_after(wanted, message)
        else:
            deleted = 0 if self._select_session(wanted) is None else None
        if deleted is None:
            raise unknown_message("msg_id", msg_id)
        return deleted

    @final
    @operation
    def copy_session(self, session_id: str, to: str, *, until: str | None = None) -> int:
        """Make a new session of one that exists, with all that is in it (SES-9).

        The copy has the session's fields and metadata, its messages in their places, with their
        times and revisions, and its context. It is created now: that is its `created_at` and its
        `updated_at`. Both are of one moment, whoever writes meanwhile; from then on neither knows
        of the other.

        Args:
            session_id: the session to copy.
            to: the id of the copy, 1 to 255 characters; no session may have it.
            until: the last message to copy; then the context, which may tell of later ones, is not
                copied. None copies everything.

        Returns:
            How many messages were copied.

        Raises:
            SessionNotFoundError: there is no session `session_id`.
            InvalidRecordError: a value breaks a bound, or the message `until` is not in it.
            SessionExistsError: there is a session `to` already; it stays as it is.
            BackendUnavailableError: with `maybe_applied`, the copy may have been made.
        """
        copy = session_copy(session_id, to, until)
        copied = self._copy_session(copy)
        if copied is CopyRefusal.NO_SESSION:
            raise SessionNotFoundError(copy.session_id)
        if copied is CopyRefusal.NO_MESSAGE:
            raise unknown_message("until", copy.until)
        if copied is CopyRefusal.TAKEN:
            raise SessionExistsError(copy.to)
        return copied
