"""Checkpoints of LangGraph in director-db."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import math
import operator
import time
from typing import Annotated, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from director_db import BackendUnavailableError, SessionExistsError
from director_db.asyncio import AsyncDB, load_db
from director_db_integrations import checkpoint_steps
from director_db_integrations.langgraph import DirectorSaver
from director_db_sqlite import SQLiteDB


@pytest.fixture
def lite(tmp_path):
    with SQLiteDB(tmp_path / "lite.db") as db:
        yield db


def at(thread="t1", ns="", checkpoint=None):
    named = {"thread_id": thread, "checkpoint_ns": ns}
    return {"configurable": named | ({"checkpoint_id": checkpoint} if checkpoint else {})}


def put(saver, config, values, changed=None, **metadata):
    """Store a checkpoint whose channels have the version that their values count."""
    versions = {channel: f"{hash(str(value)):x}" for channel, value in values.items()}
    checkpoint = empty_checkpoint() | {"channel_values": values, "channel_versions": versions}
    new = {channel: versions[channel] for channel in (values if changed is None else changed)}
    return saver.put(config, checkpoint, {"source": "loop", "step": 1, **metadata}, new)


def name(config):
    return config["configurable"]["checkpoint_id"]


def listed(saver, config, **options):
    return [name(found.config) for found in saver.list(config, **options)]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["BaseDB", "AsyncDB"])
def test_the_suite_of_langgraph_passes(db, asynchronous):
    """All of its capabilities, and none of its tests left out."""

    @checkpointer_test(name="DirectorSaver")
    async def saver():
        yield DirectorSaver(AsyncDB(db) if asynchronous else db)

    report = asyncio.run(validate(saver))
    results = report.results.values()
    assert [] == [failure for result in results for failure in result.failures]
    assert {each.value for each in Capability} == report.results.keys()
    assert (8, 81) == (
        sum(bool(result.passed) for result in results),
        sum(result.tests_passed for result in results),
    )


def test_from_outside_a_thread_is_a_session_of_messages(db):
    saver = DirectorSaver()
    root = put(saver, at(), {"text": "short", "log": ["x" * 500]}, run_id="r1")
    saver.put_writes(root, [("text", "next")], "task-1", "~path")
    child = put(saver, at(ns="sub"), {"text": "short"})
    session = db.get_session("t1")
    assert {"framework": "langgraph"} == session["metadata"]
    messages = db.get_conversations("t1")
    kinds = ["channel", "checkpoint", "writes", "write", "namespace", "checkpoint"]
    assert kinds == [message["msg_type"] for message in messages]
    (stored,) = db.get_conversations("t1", conv_id="", msg_type="checkpoint")
    assert f"checkpoint:{name(root)}" == stored["msg_id"]
    assert {"source": "loop", "step": 1, "run_id": "r1"} == stored["content"]["metadata"]["json"]
    inside = stored["content"]["checkpoint"]["json"]
    assert {"text": "short"} == inside["channel_values"]
    (channel,) = db.get_conversations("t1", conv_id="", msg_type="channel")
    assert {"channel": "log", "value": {"json": ["x" * 500]}} == channel["content"]
    (write,) = db.get_conversations("t1", msg_type="write")
    assert {
        "checkpoint": name(root),
        "task": "task-1",
        "path": "~path",
        "index": 0,
        "channel": "text",
        "value": {"json": "next"},
    } == write["content"]
    (stored,) = db.get_conversations("t1", conv_id="sub", msg_type="checkpoint")
    assert name(child) == stored["content"]["id"]


def test_a_session_of_the_application_keeps_what_it_has(db):
    db.create_session("t1", user_id="u1", metadata={"title": "Sums"})
    put(DirectorSaver(db), at(), {"a": 1})
    session = db.get_session("t1")
    assert ("u1", {"title": "Sums"}) == (session["user_id"], session["metadata"])


# But for tuples, of which LangGraph's serialisation makes lists.
VALUES = {
    "bytes": b"\x00\xff",
    "when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    "set": {1},
    "text": "Grüße \ud83d \x00",
    "numbers": [1, 1.0, -0.0, 1e16, True, None, 2**200],
    "order": {"b": 1, "a": {}},
    "keys": {1: "one"},
    "infinite": math.inf,
    "none": None,
    "long": "x" * 10_000,
}


def test_values_come_back_as_what_they_are(db):
    saver = DirectorSaver(db)
    stored = put(saver, at(), VALUES)
    saver.put_writes(stored, list(VALUES.items()), "task-1")
    found = saver.get_tuple(at())
    assert repr(VALUES) == repr(dict(sorted_as(VALUES, found.checkpoint["channel_values"])))
    assert repr(VALUES) == repr({channel: value for _, channel, value in found.pending_writes})


def sorted_as(model, values):
    return [(key, values[key]) for key in model]


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"", "latin1"),
        ('said, as text in any language of the west: \xe9, "\\'.encode(), "latin1"),
        ((b"\0" + 14 * b"a") * 64, "latin1"),
        ((b"\0" + 14 * b"a") * 64 + b"\0", "base64"),
        (b'a"\\bcd' * 64, "latin1"),
        (b'a"\\bcd' * 64 + b"\\", "base64"),
        (bytes(range(256)), "base64"),
        ("\u6587\u5b57".encode() * 9, "base64"),
    ],
)
def test_bytes_are_a_text_where_that_is_no_longer_than_base64(db, data, form):
    saver = DirectorSaver(db)
    put(saver, at(), {"data": data})
    (stored,) = db.get_conversations("t1", msg_type="channel")
    value = stored["content"]["value"]
    assert {"type", form} == value.keys()
    assert data == saver.get_tuple(at()).checkpoint["channel_values"]["data"]
    in_base64 = base64.b64encode(data).decode()
    assert form == "base64" or len(json.dumps(value[form], ensure_ascii=False)) <= 2 + len(
        in_base64
    )
    # As all of them were stored once.
    value.pop(form)
    stored["content"]["value"] = value | {"base64": in_base64}
    db.add_or_update_msgs_to_conv("t1", [stored])
    assert data == saver.get_tuple(at()).checkpoint["channel_values"]["data"]


def test_what_json_cannot_nest_comes_back(lite):
    deep = []
    for _ in range(220):
        deep = [deep]
    saver = DirectorSaver(lite)
    put(saver, at(), {"deep": deep})
    assert {"deep": deep} == saver.get_tuple(at()).checkpoint["channel_values"]


class Reversing(CipherProtocol):
    """A cipher good enough to see what does not go through one."""

    def encrypt(self, plaintext):
        return "reversing", plaintext[::-1]

    def decrypt(self, ciphername, ciphertext):
        assert ciphername == "reversing"
        return ciphertext[::-1]


def test_with_a_cipher_no_value_is_stored_as_it_is(lite):
    saver = DirectorSaver(lite, serde=EncryptedSerializer(Reversing()))
    stored = put(saver, at(), {"small": "secret", "large": ["secret" * 100]}, note="secret")
    saver.put_writes(stored, [("small", "secret")], "task-1")
    found = saver.get_tuple(at())
    values = {"small": "secret", "large": ["secret" * 100]}
    assert values == found.checkpoint["channel_values"]
    assert [("task-1", "small", "secret")] == found.pending_writes
    text = json.dumps(lite.get_conversations("t1"))
    assert "secret" not in text
    assert '"json"' not in text


@pytest.mark.parametrize(
    "thread", ["x" * 256, "nul \x00", "\ud800", "", "é" * 255, "a:b#c", "langgraph#1"]
)
def test_every_thread_and_namespace_has_a_place(db, thread):
    saver = DirectorSaver(db)
    namespaces = ["", "child:1", "child:1|" * 40, "x" * 300, "\x00", "\ud800", "a", "b"]
    stored = [put(saver, at(thread, ns), {"ns": ns}) for ns in namespaces]
    for ns, config in zip(namespaces, stored, strict=True):
        assert config == saver.get_tuple(at(thread, ns)).config
        assert {"ns": ns} == saver.get_tuple(config).checkpoint["channel_values"]
        assert [name(config)] == listed(saver, at(thread, ns))
    everything = [found.config for found in saver.list(None)]
    assert (
        stored[::-1]
        == everything
        == [found.config for found in saver.list({"configurable": {"thread_id": thread}})]
    )
    saver.copy_thread(thread, "other")
    assert [name(each) for each in stored] == listed(
        saver, {"configurable": {"thread_id": "other"}}
    )[::-1]
    saver.delete_thread(thread)
    assert [] == listed(saver, {"configurable": {"thread_id": thread}})
    assert len(stored) == len(listed(saver, None))


def test_a_thread_is_copied_whole_and_over_no_other(db):
    saver = DirectorSaver(db)
    db.create_session("t1", user_id="u1", metadata={"title": "Sums"})
    stored = put(saver, at(), {"a": 1})
    saver.copy_thread("t1", "t2" * 200)
    (copy,) = [each for each in db.get_sessions(user_id="u1") if each["session_id"] != "t1"]
    named = {"title": "Sums", "framework": "langgraph", "thread_id": "t2" * 200}
    assert named == copy["metadata"]
    saver.copy_thread("t2" * 200, "t3")
    assert {"title": "Sums", "framework": "langgraph"} == db.get_session("t3")["metadata"]
    put(saver, at("t3"), {"a": 3})
    for thread in ("t1", "t2" * 200):
        with pytest.raises(SessionExistsError):
            saver.copy_thread("t3", thread)
        assert [name(stored)] == listed(saver, at(thread))


def test_a_namespace_without_checkpoints_has_none(db):
    saver = DirectorSaver(db)
    assert saver.get_tuple(at()) is None
    put(saver, at(), {"a": 1})
    assert saver.get_tuple(at(ns="sub")) is None
    assert saver.get_tuple(at(checkpoint="none")) is None
    assert saver.get_tuple(at("t2")) is None
    assert [] == listed(saver, at(ns="sub"))
    saver.delete_thread("t2")
    saver.copy_thread("t2", "t3")
    saver.prune(["t2"])
    assert ["t1"] == [session["session_id"] for session in db.get_sessions()]


class WatchedDB(SQLiteDB, db_type="watched"):
    """Counts how often pages of messages are read."""

    pages = 0

    def _select_messages(self, query):
        self.pages += 1
        return super()._select_messages(query)


def test_a_checkpoint_costs_what_changed(lite, monkeypatch):
    written, store = [], lite.add_or_update_msgs_to_conv

    def storing(session, messages):
        written.append(len(json.dumps(messages)))
        return store(session, messages)

    saver, large = DirectorSaver(lite), ["x" * 100_000]
    config = put(saver, at(), {"large": large, "step": 0})
    monkeypatch.setattr(lite, "add_or_update_msgs_to_conv", storing)
    for step in range(1, 6):
        config = put(saver, config, {"large": large, "step": step}, ["step"])
    assert 5 == len(written)
    assert max(written) < 2000
    values = [found.checkpoint["channel_values"] for found in saver.list(at())]
    assert [{"large": large, "step": step} for step in range(5, -1, -1)] == values


def test_a_subgraph_that_begins_does_not_look_through_the_thread(tmp_path):
    with WatchedDB(tmp_path / "watched.db") as db:
        saver = DirectorSaver(db)
        put(saver, at(), {})
        assert saver.get_tuple(at(ns="sub")) is None
        assert [] == listed(saver, at(ns="sub"))
        assert 0 == db.pages


def test_writes_are_read_in_pages_and_once(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_steps, "_PAGE", 10)
    monkeypatch.setattr(checkpoint_steps, "_WRITES", 7)
    with WatchedDB(tmp_path / "watched.db") as db:
        saver = DirectorSaver(db)
        for step in range(60):
            saver.put_writes(put(saver, at(), {}), [("n", step)], f"task-{step}")
        found = [each.pending_writes for each in saver.list(at())]
        assert [[(f"task-{step}", "n", step)] for step in range(59, -1, -1)] == found
        assert db.pages < 7 + 6 * 3  # Of checkpoints; of writes, where 60 of them are 9 pages.


def test_checkpoints_may_be_deleted_while_they_are_read(lite, monkeypatch):
    saver, read = DirectorSaver(lite), lite.get_conversations
    first, second = (put(saver, at(), {}) for _ in range(2))
    for config in (first, second):
        saver.put_writes(config, [("a", name(config))], "task-1")

    def racing(session, **query):
        if query.get("msg_type") == "write":
            lite.delete_message(session, f"writes:{name(first)}")
        return read(session, **query)

    monkeypatch.setattr(lite, "get_conversations", racing)
    found = list(saver.list(at()))
    assert [second, first] == [each.config for each in found]
    assert [("task-1", "a", name(second))] == found[0].pending_writes
    lite.add_or_update_msg_to_conv("t1", None, f"writes:{name(first)}", "writes", [], [], None)
    assert [] == saver.get_tuple(first).pending_writes


def test_of_all_namespaces_ids_say_what_was_before(lite):
    """A graph's checkpoint may be stored after those of the subgraph that it has called."""
    saver, root = DirectorSaver(lite), empty_checkpoint()
    child = put(saver, at(ns="sub"), {})
    stored = saver.put(at(), root, {}, {})
    last = put(saver, at(), {})
    assert root["id"] < name(child) < name(last)
    thread = {"configurable": {"thread_id": "t1"}}
    assert [] == listed(saver, thread, before=stored)
    assert [root["id"], name(child)] == listed(saver, thread, before=last)


