"""Chat stores of LlamaIndex in director-db."""

from __future__ import annotations

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer, Memory
from llama_index.core.storage.chat_store.base_db import MessageStatus

from director_db import BackendUnavailableError, InvalidRecordError, SessionNotFoundError
from director_db.asyncio import AsyncDB, load_db
from director_db_integrations.llama_index import DirectorChatStore, DirectorMemoryStore
from director_db_sqlite import SQLiteDB

ACTIVE, ARCHIVED = MessageStatus.ACTIVE, MessageStatus.ARCHIVED
CALL = ToolCallBlock(tool_call_id="c1", tool_name="f", tool_kwargs={"b": 1, "a": 2.0, "z": -0.0})
CITED = CitationBlock(
    cited_content=TextBlock(text="q"),
    source="s",
    title="t",
    additional_location_info={"page": "1"},
)
MESSAGES = [
    ChatMessage("Grüße \ud83d \x00", role="system"),
    ChatMessage(
        role="user",
        blocks=[
            ImageBlock(image=b"\x89PNG\r\n\x1a\n00"),
            ImageBlock(url="https://example.org/y.png", detail="low"),
            AudioBlock(audio=b"RIFF", format="wav"),
            DocumentBlock(data=b"%PDF", title="t"),
            CachePoint(cache_control=CacheControl(type="ephemeral")),
        ],
    ),
    ChatMessage(
        role="assistant",
        blocks=[
            ThinkingBlock(content="…", additional_information={"signature": "é=="}),
            TextBlock(text="x"),
            CALL,
        ],
        additional_kwargs={"z": [1, 1.0, -0.0, 1e16, None, True], "a": {}},
    ),
    ChatMessage("2", role="tool", additional_kwargs={"tool_call_id": "c1"}),
    ChatMessage(
        role="assistant",
        blocks=[CITED, CitableBlock(title="t", source="s", content=[TextBlock(text="x")])],
    ),
    ChatMessage(role="assistant"),
    ChatMessage("", role="developer"),
]


def said(*texts):
    return [ChatMessage(text) for text in texts]


def texts(messages):
    return [message.content for message in messages]


class Sync:
    """A chat store through the methods of LlamaIndex that are no coroutines."""

    names = {  # noqa: RUF012 - nothing changes it
        "set": "set_messages",
        "get": "get_messages",
        "add": "add_message",
        "delete": "delete_messages",
        "delete_at": "delete_message",
        "pop": "delete_last_message",
        "keys": "get_keys",
    }

    def __init__(self, db=None):
        self.store = DirectorChatStore(db)

    def __getattr__(self, name):
        return getattr(self.store, self.names[name])


class Async(Sync):
    """The same through those that are."""

    def __getattr__(self, name):
        method = "async_add_message" if name == "add" else f"a{self.names[name]}"
        return lambda *args: asyncio.run(getattr(self.store, method)(*args))


faces = pytest.mark.parametrize("face", [Sync, Async])


@faces
def test_messages_come_back_equal_and_in_order(face, db):
    store = face(db)
    store.set("s1", MESSAGES)
    for message in MESSAGES:
        store.add("s2", message)
    for key in ("s1", "s2"):
        came = face(db).get(key)
        assert MESSAGES == came
        dumped = [
            [message.model_dump(mode="json") for message in some] for some in (MESSAGES, came)
        ]
        assert json.dumps(dumped[0]) == json.dumps(dumped[1])
    assert [] == store.get("s3")


def test_from_outside_they_are_messages_as_llama_index_writes_them(db):
    DirectorChatStore(db).set_messages("s1", MESSAGES)
    asyncio.run(DirectorMemoryStore(db).add_messages("s2", MESSAGES))
    for key in ("s1", "s2"):
        assert {"framework": "llama-index"} == db.get_session(key)["metadata"]
        stored = db.get_conversations(key)
        roles = ["system", "user", "assistant", "tool", "assistant", "assistant", "developer"]
        assert roles == [message["msg_type"] for message in stored]
        written = [message.model_dump(mode="json") for message in MESSAGES]
        assert json.dumps(written) == json.dumps([message["content"] for message in stored])
    assert MESSAGES == asyncio.run(DirectorMemoryStore(db).get_messages("s1"))


