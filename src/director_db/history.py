"""The storage operations on the history of a session: what is taken back, rewritten or copied.

All are new in contract 1.1; one for an earlier version has none of them, and says so. What holds
for every storage operation is said in `director_db.storage`.
"""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING

from director_db.earlier import later

if TYPE_CHECKING:
    from director_db.rows import MessageColumns


class HistoryStorage(ABC):  # noqa: B024 - a part of one
    """The part of `Storage` that is there since contract 1.1."""

    def _pop_message(
        self,
        session_id: str,  # noqa: ARG002 - for those who have it
        conv_id: str | None,  # noqa: ARG002 - for those who have it
    ) -> MessageColumns | None:
        """Delete the last message of a session, by its place, and return it (MSG-13).

        With a `conv_id`, the last one of that conversation. None if there is no such message. It is
        found and deleted under the lock of the session's row: nobody else gets it, and it was the
        last at that moment. Not to be tried again where it may have happened.
        """
        raise later(self, "pop_message")
