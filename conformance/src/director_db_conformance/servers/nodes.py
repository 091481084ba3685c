"""Servers of somebody's own that tests may kill: each by the folder of its data."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from typing import TYPE_CHECKING, ClassVar, Final

from director_db_conformance.servers.reaper import processes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PATIENCE: Final = 60.0
_PAUSE: Final = 0.01

# Of postmaster.pid, counted from 0.
_STATUS_LINE: Final = 7


class NodeFailedError(RuntimeError):
    """A server did not end, or did not start again; the text says which."""


class Node:
    """A server on this machine that was not started by the tests and outlives them.

    How it is started is what it has noted in its folder itself, ``postmaster.opts``.
    """

    # Those that this process has started; they outlive it.
    _started: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, data: Path) -> None:
        """Take the folder of a server's data."""
        self._data = data

    def kill(self) -> None:
        """End all its processes with SIGKILL, as if the machine had crashed."""
        pid = self._pid()
        if pid is None:
            return
        # Held first, lest it notices that its children die and starts new ones.
        os.kill(pid, signal.SIGSTOP)
        family = {pid} | {process.pid for process in processes() if process.parent == pid}
        for one in family:
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._wait_for_the_end_of(family)

    def stop(self) -> None:
        """Stop it in order."""
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGINT)
            self._wait_for_the_end_of({pid})

    def start(self) -> None:
        """Start it as it was started last, under the account that owns its folder."""
        if self._pid() is not None:
            return
        command = shlex.split((self._data / "postmaster.opts").read_text())
        owner = self._data.stat()
        as_root = os.geteuid() == 0
        with (self._data / "restarted.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - what the server's own folder says
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._data,
                start_new_session=True,
                user=owner.st_uid if as_root else None,
                group=owner.st_gid if as_root else None,
                extra_groups=[] if as_root else None,
            )
        self._started.append(process)
        deadline = time.monotonic() + _PATIENCE
        while self._status() != (process.pid, "ready"):
            if process.poll() is not None or time.monotonic() > deadline:
                message = f"{self._data} did not start; see restarted.log in it."
                raise NodeFailedError(message)
            time.sleep(_PAUSE)

    def _wait_for_the_end_of(self, family: set[int]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while any(map(self._is_there, family)):
            if time.monotonic() > deadline:
                message = f"The server of {self._data} did not end."
                raise NodeFailedError(message)
            time.sleep(_PAUSE)

    def _is_there(self, pid: int) -> bool:
        # Also one that has ended and was not waited for: to a server that starts, it still runs.
        for process in self._started:
            process.poll()
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _pid(self) -> int | None:
        """Return the process id of a server that runs."""
        pid, _ = self._status()
        return pid if pid in {process.pid for process in processes()} else None

    def _status(self) -> tuple[int | None, str]:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None, ""
        status = lines[_STATUS_LINE].strip() if len(lines) > _STATUS_LINE else ""
        return (int(lines[0]) if lines and lines[0].isdecimal() else None), status


def crash(nodes: Sequence[Node]) -> None:
    """Kill all of some servers, then start them again."""
    for node in nodes:
        node.kill()
    for node in nodes:
        node.start()