def test_without_a_database_it_is_the_one_that_the_environment_names(db):
    DirectorChatStore().add_message("s1", MESSAGES[0])
    DirectorChatStore(load_db()).add_message("s1", MESSAGES[0])
    asyncio.run(DirectorMemoryStore().add_message("s1", MESSAGES[0]))
    assert 3 == len(db.get_conversations("s1"))


class Call(BaseModel):
    """What a provider's package puts into `additional_kwargs`."""

    name: str


def test_models_in_additional_kwargs_come_back_as_dicts_as_in_other_stores(db):
    message = ChatMessage("", additional_kwargs={"calls": [Call(name="f")], "raw": b"\x00"})
    DirectorChatStore(db).add_message("s1", message)
    (came,) = DirectorChatStore(db).get_messages("s1")
    assert {"calls": [{"name": "f"}], "raw": "AA=="} == came.additional_kwargs


class OfSomebodyElse(ChatMessage):
    """It would come back as a ChatMessage."""

    more: str = "x"


def would_not_come_back():
    """Messages, and where in them stands what would not."""
    for value in (object(), {1}, math.nan):
        kwargs = {"list": [0, value]}
        yield ChatMessage("", additional_kwargs=kwargs), ".content.additional_kwargs.list[1]"
    for value in ({1}, math.nan):  # LlamaIndex would write a list, and null.
        call = ToolCallBlock(tool_name="f", tool_kwargs={"n": value})
        yield ChatMessage(role="assistant", blocks=[call]), ".blocks"
    call = ToolCallBlock(tool_name="f", tool_kwargs={"n": object()})
    yield ChatMessage(role="assistant", blocks=[call]), ""
    # LlamaIndex would read it once and never again.
    pictures = ChatMessage("", additional_kwargs={}).model_copy(
        update={"additional_kwargs": {"images": [{"id_": "i1"}]}}
    )
    yield pictures, ""
    yield OfSomebodyElse("x"), ""
    yield {"role": "user"}, ""


@faces
def test_what_would_not_come_back_is_refused_and_nothing_is_stored(face, db):
    for message, path in would_not_come_back():
        with pytest.raises(InvalidRecordError) as refused:
            face(db).set("s1", [*said("good"), message])
        assert f"messages[1]{path}" == refused.value.path
    assert {} == db.get_session("s1")
    face(db).set("s1", said("old"))
    for message, _ in would_not_come_back():
        with pytest.raises(InvalidRecordError):
            face(db).set("s1", [*said("good"), message])
        with pytest.raises(InvalidRecordError):
            face(db).add("s1", message)
    assert said("old") == face(db).get("s1")


@faces
def test_setting_replaces_all(face, db):
    store = face(db)
    store.set("s1", said("a", "b", "c"))
    db.append_context_messages("s1", ["theirs"])
    store.set("s1", [*said("d"), *store.get("s1")[1:2]])
    assert ["d", "b"] == texts(store.get("s1"))
    store.set("s1", [])
    assert [] == store.get("s1")
    assert {"reasoning": ["theirs"]} == db.get_context_messages("s1")
    store.set("s2", [])
    assert ["s1", "s2"] == sorted(store.keys())


@faces
def test_deleting(face, db):
    db.create_session("s1", user_id="u1", metadata={"title": "Sums"})
    store = face(db)
    assert store.pop("s1") is None
    assert store.delete_at("s1", 0) is None
    store.set("s1", said(*"abcdef"))
    store.set("s2", said("other"))
    assert "f" == store.pop("s1").content
    assert "b" == store.delete_at("s1", 1).content
    assert "e" == store.delete_at("s1", -1).content
    for idx in (3, -4):
        assert store.delete_at("s1", idx) is None
    assert ["a", "c", "d"] == texts(store.get("s1"))
    store.delete("s1")
    assert [] == store.get("s1")
    assert store.pop("s1") is None
    assert ["other"] == texts(store.get("s2"))
    store.add("s1", *said("again"))
    assert ["again"] == texts(store.get("s1"))
    session = db.get_session("s1")
    assert ("u1", {"title": "Sums"}) == (session["user_id"], session["metadata"])


