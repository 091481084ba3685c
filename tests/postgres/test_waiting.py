"""Every call ends: a server that is frozen, and locks that somebody else holds."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from director_db import BackendUnavailableError
from director_db.logs import LongWait
from director_db_conformance.clauses.at_once import wait_until
from director_db_postgres.call import Call
from director_db_postgres.connections import Failure
from director_db_postgres.waiting import Turn, Turns
from tests.postgres.calls import WAITING

pytestmark = pytest.mark.sampled

LOCK = "SELECT FROM director_sessions WHERE session_id = 's' FOR UPDATE"
# A call's own time is a second; what is far beyond it hangs.
TIMEOUT = 1.0
HANGS = 60.0
THREADS = 12

READS = {
    "get_session": lambda db: db.get_session("s"),
    "get_sessions": lambda db: db.get_sessions(limit=1),
    "get_conversations": lambda db: db.get_conversations("s"),
    "get_message": lambda db: db.get_message("s", "m"),
    "get_context": lambda db: db.get_context("s"),
}
WRITES = {
    "create_session": lambda db: db.create_session("new"),
    "update_session": lambda db: db.update_session("s", video_id="v"),
    "upsert": lambda db: upsert(db, "s"),
    "delete_messages_after": lambda db: db.delete_messages_after("s", "m"),
    "copy_session": lambda db: db.copy_session("s", f"copy {time.monotonic_ns()}"),
    "upserts": lambda db: db.add_or_update_msgs_to_conv("s", [message("a"), message("b")]),
    "save": lambda db: db.add_or_update_context_msg("s", ["saved"]),
    "append": lambda db: db.append_context_messages("s", ["appended"]),
    "replace": lambda db: db.replace_conversation("s", [message("a"), message("b")]),
    "pop_message": lambda db: db.pop_message("s"),
    "delete_message": lambda db: db.delete_message("s", "m"),
    "delete_conversation": lambda db: db.delete_conversation("s"),
    "delete_context": lambda db: db.delete_context("s"),
    "delete_session": lambda db: db.delete_session("s"),
}
# Those of the writes above that a lock of the session's row holds up.
HELD_UP = {name: write for name, write in WRITES.items() if name != "create_session"}


def message(msg_id):
    return {
        "conv_id": "c",
        "msg_id": msg_id,
        "msg_type": "output",
        "agents": [],
        "actions": [],
        "content": [],
    }


def upsert(db, session_id):
    db.add_or_update_msg_to_conv(session_id, "c", "m", "output", [], [], [])


def fill(db):
    for session_id in ("s", "other"):
        db.create_session(session_id)
        upsert(db, session_id)
        db.add_or_update_context_msg(session_id, {"reasoning": [1]})


@contextlib.contextmanager
def frozen(cluster):
    cluster.freeze()
    try:
        yield
    finally:
        cluster.thaw()


@contextlib.contextmanager
def locked(place, session_id="s"):
    """Hold a session's row, as a psql that somebody forgot."""
    with place.connect() as connection, connection.transaction():
        connection.execute(LOCK.replace("'s'", f"'{session_id}'"))
        yield connection


@pytest.mark.parametrize("pooler", [False, True], ids=["direct", "pooler"])
def test_calls_to_a_frozen_server_end_and_the_instance_works_again(
    place, new_db, postgres_cluster, again, pooler
):
    fill(new_db(place.dsn))
    db = new_db(place.dsn, operation_timeout=TIMEOUT, pooler=pooler, pool_size=20)
    calls = {**READS, **WRITES}
    with ThreadPoolExecutor(len(calls)) as executor:
        # As many connections as there will be calls.
        list(executor.map(lambda _: again(db.get_session, "s"), range(len(calls))))
        with frozen(postgres_cluster):
            results = {name: executor.submit(call, db) for name, call in calls.items()}
            errors = {name: result.exception(HANGS) for name, result in results.items()}
            assert db.health_check() is False

    assert {name: type(error) for name, error in errors.items()} == dict.fromkeys(
        calls, BackendUnavailableError
    )
    assert {name: error.retryable for name, error in errors.items()} == dict.fromkeys(calls, True)
    assert [name for name in READS if errors[name].maybe_applied] == []
    # One that found no free connection could not make another one.
    ways_out = ("POSTGRES_OPERATION_TIMEOUT", "check that the server runs")
    assert [str(e) for e in errors.values() if not any(way in str(e) for way in ways_out)] == []
    again(upsert, db, "other")
    assert ["m"] == [stored["msg_id"] for stored in again(db.get_conversations, "other")]
    wait_until(db.health_check, "the instance is healthy again")


