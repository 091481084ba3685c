"""Many callers in one transaction: who shares it, and what becomes of the others if one fails."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import sqlite3
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial

import pytest

from director_db import (
    BackendUnavailableError,
    ClosedError,
    DirectorDBError,
    SessionNotFoundError,
)
from director_db.call import Call
from director_db.queue import MAX_BATCH_BYTES, MAX_BATCH_CALLS, Batch
from director_db.rows import MessageRow
from director_db_sqlite import SQLiteDB, upsert, writer
from director_db_sqlite.readers import FEW, MAX_READERS
from director_db_sqlite.upsert import Upsert
from tests.patience import wait_until

PATIENCE = 60


class Boom(BaseException):
    """What a test throws into the middle of something."""


INSERT = """
    INSERT INTO director_sessions (session_id, created_at, updated_at, last_seq, metadata)
"""


def insert(name, then=None):
    """Return an operation that stores a session, and then fails if it is told to."""

    def operation(connection):
        connection.execute(f"{INSERT} VALUES (?, 0, 0, 0, '{{}}')", (name,))
        if then is not None:
            raise then
        return name

    return operation


class Group:
    """One thread in the middle of its operation, and others that wait meanwhile."""

    def __init__(self, db):
        self.db = db
        self.writer = db._database._writer
        self.calls = self.writer.queue
        self.pool = ThreadPoolExecutor(200)
        self.leave = threading.Event()
        self.waiting = []

    def lead(self, operation):
        inside = threading.Event()

        def slow(connection):
            inside.set()
            assert self.leave.wait(PATIENCE)
            return operation(connection)

        self.leader = self.pool.submit(self.db._database.write, slow, 0)
        assert inside.wait(PATIENCE)

    def queue(self, *operations, size=0):
        """Queue operations, one after the other, each of a thread of its own."""
        for operation in operations:
            before = len(self.calls.waiting)
            size = getattr(operation, "size", size)
            self.waiting.append(self.pool.submit(self.db._database.write, operation, size))
            wait_until(lambda before=before: len(self.calls.waiting) > before)

    def outcomes(self):
        """Let the leader go on, and return what everybody got, the leader first."""
        self.leave.set()
        return [
            future.exception(PATIENCE) or future.result() for future in (self.leader, *self.waiting)
        ]


@pytest.fixture
def db(tmp_path):
    with SQLiteDB(tmp_path / "x.db") as db:
        db.create_session("before")
        yield db


@pytest.fixture
def group(db):
    group = Group(db)
    yield group
    group.leave.set()
    group.pool.shutdown()


def stored(db):
    """Return what another connection finds, which sees nothing but what was committed."""
    with closing(sqlite3.connect(db.place)) as other:
        rows = other.execute("SELECT session_id FROM director_sessions ORDER BY rowid").fetchall()
    return [name for (name,) in rows if name != "before"]


@contextmanager
def statements(db):
    """Collect the first word of each statement that the writer runs."""
    seen = []
    connection = db._database._writer.connection
    connection.set_trace_callback(lambda statement: seen.append(statement.split()[0]))
    yield seen
    connection.set_trace_callback(None)


# --- Who shares a transaction -------------------------------------------------------------------


def test_who_waits_shares_one_transaction(db, group):
    with statements(db) as seen:
        group.lead(insert("a"))
        group.queue(insert("b"), insert("c"))
        assert ["a", "b", "c"] == group.outcomes()
    assert ["a", "b", "c"] == stored(db)
    assert ["BEGIN", "INSERT", *["SAVEPOINT", "INSERT", "RELEASE"] * 2, "COMMIT"] == seen


def test_a_caller_alone_runs_what_a_single_connection_would(db):
    with statements(db) as seen:
        db._database.write(insert("a"), 0)
    assert ["BEGIN", "INSERT", "COMMIT"] == seen


def test_a_batch_takes_so_many_calls_and_no_more(db, group):
    names = [f"s{number}" for number in range(MAX_BATCH_CALLS + 10)]
    with statements(db) as seen:
        group.lead(insert("first"))
        group.queue(*map(insert, names))
        assert ["first", *names] == group.outcomes()
    assert ["first", *names] == stored(db)
    assert MAX_BATCH_CALLS == 1 + seen[: seen.index("COMMIT")].count("SAVEPOINT")


def test_a_batch_that_is_large_takes_no_more(db, group):
    group.writer._checkpointer._unchecked = 0
    with statements(db) as seen:
        group.lead(insert("first"))
        group.queue(insert("large"), size=MAX_BATCH_BYTES)
        group.queue(insert("small"))
        assert ["first", "large", "small"] == group.outcomes()
    assert ["BEGIN", "INSERT", "SAVEPOINT", "INSERT", "RELEASE", "COMMIT"] == seen[:6]
    assert ["BEGIN", "INSERT", "COMMIT"] == seen[6:]


def test_the_main_thread_runs_nothing_for_others(db, group):
    """So that what a signal's handler raises never fails a write of another thread."""

    def slow(connection):
        group.queue(insert("other"))
        return insert("main")(connection)

    with statements(db) as seen:
        assert "main" == db._database.write(slow, 0)
        assert "other" == group.waiting[0].result(PATIENCE)
    assert ["BEGIN", "INSERT", "COMMIT"] * 2 == seen
    assert ["main", "other"] == stored(db)


