"""Callers who share transactions, with a transaction of their own that is no database's."""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from director_db import BackendUnavailableError, SessionNotFoundError
from director_db.call import Call
from director_db.queue import MAX_BATCH_BYTES, MAX_BATCH_CALLS, Queue
from tests.patience import wait_until

PATIENCE = 60


class Boom(BaseException):
    """What a test throws into the middle of something."""


class DriverError(Exception):
    """What the driver of this database raises."""


class Ledger:
    """A transaction that stores what its calls return, all of it at the end or nothing."""

    def __init__(self):
        self.queue = Queue(self, lambda: "the ledger", "ledger", (DriverError,))
        self.batches = []
        self.deadlines = []
        self.open = None
        self.committed = False
        # What strikes in these places, once each.
        self.before_begin = self.before_commit = self.after_commit = lambda: None

    @property
    def stored(self):
        return [name for batch in self.batches for name in batch]

    def run(self, batch, deadline):
        self.committed = False
        self.deadlines.append(deadline)
        self._once("before_begin")
        self.open = []
        call = batch.take_first()
        while call is not None:
            try:
                call.result = call.operation()
                self.open.append(call.result)
            except Exception as error:  # noqa: BLE001 - raised again if it is not the call's
                batch.fail(call, error)
            call = batch.take()
        self._once("before_commit")
        self.committed = True
        self.batches.append(self.open)
        self.open = None
        self._once("after_commit")

    def recover(self):
        if self.open is not None:
            self.open = None
            self.committed = False
        return self.committed

    def _once(self, name):
        strike = getattr(self, name)
        setattr(self, name, lambda: None)
        strike()

    def write(self, name, size=0, deadline=math.inf):
        return self.queue.run(lambda: name, size, deadline)


def strike():
    raise Boom


def throw(error):
    def operation():
        raise error

    return operation


class Callers:
    """One thread in the middle of its operation, and others that wait meanwhile."""

    def __init__(self, ledger):
        self.ledger = ledger
        self.pool = ThreadPoolExecutor(200)
        self.leave = threading.Event()
        self.futures = []

    def lead(self, operation):
        inside = threading.Event()

        def slow():
            inside.set()
            assert self.leave.wait(PATIENCE)
            return operation()

        self.futures.append(self.pool.submit(self.ledger.queue.run, slow, 0, math.inf))
        assert inside.wait(PATIENCE)

    def follow(self, *operations, size=0, deadline=math.inf):
        """Queue operations, one after the other, each of a thread of its own."""
        waiting = self.ledger.queue.waiting
        for operation in operations:
            before = len(waiting)
            run = self.ledger.queue.run
            self.futures.append(self.pool.submit(run, operation, size, deadline))
            wait_until(lambda before=before: len(waiting) > before)

    def outcomes(self):
        """Let the leader go on, and return what everybody got, the leader first."""
        self.leave.set()
        return [future.exception(PATIENCE) or future.result() for future in self.futures]


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def callers(ledger):
    callers = Callers(ledger)
    yield callers
    callers.leave.set()
    callers.pool.shutdown()


def name(text):
    return lambda: text


def assert_failed_whole(error):
    assert isinstance(error, BackendUnavailableError)
    assert (True, False) == (error.retryable, error.maybe_applied)
    assert "the ledger" in str(error)


# --- Who shares a transaction -------------------------------------------------------------------


def test_a_caller_alone_is_its_own_leader(ledger):
    assert "a" == ledger.write("a", deadline=7.0)
    assert [["a"]] == ledger.batches
    assert [7.0] == ledger.deadlines
    assert 0 == len(ledger.queue.waiting)


def test_who_waits_shares_the_next_transaction_in_the_order_of_coming(ledger, callers):
    callers.lead(name("a"))
    callers.follow(*map(name, "bcdef"))
    assert [*"abcdef"] == callers.outcomes()
    assert [[*"abcdef"]] == ledger.batches


def test_who_comes_while_the_leader_waits_for_others_is_in(ledger, callers):
    inside, leave = threading.Event(), threading.Event()

    def wait():
        inside.set()
        assert leave.wait(PATIENCE)

    ledger.before_begin = wait
    first = callers.pool.submit(ledger.write, "a")
    assert inside.wait(PATIENCE)
    others = [callers.pool.submit(ledger.write, other) for other in "bc"]
    wait_until(lambda: 3 == len(ledger.queue.waiting))
    leave.set()
    assert [*"abc"] == [future.result(PATIENCE) for future in (first, *others)]
    assert [3] == [len(batch) for batch in ledger.batches]


