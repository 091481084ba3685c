"""One run: a place for data, a server, the cases in their order."""

from __future__ import annotations

import contextlib
import datetime as dt
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.bench import LABELS, Bench
from benchmarks.peers.peer import PACKAGES
from benchmarks.results import Curve, Report, Row
from director_db_conformance.servers import NoServerError, find_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.cases import Case
    from benchmarks.scale import Scale
    from director_db_conformance.servers import PostgresServer

_PACKAGES = ("psycopg", "msgspec", *PACKAGES)


def run(
    cases: Sequence[Case],
    scale: Scale,
    *,
    use_peers: bool = True,
    folder: Path | None = None,
    show: Callable[[Case | Row], None] = lambda _: None,
) -> Report:
    """Run cases and return what came out.

    Args:
        cases: what to run.
        scale: how long and how large.
        use_peers: whether to measure other libraries where they are installed.
        folder: where to make a folder for the files; None means the system's temporary folder. It
            should be on the disk that is to be measured, not in memory.
        show: is given each case as it begins and each row as it is there.
    """
    began = time.monotonic()
    date = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        notes: list[str] = []
        server = None
        if any(case.backend == "postgres" for case in cases):
            server = _server(stack, notes, durable=scale.durable)
        report = Report(
            date,
            scale.name,
            machine.describe(place, None if server is None else server.version, _PACKAGES),
            notes=notes,
        )
        bench = Bench(scale, place, server, use_peers, notes)
        for case in cases:
            if case.backend == "postgres" and server is None:
                continue
            show(case)
            for outcome in case.run(bench, case.backend):
                if isinstance(outcome, Curve):
                    report.curves.append(outcome)
                else:
                    report.rows.append(outcome)
                    show(outcome)
    report.seconds = time.monotonic() - began
    return report


def _server(
    stack: contextlib.ExitStack, notes: list[str], *, durable: bool
) -> PostgresServer | None:
    try:
        return stack.enter_context(find_postgres(durable=durable))
    except NoServerError as error:
        notes.append(f"{LABELS['postgres']} was not measured. {error}")
        return None
