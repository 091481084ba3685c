"""The command ``director-db-conformance``."""

from __future__ import annotations

import contextlib
import difflib
import re
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from director_db.cli.console import CommandConsole
from director_db_conformance.face import FACES, SYNC, Face
from director_db_conformance.guard import Guard
from director_db_conformance.levels import Level
from director_db_conformance.provision import why_unusable
from director_db_conformance.suite import CLAUSES
from director_db_conformance.verdict import Word
from director_db_conformance.version import __version__, disagreement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director_db_conformance.levels import Clause
    from director_db_conformance.record import Choice
    from director_db_conformance.run import SuiteRun

_PAUSE: Final = 0.1
_UNUSABLE: Final = 2
_NEAR: Final = 0.5
"""How much of a word must be that of another one, of all of both."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("db_types", nargs=-1, metavar="DB_TYPE...")
@click.option(
    "--level",
    type=click.Choice([level.value for level in Level]),
    help="The level to judge at: core (one caller), concurrent (threads, handles, processes), "
    "durable (kills and faults). Without it, the highest that applies to the place.",
)
@click.option(
    "--face",
    type=click.Choice(FACES), default=SYNC, show_default=True,
    help="Through which face the clauses make their calls: methods, or, with asyncio, coroutines "
    "of director_db.asyncio.",
)  # fmt: skip
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), metavar="F",
    help="Write verdicts and clauses to F as JSON.",
)  # fmt: skip
@click.option(
    "--junit", "junit_file", type=click.Path(dir_okay=False, path_type=Path), metavar="F",
    help="Write the clauses to F as JUnit XML.",
)  # fmt: skip
@click.option(
    "-k", "keyword", default="", metavar="EXPRESSION",
    help="Run only the clauses that match, such as MSG-3. If they pass, the verdict is PARTIAL: "
    "what was left out was not shown.",
)  # fmt: skip
@click.option(
    "--fail-fast", is_flag=True,
    help="Stop at the first failure, of all backends; the basic clauses run first.",
)  # fmt: skip
@click.option(
    "--time-limit", default=120.0, show_default=True, metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="A clause that makes no call for longer than this has failed, as has one that takes ten "
    "times as long; the others run on.",
)  # fmt: skip
@click.option("--list", "lists", is_flag=True, help="List the clauses and run none.")
@click.version_option(__version__, prog_name="director-db-conformance")
def main(
    db_types: tuple[str, ...],
    level: str | None,
    face: Face,
    json_file: Path | None,
    junit_file: Path | None,
    keyword: str,
    time_limit: float,
    *,
    fail_fast: bool,
    lists: bool,
) -> None:
    """Prove that the backends of these DB types behave as the contract says.

    The exit status is 0 only if every one is CONFORMANT, at the level asked for, or, with -k,
    PARTIAL; 1 if one is not; 2 if one cannot be run at all, or -k matches nothing.
    """
    keyword = keyword.removeprefix("=")  # As pytest takes it, and click does not.
    problem = disagreement()
    if problem is not None:
        _give_up(problem)
    if lists:
        _list(keyword)
        return
    if not db_types:
        _give_up("Name one DB type or more, such as: director-db-conformance sqlite")
    names = list(dict.fromkeys(name.strip().lower() for name in db_types))
    for file in (json_file, junit_file):
        if file is not None:
            _empty(file)
    with ThreadPoolExecutor() as pool:
        for unusable in pool.map(why_unusable, names):
            if unusable is not None:
                _give_up(unusable)
    from director_db_conformance import report  # noqa: PLC0415 - rich takes long to import
    from director_db_conformance.record import Choice  # noqa: PLC0415 - imports pytest

    choice = Choice(Level(level or Level.DURABLE.value), keyword, time_limit, fail_fast, face)
    strictly = level is not None
    console = CommandConsole()
    # pytest's own folder of places would be readable only to its owner; servers are others.
    with (
        tempfile.TemporaryDirectory(prefix="director_db_conformance_") as directory,
        Guard(Path(directory)) as guard,
    ):
        with _running(names, Path(directory), choice, guard) as runs:
            _wait(console, runs)
        refused = next((run.usage_error for run in runs if run.usage_error), None)
        if refused is None and all(run.chosen is not None and not run.chosen for run in runs):
            refused = _nothing_matches(keyword, choice.level)
        if refused is not None:
            _give_up(refused)
        report.show(console, runs, choice.level, strictly=strictly)
        if json_file is not None:
            json_file.write_text(report.as_json(runs, strictly=strictly), encoding="utf-8")
        if junit_file is not None:
            junit_file.write_text(report.as_junit(runs), encoding="utf-8")
        good = [
            run.is_conformant(strictly=strictly) or (keyword and run.verdict.word is Word.PARTIAL)
            for run in runs
        ]
    raise SystemExit(0 if all(good) else 1)


@contextlib.contextmanager
def _running(
    names: list[str], directory: Path, choice: Choice, guard: Guard
) -> Iterator[list[SuiteRun]]:
    """Start all at once: most of what a clause does is to wait for a disk or a server."""
    from director_db_conformance.run import SuiteRun  # noqa: PLC0415 - imports pytest

    runs: list[SuiteRun] = []
    try:
        for name in names:
            own = directory / name
            own.mkdir()
            runs.append(SuiteRun(name, own, choice, guard))
        yield runs
    finally:
        for run in runs:
            run.end()


def _wait(console: CommandConsole, runs: list[SuiteRun]) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[clause]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        tasks = [progress.add_task(run.db_type, total=run.total, clause="") for run in runs]
        under_way = set(range(len(runs)))
        while under_way:
            for number in sorted(under_way):
                if not runs[number].poll():
                    under_way.discard(number)
                progress.update(
                    tasks[number],
                    total=runs[number].total,
                    completed=len(runs[number].results),
                    clause=runs[number].under_way or "",
                )
            if any(run.choice.fail_fast and run.failed for run in runs):
                for number in under_way:
                    runs[number].stop("stopped at the first failure")
                return
            time.sleep(_PAUSE)


def _list(keyword: str) -> None:
    found = [clause for clause in CLAUSES.values() if _is_named(clause, keyword)]
    if not found:
        _give_up(_nothing_matches(keyword, Level.DURABLE))
    for clause in found:
        click.echo(f"{clause.level.value:<10}  {clause.title}")


def _is_named(clause: Clause, keyword: str) -> bool:
    """Whether an expression matches it, as pytest has them; a run lets pytest judge."""
    names = f"{clause.rule} {clause.name}".lower()

    def answer(word: re.Match[str]) -> str:
        text = word[0].lower()
        return text if text in {"and", "or", "not"} else str(text in names)

    # What is left of words are True, False, and, or, not and parentheses.
    text = re.sub(r"[^\s()]+", answer, keyword.strip()) or "True"
    with warnings.catch_warnings(action="ignore"):
        try:
            return bool(eval(text))  # noqa: S307
        except (SyntaxError, TypeError):
            return False


def _nothing_matches(keyword: str, level: Level) -> str:
    """Say that no clause matches, and which would: of a higher level, or of a name like it."""
    if not keyword:
        return "Something other than -k has left out all clauses."
    message = f"-k {keyword!r} matches no clause up to the level {level.value}."
    beyond = {clause.level.value for clause in CLAUSES.values() if _is_named(clause, keyword)}
    if beyond:
        return f"{message} Those that it names are of the level {' and '.join(sorted(beyond))}."
    rules = {clause.rule for clause in CLAUSES.values()}
    words = {word for name in CLAUSES for word in name.split("_") if len(word) > 3}  # noqa: PLR2004
    known = {name.lower(): name for name in (*CLAUSES, *words, *rules)}
    near = [
        known[name]
        for word in re.findall(r"[\w-]+", keyword.lower())
        if word not in {"and", "or", "not"}
        for name in difflib.get_close_matches(word, known, cutoff=_NEAR)
    ]
    what = f"Near: {', '.join(dict.fromkeys(near))}. " if near else ""
    return f"{message} {what}All of them: director-db-conformance --list"


def _empty(file: Path) -> None:
    """Begin a report: nobody is to take that of an earlier run for this one's."""
    if not file.parent.is_dir():
        _give_up(f"There is no folder {file.parent} to write {file.name} to.")
    try:
        file.write_text("")
    except OSError as error:
        _give_up(f"{file} cannot be written: {error.strerror}.")


def _give_up(message: str) -> None:
    click.echo(f"director-db-conformance: {message}", err=True)
    raise SystemExit(_UNUSABLE)
