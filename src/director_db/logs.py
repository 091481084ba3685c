"""What operators are told through `logging`, below the logger ``director_db``.

There is no handler of ours but one that does nothing: the application decides what is shown. Texts
hold places, causes and times, and neither payloads nor passwords.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

LONG: Final = 1.0
"""The seconds after which a wait is logged."""

DEBUG: Final = 10
INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40


def log(
    name: str, level: int, text: str, *values: object, cause: BaseException | None = None
) -> None:
    """Log a text of ``director_db.<name>``, or of ``director_db`` itself if the name is empty.

    Whatever a handler raises is dropped: an operation does not fail because it was told of.

    Args:
        name: the DB type of the backend.
        level: as `logging` counts them.
        text: with places for `values` as in ``%s``.
        values: what stands there; made into text only if somebody listens.
        cause: an exception whose traceback is shown.
    """
    with contextlib.suppress(Exception):
        _logger(name).log(level, text, *values, exc_info=cause)


@functools.cache
def _logger(name: str) -> logging.Logger:
    import logging  # noqa: PLC0415 - a part of the time of importing director_db, and rarely needed

    keep_quiet()
    return logging.getLogger(f"{__package__}.{name}" if name else __package__)


def keep_quiet() -> None:
    """Keep Python from printing our log on standard error where the application configured none.

    Covers what a backend logs by itself, too. Does nothing where nobody has imported `logging`.
    """
    logging = sys.modules.get("logging")
    if logging is not None:
        logger = logging.getLogger(__package__)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())


class LongWait:
    """Logs a wait once, when it has taken longer than a second."""

    __slots__ = ("_name", "_place", "_since", "_told", "_what")

    def __init__(self, name: str, place: Callable[[], str], what: str, since: float = 0.0) -> None:
        """Begin to wait, or have begun `since` seconds ago; `what` is how the text ends."""
        self._name, self._place, self._what = name, place, what
        self._since = time.monotonic() - since
        self._told = False

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return time.monotonic() - self._since

    def look(self) -> None:
        """Tell of it if it is time to."""
        if not self._told and self.seconds >= LONG:
            self._told = True
            self._log("has waited for")

    def give_up(self) -> None:
        """Tell that the deadline has come."""
        self._log("gave up waiting after")

    def _log(self, how: str) -> None:
        text = "%s: %s %.1f s %s"
        log(self._name, WARNING, text, self._place(), how, self.seconds, self._what)
