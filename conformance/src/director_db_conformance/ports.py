"""Choosing a TCP port for a server that tests will stop and start."""

from __future__ import annotations

import contextlib
import secrets
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"

# Below the ports that systems hand to outgoing connections. Binding to port 0 would give one of
# those: while the server is down, a client that keeps trying may be given the very same port for
# its own end, is then connected to itself, and the server cannot come back.
_LOWEST: Final = 20_000
_HIGHEST: Final = 32_000

_ATTEMPTS: Final = 100


def free_port() -> int:
    """Return a port on the loopback interface that nobody listens on at this moment.

    Another process may take it before the caller does; whoever starts a server tries again.

    Raises:
        OSError: a hundred random ports are all in use.
    """
    for _ in range(_ATTEMPTS):
        # Not from `random`: tests seed that, and parallel runs would draw the same ports.
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return port
    message = f"No free port between {_LOWEST} and {_HIGHEST} on {LOOPBACK}."
    raise OSError(message)
