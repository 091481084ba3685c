"""A caller written for the system that ours is compatible with, after changing its imports."""

from __future__ import annotations

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import pytest

from director_db import BaseDB, DBType, load_db
from director_db_sqlite import SQLiteDB


class MsgStatus(str, Enum):
    progress = "progress"
    success = "success"


class MsgType(str, Enum):
    input = "input"
    output = "output"


class Session:
    """Keeps much more than a session's own fields, and passes all of it on."""

    def __init__(self, db, session_id="", conv_id="", video_id=None, collection_id=None, **kwargs):
        self.db: BaseDB = db
        self.session_id = session_id
        self.conv_id = conv_id
        self.video_id = video_id
        self.collection_id = collection_id
        self.reasoning_context = []
        self.state = {"lock": object()}
        self.output_message = object()
        self.agents_registry = kwargs
        self.created_at = None

    def create(self):
        self.db.create_session(**self.__dict__)

    def say(self, msg_id, msg_type, content, status, **more):
        self.db.add_or_update_msg_to_conv(
            session_id=self.session_id,
            conv_id=self.conv_id,
            msg_id=msg_id,
            msg_type=msg_type,
            agents=[],
            actions=[],
            content=content,
            status=status,
            **more,
        )

    def save_context(self):
        context = {"reasoning": [message.copy() for message in self.reasoning_context]}
        self.db.add_or_update_context_msg(self.session_id, context)

    def delete(self):
        return self.db.delete_session(self.session_id)


@pytest.fixture(autouse=True)
def at_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_a_session_from_start_to_end():
    db = load_db(os.getenv("DB_TYPE", DBType.SQLITE))
    assert db.get_context_messages("") == {}
    assert db.health_check() is True
    session = Session(db, str(uuid.uuid4()), "", "m-1", "c-1", other="x")
    session.create()
    session.create()
    session.say("in", MsgType.input, [{"type": "text", "text": "hi"}], MsgStatus.success)
    for number in range(5):
        content = [{"type": "text", "status": MsgStatus.progress, "text": "so far" * number}]
        session.say(
            "out", MsgType.output, content, MsgStatus.progress, session=session, is_new=False
        )
        session.reasoning_context.append({"role": "assistant", "content": str(number)})
        session.save_context()
    session.say("out", MsgType.output, [{"status": MsgStatus.success}], MsgStatus.success)
    stored = db.get_conversations(session.session_id)
    assert [("in", "input", "success"), ("out", "output", "success")] == [
        (message["msg_id"], message["msg_type"], message["status"]) for message in stored
    ]
    assert [{"status": "success"}] == stored[1]["content"]
    assert "" == stored[1]["conv_id"]
    context = db.get_context_messages(session.session_id).get("reasoning", [])
    assert list("01234") == [message["content"] for message in context]
    success, failed_components = session.delete()
    assert success
    assert [] == failed_components
    success, failed_components = db.delete_session(session.session_id)
    assert not success
    assert ["conversation", "context", "session"] == failed_components


def test_positional_calls():
    db = SQLiteDB("director.db")
    assert (DBType.SQLITE, "director.db") == (db.db_type, db.db_path)
    now = int(time.time())
    db.create_session("s", "v", "c", now, now, {"a": 1})
    db.add_or_update_msg_to_conv(
        "s", "conv", "m", "input", ["agent"], ["act"], [{"a": 1}], "success", now, now, {"b": 2}
    )
    db.add_or_update_context_msg("s", [{"role": "user"}], now, now, {"c": 3})
    assert {"a": 1} == db.get_session("s")["metadata"]
    assert ["s"] == [session["session_id"] for session in db.get_sessions()]
    assert ["agent"] == db.get_conversations("s")[0]["agents"]
    assert [{"role": "user"}] == db.get_context_messages("s")
    assert db.delete_conversation("s") is True
    assert db.delete_context("s") is True
    assert (True, ["conversation", "context"]) == db.delete_session("s")
    db.close()


def test_load_db_in_every_request_of_many_threads():
    load_db().create_session("s")

    def request(number):
        db = load_db()
        db.add_or_update_msg_to_conv("s", "", f"m{number}", "input", [], [], [number], "success")
        return [message["content"] for message in db.get_conversations("s")].count([number])

    with ThreadPoolExecutor(16) as pool:
        assert [1] * 400 == list(pool.map(request, range(400)))
    assert 400 == len(load_db().get_conversations("s"))
