"""Giving up in time, whatever a backend hangs in: for commands, which end with their process."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from director_db.errors import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")

# What may still be at work when the command ends.
_watched: list[threading.Thread] = []


class _LastWords(logging.Handler):
    """Keeps the last thing that a backend has told, of what it is waiting for, say."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.words = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.words = record.getMessage()


def within(seconds: float, ask: Callable[[], R], place: str) -> R:
    """Return an answer, or raise if it takes longer, in whatever the backend hangs.

    An operation waits as long as an application wants it to, for a lock or a server that may come
    back, and an operator's probe does not.
    """
    answers: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    last = _LastWords()
    logger = logging.getLogger("director_db")
    logger.addHandler(last)
    try:
        thread = threading.Thread(target=run, daemon=True)
        _watched.append(thread)
        thread.start()
        thread.join(seconds)
    finally:
        logger.removeHandler(last)
    if errors:
        raise errors[0]
    if answers:
        return answers[0]
    because = f" ({last.words.rstrip('.')})" if last.words else ""
    message = f"{place} gave no answer within {seconds:g} s{because}. See --timeout."
    raise BackendUnavailableError(message, retryable=True)


def leave(status: int) -> None:
    """End the process at once if something still hangs: its end would wait for that, too."""
    if any(thread.is_alive() for thread in _watched):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(status)
