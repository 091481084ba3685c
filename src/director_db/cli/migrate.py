"""``director-db migrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from director_db import load_db
from director_db.cli.options import OK, database_option
from director_db.cli.printable import visible

if TYPE_CHECKING:
    from director_db.records import Migration


@click.command()
@database_option
@click.option(
    "--skip-invalid",
    is_flag=True,
    help="Leave rows that break a rule behind, instead of giving up because of them.",
)
def migrate(db: str | None, *, skip_invalid: bool) -> int:
    """Carry over what the system before director-db stored.

    Stop the old application first. Its tables sessions, conversations and context_messages are
    copied into those of director-db, with all ids and times and in the same order, and are then
    renamed to old_sessions, old_conversations and old_context_messages: a backup, to be dropped at
    leisure. It happens as a whole or not at all, and takes about as much space again.

    Messages and contexts whose session is missing get one. A row that breaks a rule (an empty id,
    text that is not JSON, NaN) is named with the reason, and nothing is changed; with
    --skip-invalid such rows stay in the renamed tables, and each is named.

    A database that has been migrated, or is new, is left as it is.

    \b
    Examples:
      director-db migrate
      SQLITE_DB_PATH=/var/lib/app/director.db director-db migrate --skip-invalid

    Exit status: 0 done, or nothing to do; 2 not possible, for the reason that is printed.
    """  # noqa: D301
    database = load_db(db)
    _print_migration(database.place, database.migrate(skip_invalid=skip_invalid))
    return OK


def _print_migration(place: str, migration: Migration) -> None:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from director_db.cli.console import CommandConsole  # noqa: PLC0415

    console = CommandConsole()
    nothing = not any(migration)
    verdict = "nothing to migrate" if nothing else "migrated; the old tables are a backup now"
    console.print(Text.assemble((f"{console.marks.passed} {verdict}", "bold green")))
    # A line of its own, which may be as long as the path is.
    console.print(Text(visible(place), style="bold"), soft_wrap=True)
    if nothing:
        return
    table = Table(box=box.ROUNDED, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_row("sessions", f"{migration.sessions:,}")
    table.add_row("messages", f"{migration.messages:,}")
    table.add_row("contexts", f"{migration.contexts:,}")
    table.add_row("sessions made for orphans", f"{migration.orphan_sessions:,}")
    table.add_row("rows left behind", f"{len(migration.skipped):,}")
    console.print(table)
    for row in migration.skipped:
        console.print(
            Text.assemble(("Left behind: ", "bold yellow"), visible(row)),
            soft_wrap=not console.is_terminal,
        )
