"""A throw-away Postgres for the tests of its backend, and what stands between it and them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from typing import NamedTuple

import psycopg
import pytest
from psycopg import sql

from director_db import BackendUnavailableError
from director_db_conformance.dsn import replace
from director_db_conformance.proxy import Proxy
from director_db_postgres import PostgresDB


class Server:
    """A throw-away server, of its own for each file of tests."""

    def __init__(self, cluster):
        self._cluster = cluster
        self.port = cluster.port

    def dsn(self, database="postgres", **changes):
        changes = {key: str(value) for key, value in changes.items()}
        return replace(self._cluster.dsn, dbname=database, **changes)

    @contextlib.contextmanager
    def connect(self, database="postgres"):
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            yield connection


class Place(NamedTuple):
    """An empty database."""

    server: Server
    name: str

    @property
    def dsn(self):
        return self.server.dsn(self.name)

    def dsn_by(self, port):
        return self.server.dsn(self.name, port=port)

    def connect(self):
        return self.server.connect(self.name)


TOGETHER = """
import sys
from director_db_postgres import PostgresDB

dsn, number = sys.argv[1:]

def wait_for_the_others():
    print("ready", flush=True)
    sys.stdin.readline()

"""


@pytest.fixture
def in_processes(place):
    """Run code in processes, each of which waits for the others; return their output."""

    def in_processes(count, code):
        program = TOGETHER + textwrap.dedent(code)
        with contextlib.ExitStack() as stack:
            processes = []
            for number in range(count):
                process = subprocess.Popen(
                    [sys.executable, "-c", program, place.dsn, str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                processes.append(stack.enter_context(process))
                stack.callback(process.kill)
            assert ["ready\n"] * count == [process.stdout.readline() for process in processes]
            for process in processes:
                process.stdin.write("\n")
                process.stdin.flush()
            said = [process.communicate(timeout=400)[0] for process in processes]
        assert [0] * count == [process.returncode for process in processes]
        return said

    return in_processes


@pytest.fixture(scope="module")
def server(postgres_cluster):
    return Server(postgres_cluster)


LOCK_WAITS = """
    SELECT pid, xact_start FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
PATIENCE = 60


@pytest.fixture
def wait_for_lock_waits(place):
    """Return a function that waits until so many transactions have been seen to wait for locks."""

    def wait(count=1):
        seen = set()
        deadline = time.monotonic() + PATIENCE
        with place.connect() as observer:
            while len(seen) < count:
                assert time.monotonic() < deadline, f"{len(seen)} of {count} waited for a lock"
                seen.update(observer.execute(LOCK_WAITS).fetchall())
                time.sleep(0.01)

    return wait


@pytest.fixture
def proxy(postgres_cluster):
    with Proxy(postgres_cluster.host, postgres_cluster.port) as proxy:
        yield proxy


# The C locale goes with every encoding.
CREATE = "CREATE DATABASE {} ENCODING {} LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"

_numbers = iter(range(1_000_000))


@pytest.fixture
def new_place(server):
    """Make an empty database; its encoding can be chosen."""
    made = []

    def make(encoding="UTF8"):
        name = f"test_{next(_numbers)}"
        with server.connect() as connection:
            connection.execute(sql.SQL(CREATE).format(sql.Identifier(name), encoding))
        made.append(name)
        return Place(server, name)

    yield make
    with server.connect() as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def place(new_place):
    return new_place()


@pytest.fixture
def new_db():
    """Make instances that end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(PostgresDB(*args, **kwargs))


@pytest.fixture
def again():
    """Repeat a call that has little time until it ends in that, however busy the machine is."""

    def again(call, *args):
        hangs = time.monotonic() + 120
        while True:
            try:
                return call(*args)
            except BackendUnavailableError:
                if time.monotonic() > hangs:
                    raise

    return again


@pytest.fixture
def db(place, new_db):
    return new_db(place.dsn)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("POSTGRES_", "PG")) or name in {"DATABASE_URL", "DB_TYPE"}:
            monkeypatch.delenv(name)
