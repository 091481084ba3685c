"""What the judges of the integrations share: programs that run a framework's own tests on ours."""

from __future__ import annotations

import asyncio
import inspect
import os
import tempfile
from pathlib import Path

import pytest

import director_db

OPTIONS = ["-c", os.devnull, "-q", "--noconftest", "--disable-warnings", "-p", "no:cacheprovider"]
"""Of pytest, which is to do without the clone's own settings and plugins."""


class Coroutines:
    """A plugin of pytest that runs tests which are coroutines."""

    @staticmethod
    def pytest_pyfunc_call(pyfuncitem):
        if not inspect.iscoroutinefunction(pyfuncitem.obj):
            return None
        names = inspect.signature(pyfuncitem.obj).parameters
        asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
        return True


class Counting(Coroutines):
    """It also keeps the outcome of each test."""

    def __init__(self):
        self.outcomes = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.failed:
            self.outcomes[report.nodeid] = report.outcome


class WithReasons(Coroutines):
    """It also keeps the outcome of each test, and why the test's source says it does not apply."""

    def __init__(self, reasons):
        self.outcomes = {}
        self._reasons = reasons

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if report.when == "call" or report.failed:
            source = inspect.getsource(item.obj)
            reason = next((self._reasons[part] for part in self._reasons if part in source), "")
            self.outcomes[item.nodeid] = (report.outcome, reason)
        return report

    @staticmethod
    def kind_and_reason(_test, found):
        outcome, reason = found
        return "does not apply" if reason else outcome, reason


def failing_for(reasons):
    """Return a `kind_and_reason`: what fails and has a reason by its name does not apply."""

    def kind_and_reason(test, outcome):
        reason = reasons.get(test.rpartition("::")[2].partition("[")[0], "")
        return ("does not apply" if outcome == "failed" and reason else outcome), reason

    return kind_and_reason


def judge(tests, plugin, kind_and_reason):
    """Run tests, tell what failed and what does not apply, and return the exit status.

    `kind_and_reason` is given a test and what the plugin has of it in `outcomes`, and returns of
    which kind it is, and why.
    """
    pytest.main([*OPTIONS, *tests], plugins=[plugin])
    kinds = {"passed": [], "failed": [], "does not apply": []}
    for test, outcome in plugin.outcomes.items():
        kind, reason = kind_and_reason(test, outcome)
        kinds[kind].append(f"{test}: {reason}")
    print(*kinds["failed"], *kinds["does not apply"], sep="\n")
    print(director_db.load_db().db_type, {kind: len(tests) for kind, tests in kinds.items()})
    return bool(kinds["failed"]) or not kinds["passed"]


def in_place(main, folder):
    """Run ``main(folder)``, with a database of its own where the environment names none."""
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("SQLITE_DB_PATH", f"{place}/director.db")
        return main(Path(folder).resolve())
