"""One backend's run of the suite, in a process of its own.

A broken backend may hang, end the process, or leave threads and locks behind; none of that may
reach the run of another, or keep the command from its verdict.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from director_db_conformance import provisioned
from director_db_conformance.levels import Level
from director_db_conformance.plugin import CALLS_OPTION, EVENTS_OPTION, LEVEL_OPTION
from director_db_conformance.suite import CLAUSES
from director_db_conformance.verdict import Outcome, Result, Verdict, Word, judge

if TYPE_CHECKING:
    from pathlib import Path

_LAST_WORDS: Final = 4000
_GRACE: Final = 5.0
_FIRST_PLACE: Final = 600.0
_MOST_CALLS: Final = 100
_USAGE_ERROR: Final = 4  # pytest's exit status


class Run:
    """The clauses on one backend, under way or finished.

    Attributes:
        db_type: the backend.
        results: what became of the clauses so far, by name.
        seconds: how long it has been running.
        under_way: the name of the clause that runs now.
        placed: whether there has been a place yet.
        total: how many clauses there are up to the level.
    """

    def __init__(
        self,
        db_type: str,
        directory: Path,
        *,
        level: Level = Level.DURABLE,
        keyword: str = "",
        time_limit: float = 120.0,
    ) -> None:
        """Start it.

        Args:
            db_type: the backend.
            directory: an empty folder for everything that the run writes.
            level: the highest level to run.
            keyword: run only the clauses that match, as pytest's ``-k``.
            time_limit: how long one clause may take, in seconds.
        """
        self.db_type = db_type
        self.results: dict[str, Result] = {}
        self.seconds = 0.0
        self._level = level
        self.total = sum(level.includes(clause.level) for clause in CLAUSES.values())
        self._time_limit = time_limit
        self._events = directory / "events.jsonl"
        self._calls = directory / "calls.txt"
        self._output = directory / "output.txt"
        self.junit = directory / "junit.xml"
        self._read = 0
        self._started = self._heard = time.monotonic()
        self.under_way: str | None = None
        self.placed = False
        places = directory / "places"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the interpreter that runs us
                [
                    sys.executable, "-m", "pytest", "--pyargs", provisioned.__name__,
                    "-p", "director_db_conformance.plugin", "-p", "no:cacheprovider",
                    "-c", os.devnull, "--rootdir", str(directory), "--basetemp", str(places),
                    "--quiet", "--tb=short", f"--junitxml={self.junit}",
                    f"{LEVEL_OPTION}={level.value}", f"{EVENTS_OPTION}={self._events}",
                    f"{CALLS_OPTION}={self._calls}",
                    "-o", f"junit_suite_name={db_type}", "-o", "tmp_path_retention_policy=none",
                    *(["-k", keyword] if keyword else []),
                ],
                cwd=directory,
                env=_environment(db_type),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def verdict(self) -> Verdict:
        """What the results say together, as far as they are known."""
        return judge(CLAUSES.values(), self.results, self._level)

    def is_conformant(self, *, strictly: bool) -> bool:
        """Whether the backend is conformant: at the very level if `strictly`, else as applies."""
        verdict = self.verdict
        conformant = verdict.word is Word.CONFORMANT
        return conformant and (verdict.reached is verdict.asked or not strictly)

    @property
    def usage_error(self) -> str | None:
        """What pytest refuses in how it was called, such as a keyword that is no expression."""
        if self._process.returncode != _USAGE_ERROR or self.results:
            return None
        lines = [line for line in self.output.splitlines() if line.startswith("ERROR: ")]
        return lines[-1].removeprefix("ERROR: ") if lines else self.output.strip()

    @property
    def output(self) -> str:
        """The end of what pytest printed."""
        return self._output.read_text(errors="replace")[-_LAST_WORDS:]

    def poll(self) -> bool:
        """Read what has happened since; False when the run has ended.

        A clause beyond its time ends the run: what hangs is a nonconformity.
        """
        ended = self._process.poll() is not None
        self._hear()
        if ended:
            self.end()
            if self.under_way is not None:
                status = self._process.returncode
                self._fail(self.under_way, f"the process ended in it, with status {status}")
            return False
        self.seconds = time.monotonic() - self._started
        # The first place may take a server that has to be fetched first.
        limit = self._time_limit if self.placed else max(self._time_limit, _FIRST_PLACE)
        if time.monotonic() - self._heard > limit:
            # Before the kill: it may take a moment, and change nothing any more.
            self._fail(self.under_way, f"it did not end within {limit:g} s")
            self.end()
            return False
        return True

    def end(self) -> None:
        """End it with all that it started."""
        # The group outlives its leader where a clause left a process behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGTERM if self._process.poll() is None else 9)
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _hear(self) -> None:
        if not self._events.exists():
            return
        with self._events.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
        whole = lines.rfind(b"\n") + 1
        self._read += whole
        for line in lines[:whole].splitlines():
            self._heard = time.monotonic()
            try:
                event = json.loads(line)
            except ValueError:
                continue  # Of a process that was killed in the middle of it.
            if "placed" in event:
                self.placed = True
            elif "started" in event:
                self.under_way = event["started"]
            elif "finished" in event:
                self.under_way = None
            else:
                self.results[event["clause"]] = Result.of_json(event)

    def _fail(self, name: str | None, reason: str) -> None:
        clause = CLAUSES.get(name or "")
        if clause is not None:
            calls = self._calls.read_text(errors="replace") if self._calls.exists() else ""
            self.results[clause.name] = Result(
                Outcome.FAILED,
                time.monotonic() - self._heard,
                clause.meaning,
                clause.rule,
                "every call returns, and the process lives",
                reason,
                tuple(calls.splitlines()[-_MOST_CALLS:]),
            )


def _environment(db_type: str) -> dict[str, str]:
    # Options and plugins that somebody has set for other tests have no part in the verdict.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return kept | {provisioned.TYPE_VARIABLE: db_type, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
