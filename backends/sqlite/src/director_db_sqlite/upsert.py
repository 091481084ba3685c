"""Storing a message, alone or together with those of other callers.

Alone it takes two statements. Beside others it would take a savepoint too, and at each step of a
statement the driver gives the interpreter's lock away, for which many threads wait. So the messages
of a batch are stored by three statements for all of them.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final

from director_db.checks import message_bytes
from director_db.queue import MAX_BATCH_CALLS
from director_db_sqlite import sql
from director_db_sqlite.places import take_places

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from director_db.rows import MessageRow

# Each length of a list is a statement of its own, which has to be prepared and kept.
_SIZES: Final = (4, 8, 16, 32, MAX_BATCH_CALLS)


class Upsert:
    """An operation that stores one message.

    Attributes:
        session_id: where.
        row: the message.
        together: stores several like it with one call; see `Together`.
        size: about how much it writes, in bytes.
    """

    __slots__ = ("row", "session_id", "size", "together")

    def __init__(self, session_id: str, row: MessageRow) -> None:
        """Take a message; nothing is done yet."""
        self.session_id = session_id
        self.row = row
        self.size = message_bytes(row)
        self.together = _store_with_times if row.created_at_given else _store

    def __call__(self, connection: sqlite3.Connection) -> bool:
        """Store it; False if there is no such session."""
        place = take_places(connection, self.session_id, 1, self.row.updated_at)
        if place is None:
            return False
        connection.execute(sql.UPSERT_MESSAGE, (self.session_id, place, *self.row))
        return True


def _store(connection: sqlite3.Connection, upserts: Sequence[Upsert]) -> bool:
    """Store messages as one after another; False if something was not, and is to be undone."""
    return _store_all(connection, upserts, given=False)


def _store_with_times(connection: sqlite3.Connection, upserts: Sequence[Upsert]) -> bool:
    """Do the same with those that give their time of creation (MSG-2)."""
    return _store_all(connection, upserts, given=True)


def _store_all(connection: sqlite3.Connection, upserts: Sequence[Upsert], *, given: bool) -> bool:
    counts = Counter(upsert.session_id for upsert in upserts)
    latest: dict[str, int] = {}
    for upsert in upserts:
        time = upsert.row.updated_at
        latest[upsert.session_id] = max(latest.get(upsert.session_id, time), time)
    connection.execute(*_filled(sql.move_sessions, latest.items(), len(latest), 2))
    counted = connection.execute(*_filled(sql.count_messages, counts.items(), len(counts), 2))
    if counted.rowcount != len(counts):
        return False  # A session is missing: its messages are to be told so, and no others.
    left = counts.copy()
    rows = []
    for upsert in upserts:
        left[upsert.session_id] -= 1
        rows.append((upsert.session_id, left[upsert.session_id], *upsert.row.columns))
    statement, values = _filled(sql.upsert_messages, rows, len(rows), 12)
    connection.execute(statement, (*values, given))
    return True


def _filled(
    statement: Callable[[int], str], rows: Iterable[tuple[object, ...]], count: int, columns: int
) -> tuple[str, tuple[object, ...]]:
    """Return a statement that takes so many rows, and all its parameters."""
    size = next(size for size in _SIZES if size >= count)
    nothing = repeat(None, (size - count) * columns)
    return statement(size), (*chain.from_iterable(rows), *nothing)
