"""Locks of this process, and patience with the locks of others."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Final, TypeVar

from director_db.locks import in_use_by_this_thread, is_mine, stayed_locked
from director_db.logs import LONG, LongWait
from director_db_sqlite.errors import WAIT, primary_code

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db.locks import Lock

T = TypeVar("T")

LOGGER: Final = "sqlite"
"""The name of the logger below ``director_db``."""

# Some of SQLite's answers (recovery of a log, the switch to WAL) come without any wait.
_PAUSE: Final = 0.005


def locked(lock: Lock, run: Callable[[], T], path: str, deadline: float) -> T:
    """Run something under a lock of this process, if it can be had in time.

    Raises:
        BackendUnavailableError: it cannot, or this thread itself holds it.
    """
    if is_mine(lock):
        raise in_use_by_this_thread(path)
    try:
        if not _acquire(lock, path, deadline):
            raise stayed_locked(path)
        return run()
    finally:
        # First of all, and without asking whether we own it: an exception between the question and
        # the answer would leave it locked for good. After a time-out we do not own it.
        try:  # noqa: SIM105 - to call suppress() would be the very gap
            lock.release()
        except RuntimeError:
            pass


def _acquire(lock: Lock, path: str, deadline: float) -> bool:
    left = max(0.0, deadline - time.monotonic())
    if lock.acquire(timeout=min(left, LONG)):
        return True
    wait = long_wait(lambda: path, "for other threads of this process", since=min(left, LONG))
    wait.look()
    if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
        return True
    wait.give_up()
    return False


def patiently(attempt: Callable[[], T], deadline: float, path: Callable[[], str]) -> T:
    """Repeat what failed because of somebody else's lock, until it works or the time is up.

    Args:
        attempt: what to repeat.
        deadline: until when, by the monotonic clock.
        path: of the file, for people.
    """
    wait = None
    while True:
        try:
            return attempt()
        except sqlite3.Error as error:
            if primary_code(error) not in WAIT:
                raise
            if wait is None:
                wait = long_wait(path, "for the locks of other connections")
            if time.monotonic() >= deadline:
                wait.give_up()
                raise
            wait.look()
        time.sleep(_PAUSE)


def long_wait(path: Callable[[], str], what: str, since: float = 0.0) -> LongWait:
    """Return what tells of a wait that lasts; it began `since` seconds ago."""
    return LongWait(LOGGER, path, what, since)
