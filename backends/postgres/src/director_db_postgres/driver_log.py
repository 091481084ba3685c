"""What psycopg logs of our connections, told below our own lines instead of beside them.

Its lines reach standard error where nobody configured `logging`, and say of a connection that we
closed on purpose that it was found closed. Those of other users of psycopg stay as they are.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

from director_db.logs import DEBUG, log
from director_db_postgres.pipeline import PipelinedConnection

if TYPE_CHECKING:
    from types import FrameType

LOGGER: Final = "postgres"
"""What is told of the backend is told here, below ``director_db``."""

POOL: Final = "director-db"
"""What our pools are called; their threads' names begin so."""

_LOGGERS: Final = ("psycopg", "psycopg.pool")


class _OfOthers(logging.Filter):
    """Lets through what is not of our connections."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True  # Whoever asks for these wants to see the pool at work.
        values = record.args if isinstance(record.args, tuple) else ()
        if not any(map(_is_ours, values)) and not _is_called_by_ours(sys._getframe(1)):  # noqa: SLF001
            return True
        log(LOGGER, DEBUG, "psycopg: %s", record.getMessage())
        return False


def _is_ours(value: object) -> bool:
    return isinstance(value, PipelinedConnection) or (
        isinstance(value, str) and value.startswith(POOL)
    )


def _is_called_by_ours(frame: FrameType | None) -> bool:
    """Whether psycopg says it in a call of one of our connections: some lines name none."""
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), PipelinedConnection):
            return True
        frame = frame.f_back
    return False


def quieten() -> None:
    """Take our connections out of psycopg's own lines; once is enough."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _OfOthers) for known in logger.filters):
            logger.addFilter(_OfOthers())
