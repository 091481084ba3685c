"""Forks of a process that has imported what many begin with, in place of new interpreters.

A clause starts up to five interpreters, a run of the suite some seventy, and to import the core and
a driver takes each of them longer than what it then does. So, on Linux, a process imports `SAFE`
modules, and has no instance, no connection and no thread; what a clause starts is a fork of that. A
backend of somebody else's is imported in the fork: what it looks at then, and what it starts, is as
in a new process. There are two such processes, which take turns, as all forks of one hash texts
alike: a backend that takes `hash()` for the same everywhere is to be found out.

The text of this file is also the program of that process, so it imports nothing but the standard
library, and the forks have nothing of this package.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import itertools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SAFE: Final = ("director_db.asyncio", "director_db_sqlite", "director_db_postgres.db", "msgspec")
"""What may be imported before a fork, if whoever asks has imported it."""

IS_POSSIBLE: Final = hasattr(os, "pidfd_open")
"""Whether this system, as Linux, has what the forks need."""

_AT_ITS_START: Final = ("PYTHON", "LANG", "LC_", "TZ", "PSYCOPG_")
"""How the names of variables begin that a program reads once."""

_NUMBER: Final = struct.Struct("!i")
_STREAMS: Final = 3
_PATIENCE: Final = 120.0  # Seconds for an answer: what is imported before the first may take long.
_TAKE_TURNS: Final = 2


class Forked(subprocess.Popen[str]):
    """A process that another one has forked, with pipes for all three streams.

    It is no child of ours, so its status comes through one more pipe, and signals go to it by a
    descriptor of its own: its number may be another's by then.
    """

    def __init__(self, pid: int, args: Sequence[str], ends: Sequence[int]) -> None:
        """Take a process that has begun, our ends of its pipes, and its descriptor."""
        self.args = args
        self.pid = pid
        self.returncode: int | None = None
        stdin, stdout, stderr, self._status, self._descriptor = ends
        self.stdin = open(stdin, "w")  # noqa: SIM115, PTH123 - as Popen's
        self.stdout = open(stdout)  # noqa: SIM115, PTH123
        self.stderr = open(stderr)  # noqa: SIM115, PTH123
        self._reading = threading.RLock()
        # What the methods of Popen ask of an object that its own __init__ has made.
        self.encoding = self.errors = None
        self.text_mode = True
        self._input = None
        self._communication_started = False
        self._sigint_wait_secs = 0.0
        self._child_created = False  # Not by us: there is nothing to reap.

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, sig)

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            ended = select.poll()
            ended.register(self._status, select.POLLIN)
            if not ended.poll(None if timeout is None else 1000 * max(0, timeout)):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        with self._reading:
            if self.returncode is None:
                status = os.read(self._status, _NUMBER.size)
                if status:
                    self.returncode = _NUMBER.unpack(status)[0]
                elif self.returncode is None:  # A handler of this thread has not read it meanwhile.
                    # Who forked it was killed, and nobody can say how it ends.
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
                    self.returncode = -signal.SIGKILL
        return self.returncode

    def _internal_poll(self, _deadstate: object = None) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode

    def __del__(self) -> None:
        # Not before: somebody may wait for them in another thread.
        os.close(self._status)
        os.close(self._descriptor)


class Warm:
    """A process that waits for what it shall fork."""

    def __init__(self, env: Mapping[str, str], modules: Sequence[str]) -> None:
        """Start it; it ends when this process does.

        Args:
            env: all of its environment.
            modules: what it imports, before the first fork.
        """
        self._modules = modules
        self._asking = threading.Lock()
        self._owner = os.getpid()
        self._socket, its = socket.socketpair()
        self._socket.settimeout(_PATIENCE)
        with its:
            text = Path(__file__).read_text(encoding="utf-8")
            self._process = subprocess.Popen(  # noqa: S603 - the interpreter that runs us
                [sys.executable, "-c", text, str(its.fileno())],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
            )
        atexit.register(self.close)

    def close(self) -> None:
        """End it; what it has forked goes on, and nobody hears how it ends."""
        if self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
            self._socket.close()

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
        with contextlib.ExitStack() as its, contextlib.ExitStack() as ours:
            theirs, own = [], []
            for number in range(_STREAMS + 1):
                pair = os.pipe()
                if number == 0:
                    pair = pair[::-1]  # The first one is written by us.
                ours.callback(os.close, pair[0])
                its.callback(os.close, pair[1])
                own.append(pair[0])
                theirs.append(pair[1])
            with self._asking:
                found = self._ask(json.dumps(request).encode(), theirs)
            if found is None:
                return None
            pid, descriptor = found
            ours.pop_all()  # They are the process's now.
            return Forked(pid, [sys.executable, "-c", code, *args], [*own, descriptor])

    def _ask(self, request: bytes, streams: list[int]) -> tuple[int, int] | None:
        """Return the number and the descriptor of what was forked."""
        try:
            socket.send_fds(self._socket, [_NUMBER.pack(len(request))], streams)
            self._socket.sendall(request)
            answer, descriptors, *_ = socket.recv_fds(self._socket, _NUMBER.size, 1)
        except OSError:  # It has ended, as by a module that ends what imports it, or hangs.
            self.close()
            return None
        except BaseException:
            # Its answer would be taken for that to the next one.
            self.close()
            raise
        return (_NUMBER.unpack(answer)[0], descriptors[0]) if descriptors else None


_kept: dict[tuple[object, ...], Warm] = {}
_turns: Final = itertools.count()


def python(code: str, args: Sequence[str], env: Mapping[str, str]) -> Forked | None:
    """Run code as `Warm.python` does, in a fork of a process that is kept for more.

    None where there are no such processes: whoever asks then starts Python.
    """
    if not IS_POSSIBLE:
        return None
    read = tuple(sorted(item for item in env.items() if item[0].startswith(_AT_ITS_START)))
    modules = tuple(name for name in SAFE if name in sys.modules)
    # A fork of this process has its own.
    key = (os.getpid(), read, modules, next(_turns) % _TAKE_TURNS)
    warm = _kept.get(key)
    if warm is None:
        new = Warm(env, modules)
        warm = _kept.setdefault(key, new)
        if warm is not new:
            new.close()
    return warm.python(code, args, env)


# --- The process that forks ----------------------------------------------------------------------


def _received(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            os._exit(0)
        found += part
    return found


def _open() -> set[str]:
    """Return the numbers of the open descriptors."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


