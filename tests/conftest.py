"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest

import director_db
from director_db import checks
from director_db.context import appending, saving
from director_db_conformance.pgbouncer import NoPgBouncerError, PgBouncer, find_pgbouncer
from director_db_conformance.plugin import uncollected
from director_db_conformance.postgres_place import PGBOUNCER_VARIABLE

pytest_plugins = ["director_db_conformance.fixtures", "gallery.verdicts"]

# Its clock says how busy the machine is, and no more.
hypothesis.settings.register_profile(
    "ours", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ours")

# Who runs the tests in the background of a script has it ignored, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# For type checkers; running it would use a database.
collect_ignore = ["typing"]

# What a developer's own shell says must not change what the tests see.
_SETTINGS = (
    "DB_TYPE",
    "SQLITE_DB_PATH",
    "SQLITE_SYNCHRONOUS",
    "SQLITE_OPERATION_TIMEOUT",
    "DATABASE_URL",
    "DIRECTOR_DB_MIGRATE",
)

# The longest files first, and the many short trials of the gallery last, so that no worker is left
# with much at the end.
_LONG = (
    "conformance/test_command.py",
    "differential/test_differential.py",
    "postgres/test_out_of_step.py",
    "benchmarks/test_run.py",
    "postgres/test_waiting.py",
    "conformance/test_suite.py",
)

# Mutants that die only as some wait runs out, of a minute and more. At the end, where each worker
# is left with one of them, nothing else would run.
_LONG_TRIALS = (
    "WaitsForALockForEver",
    "WaitsForAnAnswerForEver",
    "ThirtyTwoAtMost",
    "NoneIsHeldBack",
    "OneOfABatchGivesTheTimeOfAll",
    "ABatchWaitsForLocks",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each file to one worker, as its tests share a server, but not the gallery."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - a run without it is fine

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return nodeid if file.endswith("test_gallery.py") else file

    return Files(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """More than there are cores: most tests of Postgres wait."""
    return (os.cpu_count() or 1) + 3


def pytest_sessionstart(session):
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    # A long run that is ended, or looked at, has told by then what failed.
    if reporter is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Failures(reporter))


class _Failures:
    def __init__(self, reporter):
        self._reporter = reporter

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self._reporter.ensure_newline()
            self._reporter.write_line(f"{report.nodeid} failed in its {report.when}:", red=True)
            self._reporter.write_line(report.longreprtext)


def pytest_collection_modifyitems(items):
    turns = {**{name: turn for turn, name in enumerate(_LONG)}, "gallery/test_gallery.py": 1000}

    def turn(item):
        if any(f"[{name}]" in item.name for name in _LONG_TRIALS):
            return len(_LONG)
        return turns.get("/".join(item.path.parts[-2:]), len(turns))

    items.sort(key=turn)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    # What thousands of tests are made of stays to the end, and no collection of garbage is to walk
    # it: not while it is imported, nor later.
    with uncollected():
        return (yield)


@pytest.fixture
def postgres_environment(postgres_database):
    """What opens an empty Postgres database, through PgBouncer if the run asks for that."""
    if PGBOUNCER_VARIABLE not in os.environ:
        yield postgres_database.environment
        return
    with PgBouncer(postgres_database) as pooler:
        yield pooler.environment


@pytest.fixture
def pgbouncer():
    """The class of it, where the program is installed."""
    try:
        find_pgbouncer()
    except NoPgBouncerError as error:
        if "CI" in os.environ:
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    return PgBouncer


@pytest.fixture
def stopped_clock(monkeypatch):
    """Let every "now" be the time 2, so that two backends store the same."""
    for module in (checks, appending, saving):
        monkeypatch.setattr(module, "now", lambda: 2)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in os.environ:
        if name in _SETTINGS or name.startswith("POSTGRES_"):
            monkeypatch.delenv(name)
    yield
    director_db.close_all()
