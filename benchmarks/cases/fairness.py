"""Many processes that write one SQLite file at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.bench import DURABILITY
from benchmarks.cases.case import OURS, Case, counted, note
from benchmarks.results import Figure, Goal, Row
from benchmarks.statistics import Spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.results import Curve

_ROOT: Final = Path(__file__).parents[2]

_MORE_SECONDS: Final = 180
"""What the processes may take to start and to end, on a busy machine."""


def processes(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Upsert 1 KB messages into one file from 16 processes for a minute, each in its own session.

    What is judged is how long the calls waited, all of all processes: the one in a thousand, and
    the worst; and that none failed. The checkpoints, which run while the write lock is held, are
    timed in the same processes.
    """
    name, label = f"fairness-{backend}", "SQLite"
    count = bench.scale.processes
    try:
        seen = _measure(bench, backend)
    except (subprocess.SubprocessError, OSError) as error:
        note(bench, name, error)
        return
    work = f"{label}: upserts, {count} processes"
    calls_of_one, calls_of_another = seen["calls_of_a_process"]
    yield counted(
        name,
        f"{work}, errors",
        sum(seen["errors"].values()),
        Goal(0, "errors"),
        {
            "calls": f"{seen['calls']:,} in {seen['seconds']:g} s",
            "of one process": f"{calls_of_one:,} to {calls_of_another:,}",
            "threads of each": str(seen["threads"]),
            **{f"error {text}": f"{times} x" for text, times in seen["errors"].items()},
        },
    )
    medians = {"median": _milliseconds(seen["p50"]), "p99": _milliseconds(seen["p99"])}
    yield _wait(name, f"{work}, wait of one call in 1,000", seen["p99.9"], Goal(1, "s"), medians)
    yield _wait(name, f"{work}, the worst call", seen["worst"], Goal(5, "s"), {})
    longest = Figure(OURS, Spread.exactly(seen["longest_checkpoint"]), DURABILITY[backend])
    # A short run may be over before any process has written enough for one.
    yield Row(
        name,
        f"{work}, the longest checkpoint",
        "s",
        [longest] if seen["checkpoints"] else [],
        facts={"checkpoints": f"{seen['checkpoints']:,}"},
    )


def _measure(bench: Bench, backend: str) -> dict[str, Any]:
    """Run ``benchmarks.fairness``, in an interpreter that its processes can start from cheaply."""
    seconds = bench.scale.fairness_seconds
    figures = bench.folder.resolve() / "fairness.json"
    with bench.place(backend) as path:
        done = subprocess.run(  # noqa: S603 - our own
            [
                *(sys.executable, "-m", "benchmarks.fairness"),
                *("--processes", str(bench.scale.processes)),
                *("--seconds", str(seconds)),
                *("--file", str(Path(path).resolve())),
                *("--json", str(figures)),
            ],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=2 * seconds + _MORE_SECONDS,
            check=False,
        )
    if done.returncode:
        message = (done.stderr.strip() or "no word").splitlines()[-1]
        raise subprocess.SubprocessError(message)
    found: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    return found


def _wait(case: str, work: str, seconds: float, goal: Goal, facts: dict[str, str]) -> Row:
    spread = Spread.exactly(seconds)
    figure = Figure(OURS, spread, DURABILITY["sqlite"])
    return Row(case, work, "s", [figure], spread, goal, facts)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


CASES: Final = (Case("fairness-sqlite", processes, "sqlite"),)
