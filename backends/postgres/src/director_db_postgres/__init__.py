"""The Postgres backend of director-db."""

from typing import TYPE_CHECKING

from director_db_postgres.version import __version__

if TYPE_CHECKING:
    from director_db_postgres.db import PostgresDB

__all__ = ["PostgresDB", "__version__"]


# Not for type checkers, to whom every misspelt name would be in this module.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # The plugin module lies in this package and must be importable without the driver.
        if name == "PostgresDB":
            from director_db_postgres.db import PostgresDB  # noqa: PLC0415

            return PostgresDB
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
