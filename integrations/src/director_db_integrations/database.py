"""The database that an integration was given, or has to open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from director_db import BaseDB
from director_db.asyncio import AsyncDB, async_db, load_db

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director_db import Message, Session

_AT_ONCE: Final = 8
"""How many sessions are read at once, so that other callers of the database have their turn."""


def async_database(db: AsyncDB | BaseDB | None) -> AsyncDB:
    """Return a database for coroutines; without one, that which ``DB_TYPE`` names.

    It stays its owner's: nothing here closes it, and without one it is the shared instance of the
    process.
    """
    if db is None:
        return load_db()
    return async_db(db) if isinstance(db, BaseDB) else db


async def message_of_each(db: AsyncDB, sessions: Sequence[Session], msg_id: str) -> list[Message]:
    """Return that message of each session that has it, in their order."""
    found: list[Any] = []
    for start in range(0, len(sessions), _AT_ONCE):
        names = [session["session_id"] for session in sessions[start : start + _AT_ONCE]]
        read = await asyncio.gather(*[db.get_message(name, msg_id) for name in names])
        found += [each for each in read if each]
    return found


async def content_of_each(db: AsyncDB, sessions: Sequence[Session], msg_id: str) -> list[Any]:
    """Return the content of that message of each session that has it, in their order."""
    return [each["content"] for each in await message_of_each(db, sessions, msg_id)]
