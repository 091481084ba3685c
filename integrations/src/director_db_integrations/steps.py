"""Operations in steps, written once for threads and for coroutines."""

from __future__ import annotations

from collections.abc import Callable, Generator
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from director_db import BackendUnavailableError, DirectorDBError, SessionNotFoundError
from director_db_integrations.cancelling import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from director_db import BaseDB
    from director_db.asyncio import AsyncDB

Steps = Generator[Callable[[Any], Any] | list[Any], Any, Any]
"""An operation: it yields calls of the database and is sent what they return. A list that it yields
is a part of its result, and what it returns is the last part."""


def take(db: BaseDB, steps: Steps) -> Any:
    """Carry an operation out, and return what it returns."""
    *_, last = parts(db, steps)
    return last


async def atake(db: AsyncDB, steps: Steps) -> Any:
    """Do the same as `take`, in a coroutine; cancelled, it is carried to its end all the same."""

    async def last() -> Any:
        found = None
        async for part in async_parts(db, steps):
            found = part
        return found

    return await to_its_end(last())


def parts(db: BaseDB, steps: Steps) -> Iterator[Any]:
    """Carry an operation out, and yield the parts of its result."""
    step, ended = _advance(steps)
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
    step, ended = _advance(steps)
    while not ended:
        if isinstance(step, list):
            yield step
            step, ended = _advance(steps)
            continue
        try:
            answer = await step(db)
        except DirectorDBError as error:
            step, ended = _advance(steps, error=error)
        else:
            step, ended = _advance(steps, answer)
    yield step


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
