"""Greenlets instead of threads, whenever gevent has replaced what the standard library has."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("gevent")

# Five greenlets write while another one holds the lock of the file, and switch when they wait.
CODE = """
import json, os, sqlite3, sys, threading, time

path, when = sys.argv[1:]
if when == "first":
    import gevent.monkey
    gevent.monkey.patch_all()

from director_db_sqlite import SQLiteDB

db = SQLiteDB(path)
if when in ("used", "forked"):
    db.create_session("s")
if when == "closing":
    db.create_session("s")
    threading.Thread(target=db.get_sessions).start()
if when == "forked":
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

import gevent.monkey
gevent.monkey.patch_all()

db.create_session("s")
other = sqlite3.connect(path, isolation_level=None)
told, overlap = [], []

def hold():
    other.execute("BEGIN IMMEDIATE")
    gevent.sleep(0.05)
    overlap.append(list(told))
    other.execute("COMMIT")

def write(number):
    try:
        db.add_or_update_msg_to_conv("s", "c", f"m{number}", "t", [], [], "x")
        told.append(number)
    except Exception as error:
        told.append(repr(error))

holder = gevent.spawn(hold)
gevent.sleep(0)
gevent.joinall([holder, *(gevent.spawn(write, number) for number in range(5))])
stored = [message["msg_id"] for message in db.get_conversations("s")]
other.close()
if when == "closing":
    gevent.joinall([gevent.spawn(db.close) for _ in range(3)])
db.close()
print(json.dumps([sorted(told, key=str), overlap, sorted(stored), os.path.exists(path + "-wal")]))
"""


@pytest.mark.parametrize("when", ["first", "unused", "used", "forked", "closing"])
def test_greenlets_share_an_instance_from_before_the_patches(tmp_path, when):
    path = tmp_path / "x.db"
    done = subprocess.run(
        [sys.executable, "-c", CODE, path, when],
        capture_output=True,
        check=False,
        text=True,
        timeout=400,
    )
    assert (0, "") == (done.returncode, done.stderr)
    ids = [f"m{number}" for number in range(5)]
    # None could be stored while the lock was held, all were after it, and the file is let go of.
    assert [[0, 1, 2, 3, 4], [[]], ids, False] == json.loads(done.stdout)


IN_FLIGHT = """
import sys
from director_db import BackendUnavailableError, lifecycle
from director_db_sqlite import SQLiteDB

lifecycle.FORK_PATIENCE = 0.1
db = SQLiteDB(sys.argv[1])
db.create_session("s")

def patch_in_the_middle(*_):
    import gevent.monkey
    gevent.monkey.patch_all()
    try:
        db.get_session("s")
    except BackendUnavailableError as error:
        print(error)

import signal
signal.signal(signal.SIGALRM, patch_in_the_middle)

class Items(list):
    def __iter__(self):
        if signal.getsignal(signal.SIGALRM) is patch_in_the_middle:
            signal.raise_signal(signal.SIGALRM)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        return super().__iter__()

db.add_or_update_msg_to_conv("s", "c", "m", "t", [], [], Items([1]))
print(len(db.get_conversations("s")))
"""


def test_patches_in_the_middle_of_an_operation_are_refused_with_what_to_do(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IN_FLIGHT, tmp_path / "x.db"],
        capture_output=True,
        check=False,
        text=True,
        timeout=400,
    )
    assert (0, "") == (done.returncode, done.stderr)
    refused, stored = done.stdout.splitlines()
    assert "Call gevent.monkey.patch_all() first of all" in refused
    assert "1" == stored
