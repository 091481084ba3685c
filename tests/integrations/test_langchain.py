"""Chat message histories of LangChain in director-db."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
    message_to_dict,
    messages_from_dict,
    messages_to_dict,
)
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from pydantic import BaseModel

from director_db import BackendUnavailableError, InvalidRecordError, SessionNotFoundError
from director_db.asyncio import AsyncDB, load_db
from director_db_integrations.langchain import DirectorChatMessageHistory
from director_db_sqlite import SQLiteDB

CALL = {"name": "f", "args": {"b": 1, "a": 2.0, "z": -0.0}, "id": "c1", "type": "tool_call"}
BROKEN = {"name": "f", "args": "{", "id": "c2", "error": "cut", "type": "invalid_tool_call"}
USAGE = {
    "input_tokens": 1,
    "output_tokens": 2,
    "total_tokens": 3,
    "input_token_details": {"cache_read": 1},
}
AS_THE_PROVIDER_HAS_IT = {
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
}
CHUNKS = [
    AIMessageChunk("", tool_call_chunks=[{"name": "f", "args": '{"a":', "id": "c1", "index": 0}]),
    AIMessageChunk("", tool_call_chunks=[{"name": None, "args": "1}", "id": None, "index": 0}]),
]
MESSAGES = [
    SystemMessage("Grüße \ud83d \x00"),
    HumanMessage(
        ["Look", {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}],
        name="Ann",
        additional_kwargs={"z": [1, 1.0, -0.0, 1e16, None, True], "a": {}},
    ),
    AIMessage(
        [{"type": "thinking", "thinking": "…", "signature": "é=="}, {"type": "text", "text": "x"}],
        id="run-1",
        tool_calls=[CALL],
        invalid_tool_calls=[BROKEN],
        usage_metadata=USAGE,
        response_metadata={"logprobs": None, "model_name": "m"},
    ),
    ToolMessage("2", tool_call_id="c1", id="t1", name="f", status="error", artifact={"rows": [1]}),
    ToolMessage("", tool_call_id="c1", artifact=Document("p", id="d1", metadata={"k": 1.0})),
    ToolMessage("", tool_call_id="c1", artifact=[Document("p"), Document("q")]),
    # As it is: LangChain would make tool calls of what the provider has.
    AIMessage("", additional_kwargs=AS_THE_PROVIDER_HAS_IT),
    AIMessage("", additional_kwargs=AS_THE_PROVIDER_HAS_IT).model_copy(update={"tool_calls": []}),
    AIMessage("more than LangChain knows", its_own=[1]),
    AIMessage(content_blocks=[{"type": "text", "text": "a"}]),
    FunctionMessage("2", name="f"),
    ChatMessage("no", role="critic"),
    RemoveMessage(id="run-1"),
    *CHUNKS,
    CHUNKS[0] + CHUNKS[1],
    AIMessageChunk("end", chunk_position="last", usage_metadata=USAGE),
    HumanMessageChunk("h"),
    SystemMessageChunk("s"),
    ToolMessageChunk("t", tool_call_id="c1"),
    FunctionMessageChunk("f", name="f"),
    ChatMessageChunk("c", role="critic"),
]


class Sync:
    """A history through the methods of LangChain that are no coroutines."""

    def __init__(self, *args, **options):
        self.history = DirectorChatMessageHistory(*args, **options)

    def add(self, messages):
        self.history.add_messages(messages)

    def get(self):
        return self.history.messages

    def clear(self):
        self.history.clear()


class Async(Sync):
    """The same through those that are."""

    def add(self, messages):
        asyncio.run(self.history.aadd_messages(messages))

    def get(self):
        return asyncio.run(self.history.aget_messages())

    def clear(self):
        asyncio.run(self.history.aclear())


faces = pytest.mark.parametrize("face", [Sync, Async])


@faces
def test_all_messages_come_back_equal_and_in_order(face, db):
    face("s1", db).add(MESSAGES)
    came = face("s1", db).get()
    assert MESSAGES == came
    assert [type(message) for message in MESSAGES] == [type(message) for message in came]
    # The keys of dicts too, whose order is no part of equality.
    plain = [message for message in MESSAGES if not getattr(message, "artifact", None)]
    assert json.dumps(messages_to_dict(plain)) == json.dumps(
        messages_to_dict([message for message in came if not getattr(message, "artifact", None)])
    )


def test_from_outside_they_are_messages_as_langchain_writes_them(db):
    history = DirectorChatMessageHistory("s1", db)
    history.add_user_message("Hi")
    history.add_ai_message(MESSAGES[2])
    history.add_messages([MESSAGES[3], ChatMessage("no", role="critic", id="x" * 500)])
    assert {"framework": "langchain"} == db.get_session("s1")["metadata"]
    stored = db.get_conversations("s1")
    assert ["human", "ai", "tool", "chat"] == [message["msg_type"] for message in stored]
    assert message_to_dict(MESSAGES[2]) == stored[1]["content"]
    assert history.messages == messages_from_dict([message["content"] for message in stored])
    names = [message["msg_id"].rpartition(":")[0] for message in stored]
    assert ["", "run-1", "t1", ""] == names


def test_without_a_database_it_is_the_one_that_the_environment_names(db):
    DirectorChatMessageHistory("s1").add_messages(MESSAGES)
    DirectorChatMessageHistory("s1", load_db()).add_messages(MESSAGES)
    assert 2 * len(MESSAGES) == len(db.get_conversations("s1"))


def test_a_message_that_comes_twice_is_there_twice(db):
    message = AIMessage("once more", id="run-1")
    history = DirectorChatMessageHistory("s1", db)
    history.add_messages([message, HumanMessage("between"), message])
    history.add_message(message)
    assert [message, HumanMessage("between"), message, message] == history.messages


class Parsed(BaseModel):
    """What a provider's package may put into a message."""

    answer: int


