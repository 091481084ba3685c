"""The conversation store of Pydantic AI in director-db."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import functools
import itertools
import json
import random
import threading

import pytest
from pydantic_ai import (
    BinaryContent,
    BinaryImage,
    DeferredToolRequests,
    FilePart,
    ImageUrl,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    RunUsage,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError

from director_db import BackendUnavailableError, InvalidRecordError
from director_db.asyncio import CARRIED_OUT, AsyncDB
from director_db_integrations.pydantic_ai import DirectorConversationStore
from director_db_sqlite import SQLiteDB

PICTURE = BinaryImage(bytes(range(256)), media_type="image/png")
SOUND = BinaryContent(b"\xff\x00", media_type="audio/wav")
DEEP = functools.reduce(lambda inner, _: [inner], range(201), 1)
MESSAGES = [
    ModelRequest(parts=[SystemPromptPart("Be brief.")], instructions="Count."),
    ModelRequest(
        parts=[UserPromptPart(["Grüße \ud83d\x00", PICTURE, SOUND, ImageUrl("https://x/y.png")])]
    ),
    ModelResponse(
        parts=[
            ThinkingPart("hm", signature="gAAAAAB\u2028é==", provider_name="p"),
            ToolCallPart("f", {"b": 1.0, "a": [None, True, -0.0, 1e16]}, tool_call_id="c1"),
            ToolCallPart("f", '{"b": 1,  "a":2}', tool_call_id="c2"),
        ],
        model_name="m",
        provider_details={"k": [1]},
    ),
    ModelRequest(
        parts=[
            ToolReturnPart("f", {"b": [1, 1.0], "a": PICTURE}, tool_call_id="c1"),
            ToolReturnPart("f", [SOUND], tool_call_id="c2", metadata={"x": None}),
        ]
    ),
    ModelResponse(parts=[FilePart(PICTURE), TextPart("42")]),
]


def said(text):
    return ModelRequest.user_text_prompt(text)


def talk(*messages, name="c1"):
    return Conversation(conversation_id=name, messages=[*messages])


def plain(messages):
    return ModelMessagesTypeAdapter.dump_python(messages, mode="json")


def kinds(db, name="c1"):
    return [message["msg_type"] for message in db.get_conversations(name)]


async def add(store, text, name="c1"):
    """Save one message more, as whoever has the conversation at hand does."""
    conversation = await store.load(name) or talk(name=name)
    conversation.messages.append(said(text))
    await store.save(conversation)
    return conversation


def test_messages_come_back_equal(db):
    asked = DeferredToolRequests(approvals=[ToolCallPart("pay", {"n": 1.0}, tool_call_id="c3")])
    usage = RunUsage(requests=3, input_tokens=7, tool_calls=2, details={"x": 1})
    conversation = talk(*MESSAGES)
    conversation.usage, conversation.deferred_tool_requests = usage, asked

    async def main():
        entries = await DirectorConversationStore(db).save(conversation, scope="u1")
        store = DirectorConversationStore()
        loaded = await store.load("c1", scope="u1")
        assert entries == await store.load_entries("c1")
        assert entries[-2:] == await store.load_entries("c1", limit=2)
        assert await store.load("c1", scope="u2") is None
        return loaded

    loaded = asyncio.run(main())
    assert MESSAGES == loaded.messages
    assert json.dumps(plain(MESSAGES)) == json.dumps(plain(loaded.messages))
    assert (usage, asked) == (loaded.usage, loaded.deferred_tool_requests)
    assert conversation == loaded


def test_from_outside_they_are_messages(db):
    async def main():
        return await DirectorConversationStore(db).save(talk(*MESSAGES), scope="u1")

    entries = asyncio.run(main())
    session = db.get_session("c1")
    assert ("u1", {"framework": "pydantic-ai"}) == (session["user_id"], session["metadata"])
    record, *messages = db.get_conversations("c1")
    assert ["system", "user", "assistant", "tool", "assistant"] == [
        message["msg_type"] for message in messages
    ]
    assert [entry.id for entry in entries] == [message["msg_id"] for message in messages]
    assert plain(MESSAGES) == [message["content"] for message in messages]
    parents = [None, *(entry.id for entry in entries[:-1])]
    assert parents == [message["metadata"]["parent_id"] for message in messages]
    assert ("conversation-record", entries[-1].id) == (
        record["msg_type"],
        record["content"]["head_id"],
    )


def test_of_saves_at_once_one_is_stored_and_the_others_leave_nothing(db):
    async def main():
        store = DirectorConversationStore(db)
        for start in ([], [said("early")]):  # The first create it.
            conversation = await store.load("c1") or talk()
            rivals = [copy.copy(conversation) for _ in range(8)]
            for number, rival in enumerate(rivals):
                rival.messages = [*start, said(f"{len(start)} {number}"), said("more")]
                rival.new_message_index = None
            stores = [DirectorConversationStore(AsyncDB(db)) for _ in rivals]
            done = await asyncio.gather(
                *[each.save(rival) for each, rival in zip(stores, rivals, strict=True)],
                return_exceptions=True,
            )
            won = [
                rival
                for rival, result in zip(rivals, done, strict=True)
                if result.__class__ is list
            ]
            assert 1 == len(won)
            lost = [result for result in done if result.__class__ is not list]
            assert [ConversationConflict] * 7 == [type(each) for each in lost], lost
            loaded = await store.load("c1")
            assert won[0].messages == loaded.messages
            await store.delete("c1")
            assert {} == db.get_session("c1")
            await store.save(talk(said("early")))
        return kinds(db)

    assert ["conversation-record", "user"] == asyncio.run(main())


def test_many_processes_save_one_conversation_and_lose_nothing(program, db):
    processes = [program("pydantic_ai_agent", "counting", str(name), "5") for name in range(3)]
    conflicts = [json.loads(each.communicate(timeout=300)[0]) for each in processes]
    assert [0, 0, 0] == [each.returncode for each in processes]
    history = asyncio.run(DirectorConversationStore(db).load("c1")).messages
    texts = [message.parts[0].content for message in history]
    for name in range(3):
        mine = [text for text in texts if text.startswith(f"{name} ")]
        assert [f"{name} {number}" for number in range(5)] == mine
    # Nor is there anything of the saves that lost.
    assert 1 + 3 * 5 == len(db.get_conversations("c1")), conflicts


def test_what_was_deleted_meanwhile_is_not_brought_back(db):
    async def main():
        store = DirectorConversationStore(db)
        conversation = await add(store, "early")
        await store.delete("c1")
        conversation.messages.append(said("late"))
        with pytest.raises(ConversationConflict):
            await store.save(conversation)
        with pytest.raises(ConversationConflict):
            await store.delete_record("c1", expected_revision=conversation.revision)
        assert {} == db.get_session("c1")
        other = await add(store, "anew")
        with pytest.raises(ConversationConflict):
            await store.save(conversation)
        with pytest.raises(ConversationConflict):
            await store.delete_record("c1", expected_revision=conversation.revision)
        assert other == await store.load("c1")
        return kinds(db)

    assert ["conversation-record", "user"] == asyncio.run(main())


@pytest.mark.parametrize("goes", ["it", "it, and it is made again"])
def test_what_is_deleted_between_reading_and_writing_is_not_brought_back(tmp_path, goes):
    class GoingDB(SQLiteDB, db_type="going"):
        going = False

        def _upsert_guarded(self, *args):
            if self.going:
                self.going = False
                asyncio.run(go(DirectorConversationStore(twin)))
            return super()._upsert_guarded(*args)

    async def go(other):
        await other.delete("c1")
        if "again" in goes:
            await add(other, "anew")

    async def main(db):
        store = DirectorConversationStore(db)
        for what in (
            store.save,
            lambda each: store.delete_record("c1", expected_revision=each.revision),
        ):
            conversation = await add(store, "early")
            conversation.messages.append(said("late"))
            db.going = True
            with pytest.raises(ConversationConflict):
                await what(conversation)
            assert not db.going
            left = ["conversation-record", "user"] if "again" in goes else []
            assert left == kinds(db)
            await store.delete("c1")

    with GoingDB(tmp_path / "director.db") as db, SQLiteDB(tmp_path / "director.db") as twin:
        asyncio.run(main(db))


def test_of_two_that_are_made_at_once_the_first_stays(tmp_path, monkeypatch):
    clock = itertools.count(10**18, -1)  # Of whoever is later it is slow.
    monkeypatch.setattr("time.time_ns", lambda: next(clock))

    class SlowDB(SQLiteDB, db_type="slow"):
        def _upsert_guarded(self, *args):
            if not twin.get_message("c1", "conversation-record"):
                asyncio.run(add(DirectorConversationStore(twin), "rival"))
            return super()._upsert_guarded(*args)

    async def main():
        store = DirectorConversationStore(db)
        with pytest.raises(ConversationConflict):
            await store.save(talk(said("late"), said("more")))
        return [each.parts[0].content for each in (await store.load("c1")).messages]

    with SlowDB(tmp_path / "director.db") as db, SQLiteDB(tmp_path / "director.db") as twin:
        assert ["rival"] == asyncio.run(main())
        assert ["conversation-record", "user"] == kinds(db)


def test_a_deletion_that_was_killed_holds_and_is_done_by_the_next(tmp_path):
    class KilledDB(SQLiteDB, db_type="killed"):
        def _delete_session(self, *args):
            raise KeyboardInterrupt

    async def main():
        store = DirectorConversationStore(killed)
        conversation = await add(store, "early")
        with pytest.raises(KeyboardInterrupt):
            await store.delete_record("c1", expected_revision=conversation.revision)

    async def after(store):
        assert await store.load("c1") is None
        assert [] == await store.list_conversations()
        with pytest.raises(ConversationConflict):
            await store.save(talk(said("too early")))
        await store.delete("c1")
        assert {} == db.get_session("c1")
        await add(store, "anew")

    with KilledDB(tmp_path / "director.db") as killed, SQLiteDB(tmp_path / "director.db") as db:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
        asyncio.run(after(DirectorConversationStore(db)))
        assert ["conversation-record", "user"] == kinds(db)


def test_it_does_what_the_store_of_the_framework_does(db):
    """Drawn calls, of which each store raises or returns the same, and then holds the same."""
    draw = random.Random(5)
    names = ["a", "b", "c", "d"]

    async def one(store, call, name, other, at, scope, text):
        stored = await store.load(name)
        if call == "save":
            conversation = stored or talk(name=name)
            conversation.messages = [*conversation.messages[: at if at % 2 else None], said(text)]
            return len(await store.save(conversation, scope=scope))
        if call == "stale":
            return len(await store.save(talk(said(text), name=name)))
        if call == "branch":
            revision = stored and stored.revision
            return await store.branch(name, at=at, expected_revision=revision)
        if call == "back":
            record = await store.read_record(name)
            tip = record.branches[-1] if record and record.branches else "none"
            return await store.branch(
                name, from_entry=tip, expected_revision=record and record.revision
            )
        if call == "fork":
            return await store.fork(name, at=at, new_conversation_id=other, scope=scope)
        return await store.delete(name, scope=scope)

    async def outcome(store, *args):
        try:
            result = await one(store, *args)
        except UserError as error:
            return type(error)
        return texts(result) if isinstance(result, Conversation) else result

    def texts(conversation):
        return conversation and [each.parts[0].content for each in conversation.messages]

    async def held(store, limit):
        listed = await store.list_conversations(limit=limit)
        scoped = await store.list_conversations(scope="u1")
        loaded = [await store.load(name) for name in names]
        return (
            [
                (each.conversation_id, each.scope, each.forked_from, len(each.branches))
                for each in listed
            ],
            [each.conversation_id for each in scoped],
            [texts(each) for each in loaded],
            [texts(await store.load(name, limit=2)) for name in names],
        )

    async def main():
        ours, theirs = DirectorConversationStore(db), InMemoryConversationStore()
        done = []
        for number in range(90):
            call = draw.choice(
                [
                    "save",
                    "save",
                    "save",
                    "stale",
                    "branch",
                    "back",
                    "fork",
                    "fork",
                    "delete",
                    "delete",
                ]
            )
            args = (*draw.choices(names, k=2), draw.randrange(4), draw.choice([None, "u1"]))
            done.append((call, await outcome(theirs, call, *args, str(number))))
            assert done[-1] == (call, await outcome(ours, call, *args, str(number))), number
            limit = draw.choice([None, 2])
            assert await held(theirs, limit) == await held(ours, limit), number
        return {call for call, result in done if not isinstance(result, type)}

    assert {"save", "branch", "back", "fork", "delete"} == asyncio.run(main()) - {"stale"}


def test_a_fork_has_what_it_begins_with_as_messages_of_its_own(db):
    async def main():
        store = DirectorConversationStore(db)
        for text in ("one", "two", "three"):
            conversation = await add(store, text)
        entries = await store.load_entries("c1")
        fork = await store.fork("c1", at=2, new_conversation_id="c2")
        assert conversation.messages[:2] == fork.messages
        assert entries[:2] == await store.load_entries("c2")
        await store.delete("c1")
        assert {} == db.get_session("c1")
        with pytest.raises(LookupError):
            await store.read_entry(entries[2].id)
        # Of the session that is left, though nothing says of which.
        assert entries[1] == await store.read_entry(str(entries[1].id))
        record = ConversationRecord(conversation_id="c3", head_id=entries[2].id)
        with pytest.raises(ConversationConflict):
            await store.write_record(record, expected_revision=None)
        assert {} == db.get_session("c3")
        await add(store, "other", name="c2")
        return (await store.load("c2")).messages

    assert ["one", "two", "other"] == [each.parts[0].content for each in asyncio.run(main())]
    assert ["conversation-record", "user", "user", "user"] == kinds(db, "c2")


def test_ids_that_nothing_tells_the_session_of_are_found(db):
    async def main():
        store = DirectorConversationStore(db)
        db.create_session("another framework's", metadata={"framework": "x"})
        db.create_session("the application's")
        await add(store, "one")
        entries = await store.load_entries("c1")
        record = ConversationRecord(conversation_id="c2", head_id=str(entries[0].id))
        more = ConversationEntry(parent_id=str(entries[0].id), message=said("two"), id="e2")
        record.head_id = more.id
        await store.write_record(record, new_entries=[more], expected_revision=None)
        assert [*entries, more] == await store.load_entries("c2")
        assert more == await store.read_entry("e2")
        for missing in ("e3", "", "\x00"):
            with pytest.raises(LookupError, match="no entry"):
                await store.read_entry(missing)
        assert [] == await store.read_history(None)

    asyncio.run(main())


def test_a_session_that_is_copied_is_a_conversation_of_its_own(db):
    async def main():
        store = DirectorConversationStore(db)
        original = await add(store, "one")
        db.copy_session("c1", "c2")
        copied = await add(store, "two", name="c2")
        assert ("c2", 2) == (copied.conversation_id, len(copied.messages))
        assert original == await store.load("c1")

    asyncio.run(main())


def test_a_session_of_the_application_keeps_what_it_has(db):
    db.create_session("c1", collection_id="x", user_id="u1", metadata={"title": "Sums"})
    db.append_context_messages("c1", ["theirs"])
    db.add_or_update_msg_to_conv("c1", None, "m1", "input", [], [], "theirs")

    async def main():
        store = DirectorConversationStore(db)
        assert await store.load("c1") is None
        assert [] == await store.list_conversations()
        await store.save(talk(*MESSAGES), scope="u2")
        assert MESSAGES == (await store.load("c1")).messages
        return [each.conversation_id for each in await store.list_conversations(scope="u2")]

    assert ["c1"] == asyncio.run(main())
    session = db.get_session("c1")
    assert ("x", {"title": "Sums"}) == (session["collection_id"], session["metadata"])
    assert ["input", "conversation-record"] == kinds(db)[:2]
    assert {"reasoning": ["theirs"]} == db.get_context_messages("c1")


def test_the_latest_saved_come_first_and_no_more_are_read_than_it_takes(tmp_path):
    asked = []

    class AskedDB(SQLiteDB, db_type="asked_for"):
        def _select_sessions(self, query):
            asked.append(query.limit)
            return super()._select_sessions(query)

    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    async def main(db):
        store = DirectorConversationStore(db)
        now = int(start.timestamp())
        for number in range(130):
            # Ten in each second, written in an order that is not theirs.
            moment = start + dt.timedelta(seconds=number * 37 % 130 / 10)
            record = ConversationRecord(
                conversation_id=f"c{number * 37 % 130}", head_id=None, scope="u", updated_at=moment
            )
            db.create_session(record.conversation_id, updated_at=now, user_id="u")
            await store.write_record(record, expected_revision=None)
            db.update_session(record.conversation_id, updated_at=int(moment.timestamp()))
        names = [f"c{number}" for number in reversed(range(130))]
        for limit, reads in ((None, 1), (3, 1), (85, 1), (99, 2), (150, 1), (0, 0)):
            asked.clear()
            found = await store.list_conversations(limit=limit, scope="u")
            assert names[:limit] == [each.conversation_id for each in found], limit
            assert reads == len(asked), limit

    with AskedDB(tmp_path / "director.db") as db:
        asyncio.run(main(db))


@pytest.mark.parametrize(
    ("name", "scope", "content"),
    [("", None, "x"), ("x" * 256, None, "x"), ("c1", "\x00", "x"), ("c1", None, DEEP)],
)
def test_what_cannot_be_stored_is_refused_and_nothing_is(db, name, scope, content):
    part = ToolReturnPart("f", content, tool_call_id="c1")

    async def main():
        store = DirectorConversationStore(db)
        assert await store.load(name) is None
        with pytest.raises(InvalidRecordError):
            await store.save(talk(said("good"), ModelRequest(parts=[part]), name=name), scope=scope)
        await store.delete(name)

    asyncio.run(main())
    assert [] == [each for each in db.get_sessions() if db.get_conversations(each["session_id"])]


@pytest.mark.parametrize("wins", [True, False])
def test_a_cancelled_save_is_carried_through(tmp_path, wins):
    begun, go_on = threading.Event(), threading.Event()

    class HeldDB(SQLiteDB, db_type="held_up"):
        held = False

        def _upsert_guarded(self, *args):
            if self.held:
                if not wins:
                    asyncio.run(add(DirectorConversationStore(twin), "rival"))
                begun.set()
                assert go_on.wait(120)
            return super()._upsert_guarded(*args)

    async def main(db):
        store = DirectorConversationStore(db)
        conversation = await add(store, "early")
        conversation.messages.append(said("once"))
        db.held = True
        saving = asyncio.create_task(store.save(conversation))
        assert await asyncio.to_thread(begun.wait, 120)
        for _ in range(2):
            saving.cancel()
            await asyncio.sleep(0)
        assert not saving.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await saving
        error = cancelled.value
        assert ([CARRIED_OUT] if wins else []) == getattr(error, "__notes__", [])
        assert isinstance(error.__cause__, type(None) if wins else ConversationConflict)
        return [each.parts[0].content for each in (await store.load("c1")).messages]

    with HeldDB(tmp_path / "director.db") as db, SQLiteDB(tmp_path / "director.db") as twin:
        assert ["early", "once" if wins else "rival"] == asyncio.run(main(db))
        assert ["conversation-record", "user", "user"] == kinds(db)  # And nothing of who lost.


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_save_whose_answer_was_lost_is_told_by_its_revision(tmp_path, is_stored):
    class LosingDB(SQLiteDB, db_type="losing"):
        loses = False

        def _upsert_guarded(self, *args):
            if self.loses:
                self.loses = False
                if is_stored:
                    super()._upsert_guarded(*args)
                raise BackendUnavailableError("lost", retryable=True, maybe_applied=True)
            return super()._upsert_guarded(*args)

    async def main(db):
        store = DirectorConversationStore(db)
        conversation = await add(store, "early")
        conversation.messages.append(said("late"))
        db.loses = True
        if is_stored:
            await store.save(conversation)
            assert conversation == await store.load("c1")
        else:
            with pytest.raises(BackendUnavailableError):
                await store.save(conversation)
            await store.save(conversation)  # As it was not stored.
        return len((await store.load("c1")).messages)

    with LosingDB(tmp_path / "director.db") as db:
        assert 2 == asyncio.run(main(db))


def test_a_save_and_a_load_are_two_round_trips_each_and_one_for_the_framework(proxied):
    db, proxy = proxied
    asyncio.run(_count(DirectorConversationStore(db), proxy))


async def _count(store, proxy):
    conversation = await add(store, "early")
    conversation.messages.append(said("late"))
    for call, expected in (
        (store.save(conversation), 3),  # The framework reads the record before that.
        (store.load("c1"), 2),
        (store.load("c1", limit=2), 2),
        (store.fork("c1", new_conversation_id="c2"), 7),
        (store.delete("c1"), 5),
    ):
        with proxy.count() as count:
            await call
        assert expected == count.round_trips, call


def test_an_agent_that_is_killed_in_a_turn_goes_on_in_another_process(program, db):
    first = program("pydantic_ai_agent", "first")
    told = [json.loads(line) for line in iter(first.stdout.readline, '"hanging"\n')]
    first.kill()
    assert -9 == first.wait(60)
    assert [1, 3, 5, 1] == [line for line in told if isinstance(line, int)]
    before = [line for line in told if isinstance(line, list)][-1]
    record, *stored = db.get_conversations("c1")
    assert before == [message["content"] for message in stored]
    roles = ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert roles == [message["msg_type"] for message in stored]
    assert "c2" == record["content"]["deferred_tool_requests"]["approvals"][0]["tool_call_id"]

    second = program("pydantic_ai_agent", "second")
    seen, after, output = map(json.loads, second.communicate(timeout=300)[0].splitlines())
    assert 0 == second.returncode
    assert (7, "Paid.") == (seen, output)
    assert before == after[:6]
    (paid,) = after[6]["parts"]
    assert ("pay", "42.0 paid", "c2") == (paid["tool_name"], paid["content"], paid["tool_call_id"])
    record, *stored = db.get_conversations("c1")
    assert after == [message["content"] for message in stored]
    assert [*roles, "tool", "assistant"] == [message["msg_type"] for message in stored]
    assert ("u1", None) == (record["content"]["scope"], record["content"]["deferred_tool_requests"])
