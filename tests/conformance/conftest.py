import pytest

from director_db_conformance.proxy import Proxy
from director_db_conformance.servers import find_cluster
from director_db_conformance.servers.configured_server import VARIABLE
from director_db_conformance.servers.docker_container import IMAGE_VARIABLE


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
