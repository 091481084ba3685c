"""Messages that coroutines store at once: one thread stores them together, each for itself."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sqlite3
import sys
import threading
import time
import weakref

import psycopg
import pytest

from director_db import BackendUnavailableError, ClosedError, InvalidRecordError, SchemaError
from director_db.asyncio import AsyncDB
from director_db.awaited import store_together
from director_db.executor import THREADS
from director_db.queue import MAX_BATCH_CALLS
from director_db_postgres import PostgresDB
from director_db_sqlite import SQLiteDB

MANY = 200


def store(db, number, session_id="s1", content=None, **kwargs):
    content = number if content is None else content
    return db.add_or_update_msg_to_conv(
        session_id, "c", f"m{number}", "t", [], [], content, **kwargs
    )


def stored(sync_db, session_id="s1"):
    messages = sync_db.get_conversations(session_id)
    return {int(message["msg_id"][1:]): message["content"] for message in messages}


async def at_once(db, numbers, **kwargs):
    calls = [store(db, number, **kwargs) for number in numbers]
    return await asyncio.gather(*calls, return_exceptions=True)


async def in_one_thread(db, numbers):
    """As `at_once`, and no thread comes before all of them wait."""
    executor = db._executor
    executor.send_for_gathered = lambda: None
    calls = [asyncio.create_task(store(db, number)) for number in numbers]
    await asyncio.sleep(0)
    del executor.send_for_gathered
    executor.send_for_gathered()
    return await asyncio.gather(*calls, return_exceptions=True)


def until_idle(db):
    """Wait until each thread has nothing to do: it tells the loop of a call before it lets go."""
    executor, deadline = db._executor, time.monotonic() + 120
    while len(executor._asleep) < len(executor._threads):
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Watched:
    """Notes how many messages each call of a storage operation has got."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.alone, self.together = [], []
        self.hold = threading.Event()
        self.hold.set()

    def _upsert_messages(self, session_id, rows):
        self.alone.append(rows[0].msg_id)
        assert self.hold.wait(30)
        return super()._upsert_messages(session_id, rows)

    def _upsert_together(self, messages):
        self.together.append(len(messages))
        assert self.hold.wait(30)
        return super()._upsert_together(messages)


class WatchedSQLite(Watched, SQLiteDB, db_type="watched"):
    pass


class WatchedPostgres(Watched, PostgresDB, db_type="watched"):
    pass


@pytest.fixture(params=["sqlite", "postgres"])
def watched(request, tmp_path):
    if request.param == "sqlite":
        db = WatchedSQLite(tmp_path / "director.db")
    else:
        db = WatchedPostgres(request.getfixturevalue("postgres_database").dsn)
    with db:
        db.create_session("s1")
        db.create_session("s2")
        db.add_or_update_msg_to_conv("s1", "c", "m0", "t", [], [], 0)
        db.alone.clear()
        try:
            yield db
        finally:
            db.hold.set()


def test_many_at_once_take_few_calls_of_storage(watched):
    db = AsyncDB(watched)
    for _ in range(3):  # As long as no thread has been started, each call starts one.
        watched.alone.clear()
        watched.together.clear()
        assert [True] * MANY == asyncio.run(at_once(db, range(MANY)))
    assert {number: number for number in range(MANY)} == stored(watched)
    assert len(watched.together) + len(watched.alone) <= MANY / 2
    assert max(watched.together) <= MAX_BATCH_CALLS


def test_one_that_comes_as_a_thread_finds_nothing_is_not_lost(watched, monkeypatch):
    """The thread had taken it, and stored nothing: its caller waited for ever."""
    db, waiters = AsyncDB(watched), []
    executor = db._executor
    take = executor.take_gathered

    async def main():
        call = store(db, 1)

        def find():
            job = take()
            if job is None and not waiters:
                waiters.append(call.send(None))
            return job

        with monkeypatch.context() as patched:
            patched.setattr(executor, "take_gathered", find)
            patched.setattr(executor, "send_for_gathered", lambda: None)  # Nobody else takes it.
            store_together(executor)
        executor.send_for_gathered()
        await asyncio.wait(waiters, timeout=10)
        call.close()

    asyncio.run(main())
    assert {0: 0, 1: 1} == stored(watched)


def test_one_alone_goes_as_any_other(watched):
    db = AsyncDB(watched)

    async def main():
        for number in range(5):
            assert await store(db, number)

    asyncio.run(main())
    assert ([], 5) == (watched.together, len(watched.alone))


