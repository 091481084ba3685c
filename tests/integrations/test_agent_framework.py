"""The history provider of Microsoft's Agent Framework in director-db."""

from __future__ import annotations

import asyncio
import functools
import json

import pytest
from agent_framework import (
    AgentResponse,
    AgentSession,
    Content,
    HistoryProvider,
    Message,
    SessionContext,
)

from director_db import InvalidRecordError, SessionNotFoundError
from director_db.asyncio import AsyncDB
from director_db_integrations.agent_framework import DirectorHistoryProvider
from director_db_sqlite import SQLiteDB

ARGUMENTS = {"b": 1.0, "a": [None, True, -0.0, 1e16, "\x00"]}
MESSAGES = [
    Message("system", ["Be brief."]),
    Message(
        "user",
        ["Grüße \ud83d\x00", Content.from_data(bytes(range(256)), "image/png")],
        author_name="Ann",
        additional_properties={"z": 1, "a": 1.0},
    ),
    Message(
        "assistant",
        [
            Content.from_text_reasoning(text="hm", protected_data="gAAAAAB\u2028é=="),
            Content.from_function_call("c1", "f", arguments=ARGUMENTS),
            Content.from_function_call("c2", "f", arguments='{"b": 1,  "a":2}'),
        ],
        message_id="msg_1",
    ),
    Message(
        "tool",
        [
            Content.from_function_result("c1", result="42"),
            Content.from_function_result("c2", result=[Content.from_data(b"\xff", "audio/wav")]),
        ],
    ),
    Message("assistant", ["42", Content.from_uri("https://x/y.png", media_type="image/png")]),
]
DEEP = functools.reduce(lambda inner, _: [inner], range(201), 1)


def said(text, role="user", **fields):
    return Message(role, [text], **fields)


def plain(messages):
    return [message.to_dict() for message in messages]


def texts(messages):
    return [message.text for message in messages]


def test_messages_come_back_equal(db):
    async def main():
        await DirectorHistoryProvider(db=db).save_messages("s1", MESSAGES)
        return await DirectorHistoryProvider().get_messages("s1")

    loaded = asyncio.run(main())
    assert json.dumps(plain(MESSAGES)) == json.dumps(plain(loaded))
    assert [each.contents for each in MESSAGES] == [each.contents for each in loaded]


def test_from_outside_they_are_messages(db):
    asyncio.run(DirectorHistoryProvider("mine", db).save_messages("s1", MESSAGES))
    assert {"framework": "agent-framework"} == db.get_session("s1")["metadata"]
    messages = db.get_conversations("s1")
    roles = ["system", "user", "assistant", "tool", "assistant"]
    assert roles == [message["msg_type"] for message in messages]
    assert plain(MESSAGES) == [message["content"] for message in messages]
    names = [message["msg_id"].rpartition(":")[0] for message in messages]
    assert ["", "", "msg_1", "", ""] == names
    assert {"mine"} == {message["conv_id"] for message in messages}
    assert ["Ann"] == messages[1]["agents"]


def test_providers_of_one_session_have_histories_of_their_own(db):
    async def main():
        mine, audit = DirectorHistoryProvider("mine", db), DirectorHistoryProvider("audit", db)
        await mine.save_messages("s1", [said("one")])
        await audit.save_messages("s1", [said("one"), said("two")])
        await mine.save_messages("s2", [said("other")])
        db.add_or_update_msg_to_conv("s1", None, "m1", "input", [], [], "the application's")
        return texts(await mine.get_messages("s1")), texts(await audit.get_messages("s1"))

    assert (["one"], ["one", "two"]) == asyncio.run(main())