def test_writes_that_come_before_their_checkpoint_are_there(db):
    """LangGraph stores both in the background, and does not wait for one of them."""
    saver = DirectorSaver(db)
    late = empty_checkpoint()
    saver.put_writes(at(checkpoint=late["id"]), [("a", 1)], "early")
    assert saver.get_tuple(at()) is None
    parent = put(saver, at(), {"a": 0})
    saver.put_writes(parent, [("a", "of the parent")], "parent")
    stored = saver.put(parent, late, {}, {})
    saver.put_writes(stored, [("a", 2)], "late")
    writes = [("early", "a", 1), ("late", "a", 2)]
    assert writes == saver.get_tuple(at()).pending_writes
    assert stored == saver.get_tuple(at()).config
    found = [each.pending_writes for each in saver.list(at())]
    assert [writes, [("parent", "a", "of the parent")]] == found


def test_a_write_is_stored_once_and_an_error_replaced(db):
    saver = DirectorSaver(db)
    stored = put(saver, at(), {})
    saver.put_writes(stored, [("a", 1), ("b", 2)], "task", "~2")
    saver.put_writes(stored, [("a", "again"), ("b", "again"), ("c", 3)], "task", "~2")
    saver.put_writes(stored, [("__error__", "first")], "other", "~1")
    saver.put_writes(stored, [("__error__", "second")], "other", "~1")
    writes = [
        ("other", "__error__", "second"),
        ("task", "a", 1),
        ("task", "b", 2),
        ("task", "c", 3),
    ]
    assert writes == saver.get_tuple(stored).pending_writes


