"""What the entry point names: the hook of the Postgres backend. Imports no driver."""

from __future__ import annotations

from director_db.hookspecs import BackendSpec, hookimpl


@hookimpl
def director_db_backend() -> BackendSpec:
    """Offer Postgres."""
    return BackendSpec(
        "postgres",
        "director_db_postgres.db:PostgresDB",
        "PostgreSQL, for several processes and machines",
        ("postgresql", "postgres"),
    )
