"""Connections that are lost, and callers that are interrupted."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from director_db import (
    BackendUnavailableError,
    ConfigurationError,
    DeleteResult,
    InvalidRecordError,
    SessionExistsError,
)
from director_db.rows import ContextRow, SaveOutcome
from director_db_conformance.proxy import Lie
from director_db_postgres import pool
from director_db_postgres.connections import Connection
from tests.patience import wait_until
from tests.postgres.calls import WAITING

pytestmark = pytest.mark.sampled

KILL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
# With a timeout in milliseconds, it returns when they are gone.
KILL_AND_WAIT = KILL.replace("(pid)", "(pid, 10000)")
THREADS = 8
SECONDS = 6
PATIENCE = 60


def upsert(db, msg_id="m", content=()):
    db.add_or_update_msg_to_conv("s", "c", msg_id, "output", [], [], list(content))


def test_killed_connections_under_load_cost_nobody_an_error(place, db):
    sessions = [f"s{number}" for number in range(THREADS)]
    for session in sessions:
        db.create_session(session)
    stop = time.monotonic() + SECONDS
    written = dict.fromkeys(sessions, 0)

    def work(session):
        count = 0
        while time.monotonic() < stop:
            db.add_or_update_msg_to_conv(session, "c", f"m{count}", "output", [], [], [count])
            db.add_or_update_context_msg(session, {"reasoning": [count]})
            assert db.get_message(session, f"m{count}")["content"] == [count]
            assert db.get_context_messages(session) == {"reasoning": [count]}
            count += 1
            written[session] = count

    kills = 0
    with ThreadPoolExecutor(THREADS) as executor, place.connect() as killer:
        workers = [executor.submit(work, session) for session in sessions]
        while time.monotonic() < stop:
            kills += len(killer.execute(KILL).fetchall())
            time.sleep(0.15)
        for worker in workers:
            worker.result()

    assert kills > THREADS
    for session in sessions:
        ids = [m["msg_id"] for m in db.get_conversations(session)]
        assert ids == [f"m{number}" for number in range(written[session])]


def test_connections_killed_while_idle_cost_a_delete_nothing(place, db):
    db.create_session("s")
    with place.connect() as killer:
        killer.execute(KILL_AND_WAIT)
    assert db.delete_session("s") == DeleteResult(
        success=True, failed_components=["conversation", "context"]
    )


# More bytes than any reply of these tests has.
NEVER = 2**62


@pytest.fixture
def cut(place, proxy, new_db):
    """An instance whose next reply can be cut off: the server acted, and nobody heard of it."""
    db = new_db(place.dsn_by(proxy.port), pool_size=1)
    db.create_session("s")
    upsert(db)

    def cut():
        db.get_session("s")
        proxy.cut_after(0)
        return db

    return cut


def test_a_message_whose_answer_was_lost_is_stored_once(cut):
    upsert(cut(), "m2")
    assert [m["msg_id"] for m in cut().get_conversations("s")] == ["m", "m2"]


def test_a_session_whose_answer_was_lost_is_created(cut):
    cut().create_session("t", updated_at=5)
    assert cut().get_session("t")["updated_at"] == 5


@pytest.mark.parametrize(
    "delete",
    [
        lambda db: db.delete_session("s"),
        lambda db: db.delete_conversation("s"),
        lambda db: db.delete_message("s", "m"),
        lambda db: db.delete_context("s"),
        lambda db: db.pop_message("s"),
        lambda db: db.replace_conversation("s", []),
        lambda db: db.delete_messages_after("s", "m"),
    ],
    ids=["session", "conversation", "message", "context", "pop", "replace", "behind"],
)
def test_a_delete_whose_answer_was_lost_may_have_happened(cut, delete):
    db = cut()
    with pytest.raises(BackendUnavailableError) as caught:
        delete(db)
    assert (caught.value.retryable, caught.value.maybe_applied) == (True, True)
    assert db.get_session("none") == {}


def test_a_copy_whose_answer_was_lost_may_be_what_is_there(cut):
    db = cut()
    with pytest.raises(BackendUnavailableError) as caught:
        db.copy_session("s", "t")
    assert (caught.value.retryable, caught.value.maybe_applied) == (True, True)
    assert [m["msg_id"] for m in db.get_conversations("t")] == ["m"]
    with pytest.raises(SessionExistsError):
        db.copy_session("s", "t")


def test_an_append_whose_answer_was_lost_is_applied_once(cut, proxy):
    assert 1 == cut().append_context_messages("s", [1])
    assert 2 == cut().append_context_messages("s", [2])
    assert cut().get_context_messages("s") == {"reasoning": [1, 2]}


def test_a_save_whose_answer_was_lost_is_stored_once(cut, proxy):
    for items in ([1], [1, 2], [1, 2, 3], [3], []):
        cut().add_or_update_context_msg("s", {"reasoning": items})
        assert cut().get_context_messages("s") == {"reasoning": items}


@pytest.fixture
def late(place, cut, proxy, new_db, monkeypatch):
    """The instance of `cut`, whose next write is applied, not answered, and then replaced."""
    db, other = cut(), new_db(place.dsn)
    proxy.cut_after(NEVER)
    writes = []
    original = Connection.run_together

    def cut_and_replace(self, *steps):
        if len(steps) == 1 or writes or not armed:
            return original(self, *steps)
        writes.append(self)
        proxy.cut_after(0)
        try:
            return original(self, *steps)
        finally:
            other.add_or_update_context_msg("s", {"reasoning": ["theirs"], "chat": []})

    armed = []
    # Of the instance's own class, so that the other one's calls come here too, and pass.
    monkeypatch.setattr(Connection, "run_together", cut_and_replace)

    def arm():
        other.get_session("s")
        writes.clear()
        armed.append(True)
        return db

    return db, arm


def test_an_append_whose_answer_was_lost_and_that_another_save_replaced_is_in_doubt(late):
    db, arm = late
    db.append_context_messages("s", [1])
    with pytest.raises(BackendUnavailableError) as caught:
        arm().append_context_messages("s", [2])
    assert caught.value.maybe_applied is True
    assert db.get_context_messages("s") == {"reasoning": ["theirs"], "chat": []}


def test_an_append_in_doubt_that_cannot_be_looked_for_is_in_doubt(place, late, monkeypatch):
    """The look-up may fail in its own way; what the caller hears of is the append."""
    db, arm = late
    db.append_context_messages("s", [1])
    length_at = type(db)._length_at

    def rename(old, new):
        with place.connect() as connection:
            connection.execute(f"ALTER TABLE director_context_messages{old} RENAME TO {new}")

    def look(self, *arguments):
        rename("", "director_context_messages_away")
        try:
            return length_at(self, *arguments)
        finally:
            rename("_away", "director_context_messages")

    monkeypatch.setattr(type(db), "_length_at", look)
    with pytest.raises(BackendUnavailableError) as caught:
        arm().append_context_messages("s", [2])
    assert caught.value.maybe_applied is True
    assert db.get_context_messages("s") == {"reasoning": ["theirs"], "chat": []}


def test_an_append_to_one_text_that_another_save_replaced_is_in_doubt(late):
    """As one text, it is read and saved, so that a second try would find neither version."""
    db, arm = late
    db.add_or_update_context_msg("s", {"reasoning": ["\ud800"]})
    with pytest.raises(BackendUnavailableError, match="another writer") as caught:
        arm().append_context_messages("s", ["\ud800"])
    assert caught.value.maybe_applied is True
    assert db.get_context_messages("s") == {"reasoning": ["theirs"], "chat": []}


def test_a_save_whose_answer_was_lost_and_that_another_one_replaced_is_stored_again(late):
    db, arm = late
    db.add_or_update_context_msg("s", {"reasoning": [1]})
    arm().add_or_update_context_msg("s", {"reasoning": [1, 2]})
    assert db.get_context_messages("s") == {"reasoning": [1, 2]}


def test_a_save_on_top_of_a_version_whose_answer_was_lost_is_no_conflict(cut, proxy):
    version = None
    for value in ([1], [1, 2], {"reasoning": [1]}, {"reasoning": ["\ud800"]}, 5, {"reasoning": []}):
        version = cut().add_or_update_context_msg("s", value, if_version=version)
        found = cut().get_context("s")
        assert (found["context"], found["version"]) == (value, version)


def test_a_save_on_top_of_a_version_that_another_one_replaced_is_in_doubt(late):
    db, arm = late
    version = db.add_or_update_context_msg("s", {"reasoning": [1]})
    with pytest.raises(BackendUnavailableError, match="Read it to see") as caught:
        arm().add_or_update_context_msg("s", {"reasoning": [1, 2]}, if_version=version)
    assert caught.value.maybe_applied is True
    assert db.get_context_messages("s") == {"reasoning": ["theirs"], "chat": []}


@pytest.fixture
def cut_write(cut, proxy, monkeypatch):
    """The instance of `cut`, whose next write of several statements is applied, not answered."""
    db = cut()
    proxy.cut_after(NEVER)
    original = Connection.run_together
    armed = []

    def cut_once(self, *steps):
        if len(steps) > 1 and armed:
            armed.clear()
            proxy.cut_after(0)
        return original(self, *steps)

    monkeypatch.setattr(Connection, "run_together", cut_once)

    def arm():
        armed.append(True)
        return db

    return arm


def test_a_merge_whose_answer_was_lost_is_merged(cut_write):
    cut_write().update_session("s", metadata={"a": {"b": 1}, "c": None}, merge=True, updated_at=7)
    found = cut_write().get_session("s")
    assert (found["metadata"], found["updated_at"]) == ({"a": {"b": 1}}, 7)


@pytest.mark.parametrize("merge", [False, True])
def test_a_change_on_top_of_a_version_whose_answer_was_lost_is_in_doubt(cut_write, merge):
    """What is stored now may be what this call or somebody else has made of that version."""
    db = cut_write()
    version = db.get_session("s")["version"]
    with pytest.raises(BackendUnavailableError, match="Read it to see") as caught:
        db.update_session("s", metadata={"n": 1}, merge=merge, if_version=version)
    assert (caught.value.retryable, caught.value.maybe_applied) == (False, True)
    assert db.get_session("s")["metadata"] == {"n": 1}


def test_growing_contexts_survive_killed_connections(place, db):
    """Saves see no error. An append may be in doubt, and is then there once or not at all."""
    sessions = [f"s{number}" for number in range(4)]
    for session in sessions:
        db.create_session(session)
    stop = time.monotonic() + 4

    def work(session):
        items = []
        while time.monotonic() < stop or len(items) <= 4:
            items.append({"n": len(items)})
            db.add_or_update_context_msg(session, {"reasoning": items})
            new = {"n": len(items)}
            in_doubt = False
            try:
                length = db.append_context_messages(session, [new])
            except BackendUnavailableError as error:
                in_doubt = error.maybe_applied
                length = None
            found = db.get_context_messages(session)["reasoning"]
            if in_doubt:
                assert found in (items, [*items, new])
            else:
                items.append(new)
                assert (len(items), items) == (length, found)
        return len(items)

    kills = 0
    with ThreadPoolExecutor(4) as executor, place.connect() as killer:
        workers = [executor.submit(work, session) for session in sessions]
        while time.monotonic() < stop:
            kills += len(killer.execute(KILL).fetchall())
            time.sleep(0.15)
        counts = [worker.result() for worker in workers]
    assert kills > 4
    assert min(counts) > 4
    with place.connect() as connection:
        rows = connection.execute(
            """
            SELECT session_id, list_len, count(idx), coalesce(max(idx), -1)
            FROM director_context_messages LEFT JOIN director_context_items USING (session_id)
            GROUP BY session_id, list_len
            """
        ).fetchall()
    assert len(rows) == len(sessions)
    for session, length, count, last in rows:
        assert length == count == last + 1, session


def test_a_save_from_another_version_is_a_conflict(db):
    db.create_session("s")
    row = ContextRow("s", "[1]", 11, 1, 1, "{}", created_at_given=True)
    assert db._save_context(row, if_version=7) is SaveOutcome.CONFLICT
    assert db._save_context(row, if_version=0) is SaveOutcome.SAVED
    other = row._replace(version=12, context="[2]")
    assert db._save_context(other, if_version=0) is SaveOutcome.CONFLICT
    assert db._save_context(other, if_version=11) is SaveOutcome.SAVED
    # What a second try of the same save finds.
    assert db._save_context(other, if_version=11) is SaveOutcome.SAVED
    gone = row._replace(session_id="none")
    assert db._save_context(gone, if_version=0) is SaveOutcome.NO_SESSION
    assert db.get_context("s")["context"] == [2]


def test_a_conflicting_save_does_not_touch_the_session(db):
    db.create_session("s", updated_at=1)
    row = ContextRow("s", "[1]", 11, 1, 2**40, "{}", created_at_given=True)
    db._save_context(row, if_version=7)
    assert db.get_session("s")["updated_at"] == 1


def test_nobody_listens(new_db, server):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    db = new_db(server.dsn(port=port), retry_deadline=0.3)
    with pytest.raises(BackendUnavailableError, match="cannot be reached") as caught:
        db.get_session("s")
    assert (caught.value.retryable, caught.value.maybe_applied) == (True, False)
    assert db.health_check() is False


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"password": "wrong"}, ConfigurationError, "refused this user"),
        ({"password": '"postgres"'}, ConfigurationError, "As to the password: .*docker --env-file"),
        ({"user": "nobody-there"}, ConfigurationError, "refused this user"),
        ({"dbname": "nowhere"}, ConfigurationError, "no such database"),
    ],
    ids=["password", "quotes", "user", "database"],
)
def test_what_the_server_refuses_is_told_at_once(place, new_db, change, error, text, caplog):
    db = new_db(make_conninfo(place.dsn, **change))
    with pytest.raises(error, match=text):
        db.get_session("s")
    assert "trying again" not in caplog.text
    assert db.health_check() is False


def test_too_many_connections_are_waited_for(place, new_db, caplog):
    with place.connect() as admin:
        admin.execute("CREATE ROLE guest LOGIN PASSWORD 'guest' CONNECTION LIMIT 1")
        admin.execute("GRANT ALL ON SCHEMA public TO guest")
        try:
            dsn = make_conninfo(place.dsn, user="guest", password="guest")  # noqa: S106 - made above
            first, second = new_db(dsn, pool_size=1), new_db(dsn, pool_size=1)
            first.create_session("s")
            with ThreadPoolExecutor(1) as executor:
                waiting = executor.submit(second.get_session, "s")
                wait_until(lambda: "too many connections for role" in caplog.text)
                assert not waiting.done()
                first.close()
                assert waiting.result()["session_id"] == "s"
        finally:
            second.close()
            admin.execute("DROP OWNED BY guest")
            admin.execute("DROP ROLE guest")


def test_a_role_without_rights_is_told(place, db, new_db):
    db.create_session("s")
    with place.connect() as admin:
        admin.execute("CREATE ROLE stranger LOGIN PASSWORD 'x'")
        try:
            stranger = new_db(make_conninfo(place.dsn, user="stranger", password="x"))  # noqa: S106 - made above
            with pytest.raises(ConfigurationError, match="lacks a right"):
                stranger.get_session("s")
            assert stranger.health_check() is False
            stranger.close()
        finally:
            admin.execute("DROP ROLE stranger")


@pytest.mark.parametrize("first_use", [False, True], ids=["in use", "first use"])
def test_a_database_that_is_read_only_by_its_settings_is_told_at_once(
    place, db, again, first_use, caplog
):
    """Unlike a standby: nobody takes over, so that no wait would help."""
    if not first_use:
        db.create_session("s")
    with place.connect() as admin:
        admin.execute(f"ALTER DATABASE {place.name} SET default_transaction_read_only = on")
        admin.execute(KILL_AND_WAIT)
        with pytest.raises(BackendUnavailableError, match="default_transaction_read_only") as told:
            db.create_session("s2")
        # A standby would have been waited for; only lost connections were tried again.
        assert [] == [text for text in caplog.messages if "read-only" in text and "again" in text]
        assert (False, False) == (told.value.retryable, told.value.maybe_applied)
        assert isinstance(told.value.__cause__, psycopg.errors.ReadOnlySqlTransaction)
        admin.execute(f"ALTER DATABASE {place.name} RESET default_transaction_read_only")
        admin.execute(KILL_AND_WAIT)
    # A connection that was being made meanwhile may still begin as before.
    again(db.create_session, "s2")
    assert first_use != ({"s", "s2"} == {found["session_id"] for found in db.get_sessions()})


def test_a_role_that_may_only_read_is_told_at_once(place, db, new_db, caplog):
    db.create_session("s")
    db.add_or_update_msg_to_conv("s", "c", "m", "output", [], [], [1])
    with place.connect() as admin:
        admin.execute("CREATE ROLE reader LOGIN PASSWORD 'x'")
        admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        reader = new_db(make_conninfo(place.dsn, user="reader", password="x"))  # noqa: S106 - made above
        try:
            assert [1] == reader.get_message("s", "m")["content"]
            for write in (
                lambda: reader.create_session("t"),
                lambda: upsert(reader),
                lambda: reader.update_session("s"),
                lambda: reader.append_context_messages("s", [1]),
                lambda: reader.delete_message("s", "m"),
            ):
                with pytest.raises(ConfigurationError, match="lacks a right"):
                    write()
            assert "trying again" not in caplog.text
            assert [1] == reader.get_message("s", "m")["content"]
            reader.close()
        finally:
            admin.execute("DROP OWNED BY reader")
            admin.execute("DROP ROLE reader")


def test_of_several_hosts_the_one_that_takes_writes_is_used(place, proxy, new_db, server):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        dead = probe.getsockname()[1]
    base = place.dsn.replace(f"127.0.0.1:{server.port}", f"127.0.0.1:{dead},127.0.0.1:{proxy.port}")
    db = new_db(base)
    db.create_session("s")
    assert db.get_session("s")["session_id"] == "s"
    assert f"127.0.0.1:{dead},127.0.0.1:{proxy.port}" in db.place


class _Timeout(BaseException):
    """As gevent's, which is no Exception."""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, _Timeout])
