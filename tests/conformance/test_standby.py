import psycopg
import pytest

from director_db_conformance.servers import Standby, find_cluster

pytestmark = pytest.mark.sampled


@pytest.fixture
def primary():
    with find_cluster() as cluster:
        yield cluster


def write(database, value):
    with psycopg.connect(database.dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (i int)")
        connection.execute("INSERT INTO t VALUES (%s)", (value,))


def read(database):
    with psycopg.connect(database.dsn) as connection:
        return [i for (i,) in connection.execute("SELECT i FROM t ORDER BY i")]


def test_a_synchronous_standby_takes_over_with_all_that_was_committed(primary):
    database = primary.create_database()
    write(database, 1)
    with Standby(primary, synchronous=True) as standby:
        either = standby.failover(database)
        write(either, 2)
        with psycopg.connect(either.dsn) as connection:
            assert connection.info.port == primary.port
        primary.kill()
        standby.promote()
        assert read(either) == [1, 2]
        write(either, 3)
        with psycopg.connect(either.dsn) as connection:
            assert connection.info.port == standby.port
        assert read(either) == [1, 2, 3]


def test_a_standby_takes_no_writes_before(primary):
    database = primary.create_database()
    write(database, 1)
    with Standby(primary) as standby, standby.connect() as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE DATABASE x")
    with primary.connect() as connection:
        assert connection.execute("SHOW synchronous_standby_names").fetchone() == ("",)
