"""Opening, forking, closing and health."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import director_db
import director_db_postgres
from director_db import ClosedError, lifecycle
from director_db_postgres import PostgresDB
from director_db_postgres.upgrades import SCHEMA_VERSION
from director_db_sqlite import SQLiteDB


def upsert(db, session_id, number):
    db.add_or_update_msg_to_conv(session_id, "c", f"m{number}", "input", [], [], [number])


def sessions_of(place):
    with place.connect() as connection:
        # On a busy machine those that have looked before are still about to go.
        connection.execute("SET application_name = 'looking'")
        return connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name <> 'looking'"
        ).fetchone()[0]


def in_child(work):
    """Fork, run something in the child, and return the child's exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # A child that hangs says where, and ends.
            faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the parent reads the status
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_parent_and_child_go_on_after_a_fork_under_load(place, db):
    db.create_session("parent")
    db.create_session("child")
    stop = threading.Event()
    written, errors = [], []

    def work():
        number = 0
        try:
            while not stop.is_set():
                upsert(db, "parent", number)
                written.append(number)
                number += 1
        except Exception as error:  # noqa: BLE001 - the test reads it
            errors.append(error)

    def child():
        for number in range(20):
            upsert(db, "child", number)
        assert len(db.get_conversations("child")) == 20
        # Whatever is inherited must outlive this too.
        __import__("gc").collect()
        db.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        statuses = []
        for _ in range(5):
            statuses.append(in_child(child))
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join()
    assert statuses == [0] * 5
    assert errors == []
    assert len(db.get_conversations("parent")) == len(written)


UNTOLD = """
import ctypes, os, signal, sys, time
from director_db_postgres import PostgresDB

def server_process():
    return db._database.read(lambda each: each.run(b"SELECT pg_backend_pid()").rows()[0][0])

def store(msg_id):
    db.add_or_update_msg_to_conv("s", "c", msg_id, "t", [], [], [])

db = PostgresDB(sys.argv[1])
db.create_session("s")
before = server_process()
time.sleep(0.5)  # The pool's threads are not to be after the interpreter's lock just then.
child = ctypes.PyDLL(None).fork()
if child == 0:
    signal.alarm(60)  # One that hangs ends.
    store("child")
    assert before != server_process()
    os._exit(0)
assert 0 == os.waitpid(child, 0)[1]
store("parent")
print([message["msg_id"] for message in db.get_conversations("s")])
"""


