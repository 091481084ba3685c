"""``director-db distribute``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from director_db import load_db
from director_db.cli.options import OK, database_option
from director_db.cli.printable import visible

if TYPE_CHECKING:
    from director_db.records import Distribution


@click.command()
@database_option
@click.option(
    "--shards",
    type=click.IntRange(min=1),
    metavar="N",
    help="In how many parts. Default: what the backend recommends (Postgres: 4).",
)
def distribute(db: str | None, *, shards: int | None) -> int:
    """Spread the tables over the servers of a cluster, by session.

    For Postgres with the extension Citus, once, on its coordinator; its workers must have been
    added. Each session then lives with all its parts on one worker. Tables that are distributed
    already stay as they are, so that running it again completes or changes nothing. Records are
    moved, all or none; writes wait meanwhile.

    \b
    Examples:
      director-db distribute
      director-db distribute --shards 32 --db postgresql://coordinator.internal/app

    Exit status: 0 done, or nothing to do; 2 not possible, for the reason that is printed.
    """  # noqa: D301
    database = load_db(db)
    _print_distribution(database.place, database.distribute(shards=shards), shards)
    return OK


def _print_distribution(place: str, done: Distribution, wanted: int | None) -> None:
    from rich.text import Text  # noqa: PLC0415

    from director_db.cli.console import CommandConsole  # noqa: PLC0415

    console = CommandConsole()
    verdict = f"distributed in {done.shards} shards" if done.tables else "distributed already"
    console.print(Text.assemble((f"{console.marks.passed} {verdict}", "bold green")))
    console.print(Text(visible(place), style="bold"), soft_wrap=True)
    for table in done.tables:
        console.print(Text(visible(table)), soft_wrap=True)
    if wanted not in {None, done.shards}:
        warning = f"there are {done.shards} shards, and stay so; {wanted} were asked for."
        console.print(Text.assemble(("Warning: ", "bold yellow"), warning), soft_wrap=True)
