"""``director-db import``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import click

from director_db import load_db
from director_db.cli.options import FAILED, OK, database_option
from director_db.cli.printable import visible
from director_db.errors import ConfigurationError, PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from director_db.base import BaseDB
    from director_db.records import Imported

SOURCES: Final = "director_db_import"
"""The entry-point group of what can be imported; the name of an entry point is that of a source."""


class Source(Protocol):
    """What an entry point of the group names."""

    def __call__(
        self,
        url: str,
        names: Mapping[str, str],
        db: BaseDB | None,
        refuse: Callable[[str], None],
        /,
    ) -> Imported:
        """Import what the tables of a database hold.

        Args:
            url: the database of the tables.
            names: of the tables that have others than the source gives them.
            db: where it goes; None only checks and counts.
            refuse: to be given a line for each row that cannot be imported.
        """


def _table_names(
    _context: click.Context, _option: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    names = {}
    for each in given:
        name, separator, called = each.partition("=")
        if not (name and separator and called):
            message = f"{each!r} is not NAME=OTHER, as agent_messages=items"
            raise click.BadParameter(message)
        names[name] = called
    return names


@click.command("import")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="SOURCE",
    help="Whose tables: openai-agents, google-adk, langchain or llama-index.",
)
@click.argument("url")
@database_option
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="NAME=OTHER",
    callback=_table_names,
    help="The table that the framework calls NAME has the name OTHER. As often as needed.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Read, check and count, and store nothing; the database is not even opened.",
)
def import_(source: str, url: str, db: str | None, *, tables: dict[str, str], dry_run: bool) -> int:
    """Import what a framework's own store has kept in SQLite or Postgres.

    URL is the database of the old tables, which are only read. Each session with its messages comes
    into the database that --db or DB_TYPE names, as the module of director-db-integrations for this
    framework stores it, in the same order and with its times.

    \b
      openai-agents  SQLiteSession, SQLAlchemySession
      google-adk     DatabaseSessionService
      langchain      SQLChatMessageHistory; needs LangChain
      llama-index    SQLAlchemyChatStore, also that of Memory; needs LlamaIndex

    Stop the old application first. Running it again, also after it was killed, goes on where it
    ended: a message that is there is left as it is. A row that cannot be imported is named with the
    reason, and the others are imported.

    \b
    Examples:
      director-db import --from openai-agents sqlite:///conversations.db
      director-db import --from google-adk postgresql://app@db.internal/adk --dry-run
      director-db import --from openai-agents sqlite:///old.db --table agent_messages=items

    \b
    Exit status:
      0    all is imported
      1    some rows are not, each of which was named
      2    not possible, or not to the end, for the reason that is printed
    """  # noqa: D301
    load = _find(source)
    database = None if dry_run else load_db(db)
    imported = load(url, tables, database, _print_refused)
    _print_imported(None if database is None else database.place, imported)
    return FAILED if imported.refused else OK


def _find(name: str) -> Source:
    from importlib import metadata  # noqa: PLC0415 - for this command alone

    found = {each.name: each for each in metadata.entry_points(group=SOURCES)}
    if name not in found:
        if found:
            message = f"There is no source {name}; there are {', '.join(sorted(found))}."
        else:
            message = "To import needs another package: pip install director-db-integrations"
        raise ConfigurationError(message)
    try:
        source: Source = found[name].load()
    except Exception as error:
        message = f"The source {name} cannot be loaded: {type(error).__name__}: {error}"
        raise PluginError(message) from error
    return source


def _print_refused(row: str) -> None:
    from rich.text import Text  # noqa: PLC0415

    from director_db.cli.console import CommandConsole  # noqa: PLC0415

    console = CommandConsole()
    console.print(
        Text.assemble(("Refused: ", "bold yellow"), visible(row)),
        soft_wrap=not console.is_terminal,
    )


def _print_imported(place: str | None, imported: Imported) -> None:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from director_db.cli.console import CommandConsole  # noqa: PLC0415

    console = CommandConsole()
    verdict = "counted; nothing is stored" if place is None else "imported"
    if imported.refused:
        verdict, mark, style = f"{verdict}, but for what is refused", "failed", "bold red"
    else:
        mark, style = "passed", "bold green"
    console.print(Text.assemble((f"{getattr(console.marks, mark)} {verdict}", style)))
    if place is not None:
        console.print(Text(visible(place), style="bold"), soft_wrap=True)
    table = Table(box=box.ROUNDED, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_row("sessions", f"{imported.sessions:,}")
    table.add_row("messages read", f"{imported.messages:,}")
    stored = "stored" if place is not None else "that can be stored"
    table.add_row(stored, f"{imported.stored:,}")
    if place is not None:
        table.add_row("already there", f"{imported.already_there:,}")
    table.add_row("rows refused", f"{imported.refused:,}")
    console.print(table)
