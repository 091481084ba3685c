"""Group commit under kills, interrupts, full disks and other processes, with real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from director_db_sqlite import SQLiteDB

pytestmark = pytest.mark.sampled

PRELUDE = """
import ctypes, itertools, json, os, random, signal, sys, threading, time
from director_db import BackendUnavailableError, DirectorDBError
from director_db_sqlite import SQLiteDB

db, args = SQLiteDB(sys.argv[1]), sys.argv[2:]

def put(session, name):
    '''Store two messages in one call, both or neither.'''
    db.add_or_update_msgs_to_conv(session, [
        {"conv_id": "c", "msg_id": name + part, "msg_type": "t", "agents": [], "actions": [],
         "content": "x" * 500} for part in "ab"])

def start(work, count):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    [thread.start() for thread in threads]
    return threads
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.db"
    with SQLiteDB(path) as db:
        db.create_session("s")
    return path


def python(code, path, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, path, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process):
    output, error = process.communicate(timeout=240)
    assert (0, "") == (process.returncode, error)
    return json.loads(output)


def pairs(path, session="s"):
    """Return the names that are stored, each of which must have both of its messages in order."""
    with SQLiteDB(path) as db:
        ids = [message["msg_id"] for message in db.get_conversations(session)]
    with closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
    names = [msg_id[:-1] for msg_id in ids[::2]]
    assert [name + part for name in names for part in "ab"] == ids
    assert len(set(names)) == len(names)
    return set(names)


KILLED = """
def work(number):
    for step in itertools.count():
        name = f"{args[0]}.{number}.{step}."
        put("s", name)
        os.write(1, (name + "\\n").encode())

start(work, 32)
"""


def test_what_was_acknowledged_survives_kill_under_many_threads(path):
    acknowledged = set()
    for attempt in range(5):
        process = python(KILLED, path, attempt)
        first = process.stdout.readline()
        time.sleep(random.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        # Not communicate(), which would pass over what readline() has read ahead.
        acknowledged |= set((first + process.stdout.read()).split())
        assert "" == process.stderr.read()
        process.communicate(timeout=400)
        found = pairs(path)
        assert set() == acknowledged - found
        # What was in flight may be there as well: one call of each thread.
        assert len(found) <= len(acknowledged) + 32 * (attempt + 1)
    assert len(acknowledged) > 32


INTERRUPTED = """
class Boom(BaseException):
    pass

THREADS = 10
stop = False
armed, booms, done, refused = [False] * THREADS, [0] * THREADS, [], []

def work(number):
    names = itertools.count()
    while not stop:
        try:
            armed[number] = True
            while not stop:
                name = f"{number}.{next(names)}."
                try:
                    put("s", name)
                except BackendUnavailableError as error:
                    refused.append((name, error.retryable, error.maybe_applied))
                else:
                    done.append(name)
        except Boom:
            armed[number] = False
            booms[number] += 1

threads = start(work, THREADS)
random.seed(int(args[0]))
end = time.monotonic() + 3
thrown = [0] * THREADS
while time.monotonic() < end:
    number = random.randrange(THREADS)
    # One at a time for each thread, and only where it is caught.
    if armed[number] and thrown[number] == booms[number]:
        thrown[number] += 1
        ident = ctypes.c_ulong(threads[number].ident)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Boom))
    time.sleep(random.uniform(0, 0.002))
end = time.monotonic() + 60
while thrown != booms and time.monotonic() < end:
    time.sleep(0.01)
stop = True
[thread.join(60) for thread in threads]
assert not any(thread.is_alive() for thread in threads)
assert {} == db._gate.inside
put("s", "after.")
print(json.dumps({"done": done, "refused": refused, "booms": sum(booms)}))
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_exceptions_thrown_into_leaders_and_followers(path, seed):
    """At any instruction of theirs: nobody sleeps for ever, and what was said is true."""
    result = told(python(INTERRUPTED, path, seed))
    found = pairs(path)
    assert set() == {*result["done"], "after."} - found
    assert result["booms"] > 10
    for name, retryable, maybe_applied in result["refused"]:
        assert (True, False) == (retryable, maybe_applied)
        assert name not in found


SIGNALLED = """
class Boom(BaseException):
    pass

def boom(*_):
    global armed
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.003))
    if armed:
        armed = False
        raise Boom