def test_an_interrupted_operation_leaves_no_busy_connection(place, new_db, kind):
    db = new_db(place.dsn, pool_size=1)
    db.create_session("s")

    def interrupt(_number, _frame):
        raise kind

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with place.connect() as holder, place.connect() as observer:
            holder.execute("BEGIN")
            holder.execute("SELECT FROM director_sessions FOR UPDATE")
            for operation in (lambda: upsert(db), lambda: db.delete_session("s")):
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                with pytest.raises(kind):
                    operation()
            # The connection that reads this is another one, or the same and not busy.
            assert db.get_session("s")["session_id"] == "s"
            wait_until(lambda: observer.execute(WAITING).fetchone() == (0,))
            holder.execute("COMMIT")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # Neither goes on in the server once the lock is free.
    assert db.get_conversations("s") == []
    upsert(db, "m2")
    assert [m["msg_id"] for m in db.get_conversations("s")] == ["m2"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, _Timeout])
def test_an_interrupted_wait_for_a_connection_loses_none(place, new_db, kind, wait_for_lock_waits):
    db = new_db(place.dsn, pool_size=1)
    db.create_session("s")

    def interrupt(_number, _frame):
        raise kind

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with place.connect() as holder, ThreadPoolExecutor(1) as executor:
            holder.execute("BEGIN")
            holder.execute("SELECT FROM director_sessions FOR UPDATE")
            busy = executor.submit(upsert, db)
            wait_for_lock_waits()
            for _ in range(2):
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(kind):
                    db.add_or_update_context_msg("s", [])
            holder.execute("COMMIT")
            busy.result()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [m["msg_id"] for m in db.get_conversations("s")] == ["m"]


