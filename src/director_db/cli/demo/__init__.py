"""``director-db demo``: a small agent session, played through the public operations alone.

`story` holds what is said, `play` stores it and checks each promise, `show` makes it readable, and
`second_process` reopens the conversation.
"""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from director_db import load_db
from director_db.cli.options import FAILED, OK, database_option

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import NoReturn


@click.command()
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
    from director_db.cli.console import CommandConsole  # noqa: PLC0415
    from director_db.cli.demo.run import run  # noqa: PLC0415
    from director_db.cli.demo.show import WIDTH  # noqa: PLC0415

    with _ended_by_signals():
        passed = run(load_db(db), db, CommandConsole(max_width=WIDTH))
    return OK if passed else FAILED


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
