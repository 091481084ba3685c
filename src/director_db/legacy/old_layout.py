"""The layout of the system before director-db: telling its tables, and converting their rows.

Pure and without a driver, so that every backend that the old system had can share it. That system
wrote JSON text into columns that allow anything, enforced no foreign keys and checked no input.
Here a row passes the same checks as any write; one that does not pass is named with the reason.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from director_db.checks import (
    encode_metadata,
    message_row,
    required_id,
    session_row,
    timestamp,
)
from director_db.context.version import new_version
from director_db.errors import ConfigurationError, InvalidRecordError, SchemaError
from director_db.payload import encode_payload
from director_db.payload_rules import MAX_DEPTH
from director_db.rows import ContextRow, MessageRow, SessionRow
from director_db.settings import value_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

SETTING: Final = "DIRECTOR_DB_MIGRATE"
"""The environment variable that lets the first use of a database migrate it."""

_SHOWN: Final = 5

# Below every limit that sys.set_int_max_str_digits accepts, so int() cannot fail.
_INT_DIGITS_ALWAYS_SAFE: Final = 600


class OldTable(NamedTuple):
    """A table of the old system.

    Attributes:
        name: its name, which tables of other frameworks have too.
        marks: the columns that tell it from those.
        columns: the columns to read, in the order that the converters below take them; any but
            the marks may be missing, and counts as NULL.
        backup: the name it has after the migration.
    """

    name: str
    marks: frozenset[str]
    columns: tuple[str, ...]
    backup: str


SESSIONS: Final = OldTable(
    "sessions",
    frozenset({"session_id", "video_id", "collection_id"}),
    ("session_id", "video_id", "collection_id", "created_at", "updated_at", "metadata"),
    "old_sessions",
)
CONVERSATIONS: Final = OldTable(
    "conversations",
    frozenset({"session_id", "conv_id", "msg_id", "msg_type"}),
    (
        "session_id",
        "conv_id",
        "msg_id",
        "msg_type",
        "agents",
        "actions",
        "content",
        "status",
        "created_at",
        "updated_at",
        "metadata",
    ),
    "old_conversations",
)
CONTEXT_MESSAGES: Final = OldTable(
    "context_messages",
    frozenset({"session_id", "context_data"}),
    ("session_id", "context_data", "created_at", "updated_at", "metadata"),
    "old_context_messages",
)

OLD_TABLES: Final = (SESSIONS, CONVERSATIONS, CONTEXT_MESSAGES)
"""In the order in which they are carried over: what others refer to comes first."""


# --- Recognising --------------------------------------------------------------------------------


def is_old_layout(found: Mapping[str, Collection[str]]) -> bool:
    """Whether a database holds the old system's tables.

    Args:
        found: the columns of each of its tables, by the table's name; more tables do no harm.
    """
    # All three names together are no coincidence, whatever their columns: better to ask than to
    # start empty beside somebody's data.
    return bool(old_tables(found)) or all(table.name in found for table in OLD_TABLES)


def old_tables(found: Mapping[str, Collection[str]]) -> list[OldTable]:
    """Return which of the tables are the old system's; the argument is as for `is_old_layout`."""
    return [table for table in OLD_TABLES if table.marks <= set(found.get(table.name, ()))]


def migration_plan(found: Mapping[str, Collection[str]], place: str) -> list[OldTable]:
    """Return the tables to carry over, once it is sure that all of them can be.

    Raises:
        SchemaError: all three tables are there and one is not as the old system made it, or a name
            that a backup would take is taken.
    """
    tables = old_tables(found)
    if all(table.name in found for table in OLD_TABLES):
        for table in OLD_TABLES:
            missing = sorted(table.marks - set(found[table.name]))
            if missing:
                message = (
                    f"{place}: the table {table.name} lacks {', '.join(missing)}, so it is not as "
                    "the old application made it. Nothing was changed. Choose another database."
                )
                raise SchemaError(message)
    for table in tables:
        if table.backup in found:
            message = (
                f"{place} has a table {table.backup} already, which is the name that the backup of "
                f"{table.name} takes. Nothing was changed. Rename that table or drop it."
            )
            raise SchemaError(message)
    return tables


