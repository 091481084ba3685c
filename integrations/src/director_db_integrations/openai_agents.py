"""Sessions of the OpenAI Agents SDK: ``Runner.run(agent, "Hi", session=DirectorSession("s1"))``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from director_db import SessionNotFoundError
from director_db.asyncio import CARRIED_OUT
from director_db_integrations.cancelling import to_its_end
from director_db_integrations.database import async_database
from director_db_integrations.extras import extra
from director_db_integrations.openai_items import FRAMEWORK, item_message

with extra("openai-agents"):
    from agents.memory import SessionSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.items import TResponseInputItem

    from director_db import BaseDB
    from director_db.asyncio import AsyncDB

__all__ = ["DirectorSession"]


class DirectorSession:
    """A session of the SDK that is a session of director-db, its items messages there.

    It keeps the protocol `agents.memory.Session`. An item is the `content` of a message, its `role`
    the `msg_type`, or its `type` where it has none, and the message's id begins with the item's.
    That is not all of it, as the SDK may store an item twice.

    Any number of objects, in any number of processes, may be used for one session. A cancelled call
    is stored whole or not at all when CancelledError is raised (LIF-7).

    Attributes:
        session_id: the session, 1 to 255 characters.
        session_settings: its `limit` counts where `get_items` is given none.
    """

    session_id: str
    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        db: AsyncDB | BaseDB | None = None,
        *,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        """Name a session. Nothing is read or stored before the first item.

        Args:
            session_id: the session, 1 to 255 characters; `add_items` creates one that is not there.
            db: where it is, of `director_db.asyncio` or not; None is what ``DB_TYPE`` names. It is
                not closed here.
            session_settings: the SDK's; a dict is of its fields.

        Raises:
            TypeError: `session_settings` is a dict with a field that the SDK does not know.
        """
        self.session_id = session_id
        self.session_settings = SessionSettings().resolve(session_settings)
        self._db = async_database(db)
        self._known = False

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the items, oldest first; one round trip, which reads no more than it returns.

        Args:
            limit: the most items, the latest; none where it is below 1. None is the limit of
                `session_settings`, and all where that is None.
        """
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit is not None and limit < 1:
            return []
        messages = await self._db.get_conversations(self.session_id, limit=limit)
        self._known = self._known or bool(messages)
        return [each["content"] for each in messages]

    async def add_items(self, items: Sequence[TResponseInputItem]) -> None:
        """Store items behind those that are there, all or none, in one round trip.

        A session that is not there is created, which takes two more. One that was deleted after
        this object has stored in it is not: what comes late does not bring it back (MSG-5).

        Raises:
            InvalidRecordError: an item is no JSON value, with its path; nothing is stored.
            SessionNotFoundError: the session was deleted meanwhile.
        """
        if not items:
            return
        messages = [item_message(item, f"items[{number}]") for number, item in enumerate(items)]
        try:
            await self._db.add_or_update_msgs_to_conv(self.session_id, messages)
        except SessionNotFoundError:
            if self._known:
                raise
            # One operation: cancelled between the two, it would leave a session without items.
            await to_its_end(self._create(messages))
        except asyncio.CancelledError as cancelled:
            self._known = self._known or CARRIED_OUT in getattr(cancelled, "__notes__", ())
            raise
        self._known = True

    async def _create(self, messages: Sequence[dict[str, Any]]) -> None:
        await self._db.create_session(self.session_id, metadata={"framework": FRAMEWORK})
        await self._db.add_or_update_msgs_to_conv(self.session_id, messages)
        self._known = True

    async def pop_item(self) -> TResponseInputItem | None:
        """Delete the last item and return it; None if there is none. No two calls get the same.

        It takes one round trip. After a lost connection its outcome may not be known (MSG-13). One
        that is cancelled after it had begun deletes the item, unless it fails; a note of its
        `CancelledError` tells (LIF-7).

        Raises:
            BackendUnavailableError: with `maybe_applied`, where the item may have been deleted.
        """
        popped = await self._db.pop_message(self.session_id)
        self._known = self._known or popped is not None
        return cast("TResponseInputItem", popped["content"]) if popped else None

    async def clear_session(self) -> None:
        """Delete all items. The session stays, with its context and whatever else it has."""
        await self._db.delete_conversation(self.session_id)
