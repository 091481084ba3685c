"""A throw-away cluster, run from the programs of some installation."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final

from director_db_conformance.ports import LOOPBACK, free_port
from director_db_conformance.servers.account import give, run_as, server_account
from director_db_conformance.servers.folder import ServerFolder
from director_db_conformance.servers.reaper import processes
from director_db_conformance.servers.template import environment, run, template
from director_db_conformance.servers.throw_away import (
    OWNER,
    SETTINGS,
    VOLATILE,
    ServerFailedError,
    ThrowAwayServer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from director_db_conformance.servers.installation import Installation

_SETTINGS: Final = {
    **SETTINGS,
    "listen_addresses": LOOPBACK,
    # Faults need a TCP proxy, and a socket's path has a limit that temporary folders exceed.
    "unix_socket_directories": "",
}

_TOO_EARLY: Final = re.compile(r"not yet accepting|recovery state has not|is starting up")

_START_ATTEMPTS: Final = 5
_PATIENCE: Final = 60.0
_PAUSE: Final = 0.005


class Cluster(ThrowAwayServer):
    """A cluster in a temporary folder; both go when it is closed, or its owner dies."""

    def __init__(self, source: str, installation: Installation, *, durable: bool = False) -> None:
        """Make the cluster and start it.

        Args:
            source: where the programs come from, for people.
            installation: the programs.
            durable: keep fsync on, so that commits survive a power cut.
        """
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(source, installation.version)
        self._installation = installation
        self._folder = ServerFolder(server_account())
        try:
            self._template = template(installation)
            self._prepare()
            self.start()
            self._welcome()
        except BaseException:
            self.close()
            raise

    @property
    def is_running(self) -> bool:
        """Whether the server's first process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int | None:
        """The process id of the postmaster, None while there is none."""
        return self._process.pid if self._process is not None and self.is_running else None

    @property
    def path(self) -> Path:
        """The temporary folder."""
        return self._folder.path

    @property
    def programs(self) -> Path:
        """The folder with the programs that it runs; its account can reach them there."""
        return self._template.programs

    @property
    def log(self) -> str:
        """What the server has logged."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def start(self) -> None:
        """Start it: at first on a free port, and on that same one ever after."""
        if self.is_running:
            return
        for attempt in range(_START_ATTEMPTS):
            port = self._port or free_port()
            try:
                self._launch(port)
            except ServerFailedError:
                # Somebody may have taken the port; after a restart, only for a moment.
                if attempt == _START_ATTEMPTS - 1 or "Address already in use" not in self.log:
                    raise
                time.sleep(0.2 if self._port else 0)
            else:
                self._port = port
                break
        self._owner_dsn = self._url(OWNER, self._owner_password)

    def stop(self) -> None:
        """Stop it in order: sessions are ended, transactions in progress rolled back."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_PATIENCE)
            self._process = None

    def kill(self) -> None:
        """End all its processes with SIGKILL, as if the machine had crashed."""
        if self._process is None:
            return
        # Held first, lest it notices that its children die and starts new ones.
        family = self._hold(self._process)
        self._process.kill()
        self._process.wait(_PATIENCE)
        self._process = None
        for child in family:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:  # as its parent did, a moment ago
                continue
        deadline = time.monotonic() + _PATIENCE
        while family & {process.pid for process in processes()} and time.monotonic() < deadline:
            time.sleep(_PAUSE)

    def freeze(self) -> None:
        """Hold all its processes as they are with SIGSTOP."""
        self._hang_up()  # Or who asks next would wait for ever.
        if self._process is not None:
            _signal(self._hold(self._process), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all its processes go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            _signal(self._children(), signal.SIGCONT)

    def _hold(self, process: subprocess.Popen[bytes]) -> set[int]:
        """Hold the first process, and return the others: from now on there are no more of them."""
        process.send_signal(signal.SIGSTOP)
        # Until then it may be in the middle of a fork.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return self._children()

    def close(self) -> None:
        """End it at once and remove all that it left; nothing happens in a forked child."""
        if not self._folder.is_ours:
            return
        self._hang_up()
        if self._process is not None:
            self.thaw()  # A process that is held ends of nothing but SIGKILL.
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(_PATIENCE)
            finally:
                self._process = None
        self._folder.remove()

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the installation's programs under the server's account.

        Raises:
            ServerFailedError: it did not succeed.
        """
        run(self.programs / program, *arguments, cwd=self.path, account=self._folder.account)

    @property
    def _data(self) -> Path:
        return self.path / "data"

    @property
    def _log_path(self) -> Path:
        return self.path / "server.log"

    def _prepare(self) -> None:
        """Make the files of the cluster."""
        self._password = self._template.password
        self._make_data()
        # By a program, as Python takes three times as long; its account will own them.
        source = f"{self._template.data}/."
        run("cp", "-Rp", source, self._data, cwd=self.path, account=self._folder.account)

    def _make_data(self) -> None:
        self._data.mkdir(mode=0o700)
        give(self._data, self._folder.account)

    def _launch(self, port: int) -> None:
        settings = {**_SETTINGS, "port": str(port), **({} if self._durable else VOLATILE)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log_path.open("ab") as log:
            # Not through pg_ctl: a child of ours can be waited for and its death is seen at once.
            # In a session of its own, since Ctrl-C would otherwise stop it in the middle of a test.
            process = subprocess.Popen(  # noqa: S603
                [self.programs / "postgres", "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,
                **self._place(),
            )
        self._process = process
        try:
            self._wait_until_ready(process)
        except ServerFailedError:
            self._process = None
            raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self._says_ready(process.pid):
            if process.poll() is not None:
                message = f"The server ended with status {process.returncode}:\n{self._last_words}"
                raise ServerFailedError(message)
            if time.monotonic() > deadline:
                process.kill()
                process.wait(_PATIENCE)
                message = f"The server was not ready in {_PATIENCE} s:\n{self._last_words}"
                raise ServerFailedError(message)
            time.sleep(_PAUSE)

    @property
    def _last_words(self) -> str:
        """The end of the log, without what it said to clients that came too early."""
        lines = self.log.splitlines()[-200:]
        return "\n".join([line for line in lines if not _TOO_EARLY.search(line)][-12:])

    def _says_ready(self, pid: int) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # A server that was killed left the same file, with its own process id.
        status_line = 7
        return (
            len(lines) > status_line
            and lines[0] == str(pid)
            and lines[status_line].strip() == "ready"
        )

    def _children(self) -> set[int]:
        parent = self.process_id
        return {process.pid for process in processes() if process.parent == parent}

    def _place(self) -> dict[str, Any]:
        return {"cwd": self.path, **run_as(self._folder.account)}


def _signal(processes: Iterable[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
