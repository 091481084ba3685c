"""Storing a message, alone or together with those of other callers.

Alone it takes two statements. Beside others it would take a savepoint too, and at each step of a
statement the driver gives the interpreter's lock away, for which many threads wait. So the messages
of a batch are stored by three statements for all of them.
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Final

from director_db.checks import message_bytes
from director_db.queue import MAX_BATCH_CALLS
from director_db.rows import count_by_session
from director_db_sqlite import sql
from director_db_sqlite.places import take_places

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from director_db.rows import MessageRow

# Each length of a list is a statement of its own, which has to be prepared and kept.
_SIZES: Final = (16, 32, MAX_BATCH_CALLS)


class Upsert:
    """An operation that stores one message.

    Attributes:
        session_id: where.
        row: the message.
        size: about how much it writes, in bytes.
    """

    __slots__ = ("row", "session_id", "size")

    def __init__(self, session_id: str, row: MessageRow) -> None:
        """Take a message; nothing is done yet."""
        self.session_id = session_id
        self.row = row
        self.size = message_bytes(row)

    def __call__(self, connection: sqlite3.Connection) -> bool:
        """Store it; False if there is no such session."""
        place = take_places(connection, self.session_id, 1, self.row.updated_at)
        if place is None:
            return False
        connection.execute(sql.UPSERT_MESSAGE, (self.session_id, place, *self.row))
        return True

    @staticmethod
    def together(connection: sqlite3.Connection, upserts: Sequence[Upsert]) -> bool:
        """Store messages as one after another; False if that cannot be, see `writer.Together`.

        Triggers and indexes of a user's own may see a difference.
        """
        given: dict[tuple[str, str], bool] = {}
        for upsert in upserts:
            gives = upsert.row.created_at_given
            if given.setdefault((upsert.session_id, upsert.row.msg_id), gives) != gives:
                return False  # Two statements would lose which of the two came first.
        counts, latest, later = count_by_session(
            [(upsert.session_id, upsert.row) for upsert in upserts]
        )
        _execute(connection, sql.move_sessions, [*latest.items()])
        if _execute(connection, sql.count_messages, [*counts.items()]).rowcount != len(counts):
            return False  # A session is missing, and only its messages are to be told so.
        rows: dict[bool, list[tuple[object, ...]]] = {False: [], True: []}
        for upsert, follow in zip(upserts, later, strict=True):
            values = (upsert.session_id, follow, *upsert.row.columns)
            rows[upsert.row.created_at_given].append(values)
        for gives, some in rows.items():
            if some:
                _execute(connection, sql.upsert_messages, some, gives)
        return True


def _execute(
    connection: sqlite3.Connection,
    statement: Callable[[int], str],
    rows: Sequence[tuple[object, ...]],
    *others: object,
) -> sqlite3.Cursor:
    """Execute a statement on a list of rows, and with other parameters behind it."""
    size = next((size for size in _SIZES if size >= len(rows)), len(rows))
    nothing = repeat(None, (size - len(rows)) * len(rows[0]))
    return connection.execute(statement(size), (*chain.from_iterable(rows), *nothing, *others))
