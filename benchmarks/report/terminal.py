"""The report as it comes in, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from benchmarks.report import words
from benchmarks.results import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from benchmarks.cases import Case
    from benchmarks.results import Report, Row

_STYLES: Final = {
    Verdict.PASS: "green",
    Verdict.BELOW: "bold red",
    Verdict.UNCLEAR: "yellow",
    None: "",
}
_QUIET: Final = "dim"


def begin(console: Console, case: Case) -> None:
    """Say that a case has begun."""
    console.print(Text(f"… {case.name}", style=_QUIET))


def warn(console: Console, warnings: Iterable[str]) -> None:
    """Show warnings so that they stand out."""
    for warning in warnings:
        console.print(Text(warning, style="bold yellow"))


def show_row(console: Console, row: Row) -> None:
    """Show a row as soon as it is there; the table comes in the end."""
    console.print(
        Text.assemble(
            "  ",
            row.work,
            (f"  {words.measured(row)} ", "bold"),
            (f"{row.goal or ''} ", _QUIET),
            (words.verdict(row), _STYLES[row.verdict]),
        )
    )
    facts = words.facts(row)
    if facts:
        console.print(Text(f"    {facts}", style=_QUIET))


def show(console: Console, report: Report) -> None:
    """Show the whole table, the peers, and what could not be measured."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="cyan", pad_edge=False)
    table.add_column("Work", ratio=3)
    table.add_column("Ours", justify="right", no_wrap=True)
    table.add_column("Limit", ratio=2)
    table.add_column("Measured (p10 to p90)", no_wrap=True)
    table.add_column("Goal", ratio=1)
    table.add_column("Verdict", ratio=1)
    for row in report.rows:
        table.add_row(
            Text(row.work),
            words.figure(row, words.OURS),
            words.limit(row),
            words.measured(row),
            str(row.goal or ""),
            Text(words.verdict(row), style=_STYLES[row.verdict]),
        )
    console.print()
    console.print(table)
    _show_peers(console, report)
    warn(console, words.warnings(report))
    lines = [f"{name}: {value}" for name, value in report.machine.items()]
    lines += report.notes
    console.print(
        Panel(
            Text("\n".join(lines)),
            title=Text(f"{report.date}, {report.scale} run of {report.seconds:.0f} s"),
            subtitle=Text(words.summary(report), style="bold"),
            title_align="left",
            subtitle_align="right",
            box=box.ROUNDED,
        )
    )


def _show_peers(console: Console, report: Report) -> None:
    rows = [row for row in report.rows if any(each.is_peer for each in row.figures)]
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="cyan", pad_edge=False)
    table.add_column("Beside ours")
    table.add_column("Ours", justify="right")
    table.add_column("Peers, and how many times ours they take")
    for row in rows:
        peers = [words.peer(row, each) for each in row.figures if each.is_peer]
        table.add_row(row.work, words.figure(row, words.OURS), "\n".join(peers))
    console.print(table)
    console.print()