def _fork_as_asked(connection: socket.socket) -> tuple[types.CodeType, dict[str, Any]]:
    """Fork one process after another; it only returns in these, with what they are to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ended, wake = os.pipe()
    for end in (ended, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    running: dict[int, int] = {}
    may_fork = True
    ready = select.poll()
    ready.register(ended, select.POLLIN)
    ready.register(connection, select.POLLIN)
    while True:
        awake = {at for at, _ in ready.poll()}
        if ended in awake:
            os.read(ended, 4096)
            _report_ended(running)
        if connection.fileno() not in awake:
            continue
        before = _open()
        header, streams, *_ = socket.recv_fds(connection, _NUMBER.size, _STREAMS + 1)
        if not header:
            os._exit(0)  # Whoever asked has ended.
        received = {str(stream) for stream in streams}
        request = json.loads(_received(connection, _NUMBER.unpack(header)[0]))
        for module in request[-1]:
            with contextlib.suppress(Exception):  # The code meets the same error, and tells it.
                importlib.import_module(module)
        # Threads have no place in a fork, and an open file would lose its descriptor there.
        may_fork = may_fork and before >= _open() - received
        may_fork = may_fork and len([*Path("/proc/self/task").iterdir()]) == 1
        pid, descriptor = 0, []
        if may_fork:
            gc.freeze()
            # An interrupt that comes at once waits until the fork knows what to do with it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            pid = os.fork()
            if not pid:
                return _become(request, streams, connection)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            descriptor = [os.pidfd_open(pid)]
            running[pid] = streams.pop()
        socket.send_fds(connection, [_NUMBER.pack(pid)], descriptor)
        for stream in (*streams, *descriptor):
            os.close(stream)


def _report_ended(running: dict[int, int]) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            pipe = running.pop(pid)
            with contextlib.suppress(OSError):  # Nobody may want to know.
                os.write(pipe, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
            os.close(pipe)


def _become(
    request: list[Any], streams: list[int], connection: socket.socket
) -> tuple[types.CodeType, dict[str, Any]]:
    """Make this fork what ``python -c`` would have started."""
    code, args, env, folder, _ = request
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.detach()
    for number, stream in enumerate(streams[:_STREAMS]):
        os.dup2(stream, number)
    os.closerange(_STREAMS, max(map(int, _open())) + 1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    importlib.invalidate_caches()
    sys.argv = ["-c", *args]
    sys.orig_argv = [sys.executable, "-c", code, *args]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return compile(code, "<string>", "exec", dont_inherit=True), vars(main)


if __name__ == "__main__":
    # At the very end, so that it ends as the interpreter ends, with all that is done then.
    exec(*_fork_as_asked(socket.socket(fileno=int(sys.argv[1]))))  # noqa: S102
