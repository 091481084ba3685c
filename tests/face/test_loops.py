"""Event loops come and go, and so do threads and processes."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from weakref import ref

import pytest

from director_db import awaited as module
from director_db.asyncio import AsyncDB
from director_db_sqlite import SQLiteDB

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


async def count_up(db, times):
    for _ in range(times):
        await db.append_context_messages("s1", [1])


def length(sync_db):
    return len(sync_db.get_context_messages("s1")["reasoning"])


def test_a_loop_after_another(db, sync_db):
    sync_db.create_session("s1")
    for _ in range(4):
        asyncio.run(count_up(db, 3))
    assert 12 == length(sync_db)


@pytest.mark.parametrize("abandoned", [1, 3])
@pytest.mark.parametrize("is_told", [False, True])
def test_a_loop_that_has_ended_is_let_go_of(held, eventually, abandoned, is_told):
    """Also one that was closed under calls that end later, or that it was about to hear of."""
    db = AsyncDB(held)

    async def abandon():
        loop = asyncio.get_running_loop()
        calls = [db.delete_message("s1", f"m{number}") for number in range(abandoned)]
        tasks.extend(map(loop.create_task, calls))
        await held.until_begun(abandoned)
        held.go_on.set() if is_told else None
        while is_told and len(vars(loop)[module._CALLBACKS].pending) < abandoned:
            time.sleep(0.01)  # noqa: ASYNC251 - the loop is not to hear of them
        return ref(loop)

    tasks = []
    loop = asyncio.new_event_loop()
    seen = loop.run_until_complete(abandon())
    loop.close()
    held.go_on.set()
    asyncio.run(eventually(lambda: 100 - abandoned == len(held.get_conversations("s1"))))
    for task in tasks:
        task._log_destroy_pending = False
        task.get_coro().close()
    del loop, task
    tasks.clear()

    def is_gone():
        gc.collect()
        return seen() is None

    asyncio.run(eventually(is_gone))


@pytest.mark.parametrize("runner", ["asyncio", "uvloop"])
def test_what_ends_together_wakes_the_loop_once(held, monkeypatch, runner):
    new_loop = pytest.importorskip(runner).new_event_loop
    woken = []
    run = module.Callbacks.run

    async def main():
        db = AsyncDB(held)
        calls = [asyncio.ensure_future(db.delete_message("s1", f"m{n}")) for n in range(20)]
        await held.until_begun(20)
        monkeypatch.setattr(module.Callbacks, "run", lambda each: woken.append(1) or run(each))
        callbacks = vars(asyncio.get_running_loop())[module._CALLBACKS]
        held.go_on.set()
        deadline = time.monotonic() + 60
        while len(callbacks.pending) < 20 and time.monotonic() < deadline:
            time.sleep(0.01)  # noqa: ASYNC251 - the loop is busy with something else meanwhile
        await asyncio.gather(*calls)

    with asyncio.Runner(loop_factory=new_loop) as running:
        running.run(main())
    assert [1] == woken


@pytest.mark.parametrize("where", ["run", "end"])
def test_a_handler_that_raises_as_the_loop_hears_of_calls_loses_none(held, where):
    """As with Ctrl-C; the loop goes on, and whoever is cancelled then does not hang."""
    struck = []

    def trace(frame, event, _argument):
        ours = frame.f_globals["__name__"] == module.__name__
        if event == "call" and ours and frame.f_code.co_name == where:
            sys.settrace(None)
            struck.append(where)
            raise KeyboardInterrupt

    async def hear():
        await held.until_begun(5)
        held.go_on.set()
        while len(vars(loop)[module._CALLBACKS].pending) < 5:
            time.sleep(0.01)  # noqa: ASYNC251 - all are told at once
        sys.settrace(trace)
        await asyncio.sleep(60)

    async def go_on():
        for call in calls:
            call.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
        return ended, await asyncio.wait_for(db.get_message("s1", "m5"), 60)

    db = AsyncDB(held)
    loop = asyncio.new_event_loop()
    calls = [loop.create_task(db.delete_message("s1", f"m{number}")) for number in range(5)]
    hearing = loop.create_task(hear())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(hearing)
    sys.settrace(None)
    assert [where] == struck
    ended, message = loop.run_until_complete(go_on())
    hearing.cancel()
    loop.run_until_complete(asyncio.gather(hearing, return_exceptions=True))
    loop.close()
    assert 5 == len(ended)
    assert all(each is True or isinstance(each, asyncio.CancelledError) for each in ended)
    assert "m5" == message["msg_id"]


def test_two_loops_in_two_threads(db, sync_db):
    sync_db.create_session("s1")
    threads = [
        threading.Thread(target=asyncio.run, args=(count_up(db, 25),), daemon=True)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert 50 == length(sync_db)


def test_uvloop(db, sync_db):
    uvloop = pytest.importorskip("uvloop")
    sync_db.create_session("s1")

    async def main():
        assert type(asyncio.get_running_loop()) is uvloop.Loop
        await asyncio.gather(*(count_up(db, 5) for _ in range(5)))
        task = asyncio.create_task(count_up(db, 5))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert length(sync_db) in {25, 26}


def test_a_loop_that_is_closed_under_its_calls(held, eventually, monkeypatch):
    """What has begun ends, what has not never begins, and another loop goes on."""
    monkeypatch.setattr("director_db.executor.MOST_THREADS", 2)
    monkeypatch.setattr("director_db.executor.THREADS", 2)
    db = AsyncDB(held)
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(db.delete_message("s1", f"m{n}")) for n in range(4)]

    loop.run_until_complete(held.until_begun(2))
    loop.close()
    held.go_on.set()
    found = asyncio.run(db.get_conversations("s1"))
    assert {"m2", "m3"} <= {message["msg_id"] for message in found}
    for task in tasks:
        task._log_destroy_pending = False
        task.get_coro().close()
    assert asyncio.run(db.delete_message("s1", "m3"))
    assert [True, False] == [held.begun.acquire(blocking=False) for _ in range(2)]
    for name in ("m0", "m1"):
        asyncio.run(eventually(lambda name=name: not held.get_message("s1", name)))
    assert {"m0", "m1", "m3"}.isdisjoint(m["msg_id"] for m in held.get_conversations("s1"))
    assert held.get_message("s1", "m2")


@needs_fork
def test_a_forked_child_has_threads_of_its_own(held):
    """It runs none of its parent's calls, and the parent's end there."""
    db = AsyncDB(held)
    held.go_on.set()

    async def main():
        assert await db.delete_message("s1", "m0")
        child = os.fork()
        if not child:
            status = 1
            try:
                # In the middle of a coroutine; its loop is the parent's.
                if asyncio.run(db.delete_message("s1", "m1")):
                    status = 0 if 1 == len(db._executor._threads) else 2
            finally:
                os._exit(status)
        waited = await asyncio.to_thread(os.waitpid, child, 0)
        assert 0 == os.waitstatus_to_exitcode(waited[1])
        assert not await db.delete_message("s1", "m1")
        assert await db.delete_message("s1", "m2")

    asyncio.run(main())


@needs_fork
def test_a_fork_in_the_middle_of_many_calls(db, sync_db, eventually):
    sync_db.create_session("s1")

    async def main():
        writing = [asyncio.create_task(count_up(db, 10)) for _ in range(8)]
        await eventually(lambda: db._executor._begun)
        child = os.fork()
        if not child:
            status = 1
            try:
                asyncio.run(count_up(db, 10))
                status = 0
            finally:
                os._exit(status)
        await asyncio.gather(*writing)
        waited = await asyncio.to_thread(os.waitpid, child, 0)
        assert 0 == os.waitstatus_to_exitcode(waited[1])

    asyncio.run(main())
    assert 90 == length(sync_db)


def test_threads_end_when_there_is_nothing_to_do(db, sync_db, monkeypatch):
    monkeypatch.setattr("director_db.executor._IDLE", 0.01)
    sync_db.create_session("s1")

    async def main():
        await asyncio.gather(*(db.append_context_messages("s1", [n]) for n in range(100)))

    asyncio.run(main())
    deadline = time.monotonic() + 120
    while db._executor._threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not db._executor._threads
    asyncio.run(main())
    assert 200 == length(sync_db)


PROGRAM = """
import asyncio, sys, threading
from director_db.asyncio import AsyncDB
from director_db_sqlite import SQLiteDB