def test_it_takes_its_place_in_a_run(db):
    """As an agent does: what was said is loaded, and what is said is stored, as the flags tell."""

    async def run(provider, session, question, answer):
        state = session.state.setdefault(provider.source_id, {})
        context = SessionContext(session_id=session.session_id, input_messages=[said(question)])
        await provider.before_run(agent=None, session=session, context=context, state=state)
        context._response = AgentResponse(messages=[said(answer, "assistant")])
        await provider.after_run(agent=None, session=session, context=context, state=state)
        return texts(context.get_messages(sources={provider.source_id}))

    async def main():
        provider = DirectorHistoryProvider(db=db)
        assert isinstance(provider, HistoryProvider)
        assert "director_db" == provider.source_id
        session = AgentSession(session_id="s1")
        assert [] == await run(provider, session, "one", "1")
        assert ["one", "1"] == await run(provider, session, "two", "2")
        # Its state goes with the session, and is JSON.
        session = AgentSession.from_dict(json.loads(json.dumps(session.to_dict())))
        assert ["one", "1", "two", "2"] == await run(provider, session, "three", "3")
        outputs = DirectorHistoryProvider("outputs", db, store_inputs=False)
        assert [] == await run(outputs, session, "four", "4")
        db.delete_session("s1")
        with pytest.raises(SessionNotFoundError):
            await run(provider, session, "late", "5")
        return db.get_session("s1")

    assert {} == asyncio.run(main())


def test_a_transcript_that_is_given_again_is_stored_once(db):
    async def main():
        provider = DirectorHistoryProvider(db=db)
        await provider.save_messages("s1", [said("one"), said("1", "assistant")])
        whole = [said("one"), said("1", "assistant"), said("two"), said("2", "assistant")]
        await provider.save_messages("s1", whole)
        await provider.save_messages("s1", whole[2:])
        await provider.save_messages("s1", [*whole, said("three")])
        # What only looks alike is another message.
        await provider.save_messages("s1", [said("three")])
        await provider.save_messages("s1", [said("4", "assistant", message_id="m4")])
        await provider.save_messages("s1", [said("4", "assistant", message_id="m5")])
        await provider.save_messages("s1", [])
        return texts(await provider.get_messages("s1"))

    assert ["one", "1", "two", "2", "three", "three", "4", "4"] == asyncio.run(main())


def test_no_more_is_read_than_it_takes(tmp_path):
    asked = []

    class AskedDB(SQLiteDB, db_type="asked_about"):
        def _select_messages(self, query):
            asked.append(query.limit)
            return super()._select_messages(query)

    async def main(db):
        provider = DirectorHistoryProvider(db=db)
        for number in range(3):
            await provider.save_messages("s1", [said(f"{number}"), said("x", "assistant")])
        await provider.get_messages("s1")

    with AskedDB(tmp_path / "director.db") as db:
        asyncio.run(main(db))
    assert [3, 3, 3, None] == asked


def test_messages_are_stored_all_or_none(db):
    async def main():
        provider = DirectorHistoryProvider(db=db)
        bad = said("bad", additional_properties={"deep": DEEP})
        with pytest.raises(InvalidRecordError, match=r"messages\[1\]\.content"):
            await provider.save_messages("s1", [said("good"), bad])
        assert [] == await provider.get_messages("s1")
        await provider.save_messages("s1", [said("usable")])
        with pytest.raises(InvalidRecordError):
            await provider.save_messages("s1", [said("good"), bad])
        return texts(await provider.get_messages("s1"))

    assert ["usable"] == asyncio.run(main())


def test_what_writers_store_at_once_stays_together(db):
    async def main():
        batches = [[said(f"{batch} {part}") for part in "abc"] for batch in range(20)]
        providers = [DirectorHistoryProvider(db=AsyncDB(db)) for _ in range(4)]
        await asyncio.gather(  # All of the first find that there is none.
            *[
                providers[number % 4].save_messages("s1", batch)
                for number, batch in enumerate(batches)
            ]
        )
        stored = texts(await providers[0].get_messages("s1"))
        return [texts(batch) for batch in batches], [
            stored[at : at + 3] for at in range(0, len(stored), 3)
        ]

    batches, stored = asyncio.run(main())
    assert batches == sorted(stored, key=batches.index)


def test_a_session_that_is_deleted_meanwhile_is_not_brought_back(db):
    async def main():
        provider, stored, loaded = DirectorHistoryProvider(db=db), {}, {}
        await provider.save_messages("s1", [said("early")], state=stored)
        assert ["early"] == texts(await provider.get_messages("s1", state=loaded))
        db.delete_session("s1")
        for state in (stored, loaded):
            with pytest.raises(SessionNotFoundError):
                await provider.save_messages("s1", [said("late")], state=state)
        assert {} == db.get_session("s1")
        await provider.save_messages("s1", [said("anew")], state={})
        return texts(await provider.get_messages("s1"))

    assert ["anew"] == asyncio.run(main())


