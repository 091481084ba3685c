import contextlib
import socket
import subprocess
import sys
import threading

import psycopg
import pytest

from director_db_conformance.proxy import Proxy

FORK = """
import os, socket
from director_db_conformance.proxy import Proxy
server = socket.create_server(("127.0.0.1", 0))
proxy = Proxy(*server.getsockname())
client = socket.create_connection((proxy.host, proxy.port))
connection, _ = server.accept()
client.sendall(b"?")
assert connection.recv(1) == b"?"
keep, give = os.pipe()
if os.fork() == 0:
    os.close(give)
    client.close()
    os.read(keep, 1)
    os._exit(0)
proxy.stop()
try:
    client.recv(1)
except ConnectionResetError:
    print("reset", end=" ")
try:
    socket.create_connection((proxy.host, proxy.port))
except ConnectionRefusedError:
    print("refused")
os.close(give)
"""


@pytest.fixture
def connection(proxy, database):
    with psycopg.connect(proxy.reroute(database.dsn), autocommit=True) as connection:
        yield connection


@pytest.fixture
def echo():
    """A server that sends back what it gets, for as many connections as come."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:

        def serve(connection):
            with connection, contextlib.suppress(OSError):
                while data := connection.recv(65536):
                    connection.sendall(data)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    thread = threading.Thread(target=serve, args=[listener.accept()[0]])
                    thread.start()
                    stack.callback(thread.join)

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        with Proxy(*listener.getsockname()) as proxy:
            yield proxy
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()


@pytest.fixture
def client(echo):
    with socket.create_connection((echo.host, echo.port), timeout=30) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        yield client


def receive(client, size):
    received = bytearray()
    while len(received) < size and (data := client.recv(65536)):
        received += data
    return bytes(received)


class TestRoundTrips:
    def test_of_a_query(self, proxy, connection):
        with proxy.count() as counted:
            connection.execute("SELECT 1")
        assert counted.round_trips == 1

    def test_of_a_query_with_parameters(self, proxy, connection):
        with proxy.count() as counted:
            connection.execute("SELECT %s::int", (1,))
        assert counted.round_trips == 1

    def test_of_preparing_and_executing(self, proxy, connection):
        with proxy.count() as counted:
            connection.execute("SELECT %s::int", (1,), prepare=True)
        assert counted.round_trips == 2
        with proxy.count() as counted:
            connection.execute("SELECT %s::int", (2,), prepare=True)
        assert counted.round_trips == 1

    @pytest.mark.parametrize("statements", [2, 200])
    def test_of_a_pipeline(self, proxy, connection, statements):
        with proxy.count() as counted, connection.pipeline():
            for number in range(statements):
                connection.execute("SELECT %s::int", (number,))
        assert counted.round_trips == 1

    def test_of_a_pipeline_with_long_answers(self, proxy, connection):
        with proxy.count() as counted, connection.pipeline():
            for _ in range(20):
                connection.execute("SELECT repeat('x', 100000), %s::int", (1,))
        assert counted.round_trips == 1
        assert counted.bytes_received > 2_000_000

    def test_of_a_transaction(self, proxy, connection):
        with proxy.count() as counted, connection.transaction():
            connection.execute("SELECT 1")
        assert counted.round_trips == 3

    def test_of_a_transaction_in_a_pipeline(self, proxy, connection):
        with proxy.count() as counted, connection.pipeline(), connection.transaction():
            connection.execute("SELECT 1")
        assert counted.round_trips == 4

    def test_of_a_long_answer(self, proxy, connection):
        with proxy.count() as counted:
            rows = connection.execute("SELECT generate_series(1, 10000)").fetchall()
        assert len(rows) == 10_000
        assert counted.round_trips == 1

    def test_of_copying_in(self, proxy, connection):
        connection.execute("CREATE TABLE t (i int)")
        with proxy.count() as counted, connection.cursor().copy("COPY t FROM STDIN") as copy:
            for number in range(1000):
                copy.write_row((number,))
        assert counted.round_trips == 2

    def test_of_connecting(self, proxy, database):
        with proxy.count() as counted:
            psycopg.connect(proxy.reroute(database.dsn), sslmode="disable").close()
        assert counted.round_trips == 3
        assert counted.connections == 1

    def test_of_several_threads(self, proxy, database):
        with contextlib.ExitStack() as stack:
            dsn = proxy.reroute(database.dsn)
            connections = [
                stack.enter_context(psycopg.connect(dsn, autocommit=True, prepare_threshold=None))
                for _ in range(4)
            ]

            def query(connection):
                for _ in range(50):
                    connection.execute("SELECT 1")

            threads = [threading.Thread(target=query, args=[each]) for each in connections]
            with proxy.count() as counted:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        assert counted.round_trips == 200

    def test_are_counted_from_the_start(self, proxy, connection):
        before = proxy.round_trips()
        connection.execute("SELECT 1")
        assert proxy.round_trips() == before + 1

    def test_are_counted_to_the_end_of_the_block(self, proxy, connection):
        with proxy.count() as counted:
            pass
        connection.execute("SELECT 1")
        assert counted.round_trips == 0


class TestPassingOn:
    def test_counts_bytes(self, echo, client):
        with echo.count() as counted:
            client.sendall(b"x" * 1000)
            assert receive(client, 1000) == b"x" * 1000
        assert (counted.bytes_sent, counted.bytes_received) == (1000, 1000)

    def test_keeps_every_byte_when_nobody_reads_for_long(self, client):
        data = bytes(range(256)) * 40_000
        sender = threading.Thread(target=client.sendall, args=[data])
        sender.start()
        assert receive(client, len(data)) == data
        sender.join()

    def test_passes_the_end_on(self, client):
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""

    def test_resets_where_there_is_no_server(self):
        with socket.create_server(("127.0.0.1", 0)) as gone:
            address = gone.getsockname()
        with Proxy(*address) as proxy, socket.create_connection((proxy.host, proxy.port)) as client:
            client.settimeout(30)
            with pytest.raises(ConnectionResetError):
                client.recv(1)


class TestFaults:
    def test_cut_resets_what_is_there(self, echo, client):
        assert echo.cut() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with socket.create_connection((echo.host, echo.port), timeout=30) as another:
            another.sendall(b"again")
            assert receive(another, 5) == b"again"
        assert echo.cut() <= 1

    def test_stop_refuses_until_start(self, echo, client):
        port = echo.port
        echo.stop()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((echo.host, port))
        echo.start()
        assert echo.port == port
        with socket.create_connection((echo.host, port), timeout=30) as another:
            another.sendall(b"again")
            assert receive(another, 5) == b"again"

    @pytest.mark.parametrize("reply_bytes", [0, 1, 300, 999])
    def test_cut_after_some_bytes_of_an_answer(self, echo, client, reply_bytes):
        happened = echo.cut_after(reply_bytes)
        client.sendall(b"x" * 1000)
        received = bytearray()
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - how many reads it takes is open
            while True:
                received += client.recv(65536)
        assert bytes(received) == b"x" * reply_bytes
        assert happened.wait(30)

    def test_cut_happens_once(self, echo, client):
        happened = echo.cut_after(7)
        client.sendall(b"1234567")
        assert receive(client, 7) == b"1234567"
        assert not happened.is_set()
        client.sendall(b"8")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with socket.create_connection((echo.host, echo.port), timeout=30) as another:
            another.sendall(b"x" * 1000)
            assert receive(another, 1000) == b"x" * 1000

    def test_a_lost_answer_is_to_a_statement_that_was_done(self, proxy, database):
        with psycopg.connect(database.dsn, autocommit=True) as direct:
            direct.execute("CREATE TABLE t (i int)")
            through = psycopg.connect(proxy.reroute(database.dsn), autocommit=True)
            happened = proxy.cut_after(0)
            with through, pytest.raises(psycopg.OperationalError):
                through.execute("INSERT INTO t VALUES (1)")
            assert happened.is_set()
            assert direct.execute("SELECT i FROM t").fetchall() == [(1,)]

    def test_pause_holds_everything_until_resume(self, echo, client):
        echo.pause()
        client.sendall(b"later")
        with socket.create_connection((echo.host, echo.port), timeout=30) as another:
            another.sendall(b"too")
            for each in (client, another):
                each.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    each.recv(1)
                each.settimeout(30)
            echo.resume()
            assert receive(client, 5) == b"later"
            assert receive(another, 3) == b"too"

    def test_cut_works_while_paused(self, echo, client):
        echo.pause()
        client.sendall(b"lost")
        assert echo.cut() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)

    def test_close_is_idempotent(self, echo):
        echo.close()
        echo.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((echo.host, echo.port))

    def test_a_forked_child_keeps_no_connection_alive(self):
        output = subprocess.run(
            [sys.executable, "-c", FORK], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        assert output == "reset refused\n"
