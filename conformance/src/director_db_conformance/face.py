"""The asynchronous face of a backend, for code that calls the synchronous one.

So the clauses, and what they run in other processes, are the same for both faces. Each call is a
coroutine of one event loop, which runs in a thread of its own: many threads of a clause are many
coroutines of that loop, and a forked child has a new one.

Other processes load this file by its path, as they have no use for the rest of the suite and for
pytest. So it imports nothing of this package.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from director_db import asyncio as asynchronous

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from director_db.asyncio import AsyncDB

Face = Literal["sync", "asyncio"]

SYNC: Final = "sync"
ASYNCIO: Final = "asyncio"
FACES: Final[tuple[Face, ...]] = (SYNC, ASYNCIO)
"""Through which face calls go: methods of `BaseDB`, or coroutines of `AsyncDB`."""

IN_ANOTHER_PROCESS: Final = f"""
import importlib.util
face_spec = importlib.util.spec_from_file_location("director_db_conformance_face", {__file__!r})
face = importlib.util.module_from_spec(face_spec)
face_spec.loader.exec_module(face)
load_db, db = face.load_db, face.load_db()
"""
"""Gives code of `Place.python` the asynchronous face under the names of the synchronous one."""

_END: Final = object()


class AwaitedDB:
    """An `AsyncDB` whose coroutines are awaited for the caller."""

    def __init__(self, async_db: AsyncDB) -> None:
        """Take the instance."""
        self._async_db = async_db

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._async_db, name)
        if inspect.isasyncgenfunction(found):
            return partial(_iterated, found)
        return partial(_awaited, found) if inspect.iscoroutinefunction(found) else found

    def __repr__(self) -> str:
        return repr(self._async_db)

    def __enter__(self) -> Self:
        _awaited(self._async_db.__aenter__)
        return self

    def __exit__(self, *error: object) -> None:
        _awaited(self._async_db.__aexit__, *error)


def load_db(db_type_or_url: str | None = None) -> AwaitedDB:
    """Do as `director_db.asyncio.load_db`: the same for the same instance."""
    async_db = asynchronous.load_db(db_type_or_url)
    found: AwaitedDB = vars(async_db).setdefault("_awaited", AwaitedDB(async_db))
    return found


class _Loop:
    """The event loop of this process, started with its first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        # A child neither closes nor collects the loops of its parents.
        self._lost: list[asyncio.AbstractEventLoop | None] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self._lost.append(self._loop)
        self._lock, self._loop = threading.Lock(), None

    def running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            with self._lock:
                if self._loop is None:
                    loop = asyncio.new_event_loop()
                    name = "event loop of director-db-conformance"
                    threading.Thread(target=loop.run_forever, name=name, daemon=True).start()
                    self._loop = loop
        return self._loop


_the_loop: Final = _Loop()


def _awaited(method: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any) -> Any:
    """Run a coroutine in the loop, and return or raise what it does.

    What a signal raises here meanwhile cancels it, and goes on when it has ended, as with Ctrl-C
    under `asyncio.run`. That may be at any moment, so nothing here holds a lock of Python's.
    """
    loop = _the_loop.running()
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    # Of the loop's thread alone: where a task is collected, what a signal raises would be lost.
    tasks: list[asyncio.Task[Any]] = []

    def begin() -> None:
        tasks.append(loop.create_task(method(*args, **kwargs)))
        tasks[0].add_done_callback(end)

    def end(task: asyncio.Task[Any]) -> None:
        tasks.clear()
        if task.cancelled():
            answers.put((None, asyncio.CancelledError()))
        else:
            error = task.exception()
            answers.put((None if error else task.result(), error))

    def cancel() -> None:
        if tasks:
            tasks[0].cancel()
        else:  # It was struck before it had asked, or when it had the answer and not yet kept it.
            answers.put((None, None))

    try:
        loop.call_soon_threadsafe(begin)
        result, error = answers.get()
    except BaseException:
        loop.call_soon_threadsafe(cancel)
        answers.get()
        raise
    if error is not None:
        try:
            raise error
        finally:
            del error  # A cycle: its traceback holds this frame.
    return result


def _iterated(
    method: Callable[..., AsyncIterator[Any]], *args: Any, **kwargs: Any
) -> Iterator[Any]:
    """Give what `async for` gives, each when it is asked for."""
    records = method(*args, **kwargs)

    async def following() -> Any:
        return await anext(records, _END)

    while (record := _awaited(following)) is not _END:
        yield record