@pytest.mark.skipif(not lifecycle._tells, reason="this system does not tell a child that it is one")
def test_a_child_that_python_does_not_know_of_has_connections_of_its_own(place):
    """As one of uWSGI's: its fork is the C library's."""
    done = subprocess.run(
        [sys.executable, "-c", UNTOLD, place.dsn],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "['child', 'parent']\n" == done.stdout, done.stderr


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_child_that_ends_normally_leaves_the_parents_connections_alone(place):
    script = f"""
import os, sys
from director_db_postgres import PostgresDB
db = PostgresDB({place.dsn!r}, pool_size=2)
db.create_session("s")
pids = lambda: db._database.read(lambda c: c.execute(b"SELECT pg_backend_pid()").fetchone())
before = pids()
child = os.fork()
if child == 0:
    assert pids() != before
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert pids() == before
db.close()
"""
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            script,
        ],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_closing_lets_go_of_every_connection(place, new_db):
    db = new_db(place.dsn)
    db.create_session("s")
    threads = [threading.Thread(target=upsert, args=(db, "s", n)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sessions_of(place) >= 1
    db.close()
    db.close()
    deadline = time.monotonic() + 10
    while sessions_of(place) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sessions_of(place) == 0
    with pytest.raises(ClosedError):
        db.get_session("s")
    assert db.health_check() is False


def test_nothing_is_opened_before_the_first_operation(place, new_db):
    db = new_db(place.dsn)
    assert sessions_of(place) == 0
    db.get_session("s")
    assert sessions_of(place) == 1


def test_one_thread_uses_one_connection(place, db):
    db.create_session("s")
    for number in range(20):
        upsert(db, "s", number)
    assert sessions_of(place) == 1


def test_connections_that_take_long_to_make_are_waited_for(place, new_db, wait_for_lock_waits):
    """Whoever waits for the pool meanwhile does not take them for lost."""
    new_db(place.dsn).create_session("s")
    slow = make_conninfo(place.dsn, options="-c post_auth_delay=2")
    db = new_db(slow, pool_size=3)
    db.get_session("s")
    pool = db._database._pool.current
    with place.connect() as holder, ThreadPoolExecutor(6) as executor:
        holder.execute("BEGIN")
        holder.execute("SELECT FROM director_sessions FOR UPDATE")
        writes = [executor.submit(upsert, db, "s", number) for number in range(6)]
        time.sleep(4.5)
        wait_for_lock_waits(2)
        holder.execute("COMMIT")
        for write in writes:
            write.result()
    assert db._database._pool.current is pool


def test_a_table_that_is_altered_under_prepared_statements(place, db):
    db.create_session("s")
    for _ in range(7):
        upsert(db, "s", 1)
        db.get_session("s")
    with place.connect() as admin:
        admin.execute("ALTER TABLE director_sessions ALTER COLUMN metadata TYPE varchar(100000)")
    assert db.get_session("s")["metadata"] == {}
    assert db.delete_session("s").success


def test_a_pool_grows_no_further_than_its_size(place, new_db):
    db = new_db(place.dsn, pool_size=3)
    db.create_session("s")
    threads = [
        threading.Thread(target=lambda: [upsert(db, "s", n) for n in range(20)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    seen = sessions_of(place)
    for thread in threads:
        thread.join()
    assert seen <= 3
    assert sessions_of(place) <= 3


def test_a_process_that_never_closes_ends_quietly(place):
    script = f"""
from director_db_postgres import PostgresDB
import director_db, os
db = PostgresDB({place.dsn!r})
db.create_session("s")
shared = director_db.load_db({place.dsn!r})
assert shared.get_session("s")["session_id"] == "s"
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# The servers of the tests are not made to last.
FSYNC_WARNING = "fsync is off: a power cut may destroy the whole database."


def test_health_names_the_parts(place, db):
    health = db.health()
    assert health.db_type == "postgres"
    assert health.place == db.place
    assert health.warnings == [FSYNC_WARNING]
    assert list(health.versions) == [
        "director-db",
        "director-db-postgres",
        "contract",
        "schema",
        "PostgreSQL",
        "psycopg",
        "libpq",
    ]
    assert health.versions["director-db"] == director_db.__version__
    assert health.versions["psycopg"] == psycopg.__version__
    assert health.versions["schema"] == str(SCHEMA_VERSION)


def test_health_warns_of_settings_that_put_data_at_risk(place, new_db):
    db = new_db(f"{place.dsn}?options=-c%20synchronous_commit%3Doff")
    warning, of_the_server = db.health().warnings
    assert "synchronous_commit" in warning
    assert FSYNC_WARNING == of_the_server
    assert db.health_check() is True


def test_the_plugin_imports_no_driver():
    script = """
import sys
import director_db, director_db_postgres.plugin as plugin
assert plugin.director_db_backend().name == "postgres"
assert "postgres" in director_db.DBType
try:
    director_db.load_db("nosuch://x")
except director_db.UnknownDBTypeError:
    pass
assert not [name for name in sys.modules if name.startswith("psycopg")]
import director_db_postgres
assert director_db_postgres.PostgresDB.db_type == "postgres"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=400)


def test_an_unknown_name_of_the_package():
    with pytest.raises(AttributeError, match="Nothing"):
        _ = director_db_postgres.Nothing


def test_an_instance_is_made_directly():
    db = PostgresDB()
    assert db.place == "postgresql://postgres:***@localhost:5432/postgres"
    assert db.schema is None


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_a_handler_may_close_what_is_being_closed(backend, place, new_db, tmp_path, monkeypatch):
    """As one of SIGTERM does, while the main thread closes everything itself."""
    db = new_db(place.dsn) if backend == "postgres" else SQLiteDB(tmp_path / "x.db")
    db.create_session("s")
    close, closed = type(db)._close, []

    def interrupted(self):
        closed.append(self)
        if len(closed) == 1:
            self.close()
        close(self)

    monkeypatch.setattr(type(db), "_close", interrupted)
    closing = threading.Thread(target=db.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    assert [db, db] == closed
    with pytest.raises(ClosedError):
        db.get_session("s")