stop, armed, booms, done, failures = False, False, 0, [], []

def work(number):
    try:
        for step in itertools.count():
            if stop:
                return
            put("s", f"{number}.{step}.")
            done.append(f"{number}.{step}.")
    except BaseException as error:
        failures.append(repr(error))

threads = start(work, 8)
signal.signal(signal.SIGALRM, boom)
numbers = itertools.count()
end = time.monotonic() + 3
signal.setitimer(signal.ITIMER_REAL, 0.001)
while time.monotonic() < end:
    try:
        armed = True
        while time.monotonic() < end:
            name = f"main.{next(numbers)}."
            put("s", name)
            done.append(name)
        armed = False
    except Boom:
        booms += 1
signal.setitimer(signal.ITIMER_REAL, 0)
stop = True
[thread.join(60) for thread in threads]
assert not any(thread.is_alive() for thread in threads)
print(json.dumps({"done": done, "failures": failures, "booms": booms}))
"""


def test_what_a_signal_raises_in_the_main_thread_fails_no_other_thread(path):
    result = told(python(SIGNALLED, path))
    assert [] == result["failures"]
    assert result["booms"] > 4
    found = pairs(path)
    assert set() == set(result["done"]) - found
    assert {name for name in found if not name.startswith("main.")} <= set(result["done"])


FULL = """
import resource

done, refused = [], []

def work(number, steps=2000):
    for step in range(steps):
        name = f"{number}.{step}."
        try:
            put("s", name)
        except DirectorDBError as error:
            refused.append((name, error.maybe_applied))
            return
        done.append(name)

size = os.stat(sys.argv[1]).st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 600_000, resource.RLIM_INFINITY))
[thread.join(120) for thread in start(work, 12)]
full = len(refused)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
work("after", 300)
print(json.dumps({"done": done, "refused": refused, "full": full}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system limits no file's size")
def test_a_file_that_cannot_grow_acknowledges_nothing_that_is_not_there(path):
    result = told(python(FULL, path))
    found = pairs(path)
    assert 12 == result["full"] == len(result["refused"])
    assert 300 == len([name for name in result["done"] if name.startswith("after.")])
    assert set() == set(result["done"]) - found
    assert found - set(result["done"]) <= {name for name, maybe in result["refused"] if maybe}


CROWD = """
done = []

def work(number):
    session = f"{args[0]}.{number}"
    db.create_session(session)
    end = time.monotonic() + 3
    for step in itertools.count():
        if time.monotonic() > end:
            return
        put(session, f"{step}.")
        done.append((session, f"{step}."))

threads = start(work, int(args[1]))
[thread.join(120) for thread in threads]
assert not any(thread.is_alive() for thread in threads)
print(json.dumps(done))
"""


def test_many_processes_all_get_their_turn(path):
    """Without an error; the log is moved into the file by all of them meanwhile."""
    processes = [python(CROWD, path, number, 1 + 3 * (number % 2)) for number in range(8)]
    for process in processes:
        done = told(process)
        sessions = {session for session, _ in done}
        assert sessions
        for session in sessions:
            own = {name for owner, name in done if owner == session}
            assert own == pairs(path, session)


def test_a_leader_that_stands_still_is_not_waited_for_by_other_processes(path):
    """Between its batches nothing is locked: a process that is stopped there holds up nobody."""
    process = python("put('s', 'one.'); print('ready', flush=True); time.sleep(100)", path)
    try:
        assert "ready\n" == process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        with SQLiteDB(path, operation_timeout=20) as db:
            db.create_session("other")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=400)
    assert {"one."} == pairs(path)