def test_who_has_returned_is_seen_by_all(db):
    def work(number):
        with closing(sqlite3.connect(db.place)) as other:
            for step in range(60):
                name = f"{number}.{step}"
                db.create_session(name)
                found = other.execute(
                    "SELECT count(*) FROM director_sessions WHERE session_id = ?", (name,)
                )
                assert (1,) == found.fetchone()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert 480 == len(stored(db))


# --- Messages of many callers in few statements -------------------------------------------------


def message(msg_id, session_id="before", *, at=7, text="x", created_at=None):
    created = 5 if created_at is None else created_at
    row = MessageRow(
        *("c", msg_id, "t", "[]", "[]", f'"{text}"', None, created, at, "{}"),
        created_at_given=created_at is not None,
    )
    return Upsert(session_id, row)


def everything(db):
    """Return all rows that messages touch, as another connection finds them."""
    with closing(sqlite3.connect(db.place)) as other:
        return [
            other.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
            for table in ("director_sessions", "director_conversations")
        ]


def in_one_batch(group, operations):
    """Have a thread in the middle of its write while these queue; return what each got."""
    group.lead(insert("first"))
    group.queue(*operations)
    return group.outcomes()[1:]


def refuse(db, how, said, when=""):
    """Let a trigger refuse messages."""
    text = "CREATE TRIGGER refusing BEFORE INSERT ON director_conversations"
    text = f"{text} {when} BEGIN SELECT RAISE({how}, '{said}'); END"
    db._database.write(lambda connection: connection.execute(text), 0)


def test_messages_that_wait_take_three_statements(db, group):
    with statements(db) as seen:
        assert [True] * 19 == in_one_batch(group, [message(f"m{n}") for n in range(19)])
    together = ["SAVEPOINT", "UPDATE", "UPDATE", "INSERT", "RELEASE"]
    assert ["BEGIN", "INSERT", *together, "COMMIT"] == seen
    assert [f"m{n}" for n in range(19)] == [
        each["msg_id"] for each in db.get_conversations("before")
    ]


@pytest.fixture
def few(monkeypatch):
    """Let few messages be stored together, too."""
    monkeypatch.setattr(writer, "_FEWEST", 2)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("seed", range(30))
