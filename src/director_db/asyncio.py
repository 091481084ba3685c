"""The same database for coroutines: ``from director_db.asyncio import load_db``.

An `AsyncDB` has the operations of `BaseDB` as coroutines, over any backend. What they mean is
`BaseDB`'s alone: each runs its method in a thread of the instance's own `Executor`, so the event
loop never waits for a database, a lock, or the decoding of a long conversation.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast, final

from director_db import registry
from director_db.awaited import CARRIED_OUT, outcome, store_together
from director_db.base import BaseDB
from director_db.earlier import KNOWN
from director_db.executor import Executor
from director_db.operations.messages import checked_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
    from types import TracebackType

    from director_db.db_type import DBType

__all__ = ["CARRIED_OUT", "AsyncDB", "async_db", "load_db"]

P = ParamSpec("P")
R = TypeVar("R")


def _session(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Return whose lock an operation takes with these arguments."""
    session_id = args[0] if args else kwargs.get("session_id")
    return session_id if isinstance(session_id, str) else None


def _coroutine(
    method: Callable[Concatenate[Any, P], R], *, writes: bool = False
) -> Callable[Concatenate[AsyncDB, P], Coroutine[Any, Any, R]]:
    """Make an operation of `BaseDB` a coroutine: signature, types and docstring are the same."""

    @functools.wraps(method)
    async def call(self: AsyncDB, /, *args: P.args, **kwargs: P.kwargs) -> R:
        work = partial(method, self.sync_db, *args, **kwargs)
        session = _session(args, kwargs) if writes else None
        return await outcome(self._executor, work, session=session)

    return cast("Callable[Concatenate[AsyncDB, P], Coroutine[Any, Any, R]]", call)


def _storing(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[AsyncDB, P], Coroutine[Any, Any, R]]:
    """Make the operation that stores a message a coroutine; those that wait are stored together."""

    @functools.wraps(method)
    async def call(self: AsyncDB, /, *args: P.args, **kwargs: P.kwargs) -> R:
        alone = partial(method, self.sync_db, *args, **kwargs)
        session = _session(args, kwargs)
        is_plain = kwargs.get("revision") is None and kwargs.get("if_absent", False) is False
        if not (is_plain and self._stores_together):
            return await outcome(self._executor, alone, session=session)
        message = self.sync_db, partial(checked_message, *args, **kwargs)
        return await outcome(self._executor, alone, session=session, message=message)

    return cast("Callable[Concatenate[AsyncDB, P], Coroutine[Any, Any, R]]", call)


def _iterator(
    method: Callable[Concatenate[Any, P], Iterator[R]],
    pages: Callable[..., Iterator[list[R]]],
) -> Callable[Concatenate[AsyncDB, P], AsyncIterator[R]]:
    """Make an iteration of `BaseDB` an asynchronous one, from what yields its pages."""

    @functools.wraps(method)
    async def iterate(self: AsyncDB, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        read = partial(next, pages(self.sync_db, *args, **kwargs), None)
        while (page := await outcome(self._executor, read)) is not None:
            for record in page:
                yield record

    return cast("Callable[Concatenate[AsyncDB, P], AsyncIterator[R]]", iterate)


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
        name = f"director_db {sync_db.db_type}"
        # A backend for an earlier contract may have a name like that for something else.
        patience = inf if sync_db._contract == KNOWN[0] else sync_db._patience  # noqa: SLF001
        seen = weakref.ref(sync_db)  # A thread that idles is not to keep it.
        self._executor = Executor(
            name, store_together, patience, lambda: (db := seen()) is None or db.closed
        )
        self._stores_together = type(sync_db)._upsert_together is not BaseDB._upsert_together  # noqa: SLF001

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

    create_session = _coroutine(BaseDB.create_session, writes=True)
    get_session = _coroutine(BaseDB.get_session)
    get_sessions = _coroutine(BaseDB.get_sessions)
    iter_sessions = _iterator(BaseDB.iter_sessions, BaseDB._session_pages)  # noqa: SLF001
    update_session = _coroutine(BaseDB.update_session, writes=True)
    delete_session = _coroutine(BaseDB.delete_session, writes=True)
    copy_session = _coroutine(BaseDB.copy_session, writes=True)

    add_or_update_msg_to_conv = _storing(BaseDB.add_or_update_msg_to_conv)
    add_or_update_msgs_to_conv = _coroutine(BaseDB.add_or_update_msgs_to_conv, writes=True)
    get_conversations = _coroutine(BaseDB.get_conversations)
    iter_conversations = _iterator(BaseDB.iter_conversations, BaseDB._message_pages)  # noqa: SLF001
    get_message = _coroutine(BaseDB.get_message)
    get_messages = _coroutine(BaseDB.get_messages)
    delete_message = _coroutine(BaseDB.delete_message, writes=True)
    delete_conversation = _coroutine(BaseDB.delete_conversation, writes=True)
    delete_messages_after = _coroutine(BaseDB.delete_messages_after, writes=True)
    pop_message = _coroutine(BaseDB.pop_message, writes=True)
    replace_conversation = _coroutine(BaseDB.replace_conversation, writes=True)

    add_or_update_context_msg = _coroutine(BaseDB.add_or_update_context_msg, writes=True)
    append_context_messages = _coroutine(BaseDB.append_context_messages, writes=True)
    get_context_messages = _coroutine(BaseDB.get_context_messages)
    get_context = _coroutine(BaseDB.get_context)
    delete_context = _coroutine(BaseDB.delete_context, writes=True)

    health = _coroutine(BaseDB.health)

    @functools.wraps(BaseDB.health_check)
    async def health_check(self) -> bool:
        """See `BaseDB.health_check`; False also where no thread is left to ask."""
        try:
            return await outcome(self._executor, self.sync_db.health_check)
        except Exception:  # noqa: BLE001 - no memory for a thread, for one
            return False

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
            Exception: what the function raises; RuntimeError for StopIteration, which no coroutine
                can raise.

        Example:
            >>> def titles(db):
            ...     return [each["metadata"].get("title") for each in db.iter_sessions()]
            >>> async def main(db):
            ...     return await db.run(titles)
        """
        if inspect.iscoroutinefunction(function):
            message = f"A function that is called in a thread cannot be a coroutine: {function!r}"
            raise TypeError(message)
        return await outcome(self._executor, partial(function, self.sync_db))

    async def aclose(self) -> None:
        """Wait for the operations in flight, then let go of the database (LIF-5). Idempotent.

        What has not begun raises `ClosedError`. It closes the instance behind it, also one from
        `load_db`, whose next call gives a new one.
        """
        await outcome(self._executor, self.sync_db.close, apart=True)

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
        if self.sync_db._shared:  # noqa: SLF001 - it stays open, see `BaseDB.__exit__`
            return
        leave = partial(self.sync_db.__exit__, kind, error, traceback)
        await outcome(self._executor, leave, apart=True)


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
