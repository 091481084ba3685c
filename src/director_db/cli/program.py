"""The program: from arguments to an exit status."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from director_db.cli import watchdog
from director_db.cli.complaints import complain, describe, message_of
from director_db.cli.group import command
from director_db.cli.options import CLOSED_PIPE, ERROR, INTERRUPTED, PROGRAM
from director_db.errors import DirectorDBError

if TYPE_CHECKING:
    from collections.abc import Sequence


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
        complain("Interrupted.", given)
        status = INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        status = CLOSED_PIPE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else PROGRAM
        message = error.format_message()
        stop = "" if message.endswith((".", "?", "!")) else "."
        complain(f"Error: {message}{stop} See: {path} --help", given)
        status = ERROR
    except (click.ClickException, DirectorDBError) as error:
        complain(f"Error: {message_of(error)}", given)
        status = ERROR
    except Exception as error:  # noqa: BLE001 - a fault of a backend, or of ours: still one line
        complain(f"Error: {describe(error)}", given)
        _discard_output()
        status = ERROR
    watchdog.leave(status)
    return status


def _discard_output() -> None:
    # What is still in the buffer would fail once more when the interpreter flushes it at its end.
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _run(arguments: list[str]) -> int:
    # Not command.main(): it turns a closed pipe into exit status 1, which here means unhealthy.
    try:
        with command.make_context(PROGRAM, arguments) as context:
            status: int = command.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return status
