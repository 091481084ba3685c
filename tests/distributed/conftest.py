"""A Citus cluster that the environment names; without one, these tests are skipped.

Also in CI, where other missing servers make tests fail: the extension comes from no registry that
the tests may use. ``DIRECTOR_DB_TEST_CITUS_DSN`` names a database on the coordinator, in which each
test has a schema of its own. Where ``DIRECTOR_DB_TEST_CITUS_NODES`` lists the data folders of its
nodes, the coordinator's first, the tests kill them and start them again as they were started last
(``postmaster.opts``), as root or as the user that they run as. So it is no cluster that anybody
else needs.
"""

from __future__ import annotations

import os
import secrets

import psycopg
import pytest
from psycopg import sql

from director_db_conformance.citus_place import DSN_VARIABLE, REMEDY, cluster_nodes
from director_db_postgres import PostgresDB


@pytest.fixture(scope="session")
def dsn():
    """The URL of the database on the coordinator."""
    try:
        return os.environ[DSN_VARIABLE]
    except KeyError:
        pytest.skip(f"No Citus cluster for the tests. {REMEDY}")


@pytest.fixture
def nodes(dsn):
    """The nodes, the coordinator first, to be killed; all run again after the test."""
    nodes = cluster_nodes()
    if not nodes:
        pytest.skip(f"No nodes that may be killed. {REMEDY}")
    yield nodes
    for node in nodes:
        node.start()


@pytest.fixture
def schema(dsn):
    """The name of a schema, which goes with all that is in it."""
    name = f"director_db_test_{secrets.token_hex(8)}"
    yield name
    with psycopg.connect(dsn, autocommit=True) as connection:
        drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name))
        connection.execute(drop)


@pytest.fixture
def db(dsn, schema):
    """An instance whose tables are there, and not distributed yet."""
    with PostgresDB(dsn, schema=schema) as db:
        db.health()
        yield db