def test_all_connections_busy_is_told(place, proxy, new_db, again):
    db = new_db(place.dsn_by(proxy.port), pool_size=1, retry_deadline=0.5)
    again(db.create_session, "s")
    asked = threading.Event()

    def say_nothing(_question):
        asked.set()
        return Lie(b"")

    proxy.lie(say_nothing)
    with ThreadPoolExecutor(1) as executor:
        busy = executor.submit(upsert, db)
        assert asked.wait(60)
        with pytest.raises(BackendUnavailableError, match="POSTGRES_POOL_SIZE") as caught:
            db.get_session("s")
        assert caught.value.retryable is True
        proxy.lie(None)
        proxy.cut()
        with suppress(BackendUnavailableError):
            busy.result()
    assert "s" == again(db.get_session, "s")["session_id"]


def test_a_crowd_that_shares_connections_is_not_taken_for_lost_ones(place, new_db, monkeypatch):
    """At any moment some connections are between two hands."""
    monkeypatch.setattr(pool, "_WAIT", 0.05)  # Each time it is over, somebody looks.
    discarded = []
    monkeypatch.setattr(pool.Pool, "_discard", lambda _self, pool: discarded.append(pool))
    db = new_db(place.dsn, pool_size=3)
    db.create_session("s")

    def read(_number):
        return db._database.read(lambda connection: connection.execute("SELECT pg_sleep(0.002)"))

    with ThreadPoolExecutor(50) as executor:
        assert 1_000 == len(list(executor.map(read, range(1_000))))
    # It was dozens of times. A machine that stands still may look like it, once.
    assert len(discarded) < 3


