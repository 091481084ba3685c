"""One backend's run of the suite, in processes of its own.

A broken backend may hang, end the process, or leave threads and locks behind; none of that may
reach the run of another, keep the command from its verdict, or cost more than one clause: the rest
runs on in a new process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from director_db_conformance import provisioned
from director_db_conformance.plugin import (
    CALLS_OPTION,
    DONE_OPTION,
    EVENTS_OPTION,
    LEVEL_OPTION,
    STACKS_OPTION,
)
from director_db_conformance.record import Record
from director_db_conformance.suite import CLAUSES
from director_db_conformance.verdict import Outcome, Result

if TYPE_CHECKING:
    from pathlib import Path

    from director_db_conformance.guard import Guard
    from director_db_conformance.record import Choice

_LAST_WORDS: Final = 4000
_LONGEST_STACKS: Final = 20_000
_GRACE: Final = 5.0
_LAST_GRACE: Final = 15.0
_MOMENT: Final = 1.0
_PAUSE: Final = 0.02
_FIRST_PLACE: Final = 600.0
_NEXT_PLACE: Final = 60.0
_MOST_CALLS: Final = 100
_USAGE_ERROR: Final = 4  # pytest's exit status

# Where a clause hangs, others that use the same will. The first is given all of its time, and the
# others some times as much as any took that ended; all together so many times the limit.
_SHORTEST_LIMIT: Final = 10.0
_TIMES_THE_SLOWEST: Final = 5
_MOST_LIMITS: Final = 5
_MOST_DEATHS: Final = 40

_PHASES: Final = {"setup": "making its place", "call": "it", "teardown": "destroying its place"}


class SuiteRun(Record):
    """The clauses on one backend, under way or finished.

    Attributes:
        under_way: the name of the clause that runs now.
    """

    def __init__(self, db_type: str, directory: Path, choice: Choice, guard: Guard) -> None:
        """Start it.

        Args:
            db_type: the backend.
            directory: an empty folder for everything that the run writes.
            choice: what to run.
            guard: ends its processes if the command cannot.
        """
        super().__init__(db_type, choice)
        self.under_way: str | None = None
        self._directory = directory
        self._guard = guard
        self._started = time.monotonic()
        self._processes = 0
        self._placed_in: set[int] = set()
        self._hung_for = 0.0
        self._deaths = 0
        self._last_words = ""
        self._start()

    @property
    def usage_error(self) -> str | None:
        """What pytest refuses in how it was called, such as a keyword that is no expression."""
        if self._process.returncode != _USAGE_ERROR or self.results:
            return None
        lines = [line for line in self.output.splitlines() if line.startswith("ERROR: ")]
        return lines[-1].removeprefix("ERROR: ") if lines else self.output.strip()

    def poll(self) -> bool:
        """Read what has happened since; False when the run has ended.

        A clause beyond its time ends its process: what hangs is a nonconformity.
        """
        ended = self._process.poll() is not None
        self._hear()
        now = time.monotonic()
        self.seconds = now - self._started
        silence, limit = now - self._heard, self._limit
        if not ended and silence <= limit:
            return True
        if ended:
            self._last_words = f"the process ended in {{}}, {self._how_it_ended()}"
            self._deaths += self.under_way is not None
        else:
            self._last_words = f"{{}} did not end within {limit:g} s"
            self._hung_for += silence
        if self.under_way is not None:
            # Before the kill, which may take a moment and change nothing any more.
            self._lose(self.under_way)
        self.end()
        if not self._has_to_go_on():
            return False
        self._start()
        return True

    def stop(self, reason: str) -> None:
        """End it, before all clauses have run."""
        self.stopped = reason
        self.end()

    def end(self) -> None:
        """End it with all that it started."""
        if self._process.poll() is None:
            self._kill(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        # The group outlives its leader where a clause left a process behind.
        self._kill(signal.SIGKILL)
        self._process.wait()
        self._guard.forget(self._process.pid)
        self.output = self._text("output")[-_LAST_WORDS:]

    def _kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _start(self) -> None:
        self._processes += 1
        self._read = 0
        self._heard = time.monotonic()
        self._is_over = False
        self._known = len(self.results)
        self.under_way = None
        done = self._file("done")
        done.write_text("".join(f"{name}\n" for name in self.results), encoding="utf-8")
        choice = self.choice
        with self._file("output").open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the interpreter that runs us
                [
                    sys.executable, "-m", "pytest", "--pyargs", provisioned.__name__,
                    "-p", "director_db_conformance.plugin", "-p", "no:cacheprovider",
                    "-c", os.devnull, "--rootdir", str(self._directory),
                    "--basetemp", str(self._file("places")),
                    "--quiet", "--tb=short",
                    f"{LEVEL_OPTION}={choice.level.value}",
                    f"{EVENTS_OPTION}={self._file('events')}",
                    f"{CALLS_OPTION}={self._file('calls')}",
                    f"{STACKS_OPTION}={self._file('stacks')}",
                    f"{DONE_OPTION}={done}",
                    "-o", "tmp_path_retention_policy=none",
                    *(["-k", choice.keyword] if choice.keyword else []),
                    *(["-x"] if choice.fail_fast else []),
                ],
                cwd=self._directory,
                env=_environment(self.db_type),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._guard.watch(self._process.pid)

    def _file(self, name: str) -> Path:
        """Return a file or folder of the process that runs now."""
        return self._directory / f"{name}-{self._processes}"

    @property
    def _limit(self) -> float:
        """How long there may be silence now."""
        limit = self.choice.time_limit
        if self._is_over:
            return _LAST_GRACE
        if not self._placed_in:
            # The first place may take a server that has to be fetched first; one of another
            # process, a server that has to start.
            return max(limit, _FIRST_PLACE)
        if self._processes not in self._placed_in:
            return max(limit, _NEXT_PLACE)
        if not self._hung_for:
            return limit
        slowest = max((result.seconds for result in self.results.values()
                       if result.outcome is Outcome.PASSED), default=0.0)  # fmt: skip
        return min(limit, max(_SHORTEST_LIMIT, _TIMES_THE_SLOWEST * slowest))

    def _has_to_go_on(self) -> bool:
        """Say whether there is something left for another process; if not, why it will not run."""
        if self.stopped or not {*(self.chosen or ())} - {*self.results}:
            return False
        if self.choice.fail_fast and (self.failed or self._is_over):
            self.stopped = "stopped at the first failure"
        elif self._is_over:
            self.stopped = "the run ended before it"
        elif not self._placed_in:
            self.stopped = "no place was ever made"
        elif len(self.results) == self._known:
            self.stopped = self._last_words.format("what comes before it")
        elif self._hung_for >= _MOST_LIMITS * self.choice.time_limit:
            self.stopped = f"others had hung for {self._hung_for:.0f} s before; see --time-limit"
        elif self._deaths >= _MOST_DEATHS:
            self.stopped = f"{self._deaths} others had ended the process before"
        return not self.stopped

    def _how_it_ended(self) -> str:
        status = self._process.returncode
        if status is not None and status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"with status {status}"

    def _hear(self) -> None:
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
                self._note(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        match event:
            case {"chosen": names}:
                self.chosen = names if self.chosen is None else self.chosen
            case {"started": name}:
                self.under_way, self._phase = name, "setup"
            case {"phase": phase}:
                self._phase = phase
                self._placed_in |= {self._processes} if phase == "call" else set()
            case {"finished": _}:
                self.under_way = None
            case {"server": server}:
                self.server = server
            case {"ended": _}:
                self._is_over = True
            case {"clause": name}:
                self.results[name] = Result.of_json(event)

    def _lose(self, name: str) -> None:
        """Note that a clause took its process with it."""
        clause = CLAUSES.get(name)
        before = self.results.get(name)
        if clause is None or (before is not None and before.outcome is Outcome.FAILED):
            return  # What failed first is the fault.
        what = self._last_words.format(_PHASES[self._phase])
        seconds, stacks = time.monotonic() - self._heard, self._stacks()
        calls = tuple(self._text("calls").splitlines()[-_MOST_CALLS:])
        if self._phase == "setup":
            # The clause has not begun, so nothing is known about its rule.
            reason = f"no place: {what}"
            self.results[name] = Result(Outcome.NOT_RUN, seconds, reason, traceback=stacks)
            return
        expected = "every call returns, and the process lives"
        self.results[name] = Result(
            Outcome.FAILED, seconds, clause.meaning, clause.rule, expected, what, calls, stacks
        )

    def _stacks(self) -> str:
        """Return where the threads of the process stand, or stood as it died; as far as known."""
        if self._process.poll() is not None:
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

    def _text(self, name: str) -> str:
        file = self._file(name)
        return file.read_text(errors="replace") if file.exists() else ""


def _environment(db_type: str) -> dict[str, str]:
    # Options and plugins that somebody has set for other tests have no part in the verdict.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return kept | {provisioned.TYPE_VARIABLE: db_type, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
