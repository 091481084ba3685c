"""The plugin of pytest that turns the clauses of a run into verdicts.

Loaded by itself wherever the suite is installed; it does nothing for other tests.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from director_db_conformance.clause import clause_of, completed
from director_db_conformance.expectation import NonconformityError
from director_db_conformance.face import SYNC
from director_db_conformance.levels import Clause, Level
from director_db_conformance.suite import (
    APART,
    CLAUSES,
    FIXTURES,
    NOT_APPLICABLE,
    SERVER,
    ConformanceSuite,
    replaced,
)
from director_db_conformance.transcript import shown_error, transcript
from director_db_conformance.unexpected import stack
from director_db_conformance.verdict import Outcome, Result, Word, judge
from director_db_conformance.version import CHECKED, __version__

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

LEVEL_OPTION: Final = "--conformance-level"
EVENTS_OPTION: Final = "--conformance-events"
CALLS_OPTION: Final = "--conformance-calls"
STACKS_OPTION: Final = "--conformance-stacks"
CLAIMS_OPTION: Final = "--conformance-claims"
BACKWARDS_OPTION: Final = "--conformance-backwards"

_ORDER: Final = {name: number for number, name in enumerate(CLAUSES)}


_RARELY: Final = 5000
"""How many new objects the collector of garbage waits for; Python's 700 cost a run 6 % more."""


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep what is made in the block, and stays, from the collector of garbage for good.

    From then on it begins less often.
    """
    gc.disable()
    try:
        yield
    finally:
        spare_what_stays()
        gc.enable()


def spare_what_stays() -> None:
    """Keep all that there is now from the collector of garbage, and let it begin less often."""
    gc.freeze()
    gc.set_threshold(_RARELY)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("director-db conformance")
    group.addoption(
        LEVEL_OPTION,
        choices=[level.value for level in Level],
        default=Level.DURABLE.value,
        help="the highest level to run: core, concurrent or durable (default: all that apply)",
    )
    group.addoption(
        EVENTS_OPTION,
        metavar="FILE",
        help="write what happens to each clause to this file, one JSON object a line",
    )
    group.addoption(
        CALLS_OPTION,
        metavar="FILE",
        help="write the calls of the clause that is under way to this file, as they begin",
    )
    group.addoption(
        STACKS_OPTION,
        metavar="FILE",
        help="on SIGUSR1, write to this file where all threads stand",
    )
    group.addoption(
        CLAIMS_OPTION,
        metavar="FOLDER",
        help="share the clauses with other processes: run those of which no file in this folder "
        "has the name, and make it",
    )
    group.addoption(BACKWARDS_OPTION, action="store_true", help="begin with the last clause")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to collect results."""
    calls = config.getoption(CALLS_OPTION)
    if calls is not None:
        transcript.stream = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    stacks = config.getoption(STACKS_OPTION)
    if stacks is not None and hasattr(signal, "SIGUSR1"):
        # By the system's own hand: also where nothing of Python gets its turn any more.
        file = os.open(stacks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        faulthandler.register(signal.SIGUSR1, file=file)
    config.pluginmanager.register(_Reporter(config), "director-db-conformance-run")


@pytest.hookimpl(tryfirst=True)  # Before -k chooses.
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the clauses in order, without those beyond the level; ``-k MSG-3`` finds a rule's."""
    asked = Level(config.getoption(LEVEL_OPTION))
    backwards = config.getoption(BACKWARDS_OPTION)
    out = []
    places: dict[object, list[int]] = {}
    for place, item in enumerate(items):
        clause = _clause(item)
        if clause is not None:
            item.extra_keyword_matches.add(clause.rule)
            places.setdefault(item.parent, []).append(place)
            if not asked.includes(clause.level):
                out.append(item)
    for own in places.values():
        # pytest collects what a class inherits from its last base first.
        ordered = sorted((items[place] for place in own), key=_turn, reverse=backwards)
        for place, item in zip(own, ordered, strict=True):
            items[place] = item
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the result of a clause to the report of its test."""
    report = yield
    clause = _clause(item)
    if clause is None or item.parent is None:
        return report
    error = None if call.excinfo is None else call.excinfo.value
    result = _result(report, error, item.stash.get(NOT_APPLICABLE, None))
    if result is not None and result.outcome is Outcome.PASSED and clause.name not in completed:
        result = Result(Outcome.NOT_RUN, report.duration, "its body did not run to its end")
    if isinstance(error, NonconformityError) and report.outcome == "failed":
        report.longrepr = f"{error}\n\n{stack(error.__cause__)}".rstrip()
    server = item.stash.get(SERVER, None)
    if server is not None:
        report.__dict__["director_db_conformance_server"] = {_suite(item): server}
    report.__dict__["director_db_conformance_apart"] = item.stash.get(APART, False)
    if result is not None:
        # Simple data in an attribute: it also survives the way from a worker of pytest-xdist.
        report.__dict__["director_db_conformance"] = {
            "suite": _suite(item),
            "clause": clause.name,
            **result.as_json(),
        }
    return report


class _Reporter:
    """Collects the results of one pytest session, and writes them as events."""

    def __init__(self, config: pytest.Config) -> None:
        self._asked = Level(config.getoption(LEVEL_OPTION))
        events = config.getoption(EVENTS_OPTION)
        self._events = None if events is None else Path(events)
        claims = config.getoption(CLAIMS_OPTION)
        self._claims = None if claims is None else Path(claims)
        self._results: dict[str, dict[str, Result]] = {}
        self._chosen: dict[str, list[str]] = {}
        self._servers: dict[str, str] = {}
        self._are_apart = False

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        """Keep the collector of garbage from what a process of the command is made of."""
        with uncollected() if self._events is not None else contextlib.nullcontext():
            return (yield)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep which clauses are to run, of those that there are."""
        for item in session.items:
            clause = _clause(item)
            if clause is not None and item.parent is not None:
                self._chosen.setdefault(_suite(item), []).append(clause.name)
        self._write_event({"chosen": [name for names in self._chosen.values() for name in names]})

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Leave out, as done, the clauses that another process has claimed."""
        clause = _clause(item)
        if clause is None or self._claims is None:
            return None
        try:
            with (self._claims / clause.name).open("x", encoding="utf-8") as claim:
                claim.write(str(os.getpid()))
        except FileExistsError:
            return True
        return None

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Say that there is nothing more to come, unless something has interrupted it."""
        if exitstatus != pytest.ExitCode.INTERRUPTED:
            self._write_event({"ended": True})

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say which test is under way, so that somebody can tell that it never ends."""
        self._write_event({"started": nodeid.rpartition("::")[2]})

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Say that it has ended."""
        self._write_event({"finished": nodeid.rpartition("::")[2]})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the result of a clause; a later phase of its test can only make it worse."""
        servers = report.__dict__.get("director_db_conformance_server", {})
        if servers and servers != self._servers:
            self._servers |= servers
            self._write_event({"server": next(iter(servers.values()))})
        if report.__dict__.get("director_db_conformance_apart", False) and not self._are_apart:
            self._are_apart = True
            self._write_event({"apart": True})
        if report.when != "teardown":
            placed = report.when == "setup" and report.passed
            self._write_event({"phase": "call" if placed else "teardown"})
        data: dict[str, Any] | None = report.__dict__.get("director_db_conformance")
        if data is None:
            return
        own = self._results.setdefault(data["suite"], {})
        before = own.get(data["clause"])
        result = Result.of_json(data)
        if before is None or before.outcome in {Outcome.PASSED, Outcome.NOT_APPLICABLE}:
            own[data["clause"]] = result
            self._write_event(data)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the verdict on each suite."""
        if not self._results:
            return
        title = f"director-db conformance: contract {CHECKED}, suite {__version__}"
        terminalreporter.section(title)
        for suite, results in self._results.items():
            verdict = judge(CLAUSES.values(), results, self._asked, self._chosen.get(suite))
            outcomes = [result.outcome for result in results.values()]
            counts = ", ".join(
                f"{outcomes.count(outcome)} {outcome.value}"
                for outcome in Outcome
                if outcome in outcomes
            )
            good = verdict.word in {Word.CONFORMANT, Word.PARTIAL}
            terminalreporter.write(f"{suite}  ")
            terminalreporter.write(str(verdict), bold=True, green=good, red=not good)
            terminalreporter.line(f"  ({counts})")
            if suite in self._servers:
                terminalreporter.line(f"    on {self._servers[suite]}")
            reasons = {r.reason for r in results.values() if r.outcome is Outcome.NOT_APPLICABLE}
            for reason in sorted(reasons):
                terminalreporter.line(f"    not applicable: {reason}")

    def _write_event(self, event: dict[str, Any]) -> None:
        if self._events is not None:
            with self._events.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")


def _clause(item: pytest.Item) -> Clause | None:
    """Return the clause that a test is, if it is the suite's own and not put in its place."""
    if not isinstance(item, pytest.Function) or item.cls is None:
        return None
    own = getattr(item.function, "__func__", item.function)
    if not issubclass(item.cls, ConformanceSuite) or item.originalname not in CLAUSES:
        return None
    if any(replaced(item.cls, name) for name in FIXTURES):
        return None
    return clause_of(own) if own is getattr(ConformanceSuite, item.originalname) else None


def _suite(item: pytest.Item) -> str:
    """Return what the suite of a clause is called, with the face if it is not the usual one."""
    assert isinstance(item, pytest.Function)  # noqa: S101 - it is a clause
    assert item.parent is not None  # noqa: S101 - its class
    face = getattr(item.cls, "face", SYNC)
    return item.parent.nodeid + ("" if face == SYNC else f", face {face}")


def _turn(item: pytest.Item) -> int:
    clause = _clause(item)
    return -1 if clause is None else _ORDER[clause.name]


def _result(
    report: pytest.TestReport, error: BaseException | None, not_applicable: str | None
) -> Result | None:
    seconds = report.duration
    if report.outcome == "skipped" or hasattr(report, "wasxfail"):
        if not_applicable is not None:
            return Result(Outcome.NOT_APPLICABLE, seconds, not_applicable)
        return Result(Outcome.NOT_RUN, seconds, f"skipped: {report.longreprtext or error}")
    if report.outcome == "passed":
        return Result(Outcome.PASSED, seconds) if report.when == "call" else None
    if report.when == "setup":
        # The clause has not begun, so nothing is known about its rule.
        reason = f"no place: {_said(error)}"
        return Result(Outcome.NOT_RUN, seconds, reason, traceback=stack(error))
    if isinstance(error, NonconformityError) and error.clause is not None:
        return Result(
            Outcome.FAILED,
            seconds,
            error.clause.meaning,
            error.rule or error.clause.rule,
            error.expected,
            error.actual,
            tuple(error.calls),
            stack(error.__cause__),
        )
    where = "as its place was destroyed: " if report.when == "teardown" else ""
    return Result(Outcome.FAILED, seconds, f"{where}{_said(error)}", traceback=stack(error))


def _said(error: BaseException | None) -> str:
    return "" if error is None else shown_error(error, causes=True)
