"""The unprivileged account that servers run under when the tests run as root."""

from __future__ import annotations

import os
import sys
from typing import Any, Final, NamedTuple

from director_db_conformance.servers.offer import UnavailableError

# Accounts that exist already; making one would change the machine for the sake of a test.
_CANDIDATES: Final = ("postgres", "nobody")


class Account(NamedTuple):
    """An account of the system."""

    name: str
    user: int
    group: int


def server_account() -> Account | None:
    """Return the account to start servers under; None is the account that we have.

    Raises:
        UnavailableError: servers cannot be started here.
    """
    if sys.platform == "win32":
        message = "throw-away clusters are not made on Windows"
        raise UnavailableError(message)
    if os.geteuid() != 0:
        return None
    import pwd  # noqa: PLC0415 - not on Windows

    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    message = f"Postgres does not run as root, and there is no account {' or '.join(_CANDIDATES)}"
    raise UnavailableError(message)


def run_as(account: Account | None) -> dict[str, Any]:
    """Return the arguments of `subprocess` that start a program under an account."""
    if account is None:
        return {}
    # Without extra_groups=[], the program would keep root's own groups.
    return {"user": account.user, "group": account.group, "extra_groups": []}


def give(path: str | os.PathLike[str], account: Account | None) -> None:
    """Make an account the owner of a file or folder."""
    if account is not None:
        os.chown(path, account.user, account.group)
