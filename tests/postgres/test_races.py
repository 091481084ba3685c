"""What other transactions do at the same moment, held open at the worst one."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from director_db import BackendUnavailableError, DeleteResult, SessionNotFoundError
from director_db_postgres.connections import Connection
from tests.patience import wait_until
from tests.postgres.calls import WAITING

pytestmark = pytest.mark.sampled

LOCK = "SELECT FROM director_sessions WHERE session_id = 's' FOR UPDATE"
INSERT_MESSAGE = """
    INSERT INTO director_conversations
    VALUES ('s', 'c', 'm1', 1, 'output', '[]', '[]', '[]', NULL, 0, 0, '{}')
"""


def upsert(db, msg_id, content=()):
    db.add_or_update_msg_to_conv("s", "c", msg_id, "output", [], [], list(content))


@contextmanager
def held_open(place, *statements, waiting):
    """Run statements in a transaction that commits when `waiting` others wait for its locks."""
    with place.connect() as connection, place.connect() as watcher:
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement)
        yield
        wait_for_locks(watcher, waiting)
        connection.execute("COMMIT")


def wait_for_locks(watcher, waiting):
    wait_until(lambda: watcher.execute(WAITING).fetchone()[0] >= waiting)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as executor:
        yield executor


@pytest.mark.parametrize(
    "write",
    [
        lambda db: upsert(db, "m1"),
        lambda db: upsert(db, "m2"),
        lambda db: db.add_or_update_msgs_to_conv(
            "s",
            [
                {
                    "conv_id": "",
                    "msg_id": msg_id,
                    "msg_type": "",
                    "agents": [],
                    "actions": [],
                    "content": [],
                }
                for msg_id in ("m1", "m2", "m3")
            ],
        ),
        lambda db: db.add_or_update_context_msg("s", [1]),
        lambda db: db.append_context_messages("s", [1]),
        lambda db: db.update_session("s", video_id="v"),
    ],
    ids=["update", "insert", "bulk", "context", "append", "session"],
)
def test_a_write_that_waits_for_a_delete_finds_no_session(place, db, pool, write):
    db.create_session("s")
    upsert(db, "m1")
    with held_open(place, "DELETE FROM director_sessions WHERE session_id = 's'", waiting=1):
        late = pool.submit(write, db)
    with pytest.raises(SessionNotFoundError):
        late.result()
    assert db.get_session("s") == {}
    assert db.get_conversations("s") == []
    assert db.get_context("s") == {}


def test_a_delete_that_waits_for_a_message_deletes_it_too(place, db, pool):
    db.create_session("s")
    with held_open(place, LOCK, INSERT_MESSAGE, waiting=1):
        deleting = pool.submit(db.delete_session, "s")
    assert deleting.result() == DeleteResult(success=True, failed_components=["context"])
    with place.connect() as connection:
        left = connection.execute("SELECT count(*) FROM director_conversations").fetchone()
    assert left == (0,)


@pytest.mark.parametrize(
    ("delete", "insert"),
    [
        (
            lambda db: db.delete_conversation("s"),
            INSERT_MESSAGE,
        ),
        (
            lambda db: db.delete_message("s", "m1"),
            INSERT_MESSAGE,
        ),
        (
            lambda db: db.delete_context("s"),
            "INSERT INTO director_context_messages VALUES ('s', '[]', NULL, 0, 2, 7, 0, 0, '{}')",
        ),
    ],
    ids=["conversation", "message", "context"],
)
def test_a_delete_sees_what_was_written_while_it_waited(place, db, pool, delete, insert):
    db.create_session("s")
    with held_open(place, LOCK, insert, waiting=1):
        deleting = pool.submit(delete, db)
    assert deleting.result() is True
    assert delete(db) is False


@pytest.fixture
def between(place, db, pool, monkeypatch):
    """Let something happen after the first statement of an operation, which locks."""
    db.get_session("s")
    original = Connection.run_together

    def stopped(connection, lock, *steps):
        stop = (b"SELECT pg_advisory_xact_lock(7)", ())
        locked, _, *answers = original(connection, lock, stop, *steps)
        return [locked, *answers]

    def play(operation, happen):
        with held_open(place, "SELECT pg_advisory_xact_lock(7)", waiting=1):
            with monkeypatch.context() as patch:
                patch.setattr(Connection, "run_together", stopped)
                outcome = pool.submit(operation, db)
                with place.connect() as watcher:
                    wait_for_locks(watcher, 1)
            happen()
        return outcome

    return play


def save_mine(db):
    db.add_or_update_context_msg("s", {"reasoning": ["mine"]})


def append_mine(db):
    db.append_context_messages("s", ["mine"])


@pytest.mark.parametrize("write", [save_mine, append_mine])
@pytest.mark.parametrize("theirs", [[], ["theirs"] * 3], ids=["empty", "with a context"])
def test_a_session_that_appears_after_the_lock_is_not_written(
    place, db, new_db, between, write, theirs
):
    other = new_db(place.dsn)
    other.get_session("s")

    def appear():
        other.create_session("s", updated_at=5)
        if theirs:
            other.add_or_update_context_msg("s", {"reasoning": theirs}, updated_at=5)

    outcome = between(write, appear)
    with pytest.raises(SessionNotFoundError):
        outcome.result()
    assert other.get_context_messages("s") == ({"reasoning": theirs} if theirs else {})
    assert other.get_session("s")["updated_at"] == 5
    write(db)
    before = theirs if write is append_mine else []
    assert other.get_context_messages("s") == {"reasoning": [*before, "mine"]}


@contextlib.contextmanager
def stopping_twice(place, monkeypatch, begin, first, second):
    """Let ``begin()`` stop in its transaction before two of its steps, and yield how to go on.

    Yields a watching connection, and a function to call twice: it lets the transaction go on, the
    first time up to the second stop.
    """
    original = Connection.run_together

    def stopped(connection, *steps):
        seven, eight = ((b"SELECT pg_advisory_xact_lock(%d)" % key, ()) for key in (7, 8))
        answers = original(
            connection, *steps[:first], seven, *steps[first:second], eight, *steps[second:]
        )
        at = [first % len(steps), second % len(steps) + 1]
        return [answer for index, answer in enumerate(answers) if index not in at]

    def waits_for(key):
        waiting = "SELECT FROM pg_locks WHERE objid = %s AND NOT granted"
        return watcher.execute(waiting, (key,)).rowcount == 1

    with contextlib.ExitStack() as connections:
        watcher, *holders = (connections.enter_context(place.connect()) for _ in range(3))
        for holder, key in zip(holders, (7, 8), strict=True):
            holder.execute("BEGIN")
            holder.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "run_together", stopped)
            begin()
            wait_until(lambda: waits_for(7))

        def go_on():
            holders.pop(0).execute("COMMIT")
            if holders:
                wait_until(lambda: waits_for(8))

        yield watcher, go_on


REST = dict.fromkeys(("conv_id", "msg_type", "agents", "actions", "content"), "")


def test_a_session_that_appears_and_is_locked_by_another_is_not_written(
    place, db, new_db, pool, monkeypatch
):
    """The first of two guarded messages meets it as nobody's, the second as the other's."""
    other = new_db(place.dsn)
    for each in (db, other):
        each.get_session("s")
    messages = [{**REST, "msg_id": name, "if_absent": True} for name in ("m1", "m2")]
    outcomes = []

    def begin():
        outcomes.append(pool.submit(db.add_or_update_msgs_to_conv, "s", messages))

    with (
        place.connect() as locking,
        stopping_twice(place, monkeypatch, begin, 1, 3) as (watcher, go_on),
    ):
        other.create_session("s")
        go_on()
        locking.execute("BEGIN")
        locking.execute(LOCK)
        go_on()
        wait_until(lambda: outcomes[0].done() or watcher.execute(WAITING).fetchone()[0])
        locking.execute("COMMIT")
        with pytest.raises(SessionNotFoundError):
            outcomes[0].result()
    assert other.get_conversations("s") == []


def test_a_session_that_appears_and_is_changed_by_another_gets_no_half_of_a_bulk(
    place, db, new_db, pool, monkeypatch
):
    """A bulk is two statements where only some of its messages give `created_at`."""
    other = new_db(place.dsn)
    for each in (db, other):
        each.get_session("s")
    messages = [{**REST, "msg_id": "m1", "created_at": 5}, {**REST, "msg_id": "m2"}]
    outcomes = []

    def begin():
        outcomes.append(pool.submit(db.add_or_update_msgs_to_conv, "s", messages))

    with stopping_twice(place, monkeypatch, begin, -2, -1) as (_, go_on):
        other.create_session("s")
        go_on()
        other.update_session("s", video_id="v")
        go_on()
        with pytest.raises(SessionNotFoundError):
            outcomes[0].result()
    assert other.get_conversations("s") == []


def test_a_session_that_appears_after_the_lock_is_not_deleted(place, db, new_db, between):
    other = new_db(place.dsn)
    other.get_session("s")

    def appear():
        other.create_session("s")
        upsert(other, "m1")
        other.add_or_update_context_msg("s", [1])

    outcome = between(lambda db: db.delete_session("s"), appear)
    nothing = DeleteResult(success=False, failed_components=["conversation", "context", "session"])
    assert outcome.result() == nothing
    assert other.get_session("s")["session_id"] == "s"
    assert len(other.get_conversations("s")) == 1
    assert db.delete_session("s") == DeleteResult(success=True, failed_components=[])


def test_contexts_of_a_session_that_comes_and_goes_are_never_mixed(place, new_db, pool):
    """Each save is a list of one number; whoever reads another has seen two of them."""
    stop = time.monotonic() + 4
    numbers = itertools.count()

    def play(act):
        db = new_db(place.dsn)
        found = []
        while time.monotonic() < stop:
            with contextlib.suppress(SessionNotFoundError):
                found.append(act(db))
        return found

    def save(db):
        number = next(numbers)
        db.add_or_update_context_msg("s", {"reasoning": [number] * (number % 5 + 1)})

    acts = [
        lambda db: db.create_session("s"),
        lambda db: db.delete_session("s"),
        save,
        save,
        lambda db: db.get_context_messages("s").get("reasoning", []),
    ]
    players = [pool.submit(play, act) for act in acts]
    *_, read = [player.result() for player in players]
    assert len(read) > 10
    assert [] == [items for items in read if len(set(items)) > 1]
    assert [] == [items for items in read if items and len(items) != items[0] % 5 + 1]


def test_of_two_deletes_at_once_one_finds_the_session(place, db, pool):
    db.create_session("s")
    upsert(db, "m1")
    db.add_or_update_context_msg("s", [])
    with held_open(place, LOCK, waiting=2):
        deleting = [pool.submit(db.delete_session, "s") for _ in range(2)]
    results = sorted(future.result() for future in deleting)
    assert results == [
        DeleteResult(success=False, failed_components=["conversation", "context", "session"]),
        DeleteResult(success=True, failed_components=[]),
    ]


def test_two_appends_at_once_from_two_instances_lose_nothing(place, db, new_db, pool):
    db.create_session("s")
    other = new_db(place.dsn)
    other.get_session("s")
    with held_open(place, LOCK, waiting=2):
        lengths = [
            pool.submit(instance.append_context_messages, "s", [name])
            for instance, name in ((db, "a"), (other, "b"))
        ]
    assert sorted(future.result() for future in lengths) == [1, 2]
    assert sorted(db.get_context_messages("s")["reasoning"]) == ["a", "b"]


def test_an_append_that_waits_for_a_deleted_context_starts_anew(place, db, pool):
    db.create_session("s")
    db.append_context_messages("s", ["old"])
    with held_open(place, LOCK, "DELETE FROM director_context_messages", waiting=1):
        length = pool.submit(db.append_context_messages, "s", ["new"])
    assert length.result() == 1
    assert db.get_context_messages("s") == {"reasoning": ["new"]}


def test_two_first_messages_at_once_take_two_places(place, db, new_db, pool):
    db.create_session("s")
    other = new_db(place.dsn)
    other.get_session("s")
    with held_open(place, LOCK, waiting=2):
        writes = [pool.submit(upsert, db, "m1"), pool.submit(upsert, other, "m2")]
    for write in writes:
        write.result()
    assert sorted(m["msg_id"] for m in db.get_conversations("s")) == ["m1", "m2"]
    with place.connect() as connection:
        places = connection.execute("SELECT seq FROM director_conversations ORDER BY 1").fetchall()
    assert places == [(1,), (2,)]


def test_of_two_inserts_of_one_message_at_once_the_second_updates(place, db, pool):
    db.create_session("s")
    with held_open(place, LOCK, waiting=2):
        writes = [pool.submit(upsert, db, "m1", [number]) for number in range(2)]
    for write in writes:
        write.result()
    assert [m["msg_id"] for m in db.get_conversations("s")] == ["m1"]


def test_an_id_twice_in_one_bulk(db):
    def message(msg_id, number, **times):
        return {
            "conv_id": "c",
            "msg_id": msg_id,
            "msg_type": "output",
            "agents": [],
            "actions": [],
            "content": number,
            **times,
        }

    db.create_session("s", updated_at=0)
    db.add_or_update_msgs_to_conv("s", [message("known", 0, created_at=1, updated_at=1)])
    db.add_or_update_msgs_to_conv(
        "s",
        [
            message("b", 1, created_at=10, updated_at=90),
            message("a", 2, created_at=20, updated_at=2),
            message("known", 3, updated_at=3),
            message("b", 4, updated_at=4),
            message("a", 5, created_at=50, updated_at=5),
            message("known", 6, created_at=60, updated_at=6),
            message("known", 7, updated_at=7),
        ],
    )
    found = [
        (m["msg_id"], m["content"], m["created_at"], m["updated_at"])
        for m in db.get_conversations("s")
    ]
    assert found == [("known", 7, 60, 7), ("b", 4, 10, 4), ("a", 5, 50, 5)]
    assert db.get_session("s")["updated_at"] == 90


def test_a_bulk_keeps_the_created_at_that_it_does_not_give(db):
    messages = [
        {
            "conv_id": None,
            "msg_id": f"m{number}",
            "msg_type": "",
            "agents": [],
            "actions": [],
            "content": number,
            "created_at": number,
        }
        for number in range(6)
    ]
    db.create_session("s")
    db.add_or_update_msgs_to_conv("s", messages)
    for number, message in enumerate(messages):
        message["created_at"] = 100 + number if number % 2 else None
    db.add_or_update_msgs_to_conv("s", messages[::-1])
    found = [m["created_at"] for m in db.get_conversations("s")]
    assert found == [0, 101, 2, 103, 4, 105]


def test_a_session_that_vanishes_inside_the_statement_is_not_found(place, db):
    db.create_session("s")
    with place.connect() as connection:
        connection.execute(
            """
            CREATE FUNCTION vanish() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                DELETE FROM director_sessions;
                RETURN NEW;
            END $$;
            CREATE TRIGGER vanish BEFORE INSERT ON director_conversations
                FOR EACH ROW EXECUTE FUNCTION vanish();
            """
        )
    with pytest.raises(SessionNotFoundError):
        upsert(db, "m1")


def test_a_deadlock_is_tried_again(place, new_db):
    """Somebody's trigger makes us lock a second session, and somebody's SQL does so crosswise."""
    # The server looks for a deadlock on behalf of whoever is out of patience first: of us.
    impatient = new_db(f"{place.dsn}?options=-c%20deadlock_timeout%3D10ms")
    impatient.create_session("s")
    impatient.create_session("t")
    stop = threading.Event()

    def contrary():
        with place.connect() as connection:
            while not stop.is_set():
                connection.execute("BEGIN")
                # On a busy machine it may be this one that the server ends, after a second.
                with contextlib.suppress(psycopg.errors.DeadlockDetected):
                    connection.execute(LOCK.replace("'s'", "'t'"))
                    connection.execute(LOCK)
                connection.execute("COMMIT")

    with place.connect() as connection:
        connection.execute(
            """
            CREATE FUNCTION entangle() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM FROM director_sessions WHERE session_id = 't' FOR UPDATE;
                RETURN NEW;
            END $$;
            CREATE TRIGGER entangle BEFORE INSERT ON director_conversations
                FOR EACH ROW EXECUTE FUNCTION entangle();
            """
        )
        thread = threading.Thread(target=contrary)
        thread.start()
        deadline = time.monotonic() + 60
        written = seen = 0
        try:
            # Whether they meet is chance, and the server's statistics come a little late.
            while not seen and time.monotonic() < deadline:
                for _ in range(50):
                    upsert(impatient, f"m{written}")
                    written += 1
                (seen,) = connection.execute(
                    "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
                ).fetchone()
        finally:
            stop.set()
            thread.join()
        places = connection.execute(
            "SELECT count(*), count(DISTINCT seq) FROM director_conversations"
        ).fetchone()
    assert seen > 0
    assert places == (written, written)


def test_a_statement_timeout_is_told(place, new_db, pool):
    slow = new_db(place.dsn, statement_timeout=0.2)
    slow.create_session("s")
    with place.connect() as connection:
        connection.execute("BEGIN")
        connection.execute(LOCK)
        with pytest.raises(BackendUnavailableError, match="statement timeout") as caught:
            upsert(slow, "m1")
        connection.execute("COMMIT")
    assert (caught.value.retryable, caught.value.maybe_applied) == (True, False)
    upsert(slow, "m1")
    assert len(slow.get_conversations("s")) == 1
