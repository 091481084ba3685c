"""What the entry point names: the hooks of the SQLite backend. Imports no driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director_db.hookspecs import BackendSpec, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from director_db.testing import Place


@hookimpl
def director_db_backend() -> BackendSpec:
    """Offer SQLite."""
    return BackendSpec(
        "sqlite",
        "director_db_sqlite.db:SQLiteDB",
        "SQLite, in one file; no server needed",
        ("sqlite",),
    )


@hookimpl
def director_db_provision(directory: Path) -> Place:
    """Provide a file that does not exist yet."""
    from director_db_sqlite.provision import provision  # noqa: PLC0415 - for tests only

    return provision(directory)
