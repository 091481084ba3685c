"""The plugin of pytest that draws a sample of the trials, and judges all verdicts of a run.

The trials of a run are spread over its workers, so what is to be said of all is said at its end.
"""

from __future__ import annotations

import random
from typing import Final

import pytest

PROPERTY: Final = "verdict"
"""The property of a test's report that holds a verdict, as a dict."""

SAMPLE_OPTION: Final = "--sample"

SAMPLED: Final = 60
"""How many trials are a sample."""

OF_DAYS: Final = 10
"""In a run with a sample, a test that is marked ``sampled`` has its turn one time in so many."""


def pytest_addoption(parser):
    """Add the option for a run of minutes."""
    parser.addoption(
        SAMPLE_OPTION,
        metavar="SEED",
        help=f"draw {SAMPLED} trials of the gallery and one in {OF_DAYS} of the tests that are "
        "marked as sampled, with this seed; of the suite run only core",
    )


def pytest_report_header(config):
    """Say how to draw the same sample again."""
    seed = config.getoption(SAMPLE_OPTION)
    if seed is None:
        return None
    return (
        f"sample: {SAMPLED} trials of the gallery, one in {OF_DAYS} of the tests that are marked "
        f"as sampled, drawn with {SAMPLE_OPTION}={seed}"
    )


def pytest_configure(config):
    """Begin to collect verdicts."""
    text = f"sampled: takes long; with {SAMPLE_OPTION}, it is drawn one time in {OF_DAYS}"
    text += ", with the others of its file if it is marked as sampled(together=True)"
    config.addinivalue_line("markers", f"{text}, and always as sampled(always=True)")
    config.pluginmanager.register(_Verdicts(), "director-db-gallery-verdicts")


@pytest.hookimpl(trylast=True)  # What was chosen by name needs no drawing.
def pytest_collection_modifyitems(config, items):
    """Leave out the trials and the tests that were not drawn."""
    seed = config.getoption(SAMPLE_OPTION)
    if seed is None:
        return
    trials = {
        item: item.callspec.params["name"]
        for item in items
        if "verdict_on" in getattr(item, "fixturenames", ())
    }
    drawn = sample(trials.values(), seed)
    out = {item for item, name in trials.items() if name not in drawn}
    out |= {item for item in items if not _is_drawn(item, seed)}
    config.hook.pytest_deselected(items=list(out))
    items[:] = [item for item in items if item not in out]


def _is_drawn(item, seed):
    marker = item.get_closest_marker("sampled")
    if marker is None or marker.kwargs.get("always"):
        return True
    # What a whole file shares takes as long for one of its tests as for all.
    name = item.nodeid.partition("::")[0] if marker.kwargs.get("together") else item.nodeid
    return has_its_turn(name, seed)


def sample(names, seed):
    """Return some of the names, the same for the same seed."""
    known = sorted(names)
    return {*random.Random(seed).sample(known, min(SAMPLED, len(known)))}


def has_its_turn(test, seed):
    """Say whether a test is drawn; the same for the same seed."""
    return random.Random(f"{seed} {test}").randrange(OF_DAYS) == 0


class _Verdicts:
    """Those of a run, from whatever worker they come."""

    def __init__(self):
        self._found = []
        self._left_to_luck = []

    def pytest_runtest_logreport(self, report):
        """Keep the verdict of a trial."""
        found = dict(report.user_properties).get(PROPERTY)
        if found and report.when == "call":
            self._found.append(found)

    @pytest.hookimpl(tryfirst=True)  # Before the summary.
    def pytest_sessionfinish(self, session):
        """Fail the run if a rule is only defended by luck; a worker knows too few verdicts."""
        if not self._found or hasattr(session.config, "workerinput"):
            return
        from gallery.report import left_to_luck  # noqa: PLC0415 - most runs try no mutant

        self._left_to_luck = left_to_luck(self._verdicts())
        if self._left_to_luck and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        """Show who was killed by what, and name the rules that no clause of theirs defends."""
        if not self._found:
            return
        from gallery.report import show_verdicts  # noqa: PLC0415

        show_verdicts(self._verdicts())
        for rule in self._left_to_luck:
            terminalreporter.line(f"FAILED {rule}: no clause of its own kills a mutant", red=True)

    def _verdicts(self):
        from gallery.runner import Verdict  # noqa: PLC0415

        return [Verdict(**found) for found in self._found]
