"""Threads that start at one moment, and what becomes of them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from director_db_conformance.clauses import at_once as module
from director_db_conformance.clauses import patience
from director_db_conformance.clauses.at_once import at_once, end, finish, let_go, wait_until
from director_db_conformance.clauses.patience import Patience
from director_db_conformance.expectation import NonconformityError
from director_db_conformance.transcript import transcript


def test_results_come_in_order():
    barrier = threading.Barrier(3)
    assert [0, 1, 2] == at_once([lambda n=n: (barrier.wait(30), n)[1] for n in range(3)])


def test_who_watches_looks_once_more_at_the_end():
    done, seen = [], []
    at_once([lambda: done.append(1)], watched_by=[lambda: seen.append(len(done))])
    assert 1 == seen[-1]


def test_an_error_of_any_of_them_is_raised():
    def fail():
        raise KeyError(7)

    for works, watched_by in (([fail, int], []), ([int], [fail])):
        with pytest.raises(NonconformityError, match="raised KeyError: 7") as found:
            at_once(works, watched_by=watched_by)
        assert isinstance(found.value.__cause__, KeyError)


def test_what_never_ends_is_a_failure(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    never = threading.Event()
    with pytest.raises(NonconformityError, match="one had not after"):
        at_once([never.wait])
    never.set()
    with pytest.raises(NonconformityError, match="the sun rises") as found:
        wait_until(bool, "the sun rises")
    assert "not after 0.2 s" == found.value.actual


def test_patience_is_with_each_thread_and_begins_anew_with_each_call():
    """Together they take three times as long as any of them may be silent."""
    turns = [threading.Event() for _ in range(3)]

    def work(number):
        if number:
            turns[number - 1].wait(30)
        for _ in range(6):
            transcript.add("db.health_check()")
            time.sleep(0.1)
        turns[number].set()
        return number

    assert [0, 1, 2] == at_once([lambda n=n: work(n) for n in range(3)], patience=0.6)


def test_a_thread_that_is_silent_beside_a_busy_one_is_found(monkeypatch):
    monkeypatch.setattr(patience, "crowd", lambda: 1.0)
    end = threading.Event()

    def chatter():
        while not end.is_set():
            transcript.add("db.health_check()")
            time.sleep(0.01)

    before = threading.active_count()
    with pytest.raises(NonconformityError, match="one had not after"):
        at_once([end.wait], watched_by=[chatter], patience=0.5)
    end.set()
    wait_until(lambda: threading.active_count() == before, "nobody watches any more")


def test_patience_lasts_longer_where_many_want_a_processor(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(patience.os, "cpu_count", lambda: 2)
    over = []
    for load in (1.0, 16.0):
        monkeypatch.setattr(patience.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        limit, begun = Patience(60.0), clock[0]
        while not limit.is_over:
            clock[0] += 1.0
        over.append(clock[0] - begun)
    assert [61.0, 481.0] == over


@pytest.fixture
def started():
    """Start Python code with pipes, as a place does."""
    processes = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    end(*processes)
    assert [] == [process for process in processes if process.poll() is None]


def test_a_process_that_is_gone_says_why(started):
    process = started("raise SystemExit('no place to go')")
    process.wait(60)
    with pytest.raises(NonconformityError, match="another process goes on") as gone:
        let_go(process)
    assert "status 1: no place to go" == gone.value.actual


def test_a_process_that_does_not_end_says_so(started, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    process = started("import sys, time; sys.stdin.readline(); time.sleep(600)")
    with pytest.raises(NonconformityError, match="another process ends without an error, within"):
        finish(process)


def test_cleaning_up_beside_a_thread_that_is_at_the_pipes_raises_nothing(started):
    """One of several fails; the clause ends while other threads still wait for the others."""
    failing = started("import sys; sys.stdin.readline(); sys.exit('this one')")
    waiting = [started("import sys, time; sys.stdin.readline(); time.sleep(600)") for _ in "ab"]
    works = [lambda process=process: finish(process) for process in (failing, *waiting)]
    with pytest.raises(NonconformityError, match="status 1: this one"):
        at_once(works)
    end(failing, *waiting)