@faces
def test_keys_are_the_sessions_of_this_framework_however_many(face, db):
    for number in range(12):
        db.create_session(f"other {number}", metadata=number if number % 2 else {"framework": "x"})
    names = [f"key {number}" for number in range(12)]
    for name in names:
        db.create_session(name, metadata={"framework": "llama-index"}, updated_at=int(name[4:]))
    assert names == face(db).keys()


def test_keys_are_read_in_pages(tmp_path):
    asked = []

    class AskedDB(SQLiteDB, db_type="asked"):
        def _select_sessions(self, query):
            asked.append(query.limit)
            return super()._select_sessions(query)

    with AskedDB(tmp_path / "director.db") as db:
        DirectorChatStore(db).set_messages("s1", [])
        assert ["s1"] == DirectorChatStore(db).get_keys()
        assert ["s1"] == asyncio.run(DirectorMemoryStore(db).get_keys())
    assert None not in asked
    assert asked


def test_workers_that_delete_at_once_never_get_the_same(db):
    store = DirectorChatStore(db)
    store.set_messages("s1", said(*map(str, range(48))))

    async def main():
        stores = [DirectorChatStore(AsyncDB(db)) for _ in range(4)]
        memories = [DirectorMemoryStore(AsyncDB(db)) for _ in range(2)]
        calls = [each.adelete_last_message("s1") for each in stores * 3]
        calls += [each.adelete_message("s1", 0) for each in stores * 2]
        ones, many = await asyncio.gather(
            asyncio.gather(*calls),
            asyncio.gather(*[each.delete_oldest_messages("s1", 5) for each in memories]),
        )
        return texts([each for each in ones if each] + many[0] + many[1])

    with ThreadPoolExecutor(4) as threads:
        popped = [threads.submit(DirectorChatStore(db).delete_last_message, "s1") for _ in range(8)]
        got = asyncio.run(main()) + texts([each.result() for each in popped])
    left = texts(store.get_messages("s1"))
    assert sorted(map(str, range(48))) == sorted(got + left)


@faces
def test_a_session_that_is_deleted_meanwhile_is_not_brought_back(face, db):
    writer, reader = face(db), face(db)
    writer.add("s1", *said("early"))
    assert ["early"] == texts(reader.get("s1"))
    db.delete_session("s1")
    for store, call in ((writer, writer.set), (reader, reader.set)):
        with pytest.raises(SessionNotFoundError):
            call("s1", said("late"))
        assert {} == db.get_session("s1")
        assert [] == store.get("s1")
    writer.add("s1", *said("anew"))
    assert ["anew"] == texts(reader.get("s1"))


@pytest.mark.parametrize("replacing", [True, False])
@pytest.mark.parametrize("step", [1, 2, 3])  # Of storing, creating the session, storing.
def test_a_cancelled_call_is_carried_to_its_end(step, replacing, stored_though_cancelled):
    stores = []

    def storing(db: Any):
        stores.append(DirectorMemoryStore(db) if replacing else DirectorChatStore(db))
        if replacing:
            return stores[0].set_messages("s1", said("once"))
        return stores[0].async_add_message("s1", *said("once"))

    def deleted(db: Any):
        db.delete_session("s1")
        with pytest.raises(SessionNotFoundError):
            asyncio.run(storing_again())
        assert {} == db.get_session("s1")

    def storing_again():
        return (stores[0].set_messages if replacing else stores[0].aset_messages)("s1", said("x"))

    stored = stored_though_cancelled(storing, step=step, given=lambda _: None, then=deleted)
    assert [said("once")[0].model_dump(mode="json")] == stored


