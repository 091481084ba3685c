"""Cancelled calls: one that has not begun never begins, and one that has begun ends."""

from __future__ import annotations

import asyncio

import pytest

from director_db import BackendUnavailableError, ClosedError, SessionNotFoundError
from director_db.asyncio import CARRIED_OUT, AsyncDB
from director_db.executor import MOST_THREADS, THREADS


def ids(db):
    return [message["msg_id"] for message in db.get_conversations("s1")]


def test_one_that_has_begun_ends_and_the_await_with_it(held):
    db = AsyncDB(held)

    async def main():
        task = asyncio.create_task(db.delete_message("s1", "m0"))
        await held.until_begun()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
        assert "m0" in ids(held)
        held.go_on.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert "m0" not in ids(held)  # The outcome is known.
        assert caught.value.__cause__ is None
        assert [CARRIED_OUT] == caught.value.__notes__
        assert await db.delete_message("s1", "m1")

    asyncio.run(main())


def test_the_error_of_a_cancelled_call_is_the_cause(held, monkeypatch):
    db = AsyncDB(held)
    error = BackendUnavailableError("gone", maybe_applied=True)

    def failing(session_id, msg_id):
        held.begun.release()
        held.go_on.wait(120)
        raise error

    monkeypatch.setattr(held, "_delete_message", failing)

    async def main():
        task = asyncio.create_task(db.delete_message("s1", "m0"))
        await held.until_begun()
        task.cancel()
        await asyncio.sleep(0)
        held.go_on.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert error is caught.value.__cause__
        assert not hasattr(caught.value, "__notes__")

    asyncio.run(main())


def test_one_that_has_not_begun_never_begins(held, monkeypatch):
    # No more threads than so many, or it would begin.
    monkeypatch.setattr("director_db.executor.MOST_THREADS", THREADS)
    db = AsyncDB(held)

    async def main():
        first = [asyncio.create_task(db.delete_message("s1", f"m{n}")) for n in range(THREADS)]
        await held.until_begun(THREADS)
        late = asyncio.create_task(db.delete_message("s1", "m99"))
        last = asyncio.create_task(db.delete_message("s1", "m98"))
        await asyncio.sleep(0.3)
        late.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await late  # At once: nothing has been let go on.
        assert not hasattr(caught.value, "__notes__")
        assert not last.done()
        held.go_on.set()
        assert [True] * (THREADS + 1) == await asyncio.gather(*first, last)
        assert [True, False] == [held.begun.acquire(blocking=False) for _ in range(2)]

    asyncio.run(main())
    left = ids(held)
    assert "m99" in left
    assert "m98" not in left


def test_calls_that_wait_for_a_lock_of_others_do_not_starve_the_rest(held):
    assert 300 < MOST_THREADS
    db = AsyncDB(held)

    async def main():
        stuck = [asyncio.create_task(db.delete_message("s1", f"m{n % 100}")) for n in range(150)]
        await asyncio.sleep(0)
        # Behind all of them.
        assert "s1" == (await asyncio.wait_for(db.get_session("s1"), 120))["session_id"]
        assert not any(task.done() for task in stuck)
        held.go_on.set()
        assert 100 == sum(await asyncio.gather(*stuck))

    asyncio.run(main())


def test_closing_waits_for_what_has_begun_and_lets_nothing_begin(held, eventually, monkeypatch):
    monkeypatch.setattr("director_db.executor.MOST_THREADS", THREADS)
    db = AsyncDB(held)

    async def main():
        begun = [asyncio.create_task(db.delete_message("s1", f"m{n}")) for n in range(THREADS)]
        await held.until_begun(THREADS)
        waiting = asyncio.create_task(db.delete_message("s1", "m99"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(db.aclose())
        await eventually(lambda: db.closed)
        closing.cancel()  # It has begun, so it ends.
        await asyncio.sleep(0.05)
        assert not closing.done()
        held.go_on.set()
        assert [True] * THREADS == await asyncio.gather(*begun)
        with pytest.raises(ClosedError):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert held._released

    asyncio.run(main())


def test_timeouts_and_task_groups(held):
    db = AsyncDB(held)

    async def let_go(limit):
        await held.until_begun()
        limit.reschedule(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        held.go_on.set()

    async def main():
        limit = asyncio.timeout(None)
        helper = asyncio.create_task(let_go(limit))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(120), limit:
                await db.delete_message("s1", "m0")
        assert held.go_on.is_set()
        assert "m0" not in ids(held)
        await helper
        written = []

        async def one_fails():
            async with asyncio.TaskGroup() as group:
                written.append(group.create_task(db.delete_message("s1", "m1")))
                group.create_task(db.update_session("nobody"))

        with pytest.raises(ExceptionGroup) as caught:
            await one_fails()
        assert [SessionNotFoundError] == [type(error) for error in caught.value.exceptions]
        # Cancelled or not, it is known.
        assert written[0].done()
        assert written[0].cancelled() or "m1" not in ids(held)
        async with asyncio.TaskGroup() as group:
            for number in range(50, 60):
                group.create_task(db.delete_message("s1", f"m{number}"))
        assert not {f"m{number}" for number in range(50, 60)} & {*ids(held)}

    asyncio.run(main())


def test_many_that_are_cancelled_leave_all_or_nothing_and_the_instance_usable(db, carried_out):
    """Whatever was acknowledged is there, and whatever never began is not."""

    async def write(number):
        await db.add_or_update_msg_to_conv("s1", "c", f"m{number}", "t", [], [], number)
        return True

    async def main():
        await db.create_session("s1")
        tasks = [asyncio.create_task(write(number)) for number in range(400)]
        await asyncio.sleep(0.005)
        for task in tasks[::3]:
            task.cancel()
        ends = [await carried_out(task) for task in tasks]
        then = await db.get_conversations("s1")
        stored = {message["msg_id"] for message in then}
        assert {f"m{number}" for number, end in enumerate(ends) if end} == stored
        assert all(task.cancelled() or end for task, end in zip(tasks, ends, strict=True))
        await write(1000)
        assert [*then, await db.get_message("s1", "m1000")] == await db.get_conversations("s1")

    asyncio.run(main())
