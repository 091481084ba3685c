"""What every cluster begins with: programs that its account can run, and what initdb writes."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from director_db_conformance.servers.account import give, run_as, server_account
from director_db_conformance.servers.folder import ServerFolder, is_reachable
from director_db_conformance.servers.throw_away import SUPERUSER, ServerFailedError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

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


FOLDER_VARIABLE: Final = "DIRECTOR_DB_TEST_TEMPLATES"
"""Names a folder in which processes share their templates. Whoever sets it makes and removes it,
and lets the account that servers run under pass through; where that cannot, nothing is shared."""

_templates: Final[dict[Installation, Template]] = {}
_lock = threading.Lock()


def template(installation: Installation) -> Template:
    """Return the template of an installation, which lives as long as the process that made it.

    In the folder that `FOLDER_VARIABLE` names it outlives that. To copy it takes a tenth of the
    time of initdb.

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
    shared = os.environ.get(FOLDER_VARIABLE)
    if shared and is_reachable(Path(shared), account):
        return _find_or_make(Path(shared), installation, account)
    folder = ServerFolder(account)
    try:
        made = _make_in(folder.path, installation, account)
    except BaseException:
        folder.remove()
        raise
    atexit.register(folder.remove)
    return made


def _find_or_make(shared: Path, installation: Installation, account: Account | None) -> Template:
    """Return the one that another process has made there, or make it for the others."""
    name = hashlib.sha256(repr(installation).encode()).hexdigest()[:16]
    finished = shared / f"{name}.finished"
    with _locked(shared / f"{name}.lock"):
        if not finished.exists():
            # A new one each time: initdb of a process that was killed may still write.
            place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=shared))
            place.chmod(0o711)
            made = _make_in(place, installation, account)
            unnamed = place / "finished"
            unnamed.touch(mode=0o600)
            unnamed.write_text(f"{place.name}\n{made.password}")
            unnamed.replace(finished)
            return made
    folder, password = finished.read_text().split()
    place = shared / folder
    return Template(_programs_in(place, installation), place / "data", password)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # A fork of another thread's may have it open, too.
        os.close(handle)


def _make_in(place: Path, installation: Installation, account: Account | None) -> Template:
    programs = _unpack(installation, place, account)
    data = place / "data"
    data.mkdir(mode=0o700)
    give(data, account)
    password = secrets.token_urlsafe(16)
    password_file = place / "password"
    password_file.touch(mode=0o600)
    give(password_file, account)
    password_file.write_text(password)
    arguments = [
        *("-D", str(data), "-U", SUPERUSER, f"--pwfile={password_file}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"),
        *("--no-sync", "--no-instructions"),
    ]
    # Most databases in production do not sort by code point; nor does ours, where the build can do
    # otherwise. Tests then see where a query relies on its own order without saying so.
    collation = ("--locale-provider=icu", "--icu-locale=en")
    try:
        run(programs / "initdb", *arguments, *collation, cwd=place, account=account)
    except ServerFailedError:
        run(programs / "initdb", *arguments, cwd=place, account=account)
    password_file.unlink()
    return Template(programs, data, password)


def _programs_in(place: Path, installation: Installation) -> Path:
    """Return where the programs are that the server's account can reach."""
    packed, programs = installation.packed, installation.programs
    return programs if packed is None else place / "programs" / programs.relative_to(packed)


def _unpack(installation: Installation, place: Path, account: Account | None) -> Path:
    packed = installation.packed
    if packed is None:
        return installation.programs
    copy = place / "programs"
    # Only what runs: headers and static libraries are the better half.
    shutil.copytree(packed, copy, ignore=shutil.ignore_patterns("include", "*.a", "__pycache__"))
    for path in [copy, *copy.rglob("*")]:
        give(path, account)
    return _programs_in(place, installation)
