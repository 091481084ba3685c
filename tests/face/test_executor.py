"""The executor where things go wrong: no thread, no memory, a handler that raises, a fork."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
import weakref
from math import inf

import pytest

from director_db import BackendUnavailableError, awaited, lifecycle
from director_db import executor as module
from director_db.asyncio import AsyncDB
from director_db.executor import MOST_THREADS, THREADS, Executor
from director_db.job import Job, error_of_its_own, nothing
from director_db_sqlite import SQLiteDB

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

REFUSED = "can't start new thread"


@pytest.fixture
def db(tmp_path):
    with SQLiteDB(tmp_path / "x.db") as sync_db:
        sync_db.create_session("s1")
        yield AsyncDB(sync_db)


def store(db, number):
    return db.add_or_update_msg_to_conv("s1", "c", f"m{number}", "t", [], [], number)


def stored(db):
    return [message["content"] for message in db.sync_db.get_conversations("s1")]


def each(calls, seconds=30):
    """Run calls at once; return what each ended with, None where it has not ended."""

    async def main():
        tasks = list(map(asyncio.ensure_future, calls))
        await asyncio.wait(tasks, timeout=seconds)
        return [task.exception() or task.result() if task.done() else None for task in tasks]

    loop = asyncio.new_event_loop()
    ends = loop.run_until_complete(main())
    if None not in ends:  # Or it would wait for it.
        loop.close()
    return ends


def struck_in(function, call, meanwhile=lambda: None):
    """Begin a call, and raise in the main thread where it calls a function of the executor."""

    def trace(frame, event, _argument):
        if event == "call" and frame.f_code is function.__code__:
            sys.settrace(None)
            meanwhile()
            raise KeyboardInterrupt

    async def main():
        sys.settrace(trace)
        with pytest.raises(KeyboardInterrupt):
            call.send(None)

    asyncio.run(main())


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_coroutine_that_is_collected_under_the_lock_waits_for_nobody(db, goes_on):
    """A collection may run in a thread that has it, and close what was left of a closed loop."""

    async def left(call):
        try:
            await call
        finally:
            if goes_on:
                await db.get_session("s1")

    async def main():
        calls = [left(store(db, 1)), left(db.get_session("s1"))]
        for call in calls:
            call.send(None)
        return calls

    calls = asyncio.run(main())

    async def collect():
        with db._executor._lock:
            for call in calls:
                with contextlib.suppress(RuntimeError):  # It goes on where it was to end.
                    call.close()

    thread = threading.Thread(target=lambda: asyncio.run(collect()), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert [True] == each([store(db, 2)])


def test_what_a_job_holds_ends_without_the_lock():
    """An object of the caller's may end with its job, and wait for what another thread does."""
    executor = Executor("director-db", lambda _: None, 60, lambda: False)
    is_known_to_a_thread_alone, is_over, found = threading.Event(), threading.Event(), []

    class Waiting:
        def __call__(self):
            assert is_known_to_a_thread_alone.wait(120)

        def __del__(self):
            has_run = threading.Event()
            job = Job(has_run.set, lambda: None)
            threading.Thread(target=executor.submit, args=(job,), daemon=True).start()
            found.append(has_run.wait(120))
            is_over.set()

    executor.submit(Job(Waiting(), lambda: None))
    is_known_to_a_thread_alone.set()
    assert is_over.wait(300)
    assert [True] == found


class Crowd:
    """Calls of one session that wait for its lock, more than there are threads as a rule."""

    def __init__(self, count, patience=inf):
        self.is_closed = False
        self.executor = Executor("director-db", lambda _: None, patience, lambda: self.is_closed)
        self.unlocked, self.jobs = threading.Event(), []
        for _ in range(count):
            self.begin(lambda: self.is_closed or self.unlocked.wait(300), "locked")
        self.until(lambda: self.executor._held_back or not count)

    def begin(self, call, session=None):
        job = Job(call, nothing, session=session)
        self.jobs.append(job)
        self.executor.submit(job)
        return job

    @staticmethod
    def until(condition):
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def assert_all_end(self):
        self.unlocked.set()
        self.until(lambda: all(job.has_begun and job.result for job in self.jobs))
        self.until(lambda: not self.executor._held_back)


def running(executor):
    return list(executor._threads.values()).count("locked")


