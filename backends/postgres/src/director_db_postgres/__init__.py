"""The Postgres backend of director-db."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from director_db_postgres.db import PostgresDB

__version__ = "0.1.0"

__all__ = ["PostgresDB", "__version__"]


def __getattr__(name: str) -> Any:
    # The plugin module lies in this package and must be importable without the driver.
    if name == "PostgresDB":
        from director_db_postgres.db import PostgresDB  # noqa: PLC0415

        return PostgresDB
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
