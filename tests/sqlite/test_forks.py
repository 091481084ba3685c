"""What a forked child may and may not use."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from director_db import BackendUnavailableError, ClosedError, ConfigurationError, lifecycle
from director_db_sqlite import SQLiteDB, schema

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def child_says(work):
    """Return the text that ``work()`` returns in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(work()).encode())
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def connections(db):
    held = db._database
    writer = held._writer
    others = (writer.connection, writer._checkpointer.connection)
    return len(held._readers.idle) + sum(connection is not None for connection in others)


def test_a_child_inherits_no_connection(tmp_path):
    with SQLiteDB(tmp_path / "x.db") as db:
        db.create_session("s1")
        db.get_session("s1")
        assert 2 == connections(db)
        assert "0" == child_says(lambda: connections(db))
        assert "s1" == child_says(lambda: db.get_session("s1")["session_id"])


def test_an_instance_that_could_not_be_made_does_not_unprotect_the_others(tmp_path):
    kept = []
    for _ in range(3):
        try:
            SQLiteDB("")
        except ConfigurationError as error:
            kept.append(error)  # Its traceback keeps the half-made instance alive.
    with SQLiteDB(tmp_path / "x.db") as one, SQLiteDB(tmp_path / "y.db") as two:
        one.create_session("s1")
        two.create_session("s1")
        assert "0 0" == child_says(lambda: f"{connections(one)} {connections(two)}")
    assert 3 == len(kept)


def test_forks_while_instances_are_made(tmp_path):
    stop = threading.Event()

    def make():
        while not stop.is_set():
            SQLiteDB(tmp_path / "other.db").close()

    threads = [threading.Thread(target=make) for _ in range(3)]
    with SQLiteDB(tmp_path / "x.db") as db:
        db.create_session("s1")
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                db.get_session("s1")
                assert "0" == child_says(lambda: connections(db))
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_a_child_of_a_fork_in_the_middle_of_a_write_refuses_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lifecycle, "FORK_PATIENCE", 0.2)
    path = tmp_path / "x.db"
    inside, leave = threading.Event(), threading.Event()

    def slow(connection):
        connection.execute("UPDATE director_sessions SET video_id = 'slow'")
        inside.set()
        leave.wait(30)

    with SQLiteDB(path) as db:
        db.create_session("s1")

        def operation():
            token = object()
            db._gate.enter(token)
            try:
                db._database.write(slow, 0)
            finally:
                db._gate.inside.pop(token)

        thread = threading.Thread(target=operation)
        thread.start()
        inside.wait(30)

        def child():
            said = []
            for use in (db.get_sessions, lambda: SQLiteDB(path).create_session("s2")):
                with pytest.raises(BackendUnavailableError, match="forked while") as caught:
                    use()
                said.append(caught.value.retryable)
            return said

        assert "[False, False]" == child_says(child)
        leave.set()
        thread.join()
        assert "slow" == db.get_session("s1")["video_id"]
        assert "slow" == child_says(lambda: db.get_session("s1")["video_id"])


def test_memory_starts_empty_in_a_child():
    with SQLiteDB(":memory:") as db:
        db.create_session("s1")
        assert "[]" == child_says(db.get_sessions)
        assert 1 == len(db.get_sessions())


