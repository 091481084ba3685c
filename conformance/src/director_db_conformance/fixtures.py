"""Fixtures of pytest that give tests a Postgres, for ``pytest_plugins`` in a conftest.

The server starts when the first test asks for it. The header of the run names the one that there is
for that, and the end of the run the one that it was: where it comes from, and its version.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

from director_db_conformance.servers import (
    ConfiguredServerError,
    NoServerError,
    find_cluster,
    find_postgres,
    offered_postgres,
)
from director_db_conformance.servers.server_sources import asked_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director_db_conformance.servers import Cluster, Database, PostgresServer

Server = TypeVar("Server", bound="PostgresServer")

_OUTPUT: Final = "director_db_postgres_used"
_USED: Final[pytest.StashKey[list[str]]] = pytest.StashKey()


def pytest_report_header() -> str:
    """Name the server that the tests will use."""
    try:
        return f"postgres: {offered_postgres(version=asked_version())}, once a test asks for it"
    except NoServerError:
        return f"postgres: none; tests that need one will {'fail' if _in_ci() else 'be skipped'}"
    except ConfiguredServerError as error:
        # It is for the tests that need the server to fail, not for all.
        return f"postgres: none: {error}"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the servers that the tests have used: the one of the header may not have started."""
    if _USED in config.stash:
        used: list[str] = config.stash[_USED]
        terminalreporter.line(f"postgres used: {'; '.join(dict.fromkeys(used))}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the servers of a worker of pytest-xdist to the process that prints the summary."""
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = session.config.stash.get(_USED, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear of them."""
    used = getattr(node, "workeroutput", {}).get(_OUTPUT, [])
    if used:
        node.config.stash.setdefault(_USED, []).extend(used)


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """A Postgres server, shared by the whole run."""
    with _or_give_up(lambda: find_postgres(version=asked_version())) as server:
        pytestconfig.stash.setdefault(_USED, []).append(str(server))
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[Database]:
    """An empty database, of the test alone."""
    database = postgres_server.create_database()
    yield database
    postgres_server.give_back(database)


@pytest.fixture(scope="module")
def postgres_cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """A throw-away cluster that the tests of one module may stop, kill and restart."""
    with _or_give_up(lambda: find_cluster(version=asked_version())) as cluster:
        pytestconfig.stash.setdefault(_USED, []).append(str(cluster))
        yield cluster


def _or_give_up(find: Callable[[], Server]) -> Server:
    try:
        return find()
    except NoServerError as error:
        if _in_ci():
            # A run that skips what it should prove is green for nothing.
            pytest.fail(f"CI is set, so nothing is skipped. {error}", pytrace=False)
        pytest.skip(str(error))
    except ConfiguredServerError as error:
        # Without a traceback, which would show the settings and the password in them.
        pytest.fail(str(error), pytrace=False)


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in {"", "0", "false", "no"}
