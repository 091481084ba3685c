"""Where the command gets places from.

It is a program, too, and looked into by another process first: what a broken package does as it is
imported, such as to hang or to end the process, must not reach the command.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from director_db.errors import DirectorDBError
from director_db.loading import load_backend
from director_db.testing import Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The plugin cannot offer these itself: a server takes what only this package brings along.
_OURS: Final = {"postgres": "director_db_conformance.postgres_place"}

_READY: Final = "director-db-conformance: places are provided"


class NoPlaceError(LookupError):
    """The package of a backend gives no places for tests; the text says what to do."""


def provisioner(db_type: str) -> Callable[[Path], Place]:
    """Return what makes a new place for a backend; it takes an empty folder.

    Raises:
        UnknownDBTypeError: no installed backend has this type.
        PluginError: its package is broken.
        NoPlaceError: it does not implement the hook ``director_db_provision``.
    """
    backend = load_backend(db_type)
    name = backend.spec.name
    hook = backend.hooks.hook.director_db_provision
    if not hook.get_hookimpls() and name not in _OURS:
        message = (
            f"The package of {name!r} offers no places for tests. Let its plugin implement the "
            "hook director_db_provision, or write a file of tests with a subclass of "
            "ConformanceSuite."
        )
        raise NoPlaceError(message)

    def new_place(directory: Path) -> Place:
        ours = not hook.get_hookimpls()
        provide = importlib.import_module(_OURS[name]).provision if ours else hook
        place = provide(directory=directory)
        if not isinstance(place, Place) or place.db_type != name:
            message = f"The hook of {name!r} returned {place!r}, which is no place of that type."
            raise NoPlaceError(message)
        return place

    return new_place


def why_unusable(db_type: str, time_limit: float = 60.0) -> str | None:
    """Say why a backend cannot be run at all; None if it can. Looked at in another process.

    Args:
        db_type: the backend.
        time_limit: how long its package may take to be imported, in seconds.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter that runs us
            # By its path: this package would import pytest, which takes longer than all the rest.
            [sys.executable, "-P", __file__, db_type],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=time_limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"The package of {db_type!r} was not imported within {time_limit:g} s."
    if done.stdout.splitlines()[-1:] == [_READY]:
        return None
    said = done.stderr.strip().splitlines()[-1:]
    if said:
        return said[0]
    status = done.returncode
    return f"The package of {db_type!r} ended the process at its import, with status {status}."


if __name__ == "__main__":
    try:
        provisioner(sys.argv[1])
    except (DirectorDBError, NoPlaceError) as error:
        sys.exit(str(error))
    sys.stdout.write(f"{_READY}\n")
