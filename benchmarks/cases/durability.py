"""What the promise costs that a write survives a power cut."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from benchmarks.bench import LABELS, SESSION, open_ours, settings
from benchmarks.cases.case import Case, compared, ours
from benchmarks.payloads import Stream
from benchmarks.timing import Contender
from director_db import load_db
from director_db_conformance.dsn import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench
    from benchmarks.results import Curve, Row
    from director_db import BaseDB

WEAKER: Final = {"sqlite": "synchronous=normal", "postgres": "synchronous_commit=off"}


def price(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Store 1 KB messages with the default durability, and with one that a power cut undoes.

    SQLite with ``SQLITE_SYNCHRONOUS=normal``, Postgres with ``synchronous_commit=off`` for the
    connection; both survive the death of the process all the same.
    """
    with (
        bench.place(backend) as place,
        bench.place(backend) as weaker_place,
        contextlib.closing(open_ours(backend, place)) as db,
        contextlib.closing(open_weaker(backend, weaker_place)) as weaker,
    ):
        yield compared(
            f"durability-{backend}",
            f"{LABELS[backend]}: what durability costs, an upsert",
            [
                ours(_storing(db), backend),
                Contender(
                    WEAKER[backend], _storing(weaker), durability="survives a kill, not a power cut"
                ),
            ],
            bench,
            bound=None,
            against=WEAKER[backend],
        )


def open_weaker(backend: str, place: str) -> BaseDB:
    """Open a database with our code so that a write waits for no disk."""
    environment = {"DB_TYPE": backend}
    if backend == "sqlite":
        environment |= {"SQLITE_DB_PATH": place, "SQLITE_SYNCHRONOUS": "normal"}
    else:
        environment["POSTGRES_DSN"] = replace(place, options="-c synchronous_commit=off")
    with settings(environment):
        return load_db()


def _storing(db: BaseDB) -> Callable[[], object]:
    db.create_session(SESSION)
    stream = Stream()
    return lambda: db.add_or_update_msg_to_conv(SESSION, **stream())


CASES: Final = tuple(Case(f"durability-{backend}", price, backend) for backend in LABELS)
