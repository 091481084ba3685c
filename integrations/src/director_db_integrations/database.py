"""The database that an integration was given, or has to open."""

from __future__ import annotations

from director_db import BaseDB
from director_db.asyncio import AsyncDB, async_db, load_db


def async_database(db: AsyncDB | BaseDB | None) -> AsyncDB:
    """Return a database for coroutines; without one, that which ``DB_TYPE`` names.

    It stays its owner's: nothing here closes it, and without one it is the shared instance of the
    process.
    """
    if db is None:
        return load_db()
    return async_db(db) if isinstance(db, BaseDB) else db