def test_a_batch_takes_so_many_calls_and_no_more(ledger, callers):
    names = [f"n{number}" for number in range(MAX_BATCH_CALLS + 10)]
    callers.lead(name("first"))
    callers.follow(*map(name, names))
    assert ["first", *names] == callers.outcomes()
    assert [MAX_BATCH_CALLS, 11] == [len(batch) for batch in ledger.batches]
    assert ["first", *names] == ledger.stored


def test_a_batch_that_is_large_takes_no_more(ledger, callers):
    callers.lead(name("first"))
    callers.follow(name("large"), size=MAX_BATCH_BYTES)
    callers.follow(name("small"))
    assert ["first", "large", "small"] == callers.outcomes()
    assert [["first", "large"], ["small"]] == ledger.batches


def test_nobody_is_overtaken_for_good(ledger):
    """Each of many who write all the time gets its share."""
    counts = dict.fromkeys(range(8), 0)
    stop = threading.Event()

    def work(number):
        while not stop.is_set():
            assert number == ledger.write(number)
            counts[number] += 1

    ledger.queue.max_calls = 2
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(work, number) for number in counts]
        try:
            wait_until(lambda: 50 < min(counts.values()))
        finally:
            stop.set()
        assert [None] * 8 == [future.result(PATIENCE) for future in futures]
    assert counts == {number: ledger.stored.count(number) for number in counts}


def test_the_main_thread_runs_nothing_for_others(ledger, callers):
    def slow():
        callers.follow(name("other"))
        return "main"

    assert "main" == ledger.queue.run(slow, 0, math.inf)
    assert ["other"] == callers.outcomes()
    assert [["main"], ["other"]] == ledger.batches


def test_the_main_thread_follows_others(ledger, callers):
    callers.lead(name("a"))
    threading.Timer(
        0, lambda: (wait_until(lambda: ledger.queue.waiting), callers.leave.set())
    ).start()
    assert "main" == ledger.write("main")
    assert [["a", "main"]] == ledger.batches


# --- Failures and interrupts --------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("mine"), SessionNotFoundError("mine"), DriverError("mine")], ids=repr
)
def test_one_that_fails_fails_alone(ledger, callers, error):
    callers.lead(name("a"))
    callers.follow(name("b"), throw(error), name("c"))
    assert ["a", "b", error, "c"] == callers.outcomes()
    assert ["a", "b", "c"] == ledger.stored


@pytest.mark.parametrize(
    ("waiting", "left", "seconds"),
    [(1, 60, 0.1), (64, 60, 0.1), (192, 60, 0.3), (1000, 60, 0.5), (1000, 0.2, 0.2)],
)
def test_a_crowd_looks_less_often(ledger, waiting, left, seconds):
    """Or its looks alone would keep a processor busy."""
    asked = []

    class Wake:
        def acquire(self, *, timeout):
            asked.append(timeout)
            return True

    call = Call(int, 0)
    call.wake = Wake()
    ledger.queue.waiting.extend(Call(int, 0) for _ in range(waiting))
    assert ledger.queue._sleep(call, time.monotonic() + left)
    assert [pytest.approx(seconds, abs=0.05)] == asked


class MineError(ValueError):
    """What a call raises; builtin errors have no weak references."""


@pytest.mark.parametrize("of_leader", [False, True])
def test_an_error_is_gone_with_the_last_who_has_it(ledger, of_leader):
    def fail(*_):
        raise MineError

    ledger.before_begin = fail if of_leader else ledger.before_begin
    gc.disable()
    try:
        try:
            ledger.queue.run(name("a") if of_leader else fail, 0, math.inf)
        except MineError as error:
            seen = weakref.ref(error)
        assert seen() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("interrupt", [Boom(), TimeoutError("thrown in"), OSError("too")], ids=repr)
def test_what_strikes_a_leader_fails_its_batch_and_somebody_else_goes_on(
    ledger, callers, interrupt, caplog
):
    callers.lead(name("a"))
    callers.follow(name("b"), throw(interrupt), name("d"))
    with caplog.at_level(logging.WARNING, "director_db.ledger"):
        leader, b, c, d = callers.outcomes()
    assert leader is interrupt
    assert_failed_whole(b)
    assert_failed_whole(c)
    assert b is not c
    assert "d" == d
    assert ["d"] == ledger.stored
    text = "the ledger: a thread that was storing writes (3) was interrupted"
    assert [text] == caplog.messages


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("place", ["before_commit", "after_commit"])
def test_the_transaction_says_what_became_of_a_struck_batch(
    ledger, callers, place, again, monkeypatch
):
    """Also where the leader is struck once more, while it tells the others: the next one does."""
    setattr(ledger, place, strike)
    recover, left = ledger.queue.recover, [int(again)]

    def interrupted():
        if left[0]:
            left[0] -= 1
            raise Boom
        recover()

    monkeypatch.setattr(ledger.queue, "recover", interrupted)
    callers.lead(name("a"))
    callers.follow(name("b"))
    leader, b = callers.outcomes()
    assert [0] == left
    assert isinstance(leader, Boom)
    if place == "after_commit":
        assert "b" == b
    else:
        assert_failed_whole(b)
    assert "c" == ledger.write("c")
    assert (["a", "b", "c"] if place == "after_commit" else ["c"]) == ledger.stored


