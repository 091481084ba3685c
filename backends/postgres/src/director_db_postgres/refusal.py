"""Why a server refused a connection: the SQLSTATE, which libpq keeps to itself.

A wrong password must be told at once, and a server that is starting up must be waited for; both are
one exception without a SQLSTATE, and their texts are in the server's language. libpq writes the
SQLSTATE into its message if it is asked to, so a refused connection is tried once more that way.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import re
import selectors
import time
from typing import TYPE_CHECKING, Final

from psycopg import pq

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED: Final = "28000"
"""The SQLSTATE of a refusal whose own is not known."""

_VERBOSITY_SQLSTATE: Final = 3
# The severity before it is in the server's language.
_SQLSTATE: Final = re.compile(rb":\s+([0-9A-Z]{5})\s*$", re.MULTILINE)


def refusal_state(conninfo: str, patience: float) -> str | None:
    """Return the SQLSTATE with which a server refuses to be connected.

    None if none answers so within `patience`, in seconds.
    """
    deadline = time.monotonic() + patience
    connection = pq.PGconn.connect_start(conninfo.encode())
    try:
        set_verbosity = _verbosity_setter()
        pointer: int | None = getattr(connection, "pgconn_ptr", None)
        if set_verbosity is not None and pointer is not None:
            set_verbosity(pointer, _VERBOSITY_SQLSTATE)
        if not _has_failed(connection, deadline):
            return None
        found = _SQLSTATE.findall(connection.error_message)
        if found:
            return str(found[-1].decode())
        # A server that asks for a password is there; so what failed is not going to change.
        answered = connection.needs_password or (set_verbosity is None and connection.used_password)
        return REFUSED if answered else None
    finally:
        connection.finish()


def _has_failed(connection: pq.abc.PGconn, deadline: float) -> bool:
    """Connect until it has worked or failed, or the time is up."""
    while connection.status != pq.ConnStatus.BAD and time.monotonic() < deadline:
        status = connection.connect_poll()
        if status == pq.PollingStatus.OK:
            return False
        if status == pq.PollingStatus.FAILED:
            return True
        reads = status == pq.PollingStatus.READING
        # Not select(), which fails in a process with more than 1,024 open files.
        with selectors.DefaultSelector() as selector:
            event = selectors.EVENT_READ if reads else selectors.EVENT_WRITE
            selector.register(connection.socket, event)
            selector.select(max(0.0, deadline - time.monotonic()))
    return connection.status == pq.ConnStatus.BAD


@functools.cache
def _verbosity_setter() -> Callable[[int, int], int] | None:
    """Return libpq's PQsetErrorVerbosity, which psycopg does not wrap; None if out of reach.

    It must be of the libpq that psycopg uses: another may lay out a connection otherwise.
    """
    if pq.__impl__ not in {"c", "binary"}:
        return None
    try:
        module = importlib.import_module(f"psycopg_{pq.__impl__}.pq")
        setter = ctypes.CDLL(module.__file__).PQsetErrorVerbosity
    except (ImportError, OSError, AttributeError):
        return None
    setter.argtypes = [ctypes.c_void_p, ctypes.c_int]
    setter.restype = ctypes.c_int
    return setter