def migrates_on_first_use(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for a migration without a person who starts it.

    Raises:
        ConfigurationError: ``DIRECTOR_DB_MIGRATE`` is neither ``auto`` nor ``never``.
    """
    value = value_of(environ, SETTING)
    if not value or value == "never":
        return False
    if value == "auto":
        return True
    message = f"{SETTING} is 'auto' or 'never' (the default), not {value!r}."
    raise ConfigurationError(message)


# --- Converting rows ----------------------------------------------------------------------------
#
# Each converter takes a row's values in the order of its table's columns, and raises
# InvalidRecordError with the column as the path.


def session_from_old(values: Sequence[object]) -> SessionRow:
    """Return the row of a session to store."""
    session_id, video_id, collection_id, created_at, updated_at, metadata = values
    return session_row(
        session_id,
        video_id,
        collection_id,
        *_times(created_at, updated_at),
        _payload(metadata, "metadata"),
    )


def message_from_old(values: Sequence[object]) -> tuple[str, MessageRow]:
    """Return the id of the session that a message names, and the row to store."""
    (
        session_id,
        conv_id,
        msg_id,
        msg_type,
        agents,
        actions,
        content,
        status,
        created_at,
        updated_at,
        metadata,
    ) = values
    return required_id(session_id, "session_id"), message_row(
        conv_id,
        msg_id,
        msg_type,
        _payload(agents, "agents"),
        _payload(actions, "actions"),
        _payload(content, "content"),
        status,
        *_times(created_at, updated_at),
        _payload(metadata, "metadata"),
    )


def context_from_old(values: Sequence[object]) -> ContextRow:
    """Return the row of a context to store."""
    session_id, context_data, created_at, updated_at, metadata = values
    created, updated = _times(created_at, updated_at)
    return ContextRow(
        required_id(session_id, "session_id"),
        encode_payload(_payload(context_data, "context_data"), "context_data"),
        # Random, as of any save: the database may be put back from a backup and be migrated again
        # while a process still remembers this version.
        new_version(),
        timestamp(created, "created_at"),
        timestamp(updated, "updated_at"),
        encode_metadata(_payload(metadata, "metadata"), "metadata"),
        created_at_given=True,
    )


def orphan_session(session_id: str, created_at: int, updated_at: int) -> SessionRow:
    """Return the row of a session that messages or a context name, but that was not there."""
    return session_row(session_id, None, None, created_at, updated_at, None)


# --- Rows that cannot be carried over -----------------------------------------------------------


def refusal(table: OldTable, row: str, error: InvalidRecordError) -> str:
    """Return the text that says which row was refused and why; `row` is as ``rowid 7``."""
    return f"{table.name}, {row}, {error}"


def rows_refused(place: str, refusals: Sequence[str]) -> SchemaError:
    """Return the error of a migration that was given up because of some rows."""
    count = len(refusals)
    more = count - _SHOWN
    shown = "; ".join(refusals[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
    return SchemaError(
        f"{place}: {count:,} {'row' if count == 1 else 'rows'} of the old tables cannot be carried "
        f"over, so nothing was changed: {shown}. Correct them, or leave them behind in the renamed "
        "tables: director-db migrate --skip-invalid"
    )


# --- Values -------------------------------------------------------------------------------------


def _times(created_at: object, updated_at: object) -> tuple[object, object]:
    """Return both times of a row; one that is missing is the other one.

    Without both it is 0. Not now, as for a new record: the old list of sessions showed such a row
    last, and now would put it first.
    """
    known = next((time for time in (created_at, updated_at) if time is not None), 0)
    return (
        known if created_at is None else created_at,
        known if updated_at is None else updated_at,
    )


def _payload(value: object, column: str) -> object:
    """Return what a JSON column stands for; NULL is None."""
    # SQLite turns the JSON text of a number into a number in a column whose type is "JSON".
    if value is None or isinstance(value, (int, float)):
        return value
    if not isinstance(value, (str, bytes)):
        raise InvalidRecordError(column, f"JSON text, not {type(value).__name__}")
    try:
        # The old application read it in this way; NaN is let in and refused with its path later.
        parsed: object = json.loads(value, parse_int=_parse_int)
    except RecursionError:
        raise InvalidRecordError(column, f"nests more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise InvalidRecordError(column, f"not JSON: {error}") from error
    return parsed


def _parse_int(digits: str) -> int:
    # The limit that a process sets for int() does not apply to Decimal (VAL-2).
    return int(digits) if len(digits) < _INT_DIGITS_ALWAYS_SAFE else int(Decimal(digits))