def test_a_list_of_nothing_that_is_named_is_not_one_of_everything(lite):
    with pytest.raises(KeyError, match="configurable"):
        list(DirectorSaver(lite).list({"tags": []}))


def test_listing_reads_pages_and_finds_everything_once(lite):
    saver = DirectorSaver(lite)
    names, config, child = [], at(), at(ns="sub")
    for step in range(120):
        config = put(saver, config, {"step": step}, step=step, odd=bool(step % 2))
        saver.put_writes(config, [("n", step)] * 6, f"task-{step}")
        child = put(saver, child, {})
        names.append(name(config))
    names.reverse()
    everything = list(saver.list(at()))
    assert names == [name(found.config) for found in everything]
    for step, found in zip(range(119, -1, -1), everything, strict=True):
        assert [(f"task-{step}", "n", step)] * 6 == found.pending_writes
    assert 240 == len(listed(saver, {"configurable": {"thread_id": "t1"}}))
    assert names[:3] == listed(saver, at(), limit=3)
    assert [] == listed(saver, at(), limit=0)
    odd = {"before": at(checkpoint=names[3]), "filter": {"odd": True}}
    assert names[4::2][:40] == listed(saver, at(), limit=40, **odd)
    assert names[106:] == listed(saver, at(), before=at(checkpoint=names[105]))
    assert [names[7]] == listed(saver, at(checkpoint=names[7]))
    assert [names[7]] == listed(saver, at(checkpoint=names[7]), before=at(checkpoint=names[6]))
    assert [] == listed(saver, at(checkpoint=names[7]), before=at(checkpoint=names[7]))
    assert [] == listed(saver, at(checkpoint=names[7]), limit=0)
    assert [] == listed(saver, at(checkpoint=names[7]), filter={"step": 1})
    assert [names[7]] == listed(
        saver, {"configurable": {"thread_id": "t1", "checkpoint_id": names[7]}}
    )
    of_child = listed(saver, at(ns="sub"))
    before = {"configurable": {"checkpoint_id": names[10]}}  # As a replay of subgraphs asks.
    of_child = [each for each in of_child if each < names[10]]
    assert 109 == len(of_child)
    assert of_child == listed(saver, at(ns="sub"), before=before)
    assert of_child[:1] == listed(saver, at(ns="sub"), before=before, limit=1)


