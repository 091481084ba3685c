"""Operations in steps, for threads and for coroutines."""

from __future__ import annotations

from collections.abc import Callable, Generator
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from director_db import BackendUnavailableError, DirectorDBError, SessionNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from director_db import BaseDB
    from director_db.asyncio import AsyncDB

Steps = Generator[Callable[[Any], Any] | list[Any], Any, Any]
"""An operation: it yields calls of the database and is sent what they return. A list that it yields
is a part of its result, and what it returns is the last part."""


def take(db: BaseDB, steps: Steps, begun: tuple[Any, bool] | None = None) -> Any:
    """Carry an operation out, and return what it returns; `begun` is as for `parts`."""
    *_, last = parts(db, steps, begun)
    return last


async def atake(db: AsyncDB, steps: Steps) -> Any:
    """Do the same as `take`, in a thread that all of it takes once; cancelled as one operation.

    What comes before its first call of the database is done at once, on the event loop: what it was
    given is stored as it is now, whatever the caller does to it while the thread is at work.
    """
    begun = _advance(steps)
    return await db.run(lambda sync_db: take(sync_db, steps, begun))


def parts(db: BaseDB, steps: Steps, begun: tuple[Any, bool] | None = None) -> Iterator[Any]:
    """Carry an operation out, and yield the parts of its result; from its first step, if begun."""
    step, ended = begun or _advance(steps)
    while not ended:
        if isinstance(step, list):
            yield step
            step, ended = _advance(steps)
            continue
        try:
            answer = step(db)
        except DirectorDBError as error:
            step, ended = _advance(steps, error=error)
        else:
            step, ended = _advance(steps, answer)
    yield step


async def async_parts(db: AsyncDB, steps: Steps) -> AsyncIterator[Any]:
    """Do the same as `parts`, in a coroutine."""
    found = parts(db.sync_db, steps)
    while (part := await db.run(lambda _: next(found, found))) is not found:
        yield part


def _advance(
    steps: Steps, answer: Any = None, *, error: DirectorDBError | None = None
) -> tuple[Any, bool]:
    """Return the next step, or the last part and True."""
    try:
        return (steps.throw(error) if error else steps.send(answer)), False
    except StopIteration as stop:
        return stop.value, True


def store(
    session_id: str,
    messages: Sequence[Mapping[str, Any]],
    metadata: Mapping[str, Any],
    *,
    known: bool = False,
    replacing: bool = False,
    again: bool = False,
) -> Steps:
    """Store messages, all or none, in one call; in three where there is no session yet.

    Args:
        session_id: the session.
        messages: as those of `add_or_update_msgs_to_conv`.
        metadata: of the session, if it is made for them.
        known: it has been there, so that it is not made if it is gone (MSG-5).
        replacing: they are all that is left.
        again: they are stored once more if the answer was lost. What somebody has deleted meanwhile
            is there again then.

    Raises:
        BackendUnavailableError: with `maybe_applied`, where they may have been stored.
        SessionNotFoundError: the session was known, and is gone.
    """
    operation = "replace_conversation" if replacing else "add_or_update_msgs_to_conv"
    stored = methodcaller(operation, session_id, messages)
    while True:
        try:
            return (yield stored)
        except SessionNotFoundError:
            if known:
                raise
        except BackendUnavailableError as lost:
            if not (again and lost.maybe_applied):
                raise
            again = False
            continue
        known = True  # From now on.
        yield methodcaller("create_session", session_id, metadata=metadata)
