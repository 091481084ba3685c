"""Messages of many callers in one transaction and one round trip, each with its own outcome."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from director_db import (
    BackendUnavailableError,
    InvalidRecordError,
    SchemaError,
    SessionNotFoundError,
)
from director_db.rows import MessageRow
from director_db_conformance.proxy import Lie
from director_db_conformance.servers import find_cluster
from director_db_postgres import PostgresDB, connections, group
from director_db_postgres.call import Call
from director_db_postgres.connections import Connection
from director_db_postgres.group import MAX_WRITE_BYTES
from tests.patience import wait_until
from tests.postgres.calls import WAITING

pytestmark = pytest.mark.sampled

PATIENCE = 60
SESSIONS = [f"s{number}" for number in range(8)]
ROW = MessageRow("", "m", "", "[]", "[]", "[]", None, 1, 1, "{}", created_at_given=False)

# In how many transactions the messages were stored that are there.
TRANSACTIONS = "SELECT count(DISTINCT xmin::text) FROM director_conversations"
REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.msg_id = 'bad' THEN RAISE 'refused'; END IF; RETURN NEW; END
    $$;
    CREATE TRIGGER refuse BEFORE INSERT ON director_conversations
        FOR EACH ROW EXECUTE FUNCTION refuse();
"""
# Each time that a message is inserted, also if that ends in an update.
COUNT = """
    CREATE TABLE stored (msg_id text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO stored VALUES (NEW.msg_id); RETURN NEW; END
    $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE ON director_conversations
        FOR EACH ROW EXECUTE FUNCTION note();
"""
LOCK = "SELECT FROM director_sessions WHERE session_id = 's0' FOR UPDATE"
BUSY = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND pid <> pg_backend_pid() AND state <> 'idle'
"""


class Boom(BaseException):
    """What a test throws into the middle of something."""


class TimeIsUpError(Exception):
    """What a worker of a queue is told, by whoever watches it."""


def upsert(db, session_id, msg_id="m", content=(), msg_type="t", **times):
    db.add_or_update_msg_to_conv(session_id, "c", msg_id, msg_type, [], [], list(content), **times)


def ids(db, session_id):
    return [found["msg_id"] for found in db.get_conversations(session_id)]


def group_of(db):
    return db._database._group


def crowd(db):
    """Let writes queue, as when no connection was free just now."""
    group_of(db)._small = 0


class Together:
    """Lets writes queue, each in a thread of its own, and then run in one batch."""

    def __init__(self, pool):
        self.pool = pool
        self.futures = []
        self.threads = {}

    @contextlib.contextmanager
    def gather(self, db):
        """Have the writes of the block wait for each other."""
        crowd(db)
        with group_of(db).queue.leading:
            yield self

    def add(self, db, write, *args, **kwargs):
        waiting = group_of(db).queue.waiting
        before, number = len(waiting), len(self.futures)

        def work():
            self.threads[number] = threading.get_ident()
            return write(db, *args, **kwargs)

        self.futures.append(self.pool.submit(work))
        wait_until(lambda: len(waiting) > before)

    def outcomes(self):
        outcomes = [future.exception(PATIENCE) or future.result() for future in self.futures]
        self.futures.clear()
        return outcomes

    def strike(self, number, kind=Boom):
        ident = ctypes.c_ulong(self.threads[number])
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(kind))


@pytest.fixture
def together():
    with ThreadPoolExecutor(64) as pool:
        yield Together(pool)


@pytest.fixture(autouse=True)
def _no_batch_takes_long(monkeypatch):
    """However busy the machine is."""
    monkeypatch.setattr(group, "LONG", math.inf)


def filled(db):
    for session_id in SESSIONS:
        db.create_session(session_id, updated_at=1)
    return db


def gather_all(db, together, msg_id="m"):
    for session_id in SESSIONS:
        together.add(db, upsert, session_id, msg_id)


@pytest.fixture(params=[{}, {"pooler": True}], ids=["prepared", "pooler"])
def warm(request, place, proxy, new_db, together):
    """An instance behind the proxy whose statements are prepared, in batches too."""
    db = filled(new_db(place.dsn_by(proxy.port), pool_size=2, **request.param))
    for _ in range(2):
        with together.gather(db):
            gather_all(db, together)
        assert [None] * len(SESSIONS) == together.outcomes()
    for session_id in SESSIONS:
        db.delete_conversation(session_id)
    return db


# --- Who queues ---------------------------------------------------------------------------------


def takes(db):
    """Ask from a thread that is not the main one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(group_of(db).takes, ROW, waits=False).result(PATIENCE)


