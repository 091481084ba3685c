"""How the command shows its verdicts: to a person, as JSON, and as JUnit XML."""

from __future__ import annotations

import json
import platform
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from director_db import __version__ as core_version
from director_db_conformance.levels import Level
from director_db_conformance.suite import CLAUSES
from director_db_conformance.verdict import Outcome, Word
from director_db_conformance.version import CHECKED, __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from director_db.console import CommandConsole
    from director_db_conformance.run import Run
    from director_db_conformance.verdict import Result

_MOST_FAILURES: Final = 8
_MOST_CALLS: Final = 24
_LAST_CALLS: Final = 6
_READ: Final = re.compile(r"^\S+\.(get_|health|__)")
_COLOURS: Final = {
    Word.CONFORMANT: "bold green",
    Word.NOT_CONFORMANT: "bold red",
    Word.INCOMPLETE: "bold yellow",
    Word.NOT_RUN: "bold red",
}


def show(console: CommandConsole, runs: Sequence[Run], asked: Level, *, strictly: bool) -> None:
    """Print the failures, what does not apply, and the table of verdicts."""
    for run in runs:
        _show_failures(console, run)
    console.print()
    console.print(_table(console, runs, asked))
    for run in runs:
        _show_reasons(console, run)
        if run.verdict.word is Word.CONFORMANT and not run.is_conformant(strictly=strictly):
            text = f"{run.db_type}: {asked.value} was asked for, and was not shown."
            console.print(text, style="bold red")


