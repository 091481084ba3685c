"""The machine finds what is wrong, and shows it in few calls."""

from __future__ import annotations

import pytest

from director_db import InvalidRecordError, SessionNotFoundError
from director_db.testing import Place
from director_db_conformance.expectation import NonconformityError
from director_db_conformance.machine import play_everything
from director_db_conformance.model import Model
from director_db_conformance.transcript import RecordedPlace
from director_db_sqlite import SQLiteDB, sql


@pytest.fixture
def place(tmp_path):
    place = RecordedPlace(Place("sqlite", {"SQLITE_DB_PATH": str(tmp_path / "x.db")}))
    yield place
    place.close()


def test_a_conformant_backend_passes(place):
    play_everything([place.open(), place.open()], rounds=3, steps=20)


def test_a_moved_message_is_shown_in_few_calls(place, monkeypatch):
    # An update also takes a new place, as REPLACE does.
    moving = sql.UPSERT_MESSAGE.replace("DO UPDATE SET", "DO UPDATE SET seq = excluded.seq,")
    assert sql.UPSERT_MESSAGE != moving
    monkeypatch.setattr(sql, "UPSERT_MESSAGE", moving)
    with pytest.raises(NonconformityError) as caught:
        play_everything([place.open()], rounds=10, steps=40)
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
        play_everything([place.open(), place.open()], rounds=10, steps=40)


def test_a_drivers_error_is_named(place, monkeypatch):
    def fail(self, session_id):
        raise KeyError(session_id)

    monkeypatch.setattr(SQLiteDB, "_delete_messages", fail)
    with pytest.raises(NonconformityError, match="raised KeyError") as caught:
        play_everything([place.open()], rounds=10, steps=40)
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
        play_everything([place.open()], rounds=20, steps=40)
    assert "DEL-1" == caught.value.rule


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