@pytest.mark.parametrize(("pool_size", "alone"), [(1, 1), (2, 1), (3, 1), (4, 2), (10, 8)])
def test_callers_go_by_themselves_while_connections_are_free(place, new_db, pool_size, alone):
    db = filled(new_db(place.dsn, pool_size=pool_size))
    pool, held = db._database._pool, []
    for number in range(alone):
        assert not takes(db)
        call = Call(db._settings_in_use)
        held.append((number, *pool.acquire(call, number)))
    assert takes(db)
    for each in held:
        pool.give_back(*each)
    # They queue still, until that makes no large batches any more.
    for _ in range(2):
        assert takes(db)
        with ThreadPoolExecutor(1) as callers:
            assert callers.submit(upsert, db, "s0").result(PATIENCE) is None
    assert not takes(db)


def test_the_third_who_writes_to_a_session_queues(place, db, together, wait_for_lock_waits):
    filled(db)
    with place.connect() as holder, holder.transaction():
        holder.execute(LOCK)
        for msg_id in ("a", "b"):
            together.futures.append(together.pool.submit(upsert, db, "s0", msg_id))
        wait_until(lambda: not db._database._turns.has_place("s0"))
        with group_of(db).queue.leading:
            together.add(db, upsert, "s0", "c")
    assert [None] * 3 == together.outcomes()
    assert {"a", "b", "c"} == set(ids(db, "s0"))


def test_a_caller_alone_sends_what_it_always_sent(db, together, monkeypatch):
    filled(db)
    sent = []
    send = Connection._send

    def watch(connection, steps, *args, **kwargs):
        sent.append([statement for statement, _ in steps])
        return send(connection, steps, *args, **kwargs)

    monkeypatch.setattr(Connection, "_send", watch)
    assert together.pool.submit(upsert, db, "s0").result(PATIENCE) is None
    assert [[db._sql.count_messages, db._sql.upsert_message]] == sent


@pytest.mark.parametrize("of", ["main thread", "large", "sharded"])
def test_who_never_shares(place, db, together, of):
    filled(db)
    content = ["x" * MAX_WRITE_BYTES] if of == "large" else []
    if of == "sharded":
        # Each session has its shard: one transaction of several would be one of two phases.
        db._database._pool.connector.is_sharded = True
    with together.gather(db):
        for session_id in ("s0", "s1"):
            if of == "main thread":
                upsert(db, session_id)
            else:
                write = together.pool.submit(upsert, db, session_id, "m", content)
                assert write.result(PATIENCE) is None
    with place.connect() as connection:
        assert (2,) == connection.execute(TRANSACTIONS).fetchone()


def test_a_server_that_turns_out_to_be_sharded_gets_each_by_itself(db, together, place):
    filled(db)
    with together.gather(db):
        gather_all(db, together)
        for connection in db._database._pool.current._pool:
            connection.is_sharded = True
    assert [None] * len(SESSIONS) == together.outcomes()
    with place.connect() as connection:
        assert (len(SESSIONS),) == connection.execute(TRANSACTIONS).fetchone()


# --- One transaction ----------------------------------------------------------------------------


def test_those_who_wait_share_one_round_trip_and_one_transaction(place, proxy, warm, together):
    with proxy.count() as count:
        with together.gather(warm):
            gather_all(warm, together)
        assert [None] * len(SESSIONS) == together.outcomes()
    assert 1 == count.round_trips
    with place.connect() as connection:
        assert (1,) == connection.execute(TRANSACTIONS).fetchone()
    assert [["m"]] * len(SESSIONS) == [ids(warm, session_id) for session_id in SESSIONS]


