"""What an operator sees through `logging`, and what not."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from director_db import BackendUnavailableError, DirectorDBError
from director_db_sqlite import SQLiteDB, writer
from director_db_sqlite.connections import MAX_IDLE_LOG_BYTES

SECRET = "a payload that nobody may see"  # noqa: S105


@pytest.fixture
def told(caplog):
    """What was logged, as (level, text), below the logger of the package."""
    caplog.set_level(logging.DEBUG, "director_db")

    def records(level=logging.INFO):
        found = [record for record in caplog.records if record.name.startswith("director_db")]
        assert {"director_db.sqlite"} >= {record.name for record in found}
        assert [] == [text for text in map(logging.LogRecord.getMessage, found) if SECRET in text]
        return [(r.levelname, r.getMessage()) for r in found if r.levelno >= level]

    return records


def put(db, msg_id="m"):
    db.add_or_update_msg_to_conv("s", "c", msg_id, "t", [], [], SECRET)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.db"
    with SQLiteDB(path) as db:
        db.create_session("s")
    return path


def test_opening_and_closing_are_for_those_who_debug(path, told):
    with SQLiteDB(path) as db:
        put(db)
    assert [] == told()
    assert [("DEBUG", f"{path}: opened"), ("DEBUG", f"{path}: closing")] == told(logging.DEBUG)[-2:]


def test_a_wait_for_a_lock_is_told_once_and_while_it_lasts(path, told):
    with SQLiteDB(path) as db, closing(sqlite3.connect(path, isolation_level=None)) as other:
        db.get_session("s")
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=put, args=(db,))
        thread.start()
        until = time.monotonic() + 60
        while not told() and time.monotonic() < until:
            time.sleep(0.02)
        # The other one still has it.
        ((level, text),) = told()
        assert "WARNING" == level
        assert text.startswith(f"{path}: has waited for 1.")
        assert text.endswith(" s for the write lock, which another connection has")
        other.execute("COMMIT")
        thread.join(60)
        assert 1 == len(told())
        assert SECRET == db.get_message("s", "m")["content"]


def test_a_deadline_that_came_is_told(path, told):
    with (
        SQLiteDB(path, operation_timeout=0.2) as db,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        db.get_session("s")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailableError):
            put(db)
        ((level, text),) = told()
        assert "WARNING" == level
        assert text.startswith(f"{path}: gave up waiting after 0.")


def test_a_wait_and_a_deadline_at_the_first_use(tmp_path, told):
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with SQLiteDB(path, operation_timeout=1.5) as db, pytest.raises(BackendUnavailableError):
            db.get_sessions()
    texts = [text for _, text in told()]
    assert [True] == ["gave up waiting" in text for text in texts[-1:]]
    assert [] == [text for text in texts if "for the locks of other connections" not in text]


def test_a_file_that_was_replaced_or_is_gone_is_told(path, told, tmp_path):
    other = tmp_path / "other.db"
    with SQLiteDB(other) as db:
        db.create_session("s")
    with SQLiteDB(path) as db:
        db.get_session("s")
        other.replace(path)
        db.get_session("s")
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        db.get_session("s")
    again = "opening what is there now"
    assert [
        ("WARNING", f"{path} was replaced by another file; {again}"),
        ("WARNING", f"{path} is gone; {again}"),
    ] == told()


def test_a_transaction_that_failed_is_told_with_its_cause(path, told):
    def orphan(connection):
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute(
            "INSERT INTO director_context_messages VALUES ('no', ?, NULL, 0, 0, 0, 0, 0, '')",
            (SECRET,),
        )

    with SQLiteDB(path) as db:
        with pytest.raises(DirectorDBError):
            db._database.write(orphan, 0)
        put(db)
    failed = "a transaction failed, and with it all of its writes (1)"
    assert [("ERROR", f"{path}: {failed}: FOREIGN KEY constraint failed")] == told()


def test_a_commit_and_a_checkpoint_that_take_long_are_told(path, told, monkeypatch):
    with SQLiteDB(path) as db:
        put(db)
        monkeypatch.setattr(writer, "LONG", 0.0)
        # However long a busy disk takes, the text is one.
        still = SimpleNamespace(monotonic=lambda: 5.0, sleep=time.sleep)
        monkeypatch.setattr(writer, "time", still)
        put(db)
        assert [("WARNING", f"{path}: a commit took 0.0 s; check the disk")] == told()
        db._database._writer._checkpointer.find_log(MAX_IDLE_LOG_BYTES + 1)
        put(db)
    assert ("WARNING", f"{path}: a checkpoint took 0.0 s; check the disk") in told()


def test_a_migration_is_told(tmp_path, told):
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as old:
        old.execute(
            "CREATE TABLE sessions (session_id TEXT PRIMARY KEY, video_id TEXT, collection_id TEXT,"
            " created_at INTEGER, updated_at INTEGER, metadata JSON)"
        )
        old.execute("INSERT INTO sessions VALUES ('s1', 'm', 'c', 10, 20, '{}')")
        old.commit()
    with SQLiteDB(path) as db:
        db.migrate()
    carried = "carried 1 sessions, 0 messages and 0 contexts of the old system over"
    assert [("INFO", f"{path}: {carried}, 0 rows left behind")] == told()


# A failed transaction, in an application that has not set up logging.
UNHEARD = """
import sys
from director_db import BackendUnavailableError, load_db
from director_db_sqlite import SQLiteDB
db = SQLiteDB(sys.argv[1])
db.create_session("s")
def orphan(connection):
    connection.execute("PRAGMA defer_foreign_keys = ON")
    connection.execute("INSERT INTO director_context_items VALUES ('no', 1, '')")
for attempt in range(2):
    try:
        db._database.write(orphan, 0)
    except Exception as error:
        pass
    if sys.argv[2] == "handled":
        import logging
        class Raising(logging.Handler):
            def emit(self, record):
                print(record.name)
                raise ZeroDivisionError
        logging.getLogger("director_db").addHandler(Raising())
db.create_session("after")
print(len(db.get_sessions()), "logging" in sys.modules)
"""


@pytest.mark.parametrize(
    ("how", "printed"), [("not", "2 True\n"), ("handled", "director_db.sqlite\n2 True\n")]
)
def test_nothing_is_printed_unasked_and_no_handler_breaks_an_operation(path, how, printed):
    path.unlink()
    done = subprocess.run(
        [sys.executable, "-c", UNHEARD, path, how], capture_output=True, text=True, check=False
    )
    assert (0, printed, "") == (done.returncode, done.stdout, done.stderr)
