"""What every cluster begins with: programs that its account can run, and what initdb writes."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from director_db_conformance.servers.account import give, run_as, server_account
from director_db_conformance.servers.folder import ServerFolder
from director_db_conformance.servers.throw_away import SUPERUSER, ServerFailedError

if TYPE_CHECKING:
    from pathlib import Path

    from director_db_conformance.servers.account import Account
    from director_db_conformance.servers.installation import Installation


class Template(NamedTuple):
    """A cluster that never runs, for others to be copied from.

    Attributes:
        programs: the folder with the programs.
        data: the files of the cluster.
        password: that of its superuser.
    """

    programs: Path
    data: Path
    password: str


_templates: Final[dict[Installation, Template]] = {}
_lock = threading.Lock()


def template(installation: Installation) -> Template:
    """Return the template of an installation, which lives as long as the process that made it.

    To copy it takes a tenth of the time of initdb.

    Raises:
        ServerFailedError: initdb did not succeed.
        UnavailableError: servers cannot be started here.
    """
    with _lock:
        found = _templates.get(installation)
        if found is None:
            found = _templates[installation] = _make(installation)
        return found


def _after_fork_in_child() -> None:
    # They go with the process that made them, whose threads may hold the lock.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _templates.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def run(program: str | Path, *arguments: str | Path, cwd: Path, account: Account | None) -> None:
    """Run a program that prepares a cluster, under the server's account.

    Raises:
        ServerFailedError: it did not succeed.
    """
    result = subprocess.run(  # noqa: S603
        [program, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=environment(),
        cwd=cwd,
        **run_as(account),
    )
    if result.returncode != 0:
        message = f"{program} failed with status {result.returncode}:\n{result.stderr}"
        raise ServerFailedError(message)


def environment() -> dict[str, str]:
    """Return ours, without what would speak of another server, such as PGDATA."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return {**inherited, "LC_ALL": "C"}


def _make(installation: Installation) -> Template:
    account = server_account()
    folder = ServerFolder(account)
    try:
        programs = _unpack(installation, folder)
        data = folder.path / "data"
        data.mkdir(mode=0o700)
        give(data, account)
        password = secrets.token_urlsafe(16)
        password_file = folder.path / "password"
        password_file.touch(mode=0o600)
        give(password_file, account)
        password_file.write_text(password)
        arguments = [
            *("-D", str(data), "-U", SUPERUSER, f"--pwfile={password_file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"),
            *("--no-sync", "--no-instructions"),
        ]
        # Most databases in production do not sort by code point; nor does ours, where the build can
        # do otherwise. Tests then see where a query relies on its own order without saying so.
        collation = ("--locale-provider=icu", "--icu-locale=en")
        try:
            run(programs / "initdb", *arguments, *collation, cwd=folder.path, account=account)
        except ServerFailedError:
            run(programs / "initdb", *arguments, cwd=folder.path, account=account)
        password_file.unlink()
    except BaseException:
        folder.remove()
        raise
    atexit.register(folder.remove)
    return Template(programs, data, password)


def _unpack(installation: Installation, folder: ServerFolder) -> Path:
    packed, programs = installation.packed, installation.programs
    if packed is None:
        return programs
    copy = folder.path / "programs"
    # Only what runs: headers and static libraries are the better half.
    shutil.copytree(packed, copy, ignore=shutil.ignore_patterns("include", "*.a", "__pycache__"))
    for path in [copy, *copy.rglob("*")]:
        give(path, folder.account)
    return copy / programs.relative_to(packed)