def test_every_field_is_stored_as_alone(db, together):
    fields = {
        "conv_id": None,
        "msg_id": "m\u00e9\U0001f600",
        "msg_type": "",
        "agents": ['a"{},\\'],
        "actions": {"key": None},
        "content": ["\x00", "\ud800", 10**30, -0.0],
        "status": None,
        "created_at": -5,
        "updated_at": 2**63 - 1,
        "metadata": {"m": [1]},
    }
    filled(db)
    db.add_or_update_msg_to_conv("s0", **fields)
    with together.gather(db):
        for session_id in ("s1", "s2"):
            together.add(
                db, lambda db, wanted: db.add_or_update_msg_to_conv(wanted, **fields), session_id
            )
    assert [True] * 2 == together.outcomes()
    (alone,) = db.get_conversations("s0")
    for session_id in ("s1", "s2"):
        (stored,) = db.get_conversations(session_id)
        assert {**alone, "session_id": session_id} == stored
        assert fields["content"] == stored["content"]
        assert 2**63 - 1 == db.get_session(session_id)["updated_at"]


def test_messages_of_a_session_have_their_places_in_the_order_of_the_calls(place, db, together):
    filled(db)
    upsert(db, "s3", "first", updated_at=2)
    with together.gather(db):
        for msg_id in ("z", "b", "first", "a"):
            for session_id in reversed(SESSIONS):
                together.add(db, upsert, session_id, msg_id, updated_at=9)
    assert [None] * 32 == together.outcomes()
    assert ["first", "z", "b", "a"] == ids(db, "s3")
    assert ["z", "b", "first", "a"] == ids(db, "s4")
    with place.connect() as connection:
        places = "SELECT last_seq, updated_at FROM director_sessions ORDER BY session_id"
        assert [4, 4, 4, 5, 4, 4, 4, 4] == [row[0] for row in connection.execute(places)]
        assert {9} == {row[1] for row in connection.execute(places)}
        # In one transaction, but for the first.
        assert (1,) == connection.execute(TRANSACTIONS).fetchone()


def test_two_calls_for_one_message_end_with_the_later_whole(db, together):
    filled(db)
    with together.gather(db):
        together.add(db, upsert, "s0", "a", [1], created_at=5, updated_at=7)
        together.add(db, upsert, "s0", "b", [2], created_at=6, updated_at=3)
        together.add(db, upsert, "s0", "a", [3], updated_at=2)
    assert [None] * 3 == together.outcomes()
    stored = db.get_conversations("s0")
    assert [("a", [3], 5, 2), ("b", [2], 6, 3)] == [
        (found["msg_id"], found["content"], found["created_at"], found["updated_at"])
        for found in stored
    ]
    assert 7 == db.get_session("s0")["updated_at"]


def test_each_replaces_the_time_of_creation_only_if_it_gives_one(db, together):
    filled(db)
    for session_id in SESSIONS:
        upsert(db, session_id, "m", created_at=1)
        upsert(db, session_id, "n", created_at=2)
    with together.gather(db):
        for number, session_id in enumerate(SESSIONS):
            for msg_id in ("m", "n"):
                given = {"created_at": 50 + number} if (number % 2 == 0) == (msg_id == "m") else {}
                together.add(db, upsert, session_id, msg_id, **given)
    assert [None] * 16 == together.outcomes()
    expected = [[50 + number, 2] if number % 2 == 0 else [1, 50 + number] for number in range(8)]
    assert expected == [
        [found["created_at"] for found in db.get_conversations(session_id)]
        for session_id in SESSIONS
    ]


def test_who_has_no_session_is_told_so_and_nobody_else(place, warm, together):
    with together.gather(warm):
        together.add(warm, upsert, "none", "lost")
        gather_all(warm, together)
        together.add(warm, upsert, "missing", "lost")
    first, *others, last = together.outcomes()
    assert [None] * len(SESSIONS) == others
    assert isinstance(first, SessionNotFoundError)
    assert "none" in str(first)
    assert isinstance(last, SessionNotFoundError)
    assert "missing" in str(last)
    with place.connect() as connection:
        assert (1,) == connection.execute(TRANSACTIONS).fetchone()


# --- Failures -----------------------------------------------------------------------------------


def test_one_that_fails_fails_alone(place, db, together):
    filled(db)
    with place.connect() as connection:
        connection.execute(REFUSE)
        connection.execute(COUNT)
    with together.gather(db):
        gather_all(db, together)
        together.add(db, upsert, "s3", "bad")
    *others, bad = together.outcomes()
    assert [None] * len(SESSIONS) == others
    assert isinstance(bad, SchemaError)
    assert "refused" in str(bad)
    assert [["m"]] * len(SESSIONS) == [ids(db, session_id) for session_id in SESSIONS]
    with place.connect() as connection:
        assert (len(SESSIONS),) == connection.execute("SELECT count(*) FROM stored").fetchone()


