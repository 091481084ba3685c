"""Ending what a command leaves behind when it is killed.

It runs as a process of its own, in a session of its own, and reads what the command tells it: a
line ``+42`` for a group of processes that it has started, and ``-42`` when it has ended them. The
pipe closes when the command ends, in whatever way; then all groups that are left are killed, and
the command's folder is removed.

The processes could not do that by themselves: one that hangs sees nothing of what happens.

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
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE: Final = 10.0
_PAUSE: Final = 0.02


class Guard:
    """The command's end of the pipe."""

    def __init__(self, folder: Path) -> None:
        """Start the guard, over groups of processes and over a folder."""
        self._process = subprocess.Popen(  # noqa: S603 - the interpreter that runs us
            [sys.executable, "-I", "-S", __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the command.
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.communicate(timeout=_PATIENCE)

    def watch(self, group: int) -> None:
        """Let it end a group of processes if the command cannot."""
        self._write_line(f"+{group}")

    def forget(self, group: int) -> None:
        """A group has ended."""
        self._write_line(f"-{group}")

    def _write_line(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - for type checkers
        # A guard that somebody has killed costs no verdict.
        with contextlib.suppress(OSError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()


def wait_and_end(folder: str) -> None:
    """Wait until the command has ended, then end what it has left."""
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    for group in groups:
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(group, signal.SIGKILL)
            else:
                os.kill(group, signal.SIGTERM)  # On Windows it ends the process as SIGKILL does.
    deadline = time.monotonic() + _PATIENCE
    while os.path.exists(folder) and time.monotonic() < deadline:  # noqa: PTH110 - starts faster
        # What was killed just now may still be at work in it.
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_PAUSE)


if __name__ == "__main__":
    wait_and_end(sys.argv[1])