def test_those_who_are_held_back_begin_when_their_session_is_free():
    Crowd(100).assert_all_end()


def test_beside_those_who_are_held_back_many_run_at_once():
    crowd = Crowd(50)
    together = threading.Barrier(20, timeout=120)
    crowd.until(lambda: len(crowd.executor._threads) == THREADS)
    others = [crowd.begin(lambda: together.wait() + 1, number) for number in range(20)]
    crowd.until(lambda: all(job.result or job.error for job in others))
    assert [None] * 20 == [job.error for job in others]
    crowd.assert_all_end()


def test_messages_that_come_one_by_one_are_held_back_too():
    """Each is alone where messages are stored together, and waits there for its session."""
    crowd = Crowd(0)
    executor = crowd.executor = Executor("director-db", awaited.store_together, inf, lambda: False)
    for number in range(THREADS + 3):
        job = Job(lambda: crowd.unlocked.wait(300), nothing, session="locked")
        crowd.jobs.append(job)
        executor.submit_together(job)
        if number < THREADS:
            crowd.until(lambda: running(executor) > number)  # noqa: B023
    crowd.until(lambda: len(executor._held_back.get("locked", ())) == 3)
    other = crowd.begin(lambda: True, "other")
    crowd.until(lambda: other.result)
    assert THREADS == running(executor)
    crowd.assert_all_end()


def test_a_callback_that_runs_the_others_is_not_run_again():
    """A collection of garbage in the middle of one may close a coroutine, which does that."""
    loop = asyncio.new_event_loop()
    callbacks, seen = awaited.Callbacks(loop), []

    def nested():
        seen.append("nested")
        if len(seen) == 1:
            callbacks.run()
            callbacks.pending.append(lambda: seen.append("late"))

    callbacks.pending.extend([nested, lambda: seen.append("next")])
    callbacks.run()
    loop.close()
    assert ["nested", "nested", "next", "late"] == seen


def test_those_who_are_held_back_begin_after_a_fork_that_took_long(monkeypatch):
    """Their session is free meanwhile, and each thread has ended for lack of work."""
    monkeypatch.setattr(module, "_IDLE", 0.01)
    crowd = Crowd(50)
    with monkeypatch.context() as patched:
        patched.setattr(lifecycle, "forks", [True])
        crowd.unlocked.set()
        crowd.until(lambda: sum(job.result is not None for job in crowd.jobs) >= THREADS)
        time.sleep(0.1)
    crowd.executor._after_fork_in_parent()
    crowd.assert_all_end()


def test_writes_that_all_wait_leave_threads_to_reads():
    """For the locks of many sessions, or for one of the whole database."""
    crowd = Crowd(0)
    for number in range(MOST_THREADS + 50):
        crowd.begin(lambda: crowd.unlocked.wait(300), number)
    crowd.until(lambda: len(crowd.executor._held_back) == 50 + THREADS)
    reads = [crowd.begin(lambda: True) for _ in range(100)]
    crowd.until(lambda: all(read.result for read in reads))
    crowd.assert_all_end()


def test_who_waits_for_too_long_behind_others_is_told_so():
    crowd = Crowd(0)
    for _ in range(MOST_THREADS):
        crowd.begin(lambda: crowd.unlocked.wait(300))
    crowd.until(lambda: all(job.has_begun for job in crowd.jobs))
    crowd.executor._patience = 0.3
    late = crowd.begin(lambda: True)
    crowd.until(lambda: late.error)
    assert BackendUnavailableError is type(late.error)
    assert not late.has_begun
    crowd.jobs.remove(late)
    crowd.assert_all_end()


def test_those_who_are_held_back_for_too_long_are_told_so():
    crowd = Crowd(50, patience=0.3)
    crowd.until(lambda: not any(crowd.executor._held_back.values()))
    late = [job for job in crowd.jobs if not job.has_begun]
    assert 50 - THREADS == len(late)
    assert {BackendUnavailableError} == {type(job.error) for job in late}
    crowd.unlocked.set()


def test_those_who_are_held_back_when_it_is_closed_are_told_that():
    """Each ends with the error of its call, which nothing holds up any more."""
    crowd = Crowd(50, patience=3)
    crowd.is_closed = True
    crowd.until(lambda: not any(crowd.executor._held_back.values()))
    crowd.unlocked.set()
    crowd.until(lambda: all(job.result for job in crowd.jobs))
    assert {None} == {job.error for job in crowd.jobs}