def test_a_listing_goes_on_where_checkpoints_are_deleted(lite):
    saver = DirectorSaver(lite)
    names = [name(put(saver, at(), {}, step=step)) for step in range(130)]
    listing = saver.list(at())
    found = [name(next(listing).config) for _ in range(100)]
    lite.delete_message("t1", f"checkpoint:{found[-1]}")
    assert names[::-1] == found + [name(each.config) for each in listing]


def test_the_latest_is_what_was_stored_last(lite):
    """Also where another machine's clock, and so its ids, are ahead."""
    saver = DirectorSaver(lite)
    ahead = empty_checkpoint() | {"id": "ffffffff-0000-6000-8000-000000000000"}
    config = saver.put(at(), ahead, {}, {})
    config = put(saver, config, {"a": 1})
    assert config == saver.get_tuple(at()).config
    assert [name(config), ahead["id"]] == listed(saver, at())
    assert [ahead["id"]] == listed(saver, at(), before=config)


def test_a_checkpoint_whose_answer_was_lost_is_stored_once(proxied):
    db, proxy = proxied
    saver = DirectorSaver(db)
    first = put(saver, at(), {"large": [1]})
    proxy.cut_after(0)
    second = put(saver, first, {"large": [2]})
    proxy.cut_after(0)
    saver.put_writes(second, [("a", 1)], "task-1")
    assert [second, first] == [found.config for found in saver.list(at())]
    found = saver.get_tuple(at())
    assert [("task-1", "a", 1)] == found.pending_writes
    assert [2] == found.checkpoint["channel_values"]["large"]