def test_what_the_encoding_of_the_server_has_no_form_for_is_refused_alone(
    new_place, new_db, together
):
    db = filled(new_db(new_place("LATIN1").dsn))
    with together.gather(db):
        for session_id in SESSIONS:
            together.add(db, upsert, session_id, content=["\u20ac"])
        together.add(db, upsert, "s0", "other", msg_type="\u20ac")
        together.add(db, upsert, "\u20ac", "other")
    *others, bad_type, bad_session = together.outcomes()
    assert [None] * len(SESSIONS) == others
    assert (InvalidRecordError, InvalidRecordError) == (type(bad_type), type(bad_session))
    assert ["\u20ac"] == db.get_conversations("s7")[0]["content"]


def test_a_cut_reply_loses_and_doubles_nothing(place, proxy, warm, together):
    with place.connect() as connection:
        connection.execute(COUNT)
    cut = proxy.cut_after(0)
    with together.gather(warm):
        gather_all(warm, together)
    assert [None] * len(SESSIONS) == together.outcomes()
    assert cut.is_set()
    assert [["m"]] * len(SESSIONS) == [ids(warm, session_id) for session_id in SESSIONS]
    with place.connect() as connection:
        (count,) = connection.execute("SELECT count(*) FROM stored").fetchone()
    # What may be applied twice was: by the batch, whose answer was lost, and by each for itself.
    assert 2 * len(SESSIONS) == count


def test_all_of_a_batch_are_in_doubt_if_no_answer_ever_comes(place, proxy, new_db, together, again):
    direct = filled(new_db(place.dsn))
    db = new_db(place.dsn_by(proxy.port), pool_size=2, retry_deadline=1)
    again(db.get_session, "s0")

    def forward_and_cut(data):
        return Lie(b"", forward=True, ends_after=0, reset=True) if data[:1] in b"PBQ" else None

    with together.gather(db):
        gather_all(db, together)
        proxy.lie(forward_and_cut)
    outcomes = together.outcomes()
    proxy.lie(None)
    assert {BackendUnavailableError} == set(map(type, outcomes))
    # One whose time was up before it was sent anything knows that it is not stored.
    doubtful = [error.maybe_applied for error in outcomes]
    stored = [ids(direct, session_id) == ["m"] for session_id in SESSIONS]
    assert [] == [
        session_id
        for session_id, doubt, is_stored in zip(SESSIONS, doubtful, stored, strict=True)
        if is_stored and not doubt
    ]
    assert True in doubtful
    assert len({id(error) for error in outcomes}) == len(SESSIONS)


def test_a_server_that_is_away_fails_each_in_its_time(place, proxy, new_db, together, again):
    filled(new_db(place.dsn))
    db = new_db(place.dsn_by(proxy.port), pool_size=2, retry_deadline=0.5)
    again(db.get_session, "s0")
    with together.gather(db):
        gather_all(db, together)
        proxy.stop()
    outcomes = together.outcomes()
    proxy.start()
    assert {BackendUnavailableError} == set(map(type, outcomes))
    assert [True] * len(SESSIONS) == [error.retryable for error in outcomes]
    again(db.get_session, "s0")
    outcomes, deadline = [], time.monotonic() + PATIENCE
    while outcomes != [None] * len(SESSIONS):
        # Where the machine is busy, half a second may not do.
        assert time.monotonic() < deadline
        with together.gather(db):
            gather_all(db, together)
        outcomes = together.outcomes()
        assert {type(None), BackendUnavailableError} >= set(map(type, outcomes))
    assert [["m"]] * len(SESSIONS) == [ids(db, session_id) for session_id in SESSIONS]


def test_a_frozen_server_is_told_to_each_as_to_a_call_alone(place, proxy, new_db, together):
    direct = filled(new_db(place.dsn))
    db = new_db(place.dsn_by(proxy.port), pool_size=2, operation_timeout=2)
    upsert(db, "s0", "before")
    with together.gather(db):
        gather_all(db, together)
        proxy.pause()
    outcomes = together.outcomes()
    proxy.resume()
    assert {BackendUnavailableError} == set(map(type, outcomes))
    for outcome in outcomes:
        assert "did not answer for 2 s" in str(outcome)
        assert (True, True) == (outcome.retryable, outcome.maybe_applied)
    assert ["before"] == [msg_id for msg_id in ids(direct, "s0") if msg_id != "m"]


