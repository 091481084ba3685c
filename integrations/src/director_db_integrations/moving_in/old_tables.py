"""The tables of another store, in SQLite or Postgres, which are only read."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote

from director_db import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PAGE: Final = 200  # Rows that are in memory at once.
_BEYOND_SQLITE: Final = 2**63  # An integer that a function may not return.
_PATIENCE: Final = 10  # Seconds for a connection, or a lock that somebody else holds.


class OldTables(ABC):
    """A database whose tables are to be read; nothing can be written through it.

    On Postgres all is read as of one moment, on SQLite each table as of the moment of its reading.

    What the databases say differently is given as SQL: a time is in microseconds since the epoch,
    or None.

    Attributes:
        place: where they are, without a password.
        names: of the tables that are not called as the framework calls them.
        mark: what stands for a parameter.
    """

    place: str
    names: Mapping[str, str]
    mark: ClassVar[str]

    def table(self, name: str) -> str:
        """Return a table, quoted, by the name that the framework gives it."""
        return ".".join(map(_quoted, self.names.get(name, name).split(".")))

    def need(self, name: str, *columns: str) -> None:
        """Find a table with these columns.

        Raises:
            ConfigurationError: it is not there, or another.
        """
        known = self.names.get(name, name)
        found = self.columns(name)
        if not found:
            others = ", ".join(self.all_tables()) or "none"
            message = (
                f"{self.place} has no table {known}. It has: {others}. Of a table with another "
                f"name say so: --table {name}=NAME."
            )
            raise ConfigurationError(message)
        missing = [column for column in columns if column not in found]
        if missing:
            message = (
                f"The table {known} in {self.place} has no column {', '.join(missing)}: it is not "
                f"what the framework makes as {name}. It has: {', '.join(found)}."
            )
            raise ConfigurationError(message)

    @abstractmethod
    def columns(self, name: str) -> dict[str, bool]:
        """Return the columns of a table, and which may not be NULL; {} where it is not there."""

    @abstractmethod
    def all_tables(self) -> list[str]:
        """Return the names of all tables."""

    @abstractmethod
    def rows(self, statement: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """Read rows, a page of them at a time."""

    @abstractmethod
    def utc(self, column: str) -> str:
        """Return the SQL of a time that is without a zone, and in UTC."""

    @abstractmethod
    def clock(self, column: str) -> str:
        """Return the SQL of a time that the database took from its own clock."""

    @abstractmethod
    def text(self, column: str) -> str:
        """Return the SQL of the text of a column that may be of a type for JSON."""


class SQLiteTables(OldTables):
    """Those of a file, opened read-only."""

    mark = "?"

    def __init__(self, file: str, names: Mapping[str, str]) -> None:
        """Open a file that is there."""
        self.place, self.names = file, names
        if not Path(file).is_file():
            message = f"There is no file {file}: a SQLite URL names one, as sqlite:///old.db."
            raise ConfigurationError(message)
        uri = f"file:{quote(file)}?mode=ro"
        self._connection = sqlite3.connect(uri, uri=True, timeout=_PATIENCE)
        self._connection.text_factory = _text
        self._connection.create_function("microseconds", 1, _microseconds, deterministic=True)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def columns(self, name: str) -> dict[str, bool]:
        """Return the columns of a table, and which may not be NULL; {} where it is not there."""
        *schema, table = self.table(name).split(".")
        # A schema stands before the PRAGMA, not before the table.
        found = self.rows(f"PRAGMA {''.join(f'{one}.' for one in schema)}table_info({table})")
        return {column: bool(needed) for _, column, _, needed, *_ in found}

    def all_tables(self) -> list[str]:
        """Return the names of all tables."""
        found = self.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return [name for (name,) in found if not name.startswith("sqlite_")]

    def rows(self, statement: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """Read rows, a page of them at a time."""
        try:
            # Left open: closing it would fail where the file was let go in the middle.
            cursor = self._connection.execute(statement, parameters)
            while page := cursor.fetchmany(_PAGE):
                yield from page
        except sqlite3.Error as error:
            message = f"{self.place} cannot be read: {error}."
            raise BackendUnavailableError(message) from error

    def utc(self, column: str) -> str:
        """Return the SQL of a time that is without a zone, and in UTC."""
        return f"microseconds({column})"

    clock = utc  # CURRENT_TIMESTAMP is in UTC.

    def text(self, column: str) -> str:
        """Return the SQL of the text of a column that may be of a type for JSON."""
        return column


class PostgresTables(OldTables):
    """Those of a database, in one transaction that is read-only."""

    mark = "%s"

    def __init__(
        self, connection: psycopg.Connection[tuple[Any, ...]], names: Mapping[str, str]
    ) -> None:
        """Begin to read on a connection of its own."""
        self._connection, self.names = connection, names
        info = connection.info
        self.place = f"database {info.dbname} at {info.host}:{info.port}"
        self._cursors = 0

    def columns(self, name: str) -> dict[str, bool]:
        """Return the columns of a table, and which may not be NULL; {} where it is not there."""
        found = self.rows(
            "SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = to_regclass(%s)"
            " AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            self.table(name),
        )
        return dict(found)

    def all_tables(self) -> list[str]:
        """Return the names of all tables that need no schema before them."""
        found = self.rows(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')"
            " AND pg_table_is_visible(oid) AND relnamespace::regnamespace::text"
            " NOT IN ('pg_catalog', 'information_schema') ORDER BY relname"
        )
        return [name for (name,) in found]

    def rows(self, statement: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """Read rows, a page of them at a time."""
        self._cursors += 1
        # A cursor of the server's: a plain one would have all rows in the memory of this process.
        with self._connection.cursor(f"director_db_{self._cursors}") as cursor:
            cursor.itersize = _PAGE
            cursor.execute(statement.encode(), parameters)
            yield from cursor

    def utc(self, column: str) -> str:
        """Return the SQL of a time that is without a zone, and in UTC."""
        return (
            f"CASE WHEN isfinite({column})"
            f" THEN (extract(epoch FROM {column}) * 1000000)::bigint END"
        )

    def clock(self, column: str) -> str:
        """Return the SQL of a time that the database took from its own clock, and in its zone."""
        return self.utc(f"{column}::timestamptz")

    def text(self, column: str) -> str:
        """Return the SQL of the text of a column that may be of a type for JSON."""
        return f"{column}::text"


@contextmanager
def old_tables(url: str, names: Mapping[str, str]) -> Iterator[OldTables]:
    """Open the database of a URL to read its tables.

    Args:
        url: as ``sqlite:///old.db`` or ``postgresql://host/name``; a driver, as SQLAlchemy writes
            it (``postgresql+asyncpg://``), changes nothing.
        names: of the tables that are not called as the framework calls them.

    Raises:
        ConfigurationError: it is no such URL, or there is no such file.
        BackendUnavailableError: the database cannot be read.
    """
    scheme, separator, rest = url.partition("://")
    kind = scheme.partition("+")[0].lower()
    if separator and kind == "sqlite":
        with closing(SQLiteTables(_file(rest), names)) as tables:
            yield tables
    elif separator and kind in {"postgresql", "postgres"}:
        with _postgres(f"postgresql://{rest}", names) as tables:
            yield tables
    else:
        message = (
            "The old tables are named by a URL, as sqlite:///old.db, sqlite:////path/to/old.db or "
            "postgresql://user@host/name, and they are in SQLite or Postgres."
        )
        raise ConfigurationError(message)


def _file(rest: str) -> str:
    if not rest.startswith("/") or rest in {"/", "/:memory:"} or "?" in rest or "#" in rest:
        message = (
            "A SQLite URL names a file and nothing else: sqlite:///relative/path.db or "
            "sqlite:////absolute/path.db."
        )
        raise ConfigurationError(message)
    return rest[1:]


@contextmanager
def _postgres(url: str, names: Mapping[str, str]) -> Iterator[OldTables]:
    try:
        import psycopg  # noqa: PLC0415 - who reads SQLite does without
        from psycopg.conninfo import conninfo_to_dict, make_conninfo  # noqa: PLC0415
    except ImportError as error:
        message = 'Postgres needs its driver: pip install "director-db[postgres]".'
        raise ConfigurationError(message) from error
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.Error:
        # Its message shows what it was given, and a password may be in that.
        message = (
            "That is no URL of a Postgres, as postgresql://user:password@host:5432/name: special "
            "characters of a password are percent-encoded, and parameters behind a ? are libpq's "
            "(sslmode, and not ssl)."
        )
        raise ConfigurationError(message) from None
    parameters.setdefault("connect_timeout", _PATIENCE)
    parameters |= {"client_encoding": "utf8", "application_name": "director-db import"}
    dsn = make_conninfo("", **parameters)
    try:
        with closing(psycopg.connect(dsn, prepare_threshold=None)) as connection:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            yield PostgresTables(connection, names)
    except psycopg.Error as error:
        message = f"The old tables cannot be read: {str(error).strip()}"
        raise BackendUnavailableError(message) from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(stored: bytes) -> str | bytes:
    """Return what SQLite has stored as a text; one that is none does not stop the others."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _microseconds(value: object) -> int | None:
    """Return a time that SQLite has stored: a text of UTC, or seconds since the epoch."""
    try:
        if isinstance(value, int | float):
            microseconds = round(value * 1_000_000)
            return microseconds if abs(microseconds) < _BEYOND_SQLITE else None
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
    if time is None:
        return None
    in_utc = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (in_utc - _EPOCH) // timedelta(microseconds=1)
