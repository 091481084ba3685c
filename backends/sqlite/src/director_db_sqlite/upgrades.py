"""The numbered upgrades of our own tables, each a transaction of its own, at the first use.

An upgrade only adds: columns that may be NULL, and indexes. So processes of an older release, which
name the columns that they write, stay right beside newer ones, and ``schema_version`` stays what
they expect; see `director_db.schema_version`. A column is added in the schema's text alone; but
newer SQLites read the whole table, to check it, while no other process can write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from director_db.schema_version import REACHED

if TYPE_CHECKING:
    import sqlite3

UPGRADES: Final[dict[int, tuple[str, ...]]] = {
    2: (
        "ALTER TABLE director_sessions ADD COLUMN user_id TEXT",
        "ALTER TABLE director_conversations ADD COLUMN revision INTEGER",
    ),
    3: (
        # Most applications name no user; their sessions cost nothing here.
        """
        CREATE INDEX IF NOT EXISTS director_sessions_by_user
            ON director_sessions (user_id, updated_at, created_at, session_id)
            WHERE user_id IS NOT NULL
        """,
    ),
}
"""By the version that they lead to, what turns the tables of the one before into it."""

SCHEMA_VERSION: Final = max(UPGRADES)
"""The version that this release works with."""

_SET_REACHED: Final = """
    INSERT INTO director_meta (key, value) VALUES (?, ?)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""


def upgrade(connection: sqlite3.Connection, number: int) -> None:
    """Bring tables of the version before to that one, inside the caller's transaction."""
    for statement in UPGRADES[number]:
        connection.execute(statement)
    connection.execute(_SET_REACHED, (REACHED, str(number)))