def test_one_that_is_withdrawn_lets_go_of_what_it_was_given():
    class Payload(dict):
        pass

    crowd, payload = Crowd(50), Payload()
    seen = weakref.ref(payload)
    job = crowd.begin(lambda payload=payload: payload, "locked")
    del payload
    assert crowd.executor.withdraw(job)
    gc.collect()
    assert seen() is None
    crowd.jobs.remove(job)
    crowd.assert_all_end()


@pytest.mark.parametrize("error", [RuntimeError(REFUSED), MemoryError()])
def test_where_no_thread_starts_all_who_wait_are_told(db, monkeypatch, error):
    """Also those who relied on the thread that another one was about to start."""
    both, start = threading.Barrier(2), threading.Thread.start

    def refuse(thread):
        if not thread.name.startswith("director_db"):
            return start(thread)
        both.wait(30)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        ends = []
        threads = [
            threading.Thread(target=lambda call=call: ends.extend(each([call])), daemon=True)
            for call in (store(db, 1), db.get_session("s1"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [BackendUnavailableError] * 2 == list(map(type, ends))
    assert [(True, error)] * 2 == [(end.retryable, end.__cause__) for end in ends]
    assert [True] == each([store(db, 2)])
    assert [2] == stored(db)


def test_without_memory_for_one_the_others_are_stored(db, monkeypatch):
    measured, failed = awaited.message_bytes, []

    def measure(row):
        if not failed:
            failed.append(row)
            raise MemoryError
        return measured(row)

    monkeypatch.setattr(awaited, "message_bytes", measure)
    for _ in range(1_000):
        assert [True] * 20 == each([store(db, number) for number in range(20)])
        if failed:  # Two have come at once.
            break
    assert failed
    assert set(range(20)) == set(stored(db))


def test_an_error_in_the_middle_of_what_is_stored_together_is_told_to_each(db, monkeypatch):
    executor, error = db._executor, MemoryError()

    def send():
        raise error

    async def main():
        calls = [store(db, number) for number in range(5)]
        with monkeypatch.context() as patched:
            patched.setattr(executor, "send_for_gathered", lambda: None)  # Nobody else takes them.
            waiters = [call.send(None) for call in calls]
            patched.setattr(executor, "send_for_gathered", send)
            awaited.store_together(executor)
        await asyncio.wait(waiters, timeout=10)
        told = []
        for call in calls:
            with pytest.raises(MemoryError) as caught:
                call.send(None)
            told.append(caught.value)
        assert 5 == len(set(map(id, told)))

    asyncio.run(main())
    assert [] == stored(db)


def test_an_error_of_ones_own_says_all_that_the_first_one_says():
    class CodeError(BackendUnavailableError):
        def __init__(self, *, code):
            super().__init__(f"failed with {code}", maybe_applied=True)
            self.code = code

    error = CodeError(code=7)
    error.__cause__ = OSError("the driver's")
    error.add_note("a note")
    own = error_of_its_own(error)
    assert own is not error
    assert (CodeError, "failed with 7", 7, True) == (
        *(type(own), str(own), own.code, own.maybe_applied),
    )
    assert error.__cause__ is own.__cause__
    own.add_note("of its own")
    assert ["a note"] == error.__notes__


def test_an_error_that_cannot_be_made_again_is_told_as_it_is():
    class StubbornError(Exception):
        def __new__(cls, *, code):
            return super().__new__(cls, code)

        def __init__(self, *, code):
            super().__init__(code)

    error = StubbornError(code=1)
    assert error is error_of_its_own(error)


def test_nobody_is_stored_again_where_it_may_have_been(db, monkeypatch):
    error = BackendUnavailableError("lost", maybe_applied=True)

    def store_and_fail(messages):
        for session_id, row in messages:
            db.sync_db._upsert_messages(session_id, (row,))
        raise error

    monkeypatch.setattr(db.sync_db, "_upsert_together", store_and_fail)
    executor = db._executor

    async def main():
        with monkeypatch.context() as patched:
            patched.setattr(executor, "send_for_gathered", lambda: None)
            calls = [asyncio.create_task(store(db, number)) for number in range(5)]
            await asyncio.sleep(0)
        executor.send_for_gathered()
        await asyncio.wait(calls, timeout=60)
        db.sync_db.add_or_update_msg_to_conv("s1", "c", "m0", "t", [], [], "later")
        return [call.exception() for call in calls]

    ends = asyncio.run(main())
    assert {BackendUnavailableError} == set(map(type, ends))
    assert all(end.maybe_applied for end in ends)
    assert ["later", 1, 2, 3, 4] == stored(db)


@pytest.mark.parametrize("kind", ["message", "update", "run"])
def test_a_call_that_fails_keeps_nothing_of_its_own(db, kind, eventually):
    """Not until a collection of garbage, which may be long in coming, and payloads are large."""

    class Payload(dict):
        pass

    def call(payload):
        if kind == "message":
            return db.add_or_update_msg_to_conv("nobody", "c", "m", "t", [], [], payload)
        if kind == "update":
            return db.update_session("nobody", metadata=payload)
        return db.run(lambda _: payload["missing"])

    async def main():
        payload = Payload(text="x")
        seen = weakref.ref(payload)
        with pytest.raises(LookupError):
            await call(payload)
        del payload
        # Its thread tells of a call before it lets go of it.
        await eventually(lambda: seen() is None)

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_what_goes_on_in_another_thread_and_is_dropped_is_not_in_flight(db):
    rest = db.sync_db._still_in_flight(lambda: True)
    closing = threading.Thread(target=db.sync_db.close, daemon=True)
    closing.start()
    deadline = time.monotonic() + 60
    while not db.closed:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert closing.is_alive()
    del rest
    closing.join(60)
    assert not closing.is_alive()


@pytest.mark.parametrize("function", [Executor.submit, Executor._thread, threading.Thread.start])
def test_a_plain_call_that_is_struck_as_it_begins_never_begins(db, function):
    struck_in(function, db.create_session("struck"))
    assert [None] != each([db.get_session("s1")])
    assert not db.sync_db.get_session("struck")
    assert len(db._executor._threads) == 1


def test_a_message_of_another_loop_is_stored_though_its_sender_is_struck(db):
    """It had relied on the thread that the other one was sending for."""
    ends = []
    other = threading.Thread(target=lambda: ends.extend(each([store(db, 2)])), daemon=True)

    def meanwhile():
        other.start()
        while len(db._executor._gathered) < 2:
            time.sleep(0.001)

    struck_in(Executor.submit, store(db, 1), meanwhile)
    other.join()
    assert [True] == ends
    assert [2] == stored(db)


class Slow(SQLiteDB, db_type="slow-together"):
    """Leaves what is stored together to other threads, once it is told to."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def _upsert_together(self, messages):
        self.begun.set()
        assert self.go_on.wait(30)
        return [lambda: True] * len(messages)


@needs_fork
def test_a_handler_that_forks_under_the_lock_waits_for_nobody(db):
    """In the middle of its thread, as a signal's does."""
    with db._executor._lock:
        child = os.fork()
        if not child:
            os._exit(0 if db.sync_db.get_session("s1") is not None else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_fork
def test_what_has_begun_ends_before_a_fork_however_many_wait(tmp_path, caplog, monkeypatch):
    """They wait behind calls that the fork holds back, so they go on first."""
    with Slow(tmp_path / "x.db") as sync_db:
        sync_db.create_session("s1")
        db = AsyncDB(sync_db)

        async def main():
            tasks = [asyncio.create_task(store(db, number)) for number in range(20)]
            with monkeypatch.context() as patched:
                patched.setattr(db._executor, "send_for_gathered", lambda: None)
                await asyncio.sleep(0)  # Until all of them have come.
            db._executor.send_for_gathered()
            assert await asyncio.to_thread(sync_db.begun.wait, 30)
            tasks += [asyncio.create_task(db.get_session("s1")) for _ in range(1_000)]
            # The first act of a fork, before these get in.
            sync_db._gate.pause(0)
            await asyncio.sleep(0.3)
            threading.Timer(0.1, sync_db.go_on.set).start()
            child = os.fork()
            if not child:
                status = 1
                try:
                    status = 0 if sync_db.get_session("s1") else 2
                finally:
                    os._exit(status)
            waited = await asyncio.to_thread(os.waitpid, child, 0)
            assert 0 == os.waitstatus_to_exitcode(waited[1])
            await asyncio.gather(*tasks)

        asyncio.run(main())
    assert "before a fork" not in caplog.text