def test_messages_together_are_stored_as_one_after_another(tmp_path, seed):
    chance = random.Random(seed)
    names = ["s1", "s2", "S1", *(["missing"] if seed % 2 else [])]
    messages = [
        message(
            *(chance.choice(["a", "b", *[f"m{n}"] * (seed % 5 * 4)]), chance.choice(names)),
            at=chance.choice([1, 7, 10**6, 10**10]),
            text=str(n),
            created_at=chance.choice([*[None] * (1 + seed % 7 * 3), n]),
        )
        for n in range(chance.choice([3, 4, 7, 20, 60]))
    ]
    with SQLiteDB(tmp_path / "alone.db") as alone, SQLiteDB(tmp_path / "together.db") as together:
        for db in (alone, together):
            for name in ("s1", "s2", "S1", "other"):
                db.create_session(name, created_at=1, updated_at=2)
            times = {"created_at": 3, "updated_at": 10**9}
            db.add_or_update_msg_to_conv("s2", "c", "b", "t", [], [], "0", **times)
        alone._database.write(insert("first"), 0)
        one_by_one = [alone._database.write(each, 0) for each in messages]
        group = Group(together)
        assert one_by_one == in_one_batch(group, messages)
        group.pool.shutdown()
        assert everything(alone) == everything(together)


def test_messages_of_many_kinds_take_four_statements(db, group):
    db.create_session("later", updated_at=10**11)
    messages = [
        message(f"m{n}", name, at=10**10, created_at=given)
        for n, (name, given) in enumerate([("before", None), ("later", 3)] * 6)
    ]
    with statements(db) as seen:
        assert [True] * 12 == in_one_batch(group, messages)
    assert [*["SAVEPOINT", "UPDATE", "UPDATE", "INSERT", "INSERT", "RELEASE"], "COMMIT"] == seen[2:]


def test_few_messages_and_large_ones_go_one_by_one(db, group):
    large = "x" * writer._LARGE
    texts = ["x"] * 11 + [large] + ["x"] * 11
    with statements(db) as seen:
        in_one_batch(group, [message(f"m{n}", text=text) for n, text in enumerate(texts)])
    assert ["SAVEPOINT", "UPDATE", "INSERT", "RELEASE"] == seen[-5:-1]
    assert len(texts) == seen.count("SAVEPOINT")
    assert len(texts) == len(db.get_conversations("before"))


def test_a_batch_takes_so_many_messages_and_no_more(db, group):
    with statements(db) as seen:
        in_one_batch(group, [message(f"m{n}") for n in range(MAX_BATCH_CALLS + 20)])
    assert 2 == seen.count("COMMIT")
    assert [f"m{n}" for n in range(MAX_BATCH_CALLS + 20)] == [
        each["msg_id"] for each in db.get_conversations("before")
    ]


def test_what_is_no_message_is_run_in_its_turn(db, group):
    messages = [message(f"m{n}") for n in range(24)]
    outcomes = in_one_batch(group, [*messages[:12], insert("x"), *messages[12:]])
    assert [*[True] * 12, "x", *[True] * 12] == outcomes
    assert ["first", "x"] == stored(db)
    assert 24 == len(db.get_conversations("before"))


