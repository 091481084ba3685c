"""Makes the gallery importable, and shows its verdicts at the end of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gallery.report import show_verdicts

# Not tests: a doctest run would import the mutants a second time, under another name.
collect_ignore = ["gallery", "run.py"]

VERDICTS = pytest.StashKey()


def pytest_configure(config):
    config.stash[VERDICTS] = []


@pytest.fixture(scope="session")
def verdicts(pytestconfig):
    """What was found so far, for the table at the end."""
    return pytestconfig.stash[VERDICTS]


def pytest_terminal_summary(config):
    found = config.stash.get(VERDICTS, [])
    if found:
        show_verdicts(found)
