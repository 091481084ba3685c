"""Run Google ADK's own tests of session services against `DirectorSessionService`.

``python tests/integrations/judge_google_adk.py FOLDER`` takes a clone of adk-python and uses the
database that the environment names. The clone's ``test_session_service.py`` runs as it is; where it
makes a `DatabaseSessionService` or a `SqliteSessionService`, it gets ours. The exit status is 0 if
all pass that apply.
"""

from __future__ import annotations

import os
import sys
import types
import uuid

import pytest
from google.adk import sessions
from google.adk.sessions import sqlite_session_service
from judging import WithReasons, in_place, judge

from director_db_integrations import adk_records
from director_db_integrations.google_adk import DirectorSessionService

TESTS = "tests/unittests/sessions/test_session_service.py"

# Of a test's source: it is about the class, the tables or the URLs of one of ADK's own services.
NOT_OURS = {
    "InMemorySessionService()": "looks inside InMemorySessionService",
    "VertexAiSessionService(": "is about VertexAiSessionService",
    "SqliteSessionService(": "is about the URLs of SqliteSessionService",
    "create_async_engine": "is about the engines of DatabaseSessionService",
    "database_session_factory": "looks at the transactions of DatabaseSessionService",
    "_select_required_state": "looks at the statements of DatabaseSessionService",
    "prepare_tables": "is about the tables of DatabaseSessionService",
    "_tables_created": "is about the tables of DatabaseSessionService",
    "dialect_name": "calls no service",
}
PARAMETERS = ("service_type", "session_service")


class InItsPlace(DirectorSessionService):
    """Ours, made as the tests make theirs."""

    def __init__(self, *_args, **_options):
        super().__init__()

    async def close(self):
        """Do nothing: the database is the process's."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()


class Judge(WithReasons):
    """A plugin of pytest that does without the clone's own, and counts."""

    @staticmethod
    def pytest_runtest_setup():
        # Each test has sessions of its own in the one database.
        adk_records.FRAMEWORK = f"judged-{uuid.uuid4()}"

    @pytest.fixture
    def session_service(self):
        return InItsPlace()

    @staticmethod
    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(fixturedef, request):
        if fixturedef.argname != "session_service":
            return None
        fixturedef.cached_result = (InItsPlace(), fixturedef.cache_key(request), None)
        return fixturedef.cached_result[0]

    @staticmethod
    def pytest_collection_modifyitems(items):
        items[:] = [item for item in items if _is_for_a_database(item)]


def _is_for_a_database(item):
    """Return whether a test is for any service, or runs with that one of ADK's that ours is for."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    kinds = [str(getattr(given[name], "name", given[name])) for name in PARAMETERS if name in given]
    return all(kind == "DATABASE" for kind in kinds)


def main(folder):
    sqlite_session_service.SqliteSessionService = InItsPlace
    # SQLAlchemy is not installed, and only tests need it that look into tables.
    replaced = types.ModuleType(f"{sessions.__name__}.database_session_service")
    replaced.DatabaseSessionService = sessions.DatabaseSessionService = InItsPlace
    sessions.database_session_service = sys.modules[replaced.__name__] = replaced
    sys.modules["sqlalchemy"] = types.ModuleType("sqlalchemy")
    sys.modules["sqlalchemy"].delete = None
    os.chdir(folder)
    plugin = Judge(NOT_OURS)
    return judge(["--tb=short", TESTS], plugin, plugin.kind_and_reason)


if __name__ == "__main__":
    sys.exit(in_place(main, sys.argv[1]))
