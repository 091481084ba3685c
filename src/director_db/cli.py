"""The ``director-db`` command: what an operator does with the database of an application.

A command is a function that returns its exit status and lets errors pass; `main` makes one line of
each. Whatever is not needed for ``--help`` is imported inside the command that needs it.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from director_db import __version__, load_db, watchdog
from director_db.errors import ConfigurationError, DirectorDBError
from director_db.printable import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType
    from typing import NoReturn, ParamSpec, TypeVar

    from director_db.records import Distribution, Health, Migration

    P = ParamSpec("P")
    R = TypeVar("R")

OK: Final = 0
FAILED: Final = 1
ERROR: Final = 2
# As a shell reports a process that the signal ended.
INTERRUPTED: Final = 130
CLOSED_PIPE: Final = 141

_PROGRAM: Final = "director-db"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; errors are one line on standard error.

    Args:
        arguments: what follows the program's name; None means those of this process.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A path or a message may hold what the terminal's encoding lacks, or undecodable bytes.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(given)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        if sys.stderr is not None and sys.stderr.isatty():
            click.echo(err=True)  # The terminal has just shown ^C.
        _complain("Interrupted.", given)
        status = INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        status = CLOSED_PIPE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else _PROGRAM
        message = error.format_message()
        stop = "" if message.endswith((".", "?", "!")) else "."
        _complain(f"Error: {message}{stop} See: {path} --help", given)
        status = ERROR
    except (click.ClickException, DirectorDBError) as error:
        _complain(f"Error: {_message_of(error)}", given)
        status = ERROR
    except Exception as error:  # noqa: BLE001 - a fault of a backend, or of ours: still one line
        _complain(f"Error: {_describe(error)}", given)
        _discard_output()
        status = ERROR
    watchdog.leave(status)
    return status


# --- The commands -------------------------------------------------------------------------------


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=_PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def command(context: click.Context) -> int:
    """Look after the database of an AI agent application.

    Without --db, the environment names the database, as it does for the application:

    \b
      DB_TYPE         its type (sqlite, postgres, ...) or a URL; default: sqlite
      SQLITE_DB_PATH  SQLite: the file; default: director.db in the working folder
      POSTGRES_...    Postgres: POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB,
                      POSTGRES_USER, POSTGRES_PASSWORD; or one URL in DATABASE_URL
      DIRECTOR_DB_MIGRATE
                      auto: the first use does what "director-db migrate" does
      NO_COLOR        anything: print no colours

    \b
    Examples:
      director-db demo
      SQLITE_DB_PATH=/var/lib/app/director.db director-db init
      director-db health --db sqlite:////var/lib/app/director.db
      DB_TYPE=postgres POSTGRES_HOST=db.internal director-db health --json

    \b
    Other databases are packages of their own:
      pip install "director-db[postgres]"

    \b
    Exit status:
      0    done
      1    the answer is no: health is bad, or a check of the demo failed
      2    an error, told in one line on standard error
      130  interrupted
    """  # noqa: D301 - \b is for click: keep these lines as they are
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return OK


def database_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add ``--db`` to a command."""
    return click.option(
        "--db",
        "db",
        metavar="TYPE|URL",
        help="A DB type as sqlite, or a URL as sqlite:///app.db or postgresql://host/name. "
        "Default: what DB_TYPE says. A password is safer in the environment than here, where "
        "other users of the machine may see it.",
    )(function)


@command.command()
@database_option
def demo(db: str | None) -> int:
    """Play a small agent session, and prove what is promised.

    An answer streams, a context grows, a second process reads the conversation back, and the
    session is deleted. It runs against your own database, in sessions of its own with random ids
    ("demo-..."), and removes them at the end.

    \b
    Examples:
      director-db demo
      director-db demo --db sqlite:///:memory:

    Exit status: 0 every check passed; 1 one failed; 2 the database cannot be used.
    """  # noqa: D301
    from director_db.console import CommandConsole  # noqa: PLC0415
    from director_db.demo import run  # noqa: PLC0415
    from director_db.demo.show import WIDTH  # noqa: PLC0415

    with _ended_by_signals():
        passed = run(load_db(db), db, CommandConsole(max_width=WIDTH))
    return OK if passed else FAILED


@command.command()
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


@command.command()
@database_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for machines.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
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
        reason = _message_of(error) if isinstance(error, DirectorDBError) else _describe(error)
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
            _complain(f"Unhealthy: {reason}", [db or ""])
        return FAILED
    if as_json:
        click.echo(json.dumps({"healthy": True, **found._asdict(), "error": None}))
    else:
        _print_health(found, "healthy")
    return OK


@command.command()
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


@command.command()
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


# --- What they print ----------------------------------------------------------------------------


def _print_health(health: Health, verdict: str) -> None:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from director_db.console import CommandConsole  # noqa: PLC0415

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


def _print_migration(place: str, migration: Migration) -> None:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from director_db.console import CommandConsole  # noqa: PLC0415

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


def _print_distribution(place: str, done: Distribution, wanted: int | None) -> None:
    from rich.text import Text  # noqa: PLC0415

    from director_db.console import CommandConsole  # noqa: PLC0415

    console = CommandConsole()
    verdict = f"distributed in {done.shards} shards" if done.tables else "distributed already"
    console.print(Text.assemble((f"{console.marks.passed} {verdict}", "bold green")))
    console.print(Text(visible(place), style="bold"), soft_wrap=True)
    for table in done.tables:
        console.print(Text(visible(table)), soft_wrap=True)
    if wanted not in {None, done.shards}:
        warning = f"there are {done.shards} shards, and stay so; {wanted} were asked for."
        console.print(Text.assemble(("Warning: ", "bold yellow"), warning), soft_wrap=True)


def _complain(line: str, given: Sequence[str]) -> None:
    # Where standard error is closed too, the exit status alone has to tell.
    with suppress(OSError):
        click.echo(one_line(line, given), err=True)


def _message_of(error: Exception) -> str:
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    return message or type(error).__name__


def _describe(error: Exception) -> str:
    """Return what is known of an error that nobody foresaw; its place stands for a traceback."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    frames = traceback.extract_tb(error.__traceback__)
    where = (
        f" at {Path(*Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else ""
    )
    return f"unexpected {type(error).__name__}{where}: {error}"


# --- Being ended --------------------------------------------------------------------------------


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let the signals that end a process unwind it, so that it cleans up after itself."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    # A closed terminal sends SIGHUP, which Windows does not have.
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _discard_output() -> None:
    # What is still in the buffer would fail once more when the interpreter flushes it at its end.
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _run(arguments: list[str]) -> int:
    # Not command.main(): it turns a closed pipe into exit status 1, which here means unhealthy.
    try:
        with command.make_context(_PROGRAM, arguments) as context:
            status: int = command.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return status


if __name__ == "__main__":
    sys.exit(main())
