"""Ending servers whose owner is dead, and removing what they left.

Every server of the tests lives in a folder with a file ``owner``, which holds the owner's process
id and which the owner keeps locked. The system lets go of that lock when the owner dies, in
whatever way. One reaper for each folder waits for just that, as a process of its own; and whoever
makes a new folder first sweeps up those that have no owner left, in case that a reaper was killed,
too.

A process id alone could not tell: it may belong to another process by now.

This file runs by its path in a bare interpreter, so it imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX: Final = "director-db-test-"
OWNER: Final = "owner"

# Programs that work in such a folder. A person's editor or `tail` does not get killed.
_PROGRAMS: Final = {"postgres", "initdb", "pg_basebackup", "pgbouncer"}

_PATIENCE: Final = 10.0
_PAUSE: Final = 0.01


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
    deadline = time.monotonic() + patience
    while (left := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
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
