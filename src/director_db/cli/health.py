"""``director-db init`` and ``director-db health``."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final

import click

from director_db import load_db
from director_db.cli import watchdog
from director_db.cli.complaints import complain, describe, message_of
from director_db.cli.options import FAILED, OK, database_option
from director_db.cli.printable import one_line, visible
from director_db.errors import ConfigurationError, DirectorDBError

if TYPE_CHECKING:
    from director_db.records import Health


_LONGEST: Final = 86_400  # A thread cannot wait for any number of seconds.


def _a_number(_context: click.Context, _option: click.Parameter, seconds: float) -> float:
    if math.isnan(seconds):
        message = "nan is no number of seconds."
        raise click.BadParameter(message)
    return seconds


@click.command()
@database_option
def init(db: str | None) -> int:
    """Create the database's tables where they are missing.

    The application does this by itself at its first use. Running it beforehand shows that the
    settings are right. Running it again changes nothing.

    \b
    Examples:
      director-db init
      SQLITE_DB_PATH=/var/lib/app/director.db director-db init

    Exit status: 0 the database is ready; 2 it is not, for the reason that is printed.
    """  # noqa: D301
    health = load_db(db).health()
    _print_health(health, "ready; what was missing is created, what was there is unchanged")
    return OK


@click.command()
@database_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for machines.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=_LONGEST),
    callback=_a_number,
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer; then the database is unhealthy.",
)
def health(db: str | None, *, as_json: bool, timeout: float) -> int:
    """Say whether the database can be used, and where it is.

    Connects, creates the tables where they are missing, and prints the versions of all parts and
    warnings of what puts data at risk.

    \b
    Exit status:
      0  healthy; there may be warnings
      1  unhealthy: not reachable, locked, damaged, no answer in time, or what is
         stored in it is of another release or not ours
      2  not asked, as the settings are wrong: unknown DB type, broken package,
         malformed URL, missing folder

    With --json the object has the keys healthy, db_type, place, versions, warnings, settings (where
    each comes from), and error (null or the reason), also with exit status 1. With exit status 2
    nothing is printed but the error.

    \b
    Examples:
      director-db health
      director-db health --json | jq .versions.schema
      director-db health --timeout 2
    """  # noqa: D301
    database = load_db(db)
    try:
        found = watchdog.within(timeout, database.health, database.place)
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, this is what was asked for
        reason = message_of(error) if isinstance(error, DirectorDBError) else describe(error)
        reason = one_line(reason, [db or ""])
        if as_json:
            unhealthy = {
                "healthy": False,
                "db_type": str(database.db_type),
                "place": database.place,
                "versions": {},
                "warnings": [],
                "settings": {},
                "error": reason,
            }
            click.echo(json.dumps(unhealthy))
        else:
            complain(f"Unhealthy: {reason}", [db or ""])
        return FAILED
    if as_json:
        click.echo(json.dumps({"healthy": True, **found._asdict(), "error": None}))
    else:
        _print_health(found, "healthy")
    return OK


def _print_health(health: Health, verdict: str) -> None:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from director_db.cli.console import CommandConsole  # noqa: PLC0415

    console = CommandConsole()
    origins: dict[str, list[str]] = {}
    for setting, origin in health.settings.items():
        origins.setdefault(f"from {origin}", []).append(setting)
    facts = {"DB type": health.db_type, "place": health.place, **health.versions}
    facts |= {origin: ", ".join(names) for origin, names in origins.items()}
    rows = [(Text(visible(name), "cyan"), Text(visible(fact))) for name, fact in facts.items()]
    table = Table(box=box.ROUNDED, show_header=False)
    for row in rows:
        table.add_row(*row)
    console.print(Text.assemble((f"{console.marks.passed} {verdict}", "bold green")))
    if console.is_terminal and not console.fits(table):
        # The terminal folds a long path by itself, and would fold the frame with it.
        for name, fact in rows:
            console.print(Text.assemble(name, ": ", fact), soft_wrap=True)
    else:
        console.print_whole(table)
    for warning in health.warnings:
        console.print(
            Text.assemble(("Warning: ", "bold yellow"), visible(warning)),
            # On a terminal by words; in a pipe a warning is one line.
            soft_wrap=not console.is_terminal,
        )
