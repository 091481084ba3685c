"""What the operations of `BaseDB` do that no conformance clause can show of every backend."""

from __future__ import annotations

import time

import pytest

from director_db import InvalidRecordError
from director_db_sqlite import SQLiteDB


@pytest.fixture
def db(tmp_path):
    with SQLiteDB(tmp_path / "director.db") as instance:
        instance.create_session("s1")
        yield instance


def test_a_close_that_was_interrupted_can_be_done_again(db, monkeypatch):
    release = SQLiteDB._close
    calls = []

    def interrupted(self):
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        release(self)

    monkeypatch.setattr(SQLiteDB, "_close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        db.close()
    db.close()
    db.close()
    assert [db, db] == calls


def test_subclasses_that_show_other_contents_than_they_hold(db):
    class Shown(list):
        def __iter__(self):
            return iter([{1: 2}])

    class Pairs(dict):
        def items(self):
            return [(1, "x"), ("1", "y")]

    for value in (Shown([1]), Pairs(a=1)):
        with pytest.raises(InvalidRecordError, match="key"):
            db.add_or_update_context_msg("s1", [value])
    assert {} == db.get_context("s1")


def test_a_payload_that_changes_while_it_is_stored(db):
    class Growing(dict):
        def items(self):
            for number, pair in enumerate(dict.items(self)):
                self[f"new {number}"] = 1
                yield pair

    with pytest.raises(InvalidRecordError) as caught:
        db.add_or_update_context_msg("s1", Growing(a=1))
    assert "context_messages" == caught.value.path
    assert {} == db.get_context("s1")


class Unshowable:
    def __repr__(self):
        message = "it cannot be shown"
        raise RuntimeError(message)


@pytest.mark.parametrize("cursor", [10**5000, Unshowable()], ids=["long int", "no repr"])
def test_a_refusal_needs_no_repr_of_what_it_refuses(db, cursor):
    with pytest.raises(InvalidRecordError) as caught:
        db.get_conversations("s1", after=cursor)
    assert f"after: there is no message of type {type(cursor).__name__} in the session" == str(
        caught.value
    )
    message = {"conv_id": "c", "msg_id": "m", "msg_type": "t", "agents": 0, "actions": 0}
    with pytest.raises(InvalidRecordError) as caught:
        db.add_or_update_msgs_to_conv("s1", [message | {"content": 0, "session_id": cursor}])
    assert "messages[0].session_id: belongs to another session, not to 's1'" == str(caught.value)


def test_lists_that_hold_one_another_without_end_are_refused(db):
    value = ["x" * 100]
    for _ in range(100):
        value = [value] * 1000
    with pytest.raises(InvalidRecordError, match="64 MiB"):
        db.add_or_update_context_msg("s1", value)


def test_health_tells_of_a_time_that_keeps_a_session_on_top(db):
    assert [] == [text for text in db.health().warnings if "on top" in text]
    planned = int(time.time()) + 30 * 24 * 3600
    db.create_session("planned", updated_at=planned)
    assert [] == [text for text in db.health().warnings if "on top" in text]
    milliseconds = planned * 1000 - 10**11
    db.add_or_update_msg_to_conv("s1", "c", "m", "t", [], [], "x", updated_at=milliseconds)
    (told,) = [text for text in db.health().warnings if "on top" in text]
    assert told == (
        f"The session 's1' is on top of the list, as its updated_at {milliseconds:,} is far in the "
        "future. Times are in seconds; as milliseconds it would be of our time. update_session() "
        "can set another."
    )
    # What is written to it later does not help, and what the text says does.
    db.add_or_update_msg_to_conv("s1", "c", "m", "t", [], [], "y")
    assert ["s1", "planned"] == [session["session_id"] for session in db.get_sessions()]
    db.update_session("s1")
    assert [] == [text for text in db.health().warnings if "on top" in text]
    db.update_session("s1", updated_at=2**63 - 1)
    (told,) = [text for text in db.health().warnings if "on top" in text]
    assert "Times are in seconds. update_session()" in told
