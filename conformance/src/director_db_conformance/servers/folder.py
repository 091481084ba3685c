"""A temporary folder for a server, which goes together with the process that made it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

from director_db_conformance.servers import reaper
from director_db_conformance.servers.account import run_as
from director_db_conformance.servers.offer import UnavailableError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from director_db_conformance.servers.account import Account

# The owner lists and writes; the server's account only passes through to what it is given.
_MODE: Final = 0o711

_REAPER_PATIENCE: Final = 30.0


class ServerFolder:
    """A folder that a server of the tests lives in.

    Attributes:
        path: where it is.
        account: the account that the server runs under, None for our own.
    """

    def __init__(self, account: Account | None) -> None:
        """Make the folder, after removing those that dead runs left.

        Raises:
            UnavailableError: the account cannot reach any temporary folder.
        """
        self.account = account
        self.path = _make_reachable(account)
        self._process = os.getpid()
        self._lock = self._take()
        _open_folders.add(self)
        try:
            self._reaper = self._start_reaper()
        except BaseException:
            shutil.rmtree(self.path)
            self.let_go()
            raise

    @property
    def is_ours(self) -> bool:
        """Whether this process made it; a forked child only has a copy of the object."""
        return self._process == os.getpid()

    def remove(self) -> None:
        """End all that runs in it and remove it; nothing happens in a forked child."""
        if not self.is_ours or self._lock < 0:
            return
        reaper.reap(self.path)
        self.let_go()
        self._reaper.wait(_REAPER_PATIENCE)

    def let_go(self) -> None:
        """Close our handle of the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _start_reaper(self) -> subprocess.Popen[bytes]:
        # In a session of its own, so that the Ctrl-C that ends us does not end it first.
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", reaper.__file__, str(self.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def _take(self) -> int:
        # Locked before it gets its name: somebody who sweeps must never find it unlocked.
        unnamed = self.path / "owner.new"
        handle = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, f"{os.getpid()}\n".encode())
        unnamed.rename(self.path / reaper.OWNER)
        return handle


_open_folders: weakref.WeakSet[ServerFolder] = weakref.WeakSet()


def _let_go_in_child() -> None:
    # A forked child shares the lock as long as it has it open, and may outlive us.
    for folder in list(_open_folders):
        folder.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


def _make_reachable(account: Account | None) -> Path:
    parents = [Path(tempfile.gettempdir())]
    if account is not None:
        # Root's own temporary folder may be closed to everybody else.
        parents += [parent for parent in (Path("/tmp"), Path("/var/tmp")) if parent not in parents]  # noqa: S108
    for parent in parents:
        reaper.sweep(parent)
        path = Path(tempfile.mkdtemp(prefix=reaper.PREFIX, dir=parent))
        path.chmod(_MODE)
        if is_reachable(path, account):
            return path
        path.rmdir()
    message = f"the account {account.name if account else ''} can reach none of {parents}"
    raise UnavailableError(message)


def is_reachable(path: Path, account: Account | None) -> bool:
    """Whether an account can pass through a folder; None is the account that we have."""
    if account is None:
        return True
    command = ["/bin/sh", "-c", 'cd "$0"', str(path)]
    result = subprocess.run(  # noqa: S603
        command, capture_output=True, check=False, cwd="/", **run_as(account)
    )
    return result.returncode == 0