def test_guards_hold_among_those_at_once(watched):
    db = AsyncDB(watched)

    async def main():
        guarded = [store(db, 1, content=each, revision=each) for each in (3, 2, 1)]
        absent = [store(db, 2, content=each, if_absent=True) for each in "ab"]
        return await asyncio.gather(*guarded, *absent, *(store(db, each) for each in (3, 4, 5)))

    *guarded, first, second, third, fourth, fifth = asyncio.run(main())
    assert any(guarded)
    assert {first, second} == {True, False}
    assert [True] * 3 == [third, fourth, fifth]
    assert 3 == stored(watched)[1]


@pytest.mark.parametrize(
    "bad", [{"session_id": ""}, {"content": {1}}, {"status": 5}, {"metadata": b""}]
)
def test_bad_input_of_one_is_told_to_it_alone(watched, bad):
    db = AsyncDB(watched)

    async def main():
        calls = [store(db, number, **(bad if number == 3 else {})) for number in range(10)]
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(main())
    assert InvalidRecordError is type(answers.pop(3))
    assert [True] * 9 == answers
    with pytest.raises(InvalidRecordError) as caught:
        store(watched, 3, **bad)
    assert 3 not in stored(watched)
    assert str(caught.value)


def test_a_missing_argument_is_told_as_by_the_synchronous_face(watched):
    db = AsyncDB(watched)

    async def main():
        calls = [store(db, number) for number in range(5)]
        wrong = db.add_or_update_msg_to_conv("s1", "c")
        return await asyncio.gather(*calls, wrong, return_exceptions=True)

    wrong = asyncio.run(main()).pop()
    with pytest.raises(TypeError) as caught:
        watched.add_or_update_msg_to_conv("s1", "c")
    assert (TypeError, str(caught.value)) == (type(wrong), str(wrong))


def test_what_is_cancelled_in_time_is_not_among_them(watched, eventually, carried_out):
    """And what has begun ends, and its await with it."""
    db = AsyncDB(watched)

    async def main():
        watched.hold.clear()
        tasks = [asyncio.create_task(store(db, number)) for number in range(MANY)]
        await eventually(lambda: watched.together or watched.alone)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0.05)
        early = [task.done() for task in tasks]
        watched.hold.set()
        return early, [await carried_out(task) for task in tasks]

    early, ends = asyncio.run(main())
    found = stored(watched)
    assert [number in found for number in range(1, MANY)] == ends[1:]
    assert any(ends)
    assert not any(
        was_early and is_stored for was_early, is_stored in zip(early, ends, strict=True)
    )


def test_closing_waits_for_all_of_them(watched, eventually):
    db = AsyncDB(watched)

    async def main():
        watched.hold.clear()
        answers = asyncio.create_task(at_once(db, range(20)))
        await eventually(lambda: sum(watched.together) + len(watched.alone) >= 20)
        closing = asyncio.create_task(db.aclose())
        await eventually(lambda: db.closed)
        later = await at_once(db, range(100, 110))
        await asyncio.sleep(0.05)
        ends = [closing.done(), answers.done()]
        watched.hold.set()
        await closing
        return later, ends, await answers

    later, ends, answers = asyncio.run(main())
    assert {ClosedError} == set(map(type, later))
    assert [False, False] == ends
    assert [True] * 20 == answers


def test_closing_waits_for_what_goes_on_alone(watched, eventually, monkeypatch):
    """It is in flight from the first try to the last, and told what has become of it."""
    db = AsyncDB(watched)
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def rest():
        begun.release()
        assert go_on.wait(120)
        raise BackendUnavailableError("lost", maybe_applied=True)

    monkeypatch.setattr(watched, "_upsert_together", lambda messages: [rest] * len(messages))

    async def main():
        answers = asyncio.create_task(in_one_thread(db, range(8)))
        await eventually(lambda: begun.acquire(blocking=False))
        closing = asyncio.create_task(db.aclose())
        await eventually(lambda: db.closed)
        await asyncio.sleep(0.05)
        assert not closing.done()
        go_on.set()
        await closing
        return await answers

    lost = asyncio.run(main())
    assert {BackendUnavailableError} == set(map(type, lost))
    assert 8 == len({id(error) for error in lost})
    assert all(error.maybe_applied for error in lost)


@pytest.mark.parametrize("wrong", [[], [True], [False] * 1000])
def test_a_backend_that_miscounts_loses_nothing_and_can_be_closed(watched, wrong, monkeypatch):
    monkeypatch.setattr(watched, "_upsert_together", lambda messages: wrong)
    db = AsyncDB(watched)
    assert [True] * 20 == asyncio.run(at_once(db, range(20)))
    assert 20 == len(stored(watched))
    asyncio.run(asyncio.wait_for(db.aclose(), 120))


