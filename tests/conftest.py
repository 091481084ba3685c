"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os

import pytest

import director_db
from director_db_conformance.pgbouncer import PgBouncer
from director_db_conformance.postgres_place import PGBOUNCER_VARIABLE

pytest_plugins = ["director_db_conformance.fixtures"]

# For type checkers; running it would use a database.
collect_ignore = ["typing"]

# What a developer's own shell says must not change what the tests see.
_SETTINGS = (
    "DB_TYPE",
    "SQLITE_DB_PATH",
    "SQLITE_SYNCHRONOUS",
    "SQLITE_OPERATION_TIMEOUT",
    "DATABASE_URL",
    "DIRECTOR_DB_MIGRATE",
)


@pytest.fixture
def postgres_environment(postgres_database):
    """What opens an empty Postgres database, through PgBouncer if the run asks for that."""
    if PGBOUNCER_VARIABLE not in os.environ:
        yield postgres_database.environment
        return
    with PgBouncer(postgres_database) as pooler:
        yield pooler.environment


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in os.environ:
        if name in _SETTINGS or name.startswith("POSTGRES_"):
            monkeypatch.delenv(name)
    yield
    director_db.close_all()