@contextmanager
def waiting_for_the_file(db, group, operations):
    """Have callers queue, none of whom gets the write lock of the file meanwhile."""
    with closing(sqlite3.connect(db.place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        group.queue(*operations[:1])
        wait_until(lambda: group.calls._batch is not None)
        for operation in operations[1:]:
            group.waiting.append(group.pool.submit(db._database.write, operation, 0))
        wait_until(lambda: len(group.calls.waiting) == len(operations))
        yield
        other.execute("ROLLBACK")


def test_a_message_leads_others_that_came_while_it_waited_for_the_file(db, group):
    messages = [message(f"m{n}") for n in range(20)]
    with statements(db) as seen:
        with waiting_for_the_file(db, group, messages):
            pass
        assert [True] * 20 == [future.result(PATIENCE) for future in group.waiting]
    begun = [word for word in seen if word != "BEGIN"]
    assert ["SAVEPOINT", "UPDATE", "UPDATE", "INSERT", "RELEASE", "COMMIT"] == begun


@pytest.mark.parametrize("how", ["ABORT", "ROLLBACK"])
def test_messages_that_fail_with_a_file_that_is_gone_are_stored_in_the_new_one(db, group, how):
    refuse(db, how, "refused")
    with waiting_for_the_file(db, group, [message(f"m{n}") for n in range(12)]):
        for end in ("", "-wal", "-shm"):
            os.unlink(f"{db.place}{end}")  # noqa: PTH108 - no path of pathlib's has an end like it
    # The new one has no session.
    assert [False] * 12 == [future.result(PATIENCE) for future in group.waiting]


@pytest.mark.usefixtures("few")
def test_a_message_that_fails_fails_alone(db, group):
    refuse(db, "ABORT", "refused", "WHEN new.msg_id = 'bad'")
    *stored, bad, last = in_one_batch(group, map(message, ["a", "b", "c", "bad", "d"]))
    assert [True] * 4 == [*stored, last]
    assert "refused" == str(bad)
    assert [*"abcd"] == [each["msg_id"] for each in db.get_conversations("before")]


@pytest.mark.usefixtures("few")
def test_messages_whose_transaction_is_ended_fail_together(db, group):
    refuse(db, "ROLLBACK", "full", "WHEN new.msg_id = 'bad'")
    group.lead(insert("first"))
    group.queue(*map(message, ["a", "b", "bad", "d"]))
    for outcome in group.outcomes():
        assert "full" in f"{outcome!r} {outcome.__cause__!r}"
    assert [] == stored(db)
    assert [] == db.get_conversations("before")
    db._database.write(message("a"), 0)


@pytest.mark.usefixtures("few")
def test_struck_in_the_middle_of_messages_nothing_has_happened(db, group, monkeypatch):
    with struck(monkeypatch, upsert, "_execute", after=True):
        others = in_one_batch(group, map(message, "abc"))
    assert isinstance(group.leader.exception(), Boom)
    assert [(True, False)] * 3 == [(each.retryable, each.maybe_applied) for each in others]
    assert [] == stored(db)
    assert [] == db.get_conversations("before")


# --- Failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [ValueError("mine"), SessionNotFoundError("mine"), sqlite3.DataError("mine")],
    ids=lambda failure: type(failure).__name__,
)
def test_one_that_fails_fails_alone(db, group, failure):
    group.lead(insert("a"))
    group.queue(insert("b"), insert("lost", failure), insert("before"), insert("c"))
    a, b, lost, twice, c = group.outcomes()
    assert ("a", "b", "c") == (a, b, c)
    assert lost is failure
    assert sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY == twice.sqlite_errorcode
    assert ["a", "b", "c"] == stored(db)


def test_a_leader_that_fails_fails_alone(db, group):
    failure = ValueError("mine")
    group.lead(insert("lost", failure))
    group.queue(insert("b"), insert("c"))
    assert [failure, "b", "c"] == group.outcomes()
    assert ["b", "c"] == stored(db)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), TimeoutError("thrown in")], ids=repr)
def test_an_interrupted_leader_tells_the_others_and_somebody_else_goes_on(db, group, interrupt):
    group.lead(insert("a"))
    group.queue(insert("b"), insert("c", interrupt), insert("d"))
    leader, b, c, d = group.outcomes()
    assert leader is interrupt
    for told in (b, c):
        assert isinstance(told, BackendUnavailableError)
        assert (True, False) == (told.retryable, told.maybe_applied)
    assert b is not c
    assert "d" == d
    assert ["d"] == stored(db)
    assert not db._database._writer.connection.in_transaction


@contextmanager
def struck(monkeypatch, owner, name, *, after, times=1):
    """Raise in the place of a method's first calls, or right after them."""
    method = getattr(owner, name)
    left = [times]

    def strike(*args, **kwargs):
        if left[0] and not after:
            left[0] -= 1
            raise Boom
        result = method(*args, **kwargs)
        if left[0]:
            left[0] -= 1
            raise Boom
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, strike)
        yield
    assert [0] == left


