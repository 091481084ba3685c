"""What the commands share: the option ``--db``, and their exit statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

PROGRAM: Final = "director-db"

OK: Final = 0
FAILED: Final = 1
ERROR: Final = 2
# As a shell reports a process that the signal ended.
INTERRUPTED: Final = 130
CLOSED_PIPE: Final = 141


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
