"""Ending servers whose owner is dead, and removing what they left.

Every server of the tests lives in a folder with a file ``owner``, which holds the owner's process
id and which the owner keeps locked. The system lets go of that lock when the owner dies, in
whatever way. Each folder has a reaper, a process of its own that waits for this lock. A reaper may
be killed, too; so before a new folder is made, those without an owner are removed. A server in a
container has such a folder as well: its file ``engine`` says which engine runs the container, and
the container has the folder's name.

The process id alone does not show that the owner lives: another process may have it by now.

This file runs by its path in a bare interpreter, so it imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX: Final = "director-db-test-"
OWNER: Final = "owner"
ENGINE: Final = "engine"

# Programs that work in such a folder. A person's editor or `tail` does not get killed.
_PROGRAMS: Final = {"postgres", "initdb", "pg_basebackup", "pgbouncer"}

_PATIENCE: Final = 10.0
_PAUSE: Final = 0.01
# To look through all processes takes as long as that, and a busy machine has more to do.
_LONGEST_PAUSE: Final = 0.2

# An engine ends what runs in a container, frozen or not, and removes its files.
_ENGINE_PATIENCE: Final = 60.0
# What it was told to make just before our end may be there only a moment later.
_AFTERMATH: Final = 2.0
_ENGINE_PAUSE: Final = 0.2
_REMOVED: Final = 204
_NOT_FOUND: Final = 404


class Process(NamedTuple):
    """A process that runs. One that has ended but was not waited for is none."""

    pid: int
    parent: int
    arguments: list[str]


def processes() -> Iterator[Process]:
    """Give all processes of this machine."""
    if Path("/proc/self/stat").exists():
        yield from _processes_from_proc()
    else:
        yield from _processes_from_ps()


def processes_in(folder: Path) -> list[Process]:
    """Return the servers, and the programs that prepare them, that work in a folder."""
    inside = f"{folder}{os.sep}"
    return [
        process
        for process in processes()
        if Path(process.arguments[0]).name in _PROGRAMS
        and any(argument.startswith(inside) for argument in process.arguments[1:])
    ]


def reap(folder: Path) -> None:
    """End all that runs in a folder of ours, and remove it."""
    # To a server, SIGQUIT means: end at once, without writing anything back.
    _signal(processes_in(folder), signal.SIGQUIT)
    if left := _left_after(folder, _PATIENCE):
        _signal(left, signal.SIGKILL)
        _left_after(folder, _PATIENCE)
    for file in folder.glob("*/postmaster.pid"):
        _remove_shared_memory(file)
    if (folder / ENGINE).exists() and not _remove_container(folder):
        return  # For somebody who sweeps when the engine is there again.
    # What just ended may have children that still write; they end by themselves.
    deadline = time.monotonic() + _PATIENCE
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Reap every folder of ours in `parent` whose owner is dead."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            # Only our own: another account's is its own business, and maybe bait.
            if folder.lstat().st_uid != os.geteuid():
                continue
            with (folder / OWNER).open("rb") as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                reap(folder)


def wait_and_reap(folder: Path) -> None:
    """Wait until the owner of a folder lets go of it, then reap what is left."""
    with contextlib.suppress(FileNotFoundError), (folder / OWNER).open("rb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        reap(folder)


def is_plain(engine: str) -> bool:
    """Whether an engine, as ``unix:///var/run/docker.sock``, can be asked in plain HTTP."""
    scheme = urlsplit(engine).scheme
    return scheme == "unix" or (
        scheme in {"tcp", "http"} and not os.environ.get("DOCKER_TLS_VERIFY")
    )


def ask(engine: str, request: str, patience: float) -> int:
    """Ask an engine in plain HTTP, and return the status of its answer; 0 if that is not HTTP.

    Args:
        engine: where it is, as ``unix:///var/run/docker.sock`` or ``tcp://docker:2375``.
        request: such as ``GET /_ping``.
        patience: how long to wait, in seconds.

    Raises:
        OSError: nobody is there, or nobody answers.
    """
    with connect(engine, patience) as line:
        line.sendall(f"{request} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        words = line.recv(1024).split(maxsplit=2)
    is_http = len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1].isdigit()
    return int(words[1]) if is_http else 0


def connect(engine: str, patience: float) -> socket.socket:
    """Connect to an engine that listens on a socket.

    Raises:
        OSError: nobody is there.
    """
    place = urlsplit(engine)
    if place.scheme != "unix":
        address = (place.hostname or "localhost", place.port or 2375)
        return socket.create_connection(address, timeout=patience)
    line = socket.socket(socket.AF_UNIX)
    try:
        line.settimeout(patience)
        line.connect(place.path)
    except BaseException:
        line.close()
        raise
    return line


def _remove_container(folder: Path) -> bool:
    """Remove the container that has a folder's name; False if it may still be there."""
    engine = (folder / ENGINE).read_text()
    request = f"DELETE /containers/{folder.name}?force=1&v=1"
    deadline = time.monotonic() + _AFTERMATH
    while True:
        try:
            status = ask(engine, request, _ENGINE_PATIENCE)
        except OSError:
            return False
        if status == _REMOVED or time.monotonic() > deadline:
            return status in {_REMOVED, _NOT_FOUND}
        time.sleep(_ENGINE_PAUSE)


def _processes_from_proc() -> Iterator[Process]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        # It may end while we look.
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if command:
                # The name, in brackets, may itself contain spaces and brackets.
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                arguments = os.fsdecode(command.rstrip(b"\0")).split("\0")
                yield Process(int(entry.name), int(fields[1]), arguments)


def _processes_from_ps() -> Iterator[Process]:
    command = ["/bin/ps", "-axww", "-o", "pid=,ppid=,stat=,command="]
    listing = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    for line in listing.stdout.splitlines():
        pid, parent, state, *arguments = line.split()
        if arguments and not state.startswith("Z"):
            yield Process(int(pid), int(parent), arguments)


def _left_after(folder: Path, patience: float) -> list[Process]:
    deadline, pause = time.monotonic() + patience, _PAUSE
    while (left := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return left


def _signal(targets: list[Process], number: signal.Signals) -> None:
    for target in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(target.pid, number)


def _remove_shared_memory(file: Path) -> None:
    # A killed server leaves its small System V segment, which its own restart would have removed;
    # the seventh line of the file that it also left behind says which one.
    with contextlib.suppress(OSError, IndexError, ValueError):
        segment = str(int(file.read_text().splitlines()[6].split()[1]))
        program = shutil.which("ipcrm")
        if program is not None:
            subprocess.run([program, "-m", segment], capture_output=True, check=False)  # noqa: S603


if __name__ == "__main__":
    wait_and_reap(Path(sys.argv[1]))