class LateLine:
    """Passes connections on; what the next one sends is held, and delivered after its client left.

    So does a network that was gone for a while: what a client has sent before it closed is sent
    again until it arrives.
    """

    def __init__(self, host, port):
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.holds = threading.Event()
        self.held = threading.Event()
        self.delivers = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, server = self._listener.accept()[0], socket.create_connection(self._server)
                for pair, is_client in (((client, server), True), ((server, client), False)):
                    threading.Thread(
                        target=self._pass, args=(*pair, is_client), daemon=True
                    ).start()

    def _pass(self, source, target, is_client):
        with contextlib.suppress(OSError), source:
            while data := source.recv(65536):
                if is_client and self.holds.is_set() and not self.held.is_set():
                    self.held.set()
                    self.delivers.wait(PATIENCE)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self.delivers.set()
        self._listener.close()


def test_a_batch_without_an_answer_is_not_sent_again(postgres_cluster, place, new_db, together):
    """It may arrive yet: over what its caller would have stored since, believing that it was."""
    direct = filled(new_db(place.dsn))
    line, _ = held_batch(postgres_cluster, place, new_db, together, operation_timeout=2)
    expect_in_doubt(together.outcomes(), line, direct, "did not answer")


@pytest.mark.parametrize("kind", [Boom, TimeoutError, TimeIsUpError])
def test_what_a_struck_leader_sent_is_not_sent_again(
    postgres_cluster, place, new_db, together, kind
):
    """Its connection is closed, and yet it may arrive."""
    direct = filled(new_db(place.dsn))
    line, db = held_batch(postgres_cluster, place, new_db, together)
    assert line.held.wait(PATIENCE)
    leader = SESSIONS.index(group_of(db).queue._batch._own.operation.session_id)
    together.strike(leader, kind)
    outcomes = together.outcomes()
    assert isinstance(outcomes.pop(leader), kind)
    expect_in_doubt(outcomes, line, direct, "interrupted")


def held_batch(cluster, place, new_db, together, **settings):
    """Send two messages together over a line that holds them."""
    line = LateLine(cluster.host, cluster.port)
    db = new_db(place.dsn_by(line.port), pool_size=3, **settings)
    met = threading.Barrier(3)

    def read(connection):
        met.wait(PATIENCE)
        return connection.run(b"SELECT 1", ())

    with ThreadPoolExecutor(3) as pool:  # Connections for those who would go on.
        for future in [pool.submit(db._database.read, read) for _ in range(3)]:
            future.result(PATIENCE)
    with together.gather(db):
        for session_id in ("s0", "s1"):
            together.add(db, upsert, session_id, content=["old"])
        line.holds.set()
    return line, db


def expect_in_doubt(outcomes, line, direct, told):
    assert line.held.is_set()
    for outcome in outcomes:
        assert told in str(outcome)
        assert (True, True) == (outcome.retryable, outcome.maybe_applied)
    assert [] == ids(direct, "s1")
    line.delivers.set()
    wait_until(lambda: ids(direct, "s1"))
    line.close()


def test_an_answer_about_messages_of_others_is_no_answer(place, new_db, together):
    direct = filled(new_db(place.dsn))
    lower = """
        CREATE FUNCTION lower_ids() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN NEW.msg_id = lower(NEW.msg_id); RETURN NEW; END
        $$;
        CREATE TRIGGER lower_ids BEFORE INSERT ON director_conversations
            FOR EACH ROW EXECUTE FUNCTION lower_ids();
    """
    with place.connect() as connection:
        connection.execute(lower)
    db = new_db(place.dsn, pool_size=2)
    with together.gather(db):
        for session_id in ("s0", "s1"):
            together.add(db, upsert, session_id, "UPPER")
    assert [None, None] == together.outcomes()
    assert ["upper"] == ids(direct, "s1")