def test_what_the_driver_raises_of_what_is_left_is_translated(watched, monkeypatch):
    def rest():
        raise (
            sqlite3.OperationalError if isinstance(watched, SQLiteDB) else psycopg.OperationalError
        )

    monkeypatch.setattr(watched, "_upsert_together", lambda messages: [rest] * len(messages))
    failed = asyncio.run(in_one_thread(AsyncDB(watched), range(8)))
    assert all(isinstance(answer, BackendUnavailableError | SchemaError) for answer in failed)


def test_loops_of_several_threads_share_it(watched):
    db = AsyncDB(watched)
    answers = []

    def run(number):
        numbers = range(number * 50, number * 50 + 50)
        answers.extend(asyncio.run(at_once(db, numbers)))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [True] * 200 == answers
    assert {number: number for number in range(200)} == stored(watched)


def test_a_loop_that_was_closed_takes_nobody_with_it(watched, eventually):
    """What it had begun is stored, and those of another loop have their answers."""
    db = AsyncDB(watched)
    watched.hold.clear()
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(store(db, number)) for number in range(8)]
    for task in tasks:
        task._log_destroy_pending = False

    async def until_begun():
        await eventually(lambda: watched.together or watched.alone)

    loop.run_until_complete(until_begun())
    loop.close()
    watched.hold.set()
    assert [True] * 10 == asyncio.run(at_once(db, range(100, 110)))
    for task in tasks:
        task.get_coro().close()


def test_no_thread_can_be_started(watched, monkeypatch):
    db = AsyncDB(watched)

    def refuse(_self):
        message = "can't start new thread"
        raise RuntimeError(message)

    async def main():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            refused = await at_once(db, range(5))
        return refused, await at_once(db, range(5))

    refused, answers = asyncio.run(main())
    assert {BackendUnavailableError} == set(map(type, refused))
    assert {RuntimeError} == {type(error.__cause__) for error in refused}
    assert [True] * 5 == answers


def test_nothing_of_them_is_kept_alive(watched):
    db = AsyncDB(watched)

    class Payload(dict):
        pass

    async def main():
        payloads = [Payload(number=number) for number in range(20)]
        seen.extend(map(weakref.ref, payloads))
        calls = [store(db, number, content=payload) for number, payload in enumerate(payloads)]
        calls.append(store(db, 1, session_id="nobody", content=Payload()))
        await asyncio.gather(*calls, return_exceptions=True)

    seen = []
    asyncio.run(main())
    until_idle(db)
    gc.collect()
    assert not any(ref() for ref in seen)


@pytest.mark.parametrize("answer", [True, False])
def test_one_for_which_nothing_was_done_can_be_cancelled_still(
    watched, eventually, carried_out, answer
):
    """And ends at once, as one that was never taken."""
    db = AsyncDB(watched)
    taken, go_on = [], threading.Event()

    def together(messages):
        taken.append(len(messages))
        assert go_on.wait(30)
        return [answer] * len(messages)

    watched._upsert_together = together

    async def main():
        tasks = []
        while not taken:  # Until two come at once.
            tasks += [asyncio.create_task(store(db, len(tasks) + n)) for n in range(MANY)]
            await asyncio.sleep(0.01)
        watched.hold.clear()
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0.05)
        go_on.set()
        await asyncio.sleep(0.05)
        watched.hold.set()
        return [await carried_out(task) for task in tasks]

    ends = asyncio.run(main())
    found = stored(watched)
    if answer is False:
        assert [number in found for number in range(1, len(ends))] == ends[1:]
        assert not all(ends)
    else:
        assert sum(taken) <= sum(ends)


@pytest.mark.parametrize("where", ["submit", "send_for_gathered"])
def test_a_handler_that_raises_as_a_call_begins_stops_no_later_one(watched, where):
    """And what it struck is not stored later."""
    db = AsyncDB(watched)

    def trace(frame, event, _argument):
        if event == "call" and frame.f_code is getattr(type(db._executor), where).__code__:
            sys.settrace(None)
            raise KeyboardInterrupt

    async def main():
        call = store(db, 77)
        sys.settrace(trace)
        with pytest.raises(KeyboardInterrupt):
            call.send(None)
        return await asyncio.wait_for(at_once(db, range(20)), 60)

    assert [True] * 20 == asyncio.run(main())
    assert 77 not in stored(watched)