def test_a_connection_that_is_struck_out_of_the_hand_is_not_held(place, new_db):
    db = new_db(place.dsn, pool_size=1)
    db.create_session("s")

    held = db._database._pool

    class Struck(dict):
        def pop(self, token, default=None):
            super().pop(token, default)
            if token in held.holding:
                raise KeyboardInterrupt

    held._wanting = Struck()
    with pytest.raises(KeyboardInterrupt):
        db.get_session("s")
    held._wanting = {}
    assert {} == held.holding
    assert "s" == db.get_session("s")["session_id"]


def test_a_session_that_may_be_ours_and_cannot_be_looked_at_is_in_doubt(db, monkeypatch):
    place = "a server that is gone"
    db.create_session("s")
    monkeypatch.setattr(db._database, "write_in_doubt", lambda *_: (False, True))

    def fail(*_args, **_kwargs):
        raise BackendUnavailableError(place, retryable=True)

    monkeypatch.setattr(db._database, "read", fail)
    with pytest.raises(BackendUnavailableError, match="that is gone") as caught:
        db.create_session("s")
    assert (True, True) == (caught.value.retryable, caught.value.maybe_applied)


def test_a_refusal_after_a_lost_answer_is_in_doubt(db, monkeypatch):
    """The session has grown between the two tries, say."""
    db.create_session("s")
    tried = []

    def fail(_operation, call):
        tried.append(call)
        if len(tried) > 1:
            raise InvalidRecordError("metadata", "too long")
        call.in_doubt = True
        raise psycopg.OperationalError

    monkeypatch.setattr(db._database, "_try", fail)
    with pytest.raises(BackendUnavailableError, match="metadata: too long") as caught:
        db.update_session("s", video_id="v")
    assert caught.value.maybe_applied is True
    assert 2 == len(tried)


