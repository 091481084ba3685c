"""Other processes that need not import all they need: forks of one that has.

A clause starts up to five interpreters, a run of the suite some seventy, and to import the core and
a driver takes each of them longer than what it then does. So, on Linux, one process imports `SAFE`
modules, and has no instance, no connection and no thread; what a clause starts is a fork of that. A
backend of somebody else's is imported in the fork: what it looks at then, and what it starts, is as
in a new process.

This file is also the program of that process. It runs by its path, so that what it forks has
nothing of this package, and imports nothing but the standard library.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SAFE: Final = ("director_db.asyncio", "director_db_sqlite", "director_db_postgres.db", "msgspec")
"""What may be imported before a fork, if whoever asks has imported it."""

_NUMBER: Final = struct.Struct("!i")
_STREAMS: Final = 3
_UNKNOWN: Final = -signal.SIGKILL
"""The status of a process that nobody can tell any more, as what forked it was killed."""


class Forked(subprocess.Popen[str]):
    """A process that another one has forked, with pipes for all three streams.

    It is no child of ours, so its status comes through one more pipe.
    """

    def __init__(self, pid: int, args: Sequence[str], pipes: Sequence[int]) -> None:
        """Take a process that has begun, and our ends of its pipes, of which it has the others."""
        self.args = args
        self.pid = pid
        self.returncode: int | None = None
        stdin, stdout, stderr, self._status = pipes
        self.stdin = open(stdin, "w")  # noqa: SIM115, PTH123 - as Popen's
        self.stdout = open(stdout)  # noqa: SIM115, PTH123
        self.stderr = open(stderr)  # noqa: SIM115, PTH123
        self._telling = threading.Lock()
        # What the methods of Popen ask of an object that its own __init__ has made.
        self.encoding = self.errors = None
        self.text_mode = True
        self._input = None
        self._communication_started = False
        self._sigint_wait_secs = 0.0
        self._child_created = False  # Not by us: there is nothing to reap.

    def _wait(self, timeout: float | None) -> int:
        with self._telling:
            if self.returncode is None:
                told = select.poll()
                told.register(self._status, select.POLLIN)
                if not told.poll(None if timeout is None else 1000 * timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
                status = os.read(self._status, _NUMBER.size)
                os.close(self._status)
                self.returncode = _NUMBER.unpack(status)[0] if status else _UNKNOWN
            return self.returncode

    def _internal_poll(self, _deadstate: object = None) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode

    def __del__(self) -> None:
        if self.returncode is None:
            os.close(self._status)


class Warm:
    """A process that waits for what it shall fork."""

    def __init__(self, env: Mapping[str, str], modules: Sequence[str]) -> None:
        """Start it; it ends when this process does.

        Args:
            env: variables besides our own.
            modules: what it imports, before the first fork.
        """
        self._modules = modules
        ours, its = socket.socketpair()
        self._asking = threading.Lock()
        self._socket = ours
        with its:
            # By its path, and without the folder of this file among those to import from.
            command = [sys.executable, "-P", __file__, str(its.fileno())]
            self._process = subprocess.Popen(  # noqa: S603 - the interpreter that runs us
                command,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
            )
        self._owner = os.getpid()
        atexit.register(self.close)

    def close(self) -> None:
        """Let it end; what it has forked goes on."""
        if self._owner == os.getpid():
            self._socket.close()
            self._process.wait()

    def python(
        self, code: str, args: Sequence[str], env: Mapping[str, str], cwd: Path | None = None
    ) -> Forked | None:
        """Run code as ``python -c`` does; None if nothing can be forked, as a module has threads.

        Args:
            code: the program.
            args: its arguments.
            env: all of its environment.
            cwd: the folder to run in; None is the current one.
        """
        request = [code, args, dict(env), str(cwd or Path.cwd()), self._modules]
        text = json.dumps(request).encode()
        pipes = [os.pipe() for _ in range(_STREAMS + 1)]
        pipes[0] = pipes[0][::-1]  # The first one is written by us.
        try:
            with self._asking:
                header = _NUMBER.pack(len(text))
                socket.send_fds(self._socket, [header], [its for _, its in pipes])
                self._socket.sendall(text)
                pid = _NUMBER.unpack(_received(self._socket, _NUMBER.size))[0]
        except OSError:
            pid = 0  # It has ended, as by a module that ends what imports it.
        for _, its in pipes:
            os.close(its)
        ours = [ours for ours, _ in pipes]
        if pid:
            return Forked(pid, [sys.executable, "-c", code, *args], ours)
        for end in ours:
            os.close(end)
        return None


def python(code: str, args: Sequence[str], env: Mapping[str, str]) -> Forked | None:
    """Run code as `Warm.python` does, in a fork of a process that is kept for more.

    None where there are no such processes: whoever asks then starts Python.
    """
    if sys.platform != "linux":
        return None
    # What Python itself reads as it starts is to be the same.
    own = tuple(sorted((name, text) for name, text in env.items() if name.startswith("PYTHON")))
    modules = tuple(name for name in SAFE if name in sys.modules)
    return _warm(os.getpid(), own, modules).python(code, args, env)


@functools.cache
def _warm(_owner: int, own: tuple[tuple[str, str], ...], modules: tuple[str, ...]) -> Warm:
    """Return the one of this process; a fork of it has its own."""
    return Warm(dict(own), modules)


# --- The process that forks ----------------------------------------------------------------------


def _received(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            message = "the other end is closed"
            raise ConnectionError(message)
        found += part
    return found


def _fork_as_asked(connection: socket.socket) -> tuple[str, dict[str, Any]]:
    """Fork one process after another; returns only in these, what they have to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ended, wake = os.pipe()
    for end in (ended, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    running: dict[int, int] = {}
    ready = select.poll()
    ready.register(ended, select.POLLIN)
    ready.register(connection, select.POLLIN)
    while True:
        awake = {at for at, _ in ready.poll()}
        if ended in awake:
            os.read(ended, 4096)
            _tell_who_ended(running)
        if connection.fileno() not in awake:
            continue
        header, streams, *_ = socket.recv_fds(connection, _NUMBER.size, _STREAMS + 1)
        if not header:
            os._exit(0)  # Whoever asked has ended.
        code, args, env, folder, modules = json.loads(
            _received(connection, _NUMBER.unpack(header)[0])
        )
        for module in modules:
            with contextlib.suppress(Exception):  # The code itself will tell.
                importlib.import_module(module)
        gc.freeze()
        pid = 0
        if len([*Path("/proc/self/task").iterdir()]) == 1:
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                return _become(code, args, env, folder, streams)
            running[pid] = streams.pop()
        for stream in streams:
            os.close(stream)
        connection.sendall(_NUMBER.pack(pid))


def _tell_who_ended(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        teller = running.pop(pid)
        with contextlib.suppress(OSError):  # Nobody may want to know.
            os.write(teller, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
        os.close(teller)


def _become(
    code: str, args: list[str], env: dict[str, str], folder: str, streams: list[int]
) -> tuple[str, dict[str, Any]]:
    """Make this fork what ``python -c`` would have started."""
    for number, stream in enumerate(streams[:_STREAMS]):
        os.dup2(stream, number)
    last = max(int(open_file.name) for open_file in Path("/proc/self/fd").iterdir())
    os.closerange(_STREAMS, last + 1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["-c", *args]
    sys.orig_argv = [sys.executable, "-c", code, *args]
    sys.path.insert(0, "")
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    return code, vars(main)


if __name__ == "__main__":
    # At the very end, so that it ends as the interpreter ends, with all that is done then.
    exec(*_fork_as_asked(socket.socket(fileno=int(sys.argv[1]))))  # noqa: S102
