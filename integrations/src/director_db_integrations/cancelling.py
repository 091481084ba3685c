"""Calls of several steps that a cancelled task carries through."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

from director_db.asyncio import CARRIED_OUT

if TYPE_CHECKING:
    from collections.abc import Coroutine

R = TypeVar("R")


async def to_its_end(steps: Coroutine[None, None, R]) -> R:
    """Run steps of which none may be left out, and return or raise what they do.

    If the caller is cancelled meanwhile, they are run to their end, and CancelledError is raised
    then, as by one operation (LIF-7): with a note if they have succeeded, else with their error as
    its cause.
    """
    task = asyncio.ensure_future(steps)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError as cancelled:
        while not task.done():
            # It is cancelled already; one more changes nothing.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if task.cancelled():  # With the event loop, which ends.
            raise
        error = task.exception()
        if error is None:
            cancelled.add_note(CARRIED_OUT)
        raise cancelled from error
