import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from director_db_conformance import pgbouncer
from director_db_conformance.dsn import replace
from director_db_conformance.pgbouncer import NoPgBouncerError, PgBouncer
from director_db_conformance.postgres_place import place_on
from director_db_conformance.servers.reaper import processes_in
from director_db_postgres import PostgresDB

PATIENCE = 60


@pytest.fixture(autouse=True)
def installed(request):
    if request.node.name != "test_says_how_to_install_it":
        request.getfixturevalue("pgbouncer")


def test_passes_queries_on(database, cluster):
    with PgBouncer(database) as pooler, psycopg.connect(pooler.dsn) as connection:
        assert connection.info.port != cluster.port
        row = connection.execute("SELECT current_database(), inet_server_port()").fetchone()
        assert row == (database.name, cluster.port)


def test_has_passwords_in_force(database):
    with PgBouncer(database) as pooler:
        wrong = replace(pooler.dsn, password="not it")  # noqa: S106 - the very point
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(wrong)


def test_gives_a_connection_for_one_transaction_at_a_time(database):
    with (
        PgBouncer(database, pool_size=1) as pooler,
        psycopg.connect(pooler.dsn, autocommit=True, prepare_threshold=None) as first,
        psycopg.connect(pooler.dsn, autocommit=True, prepare_threshold=None) as second,
    ):
        backend = "SELECT pg_backend_pid()"
        assert first.execute(backend).fetchone() == second.execute(backend).fetchone()


def test_one_that_is_full_is_waited_for(database, caplog):
    """It refuses in the way that it also refuses a wrong password in."""
    with (
        PgBouncer(database, max_clients=1) as pooler,
        psycopg.connect(pooler.dsn, prepare_threshold=None) as only,
        PostgresDB(pooler.dsn, pooler=True) as db,
        ThreadPoolExecutor(1) as executor,
    ):
        only.execute("SELECT 1")
        creating = executor.submit(db.create_session, "s")
        deadline = time.monotonic() + PATIENCE
        while "trying again" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not creating.done()
        only.close()
        creating.result()
        assert "s" == db.get_session("s")["session_id"]


def test_leaves_nothing(database):
    with PgBouncer(database) as pooler:
        path = pooler._folder.path
        assert len(processes_in(path)) == 1
    assert not path.exists()
    assert processes_in(path) == []


def test_places_of_a_process_share_one(cluster):
    first, second = (place_on(cluster, pooled=True) for _ in range(2))
    ports = {replace(place.url, dbname="") for place in (first, second)}
    assert 1 == len(ports)
    with first.open() as db, second.open() as other:
        db.create_session("s")
        other.create_session("t")
        assert {} == other.get_session("s")
        first.destroy()
        assert "t" == other.get_session("t")["session_id"]
    second.destroy()


def test_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(pgbouncer, "_PLACES", ())
    with pytest.raises(NoPgBouncerError, match="apt-get install pgbouncer"):
        pgbouncer.find_pgbouncer()