def test_two_threads_fork_at_once(tmp_path):
    with SQLiteDB(tmp_path / "x.db") as db:
        db.create_session("s1")
        said = []
        threads = [
            threading.Thread(target=lambda: said.append(child_says(lambda: len(db.get_sessions()))))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert ["1"] * 6 == said
        db.create_session("s2")
        with closing(sqlite3.connect(tmp_path / "x.db")) as other:
            assert [("ok",)] == other.execute("PRAGMA integrity_check").fetchall()


def test_an_instance_that_a_fork_broke_says_so(tmp_path, monkeypatch, caplog):
    with SQLiteDB(tmp_path / "x.db") as db, SQLiteDB(tmp_path / "y.db") as other:
        other.create_session("s1")
        monkeypatch.setattr(db, "_abandon", lambda: 1 / 0)

        def child():
            with pytest.raises(ClosedError):
                db.get_sessions()
            assert "ZeroDivisionError" in caplog.text
            assert "x.db" in caplog.text
            return len(other.get_sessions())

        assert "1" == child_says(child)
        assert [] == db.get_sessions()


UNTOLD = """
import asyncio, ctypes, os, signal, sys, time
from director_db.asyncio import AsyncDB
from director_db_sqlite import SQLiteDB

folder = sys.argv[1]

def says(work, fork=ctypes.PyDLL(None).fork):
    "With the interpreter's lock, which is not made anew in the child."
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        signal.alarm(60)  # One that hangs ends.
        try:
            os.write(writer, str(work()).encode())
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    return os.read(reader, 1000).decode()

def session(path):
    return SQLiteDB(path).get_session("s1")["session_id"]
"""
IN_THREADS = """
db, unused = SQLiteDB(f"{folder}/x.db"), SQLiteDB(f"{folder}/z.db")
db.create_session("s1")
with SQLiteDB(f"{folder}/y.db") as closed:
    closed.create_session("s1")
print("lazy-apps" in says(lambda: db.get_session("s1")))
print(says(lambda: unused.get_session("s1")))
print(says(lambda: session(closed.place)))
print(says(db.close))
print(says(lambda: says(lambda: session(closed.place), os.fork)))
print(db.get_session("s1")["session_id"])
"""
IN_COROUTINES = """
db = AsyncDB(SQLiteDB(f"{folder}/x.db"))

async def main():
    return await asyncio.gather(*(db.get_sessions() for _ in range(5)))

asyncio.run(main())
# Nobody else is to be after the interpreter's lock at the moment of the fork.
while len(db._executor._asleep) < len(db._executor._threads):
    time.sleep(0.01)
time.sleep(0.5)
print("lazy-apps" in says(lambda: asyncio.run(main())))
"""


@pytest.mark.skipif(not lifecycle._tells, reason="this system does not tell a child that it is one")
@pytest.mark.parametrize(
    ("program", "printed"),
    [(IN_THREADS, ["True", "{}", "s1", "None", "s1", "s1"]), (IN_COROUTINES, ["True"])],
    ids=["threads", "coroutines"],
)
def test_a_child_that_python_does_not_know_of(tmp_path, program, printed):
    """As those of uWSGI: what was open is refused, and no thread of its parent is waited for."""
    done = subprocess.run(
        [sys.executable, "-c", UNTOLD + program, tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert printed == done.stdout.splitlines(), done.stderr


def test_a_child_refuses_what_was_being_opened(tmp_path, monkeypatch):
    """It takes long where somebody has the lock, and a fork waits for so long only."""
    monkeypatch.setattr(lifecycle, "FORK_PATIENCE", 0.1)
    path = tmp_path / "x.db"
    with SQLiteDB(path) as db:
        db.create_session("s1")
    opening, goes_on = threading.Event(), threading.Event()
    find_layout = schema.find_layout

    def wait(connection, place):
        opening.set()
        goes_on.wait(60)
        return find_layout(connection, place)

    with SQLiteDB(path) as db:
        monkeypatch.setattr(schema, "find_layout", wait)
        thread = threading.Thread(target=db.get_session, args=("s1",))
        thread.start()
        assert opening.wait(60)
        assert "cannot be used" in child_says(lambda: SQLiteDB(path).get_session("s1"))
        goes_on.set()
        thread.join()
        assert "s1" == db.get_session("s1")["session_id"]


def test_what_strikes_when_a_fork_has_ended_holds_up_nobody(tmp_path, monkeypatch):
    """A signal that came during the fork is handled before any line of ours."""
    monkeypatch.setattr(lifecycle, "_paused", [])
    with SQLiteDB(tmp_path / "x.db") as db:
        db.create_session("s1")
        lifecycle._before_fork()
        lifecycle.forks.clear()  # What the system calls first; then nothing more.
        started = time.monotonic()
        try:
            with ThreadPoolExecutor(1) as pool:
                assert "s1" == pool.submit(db.get_session, "s1").result(60)["session_id"]
                pool.submit(SQLiteDB, tmp_path / "y.db").result(60).close()
                pool.submit(lifecycle._before_fork).result(60)
        finally:
            lifecycle.forks.clear()
            lifecycle._after_fork_in_parent()
        assert time.monotonic() - started < lifecycle.FORK_PATIENCE


def test_forks_of_two_threads_come_one_after_the_other(tmp_path):
    with SQLiteDB(tmp_path / "x.db") as db, ThreadPoolExecutor(1) as pool:
        db.create_session("s1")
        lifecycle._before_fork()
        other = pool.submit(lifecycle._before_fork)
        while len(lifecycle.forks) < 2:
            time.sleep(0.001)
        first = list(lifecycle.forks)
        assert threading.get_ident() == first[0]
        lifecycle.forks.clear()
        other.result(60)
        assert first[1:] == lifecycle.forks
        lifecycle.forks.clear()
        lifecycle._after_fork_in_parent()
        assert "s1" == db.get_session("s1")["session_id"]