def test_a_merge_that_is_refused_costs_no_connection(place, new_db):
    db = new_db(place.dsn, pool_size=1)
    db.create_session("s")
    number = db._database.read(lambda connection: connection.info.backend_pid)

    def refuse(_connection):
        raise InvalidRecordError("metadata", "too long")

    with pytest.raises(InvalidRecordError):
        db._database.write(refuse, "s")
    assert number == db._database.read(lambda connection: connection.info.backend_pid)


def test_each_of_several_hosts_has_its_share_of_a_calls_time(new_db, monkeypatch):
    given = []

    def connect(_conninfo, *, connect_timeout, **_options):
        given.append(connect_timeout)
        raise ConfigurationError  # It is not tried again.

    monkeypatch.setattr(pool.Connection, "connect", connect)
    for hosts, expected in (("a", 6), ("a,b", 3), ("a,b,c,d", 2)):
        db = new_db(f"postgresql://u:p@{hosts}/d", operation_timeout=6)
        with pytest.raises(ConfigurationError):
            db.get_session("s")
        assert expected == given[-1]


def test_a_start_up_option_that_the_server_does_not_know(place, new_db):
    db = new_db(f"{place.dsn}?options=-c%20nosuch%3D1", retry_deadline=5)
    with pytest.raises(ConfigurationError, match="nosuch"):
        db.get_sessions()


def test_a_server_that_says_nothing_is_given_up_in_time(new_db):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        db = new_db(f"postgresql://u:p@127.0.0.1:{port}/d", retry_deadline=1)
        start = time.monotonic()
        with pytest.raises(BackendUnavailableError):
            db.get_sessions()
        # libpq's own patience for a host is 10 s, and that of asking for the reason is 5 s.
        assert time.monotonic() - start < 8


def test_a_connection_does_not_wait_for_a_host_that_is_gone(db):
    """As the kernel sees it: no test can make a host vanish from loopback."""
    db.create_session("s")
    with (
        db._database._pool.current.connection() as connection,
        socket.socket(fileno=os.dup(connection.fileno())) as own,
    ):
        limit = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert limit == 30_000
