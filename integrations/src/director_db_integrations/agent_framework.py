"""Histories of Microsoft's Agent Framework: ``context_providers=[DirectorHistoryProvider()]``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db import SessionNotFoundError
from director_db_integrations.database import async_database
from director_db_integrations.extras import extra
from director_db_integrations.messages import message, unique_id

with extra("agent-framework"):
    from agent_framework import HistoryProvider, Message

    # Not public, but what the framework's own providers for databases use.
    from agent_framework._sessions import filter_new_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director_db import BaseDB
    from director_db.asyncio import AsyncDB

__all__ = ["DirectorHistoryProvider"]

FRAMEWORK: Final = "agent-framework"
"""What `metadata` of the sessions that are created here has under ``framework``."""

_STORED: Final = "stored"
"""What the state of a session has once it has been seen in the database."""


class DirectorHistoryProvider(HistoryProvider):
    """Keeps the histories of the framework's sessions as sessions of director-db.

    A message of the framework is the `content` of a message, its role the `msg_type`, and the
    message's id begins with its `message_id`. The `source_id` is the `conv_id`, so that several
    providers, as one for the model and one for an audit, share a session and nothing else.

    One provider serves all sessions, and any number of processes may do so at once. A cancelled
    call is stored whole or not at all when CancelledError is raised (LIF-7).

    Attributes:
        source_id: which history of a session this is.
        skip_excluded: whether what a compaction has marked as excluded is left out in reading.
    """

    DEFAULT_SOURCE_ID: Final = "director_db"
    DEFAULT_SESSION_ID: Final = "default"

    def __init__(
        self,
        source_id: str = DEFAULT_SOURCE_ID,
        db: AsyncDB | BaseDB | None = None,
        *,
        skip_excluded: bool = False,
        **options: Any,
    ) -> None:
        """Name a history; nothing is opened.

        Args:
            source_id: which history of each session it is, 0 to 255 characters.
            db: where it is, of `director_db.asyncio` or not; None is what ``DB_TYPE`` names. It is
                not closed here.
            skip_excluded: leave out what is marked as excluded, as the framework's own do.
            options: of `HistoryProvider`: `load_messages`, `store_inputs`, `store_outputs`,
                `store_context_messages`, `store_context_from`.
        """
        super().__init__(source_id, **options)
        self.skip_excluded = skip_excluded
        self._db = async_database(db)

    async def get_messages(
        self, session_id: str | None, *, state: dict[str, Any] | None = None, **_: Any
    ) -> list[Message]:
        """Return the messages of a session, oldest first; one round trip.

        Args:
            session_id: the session; None is the session ``default``.
            state: the provider's, of the framework's session.
        """
        messages = await self._db.run(partial(self._read, _name(session_id), None))
        if messages and state is not None:
            state[_STORED] = True
        if not self.skip_excluded:
            return messages
        return [each for each in messages if not each.additional_properties.get("_excluded")]

    def _read(self, name: str, limit: int | None, db: BaseDB) -> list[Message]:
        rows = db.get_conversations(name, conv_id=self.source_id, limit=limit)
        return [Message.from_dict(row["content"]) for row in rows]

    async def save_messages(
        self,
        session_id: str | None,
        messages: Sequence[Message],
        *,
        state: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Store messages behind those that are there, all or none; two round trips.

        As the framework's own providers do, it leaves out those with which `messages` begins and
        the history ends, as a caller may give a whole transcript. A session that is not there is
        created, but for one that `state` has seen: what comes late does not bring it back (MSG-5).

        Args:
            session_id: the session, 1 to 255 characters; None is the session ``default``.
            messages: what to store.
            state: the provider's, of the framework's session.

        Raises:
            InvalidRecordError: a message is no JSON value, with its path; nothing is stored.
            SessionNotFoundError: the session was deleted meanwhile.
        """
        if not messages:
            return
        known = bool(state and state.get(_STORED))
        stored: list[bool] = []
        save = partial(self._save, _name(session_id), [*messages], stored, is_known=known)
        try:
            await self._db.run(save)
        finally:  # Also where it was cancelled, and carried out.
            if stored and state is not None:
                state[_STORED] = True

    def _save(
        self, name: str, messages: list[Message], stored: list[bool], db: BaseDB, *, is_known: bool
    ) -> None:
        # One more than can be the same tells a longer history from one that is all of them.
        known = self._read(name, len(messages) + 1, db)
        rows = [self._message(each) for each in filter_new_messages(known, messages)]
        if not rows:
            return
        try:
            db.add_or_update_msgs_to_conv(name, rows)
        except SessionNotFoundError:
            if known or is_known:
                raise
            db.create_session(name, metadata={"framework": FRAMEWORK})
            db.add_or_update_msgs_to_conv(name, rows)
        stored.append(True)

    def _message(self, said: Message) -> dict[str, Any]:
        return message(unique_id(said.message_id), said.role, said.to_dict()) | {
            "conv_id": self.source_id,
            "agents": [said.author_name] if said.author_name else [],
        }


def _name(session_id: str | None) -> str:
    return session_id or DirectorHistoryProvider.DEFAULT_SESSION_ID
