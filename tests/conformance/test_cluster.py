import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from director_db_conformance.dsn import replace
from director_db_conformance.servers import find_cluster
from director_db_conformance.servers.folder import ServerFolder
from director_db_conformance.servers.reaper import processes, processes_in, reap
from director_db_conformance.servers.template import FOLDER_VARIABLE

pytestmark = pytest.mark.sampled

WAL_WRITER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
SSL_REQUEST = bytes.fromhex("0000000804d2162f")

OWNER = """
import sys
from director_db_conformance.servers import find_cluster
with find_cluster() as cluster:
    print(cluster.path, flush=True)
    sys.stdin.read()
"""

FORK = """
import os
from director_db_conformance.servers import find_cluster
with find_cluster() as cluster:
    if os.fork() == 0:
        cluster.close()
        os._exit(0)
    os.wait()
    with cluster.connect() as connection:
        print(connection.execute("SELECT 'still here'").fetchone()[0])
"""

SHARING = """
from director_db_conformance.servers import find_cluster, template
made, inner = [], template._make_in
template._make_in = lambda *args: made.append(1) or inner(*args)
with find_cluster() as cluster, cluster.connect() as connection:
    print(len(made), connection.execute("SELECT 'runs'").fetchone()[0])
"""

FORGOTTEN_CHILD = """
import os, sys, time
from director_db_conformance.servers import find_cluster
cluster = find_cluster()
if os.fork() == 0:
    os.close(1)
    sys.stdin.read()
    os._exit(0)
print(cluster.path, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def own_cluster():
    with find_cluster() as cluster:
        yield cluster


def start(script):
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def first_line(process, patience=60):
    readable, _, _ = select.select([process.stdout], [], [], patience)
    assert readable, "the script said nothing"
    return process.stdout.readline().strip()


def wait_until_gone(path, patience=30):
    deadline = time.monotonic() + patience
    while (path.exists() or processes_in(path)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not path.exists() and not processes_in(path)


def one(connection, query):
    return connection.execute(query).fetchone()[0]


def state(connection):
    """Return what a database holds, and who may do what in it."""
    return [
        connection.execute(query).fetchall()
        for query in (
            """SELECT nspname, nspowner::regrole::text, nspacl::text FROM pg_namespace
            WHERE nspname !~ '^pg_' ORDER BY 1""",
            "SELECT count(*) FROM pg_class",
            "SELECT count(*) FROM pg_proc",
            "SELECT count(*) FROM pg_type",
            """SELECT datdba::regrole::text, datacl::text, encoding, datlocprovider::text
            FROM pg_database WHERE datname = current_database()""",
        )
    ]


class TestDatabases:
    def test_are_empty_and_each_its_own(self, cluster):
        first, second = cluster.create_database(), cluster.create_database()
        with psycopg.connect(first.dsn) as connection:
            connection.execute("CREATE TABLE t (i int)")
        with psycopg.connect(second.dsn) as connection:
            tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            assert one(connection, tables) == 0
        cluster.drop_database(first)
        cluster.drop_database(second)
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(first.dsn)

    def test_belong_to_an_account_that_is_no_superuser(self, database):
        with psycopg.connect(database.dsn) as connection:
            query = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
            assert one(connection, query) is False

    def test_open_with_the_right_password_only(self, database):
        wrong = replace(database.dsn, password="not it")  # noqa: S106 - the very point
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)

    def test_go_from_under_their_users(self, cluster):
        database = cluster.create_database()
        with psycopg.connect(database.dsn) as connection:
            cluster.drop_database(database)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")

    def test_are_left_by_all_at_once(self, cluster, database):
        left = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                connection = stack.enter_context(contextlib.closing(psycopg.connect(database.dsn)))
                connection.execute("SELECT pg_advisory_xact_lock_shared(1)")
            cluster.end_connections(database)
            with psycopg.connect(cluster.dsn) as observer:
                assert [] == observer.execute(left, [database.name]).fetchall()

    def test_are_empty_again_when_they_were_given_back(self, cluster):
        first = cluster.create_database()
        with psycopg.connect(first.dsn, autocommit=True) as connection:
            fresh = state(connection)
            for statement in (
                "CREATE TABLE t (i int)",
                "CREATE SCHEMA own",
                "CREATE TABLE own.t (i int)",
                "CREATE FUNCTION own.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            ):
                connection.execute(statement)
            # Also from under its users.
            cluster.give_back(first)
        second = cluster.create_database()
        assert first.name != second.name
        with psycopg.connect(second.dsn, autocommit=True) as connection:
            assert fresh == state(connection)
            connection.execute("CREATE TABLE t (i int)")
        with psycopg.connect(cluster.dsn) as connection:
            names = "SELECT count(*) FROM pg_database WHERE datname = %s"
            assert connection.execute(names, [first.name]).fetchone() == (0,)
        cluster.drop_database(second)

    def test_are_new_where_somebody_came_back_to_the_last_one(self, cluster):
        first = cluster.create_database()
        cluster.give_back(first)
        with psycopg.connect(first.dsn) as late:
            second = cluster.create_database()
            with psycopg.connect(second.dsn) as connection:
                assert one(connection, "SELECT current_database()") == second.name
            with pytest.raises(psycopg.OperationalError, match="terminating connection"):
                late.execute("SELECT 1")
        cluster.drop_database(second)

    @pytest.mark.parametrize(
        "statement",
        [
            "ALTER DATABASE {} SET default_transaction_read_only = on",
            "ALTER DATABASE {} WITH ALLOW_CONNECTIONS false",
            "GRANT CREATE ON DATABASE {} TO PUBLIC",
        ],
    )
    def test_are_dropped_where_something_of_them_would_be_left(self, cluster, statement):
        first = cluster.create_database()
        with psycopg.connect(cluster.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(first.name)))
            cluster.give_back(first)
            names = "SELECT count(*) FROM pg_database WHERE datname = %s"
            assert connection.execute(names, [first.name]).fetchone() == (0,)

    def test_may_have_an_encoding_of_their_own(self, cluster):
        database = cluster.create_database("LATIN1")
        with psycopg.connect(database.dsn) as connection:
            assert one(connection, "SHOW server_encoding") == "LATIN1"
        cluster.drop_database(database)

    def test_show_no_password(self, database):
        assert repr(database) == f"<Database {database.name}>"

    def test_are_opened_by_settings(self, database):
        assert database.environment == {"DB_TYPE": "postgres", "POSTGRES_DSN": database.dsn}


class TestServer:
    def test_listens_on_the_loopback_interface_only(self, cluster):
        with cluster.connect() as connection:
            assert one(connection, "SHOW listen_addresses") == "127.0.0.1"
            assert one(connection, "SHOW unix_socket_directories") == ""

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
    def test_does_not_run_as_root(self, cluster):
        status = Path(f"/proc/{cluster.process_id}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        assert "0" not in fields["Uid"].split()
        assert "0" not in fields["Gid"].split()
        assert fields["Groups"].split() == []

    def test_skips_fsync_but_never_forgets_a_commit(self, own_cluster):
        database = own_cluster.create_database()
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            assert one(connection, "SHOW fsync") == "off"
            connection.execute("CREATE TABLE t (i int)")
            with own_cluster.connect() as admin:
                # It would write a moment later what a commit has not waited for.
                os.kill(one(admin, WAL_WRITER), signal.SIGSTOP)
            connection.execute("INSERT INTO t VALUES (1)")
            own_cluster.kill()
        own_cluster.start()
        with psycopg.connect(database.dsn) as connection:
            assert connection.execute("SELECT i FROM t").fetchall() == [(1,)]

    def test_keeps_fsync_where_it_must_be_durable(self):
        with find_cluster(durable=True) as cluster, cluster.connect() as connection:
            assert one(connection, "SHOW fsync") == "on"
            assert one(connection, "SHOW full_page_writes") == "on"

    def test_leaves_nothing(self):
        with find_cluster() as cluster:
            path = cluster.path
            assert len(servers_in(path)) == 1
        assert not path.exists()
        assert processes_in(path) == []


class TestFaults:
    @pytest.fixture
    def database(self, own_cluster):
        database = own_cluster.create_database()
        with psycopg.connect(database.dsn) as connection:
            connection.execute("CREATE TABLE t (i int)")
        return database

    @pytest.mark.parametrize("crash", [True, False], ids=["kill", "stop"])
    def test_what_was_committed_is_there_after(self, own_cluster, database, crash):
        port = own_cluster.port
        with psycopg.connect(database.dsn) as connection:
            connection.execute("INSERT INTO t VALUES (1)")
            connection.commit()
            connection.execute("INSERT INTO t VALUES (2)")
            own_cluster.kill() if crash else own_cluster.stop()
            assert not own_cluster.is_running
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(database.dsn)
        logged = len(own_cluster.log)
        own_cluster.start()
        assert own_cluster.port == port
        with psycopg.connect(database.dsn) as connection:
            assert connection.execute("SELECT i FROM t").fetchall() == [(1,)]
        assert ("not properly shut down" in own_cluster.log[logged:]) is crash

    def test_kill_takes_every_process(self, own_cluster, database):
        with psycopg.connect(database.dsn) as connection:
            postmaster = own_cluster.process_id
            family = {p.pid for p in processes() if p.parent == postmaster} | {postmaster}
            assert connection.info.backend_pid in family
            own_cluster.kill()
        assert {p.pid for p in processes()} & family == set()
        own_cluster.start()

    def test_a_frozen_server_answers_nothing_until_it_is_thawed(self, own_cluster, database):
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            own_cluster.freeze()
            try:
                connection.pgconn.send_query(b"SELECT 'awake'")
                connection.pgconn.flush()
                assert ([], [], []) == select.select([connection.fileno()], [], [], 0.3)
                # The system lets it in, and nobody greets it.
                with socket.create_connection((own_cluster.host, own_cluster.port)) as other:
                    other.sendall(SSL_REQUEST)
                    assert ([], [], []) == select.select([other], [], [], 0.1)
            finally:
                own_cluster.thaw()
            assert b"awake" == connection.pgconn.get_result().get_value(0, 0)
            assert connection.pgconn.get_result() is None

    def test_a_frozen_server_can_be_killed(self, own_cluster, database):
        own_cluster.freeze()
        own_cluster.kill()
        own_cluster.thaw()
        own_cluster.start()
        with psycopg.connect(database.dsn) as connection:
            assert one(connection, "SELECT count(*) FROM t") == 0

    def test_restart_is_a_new_server_at_the_same_place(self, own_cluster, database):
        before = own_cluster.process_id
        own_cluster.restart()
        assert own_cluster.process_id != before
        with psycopg.connect(database.dsn) as connection:
            assert one(connection, "SELECT count(*) FROM t") == 0


def servers_in(path):
    """Return the servers in a folder, without their children, which begin under the same name."""
    found = processes_in(path)
    return [each for each in found if each.parent not in {server.pid for server in found}]


class TestOwner:
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_that_dies_takes_its_server_with_it(self, number):
        with start(OWNER) as owner:
            path = Path(first_line(owner))
            assert path.exists()
            assert len(servers_in(path)) == 1
            owner.send_signal(number)
            owner.wait(60)
        assert wait_until_gone(path)

    def test_that_dies_together_with_its_reaper_is_swept_up_after(self):
        with start(OWNER) as owner:
            path = Path(first_line(owner))
            reapers = [p.pid for p in processes() if p.arguments[-1] == str(path)]
            assert len(reapers) == 1
            os.kill(reapers[0], signal.SIGKILL)
            owner.kill()
            owner.wait(60)
        assert path.exists()
        assert len(servers_in(path)) == 1
        ServerFolder(None).remove()
        assert not path.exists()
        assert processes_in(path) == []

    def test_that_lives_is_left_alone(self, cluster):
        ServerFolder(None).remove()
        with cluster.connect() as connection:
            assert one(connection, "SELECT 1") == 1

    def test_closes_nothing_in_a_forked_child(self):
        with start(FORK) as owner:
            assert first_line(owner) == "still here"

    def test_does_not_live_on_in_a_forked_child(self):
        with start(FORGOTTEN_CHILD) as owner:
            path = Path(first_line(owner))
            owner.wait(60)
            # The child still waits for its input.
            assert wait_until_gone(path)


def test_processes_share_what_initdb_writes():
    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o711)  # The server's account is to pass through.

        def run(count):
            env = os.environ | {FOLDER_VARIABLE: shared}
            command = [sys.executable, "-c", SHARING]
            processes = [
                subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
                for _ in range(count)
            ]
            return sorted(process.communicate(timeout=300)[0] for process in processes)

        assert ["0 runs\n", "0 runs\n", "1 runs\n"] == run(3)
        assert ["0 runs\n"] == run(1)
        (finished,) = Path(shared).glob("*.finished")
        finished.unlink()  # As if who made it had been killed before its end.
        assert ["1 runs\n"] == run(1)


def test_reaping_spares_what_only_looks_at_the_folder(tmp_path):
    inside = tmp_path / "server.log"
    inside.write_text("started\n")
    with subprocess.Popen(["tail", "-f", str(inside)], stdout=subprocess.PIPE, text=True) as reader:
        # It has the file open by now: reaping removes the folder.
        assert first_line(reader) == "started"
        reap(tmp_path)
        assert reader.poll() is None
        reader.kill()
    assert not tmp_path.exists()