class OfSomebodyElse(HumanMessage):
    """It would come back as a HumanMessage."""


def would_not_come_back():
    """Messages, and where in them stands what would not."""
    kwargs, within = "content.data.additional_kwargs", "content.data.artifact"
    yield HumanMessage("", additional_kwargs={"n": object()}), f".{kwargs}.n"
    yield AIMessage("", additional_kwargs={"parsed": Parsed(answer=1)}), f".{kwargs}.parsed"
    yield AIMessage("", response_metadata={"at": {1}}), ".content.data.response_metadata.at"
    mixed, dated = [Document("p"), Parsed(answer=1)], Document("p", metadata={"at": {1}})
    yield ToolMessage("", tool_call_id="c", artifact=mixed), f".{within}[0]"
    yield ToolMessage("", tool_call_id="c", artifact=dated), f".{within}.metadata.at"
    yield OfSomebodyElse("x"), ""
    yield "Hi", ""


@faces
def test_what_would_not_come_back_is_refused_and_nothing_is_stored(face, db):
    for message, path in would_not_come_back():
        with pytest.raises(InvalidRecordError) as refused:
            face("s1", db).add([HumanMessage("good"), message])
        assert f"messages[1]{path}" == refused.value.path
    face("s1", db).add([])
    assert {} == db.get_session("s1")
    db.create_session("s1")
    for message, _ in would_not_come_back():
        with pytest.raises(InvalidRecordError):
            face("s1", db).add([HumanMessage("good"), message])
    assert [] == face("s1", db).get()


@faces
def test_a_limit_reads_the_latest_and_no_more(face, tmp_path):
    asked = []

    class AskedDB(SQLiteDB, db_type="asked"):
        def _select_messages(self, query):
            asked.append(query.limit)
            return super()._select_messages(query)

    with AskedDB(tmp_path / "director.db") as db:
        messages = [HumanMessage(str(number)) for number in range(5)]
        face("s1", db).add(messages)
        assert messages[3:] == face("s1", db, limit=2).get()
        assert messages == face("s1", db, limit=9).get()
        assert messages == face("s1", db).get()
        assert [2, 9, None] == asked
        with pytest.raises(InvalidRecordError, match="limit"):
            face("s1", db, limit=0).get()


