"""The storage layer for AI agent applications: one contract, many databases.

``load_db()`` gives the database that ``DB_TYPE`` asks for, SQLite by default.
"""

from typing import TYPE_CHECKING

from director_db.base import CONTRACT_VERSION, BaseDB
from director_db.db_type import DBType
from director_db.errors import (
    BackendUnavailableError,
    ClosedError,
    ConfigurationError,
    ConflictError,
    DirectorDBError,
    InvalidRecordError,
    PluginError,
    SchemaError,
    SessionExistsError,
    SessionNotFoundError,
    UnknownDBTypeError,
)
from director_db.records import (
    Context,
    DeleteResult,
    Distribution,
    Health,
    Message,
    Migration,
    Session,
)
from director_db.registry import close_all, load_db
from director_db.rows import UNSET

if TYPE_CHECKING:
    from director_db.hookspecs import BackendSpec, hookimpl

__version__ = "0.1.0"

__all__ = [
    "CONTRACT_VERSION",
    "UNSET",
    "BackendSpec",
    "BackendUnavailableError",
    "BaseDB",
    "ClosedError",
    "ConfigurationError",
    "ConflictError",
    "Context",
    "DBType",
    "DeleteResult",
    "DirectorDBError",
    "Distribution",
    "Health",
    "InvalidRecordError",
    "Message",
    "Migration",
    "PluginError",
    "SchemaError",
    "Session",
    "SessionExistsError",
    "SessionNotFoundError",
    "UnknownDBTypeError",
    "__version__",
    "close_all",
    "hookimpl",
    "load_db",
]


# Not for type checkers, to whom every misspelt name would be in this module.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # pluggy is for those who write or load a plugin; importing the package need not pay for it.
        if name in {"BackendSpec", "hookimpl"}:
            from director_db import hookspecs  # noqa: PLC0415

            return getattr(hookspecs, name)
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
