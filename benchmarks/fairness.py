"""Whether many processes that write one SQLite file all get their turn.

Each process upserts messages of 1 KB in a loop, in one session of its own for each thread. Prints
one line, and writes the same as JSON, where the waits of the calls are in seconds.

    python -m benchmarks.fairness --processes 16 --threads 1 --seconds 60
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from director_db_sqlite import SQLiteDB
from director_db_sqlite.checkpoint import Checkpointer

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

_CONTENT = [{"type": "text", "text": "x" * 1000}]


class Waits(NamedTuple):
    """What one process saw."""

    waits: list[float]
    errors: dict[str, int]
    checkpoints: int
    longest_checkpoint: float


def _write(path: str, number: int, threads: int, start: float, seconds: float) -> Waits:
    checkpoints: list[float] = []
    run = Checkpointer.run

    def timed(self: Checkpointer, place: str) -> None:
        before = time.perf_counter()
        run(self, place)
        checkpoints.append(time.perf_counter() - before)

    Checkpointer.run = timed  # type: ignore[method-assign]
    waits: list[list[float]] = [[] for _ in range(threads)]
    errors: Counter[str] = Counter()

    def upsert(thread: int) -> None:
        session = f"{number}.{thread}"
        try:
            db.create_session(session)
        except Exception as error:  # noqa: BLE001 - as below
            errors[repr(error)] += 1
        time.sleep(max(0.0, start - time.time()))
        end = time.monotonic() + seconds
        step = 0
        while (before := time.monotonic()) < end:
            try:
                db.add_or_update_msg_to_conv(
                    session, "c", f"m{step % 50}", "output", [], [], _CONTENT, "progress"
                )
            except Exception as error:  # noqa: BLE001 - counting them is the point
                errors[repr(error)] += 1
            waits[thread].append(time.monotonic() - before)
            step += 1

    with SQLiteDB(path) as db:
        workers = [threading.Thread(target=upsert, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return Waits(
        [wait for own in waits for wait in own],
        dict(errors),
        len(checkpoints),
        max(checkpoints, default=0.0),
    )


def _write_and_put(queue: Queue[Waits], *arguments: Any) -> None:
    queue.put(_write(*arguments))


def measure(path: str, processes: int, threads: int, seconds: float) -> dict[str, Any]:
    """Let processes write for so many seconds, and sum up what they saw."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    start = time.time() + 1 + 0.2 * processes
    workers = [
        context.Process(target=_write_and_put, args=(queue, path, number, threads, start, seconds))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=seconds * 2 + 120) for _ in workers]
    for worker in workers:
        worker.join()
    waits = sorted(wait for one in found for wait in one.waits)
    errors: Counter[str] = Counter()
    for one in found:
        errors.update(one.errors)
    return {
        "processes": processes,
        "threads": threads,
        "seconds": seconds,
        "calls": len(waits),
        "calls_of_a_process": [
            min(len(one.waits) for one in found),
            max(len(one.waits) for one in found),
        ],
        "errors": dict(errors),
        "p50": _quantile(waits, 0.5),
        "p99": _quantile(waits, 0.99),
        "p99.9": _quantile(waits, 0.999),
        "worst": waits[-1],
        "checkpoints": sum(one.checkpoints for one in found),
        "longest_checkpoint": max(one.longest_checkpoint for one in found),
    }


def in_words(figures: dict[str, Any]) -> str:
    """Return the figures in one line."""
    errors = sum(figures["errors"].values())
    waits = ", ".join(
        f"{name} {figures[name] * 1e3:.1f} ms" for name in ("p50", "p99", "p99.9", "worst")
    )
    return (
        f"{figures['processes']} processes x {figures['threads']} threads, "
        f"{figures['seconds']:g} s: {figures['calls']} calls, {errors} errors, {waits}, "
        f"{figures['checkpoints']} checkpoints, the longest "
        f"{figures['longest_checkpoint'] * 1e3:.1f} ms"
    )


def _quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--folder", help="where the file is made; default: the temporary folder")
    parser.add_argument("--file", help="the file itself, which then stays")
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = options.file or str(Path(folder) / "fairness.db")
        figures = measure(path, options.processes, options.threads, options.seconds)
    print(in_words(figures))  # noqa: T201 - a command
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
