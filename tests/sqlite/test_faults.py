"""Locks, full disks, damage, and files that come and go."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from director_db import (
    BackendUnavailableError,
    ConfigurationError,
    DirectorDBError,
    SchemaError,
    load_db,
)
from director_db_sqlite import SQLiteDB
from director_db_sqlite import database as module
from director_db_sqlite.file import FileReplacedError

MESSAGE = {"conv_id": "c", "msg_type": "t", "agents": [], "actions": []}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "director.db"


def test_a_locked_file_is_an_error_after_the_timeout_and_works_again(path):
    with SQLiteDB(path, operation_timeout=0.3) as db:
        db.create_session("s1")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(BackendUnavailableError, match="locked") as caught:
                db.create_session("s2")
            assert (True, False) == (caught.value.retryable, caught.value.maybe_applied)
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
            assert "s1" == db.get_session("s1")["session_id"]
            other.execute("ROLLBACK")
        db.create_session("s2")
        assert 2 == len(db.get_sessions())


def test_a_locked_file_is_waited_for(path):
    with (
        SQLiteDB(path) as db,
        closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other,
    ):
        db.create_session("s1")
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(1.5, other.execute, ["ROLLBACK"])
        release.start()
        db.create_session("s2")
        release.join()
        assert 2 == len(db.get_sessions())


def test_many_callers_of_a_locked_file_wait_side_by_side(path):
    timeout = 2
    with SQLiteDB(path, operation_timeout=timeout) as db:
        db.create_session("s1")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            errors = []

            def write():
                try:
                    db.create_session("s2")
                except BackendUnavailableError as error:
                    errors.append(error.retryable)

            threads = [threading.Thread(target=write) for _ in range(12)]
            start = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # One after another, they would take twelve times as long as one.
            assert time.monotonic() - start < 12 * timeout
            assert [True] * 12 == errors


@pytest.mark.parametrize("wrong", ["", "a\0b", "a\ud800b", b"x.db", 5, None], ids=ascii)
def test_what_cannot_be_a_path_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="db_path"):
        SQLiteDB(wrong)


@pytest.mark.parametrize("wrong", [-1, "5", None, True, float("inf"), float("nan"), 1e10])
def test_what_cannot_be_a_timeout_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="operation_timeout"):
        SQLiteDB("x.db", operation_timeout=wrong)


def test_a_missing_folder_is_named(tmp_path):
    with SQLiteDB(tmp_path / "missing" / "x.db") as db:
        with pytest.raises(ConfigurationError, match=r"no folder .*missing"):
            db.get_sessions()
        assert not db.health_check()
        (tmp_path / "missing").mkdir()
        assert [] == db.get_sessions()


def test_a_path_that_no_system_takes(tmp_path):
    with SQLiteDB(tmp_path / ("a" * 300) / "x.db") as db, pytest.raises(DirectorDBError):
        db.get_sessions()
    with SQLiteDB(tmp_path / ("a" * 300)) as db, pytest.raises(DirectorDBError):
        db.get_sessions()


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigurationError, match="working directory"):
        load_db()
    with SQLiteDB("x.db") as db:
        assert "x.db" in repr(db)
        with pytest.raises(ConfigurationError, match="working directory"):
            db.get_sessions()


def test_a_folder_is_no_file(tmp_path):
    with SQLiteDB(tmp_path) as db:
        with pytest.raises(DirectorDBError, match=str(tmp_path)):
            db.get_sessions()
        assert not db.health_check()


def test_a_path_with_every_odd_character(tmp_path):
    odd = tmp_path / "a b?c#d%20é\U0001f600'\".db"
    with SQLiteDB(odd) as db:
        db.create_session("s1")
    assert odd.exists()


def test_a_relative_path_is_fixed_by_the_first_operation(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with SQLiteDB("x.db") as db:
        monkeypatch.chdir(tmp_path / "b")
        db.create_session("s1")
        monkeypatch.chdir(tmp_path / "c")
        assert "s1" == db.get_session("s1")["session_id"]
        assert str(tmp_path / "b" / "x.db") == db.place
    assert "x.db" == db.db_path
    assert [tmp_path / "b" / "x.db"] == list(tmp_path.glob("*/x.db"))


def test_a_file_that_was_deleted_is_made_anew(path):
    with SQLiteDB(path) as db:
        db.create_session("old")
        for file in path.parent.iterdir():
            file.unlink()
        db.create_session("new")
        with SQLiteDB(path) as other:
            assert ["new"] == [session["session_id"] for session in other.get_sessions()]


def test_a_file_that_was_replaced_is_opened(path, tmp_path):
    backup = tmp_path / "backup.db"
    with SQLiteDB(backup) as other:
        other.create_session("from the backup")
    with SQLiteDB(path) as db:
        db.create_session("old")
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        backup.rename(path)
        assert ["from the backup"] == [session["session_id"] for session in db.get_sessions()]


def new_file(tmp_path, session_id):
    other = tmp_path / "other.db"
    with SQLiteDB(other) as db:
        db.create_session(session_id)
    return other


def test_a_file_that_is_replaced_while_it_is_opened_takes_no_write_with_it(
    path, tmp_path, monkeypatch
):
    """To open it may take long: somebody has a lock, or there are tables to be upgraded."""
    other = new_file(tmp_path, "other")
    with SQLiteDB(path) as db:
        create = db._database._create_or_check

        def replaced_meanwhile(*args, **kwargs):
            monkeypatch.undo()
            made = create(*args, **kwargs)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            other.rename(path)
            return made

        monkeypatch.setattr(db._database, "_create_or_check", replaced_meanwhile)
        db.create_session("x")
        db.create_session("y")
    with SQLiteDB(path) as db:
        assert {"other", "x", "y"} == {session["session_id"] for session in db.get_sessions()}


def test_a_file_that_is_replaced_before_it_is_looked_at_again_is_opened(path, tmp_path):
    """As after a health() that failed: it is not known which file is open."""
    with SQLiteDB(path) as db:
        db.create_session("before")
        assert ["before"] == [session["session_id"] for session in db.get_sessions()]
        db._database._file = None
        other = new_file(tmp_path, "other")
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        other.rename(path)
        db.create_session("after")
        assert {"other", "after"} == {session["session_id"] for session in db.get_sessions()}
    with SQLiteDB(path) as db:
        assert {"other", "after"} == {session["session_id"] for session in db.get_sessions()}


@pytest.mark.parametrize("operation", ["write", "read"])
def test_nobody_opens_a_file_that_is_beside_the_log_of_another(
    path, tmp_path, monkeypatch, operation
):
    """One thread looks whose log it is; another one does not go on beside it meanwhile."""
    with SQLiteDB(path) as db:
        db.create_session("before")
        other = new_file(tmp_path, "other")
        stored = other.read_bytes()
        other.rename(path)
        database, refuse = db._database, module.refuse_foreign_log

        def beside():
            deadline = time.monotonic() + 5
            if operation == "write":
                return database._writer.queue.run(lambda connection: connection, 0, deadline)
            return database._readers.read(lambda connection: connection, deadline)

        def meanwhile(*args):
            with pytest.raises(FileReplacedError):
                beside()
            refuse(*args)

        monkeypatch.setattr(module, "refuse_foreign_log", meanwhile)
        with pytest.raises(SchemaError, match="still belongs to"):
            db.create_session("after")
        assert stored == path.read_bytes()
        assert path.with_name(path.name + "-wal").exists()


def test_the_log_after_a_rest_is_known(path, tmp_path):
    """The one before is gone with the last connection."""
    with SQLiteDB(path) as db:
        db.create_session("before")
        db._rest(1)
        assert not path.with_name(path.name + "-wal").exists()
        db.create_session("after")
        stored = new_file(tmp_path, "other").read_bytes()
        (tmp_path / "other.db").rename(path)
        with pytest.raises(SchemaError, match="still belongs to"):
            db.get_sessions()
        assert stored == path.read_bytes()


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_that_goes_before_the_commit_takes_no_write_with_it(path, fails):
    sessions = []

    def operation(connection):
        sessions.append(connection.execute("SELECT count(*) FROM director_sessions").fetchone())
        if len(sessions) == 1:
            for file in path.parent.iterdir():
                file.unlink()
            if fails:
                connection.execute("SELECT * FROM nowhere")
        return "done"

    with SQLiteDB(path) as db:
        db.create_session("old")
        assert "done" == db._database.write(operation, 0)
        # In the old file, and once more in the new one.
        assert [(1,), (0,)] == sessions
        db.create_session("new")
        with SQLiteDB(path) as other:
            assert ["new"] == [session["session_id"] for session in other.get_sessions()]


def test_all_of_a_batch_go_to_the_new_file(path, monkeypatch):
    """Also who hears of it only after another thread has opened the new one."""
    begun, all_wait, told = threading.Event(), threading.Event(), itertools.count()
    names = [f"s{number}" for number in range(4)]

    def replace(_connection):
        begun.set()
        assert all_wait.wait(30)
        if path.exists():
            for file in path.parent.iterdir():
                file.unlink()

    with SQLiteDB(path) as db, ThreadPoolExecutor(5) as threads:
        db.create_session("old")
        queue = db._database._writer.queue
        run = queue.run

        def run_and_hear_late(*args):
            try:
                return run(*args)
            except FileReplacedError:
                time.sleep(0.1 * next(told))
                raise

        monkeypatch.setattr(queue, "run", run_and_hear_late)
        leader = threads.submit(run, replace, 0, math.inf)
        assert begun.wait(30)
        creates = [threads.submit(db.create_session, name) for name in names]
        while len(queue.waiting) < len(names):
            time.sleep(0.01)
        all_wait.set()
        assert isinstance(leader.exception(), FileReplacedError)
        assert [None] * 4 == [create.exception() for create in creates]
        assert next(told) == len(names)
        with SQLiteDB(path) as other:
            assert {*names} == {session["session_id"] for session in other.get_sessions()}
    assert 0o600 == path.stat().st_mode & 0o777


def test_a_file_that_goes_again_and_again_is_told(path):
    def operation(connection):
        for file in path.parent.iterdir():
            file.unlink()

    with SQLiteDB(path, operation_timeout=0.3) as db:
        with pytest.raises(BackendUnavailableError, match="again and again"):
            db._database.write(operation, 0)
        db.create_session("new")
        assert ["new"] == [session["session_id"] for session in db.get_sessions()]


def test_a_damaged_file_is_told(path):
    with SQLiteDB(path) as db:
        db.create_session("s1")
        for number in range(300):
            db.add_or_update_msg_to_conv("s1", msg_id=f"m{number}", content="x" * 900, **MESSAGE)
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with SQLiteDB(path) as db:
        for operation in (lambda: db.get_conversations("s1"), lambda: db.create_session("s2")):
            with pytest.raises(DirectorDBError, match=str(path)) as caught:
                operation()
            assert isinstance(caught.value.__cause__, sqlite3.Error)
        assert not db.health_check()


def test_a_damaged_schema_is_told(path):
    """SQLite quotes it in a message, which then is no text."""
    with SQLiteDB(path) as db:
        db.create_session("s1")
    content = path.read_bytes()
    assert content.count(b"CREATE TABLE director_sessions") == 1
    path.write_bytes(content.replace(b"CREATE TABLE director_s", b"CREATE \xffABLE director_s"))
    with SQLiteDB(path) as db:
        for operation in (db.get_sessions, db.health, lambda: db.create_session("s2")):
            with pytest.raises(BackendUnavailableError, match="is damaged"):
                operation()
        assert not db.health_check()


def test_damage_anywhere_is_told_or_does_not_matter(path):
    with SQLiteDB(path) as db:
        db.create_session("s1")
        for number in range(30):
            db.add_or_update_msg_to_conv("s1", msg_id=f"m{number}", content="x" * 900, **MESSAGE)
        db.append_context_messages("s1", [{"role": "user", "content": "x" * 300}] * 20)
    whole = path.read_bytes()
    chance = random.Random(1)
    for number in range(120):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 5, 50))):
            place = chance.randrange(100 if number % 2 else 0, len(content))
            content[place : place + 16] = chance.randbytes(16)[: len(content) - place]
        path.write_bytes(content)
        with SQLiteDB(path, operation_timeout=1) as db:
            for operation in (
                db.get_sessions,
                lambda: db.get_conversations("s1"),
                lambda: db.get_context("s1"),
                lambda: db.add_or_update_msg_to_conv("s1", msg_id="m5", content=1, **MESSAGE),
                lambda: db.append_context_messages("s1", [1]),
                db.health,
                lambda: db.delete_session("s1"),
            ):
                # Nothing but an error of ours may come of it.
                with contextlib.suppress(DirectorDBError):
                    operation()
            assert db.health_check() in {True, False}
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def test_text_that_something_else_wrote_is_told(path):
    with SQLiteDB(path) as db:
        db.create_session("s1")
        db.add_or_update_context_msg("s1", {})
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE director_context_messages SET context_data = '{not json'")
            other.commit()
        with pytest.raises(DirectorDBError, match="not JSON"):
            db.get_context_messages("s1")
        db.add_or_update_context_msg("s1", [1])
        assert [1] == db.get_context_messages("s1")


def test_an_interrupt_in_a_write_leaves_nothing_half_done(path):
    with SQLiteDB(path) as db:
        db.create_session("s1")

        def interrupted(connection):
            connection.execute("DELETE FROM director_sessions")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            db._database.write(interrupted, 0)
        with pytest.raises(KeyboardInterrupt):
            db._database.read(interrupted_read)
        assert "s1" == db.get_session("s1")["session_id"]
        db.create_session("s2")
        assert 2 == len(db.get_sessions())


def interrupted_read(connection):
    connection.execute("SELECT * FROM director_sessions")
    raise KeyboardInterrupt


WRITER = """
import sys
from director_db_sqlite import SQLiteDB
db = SQLiteDB(sys.argv[1])
db.create_session("s")
for number in range(100_000):
    db.add_or_update_msgs_to_conv("s", [
        {"conv_id": "c", "msg_id": f"{sys.argv[2]}.{number}.{part}", "msg_type": "t", "agents": [],
         "actions": [], "content": "x" * 3000} for part in "ab"])
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_kill(path):
    for attempt in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(attempt)], stdout=subprocess.PIPE, text=True
        )
        assert "0\n" == process.stdout.readline()
        time.sleep(0.05 * attempt)
        process.send_signal(signal.SIGKILL)
        acknowledged = len(process.stdout.read().split()) + 1
        process.wait()
        process.stdout.close()
        with SQLiteDB(path) as db:
            names = [message["msg_id"] for message in db.get_conversations("s")]
            own = [name for name in names if name.startswith(f"{attempt}.")]
            # The last write may be there without its acknowledgement, but never half of it.
            assert len(own) // 2 in {acknowledged, acknowledged + 1}
            assert [f"{attempt}.{n // 2}.{'ab'[n % 2]}" for n in range(len(own))] == own
            assert 0 == len(own) % 2
            db.create_session("after")
    with closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


