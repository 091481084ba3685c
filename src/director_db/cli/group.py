"""The command with its subcommands."""

from __future__ import annotations

import click

from director_db import __version__
from director_db.cli.demo import demo
from director_db.cli.distribute import distribute
from director_db.cli.health import health, init
from director_db.cli.importing import import_
from director_db.cli.migrate import migrate
from director_db.cli.options import OK, PROGRAM


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
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
      1    the answer is no: health is bad, a check of the demo failed, or some rows
           could not be imported
      2    an error, told in one line on standard error
      130  interrupted
    """  # noqa: D301 - \b is for click: keep these lines as they are
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return OK


for subcommand in (demo, init, health, import_, migrate, distribute):
    command.add_command(subcommand)
