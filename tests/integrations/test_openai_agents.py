"""Sessions of the OpenAI Agents SDK in director-db."""

from __future__ import annotations

import asyncio
import json
from operator import methodcaller

import pytest
from agents.memory import Session, SessionSettings

from director_db import InvalidRecordError, SessionNotFoundError
from director_db.asyncio import AsyncDB, load_db
from director_db_integrations.openai_agents import DirectorSession
from director_db_sqlite import SQLiteDB

# As the SDK stores them, and what JSON can hold besides.
ITEMS = [
    {"role": "user", "content": "Grüße \ud83d \x00"},
    {"id": "rs_1", "summary": [], "type": "reasoning", "encrypted_content": "gAAAAAB\u2028é=="},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"b":1,"a":2.0}'},
    {"call_id": "c1", "output": [1, 1.0, -0.0, 1e16, None, True], "type": "function_call_output"},
    {"id": "msg_1", "role": "assistant", "content": [{"text": "hi"}], "type": "message"},
]


def said(text):
    return {"role": "user", "content": text}


def test_it_keeps_the_protocol():
    assert isinstance(DirectorSession("s1"), Session)


def test_items_come_back_byte_for_byte_and_in_order(db):
    async def main():
        await DirectorSession("s1", db).add_items(ITEMS)
        return await DirectorSession("s1", db).get_items()

    assert json.dumps(ITEMS) == json.dumps(asyncio.run(main()))


def test_from_outside_they_are_messages(db):
    asyncio.run(DirectorSession("s1", db).add_items(ITEMS))
    assert {"framework": "openai-agents"} == db.get_session("s1")["metadata"]
    messages = db.get_conversations("s1")
    kinds = ["user", "reasoning", "function_call", "function_call_output", "assistant"]
    assert kinds == [message["msg_type"] for message in messages]
    assert ITEMS == [message["content"] for message in messages]
    names = [message["msg_id"].rpartition(":")[0] for message in messages]
    assert ["", "rs_1", "", "", "msg_1"] == names


def test_without_a_database_it_is_the_one_that_the_environment_names(db):
    asyncio.run(DirectorSession("s1").add_items(ITEMS))
    assert len(ITEMS) == len(db.get_conversations("s1"))
    asyncio.run(DirectorSession("s1", load_db()).add_items(ITEMS))
    assert 2 * len(ITEMS) == len(db.get_conversations("s1"))


@pytest.mark.parametrize("name", ["x", "é" * 500, "\ud800", "\x00", "", 7])
def test_an_item_that_comes_twice_is_there_twice(db, name):
    item = {"id": name, "role": "assistant", "content": "once more"}

    async def main():
        session = DirectorSession("s1", db)
        await session.add_items([item, said("between"), item])
        await session.add_items([item])
        return await session.get_items()

    assert [item, said("between"), item, item] == asyncio.run(main())


def test_items_are_stored_all_or_none(db):
    async def main():
        session = DirectorSession("s1", db)
        with pytest.raises(InvalidRecordError, match=r"messages\[1\]\.content\.content"):
            await session.add_items([said("good"), said(object())])
        assert {} == db.get_session("s1")
        with pytest.raises(InvalidRecordError, match=r"items\[1\].*NoneType"):
            await session.add_items([said("good"), None])
        await session.add_items([])
        assert {} == db.get_session("s1")
        await session.add_items([said("usable")])
        with pytest.raises(InvalidRecordError):
            await session.add_items([said("good"), said({1})])
        return await session.get_items()

    assert [said("usable")] == asyncio.run(main())


def test_a_limit_reads_the_latest_and_no_more(tmp_path):
    asked = []

    class AskedDB(SQLiteDB, db_type="asked"):
        def _select_messages(self, query):
            asked.append(query.limit)
            return super()._select_messages(query)

    async def main(db):
        session = DirectorSession("s1", db, session_settings={"limit": 2})
        assert SessionSettings(limit=2) == session.session_settings
        items = [said(str(number)) for number in range(5)]
        await session.add_items(items)
        assert items[3:] == await session.get_items()
        assert items[1:] == await session.get_items(limit=4)
        assert items == await session.get_items(limit=9)
        assert [] == await session.get_items(limit=0)
        assert [] == await session.get_items(limit=-1)
        session.session_settings = None
        assert items == await session.get_items()
        assert [2, 4, 9, None] == asked

    with AskedDB(tmp_path / "director.db") as db:
        asyncio.run(main(db))
    with pytest.raises(TypeError, match="limitt"):
        DirectorSession("s1", db, session_settings={"limitt": 2})


def test_popping_takes_the_last_and_clearing_all(db):
    async def main():
        session, other = DirectorSession("s1", db), DirectorSession("s2", db)
        assert await session.pop_item() is None
        assert [] == await session.get_items()
        await session.add_items(ITEMS)
        await other.add_items(ITEMS)
        assert ITEMS[-1] == await session.pop_item()
        assert ITEMS[:-1] == await session.get_items()
        db.append_context_messages("s1", ["theirs"])
        await session.clear_session()
        assert [] == await session.get_items()
        assert await session.pop_item() is None
        assert ITEMS == await other.get_items()
        await session.add_items([said("again")])
        assert [said("again")] == await session.get_items()

    asyncio.run(main())
    assert {"reasoning": ["theirs"]} == db.get_context_messages("s1")