@pytest.mark.parametrize("pooled", [False, True])
def test_the_server_is_killed_under_a_crowd(pooled, request):
    threads, before, after = 12, 60, 60
    stored = {f"s{number}": [] for number in range(threads)}
    enough = threading.Event()

    def work(db, session_id):
        while not enough.is_set():
            msg_id = f"m{len(stored[session_id])}"
            crowd(db)
            upsert(db, session_id, msg_id)
            stored[session_id].append(msg_id)

    def wait_for_more(count):
        goal = sum(map(len, stored.values())) + count
        wait_until(lambda: sum(map(len, stored.values())) >= goal)

    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(find_cluster())
        database = cluster.create_database()
        if pooled:
            pgbouncer = request.getfixturevalue("pgbouncer")
            database = stack.enter_context(pgbouncer(database)).database
        times = {"retry_deadline": PATIENCE, "operation_timeout": PATIENCE}
        db = stack.enter_context(PostgresDB(database.dsn, pooler=pooled, **times))
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        for session_id in stored:
            db.create_session(session_id)
        futures = [pool.submit(work, db, session_id) for session_id in stored]
        try:
            wait_for_more(before)
            cluster.kill()
            cluster.start()
            wait_for_more(after)
        finally:
            enough.set()
        assert [None] * threads == [future.result(PATIENCE) for future in futures]
        assert stored == {session_id: ids(db, session_id) for session_id in stored}
        with psycopg.connect(database.dsn) as connection:
            (transactions,) = connection.execute(TRANSACTIONS).fetchone()
        assert 1 < transactions < sum(map(len, stored.values()))


# --- Locks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool_size", [1, 2, 3, 10])
def test_a_locked_session_holds_up_no_other(place, new_db, together, pool_size):
    db = filled(new_db(place.dsn, pool_size=pool_size))
    with place.connect() as holder, holder.transaction():
        holder.execute(LOCK)
        with together.gather(db):
            gather_all(db, together)
        first, *others = together.futures
        assert [None] * 7 == [other.result(PATIENCE) for other in others]
        crowd(db)
        second = together.pool.submit(upsert, db, "s0", "second")
        for session_id in SESSIONS[1:]:
            crowd(db)
            write = together.pool.submit(upsert, db, session_id, "later")
            assert write.result(PATIENCE) is None
        assert ["m", "later"] == ids(db, "s7")
        assert (False, False) == (first.done(), second.done())
    assert (None, None) == (first.result(PATIENCE), second.result(PATIENCE))
    assert {"m", "second"} == set(ids(db, "s0"))


def test_who_is_still_in_the_queue_goes_alone_when_a_batch_is_held_up(
    place, db, together, wait_for_lock_waits, monkeypatch
):
    """By a message that somebody has locked, without its session; and as long as that takes."""
    filled(db)
    upsert(db, "s0")
    with place.connect() as holder, holder.transaction():
        holder.execute("UPDATE director_conversations SET status = 'mine'")
        with together.gather(db):
            together.add(db, upsert, "s0")
        wait_for_lock_waits()
        crowd(db)
        write = together.pool.submit(upsert, db, "s1")
        wait_until(lambda: write.done() or group_of(db).queue.waiting)
        monkeypatch.setattr(group, "LONG", 0)
        assert write.result(PATIENCE) is None
        assert not together.futures[0].done()
    assert [None] == together.outcomes()
    assert (["m"], ["m"]) == (ids(db, "s0"), ids(db, "s1"))


def test_nobody_is_held_up_by_a_leader_that_is_gone(db, together, monkeypatch):
    filled(db)
    monkeypatch.setattr(group, "LONG", 0)
    crowd(db)
    group_of(db)._sent_at = 0.0
    assert takes(db)
    with group_of(db).queue.leading:
        assert not takes(db)


def test_whose_time_is_up_soon_goes_by_itself(place, new_db, together, again):
    filled(new_db(place.dsn))
    db = new_db(place.dsn, operation_timeout=4)
    again(db.get_session, "s0")
    with together.gather(db):
        gather_all(db, together)
        time.sleep(2.1)  # More than half of their time.
    outcomes = together.outcomes()
    # Where the machine is busy, the rest may not do for all of them.
    assert {type(None), BackendUnavailableError} >= set(map(type, outcomes))
    with place.connect() as connection:
        (stored,) = connection.execute("SELECT count(*) FROM director_conversations").fetchone()
        assert (stored,) == connection.execute(TRANSACTIONS).fetchone()
    assert stored >= outcomes.count(None) > 0