class Waiting(SQLiteDB, db_type="waiting"):
    def _delete_message(self, session_id, msg_id):
        begun.release()
        threading.Event().wait(600)

begun = threading.Semaphore(0)
db = AsyncDB(Waiting(sys.argv[1]))
loop = asyncio.new_event_loop()

async def main():
    await db.create_session("s1")
    task = loop.create_task(db.delete_message("s1", "m"))
    task._log_destroy_pending = False
    while not begun.acquire(blocking=False):
        await asyncio.sleep(0.01)
    print("main ends", flush=True)

loop.run_until_complete(main())
loop.close()
"""


def test_a_call_that_hangs_does_not_keep_the_interpreter(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "x.db"],
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert (0, "main ends\n") == (done.returncode, done.stdout), done.stderr


def test_the_loops_own_executor_is_left_alone(tmp_path, eventually):
    """An application's threads may all be busy, and the database answers."""
    release, begun = threading.Event(), []

    def wait():
        begun.append(threading.get_ident())
        return release.wait(120)

    async def main():
        with ThreadPoolExecutor(2) as pool:
            asyncio.get_running_loop().set_default_executor(pool)
            busy = [asyncio.create_task(asyncio.to_thread(wait)) for _ in range(4)]
            try:
                await eventually(lambda: len(begun) == 2)
                async with AsyncDB(SQLiteDB(tmp_path / "x.db")) as db:
                    await db.create_session("s1")
                    assert ["s1"] == [record["session_id"] for record in await db.get_sessions()]
            finally:
                release.set()
            await asyncio.gather(*busy)

    asyncio.run(main())


def test_the_loop_neither_encodes_nor_decodes(db):
    """Told from the processor time of its thread: gaps between its turns are the machine's."""
    payload = [{"x": n} for n in range(20_000)]

    async def write():
        async with asyncio.TaskGroup() as group:
            for n in range(4):
                group.create_task(
                    db.add_or_update_msg_to_conv("s1", "c", f"m{n}", "t", [], [], payload)
                )

    async def read():
        messages = await db.get_conversations("s1")
        assert [len(payload)] * 4 == [len(message["content"]) for message in messages]
        return messages

    async def main():
        await db.create_session("s1")
        gc.disable()  # It would run in whichever thread has made one object too many.
        for operation in (write, read):
            whole, loop = time.process_time(), time.thread_time()
            kept = await operation()  # To let go of it is work, too, and not the face's.
            whole, loop = time.process_time() - whole, time.thread_time() - loop
            del kept
            assert loop < whole / 4, f"{operation.__name__}: {loop:.3f} s of {whole:.3f} s"

    try:
        asyncio.run(main())
    finally:
        gc.enable()
