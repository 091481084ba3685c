"""What callers may hand over as a payload or a name, and that its own code harms nobody."""

from __future__ import annotations

import numpy as np
import pytest

from director_db import InvalidRecordError
from director_db.payload import decode_payload, encode_payload
from director_db.records import lookup_id, message_records, message_rows
from director_db_sqlite import SQLiteDB


class NoTruth:
    def __bool__(self):
        raise RuntimeError


class ListWithoutTruth(list):
    def __bool__(self):
        raise RuntimeError


class TextWithoutLength(str):
    __slots__ = ()

    def __len__(self):
        raise RuntimeError


MESSAGE = {"conv_id": "", "msg_id": "m", "msg_type": "", "agents": [], "actions": []}


@pytest.mark.parametrize("value", [np.array([1, 2]), NoTruth(), {"a": NoTruth()}], ids=repr)
def test_what_has_no_form_is_refused_without_asking_it(value):
    with pytest.raises(InvalidRecordError, match="JSON has no form for"):
        encode_payload(value, "content")


def test_a_list_that_does_not_say_whether_it_is_empty():
    assert "[]" == encode_payload(ListWithoutTruth(), "content")
    assert "[1]" == encode_payload(ListWithoutTruth([1]), "content")


@pytest.mark.parametrize("odd", [np.array(["s", "t"]), NoTruth(), 5, None], ids=repr)
def test_every_place_of_a_value_is_checked_without_asking_it(odd):
    with SQLiteDB(":memory:") as db:
        db.create_session("s")
        for write in (
            lambda: db.create_session(odd),
            lambda: db.append_context_messages("s", [], key=odd),
            lambda: db.add_or_update_msgs_to_conv("s", [{**MESSAGE, "msg_id": odd, "content": 1}]),
            lambda: db.add_or_update_msgs_to_conv(
                "s", [{**MESSAGE, "session_id": odd, "content": 1}]
            ),
        ):
            with pytest.raises(InvalidRecordError):
                write()
        assert {} == db.get_session(odd)
        assert [] == db.get_conversations(odd)
        assert not db.delete_conversation(odd)


def test_an_id_that_does_not_say_how_long_it_is():
    assert "s" == lookup_id(TextWithoutLength("s"))
    rows = message_rows("s", [{**MESSAGE, "session_id": TextWithoutLength("s"), "content": 1}])
    assert 1 == len(rows)


@pytest.mark.parametrize(
    "odd", ["\ud83d\ude00", "\ud83d", 10**4000, {"\udc00": ["\ud800", "é"]}], ids=ascii
)
@pytest.mark.parametrize("field", range(4))
def test_one_odd_payload_among_plain_ones_in_a_page(odd, field):
    plain = ["[]", '["é"]', '{"k":1.0}', "{}"]
    payloads = [*plain]
    payloads[field] = encode_payload(odd, "x")

    def row(agents, actions, content, metadata):
        return ("s", None, "m", "t", agents, actions, content, None, 1, 2, metadata)

    records = message_records([row(*plain), row(*payloads), row(*plain)])
    fields = ("agents", "actions", "content", "metadata")
    expected = [list(map(decode_payload, texts)) for texts in (plain, payloads, plain)]
    assert expected == [[record[name] for name in fields] for record in records]
    assert odd == records[1][fields[field]]