def test_what_was_sent_to_a_frozen_server_is_in_doubt(place, new_db, postgres_cluster, again):
    fill(new_db(place.dsn))
    db = new_db(place.dsn, operation_timeout=TIMEOUT, pool_size=1)
    again(db.get_session, "s")
    with frozen(postgres_cluster), pytest.raises(BackendUnavailableError) as caught:
        db.append_context_messages("s", [2])
    assert caught.value.maybe_applied is True
    assert "did not answer for 1 s" in str(caught.value)


def refusal(write, db, again):
    """Return what a write to a locked session ends with, once a busy server answers it at all."""
    hangs = time.monotonic() + HANGS
    while True:
        with pytest.raises(BackendUnavailableError) as caught:
            write(db)
        if "did not answer" not in str(caught.value) or time.monotonic() > hangs:
            return caught.value
        again(db.get_session, "s")


@pytest.mark.parametrize("name", HELD_UP)
def test_a_write_to_a_locked_session_ends_and_changes_nothing(place, new_db, again, name):
    patient = new_db(place.dsn)
    fill(patient)
    before = (patient.get_session("s"), patient.get_conversations("s"), patient.get_context("s"))
    db = new_db(place.dsn, operation_timeout=TIMEOUT)
    again(db.get_session, "s")
    with locked(place) as holder:
        process = holder.info.backend_pid
        refused = refusal(HELD_UP[name], db, again)
    assert refused.retryable is True
    assert refused.maybe_applied is False
    assert f"process {process}, idle in transaction since" in str(refused)
    assert "'s'" in str(refused)
    assert "POSTGRES_OPERATION_TIMEOUT" in str(refused)
    after = (patient.get_session("s"), patient.get_conversations("s"), patient.get_context("s"))
    assert before == after
    again(HELD_UP[name], db)


def noted(begun, operation, *args):
    """Do it, and note that its thread has come so far."""
    begun.append(operation)
    return operation(*args)


def test_a_write_waits_for_a_lock_that_is_given_back_in_time(place, new_db, wait_for_lock_waits):
    db = new_db(place.dsn, operation_timeout=HANGS)
    fill(db)
    with ThreadPoolExecutor(1) as executor:
        with locked(place):
            waiting = executor.submit(upsert, db, "s")
            # Longer than the server is asked to wait at a time.
            wait_for_lock_waits(2)
            assert not waiting.done()
        assert waiting.result(HANGS) is None


@pytest.mark.parametrize("pool_size", [2, 3, 4])
@pytest.mark.parametrize("pooler", [False, True], ids=["direct", "pooler"])
def test_nobody_waits_for_a_locked_session_of_others(place, new_db, pooler, pool_size):
    db = new_db(place.dsn, operation_timeout=HANGS, pool_size=pool_size, pooler=pooler)
    fill(db)
    with ThreadPoolExecutor(THREADS) as executor:
        with locked(place), place.connect() as observer:
            begun = []
            waiting = [executor.submit(noted, begun, upsert, db, "s") for _ in range(THREADS)]
            while len(begun) < THREADS or observer.execute(WAITING).fetchone() == (0,):
                time.sleep(0.01)
            for _ in range(20):
                for read in READS.values():
                    read(db)
                upsert(db, "other")
                assert db.get_session("other")["session_id"] == "other"
            assert [call.done() for call in waiting] == [False] * THREADS
        assert [call.result(HANGS) for call in waiting] == [None] * THREADS


def test_nobody_waits_for_many_locked_sessions_of_others(place, new_db):
    db = new_db(place.dsn, operation_timeout=HANGS, pool_size=4)
    fill(db)
    sessions = [f"s{number}" for number in range(THREADS)]
    for session_id in sessions:
        db.create_session(session_id)
    with ThreadPoolExecutor(THREADS) as executor:
        with place.connect() as holder, place.connect() as observer, holder.transaction():
            holder.execute("SELECT FROM director_sessions WHERE session_id ~ '^s' FOR UPDATE")
            begun = []
            waiting = [executor.submit(noted, begun, upsert, db, name) for name in sessions]
            while len(begun) < THREADS or observer.execute(WAITING).fetchone() == (0,):
                time.sleep(0.01)
            for _ in range(5):
                upsert(db, "other")
                assert db.get_session("other")["session_id"] == "other"
            assert [call.done() for call in waiting] == [False] * THREADS
        assert [call.result(HANGS) for call in waiting] == [None] * THREADS


