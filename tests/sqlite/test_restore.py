"""A backup that is copied over a file whose process died, with the old log beside it."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from director_db import SchemaError
from director_db_sqlite import SQLiteDB
from director_db_sqlite.log import refuse_log_of_another

pytestmark = pytest.mark.sampled

# Stores sessions, and dies without closing if told so.
STORE = """
import os, sys
from director_db_sqlite import SQLiteDB
path, name, count, end = sys.argv[1:]
db = SQLiteDB(path)
for number in range(int(count)):
    db.create_session(f"{name}{number}")
    db.add_or_update_msg_to_conv(f"{name}{number}", "c", "m", "t", [], [], "x" * 500)
if end == "dies":
    os._exit(0)
db.close()
"""


def store(path, name, count, end="closes"):
    subprocess.run([sys.executable, "-c", STORE, path, name, str(count), end], check=True)


def back_up(path, backup, kind):
    with closing(sqlite3.connect(path)) as source:
        if kind == "vacuum":
            source.execute("VACUUM INTO ?", (str(backup),))
        elif kind == "backup":
            with closing(sqlite3.connect(backup)) as target:
                source.backup(target)
    if kind == "copy":
        shutil.copyfile(path, backup)


def restore(path, backup, how):
    if how == "over":
        shutil.copyfile(backup, path)
    else:
        path.unlink()
        shutil.move(backup, path)


def is_whole(path):
    with closing(sqlite3.connect(path)) as connection:
        return [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


@pytest.mark.parametrize("how", ["over", "instead"])
@pytest.mark.parametrize("kind", ["vacuum", "backup", "copy"])
def test_the_log_of_the_file_before_is_refused(tmp_path, kind, how):
    path, backup = tmp_path / "x.db", tmp_path / "backup.db"
    store(path, "kept", 20)
    back_up(path, backup, kind)
    store(path, "later", 60)
    store(path, "lost", 40, "dies")
    restore(path, backup, how)
    log = tmp_path / "x.db-wal"
    before = path.read_bytes(), log.read_bytes()
    for _ in range(2):
        with SQLiteDB(path) as db, pytest.raises(SchemaError) as refused:
            db.get_session("kept1")
        assert f"{log} is not the log of {path}: " in str(refused.value)
        assert f"delete {log} and {path}-shm" in str(refused.value)
        assert before == (path.read_bytes(), log.read_bytes())
    with SQLiteDB(path) as db:
        assert not db.health_check()
        # What the message says; the same instance works then.
        log.unlink()
        (tmp_path / "x.db-shm").unlink()
        ids = {session["session_id"] for session in db.get_sessions()}
        assert {f"kept{number}" for number in range(20)} == ids
        db.create_session("new")
    assert is_whole(path)


def test_the_documented_steps_restore_a_backup(tmp_path):
    page = (Path(__file__).parents[2] / "docs/operating.md").read_text(encoding="utf-8")
    (steps,) = re.findall(r"`(rm -f director\.db .*)`", page)
    path = tmp_path / "director.db"
    store(path, "kept", 3)
    back_up(path, tmp_path / "backup.db", "vacuum")
    store(path, "lost", 3, "dies")
    steps = steps.replace("director-db health", f"{sys.executable} -m director_db.cli health")
    subprocess.run(steps, shell=True, check=True, cwd=tmp_path, capture_output=True)  # noqa: S602
    with SQLiteDB(path) as db:
        ids = {session["session_id"] for session in db.get_sessions()}
        assert {"kept0", "kept1", "kept2"} == ids
    assert is_whole(path)


def test_the_log_of_a_file_that_never_grew_is_refused_by_the_size(tmp_path):
    path, backup = tmp_path / "x.db", tmp_path / "backup.db"
    store(path, "kept", 200)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM director_sessions")
        connection.commit()
        connection.execute("VACUUM INTO ?", (str(backup),))
    # An update in place leaves page 1 as it is.
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        'c.execute("UPDATE director_conversations SET created_at = 1"); c.commit(); os._exit(0)'
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)
    shutil.copyfile(backup, path)
    with SQLiteDB(path) as db, pytest.raises(SchemaError, match="it was written for"):
        db.get_sessions()


# What may happen to a file, at random, until the process dies in the middle of it.
LIVE = """
import os, random, sqlite3, sys
path, seed = sys.argv[1], int(sys.argv[2])
draw = random.Random(seed)
connections = [sqlite3.connect(path, isolation_level=None) for _ in range(2)]
for connection in connections:
    connection.execute("PRAGMA wal_autocheckpoint = 0")
