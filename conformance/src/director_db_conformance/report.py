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
from director_db_conformance.face import SYNC
from director_db_conformance.levels import Level
from director_db_conformance.suite import CLAUSES
from director_db_conformance.verdict import Outcome, Result, Word
from director_db_conformance.version import CHECKED, __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from director_db.cli.console import CommandConsole
    from director_db_conformance.levels import Clause
    from director_db_conformance.record import Record
    from director_db_conformance.verdict import Verdict

_MOST_FAILURES: Final = 8
_MOST_CALLS: Final = 24
_LAST_CALLS: Final = 6
_FEW: Final = 3
# What XML has no form for, not even escaped.
_NO_XML: Final = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
_JUNIT: Final = {
    Outcome.FAILED: ("failures", "failure"),
    Outcome.NOT_RUN: ("errors", "error"),
    Outcome.NOT_APPLICABLE: ("skipped", "skipped"),
}
_READ: Final = re.compile(r"^\S+\.(get_|health|__)")
_COLOURS: Final = {
    Word.CONFORMANT: "bold green",
    Word.NOT_CONFORMANT: "bold red",
    Word.PARTIAL: "bold green",
    Word.INCOMPLETE: "bold yellow",
    Word.NOT_RUN: "bold red",
}


def show(console: CommandConsole, runs: Sequence[Record], asked: Level, *, strictly: bool) -> None:
    """Print the failures, what does not apply, and the table of verdicts."""
    for run in runs:
        _show_failures(console, run)
    console.print()
    console.print(_table(console, runs, asked))
    console.print(f"face: {runs[0].choice.face}", style="dim")
    for run in runs:
        _show_reasons(console, run)
        if run.verdict.word is Word.CONFORMANT and not run.is_conformant(strictly=strictly):
            text = f"{run.db_type}: {asked.value} was asked for, and was not shown."
            console.print(text, style="bold red")


def as_json(runs: Iterable[Record], *, strictly: bool) -> str:
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


def as_junit(runs: Iterable[Record]) -> str:
    """Return one test suite for each backend, with a test case for each clause, as JUnit XML."""
    root = ET.Element("testsuites", name="director-db-conformance")
    for run in runs:
        suite = ET.SubElement(root, "testsuite", name=run.db_type, time=f"{run.seconds:.3f}")
        properties = ET.SubElement(suite, "properties")
        ET.SubElement(properties, "property", name="face", value=run.choice.face)
        counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
        for clause, result in _results(run):
            counts["tests"] += 1
            case = ET.SubElement(
                suite, "testcase", name=clause.name, classname=f"{run.db_type}.{clause.rule}",
                time=f"{result.seconds:.3f}",
            )  # fmt: skip
            counted, tag = _JUNIT.get(result.outcome, ("", ""))
            if result.outcome is Outcome.NOT_RUN and run.is_left_out(clause.name):
                counted, tag = "skipped", "skipped"
            if tag:
                counts[counted] += 1
                ET.SubElement(case, tag, message=_told(result)[0]).text = "\n".join(
                    [clause.meaning, *_told(result), *result.calls, result.traceback]
                )
        suite.attrib.update({name: str(count) for name, count in counts.items()})
    return _NO_XML.sub("\ufffd", ET.tostring(root, encoding="unicode", xml_declaration=True)) + "\n"


def _backend(run: Record) -> dict[str, Any]:
    verdict = run.verdict
    return {
        "db_type": run.db_type,
        "face": run.choice.face,
        "verdict": verdict.word.value,
        "asked": verdict.asked.value,
        "applicable": verdict.applicable.value,
        "reached": None if verdict.reached is None else verdict.reached.value,
        "not_applicable": verdict.not_applicable,
        "server": run.server,
        "seconds": round(run.seconds, 3),
        "clauses": [
            {
                "rule": clause.rule,
                "clause": clause.name,
                "level": clause.level.value,
                "meaning": clause.meaning,
                "result": result.as_json(),
            }
            for clause, result in _results(run)
        ],
    }


def _results(run: Record) -> Iterator[tuple[Clause, Result]]:
    """Give what became of each clause up to the level, in the order in which they run."""
    for clause in CLAUSES.values():
        if run.choice.level.includes(clause.level):
            reason = run.why_not_run(clause.name)
            missing = Result(Outcome.NOT_RUN, reason=reason)
            yield clause, run.results.get(clause.name, missing)


