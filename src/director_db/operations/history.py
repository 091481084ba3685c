"""The operations on the history of a session: taking back, rewriting, copying."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from director_db.checks import lookup_id, optional_text
from director_db.errors import InvalidRecordError
from director_db.instance import Instance, operation
from director_db.records import message_records

if TYPE_CHECKING:
    from director_db.records import Message


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