def as_json(runs: Iterable[Run], *, strictly: bool) -> str:
    """Return everything as JSON text."""
    document = {
        "contract": CHECKED,
        "suite": __version__,
        "director_db": core_version,
        "python": platform.python_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "backends": [
            _backend(run) | {"conformant": run.is_conformant(strictly=strictly)} for run in runs
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def as_junit(runs: Iterable[Run]) -> str:
    """Return the reports of pytest, one test suite for each backend, as one JUnit document."""
    root = ET.Element("testsuites", name="director-db-conformance")
    for run in runs:
        if run.junit.exists():
            # Written by pytest in our own temporary folder.
            root.extend(ET.parse(run.junit).getroot().iter("testsuite"))  # noqa: S314
        else:
            suite = ET.SubElement(root, "testsuite", name=run.db_type, tests="1", errors="1")
            case = ET.SubElement(suite, "testcase", name="run", classname=run.db_type)
            ET.SubElement(case, "error", message="the run did not end").text = run.output
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _backend(run: Run) -> dict[str, Any]:
    verdict = run.verdict
    return {
        "db_type": run.db_type,
        "verdict": verdict.word.value,
        "asked": verdict.asked.value,
        "applicable": verdict.applicable.value,
        "reached": None if verdict.reached is None else verdict.reached.value,
        "seconds": round(run.seconds, 3),
        "clauses": [
            {
                "rule": clause.rule,
                "clause": clause.name,
                "level": clause.level.value,
                "meaning": clause.meaning,
                "result": run.results[clause.name].as_json()
                if clause.name in run.results
                else {"outcome": Outcome.NOT_RUN.value},
            }
            for clause in CLAUSES.values()
            if verdict.asked.includes(clause.level)
        ],
    }


def _table(console: CommandConsole, runs: Sequence[Run], asked: Level) -> Table:
    table = Table(
        title=f"director-db conformance · contract {CHECKED} · suite {__version__}",
        title_style="bold",
        # A terminal of 80 columns has no room for lines between them.
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("backend", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("level", no_wrap=True)
    levels = [level for level in Level if asked.includes(level)]
    for level in levels:
        table.add_column(level.value, justify="right")
    table.add_column("time", justify="right")
    for run in runs:
        verdict = run.verdict
        marks = console.marks
        mark = marks.passed if verdict.word is Word.CONFORMANT else marks.failed
        table.add_row(
            run.db_type,
            Text(f"{mark} {verdict.word.value}", style=_COLOURS[verdict.word]),
            verdict.applicable.value
            if verdict.word is Word.CONFORMANT or verdict.reached is None
            else f"only {verdict.reached.value}",
            *(_count(run, level) for level in levels),
            f"{run.seconds:.0f} s",
        )
    return table


def _count(run: Run, level: Level) -> Text:
    outcomes = [
        run.results[clause.name].outcome if clause.name in run.results else Outcome.NOT_RUN
        for clause in CLAUSES.values()
        if clause.level is level
    ]
    applicable = len(outcomes) - outcomes.count(Outcome.NOT_APPLICABLE)
    passed = outcomes.count(Outcome.PASSED)
    if not applicable:
        return Text("none apply", style="dim")
    return Text(f"{passed} of {applicable}", style="" if passed == applicable else "bold red")


def _show_failures(console: CommandConsole, run: Run) -> None:
    failed = [
        (name, result) for name, result in run.results.items() if result.outcome is Outcome.FAILED
    ]
    for name, result in failed[:_MOST_FAILURES]:
        _show_failure(console, run, name, result)
    if len(failed) > _MOST_FAILURES:
        more = len(failed) - _MOST_FAILURES
        console.print(f"\n{run.db_type}: {more} more clauses failed; --json F has them all.")
    if not run.results:
        console.print(f"\n{run.db_type}: no clause ran.", style="bold red")
        console.print(Padding(Text(run.output.strip()), (0, 0, 0, 2)))


def _show_failure(console: CommandConsole, run: Run, name: str, result: Result) -> None:
    clause = CLAUSES[name]
    console.print()
    console.print(
        Text.assemble(
            (f"{console.marks.failed} {run.db_type} ", "bold red"),
            (clause.title, "bold"),
            f"  ({clause.level.value})",
        )
    )
    rule = "" if result.rule in {"", clause.rule} else f" It breaks {result.rule}."
    lines = [clause.meaning + rule]
    if result.expected or result.actual:
        lines += [f"expected: {result.expected}", f"actual:   {result.actual}"]
    else:
        lines.append(result.reason)
    if result.calls:
        lines.append("calls:")
        lines += [f"  {line}" for line in _shortened("\n".join(result.calls).splitlines())]
    lines.append(f"again: director-db-conformance {run.db_type} -k {name}")
    for line in lines:
        # Not folded: what is shown here is to be copied.
        console.print(Text(f"  {line}"), soft_wrap=True)


def _shortened(calls: list[str]) -> list[str]:
    """Fold calls that repeat, and leave out the reads first where there are too many."""
    folded: list[tuple[str, int]] = []
    for call in calls:
        if folded and folded[-1][0] == call:
            folded[-1] = (call, folded[-1][1] + 1)
        else:
            folded.append((call, 1))
    lines = [call if count == 1 else f"{call}  ({count} times)" for call, count in folded]
    if len(lines) > _MOST_CALLS:
        last = len(lines) - _LAST_CALLS
        kept = [line for line in lines[:last] if not _READ.search(line)]
        kept = [*kept[: _MOST_CALLS - _LAST_CALLS], *lines[last:]]
        lines = [*kept, f"({len(lines) - len(kept)} more calls in between; --json F has them all)"]
    return lines


def _show_reasons(console: CommandConsole, run: Run) -> None:
    for outcome in (Outcome.NOT_APPLICABLE, Outcome.NOT_RUN):
        reasons: dict[str, int] = {}
        for clause in CLAUSES.values():
            if run.verdict.asked.includes(clause.level):
                result = run.results.get(clause.name)
                if result is None and outcome is Outcome.NOT_RUN:
                    reasons["left out"] = reasons.get("left out", 0) + 1
                elif result is not None and result.outcome is outcome:
                    first = result.reason.splitlines()[0] if result.reason else ""
                    reasons[first] = reasons.get(first, 0) + 1
        for reason, count in reasons.items():
            clauses = "1 clause" if count == 1 else f"{count} clauses"
            console.print(f"{run.db_type}: {clauses} {outcome.value}: {reason}", style="dim")