@pytest.mark.parametrize(
    ("call", "left"),
    [
        (lambda db: DirectorChatStore(db).adelete_message("s1", 0), "bc"),
        (lambda db: DirectorMemoryStore(db).delete_message("s1", 1), "ac"),
        (lambda db: DirectorMemoryStore(db).delete_oldest_messages("s1", 2), "c"),
        (lambda db: DirectorMemoryStore(db).delete_messages("s1", ACTIVE), ""),
    ],
)
def test_what_deletes_is_carried_to_its_end(call, left, stored_though_cancelled):
    def given(db: Any):
        DirectorChatStore(db).set_messages("s1", said(*"abc"))

    stored = stored_though_cancelled(call, given=given)  # Cancelled while it reads.
    assert list(left) == [content["blocks"][0]["text"] for content in stored]


def test_an_archive_that_is_cancelled_is_carried_to_its_end(stored_though_cancelled):
    def given(db: Any):
        DirectorChatStore(db).set_messages("s1", said(*"abc"))

    def then(db: Any):
        assert ["c"] == texts(DirectorChatStore(db).get_messages("s1"))

    def archiving(db: Any):
        return DirectorMemoryStore(db).archive_oldest_messages("s1", 2)

    assert 3 == len(stored_though_cancelled(archiving, given=given, then=then))


def test_a_lost_answer_has_one_outcome(proxied):
    db, proxy = proxied
    store = DirectorChatStore(db)
    store.set_messages("s1", said("a"))

    def add_async():
        asyncio.run(store.async_add_message("s1", ChatMessage("c")))

    for call, after in (
        (lambda: store.add_message("s1", ChatMessage("b")), "ab"),
        (add_async, "abc"),
        (lambda: store.delete_last_message("s1"), "ab"),
        (lambda: store.set_messages("s1", said("x", "y")), "xy"),
    ):
        proxy.cut_after(0)  # The server has done it.
        with pytest.raises(BackendUnavailableError) as lost:
            call()
        assert lost.value.maybe_applied
        assert list(after) == texts(store.get_messages("s1"))


@pytest.mark.parametrize("is_known", [True, False])
def test_a_message_whose_answer_was_lost_is_given_to_one(is_known, tmp_path):
    class LosingDB(SQLiteDB, db_type="losing_llama_index"):
        loses = True

        def _upsert_guarded(self, session_id, *args):
            stored = super()._upsert_guarded(session_id, *args)
            if self.loses and stored is not None:
                self.loses = False
                popped.append(DirectorChatStore(other).delete_last_message(session_id))
                raise BackendUnavailableError("lost", retryable=True, maybe_applied=True)
            return stored

    popped = []
    path = tmp_path / "director.db"
    with LosingDB(path) as db, SQLiteDB(path) as other:
        store = DirectorChatStore(db)
        if is_known:
            store.set_messages("s1", [])
        with pytest.raises(BackendUnavailableError) as lost:
            store.add_message("s1", ChatMessage("once"))
        assert lost.value.maybe_applied
        popped.append(store.delete_last_message("s1"))
        assert [ChatMessage("once"), None] == popped


def test_each_call_is_one_round_trip(proxied):
    db, proxy = proxied
    for face in (Sync, Async):
        store = face(db)
        store.add("s1", MESSAGES[0])  # creates
        for call, expected in (
            (lambda: store.set("s1", MESSAGES), 1),  # noqa: B023
            (lambda: store.add("s1", MESSAGES[0]), 1),  # noqa: B023
            (lambda: store.get("s1"), 1),  # noqa: B023
            (lambda: store.pop("s1"), 1),  # noqa: B023
            (lambda: store.delete_at("s1", 0), 2),  # noqa: B023
            (lambda: store.delete("s1"), 1),  # noqa: B023
        ):
            with proxy.count() as count:
                call()
            assert expected == count.round_trips