def _told(result: Result) -> list[str]:
    """Return what a result says, line by line."""
    if result.expected or result.actual:
        return [f"expected: {result.expected}", f"actual:   {result.actual}"]
    return [result.reason]


def _table(console: CommandConsole, runs: Sequence[Record], asked: Level) -> Table:
    table = Table(
        title=f"director-db conformance · contract {CHECKED} · suite {__version__}",
        title_style="bold",
        # A terminal of 80 columns has no room for lines between them.
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    # Where there is too little room, the heads of the counts are what folds.
    table.add_column("backend", no_wrap=True, min_width=max(len(run.db_type) for run in runs))
    table.add_column("verdict", no_wrap=True)
    table.add_column("level", no_wrap=True, min_width=max(len(_level(run.verdict)) for run in runs))
    levels = [level for level in Level if asked.includes(level)]
    for level in levels:
        table.add_column(level.value, justify="right")
    table.add_column("time", justify="right", no_wrap=True, min_width=6)
    for run in runs:
        verdict = run.verdict
        marks = console.marks
        mark = {Word.CONFORMANT: marks.passed, Word.PARTIAL: marks.skipped}.get(
            verdict.word, marks.failed
        )
        table.add_row(
            run.db_type,
            Text(f"{mark} {verdict.word.value}", style=_COLOURS[verdict.word]),
            _level(verdict),
            *(_count(run, level) for level in levels),
            f"{run.seconds:.0f} s",
        )
    return table


def _level(verdict: Verdict) -> str:
    """Return the level that was reached, and what of it says nothing of the place."""
    if verdict.word is Word.PARTIAL:
        return "not judged"
    if verdict.word is not Word.CONFORMANT:
        found = verdict.applicable if verdict.reached is None else verdict.reached
        return found.value if verdict.reached is None else f"only {found.value}"
    missing = f", {verdict.not_applicable} n/a" if verdict.not_applicable else ""
    return f"{verdict.applicable.value}{missing}"


def _count(run: Record, level: Level) -> Text:
    results = [(clause, result) for clause, result in _results(run) if clause.level is level]
    chosen = [result.outcome for clause, result in results if not run.is_left_out(clause.name)]
    applicable = len(chosen) - chosen.count(Outcome.NOT_APPLICABLE)
    passed = chosen.count(Outcome.PASSED)
    if not applicable:
        return Text("none apply" if chosen else "-", style="dim")
    return Text(f"{passed}/{applicable}", style="" if passed == applicable else "bold red")


def _show_failures(console: CommandConsole, run: Record) -> None:
    failed = run.failed
    for name in failed[:_MOST_FAILURES]:
        _show_failure(console, run, name, run.results[name])
    if len(failed) > _MOST_FAILURES:
        more = len(failed) - _MOST_FAILURES
        console.print(f"\n{run.db_type}: {more} more clauses failed; --json F has them all.")
    if not run.results:
        console.print(f"\n{run.db_type}: no clause ran.", style="bold red")
        console.print(Padding(Text(run.output.strip()), (0, 0, 0, 2)))


def _show_failure(console: CommandConsole, run: Record, name: str, result: Result) -> None:
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
    lines = [clause.meaning + rule, *_told(result)]
    if result.calls:
        lines.append("calls:")
        lines += [f"  {line}" for line in _shortened("\n".join(result.calls).splitlines())]
    face = "" if run.choice.face == SYNC else f" --face {run.choice.face}"
    lines.append(f"again: director-db-conformance {run.db_type}{face} -k {name}")
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


def _show_reasons(console: CommandConsole, run: Record) -> None:
    if run.server is not None:
        console.print(f"{run.db_type}: on {run.server}", style="dim")
    for outcome in (Outcome.NOT_APPLICABLE, Outcome.NOT_RUN):
        reasons: dict[str, list[str]] = {}
        for clause, result in _results(run):
            if result.outcome is outcome:
                reason = (result.reason.splitlines() or [""])[0]
                reasons.setdefault(reason, []).append(clause.name)
        for reason, names in reasons.items():
            clauses = "1 clause" if len(names) == 1 else f"{len(names)} clauses"
            text = f"{run.db_type}: {clauses} {outcome.value}: {reason}"
            if outcome is Outcome.NOT_RUN and len(names) <= _FEW and names[0] in run.results:
                text += f" (in {', '.join(names)})"
            console.print(text, style="dim", soft_wrap=True)
