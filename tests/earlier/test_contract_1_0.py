"""A backend of contract 1.0 goes on with this release, and lacks what came later."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from director_db import BaseDB, ConfigurationError, ConflictError, SessionNotFoundError
from director_db.asyncio import AsyncDB
from director_db.rows import SessionRow, StoredMessage

FILE = Path(__file__).with_name("backend_of_1_0.py")


@pytest.fixture
def db():
    spec = importlib.util.spec_from_file_location("backend_of_1_0", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.BackendOf10() as db:
        yield db


def later(name):
    return pytest.raises(
        ConfigurationError,
        match=rf"of10 \(backend_of_1_0.BackendOf10\) was written for version 1.0 .* no {name}\.",
    )


def test_it_does_what_1_0_promised(db):
    assert db._contract == "1.0"
    # It cannot say whether it created.
    assert db.create_session("s1", "v1", "c1", 5, 6, {"a": 1}) is None
    assert db.create_session("s1", "v2") is None
    session = {
        "session_id": "s1",
        "video_id": "v1",
        "collection_id": "c1",
        "created_at": 5,
        "updated_at": 6,
        "metadata": {"a": 1},
        "user_id": None,
    }
    # What the core makes of what 1.0 stores is there, too.
    session["version"] = db.get_session("s1")["version"]
    assert db.get_session("s1") == session
    assert db.get_sessions(video_id="v1") == list(db.iter_sessions()) == [session]
    db.update_session("s1", collection_id=None, updated_at=7)
    changed = db.get_session("s1")
    assert changed.pop("version") != session.pop("version")
    assert changed == session | {"collection_id": None, "updated_at": 7}
    for text in ("one", "two"):
        db.add_or_update_msg_to_conv("s1", "c", "m", "input", [], [], text, updated_at=7)
    assert [message["content"] for message in db.get_conversations("s1", limit=5)] == ["two"]
    assert [message["content"] for message in db.iter_conversations("s1")] == ["two"]
    assert db.append_context_messages("s1", [1]) == 1
    assert db.get_context_messages("s1") == {"reasoning": [1]}
    assert db.health().db_type == "toy"
    assert db.delete_session("s1") == (True, [])
    with pytest.raises(SessionNotFoundError):
        db.update_session("s1")


def test_coroutines_take_it_too(db):
    """It has no line for them, and nothing that stores messages together."""

    async def main():
        async with AsyncDB(db) as async_db:
            await async_db.create_session("s1")
            calls = [
                async_db.add_or_update_msg_to_conv("s1", "c", f"m{number}", "t", [], [], number)
                for number in range(20)
            ]
            await asyncio.gather(*calls)
            return [message["content"] async for message in async_db.iter_conversations("s1")]

    assert [*range(20)] == sorted(asyncio.run(main()))


def test_what_came_later_is_told(db):
    with later("user_id"):
        db.create_session("s1", user_id="u1")
    assert db.get_session("s1") == {}
    db.create_session("s1", user_id=None)
    for use in (
        lambda: db.update_session("s1", user_id="u1"),
        lambda: db.get_sessions(user_id="u1"),
        lambda: list(db.iter_sessions(user_id="")),
    ):
        with later("user_id"):
            use()
    assert db.get_session("s1")["user_id"] is None


def test_guarded_writes_came_later(db):
    db.create_session("s1")
    message = {"conv_id": "c", "msg_type": "t", "agents": [], "actions": [], "content": 1}
    for guard in ({"revision": 1}, {"if_absent": True}):
        with later("revision or if_absent"):
            db.add_or_update_msg_to_conv("s1", msg_id="m", **message, **guard)
        with later("revision or if_absent"):
            db.add_or_update_msgs_to_conv("s1", [{"msg_id": "m", **message, **guard}])
    assert db.get_conversations("s1") == []
    plain = {**message, "revision": None, "if_absent": False}
    assert db.add_or_update_msg_to_conv("s1", msg_id="m", **plain) is True
    assert db.add_or_update_msgs_to_conv("s1", [{"msg_id": "m", **plain}]) == [True]
    assert db.get_message("s1", "m")["revision"] is None


def test_operations_on_the_history_came_later(db):
    db.create_session("s1")
    for name, args in (
        ("pop_message", ["s1"]),
        ("replace_conversation", ["s1", []]),
        ("delete_messages_after", ["s1", "m"]),
        ("copy_session", ["s1", "s2"]),
    ):
        with later(name):
            getattr(db, name)(*args)


def test_reading_a_part_came_later(db):
    db.create_session("s1")
    for number in range(5):
        db.add_or_update_msg_to_conv("s1", "c", f"m{number}", "t", [], [], number)
    for name in ("conv_id", "msg_type"):
        for use in (
            lambda name=name: db.get_conversations("s1", **{name: "c"}),
            lambda name=name: db.get_conversations("s1", limit=1, before="m3", **{name: ""}),
            lambda name=name: next(db.iter_conversations("s1", **{name: "c"})),
        ):
            with later(name):
                use()
    with later("get_messages"):
        db.get_messages("s1", ["m1"])
    plain = {"conv_id": None, "msg_type": None}
    whole = [f"m{number}" for number in range(5)]
    assert [message["msg_id"] for message in db.get_conversations("s1", **plain)] == whole
    assert [message["msg_id"] for message in db.iter_conversations("s1", page=2, **plain)] == whole


def test_a_first_page_of_its_own_is_asked_for_as_1_0_did(db):
    class Reading(type(db)):
        def _select_first_messages(self, session_id, limit):
            return list(self._messages[session_id].values())[:limit]

    with Reading() as reading:
        reading.create_session("s1")
        reading.add_or_update_msg_to_conv("s1", "c", "m", "t", [], [], 1)
        assert [message["msg_id"] for message in reading.iter_conversations("s1")] == ["m"]
        with pytest.raises(ConfigurationError, match=r"has no msg_type\."):
            next(reading.iter_conversations("s1", msg_type="t"))


def test_a_context_that_is_a_list_takes_nothing_new_of_it(db):
    db.create_session("s1")
    assert db.append_context_messages("s1", [1], key=None) == 1
    assert db.append_context_messages("s1", [2, 3], key=None) == 3
    assert db.get_context_messages("s1") == [1, 2, 3]


def test_changes_on_top_of_what_was_read_came_later(db):
    db.create_session("s1", metadata={"a": 1})
    version = db.get_session("s1")["version"]
    for arguments in (
        {"if_version": version},
        {"if_version": None},
        {"metadata": {"b": 2}, "merge": True},
    ):
        with later("if_version or merge"):
            db.update_session("s1", **arguments)
    assert db.get_session("s1")["metadata"] == {"a": 1}
    db.update_session("s1", metadata=[2], merge=True)  # It replaces.
    assert db.get_session("s1")["metadata"] == [2]


def test_a_context_had_versions_before(db):
    db.create_session("s1")
    version = db.add_or_update_context_msg("s1", [1], if_version=None)
    assert db.get_context("s1")["version"] == version
    for stale in (None, "x"):
        with pytest.raises(ConflictError) as caught:
            db.add_or_update_context_msg("s1", [2], if_version=stale)
        assert (caught.value.session_id, caught.value.version) == ("s1", version)
    db.add_or_update_context_msg("s1", [1, 2], if_version=version)
    assert db.get_context_messages("s1") == [1, 2]


def test_a_class_of_its_own_that_goes_further_is_adapted_once(db):
    class Further(type(db)):
        def _insert_session(self, row):
            assert row.metadata == "{}"
            return super()._insert_session(row)

    with Further() as further:
        further.create_session("s1")
        assert further.get_session("s1")["session_id"] == "s1"


def test_a_contract_that_this_release_does_not_know_is_refused():
    with pytest.raises(TypeError, match=r"written for version 1.9 .* knows 1.0, 1.1"):
        type("New", (BaseDB,), {}, db_type="new", contract="1.9")


def test_a_row_of_fewer_columns_is_a_row():
    row = SessionRow._make(("s", None, None, 1, 2, "{}"))
    assert row == ("s", None, None, 1, 2, "{}", None)
    values = ("s", None, "m", "t", "[]", "[]", "[]", None, 1, 2, "{}")
    assert StoredMessage._make(values) == (*values, None)
    assert row._replace(user_id="u") == SessionRow("s", None, None, 1, 2, "{}", "u")
