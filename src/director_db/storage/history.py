"""The storage operations that contract 1.1 added: guards, and the history of a session.

A backend for an earlier version has none of them, and says so. What holds for every storage
operation is said in `director_db.storage`.
"""
# ruff: noqa: ARG002 - arguments are for those who write an operation

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING

from director_db.earlier import not_in_contract

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director_db.rows import CopyRefusal, GuardedMessage, MessageColumns, SessionCopy


class HistoryStorage(ABC):  # noqa: B024 - a part of one
    """The part of `Storage` that is there since contract 1.1."""

    def _upsert_guarded(
        self,
        session_id: str,
        rows: Sequence[GuardedMessage],
    ) -> Sequence[bool] | None:
        """Insert or update messages where their guards allow it (MSG-11).

        Otherwise as `_upsert_messages`, one row after another. The guard is checked under the lock
        of the session's row. Of a row that is held back nothing is stored, and the session's
        `updated_at` does not follow it.

        Returns:
            None if there is no such session; else for each row whether it was stored. After a
            lost connection, a row that may have been held back by an earlier try of its own is
            `BackendUnavailableError` with ``maybe_applied=True``.
        """
        raise not_in_contract(self, "revision or if_absent")

    def _select_messages_by_id(
        self,
        session_id: str,
        msg_ids: Sequence[str],
    ) -> Sequence[MessageColumns]:
        """Return those of some messages that are there, as `_select_messages` does (MSG-12).

        No id comes twice. All are of one moment, oldest place first.
        """
        raise not_in_contract(self, "get_messages")

    def _pop_message(
        self,
        session_id: str,
        conv_id: str | None,
    ) -> MessageColumns | None:
        """Delete the last message of a session, by its place, and return it (MSG-13).

        With a `conv_id`, the last one that has it. None if there is no such message. It is
        found and deleted under the lock of the session's row: nobody else gets it, and it was the
        last at that moment. Not to be tried again where it may have happened.
        """
        raise not_in_contract(self, "pop_message")

    def _replace_messages(
        self,
        session_id: str,
        rows: Sequence[GuardedMessage],
    ) -> bool:
        """Replace all messages of a session; False if there is no such session (MSG-14).

        The rows, perhaps none, have an id each and stand in the order of their new places, which
        are behind all that the session has given so far. What has an id that is there keeps its
        `created_at` unless the row has `created_at_given`, and its revision where the row has none;
        guards hold nothing back. The session's `updated_at` becomes the latest of itself and the
        rows'. All under the lock of the session's row. Not to be tried again where it may have
        happened: others may have stored more since.
        """
        raise not_in_contract(self, "replace_conversation")

    def _delete_messages_after(
        self,
        session_id: str,
        msg_id: str,
    ) -> int | None:
        """Delete the messages that stand behind one, and return how many they were (DEL-4).

        0 if there is no such session. None if the session exists and the message is not in it. Its
        place is found under the lock of the session's row. Not to be tried again where it may have
        happened: others may have stored more since.
        """
        raise not_in_contract(self, "delete_messages_after")

    def _copy_session(
        self,
        copy: SessionCopy,
    ) -> int | CopyRefusal:
        """Copy a session with its messages and its context; return how many messages (SES-9).

        All of one moment, and in one transaction; it is best done in the database, as a session may
        be long. Each message keeps its place, its times and its revision; so does the counter of
        places, behind which the copy goes on. With `copy.until`, messages up to that one, and no
        context.

        Returns:
            `NO_SESSION` if there is no such session; else `NO_MESSAGE` if `copy.until` is not in
            it; else `TAKEN` if there is a session `copy.to`. None of these changes anything. Not to
            be tried again where it may have happened: others may have changed both sessions since.
        """
        raise not_in_contract(self, "copy_session")