@faces
def test_clearing_leaves_the_session(face, db):
    db.create_session("s1", user_id="u1", metadata={"title": "Sums"})
    history, other = face("s1", db), face("s2", db)
    history.clear()
    assert [] == history.get()
    history.add(MESSAGES)
    other.add(MESSAGES)
    db.append_context_messages("s1", ["theirs"])
    history.clear()
    assert [] == history.get()
    assert MESSAGES == other.get()
    assert {"reasoning": ["theirs"]} == db.get_context_messages("s1")
    history.add([HumanMessage("again")])
    assert [HumanMessage("again")] == history.get()
    session = db.get_session("s1")
    assert ("u1", {"title": "Sums"}) == (session["user_id"], session["metadata"])


def test_what_writers_add_at_once_stays_together(db):
    batches = [[HumanMessage(f"{batch} {part}") for part in "abc"] for batch in range(16)]

    async def all_of(some):
        await asyncio.gather(
            *[DirectorChatMessageHistory("s1", AsyncDB(db)).aadd_messages(each) for each in some]
        )

    # All find that there is no session.
    adding = [
        threading.Thread(target=DirectorChatMessageHistory("s1", db).add_messages, args=[batch])
        for batch in batches[8:]
    ]
    for thread in adding:
        thread.start()
    asyncio.run(all_of(batches[:8]))
    for thread in adding:
        thread.join(120)
    stored = DirectorChatMessageHistory("s1", db).messages
    together = [stored[at : at + 3] for at in range(0, len(stored), 3)]
    assert batches == sorted(together, key=batches.index)


@faces
def test_a_session_that_is_deleted_meanwhile_is_not_brought_back(face, db):
    writer, reader = face("s1", db), face("s1", db)
    writer.add([HumanMessage("early")])
    assert [HumanMessage("early")] == reader.get()
    db.delete_session("s1")
    for history in (writer, reader):
        with pytest.raises(SessionNotFoundError):
            history.add([AIMessage("late")])
    assert {} == db.get_session("s1")
    face("s1", db).add([HumanMessage("anew")])
    assert [HumanMessage("anew")] == face("s1", db).get()


@pytest.mark.parametrize("step", [1, 2, 3])  # Of storing, creating the session, storing.
def test_a_cancelled_call_is_carried_to_its_end(step, stored_though_cancelled):
    histories = []

    def adding(db: Any):
        histories.append(DirectorChatMessageHistory("s1", db))
        return histories[0].aadd_messages([HumanMessage("once")])

    def deleted(db: Any):
        db.delete_session("s1")
        with pytest.raises(SessionNotFoundError):
            histories[0].add_messages([HumanMessage("late")])

    stored = stored_though_cancelled(adding, step=step, given=lambda _: None, then=deleted)
    assert [message_to_dict(HumanMessage("once"))] == stored


def test_messages_whose_answer_was_lost_are_stored_once(proxied):
    db, proxy = proxied
    for face in (Sync, Async):
        history = face(face.__name__, db)
        history.add([HumanMessage("a")])
        proxy.cut_after(0)
        history.add([HumanMessage("b"), AIMessage("c")])
        assert ["a", "b", "c"] == [message.content for message in history.get()]


def test_what_was_cleared_before_its_loss_is_told_is_not_stored_again(tmp_path):
    class LosingDB(SQLiteDB, db_type="losing_langchain"):
        losses = 1

        def _upsert_messages(self, *args):
            stored = super()._upsert_messages(*args)
            if not self.losses:
                return stored
            self.losses -= 1
            self._delete_messages("s1")
            raise BackendUnavailableError("lost", retryable=True, maybe_applied=True)

    with LosingDB(tmp_path / "director.db") as db:
        db.create_session("s1")
        history = DirectorChatMessageHistory("s1", db)
        with pytest.raises(BackendUnavailableError) as lost:
            history.add_messages([HumanMessage("a")])
        assert lost.value.maybe_applied
        assert [] == history.messages


