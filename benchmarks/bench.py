"""What a case works with: sizes, places for data, and the two stores to compare."""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from unittest import mock

import psycopg

from benchmarks.counters import log_bytes, process_bytes
from benchmarks.raw.postgres import RawPostgres
from benchmarks.raw.sqlite import RawSQLite
from director_db_conformance.proxy import Proxy
from director_db_postgres import PostgresDB
from director_db_sqlite import SQLiteDB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.raw.store import RawStore
    from benchmarks.scale import Scale
    from director_db import BaseDB
    from director_db_conformance.servers import PostgresServer

DURABILITY: Final = {
    "sqlite": "WAL, synchronous=FULL: one fsync for each commit",
    "postgres": "synchronous_commit=on, fsync=on: the log is on disk",
}
"""What both our backends and the bare drivers promise when a write returns."""

LABELS: Final = {"sqlite": "SQLite", "postgres": "Postgres"}

SESSION: Final = "s1"


class Pair(NamedTuple):
    """Our backend and the bare driver, each with a database of its own that has our tables.

    Attributes:
        backend: ``sqlite`` or ``postgres``.
        ours: our instance.
        raw: the bare driver.
        ours_place: a path or a DSN.
        raw_place: the same of the other.
        written: counts the bytes that were written so far, by whoever; None if nobody counts.
    """

    backend: str
    ours: BaseDB
    raw: RawStore
    ours_place: str
    raw_place: str
    written: Callable[[], int | None]

    @property
    def both_places(self) -> tuple[str, str]:
        """The two databases."""
        return self.ours_place, self.raw_place


class Bench(NamedTuple):
    """The surroundings of a run.

    Attributes:
        scale: how long and how large.
        folder: for files, on the disk that is to be measured.
        server: a Postgres; None if there is none.
        use_peers: whether to measure other libraries where they are installed.
        notes: what could not be measured is added here.
        numbers: for names that are used once.
    """

    scale: Scale
    folder: Path
    server: PostgresServer | None
    use_peers: bool
    notes: list[str]
    numbers: Iterator[int] = itertools.count()

    @contextlib.contextmanager
    def place(self, backend: str) -> Iterator[str]:
        """Give a place with no database, a path or a DSN; what is there in the end goes."""
        if backend == "sqlite":
            path = self.folder / f"{next(self.numbers)}.db"
            try:
                yield str(path)
            finally:
                for file in self.folder.glob(f"{path.name}*"):
                    file.unlink()
            return
        assert self.server is not None  # noqa: S101 - cases of Postgres do not run without
        database = self.server.create_database()
        try:
            yield database.dsn
        finally:
            self.server.drop_database(database)

    @contextlib.contextmanager
    def pair(self, backend: str) -> Iterator[Pair]:
        """Give both stores, each with one session."""
        with contextlib.ExitStack() as stack:
            ours_place = stack.enter_context(self.place(backend))
            raw_place = stack.enter_context(self.place(backend))
            ours = stack.enter_context(contextlib.closing(open_ours(backend, ours_place)))
            ours.create_session(SESSION, "v1", "c1")
            with contextlib.closing(open_ours(backend, raw_place)) as db:
                db.create_session(SESSION, "v1", "c1")
            raw = stack.enter_context(contextlib.closing(open_raw(backend, raw_place)))
            written: Callable[[], int | None] = process_bytes
            if backend == "postgres":
                watcher = stack.enter_context(psycopg.connect(ours_place, autocommit=True))
                written = lambda: log_bytes(watcher)  # noqa: E731 - the name is there already
            yield Pair(backend, ours, raw, ours_place, raw_place, written)

    @contextlib.contextmanager
    def counted_on_the_wire(self, dsn: str) -> Iterator[tuple[PostgresDB, Proxy]]:
        """Give an instance that reaches a database through a proxy that counts round trips."""
        assert self.server is not None  # noqa: S101 - as above
        with (
            Proxy(self.server.host, self.server.port) as proxy,
            PostgresDB(proxy.reroute(dsn), pool_size=1) as db,
        ):
            yield db, proxy


@contextlib.contextmanager
def settings(environment: dict[str, str]) -> Iterator[None]:
    """Set these environment variables of ours and no other."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POSTGRES_", "SQLITE_", "DIRECTOR_DB_"))
        and name not in {"DB_TYPE", "DATABASE_URL"}
    }
    with mock.patch.dict(os.environ, {**kept, **environment}, clear=True):
        yield


def open_ours(backend: str, place: str) -> BaseDB:
    """Open a database with our code, in its default settings."""
    return SQLiteDB(place) if backend == "sqlite" else PostgresDB(place)


def open_raw(backend: str, place: str) -> Any:
    """Open a database that has our tables with the bare driver."""
    return RawSQLite(place) if backend == "sqlite" else RawPostgres(place)