@contextlib.contextmanager
def holding(start):
    """Let more calls than there are of four connections hold one each, all that they get."""
    begun, goes_on = [], threading.Event()

    def hold(connection):
        begun.append(connection)
        assert goes_on.wait(HANGS)
        return connection.run(b"SELECT 1").count

    with ThreadPoolExecutor(THREADS) as executor:
        calls = [executor.submit(start, hold, number) for number in range(THREADS)]
        wait_until(lambda: len(begun) == 3, "three of them hold a connection")
        yield begun
        assert len(begun) == 3
        goes_on.set()
        assert [call.result(HANGS) for call in calls] == [1] * THREADS


@pytest.fixture
def small(place, new_db):
    """An instance with four connections."""
    db = new_db(place.dsn, operation_timeout=HANGS, pool_size=4)
    fill(db)
    return db


@pytest.fixture
def crowded(small):
    """That instance, with more writes than connections; and those writes that have one."""
    with holding(lambda hold, number: small._database.write(hold, f"s{number}")) as begun:
        yield small, begun


def test_reads_do_not_wait_behind_writes(crowded):
    db, _ = crowded
    for _ in range(3):
        for read in READS.values():
            read(db)


def test_writes_do_not_wait_behind_reads(small):
    with holding(lambda hold, _: small._database.read(hold)):
        upsert(small, "s")


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (None, r"The connections to .* \(4\) stayed busy"),
        (Failure("no route to it", None), "no route to it"),
    ],
)
def test_a_write_behind_others_is_told_why_it_got_no_connection(crowded, failure, told):
    db, begun = crowded
    db._database._pool.connector.failure = failure
    call = Call(db._settings_in_use, "s")
    call.deadline = time.monotonic() + 0.1
    with pytest.raises((BackendUnavailableError, psycopg.OperationalError), match=told):
        db._database._try(begun.append, call)
    assert not call.in_doubt


def test_a_read_waits_for_a_table_that_is_rebuilt(place, new_db, wait_for_lock_waits):
    db = new_db(place.dsn, operation_timeout=HANGS)
    fill(db)
    with ThreadPoolExecutor(1) as executor:
        with place.connect() as connection, connection.transaction():
            connection.execute("LOCK TABLE director_conversations IN ACCESS EXCLUSIVE MODE")
            waiting = executor.submit(db.get_message, "s", "m")
            wait_for_lock_waits(2)
            assert not waiting.done()
        assert waiting.result(HANGS)["msg_id"] == "m"


def long_wait():
    return LongWait("postgres", lambda: "a test", "for its turn")


def test_a_turn_that_nobody_holds_any_more_is_over():
    turns = Turns(2, long_wait)
    for _ in range(5):
        # As where an exception of a signal's handler came before the call could leave it.
        assert Turn(turns, "s").wait(time.monotonic()) is True
    assert Turn(turns, "s").wait(time.monotonic()) is True


def test_a_line_that_began_anew_is_not_taken_for_the_one_before():
    turns = Turns(1, long_wait)
    first = Turn(turns, "s")
    del turns.lines["s"]  # Whoever left it empty, in the moment before this one came.
    second = Turn(turns, "s")
    first.leave()
    assert turns.lines == {"s": second.line}
    second.leave()
    assert turns.lines == {}


def test_those_who_wait_for_their_turn_go_in_order():
    turns = Turns(1, long_wait)
    order = []
    first = Turn(turns, "s")
    with ThreadPoolExecutor(4) as executor:
        for number in range(4):
            executor.submit(in_turn, turns, order, number)
            while len(turns.lines["s"]) < number + 2:
                time.sleep(0.001)
        late = Turn(turns, "s")
        other = Turn(turns, "t")
        assert (first.wait(0), late.wait(0), other.wait(0)) == (True, False, True)
        other.leave()
        late.leave()
        first.leave()
    assert order == [0, 1, 2, 3]
    assert turns.lines == {}


def in_turn(turns, order, number):
    turn = Turn(turns, "s")
    if turn.wait(time.monotonic() + HANGS):
        order.append(number)
    turn.leave()