@faces
def test_what_others_have_in_the_session_is_no_message_of_langchain(face, db):
    history = face("s1", db, limit=2)
    history.add([HumanMessage("a"), AIMessage("b")])
    db.add_or_update_msg_to_conv("s1", None, "m1", "progress", [], [], 50)
    db.add_or_update_msg_to_conv("s1", "theirs", "m2", "human", [], [], {"type": "human"})
    assert [HumanMessage("a"), AIMessage("b")] == history.get()
    assert ["langchain", "langchain", None, "theirs"] == [
        message["conv_id"] for message in db.get_conversations("s1")
    ]
    history.clear()  # All, in one step.
    assert [] == db.get_conversations("s1")


def test_tuples_come_back_as_lists(db):
    history = DirectorChatMessageHistory("s1", db)
    history.add_messages([ToolMessage("", tool_call_id="c1", artifact={"rows": [(1, "a")]})])
    assert {"rows": [[1, "a"]]} == history.messages[0].artifact


def test_each_call_is_one_round_trip(proxied):
    db, proxy = proxied
    for face in (Sync, Async):
        history = face("s1", db, limit=3)
        history.add(MESSAGES)  # creates
        for call in (lambda: history.add(MESSAGES), history.get, history.clear):  # noqa: B023
            with proxy.count() as count:
                call()
            assert 1 == count.round_trips


@faces
@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory")
def test_a_runnable_with_a_history_stores_its_turns(face, limit, db):
    chain = RunnableWithMessageHistory(
        RunnableLambda(lambda messages: AIMessage(" ".join(each.content for each in messages))),
        lambda session_id: DirectorChatMessageHistory(session_id, limit=limit),
    )
    config = {"configurable": {"session_id": "s1"}}
    answers = []
    for text in ("a", "b", "c"):
        if face is Async:
            answers.append(asyncio.run(chain.ainvoke(text, config)).content)
        else:
            answers.append(chain.invoke(text, config).content)
    expected = ["a", "a a b", "a a b a a b c" if limit is None else "b a a b c"]
    assert expected == answers
    turns = [text for pair in zip("abc", expected, strict=True) for text in pair]
    stored = DirectorChatMessageHistory("s1", db).messages
    assert turns == [message.content for message in stored]
    assert ["human", "ai"] * 3 == [message.type for message in stored]


def test_a_chain_that_is_killed_in_a_turn_goes_on_in_another_process(program, db):
    first = program("langchain_agent", "first")
    assert '"hanging"\n' == first.stdout.readline()
    first.kill()
    assert -9 == first.wait(60)
    kept = turn("6 times 7?", "c1", {"one": 6, "other": 7}, "42", 2)
    history = DirectorChatMessageHistory("s1", db)
    assert kept == history.messages  # LangChain gives a turn to the history when it has ended.

    second = program("langchain_agent", "second")
    lines = second.communicate(timeout=300)[0].splitlines()
    assert 0 == second.returncode
    asked = HumanMessage("And twice that?")
    assert [*kept, asked] == messages_from_dict(json.loads(lines[0]))
    assert [
        *kept,
        *turn("And twice that?", "c4", {"one": 42, "other": 2}, "84", 5),
    ] == history.messages
    stored = db.get_conversations("s1", limit=4)
    assert ["human", "ai", "tool", "ai"] == [message["msg_type"] for message in stored]


def turn(question, call_id, arguments, answer, number):
    call = {"name": "multiply", "args": arguments, "id": call_id, "type": "tool_call"}
    return [
        HumanMessage(question),
        AIMessage("", tool_calls=[call], id=f"run-{call_id}"),
        ToolMessage(answer, name="multiply", tool_call_id=call_id),
        AIMessage(answer, id=f"run-{number}"),
    ]
