"""A folder with the programs of a Postgres server."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final, NamedTuple

from director_db_conformance.servers.account import run_as
from director_db_conformance.servers.offer import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from director_db_conformance.servers.account import Account

MIN_VERSION: Final = 15
"""The oldest major version that tests run on."""

_PATIENCE: Final = 10.0
_VERSION: Final = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")


class Installation(NamedTuple):
    """The programs of one version.

    Attributes:
        programs: the folder that has ``initdb`` and ``postgres``.
        version: such as ``15.18``.
        major: such as 15.
        packed: a folder to copy first, as the server's account cannot reach the programs
            where they are; None if it can. `programs` lies somewhere below it.
    """

    programs: Path
    version: str
    major: int
    packed: Path | None = None


def inspect(programs: Path, account: Account | None = None) -> Installation | None:
    """Ask the programs in a folder for their version, running as an account.

    Returns:
        None if the folder has no server, or one that the account cannot run.
    """
    if not (programs / "initdb").exists():
        return None
    try:
        output = subprocess.run(  # noqa: S603
            [programs / "postgres", "--version"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=_PATIENCE,
            **run_as(account),
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.search(output)
    return None if found is None else Installation(programs, found[1], int(found[2]))


def choose(installations: list[Installation], version: int | None) -> Installation:
    """Return the newest installation, or the one of a major version.

    Raises:
        UnavailableError: none is of that version, or new enough.
    """
    if not installations:
        message = "no initdb and postgres were found"
        raise UnavailableError(message)
    fitting = [
        found
        for found in installations
        if (found.major == version if version is not None else found.major >= MIN_VERSION)
    ]
    if not fitting:
        wanted = f"{MIN_VERSION} or newer" if version is None else str(version)
        there = ", ".join(sorted({found.version for found in installations}))
        message = f"version {wanted} is needed; found {there}"
        raise UnavailableError(message)
    return max(fitting, key=lambda found: _sort_key(found.version))


def _sort_key(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
