"""The same database for coroutines: ``from director_db.asyncio import load_db``.

An `AsyncDB` has the operations of `BaseDB` as coroutines, over any backend. What they mean is
`BaseDB`'s alone: each runs its method in a thread of the instance's own `Executor`, so the event
loop never waits for a database, a lock, or the decoding of a long conversation.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self, TypeVar, cast, final

from director_db import registry
from director_db.base import BaseDB
from director_db.executor import Executor, Job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from types import TracebackType

    from director_db.db_type import DBType

__all__ = ["CARRIED_OUT", "AsyncDB", "async_db", "load_db"]

CARRIED_OUT: Final = "The call had begun, and was carried out."
"""A note of the `CancelledError` of a call that took effect; one that never began has none."""

P = ParamSpec("P")
R = TypeVar("R")


def _coroutine(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[AsyncDB, P], Coroutine[Any, Any, R]]:
    """Make an operation of `BaseDB` a coroutine: signature, types and docstring are the same."""

    @functools.wraps(method)
    async def call(self: AsyncDB, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await _outcome(self._executor, partial(method, self.sync_db, *args, **kwargs))

    return cast("Callable[Concatenate[AsyncDB, P], Coroutine[Any, Any, R]]", call)


def _iterator(
    method: Callable[Concatenate[Any, P], Iterator[R]],
    pages: Callable[..., Iterator[list[R]]],
) -> Callable[Concatenate[AsyncDB, P], AsyncIterator[R]]:
    """Make an iteration of `BaseDB` an asynchronous one, from what yields its pages."""

    @functools.wraps(method)
    async def iterate(self: AsyncDB, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        read = partial(next, pages(self.sync_db, *args, **kwargs), None)
        while (page := await _outcome(self._executor, read)) is not None:
            for record in page:
                yield record

    return cast("Callable[Concatenate[AsyncDB, P], AsyncIterator[R]]", iterate)


class _Ends:
    """What threads have to tell an event loop, which is woken once for all of it.

    To wake it takes a call of the system, which gives the interpreter's lock away; calls that share
    a commit end together. A hundred coroutines on SQLite took a sixth less time for each call.

    A signal's handler may raise anywhere in the loop's thread. What was told then waits for the
    next look, and each call looks as it begins and as it is cancelled.

    Attributes:
        told: what no look has called yet.
    """

    __slots__ = ("_loop", "_waking", "told")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.told: deque[Callable[[], None]] = deque()
        self._waking = False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Ends:
        """Return that of a loop. The loop has it, so that both go together."""
        try:
            own = vars(loop)
        except TypeError:  # One without room for it is woken each time.
            return cls(loop)
        ends: _Ends = own.get(_ENDS) or own.setdefault(_ENDS, cls(loop))
        return ends

    def tell(self, end: Callable[[], None]) -> None:
        """Have a function called on the loop, more than once if that is interrupted."""
        self.told.append(end)
        if self._waking:
            return  # It has not looked yet.
        try:
            self._waking = True
            self._loop.call_soon_threadsafe(self.look)
        except RuntimeError:
            self._waking = False
            if self._loop.is_closed():
                self.told.clear()  # Nobody waits any more.
        except BaseException:
            self._waking = False
            raise

    def look(self) -> None:
        """Call what was told so far; on the loop."""
        self._waking = False  # First: what comes from here on wakes it again.
        told = self.told
        try:
            while told:
                told[0]()
                told.popleft()
        finally:
            if told and not self._loop.is_closed():
                self._loop.call_soon(self.look)


_ENDS: Final = "_director_db_ends"


async def _outcome(executor: Executor, call: Callable[[], R], *, apart: bool = False) -> R:
    """Run a call in a thread, and return or raise what it does.

    A cancelled call that has not begun never begins. One that has begun ends, and only then is
    CancelledError raised: its cause is the error of the call, or None if the call has succeeded.
    """
    loop = asyncio.get_running_loop()
    ends = _Ends.of(loop)
    if ends.told:
        ends.look()
    waiter = loop.create_future()
    ended = False

    def end() -> None:
        nonlocal ended
        ended = True
        if not waiter.done():
            waiter.set_result(None)

    def run() -> R:
        if loop.is_closed():
            message = "The event loop was closed before the call began."
            raise RuntimeError(message)
        return call()

    job = Job(run, partial(ends.tell, end))
    (executor.run_apart if apart else executor.submit)(job)
    try:
        await waiter
    except asyncio.CancelledError as cancelled:
        ends.look()
        if executor.withdraw(job):
            raise
        while not ended:
            waiter = loop.create_future()
            # It is cancelled already; one more changes nothing.
            with contextlib.suppress(asyncio.CancelledError):
                await waiter
        if job.error is None:
            cancelled.add_note(CARRIED_OUT)
        raise cancelled from job.error
    except BaseException:
        executor.withdraw(job)  # The coroutine is closed: its loop has gone.
        raise
    if job.error is not None:
        try:
            raise job.error
        finally:
            del job  # A cycle: the error's traceback holds this frame.
    result: R = job.result
    return result


@final
class AsyncDB:
    """A `BaseDB` whose operations are coroutines; any backend's.

    It may be used from several event loops and threads at once, and beside the instance that it
    wraps. Each operation has the arguments, the results and the errors of `BaseDB`'s. Whoever
    awaits one call before the next has them in that order; calls at once, as those of `gather`,
    have none, and each takes effect whole.

    A cancelled call that has not begun never begins. One that has begun ends, and CancelledError is
    raised after that; its ``__cause__`` is the error if the call has failed, and if it has taken
    effect, its ``__notes__`` have `CARRIED_OUT` (LIF-7).

    Attributes:
        sync_db: the instance behind it, for whoever is in a thread.
    """

    def __init__(self, sync_db: BaseDB) -> None:
        """Wrap an instance, ``AsyncDB(SQLiteDB("x.db"))``. Nothing is opened, no thread started."""
        self.sync_db = sync_db
        self._executor = Executor(f"director_db {sync_db.db_type}")

    def __repr__(self) -> str:
        return f"<AsyncDB of {self.sync_db!r}>"

    @property
    def db_type(self) -> DBType:
        """The DB type of the backend."""
        return self.sync_db.db_type

    @property
    def place(self) -> str:
        """Where the records are, for people; a password in it is masked."""
        return self.sync_db.place

    @property
    def closed(self) -> bool:
        """Whether it was closed (LIF-5)."""
        return self.sync_db.closed

    create_session = _coroutine(BaseDB.create_session)
    get_session = _coroutine(BaseDB.get_session)
    get_sessions = _coroutine(BaseDB.get_sessions)
    iter_sessions = _iterator(BaseDB.iter_sessions, BaseDB._session_pages)  # noqa: SLF001
    update_session = _coroutine(BaseDB.update_session)
    delete_session = _coroutine(BaseDB.delete_session)
    copy_session = _coroutine(BaseDB.copy_session)

    add_or_update_msg_to_conv = _coroutine(BaseDB.add_or_update_msg_to_conv)
    add_or_update_msgs_to_conv = _coroutine(BaseDB.add_or_update_msgs_to_conv)
    get_conversations = _coroutine(BaseDB.get_conversations)
    iter_conversations = _iterator(BaseDB.iter_conversations, BaseDB._message_pages)  # noqa: SLF001
    get_message = _coroutine(BaseDB.get_message)
    get_messages = _coroutine(BaseDB.get_messages)
    delete_message = _coroutine(BaseDB.delete_message)
    delete_conversation = _coroutine(BaseDB.delete_conversation)
    delete_messages_after = _coroutine(BaseDB.delete_messages_after)
    pop_message = _coroutine(BaseDB.pop_message)
    replace_conversation = _coroutine(BaseDB.replace_conversation)

    add_or_update_context_msg = _coroutine(BaseDB.add_or_update_context_msg)
    append_context_messages = _coroutine(BaseDB.append_context_messages)
    get_context_messages = _coroutine(BaseDB.get_context_messages)
    get_context = _coroutine(BaseDB.get_context)
    delete_context = _coroutine(BaseDB.delete_context)

    health = _coroutine(BaseDB.health)
    health_check = _coroutine(BaseDB.health_check)
    migrate = _coroutine(BaseDB.migrate)
    distribute = _coroutine(BaseDB.distribute)

    async def run(self, function: Callable[[BaseDB], R], /) -> R:
        """Call a function with the instance behind it, in one of its threads.

        For several operations in a row with what is made of their results: the event loop goes on
        meanwhile, and they wait for one thread, not for one each. Together they are no transaction.

        Cancelled, they are like one operation: what has not begun never begins, and what has begun
        is carried to its end (LIF-7). Who closes the database waits for the operation that is under
        way, and the next one raises `ClosedError`.

        Args:
            function: called with `sync_db`, and uses that. It may block, but must not wait for the
                event loop or for this `AsyncDB`.

        Returns:
            What the function returns: records rather than an iterator, which would read on the
            event loop.

        Raises:
            TypeError: it is a coroutine function.
            Exception: what the function raises.

        Example:
            >>> def titles(db):
            ...     return [each["metadata"].get("title") for each in db.iter_sessions()]
            >>> async def main(db):
            ...     return await db.run(titles)
        """
        if inspect.iscoroutinefunction(function):
            message = f"A function that is called in a thread cannot be a coroutine: {function!r}"
            raise TypeError(message)
        return await _outcome(self._executor, partial(function, self.sync_db))

    async def aclose(self) -> None:
        """Wait for the operations in flight, then let go of the database (LIF-5). Idempotent.

        What has not begun raises `ClosedError`. It closes the instance behind it, also one from
        `load_db`, whose next call gives a new one.
        """
        await _outcome(self._executor, self.sync_db.close, apart=True)

    async def close(self) -> None:
        """Do the same as `aclose`."""
        await self.aclose()

    async def __aenter__(self) -> Self:
        self.sync_db.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leave = partial(self.sync_db.__exit__, kind, error, traceback)
        await _outcome(self._executor, leave, apart=True)


def async_db(sync_db: BaseDB) -> AsyncDB:
    """Return the `AsyncDB` of an instance, the same one for the same instance; no I/O."""
    # On the instance, as a table of them would keep alive what was closed. Of two threads that come
    # first at once one wins, and both get its.
    face: AsyncDB = vars(sync_db).get("_async_db") or vars(sync_db).setdefault(
        "_async_db", AsyncDB(sync_db)
    )
    return face


def load_db(db_type_or_url: str | None = None) -> AsyncDB:
    """Return the database that the environment, or the argument, asks for, for coroutines.

    The instance behind it is the one that `director_db.load_db` gives for the same argument, so
    that both can be used at once; and the same `AsyncDB` is given for the same instance. It does no
    I/O, so it is no coroutine.

    Args:
        db_type_or_url: as for `director_db.load_db`.

    Raises:
        UnknownDBTypeError: no installed backend has that type or URL scheme.
        PluginError: the backend's package is broken, or two packages claim the type.
        ConfigurationError: a setting of the backend is malformed.
    """
    return async_db(registry.load_db(db_type_or_url))
