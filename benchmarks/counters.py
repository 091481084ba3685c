"""Bytes written, as the system or the server counts them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

_IO: Final = Path("/proc/self/io")

CALLS: Final = 10
"""Calls that are counted together."""

_BATCHES: Final = 3


def process_bytes() -> int | None:
    """Return what this process has had written to disks, in bytes; None if the system is silent.

    Linux counts whole pages of its cache as they become dirty. SQLite syncs at each commit, so a
    page that is written by two commits counts twice, as it is written twice.
    """
    try:
        lines = _IO.read_text().splitlines()
    except OSError:
        return None
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def log_bytes(connection: psycopg.Connection) -> int:
    """Return how much log (WAL) a Postgres server has written since its beginning, in bytes."""
    row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM gives one row
    return int(row[0])


def bytes_for_each(call: Callable[[], object], count: Callable[[], int | None]) -> float | None:
    """Return the bytes that one call writes: the least of a few batches.

    The least, as after a checkpoint a server logs each page whole when it is first touched, and a
    process may write for others: both come on top of what the call itself writes.
    """
    call()
    found = []
    for _ in range(_BATCHES):
        before = count()
        for _ in range(CALLS):
            call()
        after = count()
        if before is None or after is None:
            return None
        found.append((after - before) / CALLS)
    return min(found)
