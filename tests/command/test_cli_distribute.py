"""The command ``distribute``: what it prints, and its exit status."""

from __future__ import annotations

import psycopg
import pytest

STUB = """
    def _distribute(self, shards):
        from director_db import Distribution
        tables = ["director_sessions", "director_items"] if shards != 5 else []
        return Distribution("13.2", 8 if shards == 5 else shards or 8, tables)
"""


def test_a_database_on_one_machine_is_refused(director_db):
    done = director_db("distribute", "--db", "sqlite:///:memory:")
    assert (2, "") == (done.returncode, done.stdout)
    expected = "Error: A database of type sqlite is on one machine; it cannot be distributed.\n"
    assert expected == done.stderr


def test_a_postgres_without_the_extension_is_refused_and_left_as_it_is(
    director_db, postgres_database
):
    done = director_db("distribute", **postgres_database.environment)
    assert (2, "") == (done.returncode, done.stdout)
    assert "is a Postgres without the extension citus" in done.stderr
    assert "CREATE EXTENSION citus" in done.stderr
    with psycopg.connect(postgres_database.dsn) as connection:
        assert (None,) == connection.execute("SELECT to_regclass('director_meta')").fetchone()


@pytest.mark.parametrize(("arguments", "shards"), [((), 8), (("--shards", "32"), 32)])
def test_it_tells_what_was_distributed(director_db, backend, arguments, shards):
    backend("wide", STUB)
    done = director_db("distribute", "--db", "wide", *arguments)
    assert (0, "") == (done.returncode, done.stderr)
    first, _place, *tables = done.stdout.splitlines()
    assert f"✓ distributed in {shards} shards" == first
    assert ["director_sessions", "director_items"] == tables


def test_what_is_done_stays_as_it_is(director_db, backend):
    backend("wide", STUB)
    done = director_db("distribute", "--db", "wide", "--shards", "5")
    assert (0, "") == (done.returncode, done.stderr)
    first, _place, warning = done.stdout.splitlines()
    assert "✓ distributed already" == first
    assert "Warning: there are 8 shards, and stay so; 5 were asked for." == warning


def test_no_shards_are_an_error(director_db):
    done = director_db("distribute", "--shards", "0")
    assert (2, "") == (done.returncode, done.stdout)
    assert "'--shards': 0 is not in the range x>=1" in done.stderr
