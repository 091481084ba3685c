"""The source on a real engine; without one, what it says is in test_server_sources.py."""

import importlib
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from director_db_conformance.servers import ConfiguredServerError, NoServerError, find_postgres
from director_db_conformance.servers.docker_container import IMAGE_VARIABLE, DockerContainer
from director_db_conformance.servers.folder import ServerFolder
from director_db_conformance.servers.offer import UnavailableError
from director_db_conformance.servers.reaper import processes
from director_db_conformance.servers.server_sources import SERVER_SOURCES

OTHERS = [source.name for source in SERVER_SOURCES if source.name != "docker"]

OWNER = f"""
import sys
from director_db_conformance.servers import find_postgres
with find_postgres(exclude={OTHERS}) as server:
    print(server.container, flush=True)
    sys.stdin.read()
"""

FORK = f"""
import os
from director_db_conformance.servers import find_postgres
with find_postgres(exclude={OTHERS}) as server:
    if os.fork() == 0:
        server.close()
        os._exit(0)
    os.wait()
    with server.connect() as connection:
        print(connection.execute("SELECT 'still here'").fetchone()[0])
"""


@pytest.fixture(scope="module")
def server():
    source = DockerContainer()
    try:
        server = source.offer(None).start(False)  # noqa: FBT003 - not durable
    except UnavailableError as error:
        # Not failed where CI is set: a Postgres for the tests is to be had without an engine.
        pytest.skip(f"{error}; {source.remedy}")
    with server:
        yield server


@pytest.fixture
def database(server):
    database = server.create_database()
    with psycopg.connect(database.dsn) as connection:
        connection.execute("CREATE TABLE t (i int)")
    yield database
    server.drop_database(database)


@pytest.fixture(scope="module")
def engine(server):
    assert server.version
    client = importlib.import_module("docker").from_env()
    yield client
    client.close()


def start(script):
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def first_line(process, patience=120):
    readable, _, _ = select.select([process.stdout], [], [], patience)
    assert readable, "the script said nothing"
    return process.stdout.readline().strip()


def is_there(engine, name):
    return any(container.name == name for container in engine.containers.list(all=True))


def is_soon_gone(engine, name, patience=60):
    deadline = time.monotonic() + patience
    while is_there(engine, name) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not is_there(engine, name)


def test_says_what_it_is(server):
    image = os.environ.get(IMAGE_VARIABLE)
    assert server.source.startswith(f"docker ({image}" if image else "docker (postgres:")
    with server.connect() as connection:
        version = connection.execute("SHOW server_version").fetchone()[0].split()[0]
    assert server.version == version
    assert repr(server) == f"<ContainerServer {version} from {server.source}>"


def test_its_databases_belong_to_no_superuser(database):
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute(
            "SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert row == ("director_db", False)


@pytest.mark.parametrize("crash", [True, False], ids=["kill", "stop"])
def test_what_was_committed_is_there_after(server, database, crash):
    address = (server.host, server.port)
    with psycopg.connect(database.dsn) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
        connection.execute("INSERT INTO t VALUES (2)")
        server.kill() if crash else server.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database.dsn, connect_timeout=5)
    server.start()
    assert (server.host, server.port) == address
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("SELECT i FROM t").fetchall() == [(1,)]
    last_start = server.log.rpartition("listening on Unix socket")[2]
    assert ("not properly shut down" in last_start) is crash


def test_frozen_it_neither_answers_nor_refuses(server, database):
    with closing(psycopg.connect(database.dsn)) as connection:
        server.freeze()
        connection.pgconn.send_query(b"SELECT 7")
        assert select.select([connection.pgconn.socket], [], [], 0.5)[0] == []
        server.thaw()
        assert connection.pgconn.get_result().get_value(0, 0) == b"7"


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_frozen_it_can_be_ended(server, database, end):
    server.freeze()
    getattr(server, end)()
    server.start()
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_every_second_cut_comes_between_a_commit_and_its_answer(server, database):
    server.cut(database)
    with closing(psycopg.connect(database.dsn)) as connection:
        connection.pgconn.send_query(b"INSERT INTO t SELECT 1 FROM pg_sleep(0.2)")
        server.cut(database)
        assert connection.pgconn.get_result().status == psycopg.pq.ExecStatus.FATAL_ERROR
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("SELECT i FROM t").fetchall() == [(1,)]


def test_another_version_gives_way(server, monkeypatch):
    monkeypatch.setenv(IMAGE_VARIABLE, server.source.removeprefix("docker (").removesuffix(")"))
    with pytest.raises(NoServerError, match=r"docker: version 9 is needed; \S+ is [\d.]+"):
        find_postgres(version=9, exclude=OTHERS)


@pytest.mark.usefixtures("server")
def test_an_image_that_is_named_and_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv(IMAGE_VARIABLE, "localhost:1/nobody/has-this:1")
    with pytest.raises(
        ConfiguredServerError,
        match=f"{IMAGE_VARIABLE} names localhost:1/nobody/has-this:1, which cannot be used",
    ):
        find_postgres(exclude=OTHERS)


class TestOwner:
    def test_that_dies_takes_its_container_with_it(self, engine):
        with start(OWNER) as owner:
            name = first_line(owner)
            assert is_there(engine, name)
            owner.kill()
            owner.wait(60)
        assert is_soon_gone(engine, name)

    def test_that_dies_together_with_its_reaper_is_swept_up_after(self, engine):
        with start(OWNER) as owner:
            name = first_line(owner)
            reapers = [p for p in processes() if Path(p.arguments[-1]).name == name]
            assert len(reapers) == 1
            os.kill(reapers[0].pid, signal.SIGKILL)
            owner.kill()
            owner.wait(60)
        assert is_there(engine, name)
        ServerFolder(None).remove()
        assert not is_there(engine, name)

    def test_closes_nothing_in_a_forked_child(self, engine):
        assert engine.ping()
        with start(FORK) as owner:
            assert first_line(owner) == "still here"
