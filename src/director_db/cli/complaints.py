"""An error as one line on standard error."""

from __future__ import annotations

import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from director_db.cli.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence


def complain(line: str, given: Sequence[str]) -> None:
    """Print a line on standard error, without the passwords that were given."""
    # Where standard error is closed too, the exit status alone has to tell.
    with suppress(OSError):
        click.echo(one_line(line, given), err=True)


def message_of(error: Exception) -> str:
    """Return what an error of ours, or of click's, says."""
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    return message or type(error).__name__


def describe(error: Exception) -> str:
    """Return what is known of an error that nobody foresaw; its place stands for a traceback."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    frames = traceback.extract_tb(error.__traceback__)
    where = (
        f" at {Path(*Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else ""
    )
    return f"unexpected {type(error).__name__}{where}: {error}"