def test_a_memory_store_archives_and_deletes(db):
    async def main():
        store = DirectorMemoryStore(db)
        assert [] == await store.archive_oldest_messages("s1", 2)
        await store.add_messages("s1", [])
        assert {} == db.get_session("s1")
        await store.add_messages("s1", said(*"abcdef"))
        assert ["a", "b"] == texts(await store.archive_oldest_messages("s1", 2))
        assert [] == await store.archive_oldest_messages("s1", 0)
        await store.add_message("s1", *said("g"), ARCHIVED)
        assert list("cdef") == texts(await store.get_messages("s1"))
        assert list("abg") == texts(await store.get_messages("s1", ARCHIVED))
        assert list("abcdefg") == texts(await store.get_messages("s1", None))
        assert list("de") == texts(await store.get_messages("s1", limit=2, offset=1))
        assert [] == await store.get_messages("s1", limit=0)
        assert [4, 3, 7] == [await store.count_messages("s1", x) for x in (ACTIVE, ARCHIVED, None)]
        assert list("cd") == texts(await store.delete_oldest_messages("s1", 2))
        assert "b" == (await store.delete_message("s1", 1)).content
        assert await store.delete_message("s1", 9) is None
        await store.delete_messages("s1", ARCHIVED)
        assert list("ef") == texts(await store.get_messages("s1", None))
        await store.archive_oldest_messages("s1", 9)
        await store.set_messages("s1", said("x"))
        assert ["x"] == texts(await store.get_messages("s1", None))
        await store.delete_messages("s1")
        assert [] == await store.get_messages("s1", None)
        assert ["s1"] == await store.get_keys()

    asyncio.run(main())


@pytest.mark.parametrize("meanwhile", ["message", "conversation", "session"])
def test_what_is_deleted_while_it_is_archived_does_not_come_back(meanwhile, tmp_path):
    class LateDB(SQLiteDB, db_type="late"):
        """Somebody deletes between an archive's reading and its writing, once."""

        def _upsert_messages(self, *args):
            delete, self.deleting = self.deleting, None
            delete()
            return super()._upsert_messages(*args)

    async def main(db, other):
        store = DirectorMemoryStore(db)
        await store.add_messages("s1", said("a", "b", "c"))
        first = other.get_conversations("s1")[0]["msg_id"]
        db.deleting = {
            "message": lambda: other.delete_message("s1", first),
            "conversation": lambda: other.delete_conversation("s1"),
            "session": lambda: other.delete_session("s1"),
        }[meanwhile]
        archived = texts(await store.archive_oldest_messages("s1", 2))
        assert (["b"] if meanwhile == "message" else []) == archived
        everything = texts(await store.get_messages("s1", None))
        assert (["b", "c"] if meanwhile == "message" else []) == everything
        assert len(everything) == len(other.get_conversations("s1"))
        assert (meanwhile == "session") == (other.get_session("s1") == {})

    with LateDB(tmp_path / "director.db") as db, SQLiteDB(tmp_path / "director.db") as other:
        asyncio.run(main(db, other))


def test_what_others_have_in_the_session_is_no_message_of_llama_index(db):
    store = DirectorChatStore(db)
    store.set_messages("s1", said("a", "b"))
    db.add_or_update_msg_to_conv("s1", "active", "m1", "progress", [], [], 50)
    assert ["a", "b"] == texts(store.get_messages("s1"))
    assert "b" == store.delete_last_message("s1").content
    assert 50 == db.get_message("s1", "m1")["content"]


def test_a_store_remembers_the_keys_that_it_used_last(tmp_path, monkeypatch):
    monkeypatch.setattr("director_db_integrations.llama_index._MANY", 3)
    with SQLiteDB(tmp_path / "director.db") as db:
        store = DirectorChatStore(db)
        for key in "abcad":
            store.add_message(key, ChatMessage("early"))
        for key in "abcd":
            db.delete_session(key)
        for key in "acd":
            with pytest.raises(SessionNotFoundError):
                store.add_message(key, ChatMessage("late"))
        store.add_message("b", ChatMessage("anew"))  # It does not know any more.
        assert ["b"] == store.get_keys()


