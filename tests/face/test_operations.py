"""The operations as coroutines: those of `BaseDB`, on any backend."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading

import pytest

import director_db
from director_db import (
    BaseDB,
    ClosedError,
    InvalidRecordError,
    SessionNotFoundError,
)
from director_db import asyncio as face
from director_db.asyncio import AsyncDB, load_db
from director_db_conformance.model import OPERATIONS
from director_db_sqlite import SQLiteDB

# What is for a synchronous `with`, and what has another form here.
_OTHERWISE = {"close"}


def public(cls):
    return {
        name: member
        for parent in cls.__mro__[:-1]
        for name, member in vars(parent).items()
        if not name.startswith("_")
    }


def test_everything_public_is_there_with_the_same_signature_and_docstring():
    operations = {name: value for name, value in public(BaseDB).items() if callable(value)}
    assert {operation.name for operation in OPERATIONS} < operations.keys()
    assert 20 < len(operations)
    for name, operation in operations.items():
        ours = getattr(AsyncDB, name)
        if name.startswith("iter_"):
            assert inspect.isasyncgenfunction(ours), name
        else:
            assert inspect.iscoroutinefunction(ours), name
        if name not in _OTHERWISE:
            assert inspect.signature(operation) == inspect.signature(ours), name
            assert operation.__doc__ == ours.__doc__, name
    attributes = {"closed", "place", "db_type"}
    assert {"aclose", "run", *attributes, *operations} == public(AsyncDB).keys()


def test_each_operation_gives_what_the_other_face_gives(db, sync_db):
    async def main():
        for operation in OPERATIONS:
            if operation.changes == "nothing":
                here = await getattr(db, operation.name)(**operation.example)
                assert getattr(sync_db, operation.name)(**operation.example) == here

    sync_db.create_session("s1", metadata={"a": [1.0, -0.0]})
    sync_db.add_or_update_msg_to_conv("s1", "c", "m", "input", [], [], "hi")
    sync_db.append_context_messages("s1", [1])
    asyncio.run(main())


def test_an_error_is_raised_where_it_is_awaited(db):
    async def main():
        with pytest.raises(SessionNotFoundError) as caught:
            await db.update_session("nobody")
        assert "nobody" == caught.value.session_id
        with pytest.raises(InvalidRecordError) as caught:
            await db.create_session("s1", metadata=[float("nan")])
        assert "metadata[0]" == caught.value.path
        assert {} == await db.get_session("s1")

    asyncio.run(main())


def test_a_function_has_one_thread_for_all_that_it_does(db, sync_db):
    """It has the caller's context, its errors are raised, and the loop goes on meanwhile."""
    name = contextvars.ContextVar("name")
    stored, may_end = threading.Event(), threading.Event()
    threads = []

    def store_two(given):
        threads.append(threading.current_thread())
        assert given is sync_db
        given.create_session(name.get())
        given.append_context_messages(name.get(), [1])
        stored.set()
        assert may_end.wait(60)
        return given.get_context_messages(name.get())

    def fail(given):
        given.update_session("nobody")

    async def main():
        name.set("s1")
        call = asyncio.ensure_future(db.run(store_two))
        assert await asyncio.to_thread(stored.wait, 60)
        may_end.set()
        assert await call == {"reasoning": [1]}
        with pytest.raises(SessionNotFoundError):
            await db.run(fail)
        with pytest.raises(TypeError, match="cannot be a coroutine"):
            await db.run(db.get_session)

    asyncio.run(main())
    assert [True] == [thread is not threading.main_thread() for thread in threads]


def test_a_cancelled_function_is_carried_to_its_end_or_never_begins(db, sync_db):
    begun, may_end = threading.Event(), threading.Event()

    def store_two(given):
        begun.set()
        given.create_session("s1")
        assert may_end.wait(60)
        given.create_session("s2")

    async def main():
        call = asyncio.ensure_future(db.run(store_two))
        assert await asyncio.to_thread(begun.wait, 60)
        call.cancel()
        await asyncio.sleep(0)
        assert not call.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        assert [face.CARRIED_OUT] == caught.value.__notes__
        early = asyncio.ensure_future(db.run(lambda given: given.create_session("never")))
        early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early

    asyncio.run(main())
    assert {"s1", "s2"} == {each["session_id"] for each in sync_db.get_sessions()}