def test_struck_after_the_commit_the_others_have_succeeded(db, group, monkeypatch):
    with struck(monkeypatch, group.writer._checkpointer, "count", after=False):
        group.lead(insert("a"))
        group.queue(insert("b"))
        leader, b = group.outcomes()
    assert isinstance(leader, Boom)
    assert "b" == b
    assert ["a", "b"] == stored(db)


def test_struck_before_the_commit_nothing_has_happened(db, group, monkeypatch):
    with struck(monkeypatch, group.writer, "_commit", after=False):
        group.lead(insert("a"))
        group.queue(insert("b"))
        leader, b = group.outcomes()
    assert isinstance(leader, Boom)
    assert (True, False) == (b.retryable, b.maybe_applied)
    assert [] == stored(db)


@pytest.mark.parametrize("committed", [True, False])
def test_struck_once_more_while_it_tells_the_others(db, group, monkeypatch, committed):
    """It has told nobody, so the next one who leads does."""
    place = (group.writer._checkpointer, "count") if committed else (group.writer, "_commit")
    with (
        struck(monkeypatch, *place, after=False),
        struck(monkeypatch, group.calls, "recover", after=False),
    ):
        group.lead(insert("a"))
        group.queue(insert("b"))
        leader, b = group.outcomes()
    assert isinstance(leader, Boom)
    if committed:
        assert "b" == b
    else:
        assert (True, False) == (b.retryable, b.maybe_applied)
    db._database.write(insert("c"), 0)
    assert ([*"ab"] if committed else []) + ["c"] == stored(db)


def test_struck_between_two_steps_of_telling(db, group, monkeypatch):
    with struck(monkeypatch, group.calls, "_settle", after=True):
        group.lead(insert("a"))
        group.queue(insert("b"))
        leader, b = group.outcomes()
    assert isinstance(leader, Boom)
    assert "b" == b
    assert ["a", "b"] == stored(db)


