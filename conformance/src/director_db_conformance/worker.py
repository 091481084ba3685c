"""One of the processes that run a backend's clauses, and the next one in its place if it dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from director_db_conformance import provisioned
from director_db_conformance.plugin import (
    BACKWARDS_OPTION,
    CALLS_OPTION,
    CLAIMS_OPTION,
    EVENTS_OPTION,
    LEVEL_OPTION,
    STACKS_OPTION,
)
from director_db_conformance.transcript import OF_ALL_PYTHON

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from director_db_conformance.guard import Guard
    from director_db_conformance.record import Choice

_LAST_WORDS: Final = 4000
_LONGEST_STACKS: Final = 20_000
_GRACE: Final = 5.0
_MOMENT: Final = 1.0
_PAUSE: Final = 0.02
_MOST_CALLS: Final = 100
_LONGEST: Final = 10  # times the limit, for a clause whose calls go on
_USAGE_ERROR: Final = 4  # pytest's exit status

# glibc returns a payload of 64 MiB to the system at once, and gets each page of the next one anew:
# a third of the processor time of the clauses about such payloads, in the main thread and in a
# server's processes. Other systems do not look at these.
_KEPT_MEMORY: Final = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}

_PHASES: Final = {"setup": "making its place", "call": "it", "teardown": "destroying its place"}


class Worker:
    """A process that runs clauses, one after another.

    Which ones, it settles with those beside it: whoever makes the file of a clause's name in the
    folder ``claims`` runs that clause.

    Attributes:
        under_way: the name of the clause that runs now.
        phase: of that clause: ``setup``, ``call`` or ``teardown``.
        is_over: whether it has said that there is nothing more to come.
        has_placed: whether this process has made a place.
        finished: how many clauses have a result of this process.
        output: the end of what pytest printed.
    """

    def __init__(
        self, db_type: str, directory: Path, choice: Choice, guard: Guard, *, backwards: bool
    ) -> None:
        """Start it.

        Args:
            db_type: the backend.
            directory: an empty folder for what it writes, beside that of the claims.
            choice: what to run.
            guard: ends its processes if the command cannot.
            backwards: it begins with the last clause.
        """
        self._db_type = db_type
        self._directory = directory
        self._choice = choice
        self._guard = guard
        self._backwards = backwards
        self._processes = 0
        self.output = ""
        directory.mkdir()
        self.start()

    def start(self) -> None:
        """Start a process, the first one or the next."""
        self._processes += 1
        self._read = 0
        self._heard = self._called = time.monotonic()
        self._size = 0
        self.is_over = False
        self.has_placed = False
        self.finished = 0
        self.under_way: str | None = None
        self.phase = "setup"
        choice = self._choice
        with self._file("output").open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the interpreter that runs us
                [
                    sys.executable, "-m", "pytest", "--pyargs", provisioned.__name__,
                    "-p", "director_db_conformance.plugin", "-p", "no:cacheprovider",
                    "--noconftest",
                    "-c", os.devnull, "--rootdir", str(self._directory),
                    "--basetemp", str(self._file("places")),
                    "--quiet", "--tb=short",
                    f"{LEVEL_OPTION}={choice.level.value}",
                    f"{EVENTS_OPTION}={self._file('events')}",
                    f"{CALLS_OPTION}={self._file('calls')}",
                    f"{STACKS_OPTION}={self._file('stacks')}",
                    f"{CLAIMS_OPTION}={self._claims}",
                    "-o", "tmp_path_retention_policy=none",
                    *([BACKWARDS_OPTION] if self._backwards else []),
                    *(["-k", choice.keyword] if choice.keyword else []),
                    *(["-x"] if choice.fail_fast else []),
                ],
                cwd=self._directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._guard.watch(self._process.pid)

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone."""
        return self._process.poll() is not None

    @property
    def seconds(self) -> float:
        """How long the phase that is under way has taken."""
        return time.monotonic() - self._heard

    @property
    def silence(self) -> float:
        """How long it may have hung, in seconds: since the last call that a clause has begun.

        Where calls go on for ever, a small part of that counts all the same.
        """
        calls = self._file("calls")
        size = calls.stat().st_size if calls.exists() else 0
        if size != self._size:
            self._size, self._called = size, time.monotonic()
        return max(time.monotonic() - max(self._heard, self._called), self.seconds / _LONGEST)

    @property
    def usage_error(self) -> str | None:
        """What pytest refuses in how it was called, such as a keyword that is no expression."""
        if self._process.returncode != _USAGE_ERROR:
            return None
        lines = [line for line in self.output.splitlines() if line.startswith("ERROR: ")]
        return lines[-1].removeprefix("ERROR: ") if lines else self.output.strip()

    @property
    def how_it_ended(self) -> str:
        """The status of its process, for people."""
        status = self._process.returncode
        if status is not None and status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"with status {status}"

    @property
    def where(self) -> str:
        """What of its clause is under way, for people."""
        return _PHASES[self.phase]

    @property
    def calls(self) -> tuple[str, ...]:
        """The last calls of the clause that is under way."""
        return tuple(self._text("calls").splitlines()[-_MOST_CALLS:])

    @property
    def stacks(self) -> str:
        """Where the threads of the process stand, or stood as it died; as far as known."""
        if self.has_ended:
            _, fatal, said = self._text("output").partition("Fatal Python error")
            return (fatal + said)[:_LONGEST_STACKS]
        if hasattr(signal, "SIGUSR1"):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR1)
            deadline = time.monotonic() + _MOMENT
            while not self._text("stacks") and time.monotonic() < deadline:
                time.sleep(_PAUSE)
            time.sleep(_PAUSE)
        return self._text("stacks")[-_LONGEST_STACKS:]

    def hear(self) -> Iterator[dict[str, Any]]:
        """Give what has happened since."""
        events = self._file("events")
        if not events.exists():
            return
        with events.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
        whole = lines.rfind(b"\n") + 1
        self._read += whole
        for line in lines[:whole].splitlines():
            self._heard = time.monotonic()
            # The last one of a process that was killed may be half a line.
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                self._note(event)
                yield event

    def end(self) -> None:
        """End it with all that it started."""
        if self._process.poll() is None:
            self._kill("SIGTERM")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        # The group outlives its leader where a clause left a process behind.
        self._kill("SIGKILL")
        self._process.wait()
        self._guard.forget(self._process.pid)
        self.output = self._text("output")[-_LAST_WORDS:]

    def release(self, done: Collection[str]) -> None:
        """Let others run what the process claimed and did not begin before it died."""
        # An empty one was made by a process that died before it could write into it.
        own = {str(self._process.pid), ""}
        for claim in self._claims.iterdir():
            if claim.name not in done and claim.read_text() in own:
                claim.unlink()

    def _note(self, event: dict[str, Any]) -> None:
        match event:
            case {"started": name}:
                self.under_way, self.phase = name, "setup"
            case {"phase": phase}:
                self.phase = phase
                self.has_placed |= phase == "call"
            case {"finished": _}:
                self.under_way = None
            case {"ended": _}:
                self.is_over = True
            case {"clause": _}:
                self.finished += 1

    def _kill(self, name: str) -> None:
        """Send a signal to all that it started; Windows has no groups, so there to it alone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, getattr(signal, name))
            else:
                self._process.kill()

    @property
    def _claims(self) -> Path:
        return self._directory.with_name("claims")

    def _environment(self) -> dict[str, str]:
        # Options and plugins that somebody has set for other tests have no part in the verdict.
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("PYTEST_") and key not in OF_ALL_PYTHON
        }
        if kept.get("PYTHONPATH"):
            # As seen from where the command runs: it was from there that the backend was found.
            folders = kept["PYTHONPATH"].split(os.pathsep)
            kept["PYTHONPATH"] = os.pathsep.join(str(Path(folder).absolute()) for folder in folders)
        if kept.pop("PYTHONDONTWRITEBYTECODE", ""):
            # Nothing beside the sources then; without any, each process compiles them again.
            kept["PYTHONPYCACHEPREFIX"] = str(self._directory.parent.with_name("bytecode"))
        return {
            **_KEPT_MEMORY,
            # What it finds out about Unicode takes a second, so one of the processes does it.
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self._directory.with_name("hypothesis")),
            **kept,
            provisioned.TYPE_VARIABLE: self._db_type,
            provisioned.FACE_VARIABLE: self._choice.face,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }

    def _file(self, name: str) -> Path:
        """Return a file or folder of the process that runs now."""
        return self._directory / f"{name}-{self._processes}"

    def _text(self, name: str) -> str:
        file = self._file(name)
        return file.read_text(errors="replace") if file.exists() else ""
