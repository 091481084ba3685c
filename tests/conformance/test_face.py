"""The asynchronous face under the clauses: each call a coroutine, here and in other processes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import closing

import pytest

from director_db import SessionNotFoundError
from director_db.asyncio import AsyncDB
from director_db.testing import Place
from director_db_conformance import CLAUSES
from director_db_conformance.face import ASYNCIO, AwaitedDB
from director_db_conformance.suite import not_applicable
from director_db_conformance.transcript import RecordedPlace, transcript
from director_db_sqlite import SQLiteDB


class ToldDB(SQLiteDB, db_type="told"):
    """Keeps the names of the threads in which sessions are read."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.threads = []

    def _select_session(self, session_id):
        self.threads.append(threading.current_thread().name)
        return super()._select_session(session_id)


@pytest.fixture
def told(tmp_path):
    with ToldDB(tmp_path / "x.db") as db:
        db.create_session("s1")
        yield db


@pytest.fixture
def db(told):
    return AwaitedDB(AsyncDB(told))


@pytest.fixture
def place(tmp_path):
    transcript.clear()
    env = {"SQLITE_DB_PATH": str(tmp_path / "x.db")}
    with closing(RecordedPlace(Place("sqlite", env), lambda: tmp_path, ASYNCIO)) as place:
        yield place


def test_a_call_is_a_coroutine_and_gives_what_that_gives(db, told):
    assert "s1" == db.get_session("s1")["session_id"]
    assert ["director_db told"] == told.threads
    with pytest.raises(SessionNotFoundError) as caught:
        db.update_session("nobody")
    assert "nobody" == caught.value.session_id
    assert (False, told.place, repr(AsyncDB(told))) == (db.closed, db.place, repr(db))
    with db as entered:
        assert entered is db
    assert db.closed
    assert told.closed


def test_an_iteration_is_read_as_it_is_asked_for(db, told):
    for name in "abc":
        told.add_or_update_msg_to_conv("s1", "c", name, "t", [], [], name)
    found = db.iter_conversations("s1", page=2)
    assert ["a", "b"] == [next(found)["msg_id"] for _ in range(2)]
    told.add_or_update_msg_to_conv("s1", "c", "d", "t", [], [], "d")
    assert ["c", "d"] == [record["msg_id"] for record in found]
    assert ["s1"] == [record["session_id"] for record in db.iter_sessions()]


def test_many_threads_are_many_coroutines_of_one_loop(db, monkeypatch):
    loops, threads = set(), set()

    async def get_session(self, session_id):
        loops.add(asyncio.get_running_loop())
        threads.add(threading.current_thread().name)
        await asyncio.sleep(0.01)
        return session_id

    monkeypatch.setattr(AsyncDB, "get_session", get_session)
    callers = [threading.Thread(target=db.get_session, args=("s1",)) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
    assert 1 == len(loops)
    assert {"event loop of director-db-conformance"} == threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_loop_of_its_own(db):
    assert db.get_session("s1")
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if db.get_session("s1")["session_id"] == "s1" else 2
        finally:
            os._exit(status)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert db.get_session("s1")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such signals")
def test_what_a_signal_raises_cancels_the_coroutine_and_waits_for_its_end(db, monkeypatch):
    ends = []

    async def get_session(self, session_id):
        try:
            await asyncio.sleep(300)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            ends.append(session_id)
            raise

    monkeypatch.setattr(AsyncDB, "get_session", get_session)
    before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            db.get_session("s1")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ["s1"] == ends


def test_the_handles_of_a_place_go_through_the_face(place):
    db = place.open()
    assert isinstance(db.instance, AwaitedDB)
    db.create_session("s1")
    assert "s1" == db.get_session("s1")["session_id"]
    assert "db.create_session('s1')  -> True" == transcript.lines[0]


def test_code_in_another_process_goes_through_it_too(place):
    code = "print(type(db).__name__, db is load_db(), db.create_session('s1'), db.closed)"
    process = place.python(code)
    assert ("AwaitedDB True True False\n", "") == process.communicate(timeout=120)
    assert "s1" == place.open().get_session("s1")["session_id"]


def test_other_processes_do_without_the_suite(place):
    """It takes longer to import than what most of them do."""
    process = place.python("print({'director_db_conformance', 'pytest'} & {*sys.modules})")
    assert ("set()\n", "") == process.communicate(timeout=120)


def test_calls_of_an_async_handle_are_told_when_they_have_ended(place):
    db = place.open_async()

    async def main():
        await db.create_session("s1")
        with pytest.raises(SessionNotFoundError):
            await db.update_session("nobody")

    asyncio.run(main())
    first, second, *_ = transcript.lines
    assert "await db.create_session('s1')  -> True" == first
    assert second.startswith("await db.update_session('nobody')  raised SessionNotFoundError")


def test_what_says_nothing_of_coroutines_says_why():
    place = Place("sqlite", {}, faults={"locked": lambda: None})
    only = [found for found in CLAUSES.values() if found.sync_only]
    assert ["test_lif_3_an_interrupted_call_that_waited_is_not_applied_later"] == [
        found.name for found in only
    ]
    assert not_applicable(only[0], place) is None
    reason = "for coroutines: nothing breaks off a call that has begun, see LIF-7"
    assert reason == not_applicable(only[0], place, ASYNCIO)
