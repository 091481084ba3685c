"""``python -m benchmarks``: measure, show, and write down."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from benchmarks import machine
from benchmarks.cases import CASES, Case, turns
from benchmarks.report import markdown, terminal, words
from benchmarks.results import Report
from benchmarks.run import run
from benchmarks.scale import FULL, QUICK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Row

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TURNS = ROOT / "docs/integrations/speed.md"

_WIDEST = 150
_PIPE_WIDTH = 140
_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--quick", is_flag=True, help="Smaller and shorter: about a minute, more noise.")
@click.option(
    "--integrations", is_flag=True, help="The integrations beside the frameworks' own stores."
)
@click.option("--only", multiple=True, metavar="CASE", help="Only this case; may be repeated.")
@click.option("--backends", default="sqlite,postgres", show_default=True, help="Which databases.")
@click.option("--peers/--no-peers", default=True, help="Measure other libraries, if installed.")
@click.option("--folder", type=_PATH, help="Where to put the files: on the disk to be measured.")
@click.option("--json", "json_path", type=_PATH, help="Write all figures to this file.")
@click.option("--markdown", "markdown_path", type=_PATH, help="Write a page to this file.")
@click.option("--plots", type=_PATH, help="Draw pictures into this folder.")
@click.option(
    "--readme",
    type=_PATH,
    metavar="JSON",
    help="Measure nothing: put the table into the README, that of the integrations into its page.",
)
@click.option("--show", type=_PATH, metavar="JSON", help="Measure nothing: show an earlier run.")
@click.option("--list", "list_cases", is_flag=True, help="Measure nothing: name the cases.")
def main(
    *,
    quick: bool,
    integrations: bool,
    only: tuple[str, ...],
    backends: str,
    peers: bool,
    folder: Path | None,
    json_path: Path | None,
    markdown_path: Path | None,
    plots: Path | None,
    readme: Path | None,
    show: Path | None,
    list_cases: bool,
) -> None:
    """Measure our code beside the bare drivers and, where they are installed, our peers."""
    console = _console()
    cases = _chosen(turns.CASES if integrations else CASES, only, backends.split(","))
    if list_cases:
        for case in cases:
            console.print(f"{case.name}: {case.about.splitlines()[0]}")
        return
    if readme is not None:
        page, into = (
            (TURNS, markdown.into_turns) if integrations else (README, markdown.into_readme)
        )
        text = into(page.read_text(encoding="utf-8"), Report.load(readme))
        page.write_text(text, encoding="utf-8")
        return
    if show is not None:
        report = Report.load(show)
    else:
        place = Path(tempfile.gettempdir()) if folder is None else folder
        # Now as well as with the results: whoever wants a disk need not wait for them.
        terminal.warn(console, words.in_memory(machine.file_system(place)))
        report = run(
            cases,
            QUICK if quick else FULL,
            use_peers=peers,
            folder=folder,
            show=lambda news: _show(console, news),
        )
    terminal.show(console, report)
    _write(report, cases, json_path, markdown_path, plots)


def _show(console: Console, news: Case | Row) -> None:
    if isinstance(news, Case):
        terminal.begin(console, news)
    else:
        terminal.show_row(console, news)


def _chosen(cases: Sequence[Case], only: Sequence[str], backends: Sequence[str]) -> list[Case]:
    known = {case.name for case in cases}
    unknown = [name for name in only if name not in known]
    if unknown:
        message = f"There is no case {unknown[0]!r}. There are: {', '.join(sorted(known))}."
        raise click.BadParameter(message, param_hint="--only")
    strange = set(backends) - {case.backend for case in cases}
    if strange:
        message = f"There is no backend {min(strange)!r}: sqlite and postgres are measured."
        raise click.BadParameter(message, param_hint="--backends")
    return [
        case
        for case in cases
        if (not only or case.name in only) and (not case.backend or case.backend in backends)
    ]


def _write(
    report: Report,
    cases: Sequence[Case],
    json_path: Path | None,
    markdown_path: Path | None,
    plots: Path | None,
) -> None:
    drawn = {}
    if plots is not None:
        # Only here: without it, matplotlib need not be installed.
        from benchmarks.report.plots import draw  # noqa: PLC0415

        names = draw(report, plots)
        root = plots if markdown_path is None else markdown_path.parent
        drawn = {
            subject: Path(os.path.relpath(plots / name, root)).as_posix()
            for subject, name in names.items()
        }
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        report.save(json_path)
    if markdown_path is not None:
        markdown_path.parent.mkdir(parents=True, exist_ok=True)
        markdown_path.write_text(markdown.page(report, cases, drawn), encoding="utf-8")


def _console() -> Console:
    width = shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns
    return Console(width=min(width, _WIDEST), markup=False, emoji=False, highlight=False)


if __name__ == "__main__":
    main()
