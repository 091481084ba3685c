"""Servers whose encoding is not UTF-8."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director_db import DeleteResult, InvalidRecordError
from director_db.payload import decode_payload, encode_payload, payload_bytes
from director_db_postgres.encoding import to_ascii

VALUE = [{"é": "naïve 日本 \U0001f600 \0 \x7f \\u00e9 \"'", "z": 1e16, "a": -0.0}, "\ud800", "߿"]


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_the_ascii_form_stands_for_the_same_value(value):
    text = to_ascii(encode_payload(value, "value"))
    assert text.isascii()
    assert decode_payload(text) == value
    assert to_ascii(text) == text


def test_the_ascii_form_has_lower_case_pairs():
    assert to_ascii('"a\U0001f600é\\n"') == '"a\\ud83d\\ude00\\u00e9\\n"'


@pytest.fixture(params=["LATIN1", "SQL_ASCII", "EUC_JP", "UTF8"])
def encoding(request):
    return request.param


@pytest.fixture
def place_of_db(new_place, encoding):
    return new_place(encoding)


@pytest.fixture
def db(place_of_db, new_db):
    return new_db(place_of_db.dsn)


def test_values_come_back(db):
    db.create_session("s", metadata=VALUE)
    db.add_or_update_msg_to_conv("s", "c", "m", "input", VALUE, VALUE, VALUE, metadata=VALUE)
    db.add_or_update_msgs_to_conv(
        "s",
        [
            {
                "conv_id": "c",
                "msg_id": msg_id,
                "msg_type": "",
                "agents": VALUE,
                "actions": [],
                "content": VALUE,
            }
            for msg_id in "ab"
        ],
    )
    db.add_or_update_context_msg("s", VALUE, metadata=VALUE)
    db.update_session("s", metadata=[VALUE])
    assert db.get_session("s")["metadata"] == [VALUE]
    assert [m["content"] for m in db.get_conversations("s")] == [VALUE] * 3
    assert json.dumps(db.get_message("s", "m")["agents"]) == json.dumps(VALUE)
    assert db.get_context("s")["context"] == VALUE


def test_a_context_in_parts(db, new_db, place_of_db):
    """Its items take the ASCII form; its length is that of the UTF-8 form all the same."""
    db.create_session("s")
    value = {"é": [{"n": "naïve"}, "\U0001f600"], "日本": 1e16}
    db.add_or_update_context_msg("s", value)
    value["é"].append("ü")
    db.add_or_update_context_msg("s", value)
    value["é"] += ["日", []]
    assert db.append_context_messages("s", ["日", []], key="é") == 5
    value["é"][1] = "ß"
    db.add_or_update_context_msg("s", value)
    other = new_db(place_of_db.dsn)
    value["é"].append("other")
    assert other.append_context_messages("s", ["other"], key="é") == 6
    assert json.dumps(db.get_context_messages("s")) == json.dumps(value)
    with place_of_db.connect() as connection:
        stored = connection.execute(
            "SELECT list_len, bytes FROM director_context_messages"
        ).fetchone()
        items = connection.execute("SELECT count(*) FROM director_context_items").fetchone()
    assert stored == (6, payload_bytes(encode_payload(value, "value")))
    assert items == (6,)


def test_an_id_that_the_server_cannot_hold_is_refused(db, encoding):
    db.create_session("s")
    db.add_or_update_msg_to_conv("s", "c", "m", "input", [], [], [])
    possible = encoding in {"UTF8", "SQL_ASCII"}
    name = "\U0001f600"
    writes = [
        lambda: db.create_session(name),
        lambda: db.add_or_update_msg_to_conv("s", "c", name, "input", [], [], []),
        lambda: db.add_or_update_msg_to_conv("s", "c", "m", name, [], [], []),
        lambda: db.update_session("s", video_id=name),
    ]
    for write in writes:
        if possible:
            write()
        else:
            with pytest.raises(InvalidRecordError, match="encoding"):
                write()
    assert db.get_session(name).get("session_id") == (name if possible else None)
    assert db.get_message("s", name).get("msg_id") == (name if possible else None)
    assert len(db.get_sessions(video_id=name)) == possible
    ids = ["m", name] if possible else ["m"]
    assert [m["msg_id"] for m in db.get_messages("s", [name, "none", "m"])] == ids
    assert db.get_messages(name, [name, "m"]) == []
    for part, value in (("conv_id", name), ("msg_type", name)):
        found = db.get_conversations("s", **{part: value}, after="m", limit=1)
        assert found == list(db.iter_conversations("s", **{part: value}, page=1))[1:] == []
        with pytest.raises(InvalidRecordError, match="there is no message"):
            db.get_conversations("s", **{part: value}, before="none")
        assert len(db.get_conversations("s", **{part: value})) == (possible and part == "msg_type")
    assert db.delete_message("s", name) is possible
    assert db.pop_message("s", conv_id=name) is None
    assert db.delete_messages_after("nobody", name) == 0
    with pytest.raises(InvalidRecordError, match="msg_id: there is no message"):
        db.delete_messages_after("s", name)
    assert db.delete_session(name).success is possible
    assert db.get_conversations(name) == []
    assert [m["msg_id"] for m in db.get_conversations("s")] == ["m"]


def test_health_tells_of_it(db, encoding):
    warned = any(encoding in warning for warning in db.health().warnings)
    assert warned is (encoding != "UTF8")


def test_an_id_of_the_servers_own_encoding(new_place, new_db):
    db = new_db(new_place("LATIN1").dsn)
    db.create_session("é")
    assert db.get_session("é")["session_id"] == "é"
    assert db.delete_session("é") == DeleteResult(
        success=True, failed_components=["conversation", "context"]
    )


def test_a_cursor_that_the_server_cannot_write_is_not_in_the_session(new_place, new_db):
    db = new_db(new_place("LATIN1").dsn)
    db.create_session("s")
    for name in ("nope", "\u65e5\u672c"):
        with pytest.raises(InvalidRecordError, match="there is no message"):
            db.get_conversations("s", after=name)
        assert db.get_conversations("none", after=name) == []
    assert db.get_conversations("\u65e5", after="nope") == []
