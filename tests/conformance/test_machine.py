"""The state machine finds what is wrong, and shows it in few calls."""

from __future__ import annotations

import re

import pytest

from director_db import BaseDB, InvalidRecordError, SessionNotFoundError
from director_db.testing import Place
from director_db_conformance.expectation import NonconformityError
from director_db_conformance.model import Model
from director_db_conformance.model_machine import compare_with_model
from director_db_conformance.transcript import RecordedDB, RecordedPlace
from director_db_sqlite import SQLiteDB, sql

pytestmark = pytest.mark.sampled


@pytest.fixture
def place(tmp_path):
    place = RecordedPlace(
        Place("sqlite", {"SQLITE_DB_PATH": str(tmp_path / "x.db")}), lambda: tmp_path
    )
    yield place
    place.close()


def test_the_model_keeps_plain_values_of_a_patch():
    """What a caller gives may be a tuple, also in a patch."""
    model = Model()
    model.create_session("s1")
    for patch, stored in (((1, (2,)), [1, [2]]), ({"a": (1,)}, {"a": [1]}), (None, {})):
        model.update_session("s1", metadata=patch, merge=True)
        assert repr(stored) == repr(model.get_session("s1")["metadata"])


def test_a_conformant_backend_passes(place):
    compare_with_model([place.open(), place.open()], rounds=3, steps=20)


def test_a_moved_message_is_shown_in_few_calls(place, monkeypatch):
    # An update also takes a new place, as REPLACE does.
    moving = sql.UPSERT_MESSAGE.replace("DO UPDATE SET", "DO UPDATE SET seq = excluded.seq,")
    assert sql.UPSERT_MESSAGE != moving
    monkeypatch.setattr(sql, "UPSERT_MESSAGE", moving)
    with pytest.raises(NonconformityError) as caught:
        compare_with_model([place.open()], rounds=10, steps=40)
    assert caught.value.rule in {"MSG-3", "MSG-7"}
    calls = [line for line in caught.value.calls if "add_or_update" in line]
    assert 1 <= len(calls) <= 3
    assert len(caught.value.calls) <= 6


def test_what_one_handle_remembers_is_found_with_two(place, monkeypatch):
    select, remembered = SQLiteDB._select_session, {}

    def stale(self, session_id):
        row = select(self, session_id)
        return remembered.setdefault((self, session_id), row) if row is not None else None

    monkeypatch.setattr(SQLiteDB, "_select_session", stale)
    with pytest.raises(NonconformityError):
        compare_with_model([place.open(), place.open()], rounds=10, steps=40)


def test_a_drivers_error_is_named(place, monkeypatch):
    def fail(self, session_id):
        raise KeyError(session_id)

    monkeypatch.setattr(SQLiteDB, "_delete_messages", fail)
    with pytest.raises(NonconformityError, match="raised KeyError") as caught:
        compare_with_model([place.open()], rounds=10, steps=40)
    assert "LIF-6" == caught.value.rule


def test_a_fault_that_comes_and_goes_is_a_fault(place, monkeypatch):
    delete, failed = SQLiteDB._delete_context, []

    def once(self, session_id):
        found = delete(self, session_id)
        if found and not failed:
            failed.append(session_id)
            return False
        return found

    monkeypatch.setattr(SQLiteDB, "_delete_context", once)
    with pytest.raises(NonconformityError) as caught:
        compare_with_model([place.open()], rounds=20, steps=40)
    assert "DEL-1" == caught.value.rule


class Broken(SQLiteDB, db_type="broken"):
    def __init_subclass__(cls, **kwargs):
        # Past the hook of BaseDB, which refuses to replace a public operation.
        super(BaseDB, cls).__init_subclass__(**kwargs)


class SkipsEarlier(Broken):
    def add_or_update_msg_to_conv(self, session_id, conv_id, msg_id, *args, **kwargs):
        stored = self.get_message(session_id, msg_id)
        updated_at = kwargs.get("updated_at")
        if stored and type(updated_at) is int and updated_at < stored["updated_at"]:
            return True
        return super().add_or_update_msg_to_conv(session_id, conv_id, msg_id, *args, **kwargs)


class LeavesTheContext(Broken):
    def __init__(self, *args):
        super().__init__(*args)
        self._left = {}

    def delete_session(self, session_id):
        context = self.get_context(session_id)
        if context:
            self._left[session_id] = context
        return super().delete_session(session_id)

    def get_context(self, session_id):
        return super().get_context(session_id) or self._left.get(session_id, {})


class OneMore(Broken):
    def get_sessions(self, *, limit=None, **others):
        limit = limit + 1 if type(limit) is int and limit > 0 else limit
        return super().get_sessions(limit=limit, **others)


@pytest.fixture
def failure(tmp_path):
    def failure(kind):
        with kind(tmp_path / "x.db") as db, pytest.raises(NonconformityError) as caught:
            compare_with_model([RecordedDB(db, "db")], rounds=30, steps=30)
        return caught.value, [re.match(r"db\.(\w+)", line)[1] for line in caught.value.calls]

    return failure


def test_an_update_that_is_skipped_is_shown_in_few_calls(failure):
    error, operations = failure(SkipsEarlier)
    assert "MSG-1" == error.rule
    assert ("create_session", "get_conversations") == (operations[0], operations[-1])
    assert "add_or_update_msg_to_conv" == operations[-2]
    assert 4 == len(operations)


def test_a_context_that_is_left_is_shown_in_few_calls(failure):
    error, operations = failure(LeavesTheContext)
    assert "DEL-2" == error.rule
    assert ("create_session", "get_context") == (operations[0], operations[-1])
    assert "delete_session" == operations[-2]
    assert {"add_or_update_context_msg", "append_context_messages"} & {*operations}
    assert 4 == len(operations)


def test_a_limit_that_is_one_off_is_shown_in_few_calls(failure):
    error, operations = failure(OneMore)
    assert "SES-4" == error.rule
    limit = int(re.search(r"limit=(\d)\b", error.calls[-1])[1])
    # One session more than the limit, and nothing else.
    assert {"create_session", "copy_session"} >= {*operations[:-1]}
    assert "get_sessions" == operations[-1]
    assert limit + 2 == len(operations) <= 5


def test_the_model_refuses_without_help():
    model = Model()
    with pytest.raises(SessionNotFoundError):
        model.append_context_messages("s", [])
    model.create_session("s")
    with pytest.raises(InvalidRecordError) as caught:
        model.add_or_update_msgs_to_conv(
            "s",
            [
                {"conv_id": None, "msg_id": "a", "msg_type": "", "agents": [], "actions": [],
                 "content": [{"x y": float("inf")}]}
            ],
        )  # fmt: skip
    assert 'messages[0].content[0]["x y"]' == caught.value.path
    assert [] == model.get_conversations("s")