@pytest.mark.parametrize("losses", [[1], [2], [1, 3]])  # Stores of which the answer is lost.
def test_the_first_checkpoint_of_a_thread_outlasts_a_lost_answer(losses, tmp_path):
    stores = []

    class LosingDB(SQLiteDB, db_type="losing_langgraph"):
        def _upsert_messages(self, *args):
            stores.append(super()._upsert_messages(*args))
            if len(stores) in losses:
                raise BackendUnavailableError("lost", retryable=True, maybe_applied=True)
            return stores[-1]

    with LosingDB(tmp_path / "director.db") as db:
        saver = DirectorSaver(db)
        if losses == [1, 3]:
            with pytest.raises(BackendUnavailableError):
                put(saver, at(), {"large": [1]})
        else:
            put(saver, at(), {"large": [1]})
        assert 1 == len([*saver.list(at())])
    assert 3 == len(stores)  # The session is created once, and one answer asked for again.


def test_each_call_takes_few_round_trips(proxied):
    db, proxy = proxied
    saver = DirectorSaver(db)
    config = put(saver, at(), {"large": ["x" * 1000]})  # creates
    for call, expected in (
        (lambda: put(saver, config, {"large": ["y" * 1000], "a": 1}), 1),
        (lambda: saver.put_writes(config, [("a", 1), ("b", 2)], "task-1"), 1),
        (lambda: saver.get_tuple(at()), 2),
        (lambda: saver.get_tuple(config), 3),
        (lambda: saver.get_tuple(at(ns="sub")), 1),
        (lambda: list(saver.list(at())), 3),
        (lambda: saver.get_delta_channel_history(config=at(), channels=["d"]), 5),
        (lambda: saver.delete_thread("t1"), 1),
    ):
        with proxy.count() as count:
            call()
        assert expected == count.round_trips


