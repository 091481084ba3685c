"""Large tables, built by the bare drivers in the shortest way that leads to the same rows."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final

import psycopg

from benchmarks.payloads import context_message, message
from benchmarks.raw.store import CONTEXT_KEY, columns, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from director_db_conformance.servers import PostgresServer

COLLECTIONS: Final = 5
VIDEOS: Final = 10

_TIME: Final = 1_700_000_000

# Between two messages, so that others can be stored in the usual way before more are added here.
_PLACES: Final = 1_000_000

_MESSAGE_COLUMNS: Final = (
    "session_id, seq, conv_id, msg_id, msg_type, agents, actions, content, status, created_at, "
    "updated_at, metadata"
)
_SESSION_COLUMNS: Final = (
    "session_id, video_id, collection_id, created_at, updated_at, last_seq, metadata"
)

_CONTEXT_COLUMNS: Final = (
    "session_id, context_data, list_key, list_len, bytes, version, created_at, updated_at, metadata"
)

Place = tuple[str, int]
"""A session and the number of a message in it, from 0."""


def add_messages(backend: str, place: str, messages: Sequence[Place]) -> None:
    """Insert messages in the order given, which is the order in which they lie in the table."""
    rows = (_message_row(session_id, number) for session_id, number in messages)
    last = dict(messages)
    if backend == "sqlite":
        with _sqlite(place) as connection:
            marks = ", ".join("?" * 12)
            connection.executemany(
                f"INSERT INTO director_conversations ({_MESSAGE_COLUMNS}) VALUES ({marks})", rows
            )
            connection.executemany(
                "UPDATE director_sessions SET last_seq = ? WHERE session_id = ?",
                [((number + 1) * _PLACES, session_id) for session_id, number in last.items()],
            )
        return
    with psycopg.connect(place) as postgres:
        with postgres.cursor().copy(
            f"COPY director_conversations ({_MESSAGE_COLUMNS}) FROM STDIN"
        ) as copy:
            for row in rows:
                copy.write_row(row)
        postgres.cursor().executemany(
            "UPDATE director_sessions SET last_seq = %s WHERE session_id = %s",
            [((number + 1) * _PLACES, session_id) for session_id, number in last.items()],
        )


def add_sessions(backend: str, place: str, start: int, stop: int) -> None:
    """Insert the sessions with these numbers; their activity is in another order than their ids."""
    rows = (_session_row(number) for number in range(start, stop))
    if backend == "sqlite":
        with _sqlite(place) as connection:
            connection.executemany(
                f"INSERT INTO director_sessions ({_SESSION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
        return
    with (
        psycopg.connect(place) as postgres,
        postgres.cursor().copy(f"COPY director_sessions ({_SESSION_COLUMNS}) FROM STDIN") as copy,
    ):
        for row in rows:
            copy.write_row(row)


def middle_session(numbers: Iterable[int]) -> str:
    """Return the id of the session in the middle of these, by activity."""
    ordered = sorted(numbers, key=_activity)
    return _session_id(ordered[len(ordered) // 2])


def add_context(backend: str, place: str, session_id: str, count: int) -> None:
    """Insert a context that is a dict with one list, kept as rows."""
    row = (session_id, encode({}), encode(CONTEXT_KEY), count, 0, 1, _TIME, _TIME, "{}")
    items = ((session_id, number, encode(context_message(number))) for number in range(count))
    if backend == "sqlite":
        with _sqlite(place) as connection:
            connection.execute(
                f"INSERT INTO director_context_messages ({_CONTEXT_COLUMNS})"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            connection.executemany(
                "INSERT INTO director_context_items (session_id, idx, item) VALUES (?, ?, ?)", items
            )
        return
    with psycopg.connect(place) as postgres:
        postgres.execute(
            f"INSERT INTO director_context_messages ({_CONTEXT_COLUMNS})"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            row,
        )
        with postgres.cursor().copy(
            "COPY director_context_items (session_id, idx, item) FROM STDIN"
        ) as copy:
            for item in items:
                copy.write_row(item)


def settle(backend: str, places: Sequence[str], server: PostgresServer | None) -> None:
    """Let the database do now what it would otherwise do beside the measurements."""
    for place in places:
        if backend == "sqlite":
            with contextlib.closing(sqlite3.connect(place)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            continue
        with psycopg.connect(place, autocommit=True) as postgres:
            postgres.execute("VACUUM (ANALYZE)")
    if backend == "postgres" and server is not None:
        # Only a superuser may, and a configured server may give us none.
        with contextlib.suppress(psycopg.Error), server.connect() as owner:
            owner.execute("CHECKPOINT")


@contextlib.contextmanager
def _sqlite(path: str) -> Iterator[sqlite3.Connection]:
    """Give a connection in one transaction, which need not be durable on the way."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -65536")
        yield connection
        connection.commit()


def _message_row(session_id: str, number: int) -> tuple[object, ...]:
    new = message(number)
    time = _TIME + number
    place = (number + 1) * _PLACES
    return (session_id, place, *columns(new, time), time, encode(new["metadata"]))


def _session_row(number: int) -> tuple[object, ...]:
    return (
        _session_id(number),
        f"v{number % VIDEOS}",
        f"c{number % COLLECTIONS}",
        _TIME,
        _activity(number),
        0,
        "{}",
    )


def _session_id(number: int) -> str:
    return f"session-{number:08}"


def _activity(number: int) -> int:
    # A multiplication by an odd number shuffles, the same way each time.
    return _TIME + number * 2_654_435_761 % 2**20
