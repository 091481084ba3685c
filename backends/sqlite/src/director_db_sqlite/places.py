"""The places of a session's messages: given by a counter in its row, never twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from director_db_sqlite import sql

if TYPE_CHECKING:
    import sqlite3

AFTER_ALL: Final = 2**63 - 1
"""Behind every place."""

LONG_AGO: Final = -(2**63)
"""The earliest time: that of no activity."""


def take_places(
    connection: sqlite3.Connection, session_id: str, count: int, updated_at: int
) -> int | None:
    """Take places for messages of that time, and return the last; None if there is no session."""
    taken = connection.execute(sql.TAKE_PLACES, (count, session_id, updated_at)).fetchone()
    if taken is None:
        later = (count, updated_at, session_id)
        taken = connection.execute(sql.TAKE_PLACES_LATER, later).fetchone()
    return None if taken is None else cast("int", taken[0])
