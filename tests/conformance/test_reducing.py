"""What the machine finds, it shows in the least calls and with the simplest arguments."""

from __future__ import annotations

import re

import pytest

from director_db import BaseDB
from director_db_conformance.expectation import NonconformityError
from director_db_conformance.machine import play_everything
from director_db_conformance.transcript import RecordedDB
from director_db_sqlite import SQLiteDB


class Broken(SQLiteDB, db_type="broken"):
    def __init_subclass__(cls, **kwargs):
        # Past the hook of BaseDB, which refuses to replace a public operation.
        super(BaseDB, cls).__init_subclass__(**kwargs)


class SkipsEarlier(Broken):
    def add_or_update_msg_to_conv(self, session_id, conv_id, msg_id, *args, **kwargs):
        stored = self.get_message(session_id, msg_id)
        updated_at = kwargs.get("updated_at")
        if stored and type(updated_at) is int and updated_at < stored["updated_at"]:
            return
        super().add_or_update_msg_to_conv(session_id, conv_id, msg_id, *args, **kwargs)


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
def play(tmp_path):
    def play(kind):
        with kind(tmp_path / "x.db") as db, pytest.raises(NonconformityError) as caught:
            play_everything([RecordedDB(db, "db")], rounds=30, steps=30)
        return caught.value

    return play


def operations(error):
    return [re.match(r"db\.(\w+)", line)[1] for line in error.calls]


def test_an_update_that_is_skipped_is_shown_in_four_calls(play):
    error = play(SkipsEarlier)
    assert "MSG-1" == error.rule
    create, insert, update, read = operations(error)
    assert ("create_session", "get_conversations") == (create, read)
    assert insert in {"add_or_update_msg_to_conv", "add_or_update_msgs_to_conv"}
    assert "add_or_update_msg_to_conv" == update
    assert "updated_at=0" in error.calls[2]


def test_a_context_that_is_left_is_shown_in_four_calls(play):
    error = play(LeavesTheContext)
    assert "DEL-2" == error.rule
    create, save, delete, read = operations(error)
    assert ("create_session", "delete_session", "get_context") == (create, delete, read)
    assert save in {"add_or_update_context_msg", "append_context_messages"}


def test_a_limit_that_is_one_off_is_shown_in_three_calls(play):
    error = play(OneMore)
    assert "SES-4" == error.rule
    assert ["create_session", "create_session", "get_sessions"] == operations(error)
    assert "limit=1)" in error.calls[-1]
    assert all(", " not in line for line in error.calls[:-1])  # Nothing but the id is given.
