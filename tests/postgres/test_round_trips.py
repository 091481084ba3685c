"""One round trip for each operation, counted on the wire."""

from __future__ import annotations

import time
from contextlib import nullcontext

import psycopg
import pytest

from director_db import (
    ConflictError,
    SessionExistsError,
    SessionNotFoundError,
    session_change,
)
from director_db.session_change import merge_patch


def message(number, **fields):
    return {
        "conv_id": "c",
        "msg_id": f"m{number}",
        "msg_type": "output",
        "agents": ["a"],
        "actions": [],
        "content": [{"type": "text", "text": "x" * 1000}],
        **fields,
    }


def append_in_vain(db):
    with pytest.raises(SessionNotFoundError):
        db.append_context_messages("none", [1])


def copy_in_vain(db):
    with pytest.raises(SessionExistsError):
        db.copy_session("s", "s")


BULK = [message(number, status=None if number % 2 else "done") for number in range(50)]

OPERATIONS = {
    "create": lambda db: db.create_session("s2"),
    "create again": lambda db: db.create_session("s"),
    "session": lambda db: db.get_session("s"),
    "no session": lambda db: db.get_session("none"),
    "sessions": lambda db: db.get_sessions(),
    "page of sessions": lambda db: db.get_sessions(
        limit=1,
        before={"updated_at": 2**40, "created_at": 0, "session_id": "x"},
        video_id="v",
        collection_id="c",
    ),
    "update session": lambda db: db.update_session("s", video_id="v", metadata={}),
    "upsert": lambda db: db.add_or_update_msg_to_conv("s", **message(1)),
    "upsert anew": lambda db: db.add_or_update_msg_to_conv("s", **message(99)),
    "upsert with other types": lambda db: db.add_or_update_msg_to_conv(
        "s", **message(1, conv_id=None, status="x", created_at=2**60, updated_at=-1)
    ),
    "bulk of 50": lambda db: db.add_or_update_msgs_to_conv("s", BULK),
    "bulk of nulls": lambda db: db.add_or_update_msgs_to_conv(
        "s", [message(number, conv_id=None, created_at=1) for number in range(3)]
    ),
    "bulk of nothing": lambda db: db.add_or_update_msgs_to_conv("s", []),
    "guarded upsert": lambda db: db.add_or_update_msg_to_conv("s", **message(1), revision=2**40),
    "held back": lambda db: db.add_or_update_msg_to_conv("s", **message(1), if_absent=True),
    "guarded bulk": lambda db: db.add_or_update_msgs_to_conv(
        "s", [message(number, revision=number) for number in range(50)]
    ),
    "conversation": lambda db: db.get_conversations("s"),
    "first page": lambda db: db.get_conversations("s", limit=10),
    "page before": lambda db: db.get_conversations("s", limit=10, before="m30"),
    "page after": lambda db: db.get_conversations("s", limit=10, after="m30"),
    "page of no session": lambda db: db.get_conversations("none", limit=10, after="m30"),
    "latest of a kind": lambda db: db.get_conversations("s", limit=1, msg_type="output"),
    "conversation of a part": lambda db: db.get_conversations("s", conv_id="c"),
    "part before": lambda db: db.get_conversations("s", limit=9, conv_id="x", before="m30"),
    "part after": lambda db: db.get_conversations("s", conv_id="c", msg_type="x", after="m30"),
    "iteration": lambda db: list(db.iter_conversations("s")),
    "iteration of a part": lambda db: list(db.iter_conversations("s", conv_id="c")),
    "message": lambda db: db.get_message("s", "m3"),
    "messages by id": lambda db: db.get_messages("s", ["m3", "m2", "none"]),
    "very many by id": lambda db: db.get_messages("s", [f"m{number}" for number in range(70_000)]),
    "save context": lambda db: db.add_or_update_context_msg("s", {"reasoning": [1, "x"]}),
    "grow context": lambda db: db.add_or_update_context_msg(
        "s", {"reasoning": [1, {"role": "user"}]}
    ),
    "save another list": lambda db: db.add_or_update_context_msg("s", [1, 2, 3]),
    "save no list": lambda db: db.add_or_update_context_msg("s", 5),
    "append": lambda db: db.append_context_messages("s", [{"role": "user"}, 2]),
    "append nothing": lambda db: db.append_context_messages("s", []),
    "append to no session": append_in_vain,
    "context": lambda db: db.get_context("s"),
    "context messages": lambda db: db.get_context_messages("s"),
    "replace by 50": lambda db: db.replace_conversation("s", BULK[::-1]),
    "replace by few": lambda db: db.replace_conversation("s", [message(1, revision=1), message(2)]),
    "replace by nothing": lambda db: db.replace_conversation("s", []),
    "copy": lambda db: db.copy_session("s", f"copy {time.monotonic_ns()}"),
    "copy a part": lambda db: db.copy_session("s", f"{time.monotonic_ns()}", until="m30"),
    "copy in vain": copy_in_vain,
    "go back": lambda db: db.delete_messages_after("s", "m30"),
    "go back to the last": lambda db: db.delete_messages_after("s", "m49"),
    "pop": lambda db: db.pop_message("s"),
    "pop of a conversation": lambda db: db.pop_message("s", conv_id="c"),
    "pop nothing": lambda db: db.pop_message("s", conv_id="none"),
    "delete message": lambda db: db.delete_message("s", "m3"),
    "delete no message": lambda db: db.delete_message("s", "none"),
    "delete conversation": lambda db: db.delete_conversation("s"),
    "delete context": lambda db: db.delete_context("s"),
    "delete session": lambda db: db.delete_session("s"),
    "delete no session": lambda db: db.delete_session("none"),
}


