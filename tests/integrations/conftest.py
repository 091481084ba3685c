"""What the tests of the integrations share; they run in .venv-integrations."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from director_db import load_db
from director_db_conformance.proxy import Proxy
from director_db_postgres import PostgresDB

# Programs beside the tests, which import one another.
collect_ignore_glob = ["judg*.py"]
if importlib.util.find_spec("agents") is None:
    collect_ignore_glob = ["*"]

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request, tmp_path):
    """The environment variables that open an empty database."""
    if request.param == "sqlite":
        return {"DB_TYPE": "sqlite", "SQLITE_DB_PATH": str(tmp_path / "director.db")}
    return request.getfixturevalue("postgres_database").environment


@pytest.fixture
def db(settings, monkeypatch):
    """That database, which is also the one that an integration opens by itself."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return load_db()


@pytest.fixture
def proxied(postgres_database):
    """An empty database with one connection, and the proxy that it goes through."""
    server = conninfo_to_dict(postgres_database.dsn)
    with Proxy(server["host"], int(server["port"])) as proxy:
        dsn = make_conninfo(postgres_database.dsn, host="127.0.0.1", port=proxy.port)
        with PostgresDB(dsn, pool_size=1) as db:
            yield db, proxy


@pytest.fixture
def program(settings, tmp_path):
    """Start a program of programs/ in a process of its own, with that database."""
    started = []

    def start(name, *args):
        # Nothing of a test may reach a service: there is none, and waiting for it takes long.
        environment = os.environ | settings | {"OPENAI_AGENTS_DISABLE_TRACING": "1"}
        # Nor may they find what a developer has at home.
        environment |= {"HOME": str(tmp_path), "CLAUDE_CONFIG_DIR": str(tmp_path / "claude")}
        started.append(
            subprocess.Popen(
                [sys.executable, PROGRAMS / f"{name}.py", *args],
                env=environment,
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
