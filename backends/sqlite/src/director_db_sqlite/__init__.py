"""The SQLite backend of director-db, the reference for all others."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from director_db_sqlite.db import SQLiteDB

__all__ = ["SQLiteDB"]


# Not for type checkers, to whom every misspelt name would be in this module.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # The plugin module lies in this package and must be importable without the driver.
        if name == "SQLiteDB":
            from director_db_sqlite.db import SQLiteDB  # noqa: PLC0415

            return SQLiteDB
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
