"""One mutant in a process of its own, tried with some of the clauses until one kills it."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Final

import pytest

from director_db_conformance import CLAUSES, Level
from director_db_conformance.plugin import LEVEL_OPTION, spare_what_stays
from director_db_conformance.servers import PostgresServer
from gallery.broken import VARIABLE
from gallery.plugin import SEARCH_PATH
from gallery.postgres.broken import SERVERS
from gallery.registry import mutant_named

SUBJECT: Final = Path(__file__).with_name("subject.py")
OUTPUT: Final = "output.txt"
MOST_MEMORY: Final = 6 * 1024**3
RESULT: Final = "result.json"

# What takes a fifth of most trials to set up. The last one would collect garbage again and again.
UNNEEDED: Final = (
    *("cacheprovider", "debugging", "doctest", "junitxml", "legacypath", "logging", "pastebin"),
    *("recwarn", "setuponly", "setupplan", "threadexception", "unittest", "unraisableexception"),
)
"""Plugins of pytest that no clause uses."""

KILLERS: Final = Path(__file__).parents[1] / "killers.json"
"""Which mutants each clause killed when ``run.py --keep`` noted it; it says what to try first."""


class Trial:
    """The plugin of pytest that chooses and orders the clauses and keeps what they found."""

    def __init__(self, mutant, chosen):
        self._mutant = mutant
        self._chosen = chosen
        self._killer_before = known_killers().get(mutant.__name__)
        self.passed = []
        self.killer = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(self, name):
        """Leave a clause out before it is collected, which takes longer than many a trial."""
        clause = CLAUSES.get(name)
        return None if clause is None or self._wants(clause) else []

    def _wants(self, clause):
        if self._chosen != "all" and (clause.rule == self._mutant.rule) != (self._chosen == "own"):
            return False
        return self._mutant.wants(clause)

    def pytest_collection_modifyitems(self, items):
        """Put the most likely killers first."""
        items.sort(key=self._turn)

    def _turn(self, item):
        clause = CLAUSES[item.originalname]
        levels = [level.value for level in Level]
        # A race is seen by the clauses of its level or by none, so they come before the lower ones.
        far = abs(levels.index(clause.level.value) - levels.index(self._mutant.level))
        takes_long = clause.rule == "ALL" or clause.level is Level.DURABLE
        by_others = clause.rule != self._mutant.rule
        return by_others, clause.name != self._killer_before, takes_long, far

    def pytest_runtest_logreport(self, report):
        """Keep the result that the suite's own plugin attached."""
        data = report.__dict__.get("director_db_conformance")
        if data is None or self.killer is not None:
            return
        if data["outcome"] == "failed":
            self.killer = data
        elif data["outcome"] == "passed" and report.when == "call":
            self.passed.append(data["clause"])


def known_killers():
    """Return, for each mutant, the clause that killed it before."""
    kept = json.loads(KILLERS.read_text(encoding="utf-8"))
    return {mutant: clause for clause, mutants in kept.items() for mutant in mutants}


def run(name, chosen, folder, level, server):
    """Try a mutant in this process, and write what came out into its folder.

    Args:
        name: the mutant.
        chosen: the clauses: ``own``, those of the mutant's rule; ``others``; or ``all``.
        folder: its folder.
        level: the highest level of clauses.
        server: the arguments of a `PostgresServer` that several trials share, or None.
    """
    os.setsid()  # So that whoever stops it stops its children as well.
    # What a mutant does with a value that has no end must not take the machine.
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    output = os.open(Path(folder, OUTPUT), os.O_CREAT | os.O_WRONLY, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    spare_what_stays()  # All that was imported.
    os.environ[VARIABLE] = name
    sys.path[:0] = SEARCH_PATH.split(os.pathsep)
    # Other plugins of pytest that happen to be installed have no part in it, and take their time.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if server is not None:
        SERVERS.shared = PostgresServer(*server)
    trial = Trial(mutant_named(name), chosen)
    try:
        status = _run_clauses(trial, folder, level)
    finally:
        SERVERS.close()
    outcome = {"status": int(status), "passed": trial.passed, "killer": trial.killer}
    Path(folder, RESULT).write_text(json.dumps(outcome), encoding="utf-8")
    sys.stdout.flush()


def _run_clauses(trial, folder, level):
    return pytest.main(
        [
            str(SUBJECT),
            *("-x", "-v", "--assert=plain", "--import-mode=importlib", "--tb=native"),
            *(f"-pno:{name}" for name in UNNEEDED),
            *("-p", "director_db_conformance.plugin", LEVEL_OPTION, level),
            # What the project's own tests set and load is not for the suite.
            *("--noconftest", "-c", os.devnull),
            *("--rootdir", folder, "--basetemp", str(Path(folder, "places"))),
        ],
        plugins=[trial],
    )
