import os
import subprocess
import sys

import pytest

from director_db_conformance.servers import offered_postgres
from director_db_conformance.servers.configured_server import VARIABLE
from director_db_conformance.servers.docker_container import IMAGE_VARIABLE
from director_db_conformance.servers.server_sources import VERSION_VARIABLE

pytestmark = pytest.mark.sampled

CONFTEST = 'pytest_plugins = ["director_db_conformance.fixtures"]\n'

USES_A_DATABASE = """
import psycopg

def create_table(database):
    with psycopg.connect(database.dsn) as connection:
        connection.execute("CREATE TABLE t (i int)")

def test_first(postgres_database):
    create_table(postgres_database)

def test_second(postgres_database):
    create_table(postgres_database)

def test_own(postgres_cluster, postgres_server):
    assert postgres_cluster.port != postgres_server.port
    postgres_cluster.restart()
"""

USES_NOTHING = """
import os
from director_db_conformance.servers.reaper import processes

def test_nothing_was_started():
    children = [each for each in processes() if each.parent == os.getpid()]
    assert children == []
"""

NO_SUCH_VERSION = "9"


@pytest.fixture
def run(tmp_path):
    def run(test, **environment):
        (tmp_path / "conftest.py").write_text(CONFTEST)
        (tmp_path / "test_it.py").write_text(test)
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        ours = {"CI", VARIABLE, IMAGE_VARIABLE, VERSION_VARIABLE}
        inherited = {key: value for key, value in os.environ.items() if key not in ours}
        settings = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock", **environment}
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider"],
            cwd=tmp_path,
            env={**inherited, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )

    return run


@pytest.mark.usefixtures("no_configured_server", "no_docker")
def test_tests_have_a_server_and_the_header_names_it(run):
    result = run(USES_A_DATABASE)
    assert "3 passed" in result.stdout
    assert f"\npostgres: {offered_postgres()}, once a test asks for it\n" in result.stdout
    # The cluster of the module and the server of the session are of the same kind.
    assert f"\npostgres used: {offered_postgres()}\n" in result.stdout


def test_a_version_can_be_asked_for(run):
    result = run(USES_A_DATABASE, **{VERSION_VARIABLE: "16"})
    assert "3 passed" in result.stdout
    assert "\npostgres: 16." in result.stdout
    assert "\npostgres used: 16." in result.stdout


def test_the_servers_starts_only_when_it_is_asked_for(run):
    result = run(USES_NOTHING)
    assert "1 passed" in result.stdout
    assert "\npostgres: " in result.stdout
    assert "postgres used" not in result.stdout


def test_without_a_server_tests_are_skipped_with_the_remedies(run):
    result = run(USES_A_DATABASE, **{VERSION_VARIABLE: NO_SUCH_VERSION})
    assert result.returncode == 0
    assert "3 skipped" in result.stdout
    assert "postgres: none; tests that need one will be skipped" in result.stdout
    assert "apt-get install postgresql" in result.stdout


def test_without_a_server_ci_fails(run):
    result = run(USES_A_DATABASE, CI="true", **{VERSION_VARIABLE: NO_SUCH_VERSION})
    assert result.returncode == 1
    assert "3 errors" in result.stdout
    assert "CI is set, so nothing is skipped. No Postgres 9 for the tests." in result.stdout
    assert "apt-get install postgresql" in result.stdout


def test_a_configured_server_that_cannot_be_used_fails(run):
    result = run(USES_A_DATABASE, **{VARIABLE: "postgresql://u:hush-hush@127.0.0.1:1/d"})
    assert result.returncode == 1
    assert f"postgres: none: {VARIABLE} is set, but its server cannot be used" in result.stdout
    assert "hush-hush" not in result.stdout