def test_workers_that_pop_at_once_never_get_the_same(db):
    items = [said(str(number)) for number in range(40)]

    async def main():
        await DirectorSession("s1", db).add_items(items)
        workers = [DirectorSession("s1", AsyncDB(db)) for _ in range(8)]
        popped = await asyncio.gather(*[worker.pop_item() for worker in workers * 6])
        return sorted(int(item["content"]) for item in popped if item)

    assert list(range(40)) == asyncio.run(main())


def test_what_writers_add_at_once_stays_together(db):
    async def main():
        batches = [[said(f"{batch} {part}") for part in "abc"] for batch in range(20)]
        sessions = [DirectorSession("s1", db) for _ in batches]  # All find that there is none.
        await asyncio.gather(
            *[each.add_items(batch) for each, batch in zip(sessions, batches, strict=True)]
        )
        items = await sessions[0].get_items()
        return batches, [items[at : at + 3] for at in range(0, len(items), 3)]

    batches, stored = asyncio.run(main())
    assert batches == sorted(stored, key=batches.index)


def test_a_session_that_is_deleted_meanwhile_is_not_brought_back(db):
    async def main():
        session = DirectorSession("s1", db)
        await session.add_items([said("early")])
        db.delete_session("s1")
        with pytest.raises(SessionNotFoundError):
            await session.add_items([said("late")])
        assert {} == db.get_session("s1")
        await DirectorSession("s1", db).add_items([said("anew")])
        return await session.get_items()

    assert [said("anew")] == asyncio.run(main())


@pytest.mark.parametrize("look", ["get_items", "pop_item"])
def test_one_that_was_read_and_is_deleted_meanwhile_is_not_brought_back(db, look):
    """Who makes an object for each request reads first, and stores at the end of the run."""

    async def main():
        await DirectorSession("s1", db).add_items([said("early")])
        session = DirectorSession("s1", db)
        await getattr(session, look)()
        db.delete_session("s1")
        with pytest.raises(SessionNotFoundError):
            await session.add_items([said("late")])

    asyncio.run(main())
    assert {} == db.get_session("s1")


def test_a_session_of_the_application_keeps_what_it_has(db):
    db.create_session("s1", user_id="u1", metadata={"title": "Sums"})
    asyncio.run(DirectorSession("s1", db).add_items(ITEMS))
    session = db.get_session("s1")
    assert ("u1", {"title": "Sums"}) == (session["user_id"], session["metadata"])


def test_a_cancelled_call_is_stored_when_it_is_told(stored_though_cancelled):
    adding = lambda db: DirectorSession("s1", db).add_items([said("once")])  # noqa: E731
    assert [said("once")] == stored_though_cancelled(adding)


@pytest.mark.parametrize(("given", "step"), [("s1", 1), ("other", 2), ("other", 3)])
def test_one_that_was_cancelled_and_stored_is_not_brought_back(
    stored_though_cancelled, given, step
):
    """Whether its session was there, or the call has created it."""
    sessions = []

    def adding(db):
        sessions.append(DirectorSession("s1", db))
        return sessions[0].add_items([said("once")])

    def then(db):
        assert db.delete_session("s1").success
        with pytest.raises(SessionNotFoundError):
            asyncio.run(sessions[0].add_items([said("late")]))

    stored = stored_though_cancelled(
        adding, step=step, given=methodcaller("create_session", given), then=then
    )
    assert [said("once")] == stored


def test_each_call_is_one_round_trip(proxied):
    db, proxy = proxied
    asyncio.run(_count(DirectorSession("s1", db), proxy))


async def _count(session, proxy):
    await session.add_items(ITEMS)  # creates
    for call, expected in (
        (session.add_items(ITEMS), 1),
        (session.get_items(), 1),
        (session.get_items(limit=2), 1),
        (session.pop_item(), 1),
        (session.clear_session(), 1),
        (session.add_items(ITEMS), 1),
    ):
        with proxy.count() as count:
            await call
        assert expected == count.round_trips


def test_an_agent_that_is_killed_in_a_turn_goes_on_in_another_process(program, db):
    first = program("openai_agents_agent", "first")
    assert '"hanging"\n' == first.stdout.readline()
    first.kill()
    assert -9 == first.wait(60)
    asked = [said("6 times 7?"), said("And twice that?"), said("What was it?")]
    calls = [
        {"arguments": arguments, "call_id": call, "name": "multiply", "type": "function_call"}
        | {"id": f"fc_{call}"}
        for call, arguments in (("c1", '{"one":6,"other":7}'), ("c2", '{"one":42,"other":2}'))
    ]
    outputs = [
        {"call_id": call, "output": output, "type": "function_call_output"}
        for call, output in (("c1", "42"), ("c2", "84"))
    ]
    before = [asked[0], ITEMS[1], calls[0], outputs[0], answer("42", 1)]
    before += [asked[1], calls[1], outputs[1]]
    stored = db.get_conversations("s1")
    assert before == [message["content"] for message in stored]

    second = program("openai_agents_agent", "second")
    lines = second.communicate(timeout=300)[0].splitlines()
    assert 0 == second.returncode
    assert [*before, asked[2]] == json.loads(lines[0])
    assert [*before, asked[2], answer("It was 84.", 2)] == json.loads(lines[1])
    stored = db.get_conversations("s1", limit=2)
    assert ["user", "assistant"] == [message["msg_type"] for message in stored]


def answer(text, number):
    content = [{"annotations": [], "text": text, "type": "output_text", "logprobs": []}]
    return {
        "id": f"msg_{number}",
        "content": content,
        "role": "assistant",
        "status": "completed",
        "type": "message",
    }