def added(values, writes):
    return values + [item for write in writes for item in write]


class Sums(TypedDict):
    log: Annotated[list, DeltaChannel(added, list, snapshot_frequency=7)]
    total: Annotated[int, operator.add]


def sums(saver):
    builder = StateGraph(Sums)
    builder.add_node("one", lambda state: {"log": [f"one {state['total']}"], "total": 1})
    builder.add_node("two", lambda state: {"log": [f"two {state['total']}"], "total": 1})
    builder.add_edge(START, "one")
    builder.add_edge(START, "two")
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_delta_channels_are_rebuilt(db, durability):
    saver, memory = DirectorSaver(db), InMemorySaver()
    for _ in range(12):
        for each in (saver, memory):
            sums(each).invoke({"log": ["in"], "total": 1}, at(), durability=durability)
    expected = sums(memory).get_state(at()).values
    assert 36 == len(expected["log"])
    assert expected == sums(saver).get_state(at()).values
    states = [state.values for state in sums(saver).get_state_history(at())]
    assert [state.values for state in sums(memory).get_state_history(at())] == states
    for found in list(saver.list(at()))[::5]:
        asked = {"config": found.config, "channels": ["log", "total", "none"]}
        history = saver.get_delta_channel_history(**asked)
        assert BaseCheckpointSaver.get_delta_channel_history(saver, **asked) == history
        assert asyncio.run(saver.aget_delta_channel_history(**asked)) == history
    assert {} == saver.get_delta_channel_history(config=at(), channels=[])

    saver.copy_thread("t1", "t2")
    saver.prune(["t1"])
    assert len(listed(saver, at())) <= 8 < len(listed(saver, at("t2")))
    for thread in ("t1", "t2"):
        assert expected == sums(saver).get_state(at(thread)).values
        sums(saver).invoke({"log": ["in"], "total": 1}, at(thread))
        assert [*expected["log"], "in"] == sums(saver).get_state(at(thread)).values["log"][:37]


