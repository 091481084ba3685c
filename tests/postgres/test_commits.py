"""What is known of a transaction whose COMMIT failed, and what is done about it.

A sharded server answers the COMMIT with an error of its own (XX000) where the one that has the
shard is lost in the middle of it. Here a trigger says so at the same moment, and a plain server is
taken for a sharded one.
"""

from __future__ import annotations

import pytest

from director_db import BackendUnavailableError, ConfigurationError
from director_db_postgres.pipeline import PipelinedConnection

# The sequence is not rolled back, so that it counts every commit that failed.
FAIL_IN_COMMIT = """
    CREATE SEQUENCE failures;
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('failures') <= {times} THEN
            RAISE EXCEPTION 'lost' USING ERRCODE = '{state}';
        END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE OR DELETE ON {table}
        DEFERRABLE INITIALLY {when} FOR EACH ROW EXECUTE FUNCTION fail();
"""
MANY = 1_000_000


@pytest.fixture
def is_sharded(monkeypatch):
    always = property(lambda _: True, lambda _, __: None)
    monkeypatch.setattr(PipelinedConnection, "is_sharded", always)


@pytest.fixture
def fail(place):
    def fail(times, state="XX000", table="director_conversations", when="DEFERRED"):
        statement = FAIL_IN_COMMIT.format(times=times, state=state, table=table, when=when)
        with place.connect() as admin:
            admin.execute(statement)

    return fail


@pytest.fixture
def tries(place):
    def tries():
        with place.connect() as admin:
            return admin.execute("SELECT last_value FROM failures").fetchone()[0]

    return tries


@pytest.fixture
def db(place, new_db):
    db = new_db(place.dsn, retry_deadline=1)
    db.create_session("s")
    upsert(db, "m")
    db.append_context_messages("s", [1])
    return db


def upsert(db, msg_id):
    db.add_or_update_msg_to_conv("s", "c", msg_id, "output", [], [], [])


@pytest.mark.usefixtures("is_sharded")
def test_an_upsert_is_sent_again(db, fail, tries):
    fail(times=2)
    upsert(db, "m2")
    assert 3 == tries()
    assert ["m", "m2"] == [message["msg_id"] for message in db.get_conversations("s")]


@pytest.mark.usefixtures("is_sharded")
def test_an_upsert_that_fails_for_good_is_in_doubt(db, fail):
    fail(times=MANY)
    with pytest.raises(BackendUnavailableError, match="lost in the middle of a commit") as caught:
        upsert(db, "m2")
    assert (True, True) == (caught.value.retryable, caught.value.maybe_applied)


@pytest.mark.usefixtures("is_sharded")
def test_a_delete_is_not_sent_again(db, fail, tries):
    fail(times=MANY)
    with pytest.raises(BackendUnavailableError) as caught:
        db.delete_message("s", "m")
    assert (True, True) == (caught.value.retryable, caught.value.maybe_applied)
    assert 1 == tries()


@pytest.mark.usefixtures("is_sharded")
def test_an_append_looks_whether_it_is_stored(db, fail, tries):
    fail(times=MANY, table="director_context_items")
    with pytest.raises(BackendUnavailableError) as caught:
        db.append_context_messages("s", [2])
    assert caught.value.maybe_applied is True
    assert 1 == tries()


@pytest.mark.usefixtures("is_sharded")
def test_what_fails_before_the_commit_is_not_stored(db, fail, tries):
    """The connection to a shard is lost: nothing of the transaction is there, and all is tried."""
    fail(times=2, state="08006", when="IMMEDIATE")
    assert db.delete_message("s", "m") is True
    assert 3 == tries()


def test_on_a_plain_server_the_answer_to_a_commit_is_no_doubt(db, fail, tries):
    fail(times=MANY)
    with pytest.raises(BackendUnavailableError, match="see its log") as caught:
        db.delete_message("s", "m")
    assert (False, False) == (caught.value.retryable, caught.value.maybe_applied)
    assert 1 == tries()


@pytest.mark.parametrize("warm", [0, 1])
def test_what_the_server_does_not_support_is_not_tried_all_over_the_pool(
    place, new_db, fail, tries, warm
):
    db = new_db(place.dsn, retry_deadline=1, pool_size=8)
    db.create_session("s")
    for number in range(warm):
        upsert(db, f"m{number}")
    fail(times=MANY, state="0A000", when="IMMEDIATE")
    with pytest.raises(ConfigurationError, match="does not do what is needed"):
        upsert(db, "m2")
    # A statement that was prepared before may have been planned for other tables.
    assert 1 + warm == tries()