def test_the_log_is_emptied_while_it_is_written(path):
    with SQLiteDB(path) as db:
        db.create_session("s1")
        for number in range(60):
            content = "x" * 1024 * 1024
            db.add_or_update_msg_to_conv("s1", msg_id=f"m{number % 3}", content=content, **MESSAGE)
        log = path.with_name(path.name + "-wal").stat().st_size
        assert log < 20 * 1024 * 1024


@pytest.fixture
def mount(tmp_path):
    """Mount a file system in memory, for the test; give its folder and what mounts it again."""
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = [*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            told = f"a file system cannot be mounted: {getattr(error, 'stderr', error)}"
            pytest.fail(told) if "CI" in os.environ else pytest.skip(told)
        mounted.append(folder)
        again = [*as_root, "mount", "-o"]
        return folder, lambda options: subprocess.run(
            [*again, f"remount,{options}", folder], check=True
        )

    mounted = []
    yield mount
    for each in mounted:
        subprocess.run([*as_root, "umount", each], check=True)


def test_a_full_disk_loses_nothing_and_works_again(mount):
    folder, remount = mount("size=3m")
    with SQLiteDB(folder / "x.db") as db:
        db.create_session("s1")
        stored = []

        def fill():
            for number in range(100):
                name = f"m{number}"
                db.add_or_update_msg_to_conv("s1", msg_id=name, content="x" * 90_000, **MESSAGE)
                stored.append(name)

        with pytest.raises(BackendUnavailableError, match=r"full|failed") as caught:
            fill()
        assert isinstance(caught.value.__cause__, sqlite3.Error)
        assert stored == [message["msg_id"] for message in db.get_conversations("s1")]
        with pytest.raises(BackendUnavailableError):
            db.add_or_update_msg_to_conv("s1", msg_id="big", content="x" * 4_000_000, **MESSAGE)
        assert stored == [message["msg_id"] for message in db.get_conversations("s1")]
        remount("size=20m")
        db.add_or_update_msg_to_conv("s1", msg_id="after", content="", **MESSAGE)
        assert [*stored, "after"] == [m["msg_id"] for m in db.get_conversations("s1")]


def test_a_read_only_disk(mount):
    folder, remount = mount("size=20m")
    with SQLiteDB(folder / "x.db") as db:
        db.create_session("s1")
    remount("ro")
    with (
        SQLiteDB(folder / "x.db", operation_timeout=1) as db,
        pytest.raises(BackendUnavailableError),
    ):
        db.create_session("s2")
    with SQLiteDB(folder / "new.db") as db, pytest.raises(BackendUnavailableError):
        db.create_session("s2")


def read_only_for_a_while(path):
    """What a user does who is not root, whom no mode stops; returns what came out."""
    with SQLiteDB(path) as db:
        db.create_session("s1")
    path.chmod(0o400)
    with SQLiteDB(path) as db:
        start = time.monotonic()
        try:
            db.create_session("s2")
        except BackendUnavailableError as error:
            # At once, and not after the time that locks are waited for: nothing will change.
            told = str(error) if not error.retryable and time.monotonic() - start < 25 else ""
        warned = [any("read-only" in warning for warning in db.health().warnings)]
        # Its log and the index of that took the mode that the file had.
        for file in path.parent.iterdir():
            file.chmod(0o600)
        db.create_session("s2")
        warned.append(any("read-only" in warning for warning in db.health().warnings))
        return "it is read-only" in told, warned, len(db.get_sessions())


def test_a_file_that_was_read_only_is_written_again():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        path = Path(folder) / "x.db"
        if os.getuid() != 0:
            assert (True, [True, False], 2) == read_only_for_a_while(path)
            return
        # A child that becomes somebody else, as another user may not find this interpreter.
        child = os.fork()
        if child == 0:
            status = 2
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                status = int((True, [True, False], 2) != read_only_for_a_while(path))
            finally:
                os._exit(status)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_the_package_needs_no_other_copy_of_a_live_file(path, tmp_path):
    """The documented way to back up, while writes go on."""
    with SQLiteDB(path) as db:
        db.create_session("s1")
        with (
            closing(sqlite3.connect(path)) as source,
            closing(sqlite3.connect(tmp_path / "copy.db")) as target,
        ):
            db.create_session("s2")
            source.backup(target)
    shutil.move(tmp_path / "copy.db", path)
    with SQLiteDB(path) as db:
        assert 2 == len(db.get_sessions())