def test_a_session_that_is_deleted_between_reading_and_writing_is_not_brought_back(tmp_path):
    class GoingDB(SQLiteDB, db_type="going_away"):
        going = True

        def _upsert_messages(self, *args):
            if self.going:
                self.going = False
                twin.delete_session("s1")
            return super()._upsert_messages(*args)

    async def main(db):
        await DirectorHistoryProvider(db=twin).save_messages("s1", [said("early")])
        with pytest.raises(SessionNotFoundError):
            await DirectorHistoryProvider(db=db).save_messages("s1", [said("late")])
        return db.get_session("s1")

    with GoingDB(tmp_path / "director.db") as db, SQLiteDB(tmp_path / "director.db") as twin:
        assert {} == asyncio.run(main(db))


def test_a_session_of_the_application_keeps_what_it_has(db):
    db.create_session("s1", user_id="u1", metadata={"title": "Sums"})
    asyncio.run(DirectorHistoryProvider(db=db).save_messages("s1", MESSAGES))
    session = db.get_session("s1")
    assert ("u1", {"title": "Sums"}) == (session["user_id"], session["metadata"])


def test_without_a_session_it_is_the_default_one(db):
    async def main():
        provider = DirectorHistoryProvider(db=db, skip_excluded=True)
        excluded = said("2", "assistant", additional_properties={"_excluded": True})
        await provider.save_messages(None, [said("one"), excluded])
        return texts(await provider.get_messages(None))

    assert ["one"] == asyncio.run(main())
    assert 2 == len(db.get_conversations("default"))


@pytest.mark.parametrize(
    ("made", "step"), [(True, 1), (True, 2), (False, 1), (False, 2), (False, 3), (False, 4)]
)
def test_a_cancelled_save_is_stored_when_it_is_told_and_remembered(
    made, step, stored_though_cancelled
):
    state, providers = {}, []

    def saving(db):
        providers.append(DirectorHistoryProvider(db=db))
        return providers[0].save_messages("s1", [said("once")], state=state)

    def given(db):
        if made:
            db.create_session("s1")

    def then(db):
        assert ["once"] == texts(asyncio.run(providers[0].get_messages("s1")))
        db.delete_session("s1")
        with pytest.raises(SessionNotFoundError):
            asyncio.run(providers[0].save_messages("s1", [said("late")], state=state))

    assert 1 == len(stored_though_cancelled(saving, step=step, given=given, then=then))


def test_a_load_is_one_round_trip_and_a_save_two(proxied):
    db, proxy = proxied
    asyncio.run(_count(DirectorHistoryProvider(db=db), proxy))


async def _count(provider, proxy):
    await provider.save_messages("s1", MESSAGES)  # creates
    for call, expected in (
        (provider.save_messages("s1", [said("next")]), 2),
        (provider.get_messages("s1"), 1),
    ):
        with proxy.count() as count:
            await call
        assert expected == count.round_trips


def test_an_agent_that_is_killed_in_a_turn_goes_on_in_another_process(program, db):
    first = program("agent_framework_agent", "first")
    told = [json.loads(line) for line in iter(first.stdout.readline, '"hanging"\n')]
    first.kill()
    assert -9 == first.wait(60)
    assert [1, 3, "42", 5] == told
    before = db.get_conversations("s1")
    roles = ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert roles == [message["msg_type"] for message in before]
    contents = [message["content"]["contents"] for message in before]
    assert "data:image/png;base64,iVBORwD/" == contents[0][1]["uri"]
    thinking, call = contents[1]
    assert "gAAAAAB\u2028é==" == thinking["protected_data"]
    assert ("c1", {"one": 6, "other": 7}) == (call["call_id"], call["arguments"])
    assert ("42", "c2") == (contents[2][0]["result"], contents[5][0]["call_id"])

    second = program("agent_framework_agent", "second")
    told = [json.loads(line) for line in second.communicate(timeout=300)[0].splitlines()]
    assert 0 == second.returncode
    assert [7, "42, as I said."] == told
    after = db.get_conversations("s1")
    assert before == after[:6]
    assert ["user", "assistant"] == [message["msg_type"] for message in after[6:]]
