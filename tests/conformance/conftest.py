import os
import subprocess
import sys
from pathlib import Path

import pytest

from director_db_conformance.proxy import Proxy
from director_db_conformance.servers import find_cluster
from director_db_conformance.servers.configured_server import VARIABLE
from director_db_conformance.servers.docker_container import IMAGE_VARIABLE
from director_db_conformance.servers.server_sources import VERSION_VARIABLE

PACKAGES = Path(__file__).with_name("packages")
"""What somebody might have installed: backends, each broken in its own way."""

COMMAND = Path(sys.executable).with_name("director-db-conformance")

collect_ignore = ["packages"]


@pytest.fixture
def command(tmp_path):
    """Start ``director-db-conformance`` as its users do, where those packages are installed."""

    def start(*args, **environment):
        ours = {"CI", VARIABLE, VERSION_VARIABLE, IMAGE_VARIABLE, "COLUMNS"}
        inherited = {key: value for key, value in os.environ.items() if key not in ours}
        return subprocess.Popen(
            [COMMAND, *args],
            cwd=tmp_path,
            env={**inherited, "COLUMNS": "120", "PYTHONPATH": str(PACKAGES), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def conformance(command):
    """Run that command to its end."""

    def run(*args, timeout=840, **environment):  # It hangs; what is slow takes its time.
        with command(*args, **environment) as process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(args, process.returncode, output, errors)

    return run


@pytest.fixture(scope="session")
def cluster():
    with find_cluster() as cluster:
        yield cluster


@pytest.fixture
def database(cluster):
    database = cluster.create_database()
    yield database
    cluster.drop_database(database)


@pytest.fixture
def proxy(cluster):
    with Proxy(cluster.host, cluster.port) as proxy:
        yield proxy


@pytest.fixture
def no_configured_server(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv(IMAGE_VARIABLE, raising=False)


@pytest.fixture
def no_docker(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