def test_one_that_closes_the_database_is_not_waited_for_by_itself(watched, monkeypatch):
    """As a filter of its log may; it is under way in another thread than it began in."""
    db = AsyncDB(watched)

    closes = []

    def close():
        watched.close()
        return True

    def together(messages):
        # Two who close would wait for each other.
        answers = [True] * len(messages)
        if not closes:
            closes.append(1)
            answers[0] = close
        return answers

    monkeypatch.setattr(watched, "_upsert_together", together)

    async def main():
        answers = []
        while not watched.closed:
            answers += await asyncio.wait_for(at_once(db, range(20)), 60)
        return answers

    answers = asyncio.run(main())
    assert {bool, ClosedError} >= set(map(type, answers))


def test_nobody_s_context_is_that_of_all(watched, monkeypatch):
    db, request = AsyncDB(watched), contextvars.ContextVar("request", default="none")
    seen = []

    def together(messages):
        seen.append(request.get())
        return [True] * len(messages)

    monkeypatch.setattr(watched, "_upsert_together", together)

    async def call(number):
        request.set(number)
        return await store(db, number)

    async def main():
        while not seen:
            await asyncio.gather(*map(call, range(20)))

    asyncio.run(main())
    assert {"none"} == {*seen}


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")  # From 3.13 on.
def test_an_instance_that_nobody_has_is_gone_at_once(tmp_path):
    """A thread that waits for work does not keep it, nor its connections."""
    sync_db = SQLiteDB(tmp_path / "x.db")
    sync_db.create_session("s1")
    db = AsyncDB(sync_db)
    assert [True] * 40 == asyncio.run(at_once(db, range(40)))
    seen = weakref.ref(sync_db)
    until_idle(db)
    del sync_db, db
    gc.collect()  # Here, where the warning is expected.
    assert seen() is None


