"""What callers may hand over as a payload or a name, and that its own code harms nobody."""

from __future__ import annotations

import base64
import collections
import dataclasses
import datetime as dt
import enum
import re
import types
import uuid
from decimal import Decimal
from pathlib import PurePosixPath

import numpy as np
import pytest

from director_db import InvalidRecordError
from director_db.checks import lookup_id, message_rows
from director_db.payload import decode_payload, encode_payload
from director_db.records import message_records
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


@pytest.mark.parametrize("value", [np.array([1, 2]), NoTruth(), {"a": NoTruth()}], ids=type)
def test_what_has_no_form_is_refused_without_asking_it(value):
    with pytest.raises(InvalidRecordError, match="JSON has no form for"):
        encode_payload(value, "content")


def test_a_list_that_does_not_say_whether_it_is_empty():
    assert "[]" == encode_payload(ListWithoutTruth(), "content")
    assert "[1]" == encode_payload(ListWithoutTruth([1]), "content")


@pytest.mark.parametrize("odd", [np.array(["s", "t"]), NoTruth(), 5, None], ids=type)
def test_every_place_of_a_value_is_checked_without_asking_it(odd):
    with SQLiteDB(":memory:") as db:
        db.create_session("s")
        for write in (
            lambda: db.create_session(odd),
            # As a key None is not odd: the context itself is the list then (CTX-4).
            lambda: db.append_context_messages("s", [], key=5 if odd is None else odd),
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
        return ("s", None, "m", "t", agents, actions, content, None, 1, 2, metadata, None)

    records = message_records([row(*plain), row(*payloads), row(*plain)])
    fields = ("agents", "actions", "content", "metadata")
    expected = [list(map(decode_payload, texts)) for texts in (plain, payloads, plain)]
    assert expected == [[record[name] for name in fields] for record in records]
    assert odd == records[1][fields[field]]


@dataclasses.dataclass
class Part:
    text: str


class Model:
    """As pydantic's: a class that can dump itself."""

    def model_dump(self, mode="python"):
        return {"mode": mode}

    def __iter__(self):
        return iter(())


class Tone(enum.Enum):
    WARM = 1


REMEDIES = [
    (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "datetime.datetime: use its .isoformat(), or int("),
    (dt.date(2026, 1, 1), "datetime.date: use its .isoformat()"),
    (dt.timedelta(1), "datetime.timedelta: use its .total_seconds()"),
    (uuid.UUID(int=1), "uuid.UUID: use str(value)"),
    (Decimal("1.10"), "decimal.Decimal: use str(value) to keep every digit, or float(value)"),
    (b"\xff", "bytes: use base64.b64encode(value).decode(), or value.decode() if it is UTF-8 text"),
    (bytearray(b"a"), "bytearray: use base64.b64encode(value).decode()"),
    ({1}, "set: use sorted(value), or list(value)"),
    (frozenset(), "frozenset: use sorted(value), or list(value)"),
    (Part("a"), "Part: use dataclasses.asdict(value)"),
    (Model(), 'Model: use its .model_dump(mode="json")'),
    (Tone.WARM, "Tone: use its .value"),
    (PurePosixPath("a"), "PurePosixPath: use str(value)"),
    (ValueError("a"), "ValueError: use str(value)"),
    (np.float32(1), "numpy.float32: use its .item()"),
    (np.int64(1), "numpy.int64: use its .item()"),
    (np.bool_(1), "numpy.bool: use its .item()"),
    (np.array([1, 2]), "numpy.ndarray: use its .tolist()"),
    (np.datetime64("2026-01-01"), "numpy.datetime64: use str(value)"),
    ({"a": 1}.keys(), "dict_keys: use list(value)"),
    (iter([1]), "list_iterator: use list(value)"),
    (collections.UserDict(a=1), "UserDict: use dict(value)"),
    (types.MappingProxyType({}), "mappingproxy: use dict(value)"),
    (types.SimpleNamespace(a=1), "types.SimpleNamespace: use vars(value)"),
    (object(), "object: make a dict, a list, a text or a number of it"),
    (Part, "type: make a dict, a list, a text or a number of it"),
]


@pytest.mark.parametrize(("value", "told"), REMEDIES, ids=[told for _, told in REMEDIES])
def test_a_refusal_says_what_to_do(value, told):
    with pytest.raises(InvalidRecordError) as refused:
        encode_payload([{"x": value}], "content")
    reason = str(refused.value)
    assert reason.startswith("content[0].x: JSON has no form for ")
    assert told in reason


def test_what_is_advised_can_be_stored():
    for value, told in REMEDIES:
        advice = re.split(", or| to ", told.partition(": use ")[2])[0]
        if not advice:
            continue
        expression = advice.replace("its ", "value")
        names = {"value": value, "base64": base64, "dataclasses": dataclasses}
        encode_payload(eval(expression, names), "content")  # noqa: S307


def test_a_refused_time_and_a_refused_id_say_what_to_do():
    about_times = "created_at: a time is int seconds since the epoch, not"
    with SQLiteDB(":memory:") as db:
        for write, told in (
            (
                lambda: db.create_session("s", created_at=dt.datetime.now(dt.UTC)),
                f"{about_times} datetime: use int(value.timestamp())",
            ),
            (
                lambda: db.create_session("s", created_at=1.5),
                f"{about_times} float: use int(value)",
            ),
            (
                lambda: db.create_session(uuid.UUID(int=1)),
                "session_id: a str, not UUID: use str(value)",
            ),
            (lambda: db.create_session(b"s"), "session_id: a str, not bytes"),
        ):
            with pytest.raises(InvalidRecordError) as refused:
                write()
            assert told == str(refused.value)


def test_a_path_is_spelled_alike_by_all_who_find_a_fault():
    nan = float("nan")
    with SQLiteDB(":memory:") as db:
        db.create_session("s")
        for key, spelled in (
            ("é b", '["é b"]'),
            ("\ud800", '["\\ud800"]'),
            ("é\n", '["\\u00e9\\n"]'),
        ):
            for bad in (nan, object()):
                with pytest.raises(InvalidRecordError) as refused:
                    db.add_or_update_context_msg("s", {key: [bad]})
                assert f"context_messages{spelled}[0]" == refused.value.path