def test_a_store_that_was_written_is_not_bound_to_any_database(db):
    written = DirectorChatStore(db).to_dict()
    with pytest.raises(ValueError, match="pass db="):
        DirectorChatStore.from_dict(written)
    DirectorChatStore.from_dict(written, db=db).add_message("s1", ChatMessage("a"))
    assert 1 == len(db.get_conversations("s1"))
    for kind in (DirectorChatStore, DirectorMemoryStore):
        with pytest.raises(TypeError):
            kind.model_validate({"class_name": kind.class_name()})


@pytest.mark.parametrize("name", ["limit", "offset"])
def test_a_part_below_none_is_refused(name, db):
    with pytest.raises(InvalidRecordError, match="-1") as refused:
        asyncio.run(DirectorMemoryStore(db).get_messages("s1", **{name: -1}))
    assert name == refused.value.path


def test_a_buffer_over_it(db):
    def buffer():
        return ChatMemoryBuffer.from_defaults(
            chat_store=DirectorChatStore(db), chat_store_key="s1", tokenizer_fn=str.split
        )

    buffer().put(ChatMessage("one"))
    asyncio.run(buffer().aput_messages(said("two", "three")))
    assert ["one", "two", "three"] == texts(buffer().get())
    assert ["one", "two", "three"] == texts(asyncio.run(buffer().aget_all()))
    buffer().set(said("four"))
    assert ["four"] == texts(buffer().get_all())
    assert {"class_name": "DirectorChatStore"} == buffer().to_dict()["chat_store"]
    buffer().reset()
    assert [] == buffer().get()


def test_a_memory_over_it_archives_what_is_too_long(db):
    def memory(**options):
        return Memory.from_defaults(
            session_id="s1",
            chat_store=DirectorMemoryStore(db),
            token_limit=40,
            token_flush_size=10,
            tokenizer_fn=str.split,
            **options,
        )

    memory(chat_history=said("seed"))
    for number in range(4):
        memory().put(ChatMessage(f"{number} " + "word " * 12))
    kept = texts(memory().get())
    assert ["2", "3"] == [text[0] for text in kept]
    everything = texts(asyncio.run(memory().aget_all()))
    assert ["s", "0", "1", "2", "3"] == [text[0] for text in everything]
    places = [message["conv_id"] for message in db.get_conversations("s1")]
    assert ["llama-index:archived"] * 3 + ["llama-index:active"] * 2 == places
    asyncio.run(memory().areset())
    assert [] == memory().get_all()


def test_an_agent_that_is_killed_in_a_turn_goes_on_in_another_process(program, db):
    first = program("llama_index_agent", "first")
    assert '"hanging"\n' == first.stdout.readline()
    first.kill()
    assert -9 == first.wait(60)
    store = DirectorChatStore(db)
    kept = turn("6 times 7?", "c1", {"one": 6, "other": 7}, "42")
    asked = [*kept, ChatMessage("And twice that?")]
    assert asked == store.get_messages("s1")  # LlamaIndex stores an answer when it is whole.

    second = program("llama_index_agent", "second")
    lines = second.communicate(timeout=300)[0].splitlines()
    assert 0 == second.returncode
    whole = [*asked, *turn("Go on.", "c4", {"one": 42, "other": 2}, "84")]
    assert whole[:-1] == [ChatMessage.model_validate(each) for each in json.loads(lines[0])]
    assert whole == store.get_messages("s1")
    stored = db.get_conversations("s1", limit=4)
    roles = ["user", "assistant", "tool", "assistant"]
    assert roles == [message["msg_type"] for message in stored]


def turn(question, call_id, arguments, answer):
    call = ToolCallBlock(tool_call_id=call_id, tool_name="multiply", tool_kwargs=arguments)
    return [
        ChatMessage(question),
        ChatMessage(role="assistant", blocks=[call]),
        ChatMessage(answer, role="tool", additional_kwargs={"tool_call_id": call_id}),
        ChatMessage(answer, role="assistant"),
    ]