def test_a_batch_that_was_cut_is_not_stored_over_what_came_later(place, proxy, new_db, together):
    """It waits for no lock, so nothing of it is left on the server when its callers try again."""
    db = filled(new_db(place.dsn_by(proxy.port), pool_size=3))

    def write_twice(db):
        upsert(db, "s7", content=["first"])
        upsert(db, "s7", content=["second"])

    with place.connect() as holder, place.connect() as observer:
        with holder.transaction():
            holder.execute(LOCK)
            cut = proxy.cut_after(0)
            with together.gather(db):
                together.add(db, upsert, "s0")
                together.add(db, write_twice)
            # One that waited would not answer, and its connection be cut before it does.
            wait_until(lambda: cut.is_set() or observer.execute(WAITING).fetchone() != (0,))
            if not cut.is_set():
                proxy.cut()
            locked, twice = together.futures
            assert twice.result(PATIENCE) is None
            assert not locked.done()
        assert locked.result(PATIENCE) is None
        wait_until(lambda: observer.execute(BUSY).fetchone() == (0,))
    assert [["second"]] == [found["content"] for found in db.get_conversations("s7")]
    assert ["m"] == ids(db, "s0")


WRITER = """
import sys, threading
from director_db_postgres import PostgresDB
dsn, name, *sessions = sys.argv[1:]
errors = []
with PostgresDB(dsn, pool_size=3) as db:
    def work(session_id):
        try:
            for number in range(30):
                db._database._group._small = 0
                db.add_or_update_msg_to_conv(session_id, "c", f"{name}{number}", "t", 0, 0, 0)
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=work, args=(one,)) for one in sessions for _ in range(1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
sys.exit(repr(errors) if errors else 0)
"""


def test_two_processes_with_crossing_sessions_lose_nothing_and_never_deadlock(place, db):
    filled(db)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, place.dsn, name, *sessions],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, sessions in (("a", SESSIONS), ("b", SESSIONS[::-1]))
    ]
    assert [""] * 2 == [writer.communicate(timeout=2 * PATIENCE)[1] for writer in writers]
    assert [0] * 2 == [writer.returncode for writer in writers]
    for session_id in SESSIONS:
        found = ids(db, session_id)
        for name in "ab":
            expected = [f"{name}{number}" for number in range(30)]
            assert expected == [msg_id for msg_id in found if msg_id.startswith(name)]
    with place.connect() as connection:
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert (0,) == connection.execute(deadlocks).fetchone()


# --- Interrupts and ends ------------------------------------------------------------------------


def batch_under_way(db, proxy, together):
    """Send a batch of which no answer comes, and return the number of its leader."""
    queue = group_of(db).queue
    sent = proxy.counts().bytes_sent
    with together.gather(db):
        proxy.pause()
        gather_all(db, together)
    wait_until(lambda: queue._batch is not None and len(queue._batch.calls) == len(SESSIONS))
    batch = queue._batch
    wait_until(lambda: all(call.operation.is_sent for call in batch.calls))
    wait_until(lambda: group_of(db)._sent_at is not None)
    assert sent == proxy.counts().bytes_sent
    return SESSIONS.index(batch._own.operation.session_id)


def test_what_strikes_a_leader_costs_no_follower_its_write(proxy, warm, together, monkeypatch):
    monkeypatch.setattr(connections, "_REST_PATIENCE", PATIENCE)
    leader = batch_under_way(warm, proxy, together)
    together.strike(leader)
    proxy.resume()
    expect_no_other_lost(warm, leader, together.outcomes())


def expect_no_other_lost(db, leader, outcomes):
    assert isinstance(outcomes.pop(leader), (Boom, type(None)))
    assert [None] * 7 == outcomes
    others = [session_id for number, session_id in enumerate(SESSIONS) if number != leader]
    assert [["m"]] * 7 == [ids(db, session_id) for session_id in others]