first = connections[0]
first.execute("PRAGMA journal_mode = WAL")
first.execute("CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, v)")
for _ in range(draw.randrange(1, 30)):
    connection = draw.choice(connections)
    step = draw.randrange(12)
    if step < 5:
        connection.execute("INSERT INTO t (v) VALUES (?)", ("x" * draw.choice((10, 3000, 90000)),))
    elif step < 7:
        connection.execute("UPDATE t SET v = 'y' WHERE k = (SELECT max(k) FROM t)")
    elif step == 7:
        connection.execute("DELETE FROM t WHERE k % 2")
    elif step == 8:
        connection.execute(f"CREATE TABLE IF NOT EXISTS other{draw.randrange(3)} (x)")
    elif step == 9:
        connection.execute(f"DROP TABLE IF EXISTS other{draw.randrange(3)}")
    elif step == 10:
        connection.execute(draw.choice(("VACUUM", "ANALYZE", "BEGIN")))
        if connection.in_transaction:
            connection.execute("INSERT INTO t (v) VALUES (1)")
            connection.execute(draw.choice(("COMMIT", "ROLLBACK")))
    else:
        mode = draw.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))
        reader = connections[1 - connections.index(connection)]
        read = reader.execute("SELECT * FROM t") if draw.randrange(2) else None
        if read:
            read.fetchone()  # An old reader, which keeps the checkpoint from being complete.
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        if read:
            read.close()
if draw.randrange(6) == 0:
    connections[0].close(), connections[1].close()
else:
    first.execute("BEGIN")
    first.execute("PRAGMA cache_size = 5")  # What is not committed spills into the log.
    first.execute("INSERT INTO t (v) VALUES (?)", ("z" * draw.choice((1, 200000)),))
    os._exit(0)
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_good_log_is_never_refused(tmp_path, seed):
    draw = random.Random(seed)
    path, logs, torn = tmp_path / "x.db", 0, 0
    page_size = draw.choice((512, 4096, 65536))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("PRAGMA journal_mode = WAL")
    log = tmp_path / "x.db-wal"
    for life in range(15):
        subprocess.run(
            [sys.executable, "-c", LIVE, path, str(1000 * seed + life)], check=True, timeout=60
        )
        logs += log.exists() and log.stat().st_size > 0
        refuse_log_of_another(str(path))
        if log.exists() and log.stat().st_size > 100:
            copy = tmp_path / "torn.db"
            shutil.copyfile(path, copy)
            whole = log.read_bytes()
            # As a power cut leaves it: short, or with a page of it not as it was written.
            cut = draw.randrange(len(whole))
            for broken in (whole[:cut], whole[:cut] + os.urandom(64) + whole[cut + 64 :]):
                (tmp_path / "torn.db-wal").write_bytes(broken)
                # A file that has taken up some of the log had it on the disk before.
                if path.read_bytes()[24:28] == first_counter(whole, page_size, path):
                    refuse_log_of_another(str(copy))
                    torn += 1
    assert logs >= 5
    assert torn >= 1
    assert is_whole(path)


def first_counter(log, page_size, path):
    """Return the count in the file's page 1 if no checkpoint has moved a later one there."""
    stored = path.read_bytes()[24:28]
    at = 32
    while at + 24 + page_size <= len(log):
        if log[at : at + 4] == b"\0\0\0\1" and log[at + 8 : at + 16] == log[16:24]:
            return (
                stored if int.from_bytes(stored) < int.from_bytes(log[at + 48 : at + 52]) else b""
            )
        at += 24 + page_size
    return stored


def test_to_look_at_a_log_drops_no_lock(tmp_path):
    path = tmp_path / "x.db"
    store(path, "s", 5, "dies")
    lock = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with SQLiteDB(path) as db:
            assert {"s1"} == {db.get_session("s1")["session_id"]}
            other = subprocess.run(
                [sys.executable, "-c", lock, path], capture_output=True, text=True, check=False
            )
        assert "database is locked" in other.stderr
        connection.execute("ROLLBACK")


def test_a_descriptor_stays_open_where_somebody_opens_the_file_meanwhile(tmp_path, monkeypatch):
    from director_db_sqlite import log  # noqa: PLC0415

    path = tmp_path / "x.db"
    store(path, "s", 5, "dies")
    opened = []

    def open_meanwhile(*_descriptors):
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        opened.append(connection)

    monkeypatch.setattr(log, "_contradiction", open_meanwhile)
    kept = len(log._kept)
    refuse_log_of_another(str(path))
    assert kept + 2 == len(log._kept)
    lock = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    other = subprocess.run(
        [sys.executable, "-c", lock, path], capture_output=True, text=True, check=False
    )
    assert "database is locked" in other.stderr
    opened[0].close()