@pytest.fixture(params=[{}, {"pooler": True}], ids=["prepared", "pooler"])
def warm(request, place, proxy, new_db):
    db = new_db(place.dsn_by(proxy.port), pool_size=1, **request.param)
    db.create_session("s", "v", "c")
    db.add_or_update_msgs_to_conv("s", BULK)
    db.add_or_update_context_msg("s", {"reasoning": [1]})
    return db


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_each_operation_takes_one_round_trip(warm, proxy, operation):
    operation(warm)
    warm.create_session("s", "v", "c")
    warm.add_or_update_msgs_to_conv("s", BULK)
    warm.add_or_update_context_msg("s", {"reasoning": [1]})
    with proxy.count() as count:
        operation(warm)
    assert 1 == count.round_trips


def test_a_first_append_and_a_long_list_take_one_round_trip(warm, proxy):
    warm.delete_context("s")
    warm.append_context_messages("s", [1])
    warm.delete_context("s")
    with proxy.count() as count:
        assert 1 == warm.append_context_messages("s", [1])
    assert 1 == count.round_trips
    warm.append_context_messages("s", [{"n": number} for number in range(3_000)])
    assert 3_001 == len(warm.get_context_messages("s")["reasoning"])
    with proxy.count() as count:
        assert 3_002 == warm.append_context_messages("s", [1])
        assert 3_002 == len(warm.get_context_messages("s")["reasoning"])
    assert 2 == count.round_trips


def test_an_append_to_a_context_that_is_a_list_takes_one_round_trip(warm, proxy):
    for start in (None, [], [message(number) for number in range(3_000)]):
        for _ in range(2):  # The first time, statements are prepared.
            warm.delete_context("s")
            if start is not None:
                warm.add_or_update_context_msg("s", start)
            with proxy.count() as count:
                length = warm.append_context_messages("s", [{"new": 1}], key=None)
            assert 1 + len(start or []) == length
        assert 1 == count.round_trips


def test_an_append_to_another_list_reads_and_saves_once(warm, proxy):
    """It tries first, as the list may be the one that is kept item by item; then it is."""
    # A statement's first time may take one more, to be prepared.
    warm.append_context_messages("s", [1])
    warm.get_context_messages("s")
    for length, expected in ((1, 3), (2, 1)):
        with proxy.count() as count:
            assert length == warm.append_context_messages("s", [length], key="chat")
        assert expected == count.round_trips


def test_a_save_after_another_writer_takes_two(warm, proxy, place, new_db):
    for expected in (2, 1):
        if expected == 2:
            new_db(place.dsn).append_context_messages("s", ["theirs"])
        with proxy.count() as count:
            warm.add_or_update_context_msg("s", {"reasoning": [1, 2]})
        assert expected == count.round_trips


def test_a_save_on_top_of_a_version_takes_one(warm, proxy):
    version = warm.add_or_update_context_msg("s", {"reasoning": [1]})
    with proxy.count() as count:
        version = warm.add_or_update_context_msg("s", {"reasoning": [1, 2]}, if_version=version)
        warm.add_or_update_context_msg("s", {"reasoning": [3]}, if_version=version)
    assert 2 == count.round_trips
    for _ in range(2):  # The first time, what reads the stored version is prepared.
        with proxy.count() as count, pytest.raises(ConflictError):
            warm.add_or_update_context_msg("s", {"reasoning": [1]}, if_version=version)
    assert 2 == count.round_trips


def test_a_change_on_top_of_what_is_stored_reads_and_writes(warm, proxy):
    warm.update_session("s", metadata={"a": 1}, merge=True)
    warm.get_session("s")
    with proxy.count() as count:
        warm.update_session("s", metadata={"b": 1}, merge=True)
    assert 2 == count.round_trips
    version = warm.get_session("s")["version"]
    for value, expected, ends in ((2, 2, nullcontext()), (3, 1, pytest.raises(ConflictError))):
        with proxy.count() as count, ends:
            warm.update_session("s", metadata={"b": value}, if_version=version)
        assert expected == count.round_trips
    assert {"b": 2} == warm.get_session("s")["metadata"]


def test_a_change_that_another_one_overtakes_reads_no_more(warm, proxy, place, new_db, monkeypatch):
    """Who is too late has what is stored now with the answer."""
    other = new_db(place.dsn)
    warm.update_session("s", metadata={"a": 1}, merge=True)
    patches = []

    def overtaken(target, patch):
        patches.append(patch)
        if len(patches) == 1:
            other.update_session("s", metadata={"theirs": 1.0, "a": [1]})
        return merge_patch(target, patch)

    monkeypatch.setattr(session_change, "merge_patch", overtaken)
    with proxy.count() as count:
        warm.update_session("s", metadata={"b": 2}, merge=True)
    assert 3 == count.round_trips
    assert {"theirs": 1.0, "a": [1], "b": 2} == warm.get_session("s")["metadata"]


def test_a_kind_of_operation_is_prepared_once(place, proxy, new_db):
    db = new_db(place.dsn_by(proxy.port), pool_size=1)
    db.create_session("s")
    db.add_or_update_msg_to_conv("s", **message(1))
    with proxy.count() as count:
        for number in (1, 200, 70_000, 2**40):
            db.add_or_update_msg_to_conv(
                "s", **message(number, status=None if number % 2 else "x", created_at=number)
            )
    assert 4 == count.round_trips


def test_opening_looks_at_the_schema_in_one_round_trip(place, proxy, new_db):
    new_db(place.dsn).create_session("s")
    with proxy.count() as opening:
        new_db(place.dsn_by(proxy.port), pooler=True).get_session("s")
    with proxy.count() as connecting:
        psycopg.connect(place.dsn_by(proxy.port)).close()
    # One statement looks at the schema, the other is the operation.
    assert 2 == opening.round_trips - connecting.round_trips
