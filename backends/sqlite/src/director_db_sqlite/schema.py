"""The tables, and what kind of database a file turns out to be."""

from __future__ import annotations

import sqlite3
from enum import Enum
from typing import Final, NoReturn

from director_db.errors import SchemaError
from director_db.schema_version import SchemaVersion
from director_db_sqlite import old_layout
from director_db_sqlite.sql import SELECT_SCHEMA_VERSION
from director_db_sqlite.upgrades import SCHEMA_VERSION, UPGRADES, upgrade

# The tables of version 1; new ones are made by the same upgrades as old ones, so that they cannot
# differ.
#
# A message's place is `seq`, taken from its session's `last_seq`. A context's list may be kept item
# by item (`list_key`, `list_len` and director_context_items); all else stays in `context_data`.
CREATE: Final = (
    """
    CREATE TABLE director_meta (
        key TEXT PRIMARY KEY NOT NULL,
        value TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE director_sessions (
        session_id TEXT PRIMARY KEY NOT NULL,
        video_id TEXT,
        collection_id TEXT,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        metadata TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE INDEX director_sessions_by_activity
        ON director_sessions (updated_at, created_at, session_id)
    """,
    """
    CREATE INDEX director_sessions_by_collection
        ON director_sessions (collection_id, updated_at, created_at, session_id)
    """,
    """
    CREATE INDEX director_sessions_by_video
        ON director_sessions (video_id, updated_at, created_at, session_id)
    """,
    """
    CREATE TABLE director_conversations (
        session_id TEXT NOT NULL REFERENCES director_sessions ON DELETE CASCADE,
        conv_id TEXT,
        msg_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        msg_type TEXT NOT NULL,
        agents TEXT NOT NULL,
        actions TEXT NOT NULL,
        content TEXT NOT NULL,
        status TEXT,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        metadata TEXT NOT NULL,
        PRIMARY KEY (session_id, msg_id),
        UNIQUE (session_id, seq)
    ) STRICT
    """,
    """
    CREATE TABLE director_context_messages (
        session_id TEXT PRIMARY KEY NOT NULL REFERENCES director_sessions ON DELETE CASCADE,
        context_data TEXT NOT NULL,
        list_key TEXT,
        list_len INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        version INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        metadata TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE director_context_items (
        session_id TEXT NOT NULL REFERENCES director_context_messages ON DELETE CASCADE,
        idx INTEGER NOT NULL,
        item TEXT NOT NULL,
        PRIMARY KEY (session_id, idx)
    ) STRICT
    """,
    "INSERT INTO director_meta (key, value) VALUES ('schema_version', '1')",
)

# Tables, views and indexes share their names, in upper or lower case.
_SELECT_NAMES: Final = "SELECT lower(name), type FROM sqlite_schema"

_OURS: Final = {
    "director_sessions",
    "director_conversations",
    "director_context_messages",
    "director_context_items",
}
_INDEXES: Final = {
    "director_sessions_by_activity",
    "director_sessions_by_collection",
    "director_sessions_by_user",
    "director_sessions_by_video",
}


class Layout(Enum):
    """Whose tables a file holds."""

    NONE = "neither ours nor the old system's"
    OURS = "ours, in the version of this release or a newer one that it may use"
    OUTDATED = "ours, to be upgraded"
    OLD = "those of the system before director-db"


def find_layout(connection: sqlite3.Connection, place: str) -> Layout:
    """Return whose tables are there; changes nothing.

    Raises:
        SchemaError: tables of ours are there, but too new, or not as we made them.
    """
    encoding = connection.execute("PRAGMA encoding").fetchone()[0]
    if encoding != "UTF-8":
        # There, ids would be ordered by code unit, and some characters be replaced.
        message = f"{place} stores text as {encoding}, not as UTF-8. Choose another file."
        raise SchemaError(message)
    types = dict(connection.execute(_SELECT_NAMES).fetchall())
    if types.get("director_meta") == "table":
        tables = {name for name, kind in types.items() if kind == "table"}
        version = _version(connection, place, tables)
        return Layout.OURS if version >= SCHEMA_VERSION else Layout.OUTDATED
    taken = sorted(types.keys() & {"director_meta", *_OURS, *_INDEXES})
    if taken:
        message = (
            f"{place} has {_article(types[taken[0]])} {taken[0]} but no table director_meta, so it "
            "is not director-db's. Choose another file."
        )
        raise SchemaError(message)
    return Layout.OLD if old_layout.is_there(connection) else Layout.NONE


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "index" else f"a {kind}"


def refuse_old_layout(place: str) -> NoReturn:
    """Say what to do about a file of the old system."""
    message = (
        f"{place} holds the tables of the system before director-db (sessions, conversations, "
        "context_messages). It was left as it is. Stop the old application, then run: "
        "director-db migrate"
    )
    raise SchemaError(message)


def create(connection: sqlite3.Connection) -> None:
    """Create the tables, inside the caller's transaction."""
    for statement in CREATE:
        connection.execute(statement)
    for number in UPGRADES:
        upgrade(connection, number)


def upgrade_tables(connection: sqlite3.Connection, place: str) -> None:
    """Bring our tables to the next version, inside the caller's transaction."""
    try:
        upgrade(connection, _version(connection, place, _OURS) + 1)
    except sqlite3.OperationalError as error:
        if "duplicate column" not in str(error):
            raise
        message = (
            f"{place} is to be upgraded, and somebody else has added what that needs ({error}). "
            "Rename that column, then try again."
        )
        raise SchemaError(message) from error


def _version(connection: sqlite3.Connection, place: str, tables: set[str]) -> int:
    required, reached = connection.execute(SELECT_SCHEMA_VERSION).fetchone()
    version = SchemaVersion(required, reached, SCHEMA_VERSION)
    if version.is_too_new:
        message = (
            f"{place} has schema version {required}; this release of director-db knows "
            f"{SCHEMA_VERSION}. Upgrade director-db."
        )
    elif version.number is None:
        message = (
            f"{place} has a table director_meta with schema version {required!r}, which "
            "director-db never wrote. Choose another file."
        )
    elif not tables >= _OURS:
        message = f"{place} lacks {', '.join(sorted(_OURS - tables))}. Restore it from a backup."
    else:
        return version.number
    raise SchemaError(message)
