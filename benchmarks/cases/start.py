"""What it takes to begin: importing, opening, and asking for the database once more."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from benchmarks.bench import SESSION, settings
from benchmarks.cases.case import OURS, Case, counted
from benchmarks.results import Figure, Goal, Row
from benchmarks.statistics import Spread
from benchmarks.timing import Contender, in_turn, interleave
from director_db import close_all, load_db
from director_db_sqlite import SQLiteDB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.results import Curve

_MILLISECONDS: Final = 1e3
_MICROSECONDS: Final = 1e6

_DSN: Final = "postgresql://app:secret@localhost/app"

HEAVY: Final = ("sqlite3", "psycopg", "pytest", "hypothesis", "click", "rich", "pluggy")
"""What ``import director_db`` must not bring along."""


def load_again(bench: Bench, _backend: str) -> Iterator[Row | Curve]:
    """Call ``load_db()`` once more, as an application does for each request.

    Asked for by DB_TYPE for SQLite, by POSTGRES_DSN for Postgres, and by URL. It connects to
    nothing, so no server is needed.
    """
    environments = {
        "SQLite": ({"DB_TYPE": "sqlite", "SQLITE_DB_PATH": str(bench.folder / "load.db")}, None),
        "Postgres": ({"DB_TYPE": "postgres", "POSTGRES_DSN": _DSN}, None),
        "Postgres by URL": ({}, _DSN),
    }
    for label, (environment, url) in environments.items():
        with settings(environment):
            call = load_db if url is None else functools.partial(load_db, url)
            timings = interleave(
                [Contender(OURS, call)], seconds=bench.scale.seconds / 4, turn=bench.scale.turn
            )
            close_all()
        yield _in_units("load", f"load_db() again, {label}", timings[OURS], 25, "µs", _MICROSECONDS)


def open_sqlite(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Open an existing SQLite file and read one session; then the same where no file is yet."""
    with bench.place(backend) as existing, contextlib.ExitStack() as stack:
        with SQLiteDB(existing) as db:
            db.create_session(SESSION)
        opened: list[SQLiteDB] = []

        def close() -> None:
            while opened:
                opened.pop().close()

        def open_and_read(path: str) -> None:
            opened.append(SQLiteDB(path))
            opened[0].get_session(SESSION)

        stack.callback(close)
        timings = interleave(
            [
                Contender(OURS, lambda: open_and_read(existing), before=close),
                Contender(
                    "new",
                    lambda: open_and_read(str(bench.folder / f"new-{next(bench.numbers)}.db")),
                    before=close,
                ),
            ],
            seconds=bench.scale.seconds / 2,
            turn=bench.scale.turn,
        )
        close()
        for file in bench.folder.glob("new-*"):
            file.unlink()
    yield _in_units(
        "open-sqlite", "SQLite: open and read a session", timings[OURS], 5, "ms", _MILLISECONDS
    )
    yield _in_units("open-sqlite", "SQLite: create a file", timings["new"], None, "", 1)


def import_package(bench: Bench, _backend: str) -> Iterator[Row | Curve]:
    """Start an interpreter that imports director_db, and a bare one; the rest is the import.

    The least of many starts less the least of as many bare ones: whatever else the machine does
    only adds to a start. Both find compiled modules, as those of an installed package are.
    """
    commands = [(OURS, "import director_db"), ("bare", "pass")]
    times: dict[str, list[float]] = {name: [] for name, _ in commands}
    # The first start of each, which does not count, compiles the modules.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bench.folder / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for number in range(-1, bench.scale.starts):
        for name, code in in_turn(commands, number):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], env=environment, check=True)  # noqa: S603
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    yield import_row(times[OURS], times["bare"])
    code = f"import sys, director_db; print(*[n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    found = done.stdout.split()
    yield counted(
        "import",
        "import director_db, drivers and frameworks loaded",
        len(found),
        Goal(0, "modules"),
        {"loaded": " ".join(found) or "none", "looked for": " ".join(HEAVY)},
    )


def import_row(importing: list[float], bare: list[float]) -> Row:
    """Make the row of the import from the seconds of starts with it and without."""
    beyond = min(importing) - min(bare)
    return Row(
        "import",
        "import director_db, beyond a bare start",
        "s",
        [Figure(OURS, Spread.exactly(beyond))],
        Spread.exactly(beyond * _MILLISECONDS),
        Goal(60, "ms"),
        {
            "starts": f"{len(importing)}, the least of each",
            "with it": f"{min(importing) * _MILLISECONDS:.1f} ms",
            "bare": f"{min(bare) * _MILLISECONDS:.1f} ms",
        },
    )


def _in_units(
    case: str, work: str, seconds: list[float], bound: float | None, unit: str, factor: float
) -> Row:
    """Make a row whose goal is an absolute time."""
    return Row(
        case,
        work,
        "s",
        [Figure(OURS, Spread.of(seconds))],
        Spread.of([value * factor for value in seconds]) if bound is not None else None,
        None if bound is None else Goal(bound, unit),
    )


CASES: Final = (
    Case("import", import_package),
    Case("load", load_again),
    Case("open-sqlite", open_sqlite, "sqlite"),
)