@pytest.mark.parametrize("what", ["in part", "whole", "whole, and not sent"])
def test_what_strikes_before_all_was_sent_costs_no_follower_its_write(
    warm, proxy, together, monkeypatch, what
):
    """What libpq has of a batch is sent yet; what misses its end can never be applied."""
    monkeypatch.setattr(connections, "_REST_PATIENCE", PATIENCE)
    send, struck = Connection._send, []
    content = ["x" * 50_000] if "sent" in what else []

    class Struck:
        """A connection of libpq's, at the end of whose pipeline something strikes."""

        def __init__(self, pgconn, left):
            self.pgconn = pgconn
            self.left = left

        def __getattr__(self, name):
            return getattr(self.pgconn, name)

        def pipeline_sync(self):
            self.pgconn.pipeline_sync()
            self.strike()

        def send_query_params(self, *args):
            self.pgconn.send_query_params(*args)
            self.note_sent()

        def send_query_prepared(self, *args):
            self.pgconn.send_query_prepared(*args)
            self.note_sent()

        def note_sent(self):
            self.left -= 1
            if self.left == 0:
                self.strike()

        def strike(self):
            struck.append(threading.get_ident())
            if content:
                assert 1 == self.pgconn.flush()  # The socket takes no more.
                proxy.resume()
            raise Boom

    def strike(connection, steps, *args, **kwargs):
        pgconn = connection.pgconn
        if not struck and steps[-1][0] == warm._sql.upsert_together:
            connection.pgconn = Struck(pgconn, len(steps) if what == "in part" else -1)
            if content:
                proxy.pause()
                with socket.socket(fileno=os.dup(connection.fileno())) as line:
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        try:
            return send(connection, steps, *args, **kwargs)
        finally:
            connection.pgconn = pgconn

    monkeypatch.setattr(Connection, "_send", strike)
    with together.gather(warm):
        for session_id in SESSIONS:
            together.add(warm, upsert, session_id, content=content)
    outcomes = together.outcomes()
    leader = next(n for n, thread in together.threads.items() if [thread] == struck)
    expect_no_other_lost(warm, leader, outcomes)


def test_a_follower_that_is_struck_goes_on_when_its_batch_is_over(proxy, warm, together):
    leader = batch_under_way(warm, proxy, together)
    follower = next(number for number in range(8) if number != leader)
    calls = group_of(warm).queue._batch.calls
    (call,) = [each for each in calls if each.operation.session_id == SESSIONS[follower]]
    together.strike(follower)
    wait_until(lambda: call.abandoned)
    assert not together.futures[follower].done()
    proxy.resume()
    outcomes = together.outcomes()
    assert isinstance(outcomes.pop(follower), Boom)
    assert [None] * 7 == outcomes
    upsert(warm, SESSIONS[follower], content=["later"])
    (found,) = warm.get_conversations(SESSIONS[follower])
    assert ["later"] == found["content"]


def test_a_caller_that_is_struck_before_it_is_sent_is_not_stored(db, together):
    filled(db)
    with together.gather(db):
        gather_all(db, together)
        together.strike(3)
        wait_until(lambda: len(group_of(db).queue.waiting) == 7)
    outcomes = together.outcomes()
    assert isinstance(outcomes.pop(3), Boom)
    assert [None] * 7 == outcomes
    assert [] == ids(db, "s3")


def test_closing_waits_for_those_who_share(proxy, warm, together):
    batch_under_way(warm, proxy, together)
    closing = together.pool.submit(warm.close)
    wait_until(lambda: warm.closed)
    assert not closing.done()
    proxy.resume()
    assert [None] * len(SESSIONS) == together.outcomes()
    assert closing.result(PATIENCE) is None
    queue = group_of(warm).queue
    assert (0, None) == (len(queue.waiting), queue._batch)


FORK = """
import os, sys, threading
from director_db_postgres import PostgresDB
with PostgresDB(sys.argv[1]) as db:
    db.create_session("s")
    group = db._database._group
    group._small = 0
    write = lambda name: db.add_or_update_msg_to_conv("s", "c", name, "t", 0, 0, 0)
    with group.queue.leading:
        parent = threading.Thread(target=write, args=("parent",))
        parent.start()
        while not group.queue.waiting:
            pass
        # As what forks without asking Python's hooks to wait for calls.
        child = os.fork()
        if child == 0:
            group._small = 0
            thread = threading.Thread(target=write, args=("child",))
            thread.start()
            thread.join()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    parent.join()
    assert sorted(m["msg_id"] for m in db.get_conversations("s")) == ["child", "parent"]
"""


def test_a_child_of_a_fork_has_a_queue_of_its_own(place):
    done = subprocess.run(
        [sys.executable, "-c", FORK, place.dsn],
        timeout=2 * PATIENCE,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (0, "") == (done.returncode, done.stderr)