def test_pruning_leaves_what_the_latest_needs(db):
    saver = DirectorSaver(db)
    kept, config = ["kept" * 100], at()
    for step in range(4):
        config = put(
            saver, config, {"kept": kept, "own": [step] * 200}, None if step < 1 else ["own"]
        )
        saver.put_writes(config, [("own", step)], "task-1")
        put(saver, at(ns="sub"), {"own": [step] * 200})
    saver.prune(["t1", "none"], strategy="keep_latest")
    for ns, values in (("", {"kept": kept, "own": [3] * 200}), ("sub", {"own": [3] * 200})):
        (found,) = saver.list(at(ns=ns))
        assert values == found.checkpoint["channel_values"]
    assert [("task-1", "own", 3)] == saver.get_tuple(at()).pending_writes
    kinds = sorted(message["msg_type"] for message in db.get_conversations("t1"))
    left = ["channel"] * 3 + ["checkpoint"] * 2 + ["namespace", "write", "writes"]
    assert left == kinds
    with pytest.raises(ValueError, match="latest"):
        saver.prune(["t1"], strategy="latest")
    saver.prune(["t1"], strategy="delete")
    assert {} == db.get_session("t1")


def test_runs_are_deleted_and_no_values_of_others(db):
    saver = DirectorSaver(db)
    shared = ["shared" * 100]
    first = put(saver, at(), {"shared": shared}, run_id="r1")
    second = put(saver, first, {"shared": shared, "own": ["own" * 100]}, ["own"], run_id="r2")
    saver.put_writes(second, [("a", 1)], "task-1")
    third = put(saver, second, {"shared": shared}, [], run_id="r3")
    put(saver, at("t2"), {}, run_id="r2")
    saver.delete_for_runs(["r2", "r4"])
    assert [name(third), name(first)] == listed(saver, at())
    assert [{"shared": shared}] * 2 == [
        found.checkpoint["channel_values"] for found in saver.list(at())
    ]
    assert [] == listed(saver, at("t2"))
    kinds = [message["msg_type"] for message in db.get_conversations("t1")]
    assert ["channel", "checkpoint", "checkpoint"] == kinds


def test_what_others_call_a_checkpoint_is_none(db):
    """In a session of the application's, of another framework's, and in that of a thread."""
    saver = DirectorSaver(db)
    own = put(saver, at(), {"a": [1] * 200}, run_id="r1")
    for session, metadata in (("t1", None), ("mine", None), ("theirs", {"framework": "x"})):
        db.create_session(session, metadata=metadata)
        db.add_or_update_msg_to_conv(session, "", "m", "checkpoint", [], [], "no dict")
    assert own == saver.get_tuple(at()).config
    assert [own] == [found.config for found in saver.list(None)]
    assert [name(own)] == listed(saver, at())
    saver.delete_for_runs(["r1"])
    assert [] == [*saver.list(None)]
    assert 3 == sum(len(db.get_conversations(each)) for each in ("t1", "mine", "theirs"))


def test_forks_keep_their_own_values(db):
    """Also of a channel that both have written as often."""
    graph, long = sums(DirectorSaver(db)), "x" * 300
    graph.invoke({"log": [long], "total": 1}, at())
    base = graph.get_state(at()).config
    left = graph.update_state(base, {"log": [f"left {long}"]}, as_node="one")
    right = graph.update_state(base, {"log": [f"right {long}"]}, as_node="one")
    assert f"left {long}" == graph.get_state(left).values["log"][-1]
    assert f"right {long}" == graph.get_state(right).values["log"][-1]
    versions = {DirectorSaver(db).get_next_version("00000000000000000007.ab") for _ in range(9)}
    assert 9 == len(versions)
    assert all("00000000000000000007.f" < each < "00000000000000000009" for each in versions)
    assert DirectorSaver(db).get_next_version(None) < DirectorSaver(db).get_next_version(1)


def test_an_interrupt_is_answered_and_a_subgraph_goes_on(db):
    inner = StateGraph(Sums)
    inner.add_node("ask", lambda state: {"log": [interrupt("how many?")], "total": 1})
    inner.add_edge(START, "ask")
    outer = StateGraph(Sums)
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_edge(START, "inner")

    async def main():
        graph = outer.compile(checkpointer=DirectorSaver(load_db()))
        asked = await graph.ainvoke({"log": ["in"], "total": 1}, at())
        assert "how many?" == asked["__interrupt__"][0].value
        graph = outer.compile(checkpointer=DirectorSaver(load_db()))
        state = await graph.aget_state(at(), subgraphs=True)
        assert ("ask",) == state.tasks[0].state.next
        return await graph.ainvoke(Command(resume="seven"), at())

    assert "seven" == asyncio.run(main())["log"][-1]
    assert {"", "inner"} == {
        message["content"]["ns"].partition(":")[0]
        for message in db.get_conversations("t1", msg_type="checkpoint")
    }


