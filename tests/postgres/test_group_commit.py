"""Writes of many callers in one transaction and one round trip: each with an outcome of its own."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from director_db import BackendUnavailableError, SchemaError, SessionNotFoundError
from director_db_conformance.proxy import Lie
from director_db_postgres.connections import Connection
from director_db_postgres.group import MAX_WRITE_BYTES, Group

PATIENCE = 60
SESSIONS = [f"s{number}" for number in range(8)]

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


class Boom(BaseException):
    """What a test throws into the middle of something."""


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def upsert(db, session_id, msg_id="m", content=(), **times):
    db.add_or_update_msg_to_conv(session_id, "c", msg_id, "t", [], [], list(content), **times)


def ids(db, session_id):
    return [found["msg_id"] for found in db.get_conversations(session_id)]


class Together:
    """Lets writes queue, each in a thread of its own, and then run in one batch."""

    def __init__(self, pool):
        self.pool = pool
        self.futures = []
        self.threads = {}
        self.kept = []

    @contextlib.contextmanager
    def gather(self, db):
        """Have the writes of the block wait for each other, and then for one leader."""
        lanes = db._database._group.queue._lanes
        for lane in lanes:
            assert lane.leading.acquire(timeout=PATIENCE)
        self.kept += lanes[1:]
        try:
            yield self
        finally:
            lanes[0].leading.release()

    def add(self, db, write, *args, **kwargs):
        waiting = db._database._group.queue.waiting
        before, number = len(waiting), len(self.futures)

        def work():
            self.threads[number] = threading.get_ident()
            return write(db, *args, **kwargs)

        self.futures.append(self.pool.submit(work))
        wait_until(lambda: len(waiting) > before)

    def outcomes(self):
        outcomes = [future.exception(PATIENCE) or future.result() for future in self.futures]
        self.let_go()
        return outcomes

    def let_go(self):
        """Let others lead beside the first."""
        while self.kept:
            self.kept.pop().leading.release()

    def strike(self, number):
        ident = ctypes.c_ulong(self.threads[number])
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Boom))


@pytest.fixture
def together():
    with ThreadPoolExecutor(64) as pool:
        together = Together(pool)
        yield together
        together.let_go()


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
        assert [None] * len(together.futures) == together.outcomes()
        together.futures.clear()
    for session_id in SESSIONS:
        db.delete_conversation(session_id)
    return db


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


def test_sessions_are_locked_in_one_order_and_each_keeps_that_of_its_calls(
    db, together, monkeypatch
):
    filled(db)
    sent = []
    send = Connection._send

    def watch(connection, steps, *args, **kwargs):
        sent.append([parameters[0] for _, parameters in steps if parameters[0] in SESSIONS])
        return send(connection, steps, *args, **kwargs)

    monkeypatch.setattr(Connection, "_send", watch)
    with together.gather(db):
        for msg_id in ("z", "b", "a"):
            for session_id in reversed(SESSIONS):
                together.add(db, upsert, session_id, msg_id)
    assert [None] * 24 == together.outcomes()
    # Two statements for each message.
    assert [[session_id for session_id in SESSIONS for _ in range(6)]] == sent
    assert ["z", "b", "a"] == ids(db, "s3")


def test_writes_of_one_session_are_as_if_one_after_another(db, together):
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


def test_all_kinds_share_it_and_each_has_its_own_result(place, proxy, warm, together):
    bulk = [
        {"conv_id": "", "msg_id": name, "msg_type": "", "agents": 0, "actions": 0, "content": 0}
        for name in ("x", "y", "z")
    ]
    with proxy.count() as count:
        with together.gather(warm):
            together.add(warm, upsert, "none", "lost")
            together.add(warm, upsert, "s1", "a")
            together.add(warm, lambda db: db.update_session("gone", video_id="v"))
            together.add(warm, lambda db: db.create_session("new", "v"))
            together.add(warm, lambda db: db.add_or_update_msgs_to_conv("new", bulk))
            together.add(warm, lambda db: db.update_session("s1", video_id="w"))
            together.add(warm, lambda db: db.add_or_update_msgs_to_conv("missing", bulk))
            together.add(warm, lambda db: db.create_session("s1", "other"))
        outcomes = together.outcomes()
    missing = {0: "none", 2: "gone", 6: "missing"}
    for number, outcome in enumerate(outcomes):
        if number in missing:
            assert isinstance(outcome, SessionNotFoundError)
            assert missing[number] in str(outcome)
        else:
            assert outcome is None
    assert 1 == count.round_trips
    assert ["x", "y", "z"] == ids(warm, "new")
    assert ("w", ["a"]) == (warm.get_session("s1")["video_id"], ids(warm, "s1"))
    assert {} == warm.get_session("none")


def test_a_caller_alone_sends_what_it_always_sent(db, together, monkeypatch):
    filled(db)
    sent = []
    send = Connection._send

    def watch(connection, steps, *args, **kwargs):
        sent.append([statement for statement, _ in steps])
        return send(connection, steps, *args, **kwargs)

    monkeypatch.setattr(Connection, "_send", watch)
    upsert(db, "s0")
    assert together.pool.submit(upsert, db, "s0").result(PATIENCE) is None
    monkeypatch.setattr(Group, "takes", lambda *_: False)
    assert together.pool.submit(upsert, db, "s0").result(PATIENCE) is None
    assert 3 == len(sent)
    assert sent[0] == sent[1] == sent[2]


@pytest.mark.parametrize("of", ["main thread", "large", "sharded"])
def test_who_never_shares(place, db, together, of):
    filled(db)
    queue = db._database._group.queue
    content = ["x" * MAX_WRITE_BYTES] if of == "large" else []
    if of == "sharded":
        # Each session has its shard: one transaction of several would be one of two phases.
        db._database._pool.connector.is_sharded = True
    with together.gather(db):
        if of == "main thread":
            upsert(db, "s0")
            upsert(db, "s1")
        else:
            for session_id in ("s0", "s1"):
                write = together.pool.submit(upsert, db, session_id, "m", content)
                assert write.result(PATIENCE) is None
        assert 0 == len(queue.waiting)
    with place.connect() as connection:
        assert (2,) == connection.execute(TRANSACTIONS).fetchone()


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


def test_a_mistake_in_the_parameters_of_one_is_its_own(db, together):
    filled(db)
    steps = db._sql.upsert_message

    def broken(db):
        # Where a caller's own thread would have met it.
        return db._database.write_together(
            "s0", 0, lambda: [(db._sql.count_messages, ("s0", object(), 1)), (steps, ())], bool
        )

    with together.gather(db):
        gather_all(db, together)
        together.add(db, broken)
    *others, mistake = together.outcomes()
    assert [None] * len(SESSIONS) == others
    assert isinstance(mistake, SchemaError)


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
    together.futures.clear()
    again(db.get_session, "s0")
    with together.gather(db):
        gather_all(db, together)
    assert [None] * len(SESSIONS) == together.outcomes()


# --- Locks --------------------------------------------------------------------------------------


def test_a_locked_session_holds_up_no_other(place, db, together):
    filled(db)
    locked = db._database._group.locked
    with place.connect() as holder, holder.transaction():
        holder.execute(LOCK)
        with together.gather(db):
            gather_all(db, together)
        first, *others = together.futures
        assert [None] * 7 == [other.result(PATIENCE) for other in others]
        assert not first.done()
        # As long as it waits, what else comes for its session stays out of the others' way.
        assert ["s0"] == list(locked)
        second = together.pool.submit(upsert, db, "s0", "second")
        for session_id in SESSIONS[1:]:
            write = together.pool.submit(upsert, db, session_id, "later")
            assert write.result(PATIENCE) is None
        assert 0 == len(db._database._group.queue.waiting)
        assert (False, False) == (first.done(), second.done())
    assert (None, None) == (first.result(PATIENCE), second.result(PATIENCE))
    assert {"m", "second"} == set(ids(db, "s0"))
    assert ["m", "later"] == ids(db, "s1")
    wait_until(lambda: not locked)


def test_nobody_waits_behind_a_leader_that_is_held_up(place, new_db, together, wait_for_lock_waits):
    db = filled(new_db(place.dsn, pool_size=4))
    with place.connect() as holder, holder.transaction():
        holder.execute(LOCK)
        leader = together.pool.submit(upsert, db, "s0")
        wait_for_lock_waits()
        writes = [together.pool.submit(upsert, db, session_id) for session_id in SESSIONS[1:]]
        assert [None] * 7 == [write.result(PATIENCE) for write in writes]
        assert "s0" == db.get_session("s0")["session_id"]
        assert not leader.done()
    assert leader.result(PATIENCE) is None


def test_two_instances_with_crossing_sessions_lose_nothing(place, new_db, together):
    """As two processes: neither knows of the other."""
    both = [filled(new_db(place.dsn, pool_size=3)) for _ in range(2)]
    rounds = 30

    def work(db, session_id, name):
        for number in range(rounds):
            upsert(db, session_id, f"{name}{number}")

    writers = [
        together.pool.submit(work, db, session_id, name)
        for name, db, sessions in zip("ab", both, (SESSIONS, SESSIONS[::-1]), strict=True)
        for session_id in sessions
    ]
    assert [None] * 16 == [writer.result(PATIENCE) for writer in writers]
    for session_id in SESSIONS:
        found = ids(both[0], session_id)
        for name in "ab":
            expected = [f"{name}{number}" for number in range(rounds)]
            assert expected == [msg_id for msg_id in found if msg_id.startswith(name)]


# --- Interrupts and ends ------------------------------------------------------------------------


def batch_under_way(db, proxy, together):
    """Send a batch of which no answer comes, and return the number of its leader."""
    queue = db._database._group.queue
    sent = proxy.counts().bytes_sent
    with together.gather(db):
        proxy.pause()
        gather_all(db, together)
    wait_until(lambda: any(lane.batch and lane.batch.calls for lane in queue._lanes))
    (batch,) = [lane.batch for lane in queue._lanes if lane.batch is not None]
    wait_until(lambda: all(call.operation.is_sent for call in batch.calls))
    assert sent == proxy.counts().bytes_sent
    return SESSIONS.index(batch.own.operation.call.session_id)


def test_what_strikes_a_leader_costs_no_follower_its_write(proxy, warm, together):
    leader = batch_under_way(warm, proxy, together)
    together.strike(leader)
    proxy.resume()
    outcomes = together.outcomes()
    assert isinstance(outcomes.pop(leader), (Boom, type(None)))
    assert [None] * 7 == outcomes
    others = [session_id for number, session_id in enumerate(SESSIONS) if number != leader]
    assert [["m"]] * 7 == [ids(warm, session_id) for session_id in others]


def test_a_follower_that_is_struck_goes_on_when_its_batch_is_over(proxy, warm, together):
    leader = batch_under_way(warm, proxy, together)
    follower = next(number for number in range(8) if number != leader)
    together.strike(follower)
    time.sleep(0.3)
    assert not together.futures[follower].done()
    proxy.resume()
    outcomes = together.outcomes()
    assert isinstance(outcomes.pop(follower), Boom)
    assert [None] * 7 == outcomes
    upsert(warm, SESSIONS[follower], content=["later"])
    (found,) = warm.get_conversations(SESSIONS[follower])
    assert ["later"] == found["content"]


def test_closed_and_used_again_nothing_is_left_behind(place, new_db, together):
    db = filled(new_db(place.dsn))
    with together.gather(db):
        gather_all(db, together)
    assert [None] * len(SESSIONS) == together.outcomes()
    db.close()
    queue = db._database._group.queue
    assert (0, 0) == (len(queue.waiting), len(db._database._group.locked))
    assert [None] * len(queue._lanes) == [lane.batch for lane in queue._lanes]