def test_load_db_shares_the_instance_of_the_other_face(tmp_path, monkeypatch):
    monkeypatch.setenv("SQLITE_DB_PATH", str(tmp_path / "x.db"))
    db = load_db()
    assert db is load_db("sqlite") is load_db(f"sqlite:///{tmp_path / 'x.db'}")
    assert director_db.load_db() is db.sync_db
    assert ("sqlite", db.sync_db.place) == (db.db_type, db.place)
    assert repr(db) == f"<AsyncDB of {db.sync_db!r}>"

    async def main():
        async with db as entered:
            assert entered is db
            await db.create_session("s1")
        assert not db.closed  # It is shared.
        await db.aclose()
        await db.close()
        assert db.closed
        for attempt in (db.get_sessions(), db.__aenter__()):
            with pytest.raises(ClosedError):
                await attempt
        assert not await db.health_check()
        again = load_db()
        assert again is not db
        assert ["s1"] == [session["session_id"] for session in await again.get_sessions()]

    asyncio.run(main())
    with pytest.raises(director_db.UnknownDBTypeError):
        load_db("postgress")
    assert ["CARRIED_OUT", "AsyncDB", "async_db", "load_db"] == face.__all__


def test_an_instance_has_one_async_db(tmp_path):
    with SQLiteDB(tmp_path / "x.db") as first, SQLiteDB(tmp_path / "x.db") as second:
        assert face.async_db(first) is face.async_db(first)
        assert (first, second) == (face.async_db(first).sync_db, face.async_db(second).sync_db)


def test_one_that_was_built_directly_closes_with_its_block(tmp_path):
    async def main():
        async with AsyncDB(SQLiteDB(tmp_path / "x.db")) as db:
            assert await db.health_check()
        assert db.closed

    asyncio.run(main())


def test_each_call_runs_in_the_context_of_its_caller(tmp_path):
    request = contextvars.ContextVar("request", default="none")
    seen = []

    class Recording(SQLiteDB, db_type="recording"):
        def _select_session(self, session_id):
            seen.append((session_id, request.get(), threading.current_thread().name))
            request.set("changed")
            return super()._select_session(session_id)

    async def one(db, number):
        request.set(number)
        await db.get_session(f"s{number}")
        assert number == request.get()

    async def main():
        async with AsyncDB(Recording(tmp_path / "x.db")) as db:
            await asyncio.gather(*(one(db, number) for number in range(40)))

    asyncio.run(main())
    assert sorted(seen) == sorted((f"s{n}", n, "director_db recording") for n in range(40))


def test_calls_of_one_task_keep_their_order_and_those_at_once_are_whole(db):
    big = "x" * 50_000

    async def write(number):
        for step in range(5):
            await db.add_or_update_msg_to_conv("s1", "c", f"m{number}", "t", [], [], step)
            assert step == (await db.get_message("s1", f"m{number}"))["content"]

    async def main():
        await db.create_session("s1")
        await asyncio.gather(*map(write, range(20)))
        await asyncio.gather(
            *(
                db.add_or_update_msg_to_conv("s1", n, "one", n, n, n, n + big, metadata=n)
                for n in map(str, range(20))
            )
        )
        one = await db.get_message("s1", "one")
        n = one["conv_id"]
        assert [n, n, n, n + big, n] == [
            one[name] for name in ("msg_type", "agents", "actions", "content", "metadata")
        ]

    asyncio.run(main())


def test_both_faces_are_used_at_once(db, sync_db):
    sync_db.create_session("s1")

    async def main():
        await asyncio.gather(
            *(db.append_context_messages("s1", [n]) for n in range(30)),
            *(asyncio.to_thread(sync_db.append_context_messages, "s1", [-n]) for n in range(1, 30)),
        )

    asyncio.run(main())
    assert list(range(-29, 30)) == sorted(sync_db.get_context_messages("s1")["reasoning"])