class Dropping(deque):
    """A queue whose second call, or what comes after it, is in no list: its leader is struck."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls
        self.left = 1

    def popleft(self):
        call = super().popleft()
        if self.left and len(self.calls._batch.calls) == 1:
            self.left = 0
            raise Boom
        return call


def test_struck_with_a_call_in_its_hand(db, group):
    """One that it took from the queue and has not noted yet: it is in no list."""
    group.calls.waiting = Dropping(group.calls)
    group.lead(insert("a"))
    group.queue(insert("b"), insert("c"))
    leader, b, c = group.outcomes()
    assert isinstance(leader, Boom)
    assert (True, False) == (b.retryable, b.maybe_applied)
    assert "c" == c
    assert ["c"] == stored(db)


def test_struck_with_the_call_of_the_main_thread_in_its_hand(db, group):
    outcome = []

    def write():
        # A thread that can be given up takes the main thread's part.
        group.calls.main_thread = threading.get_ident()
        try:
            db._database.write(insert("main"), 0)
        except BackendUnavailableError as error:
            outcome.append((error.retryable, error.maybe_applied))

    group.calls.waiting = Dropping(group.calls)
    group.lead(insert("a"))
    main = threading.Thread(target=write, daemon=True)
    main.start()
    wait_until(lambda: len(group.calls.waiting) == 1)
    assert isinstance(group.outcomes()[0], Boom)
    main.join(PATIENCE)
    assert [(True, False)] == outcome
    assert [] == stored(db)


@pytest.fixture
def orphan(db, group, monkeypatch):
    """A call whose thread was struck, and once more while it withdrew it."""
    with (
        struck(monkeypatch, group.calls, "_try_to_lead", after=False),
        struck(monkeypatch, group.calls, "_withdraw", after=False),
        pytest.raises(Boom),
    ):
        db._database.write(insert("lost"), 0)


@pytest.mark.usefixtures("orphan")
def test_nobody_stores_a_call_that_nobody_waits_for(db, group):
    group.pool.submit(db._database.write, insert("other"), 0).result(PATIENCE)
    assert ["other"] == stored(db)


@pytest.mark.usefixtures("orphan")
def test_the_main_thread_is_not_behind_a_call_that_nobody_waits_for(db, group):
    assert "main" == db._database.write(insert("main"), 0)
    assert ["main"] == stored(db)
    assert 0 == len(group.calls.waiting)


def test_closed_after_a_leader_was_struck_before_the_commit(db):
    """It had noted that it commits, had not, and could not tell anybody."""
    writer = db._database._writer
    call = Call(insert("lost"), 0)
    writer.connection.execute("BEGIN IMMEDIATE")
    call.result = call.operation(writer.connection)
    writer.queue._batch, writer._committing = Batch(writer.queue, call, alone=True), True
    writer.queue._batch.calls.append(call)
    db._database.close()
    assert "after" == db._database.write(insert("after"), 0)
    assert ["after"] == stored(db)
    assert call.settled
    assert isinstance(call.error, BackendUnavailableError)
    assert (True, False) == (call.error.retryable, call.error.maybe_applied)


# --- Waiting ------------------------------------------------------------------------------------


def test_a_handler_writes_between_queueing_and_leading(db):
    """It is behind the very call that waits for it to return."""
    outcomes = []

    class Interrupted(deque):
        def append(self, call):
            super().append(call)
            if len(self) == 1:
                outcomes.append(db._database.write(insert("handler"), 0))

    db._database._writer.queue.waiting = Interrupted()
    assert "main" == db._database.write(insert("main"), 0)
    assert ["handler"] == outcomes
    assert ["handler", "main"] == stored(db)


def test_a_handler_closes_between_queueing_and_leading(db):
    """What it interrupted does not open the file again."""
    writer = db._database._writer

    class Interrupted(deque):
        def append(self, call):
            super().append(call)
            db.close()

    writer.queue.waiting = Interrupted()
    with pytest.raises(ClosedError):
        db.create_session("lost")
    assert writer.connection is None
    assert 0 == len(writer.queue.waiting)
    assert [] == stored(db)


def test_who_gets_no_turn_to_read_is_told(tmp_path):
    with SQLiteDB(tmp_path / "x.db", operation_timeout=0.3) as db, ThreadPoolExecutor(1) as pool:
        db.create_session("s1")
        turns = db._database._readers._turns
        assert MAX_READERS == len(turns)
        with contextlib.ExitStack() as others:
            for turn in turns:
                others.enter_context(turn)
            told = pool.submit(db.get_conversations, "s1").exception(PATIENCE)
        assert isinstance(told, BackendUnavailableError)
        assert (True, False) == (told.retryable, told.maybe_applied)
        assert str(db.place) in str(told)
        assert "s1" == db.get_session("s1")["session_id"]


def test_a_short_read_waits_for_no_long_one(db):
    """Of what is bounded by a small limit, by one id, or by few."""
    db.create_session("s1")
    message = {"conv_id": None, "msg_type": "t", "agents": [], "actions": [], "content": 1}
    names = [f"m{number}" for number in range(FEW + 1)]
    db.add_or_update_msgs_to_conv("s1", [message | {"msg_id": name} for name in names])
    short = [
        partial(db.get_session, "s1"),
        partial(db.get_message, "s1", "m0"),
        partial(db.get_messages, "s1", names[1:]),
        partial(db.get_sessions, limit=FEW),
        partial(db.get_conversations, "s1", limit=FEW),
        partial(db.get_conversations, "s1", limit=FEW, after="m0"),
    ]
    long = [
        partial(db.get_messages, "s1", names),
        db.get_sessions,
        partial(db.get_conversations, "s1"),
        partial(db.get_conversations, "s1", limit=FEW + 1),
        partial(db.get_context, "s1"),
    ]
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as others:
        for turn in db._database._readers._turns:
            others.enter_context(turn)
        assert all(pool.submit(read).result(PATIENCE) for read in short)
        for read in long:
            waiting = pool.submit(read)
            with pytest.raises(TimeoutError):
                waiting.result(0.1)
            for turn in db._database._readers._turns:
                turn.release()
            waiting.result(PATIENCE)
            for turn in db._database._readers._turns:
                turn.acquire()


def test_who_waits_to_read_takes_the_turn_that_comes_first(tmp_path):
    """A long read holds up nobody as long as others end."""
    with SQLiteDB(tmp_path / "x.db", operation_timeout=5) as db, ThreadPoolExecutor(8) as pool:
        db.create_session("s1")
        long, short = db._database._readers._turns
        with long:
            with short:
                reads = [pool.submit(db.get_conversations, "s1") for _ in range(8)]
                wait_until(lambda: 8 == len(pool._threads))
                time.sleep(0.05)  # Most of them wait by then; those that do not prove less.
            assert 8 == len([read.result(PATIENCE) for read in reads])


def test_locks_that_are_made_anew_are_those_of_reads_too(db):
    def turns():
        readers = db._database._readers
        return [*readers._turns, *readers._short_turns]

    before = turns()
    db._renew_locks()
    assert db.get_session("s1") == {}
    assert not {*map(id, before)} & {*map(id, turns())}


def test_no_turn_to_read_is_lost_to_an_interrupt_or_kept_from_a_signals_handler(db):
    """A handler reads in the middle of a read, and what it raises ends that."""
    db.create_session("s1")

    def interrupted(_connection):
        signal.raise_signal(signal.SIGUSR1)

    def handle(*_):
        read.append(db.get_session("s1")["session_id"])
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, handle)
    read = []
    try:
        for _ in range(2 * MAX_READERS):
            with pytest.raises(KeyboardInterrupt):
                db._database.read(interrupted)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert 2 * MAX_READERS * ["s1"] == read
    with ThreadPoolExecutor(2 * MAX_READERS) as pool:
        many = 2 * MAX_READERS * [None]
        assert many == [*pool.map(lambda _: db._database.read(lambda _: None), many)]
    for turn in db._database._readers._turns:
        with pytest.raises(RuntimeError, match="release"):
            turn.release()


def test_out_of_patience_a_call_is_withdrawn(tmp_path):
    with SQLiteDB(tmp_path / "x.db", operation_timeout=0.3) as db:
        db.create_session("before")
        group = Group(db)
        group.lead(insert("a"))
        group.queue(insert("late"))
        told = group.waiting[0].exception(PATIENCE)
        assert isinstance(told, BackendUnavailableError)
        assert (True, False) == (told.retryable, told.maybe_applied)
        assert 0 == len(group.calls.waiting)
        assert ["a", told] == group.outcomes()
        assert ["a"] == stored(db)
        group.pool.shutdown()


def test_a_caller_that_is_interrupted_while_it_waits_is_withdrawn(db, group):
    idents = []

    def work():
        idents.append(threading.get_ident())
        return db._database.write(insert("lost"), 0)

    group.lead(insert("a"))
    interrupted = group.pool.submit(work)
    wait_until(lambda: len(group.calls.waiting) == 1)
    group.queue(insert("b"))
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(idents[0]), ctypes.py_object(Boom))
    assert isinstance(interrupted.exception(PATIENCE), Boom)
    assert ["a", "b"] == group.outcomes()
    assert ["a", "b"] == stored(db)


def test_who_waits_for_another_process_can_be_joined_by_others(db, group):
    with closing(sqlite3.connect(db.place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writes = [group.pool.submit(db._database.write, insert(f"s{n}"), 0) for n in range(5)]
        wait_until(lambda: len(group.calls.waiting) == 5)
        with statements(db) as seen:
            other.execute("ROLLBACK")
            assert [f"s{n}" for n in range(5)] == [write.result(PATIENCE) for write in writes]
    assert 4 == seen.count("SAVEPOINT")
    assert 1 == seen.count("COMMIT")


def test_close_waits_for_those_who_wait(db, group):
    tokens = [object() for _ in range(2)]
    for number, token in enumerate(tokens):
        db._gate.inside[token] = -number - 1  # As an operation of another thread has it.
    group.lead(insert("a"))
    group.queue(insert("b"))
    closing_ = group.pool.submit(db.close)
    wait_until(lambda: db.closed)
    with pytest.raises(ClosedError):
        db.create_session("late")
    assert ["a", "b"] == group.outcomes()
    assert not closing_.done()
    for token in tokens:
        db._gate.inside.pop(token)
    assert closing_.result(PATIENCE) is None
    assert group.writer.connection is None
    assert ["a", "b"] == stored(db)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_callers_wait(db):
    """It waits for them, and both sides go on."""
    inside, leave = threading.Event(), threading.Event()
    writer = db._database._writer
    commit = writer._commit

    def slow_commit(connection, batch):
        writer._commit = commit
        inside.set()
        assert leave.wait(PATIENCE)
        commit(connection, batch)

    writer._commit = slow_commit
    with ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(db.create_session, f"s{n}") for n in range(8)]
        assert inside.wait(PATIENCE)
        threading.Timer(0.2, leave.set).start()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert 0 == len(writer.queue.waiting)
                db.create_session("child")
                status = 0
            finally:
                os._exit(status)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert [True] * 8 == [write.result(PATIENCE) for write in writes]
    assert {"child", *(f"s{n}" for n in range(8))} == set(stored(db))


# --- Full disks ---------------------------------------------------------------------------------


def large(name):
    def operation(connection):
        connection.execute(
            f"{INSERT} VALUES (?, 0, 0, 0, zeroblob_text(?))",
            (name, 4_000_000),
        )
        return name

    return operation


def test_a_database_that_is_full_acknowledges_nobody_who_is_not_stored(db, group):
    connection = group.writer.connection
    connection.create_function("zeroblob_text", 1, lambda size: "x" * size)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (before,) = connection.execute("PRAGMA max_page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 3}")
    group.lead(insert("a"))
    group.queue(insert("b"), large("large"), insert("c"))
    a, b, failed, c = group.outcomes()
    assert sqlite3.SQLITE_FULL == failed.sqlite_errorcode
    acknowledged = [outcome for outcome in (a, b, c) if isinstance(outcome, str)]
    assert acknowledged == stored(db)
    assert not connection.in_transaction
    connection.execute(f"PRAGMA max_page_count = {before}")
    assert "large" == db._database.write(large("large"), 0)
    assert [*acknowledged, "large"] == stored(db)


def test_what_ends_the_whole_transaction_fails_everyone_in_it(db, group):
    """As a full disk or a read error does."""

    def end(connection):
        connection.execute("ROLLBACK")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        raise error

    group.lead(insert("a"))
    group.queue(insert("b"), end, insert("c"))
    a, b, failed, c = group.outcomes()
    assert isinstance(failed, sqlite3.OperationalError)
    for told in (a, b):
        assert isinstance(told, BackendUnavailableError)
        assert told.__cause__ is failed
    assert a is not b
    assert "c" == c
    assert ["c"] == stored(db)


def test_a_commit_that_fails_fails_everyone(db, group):
    def break_a_foreign_key(connection):
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute(
            "INSERT INTO director_context_items VALUES ('no such context', 0, 'null')"
        )

    group.lead(insert("a"))
    group.queue(break_a_foreign_key, insert("b"))
    outcomes = group.outcomes()
    assert 3 == len({id(told) for told in outcomes})
    for told in outcomes:
        assert isinstance(told, DirectorDBError)
        assert sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY == told.__cause__.sqlite_errorcode
    assert [] == stored(db)
    assert "after" == db._database.write(insert("after"), 0)
    assert ["after"] == stored(db)