@pytest.mark.parametrize("place", ["before_begin", "before_commit", "after_commit"])
def test_what_one_thread_stands_for_is_told_what_became_of_it(ledger, place):
    """What is raised after the commit undoes nothing, so it is nobody's error."""

    def run():
        setattr(ledger, place, throw(MemoryError()))
        each = [(lambda name=name: name, 0) for name in "ab"]
        return ledger.queue.run_each(each, math.inf)

    with ThreadPoolExecutor() as pool:  # The main thread would lead for one of them at a time.
        calls = pool.submit(run).result(PATIENCE)
    if place == "after_commit":
        assert ["a", "b"] == ledger.stored == [call.outcome() for call in calls]
        return
    with pytest.raises(MemoryError):
        calls[0].outcome()
    if place == "before_begin":
        assert ["b"] == ledger.stored == [calls[1].outcome()]
    else:
        with pytest.raises(BackendUnavailableError):
            calls[1].outcome()
        assert [] == ledger.stored


class Dropping(deque):
    """A queue whose second call, or what comes after it, is in no list: its leader is struck."""

    struck = False

    def popleft(self):
        call = super().popleft()
        if self.struck:
            return call
        self.struck = True
        raise Boom


def test_a_call_in_the_hand_of_a_struck_leader_fails(ledger, callers):
    callers.lead(name("a"))
    ledger.queue.waiting = Dropping()
    callers.follow(name("b"), name("c"))
    leader, b, c = callers.outcomes()
    assert isinstance(leader, Boom)
    assert_failed_whole(b)
    assert "c" == c
    assert ["c"] == ledger.stored


def test_a_call_whose_thread_is_struck_never_begins(ledger, callers):
    """Also where it was struck once more, while it withdrew the call."""

    class Keeping(deque):
        def remove(self, _call):
            raise Boom

    def lead_nobody(*_args, **_kwargs):
        raise Boom

    ledger.queue.waiting = Keeping()
    ledger.queue._try_to_lead, healthy = lead_nobody, ledger.queue._try_to_lead
    with pytest.raises(Boom):
        ledger.write("lost")
    ledger.queue._try_to_lead = healthy
    assert 1 == len(ledger.queue.waiting)
    assert "other" == callers.pool.submit(ledger.write, "other").result(PATIENCE)
    assert ["other"] == ledger.stored


def test_a_caller_that_is_struck_while_it_waits_is_withdrawn(ledger, callers):
    idents = []

    def work():
        idents.append(threading.get_ident())
        return ledger.write("lost")

    callers.lead(name("a"))
    struck = callers.pool.submit(work)
    wait_until(lambda: 1 == len(ledger.queue.waiting))
    callers.follow(name("b"))
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(idents[0]), ctypes.py_object(Boom))
    assert isinstance(struck.exception(PATIENCE), Boom)
    assert ["a", "b"] == callers.outcomes()
    assert ["a", "b"] == ledger.stored


def test_a_handler_in_the_middle_of_the_leader_is_refused(ledger):
    def interrupted():
        with pytest.raises(BackendUnavailableError, match="this very thread") as caught:
            ledger.write("handler")
        assert caught.value.retryable
        return "main"

    assert "main" == ledger.queue.run(interrupted, 0, math.inf)
    assert ["main"] == ledger.stored


def test_a_handler_writes_before_the_call_that_it_interrupts(ledger):
    """It is behind the very call that waits for it to return."""
    outcomes = []

    class Interrupted(deque):
        def append(self, call):
            super().append(call)
            if len(self) == 1:
                outcomes.append(ledger.write("handler"))

    ledger.queue.waiting = Interrupted()
    assert "main" == ledger.write("main")
    assert ["handler"] == outcomes
    assert ["handler", "main"] == ledger.stored


class Interrupting:
    """A lock whose first owner is interrupted as soon as it has let go."""

    def __init__(self, lock, meanwhile):
        self.acquire, self._is_owned = lock.acquire, lock._is_owned
        self._lock, self._meanwhile = lock, [meanwhile]

    def release(self):
        self._lock.release()
        if self._meanwhile:
            self._meanwhile.pop()()


