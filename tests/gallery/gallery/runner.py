"""Trials of many mutants, each in a process of its own, two at a time."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from typing import Final, NamedTuple

from _pytest.config import default_plugins

from director_db_conformance import CLAUSES
from gallery import trial
from gallery.broken import SQLITE
from gallery.plugin import SEARCH_PATH
from gallery.registry import mutant_named

AT_ONCE: Final = 2
"""How many run at a time: some clauses keep two cores busy on their own."""

PATIENCE: Final = 800.0
"""After so many seconds a trial is stopped, for it hangs; most take less than one, few a minute."""

RACES: Final = 3
"""How often a race that survives is tried: one attempt may miss its moment."""

LEVEL: Final = "durable"

_LONGEST_OUTPUT: Final = 1500
_OK, _TESTS_FAILED = 0, 1


class Verdict(NamedTuple):
    """What became of a mutant.

    Attributes:
        mutant: its name.
        kind: the kind of backend that it is of, for people.
        rule: the rule that it breaks.
        level: the level at which it has to be caught.
        fate: ``killed``, ``survived``, ``hung`` (stopped for lack of time), or ``untried`` (the
            trial itself failed, and said `actual`).
        clause: the clause that killed it, empty if none did.
        found_rule: the rule that the clause found broken.
        expected: what the clause expected.
        actual: what it found.
        passed: how many clauses had passed by then.
        attempts: how many trials it took; the report tells of more than one.
        seconds: how long they took.
    """

    mutant: str
    kind: str
    rule: str
    level: str
    fate: str
    clause: str
    found_rule: str
    expected: str
    actual: str
    passed: int
    attempts: int
    seconds: float


class Trials:
    """A run of trials; they begin in the order that they are asked for.

    Attributes:
        server: the `PostgresServer` that the trials of Postgres share; None before the first one.
    """

    def __init__(self, server=None):
        self.server = server
        # A trial takes some tenths of a second, to start Python and import everything as much
        # again; so each is a fork of one clean process that has imported what they all need.
        self._context = multiprocessing.get_context("forkserver")
        of_pytest = [f"_pytest.{name}" for name in default_plugins if name not in trial.UNNEEDED]
        # The last one is what the core imports as soon as it is used.
        self._context.set_forkserver_preload(
            [trial.__name__, f"{__package__}.subject", *of_pytest, "msgspec"]
        )
        with _search_path():
            forkserver.ensure_running()
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._folder = tempfile.TemporaryDirectory(prefix="director-db-gallery-")

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def begin(self, name, level=LEVEL):
        """Return the future verdict on a mutant, tried with the clauses up to a level."""
        return self._pool.submit(self._try, name, level)

    def _try(self, name, level):
        mutant = mutant_named(name)
        began = time.monotonic()
        passed, attempt = set(), 0
        for attempt, chosen in enumerate(_attempts(mutant), 1):
            folder = Path(self._folder.name, f"{name}-{attempt}")
            folder.mkdir()
            in_time = self._run(name, chosen, folder, level)
            result = folder / trial.RESULT
            found = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
            passed.update(found.get("passed", ()))
            fate = _fate(found) if in_time else "hung"
            if fate != "survived":
                break
        verdict = Verdict(
            *(name, mutant.kind, mutant.rule, mutant.level, fate, "", "", "", ""),
            passed=len(passed),
            attempts=attempt,
            seconds=time.monotonic() - began,
        )
        if verdict.fate == "killed":
            killer = found["killer"]
            return verdict._replace(
                clause=killer["clause"],
                found_rule=killer["rule"] or CLAUSES[killer["clause"]].rule,
                expected=killer["expected"],
                actual=killer["actual"] or killer["reason"],
            )
        if verdict.fate == "survived":
            return verdict
        output = folder / trial.OUTPUT
        said = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
        return verdict._replace(actual=said[-_LONGEST_OUTPUT:])

    def _run(self, name, chosen, folder, level):
        """Run a trial; False if it did not end in time."""
        found = self.server
        server = found and (found.source, found.version, found.dsn, found.owner_dsn)
        arguments = (name, chosen, str(folder), level, server)
        process = self._context.Process(target=trial.run, args=arguments)
        process.start()
        process.join(PATIENCE)
        in_time = not process.is_alive()
        # Also what a broken backend leaves behind: the children are of the trial's session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        return in_time


@contextlib.contextmanager
def _search_path():
    """Let a process that starts now find this package; how else it could be told has changed."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = SEARCH_PATH
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _attempts(mutant):
    """Return with which clauses one is tried, one attempt after another, until it is killed."""
    if not mutant.rule:
        return ["all"]
    # What a mistake of the core level does, it does each time.
    own = ["own"] * (1 if mutant.level == "core" else RACES)
    # A mutant of Postgres meets only the clauses of its own rule, as servers are slow.
    return [*own, "others"] if mutant.kind == SQLITE else own


def _fate(found):
    if found.get("status") == _OK:
        return "survived"
    return "killed" if found.get("status") == _TESTS_FAILED and found["killer"] else "untried"
