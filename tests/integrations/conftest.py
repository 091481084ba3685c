"""What the tests of the integrations share; they run in .venv-integrations."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import os
import subprocess
import sys
import threading
from operator import methodcaller
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from director_db import load_db
from director_db.asyncio import CARRIED_OUT
from director_db_conformance.proxy import Proxy
from director_db_conformance.warm import IS_POSSIBLE, Warm
from director_db_postgres import PostgresDB
from director_db_sqlite import SQLiteDB

# Programs beside the tests, which import one another.
collect_ignore_glob = ["judg*.py", "programs/*"]
if importlib.util.find_spec("agents") is None:
    collect_ignore_glob = ["*"]

PROGRAMS = Path(__file__).parent / "programs"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Two fewer than for the other tests: each imports all frameworks, for eight seconds."""
    return (os.cpu_count() or 1) + 1


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
def stored_though_cancelled(tmp_path):
    """Cancel ``call(db)`` in a step of it, and return what messages of session s1 hold then.

    `given` is done before, `then` after, both with the database. The steps count from 1: what the
    call writes, and what it reads of messages.
    """
    begun, go_on = threading.Event(), threading.Event()

    class HeldDB(SQLiteDB, db_type="held"):
        left = 0

        def _insert_session(self, *args):
            self._hold()
            return super()._insert_session(*args)

        def _upsert_messages(self, *args):
            self._hold()
            return super()._upsert_messages(*args)

        def _upsert_guarded(self, *args):
            self._hold()
            return super()._upsert_guarded(*args)

        def _replace_messages(self, *args):
            self._hold()
            return super()._replace_messages(*args)

        def _select_messages(self, *args):
            self._hold()
            return super()._select_messages(*args)

        def _hold(self):
            self.left -= 1
            if self.left == 0:
                begun.set()
                assert go_on.wait(120)

    async def main(db, call):
        storing = asyncio.create_task(call(db))
        assert await asyncio.to_thread(begun.wait, 120)
        storing.cancel()
        await asyncio.sleep(0)
        storing.cancel()
        await asyncio.sleep(0)
        assert not storing.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await storing
        assert cancelled.value.__cause__ is None
        assert [CARRIED_OUT] == cancelled.value.__notes__
        return [message["content"] for message in db.get_conversations("s1")]

    def run(call, *, step=1, given=methodcaller("create_session", "s1"), then=lambda _: None):
        with HeldDB(tmp_path / "director.db") as db:
            given(db)
            db.left = step
            stored = asyncio.run(main(db, call))
            then(db)
            return stored

    return run


@pytest.fixture
def program(settings, tmp_path, tmp_path_factory):
    """Start a program of programs/ in a process of its own, with that database."""
    started = []

    def start(name, *args):
        environment = at_home(tmp_path) | settings
        file = str(PROGRAMS / f"{name}.py")
        code = f"import runpy; runpy.run_path({file!r}, run_name='__main__')"
        # The frameworks take seconds to import; where one has threads by then, nothing is forked.
        warm = IS_POSSIBLE and warm_for(name, tmp_path_factory.getbasetemp())
        forked = warm and warm.python(code, args, environment, tmp_path)
        started.append(
            forked
            or subprocess.Popen(
                [sys.executable, file, *args],
                env=environment,
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        sys.stderr.write(process.communicate()[1])


def at_home(folder):
    """Return an environment in which nothing reaches a service, or what a developer has at home.

    There is no service, and waiting for one takes long.
    """
    return os.environ | {
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "HOME": str(folder),
        "CLAUDE_CONFIG_DIR": str(folder / "claude"),
    }


@functools.cache
def warm_for(name, folder):
    """A process that has imported what a program imports."""
    return Warm(at_home(folder) | {"PYTHONPATH": str(PROGRAMS)}, [name])