def test_a_call_that_has_failed_is_not_stored_by_the_next_leader(ledger, callers):
    """Its transaction did not even begin: another process had the lock for too long, say."""

    def others_lead():
        assert "b" == callers.pool.submit(ledger.write, "b").result(PATIENCE)

    ledger.before_begin = throw(DriverError("locked"))
    ledger.queue.leading = Interrupting(ledger.queue.leading, others_lead)
    with pytest.raises(DriverError, match="locked"):
        callers.pool.submit(ledger.write, "a").result(PATIENCE)
    assert ["b"] == ledger.stored


# --- Deadlines ----------------------------------------------------------------------------------


def test_out_of_time_a_call_is_withdrawn(ledger, callers, caplog):
    callers.lead(name("a"))
    with caplog.at_level(logging.WARNING, "director_db.ledger"):
        callers.follow(name("late"), deadline=time.monotonic() + 0.3)
        late = callers.futures[1].exception(PATIENCE)
    assert_failed_whole(late)
    assert 0 == len(ledger.queue.waiting)
    assert ["the ledger: gave up waiting for other threads' writes"] == caplog.messages
    assert ["a", late] == callers.outcomes()
    assert ["a"] == ledger.stored


def test_a_call_may_give_up_before_its_time_unless_it_has_begun(ledger, callers, caplog):
    gives_up, run = threading.Event(), ledger.queue.run
    callers.lead(name("a"))
    waiting = callers.pool.submit(run, name("b"), 0, math.inf, gives_up.is_set)
    wait_until(lambda: len(ledger.queue.waiting) == 1)
    assert not waiting.done()
    gives_up.set()
    error = waiting.exception(PATIENCE)
    assert isinstance(error, BackendUnavailableError)
    assert (True, False) == (error.retryable, error.maybe_applied)
    # It is no accident, of which somebody would have to hear.
    assert "gave up" not in caplog.text
    assert ["a"] == callers.outcomes()
    assert "c" == run(name("c"), 0, math.inf, lambda: True)
    assert ["a", "c"] == ledger.stored


def test_a_call_that_has_begun_is_waited_for_beyond_its_deadline(ledger, callers):
    begun, leave = threading.Event(), threading.Event()

    def slow():
        begun.set()
        assert leave.wait(PATIENCE)
        return "b"

    callers.lead(name("a"))
    deadline = time.monotonic() + 1
    callers.follow(slow, deadline=deadline)
    callers.leave.set()
    assert begun.wait(PATIENCE)
    wait_until(lambda: time.monotonic() > deadline + 0.3)
    leave.set()
    outcomes = callers.outcomes()
    # Where the machine was so slow that it had not begun in time, it was told so.
    assert outcomes == ["a", "b"] or ledger.stored == ["a"]


def test_nobody_depends_on_being_woken(ledger, callers):
    callers.lead(name("a"))
    callers.follow(name("b"))
    (call,) = ledger.queue.waiting
    wait_until(lambda: call.wake is not None)
    # As if its leader had been struck before it could wake anybody.
    ledger.queue.waiting.remove(call)
    call.result, call.settled = "settled", True
    assert ["a", "settled"] == callers.outcomes()


# --- Forks and patches --------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_a_fork_starts_with_nobody(ledger, callers):
    callers.lead(name("a"))
    callers.follow(name("b"))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ledger.open = None
            ledger.queue.reset()
            assert 0 == len(ledger.queue.waiting)
            assert "child" == ledger.write("child", deadline=time.monotonic() + PATIENCE)
            assert ["child"] == ledger.stored
            status = 0
        finally:
            os._exit(status)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ["a", "b"] == callers.outcomes()
    assert ["a", "b"] == ledger.stored


GREENLETS = """
import math
from tests.test_queue import Ledger
ledger = Ledger()
assert "before" == ledger.write("before")
import gevent.monkey
gevent.monkey.patch_all()
ledger.queue.reset()
inside, leave = gevent.event.Event(), gevent.event.Event()

def slow():
    inside.set()
    leave.wait()
    return "slow"

# Not the first greenlet, which has the main thread's part.
def write(name):
    return ledger.write(name)

leader = gevent.spawn(ledger.queue.run, slow, 0, math.inf)
inside.wait()
others = [gevent.spawn(write, name) for name in "bc"]
while len(ledger.queue.waiting) < 2:
    gevent.sleep(0.001)
leave.set()
gevent.joinall([leader, *others], raise_error=True)
print(ledger.batches)
"""


def test_greenlets_share_transactions_after_the_patches_of_gevent():
    pytest.importorskip("gevent")
    done = subprocess.run(
        [sys.executable, "-c", GREENLETS],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "[['before'], ['slow', 'b', 'c']]\n" == done.stdout, done.stderr