class OnlyOne(SQLiteDB, db_type="only-one"):
    """Its operation for one message does more, as of those who count or log."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def _upsert_messages(self, session_id, rows):
        self.seen.append(rows[0].msg_id)
        return super()._upsert_messages(session_id, rows)


def test_an_override_of_the_operation_for_one_is_asked_for_each(tmp_path):
    with OnlyOne(tmp_path / "x.db") as sync_db:
        sync_db.create_session("s1")
        assert [True] * 40 == asyncio.run(at_once(AsyncDB(sync_db), range(40)))
        assert sorted(f"m{number}" for number in range(40)) == sorted(sync_db.seen)


# --- Each database's own ------------------------------------------------------------------------


def test_a_file_that_is_replaced_under_them(tmp_path):
    """They are stored in the new one, all of them."""
    path = tmp_path / "x.db"
    with SQLiteDB(path) as sync_db:
        db = AsyncDB(sync_db)
        sync_db.create_session("s1")
        assert [True] * 20 == asyncio.run(at_once(db, range(20)))
        with SQLiteDB(tmp_path / "new.db") as other:
            other.create_session("s1")
        (tmp_path / "new.db").replace(path)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        assert [True] * 20 == asyncio.run(at_once(db, range(100, 120)))
        assert set(range(100, 120)) == set(stored(sync_db))


def test_a_log_of_the_file_before_is_refused(tmp_path):
    """Also where all that was written was stored together; SQLite would take it for its own."""
    path = tmp_path / "x.db"
    for name in (path, tmp_path / "new.db"):
        with SQLiteDB(name) as first:
            first.create_session("s1")
    sync_db = SQLiteDB(path)
    db = AsyncDB(sync_db)

    async def main():
        await asyncio.gather(*(db.get_session("s1") for _ in range(20)))  # Threads are there.
        answers = await at_once(db, range(20))
        (tmp_path / "new.db").replace(path)
        return answers, await asyncio.gather(db.get_session("s1"), return_exceptions=True)

    with sync_db:
        answers, (refused,) = asyncio.run(main())
    assert [True] * 20 == answers
    assert SchemaError is type(refused)
    assert "-wal" in str(refused)


def test_those_who_wait_for_another_process_are_told_in_time(tmp_path):
    """Its limit is that of each call, and not that of each after the one before it."""
    with SQLiteDB(tmp_path / "x.db", operation_timeout=0.5) as sync_db:
        db = AsyncDB(sync_db)
        sync_db.create_session("s1")
        beside = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
        beside.execute("BEGIN IMMEDIATE")

        async def main():
            loop = asyncio.get_running_loop()
            began = loop.time()
            return await at_once(db, range(300)), loop.time() - began

        answers, seconds = asyncio.run(main())
        beside.close()
        assert {BackendUnavailableError} == set(map(type, answers))
        assert all(answer.retryable and not answer.maybe_applied for answer in answers)
        # One after another it would be 150.
        assert seconds < 60
        assert [True] * 300 == asyncio.run(at_once(db, range(300)))


def test_a_locked_session_holds_up_nobody_else(postgres_database):
    with (
        PostgresDB(postgres_database.dsn) as sync_db,
        psycopg.connect(postgres_database.dsn) as beside,
    ):
        db = AsyncDB(sync_db)
        for session_id in ("s1", "s2"):
            sync_db.create_session(session_id)
        beside.execute("SELECT 1 FROM director_sessions WHERE session_id = 's2' FOR UPDATE")

        async def main():
            waiting = asyncio.create_task(store(db, 1, session_id="s2"))
            for base in range(0, 100, 20):
                calls = [store(db, number) for number in range(base, base + 20)]
                answers, more = await asyncio.gather(
                    asyncio.gather(*calls), asyncio.wait([waiting], timeout=0)
                )
                assert [True] * 20 == answers
                assert not more[0]
            beside.rollback()
            assert await waiting

        asyncio.run(main())
        assert {1: 1} == stored(sync_db, "s2")
        assert set(range(100)) == set(stored(sync_db))


async def crowd(db, beside, count, then):
    """Have so many calls wait for a locked session, and then do something beside them."""
    db.sync_db.create_session("s1")
    db.sync_db.create_session("s2")
    beside.execute("SELECT 1 FROM director_sessions WHERE session_id = 's2' FOR UPDATE")
    calls = [
        store(db, number, session_id="s2") if number % 2 else db.update_session("s2", metadata={})
        for number in range(count)
    ]
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        await then(tasks)
    finally:
        beside.rollback()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_calls_of_a_locked_session_leave_threads_to_others(postgres_database, eventually):
    """However many they are: more than there may be threads."""
    with (
        # Longer than the others may take: without a thread for them they would take as long.
        PostgresDB(postgres_database.dsn, operation_timeout=600) as sync_db,
        psycopg.connect(postgres_database.dsn) as beside,
    ):
        db = AsyncDB(sync_db)

        async def others(tasks):
            await eventually(lambda: len(db._executor._threads) >= THREADS)
            for number in range(20):
                assert await asyncio.wait_for(store(db, number), 120)
                await asyncio.wait_for(db.update_session("s1", metadata={"number": number}), 120)
            assert [] == await asyncio.wait_for(db.get_conversations("s2"), 120)
            assert not any(task.done() for task in tasks)
            assert db._executor._held_back

        ends = asyncio.run(crowd(db, beside, 1500, others))
        assert [None, True] * 750 == ends
        assert 750 == len(stored(sync_db, "s2"))
        until_idle(db)
        assert not db._executor._held_back


def test_calls_of_a_locked_session_end_in_time_also_without_a_thread(postgres_database):
    with (
        PostgresDB(postgres_database.dsn, operation_timeout=1) as sync_db,
        psycopg.connect(postgres_database.dsn) as beside,
    ):
        db = AsyncDB(sync_db)
        ends = asyncio.run(crowd(db, beside, 1500, asyncio.wait))
        assert {BackendUnavailableError} == set(map(type, ends))
        held_back = [end for end in ends if "wait for the lock of this session" in str(end)]
        assert held_back
        assert all(end.retryable and not end.maybe_applied for end in held_back)
        assert asyncio.run(store(db, 1, session_id="s2"))


def test_a_large_one_goes_by_itself(watched):
    db = AsyncDB(watched)
    large = "x" * 600_000

    async def main():
        calls = [store(db, number, content=large if number == 4 else None) for number in range(9)]
        return await asyncio.gather(*calls)

    assert [True] * 9 == asyncio.run(main())
    assert large == stored(watched)[4]


def test_those_of_a_locked_session_can_be_cancelled_for_as_long_as_they_wait(
    postgres_database, eventually, carried_out
):
    """However many they are: no more than run have begun."""
    dsn = postgres_database.dsn
    # Longer than `eventually` waits.
    with PostgresDB(dsn, operation_timeout=600) as sync_db, psycopg.connect(dsn) as beside:
        db = AsyncDB(sync_db)
        sync_db.create_session("s2")
        beside.execute("SELECT 1 FROM director_sessions WHERE session_id = 's2' FOR UPDATE")

        async def main():
            tasks = [asyncio.create_task(store(db, n, session_id="s2")) for n in range(2000)]
            await asyncio.sleep(1)
            for task in tasks:
                task.cancel()
            try:
                await eventually(lambda: sum(task.done() for task in tasks) >= 1000)
            finally:
                beside.rollback()
            return [await carried_out(task) for task in tasks]

        ends = asyncio.run(main())
        found = stored(sync_db, "s2")
        assert [number in found for number in range(2000)] == ends