def test_writes_of_processes_at_once_are_all_there(program, db):
    saver, count = DirectorSaver(db), 15
    checkpoint = empty_checkpoint()
    writers = [program("langgraph_writer", each, str(count), checkpoint["id"]) for each in "ab"]
    for writer in writers:
        assert "ready\n" == writer.stdout.readline()
    for writer in writers:
        print(file=writer.stdin, flush=True)
    stored = saver.put(at(), checkpoint, {}, {})  # Beside them, and beside their creating it.
    for writer in writers:
        assert 0 == writer.wait(300)
    writes = saver.get_tuple(stored).pending_writes
    own = sorted(value for _, channel, value in writes if channel == "own" and value != "more")
    assert [[each, number] for each in "ab" for number in range(count)] == own
    assert 2 * count == sum(value == "more" for _, _, value in writes)
    shared = [task for task, channel, _ in writes if channel == "shared"]
    assert sorted(f"shared-{number}" for number in range(count)) == sorted(shared)


def test_a_graph_that_is_killed_in_a_step_goes_on_in_another_process(program, db):
    first = program("langgraph_agent", "first")
    lines = [json.loads(first.stdout.readline()) for _ in range(3)]
    assert [["multiplying", 6, 7], ["multiplying", 42, 2], ["multiplying", 42, 3]] == sorted(lines)
    deadline = time.monotonic() + 120
    while not is_written(db) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    assert -9 == first.wait(60)

    second = program("langgraph_agent", "second")
    lines = [json.loads(line) for line in second.communicate(timeout=300)[0].splitlines()]
    assert 0 == second.returncode
    tasks, again, messages = lines
    assert ["multiply", "multiply"] == tasks
    assert ["multiplying", 42, 3] == again  # And not the one that had ended.
    assert [
        ["human", "u1", "6 times 7?"],
        ["ai", "a1", ""],
        ["tool", "t42", "42"],
        ["ai", "a2", "42"],
        ["human", "u2", "And twice that, and thrice?"],
        ["ai", "a3", ""],
        ["tool", "t84", "84"],
        ["tool", "t126", "126"],
        ["ai", "a4", "84 and 126"],
        ["human", "u3", "What was the last?"],
        ["ai", "a5", "It was 126."],
    ] == messages
    sources = [found.metadata["source"] for found in DirectorSaver(db).list(at())]
    assert ["loop", "loop", "input"] == sources[:3]


def is_written(db):
    """Whether the tool that ends has ended, as the database has it."""
    found = DirectorSaver(db).get_tuple(at())
    return any(getattr(value, "id", None) == "t84" for _, _, value in found.pending_writes)


def test_a_state_is_stored_as_it_was_at_the_call(tmp_path):
    """A graph goes on while it is stored, and may change a value in place."""
    state = {str(number): number for number in range(50_000)}
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}

    async def main():
        with SQLiteDB(tmp_path / "x.db") as sync_db:
            saver = DirectorSaver(sync_db)
            version = saver.get_next_version(None)
            checkpoint = empty_checkpoint()
            checkpoint |= {"channel_values": {"a": state}, "channel_versions": {"a": version}}
            put = asyncio.ensure_future(saver.aput(config, checkpoint, {}, {"a": version}))
            while not put.done():
                await asyncio.sleep(0)
                state[f"later {len(state)}"] = 0
            found = await saver.aget_tuple(await put)
            return len(found.checkpoint["channel_values"]["a"])

    assert 50_000 == asyncio.run(main())
    assert 50_000 < len(state)
