"""The session store of the Claude Agent SDK in director-db."""

from __future__ import annotations

import asyncio
import json
import re
import time

import claude_agent_sdk as sdk
import pytest
from claude_agent_sdk.testing import run_session_store_conformance

from director_db import BackendUnavailableError, InvalidRecordError, close_all
from director_db.asyncio import AsyncDB
from director_db_integrations.claude_agent import DirectorSessionStore

KEY = {"project_key": "-home-me", "session_id": "0b8e4d3a-5c6f-4a7b-8c9d-0e1f2a3b4c5d"}
OF_A_SUBAGENT = KEY | {"subpath": "subagents/agent-1"}
MAIN = "claude/-home-me/0b8e4d3a-5c6f-4a7b-8c9d-0e1f2a3b4c5d"


def entry(number, **rest):
    message = {"role": "user", "content": f"Grüße {number} \ud83d\x00", "z": 1.0, "a": None}
    return {"type": "user", "uuid": f"u{number}", "message": message} | rest


def test_the_suite_of_the_sdk_passes(db):
    """Its fourteen contracts, none left out; each has a store that is empty."""

    async def new_store():
        for session in db.get_sessions():
            db.delete_session(session["session_id"])
        return DirectorSessionStore(db)

    asyncio.run(run_session_store_conformance(new_store))


def test_entries_come_back_byte_for_byte(db):
    entries = [entry(1), {"type": "mode", "n": [1, 1.0, -0.0]}, entry(2, b=1, a=2)]

    async def main():
        await DirectorSessionStore(db).append(KEY, entries)
        return await DirectorSessionStore().load(KEY)

    assert json.dumps(entries) == json.dumps(asyncio.run(main()))


def test_from_outside_they_are_messages(db):
    async def main():
        store = DirectorSessionStore(db)
        await store.append(KEY, [entry(1), {"type": "mode"}])
        await store.append(OF_A_SUBAGENT, [entry(1)])

    asyncio.run(main())
    (main_one,) = db.get_sessions(collection_id="claude/-home-me")
    assert (MAIN, {"framework": "claude-agent", **KEY}) == (
        main_one["session_id"],
        main_one["metadata"],
    )
    summary, first, second = db.get_conversations(MAIN)
    assert ("session-summary", "session-summary") == (summary["msg_id"], summary["msg_type"])
    assert ("u1", "user", entry(1)) == (first["msg_id"], first["msg_type"], first["content"])
    assert ("mode", {"type": "mode"}) == (second["msg_type"], second["content"])
    (other,) = db.get_sessions(collection_id=MAIN)
    assert f"{MAIN}/subagents%2Fagent-1" == other["session_id"]
    assert ["u1"] == [message["msg_id"] for message in db.get_conversations(other["session_id"])]


def test_a_batch_that_is_sent_again_is_stored_once_and_in_its_place(db):
    async def main():
        store = DirectorSessionStore(db)
        await store.append(KEY, [entry(1), entry(2)])
        await store.append(KEY, [entry(3)])
        await store.append(KEY, [entry(1), entry(2)])
        await store.append(KEY, [{"type": "mode"}])
        await store.append(KEY, [{"type": "mode"}])
        return await store.load(KEY)

    expected = [entry(1), entry(2), entry(3), {"type": "mode"}, {"type": "mode"}]
    assert expected == asyncio.run(main())


def test_a_batch_is_stored_whole_or_not_at_all(db):
    async def main():
        store = DirectorSessionStore(db)
        for key in (KEY, OF_A_SUBAGENT):
            with pytest.raises(InvalidRecordError):
                await store.append(key, [entry(1), entry(2, bad=object())])
        assert [] == db.get_sessions()
        await store.append(KEY, [entry(1)])
        with pytest.raises(InvalidRecordError):
            await store.append(KEY, [entry(2, customTitle="no"), entry(3, bad={1})])
        assert [entry(1)] == await store.load(KEY)
        return await store.list_session_summaries("-home-me")

    assert "custom_title" not in asyncio.run(main())[0]["data"]


def test_keys_of_any_kind_are_told_apart(db):
    parts = ["a", "a/b", "b", "%2F", "a%2Fb", "é", "\ud800", "\x00", "A", "é" * 300, "é" * 301]
    keys = [
        {"project_key": project, "session_id": session} | ({"subpath": subpath} if subpath else {})
        for project in parts
        for session in ("a", "a/b", "b/" + "x" * 300)
        for subpath in (None, "a", "b/c")
    ]

    async def main():
        store = DirectorSessionStore(db)
        for key in keys:
            await store.append(key, [entry(repr(key), uuid="same")])
        for key in keys:
            assert [entry(repr(key), uuid="same")] == await store.load(key)
        for project in parts:
            names = [each["session_id"] for each in await store.list_sessions(project)]
            assert {"a", "a/b", "b/" + "x" * 300} == {*names}
            assert 3 == len(names)
        assert {"a", "b/c"} == {*await store.list_subkeys(keys[0])}

    asyncio.run(main())
    assert len(keys) == len(db.get_sessions())


def test_times_are_in_milliseconds_and_grow(db):
    async def main():
        store = DirectorSessionStore(db)
        now, seen = time.time() * 1000, []
        for number in range(5):
            await store.append(KEY, [entry(number)])
            (listed,) = await store.list_sessions("-home-me")
            (summary,) = await store.list_session_summaries("-home-me")
            assert listed["mtime"] == summary["mtime"]
            seen.append(listed["mtime"])
        assert seen == sorted(set(seen))
        assert now - 1 <= seen[0] <= time.time() * 1000

    asyncio.run(main())


def test_what_is_appended_at_once_is_all_in_the_summary(db):
    """Each of these fields is told by one batch alone; a summary that was overwritten lacks it."""
    fields = {
        "customTitle": "custom_title",
        "aiTitle": "ai_title",
        "lastPrompt": "last_prompt",
        "summary": "summary_hint",
        "gitBranch": "git_branch",
    }

    async def main():
        stores = [DirectorSessionStore(AsyncDB(db)) for _ in fields]
        for turn in range(5):
            key = KEY | {"session_id": f"s{turn}"}
            await asyncio.gather(
                *[
                    store.append(key, [{"type": "mode", field: field}])
                    for store, field in zip(stores, fields, strict=True)
                ]
            )
            assert len(fields) == len(await stores[0].load(key))
        return await stores[0].list_session_summaries("-home-me")

    summaries = asyncio.run(main())
    assert 5 == len(summaries)
    for summary in summaries:
        assert {name: summary["data"].get(name) for name in fields.values()} == {
            name: field for field, name in fields.items()
        }


class HeldDB:
    """Calls of an `AsyncDB`; `after_reading` is awaited once, behind the next `get_message`."""

    def __init__(self, db, after_reading):
        self._db = AsyncDB(db)
        self._after_reading = after_reading

    def __getattr__(self, name):
        return getattr(self._db, name)

    async def get_message(self, *args):
        found = await self._db.get_message(*args)
        if after_reading := self._after_reading:
            self._after_reading = None
            await after_reading()
        return found


def test_a_transcript_that_is_deleted_in_an_append_does_not_come_back_without_it(db, monkeypatch):
    other = DirectorSessionStore(AsyncDB(db))

    async def append_and_delete():
        await other.append(KEY, [entry(2)])  # Its summary holds the other one back.
        held._after_reading = lambda: other.delete(KEY)

    held = HeldDB(db, append_and_delete)
    store = DirectorSessionStore(AsyncDB(db))
    monkeypatch.setattr(store, "_db", held)

    async def main():
        await other.append(KEY, [entry(0)])
        await store.append(KEY, [entry(1)])
        return await other.load(KEY), await other.list_sessions("-home-me")

    assert (None, []) == asyncio.run(main())


def test_a_batch_whose_answer_was_lost_is_stored_once(proxied):
    """Also an entry without a uuid, which the SDK would send again as another one."""
    db, proxy = proxied
    asyncio.run(_lose_an_answer(DirectorSessionStore(db), proxy))


async def _lose_an_answer(store, proxy):
    await store.append(KEY, [entry(0)])
    whole = store._db

    class Cut:
        calls = 0

        def __getattr__(self, name):
            return getattr(whole, name)

        async def add_or_update_msgs_to_conv(self, *args):
            self.calls += 1
            if self.calls == 1:
                proxy.cut_after(0)
            return await whole.add_or_update_msgs_to_conv(*args)

    store._db = Cut()
    await store.append(KEY, [{"type": "custom-title", "customTitle": "Sums"}, entry(1)])
    store._db = whole
    assert ["u0", None, "u1"] == [each.get("uuid") for each in await store.load(KEY)]
    (summary,) = await store.list_session_summaries(KEY["project_key"])
    assert "Sums" in summary["data"].values()


class Failing:
    """A database whose writes of messages raise these errors, one after another; None is none.

    What is in doubt is stored all the same.
    """

    def __init__(self, db, *errors):
        self._db, self._errors = db, iter(errors)

    def __getattr__(self, name):
        return getattr(self._db, name)

    async def add_or_update_msgs_to_conv(self, *args):
        error = next(self._errors, None)
        if error is None or error.maybe_applied:
            answer = await self._db.add_or_update_msgs_to_conv(*args)
        if error is not None:
            raise error
        return answer


LOST = BackendUnavailableError("Lost.", maybe_applied=True)
LOCKED = BackendUnavailableError("Locked.", retryable=True)


@pytest.mark.parametrize(
    ("errors", "raised", "count"),
    [
        ((LOCKED,), (True, False), 1),  # Nothing of it is stored.
        ((LOST, LOST), (False, True), 3),
        ((LOST, LOCKED), (True, True), 3),  # The first try may be stored.
    ],
)
def test_what_may_be_stored_is_told(db, errors, raised, count):
    store = DirectorSessionStore(db)

    async def main():
        await store.append(KEY, [entry(0)])
        store._db = Failing(store._db, *errors)
        with pytest.raises(BackendUnavailableError) as caught:
            await store.append(KEY, [{"type": "mode"}, entry(1)])
        assert raised == (caught.value.retryable, caught.value.maybe_applied)
        return await store.load(KEY)

    assert count == len(asyncio.run(main()))


@pytest.mark.parametrize("key", [KEY, OF_A_SUBAGENT])
def test_a_cancelled_append_is_whole(stored_though_cancelled, key):
    """It takes several steps; the first one finds no session."""

    def then(db):
        store = DirectorSessionStore(db)
        assert [entry(1)] == asyncio.run(store.load(key))
        found = asyncio.run(store.list_session_summaries(KEY["project_key"]))
        assert (key is KEY) == len(found)

    appending = lambda db: DirectorSessionStore(db).append(key, [entry(1)])  # noqa: E731
    assert [] == stored_though_cancelled(appending, given=lambda _: None, then=then)


def test_no_entry_takes_the_place_of_the_summary(db):
    named = entry(1, uuid="session-summary")

    async def main():
        store = DirectorSessionStore(db)
        for _ in range(2):
            await store.append(KEY, [named])
        return await store.load(KEY), await store.list_sessions("-home-me")

    entries, (listed,) = asyncio.run(main())
    assert [named] == entries
    assert KEY["session_id"] == listed["session_id"]


def test_the_tools_of_the_sdk_work_on_it(db, tmp_path):
    """Listing, reading, renaming, tagging, forking and deleting, as an application calls them."""
    key = {"project_key": sdk.project_key_for_directory(tmp_path), "session_id": KEY["session_id"]}
    entries = [
        entry(1, timestamp="2026-01-01T00:00:00.000Z", sessionId=key["session_id"]),
        entry(2, timestamp="2026-01-01T00:00:01.000Z", sessionId=key["session_id"]),
    ]
    for number, each in enumerate(entries):
        each["uuid"] = f"0b8e4d3a-5c6f-4a7b-8c9d-0e1f2a3b4c5{number}"
        each["parentUuid"] = entries[0]["uuid"] if number else None
        each["message"]["content"] = f"Question {number}"

    async def main():
        store, place = DirectorSessionStore(db), {"directory": str(tmp_path)}
        session = key["session_id"]
        await store.append(key, entries)
        await store.append(key | {"subpath": "subagents/agent-1"}, entries)
        await sdk.rename_session_via_store(store, session, "Sums", **place)
        await sdk.tag_session_via_store(store, session, "maths", **place)
        (info,) = await sdk.list_sessions_from_store(store, **place)
        assert ("Sums", "maths", "Question 0") == (info.custom_title, info.tag, info.first_prompt)
        found = await sdk.get_session_messages_from_store(store, session, **place)
        assert ["Question 0", "Question 1"] == [each.message["content"] for each in found]
        assert ["1"] == await sdk.list_subagents_from_store(store, session, **place)
        fork = await sdk.fork_session_via_store(store, session, **place)
        assert 2 == len(await sdk.list_sessions_from_store(store, **place))
        await sdk.delete_session_via_store(store, session, **place)
        (left,) = await sdk.list_sessions_from_store(store, **place)
        assert fork.session_id == left.session_id

    asyncio.run(main())
    assert 1 == len(db.get_sessions())


def test_an_agent_that_is_killed_in_a_turn_goes_on_in_another_process(program, db, tmp_path):
    first = program("claude_agent_agent", "first")
    assert ['"42"\n', '"hanging"\n'] == [first.stdout.readline() for _ in range(2)]
    key = {"project_key": re.sub("[^a-zA-Z0-9]", "-", str(tmp_path)), **session_of(KEY)}

    async def entries():
        return await DirectorSessionStore(db).load(key)

    # The SDK hands them over in the background.
    for _ in range(6_000):
        if len(asyncio.run(entries()) or []) == 7:
            break
        time.sleep(0.01)
    first.kill()
    assert -9 == first.wait(60)
    stored = asyncio.run(entries())
    assert ["user", "assistant", "user", "assistant", "user", "assistant", "user"] == kinds(stored)
    assert "84" == stored[-1]["message"]["content"][0]["content"]

    close_all()
    second = program("claude_agent_agent", "second")
    lines = second.communicate(timeout=300)[0].splitlines()
    assert 0 == second.returncode
    assert ['"7 entries before"', '"9"'] == lines
    gone_on = asyncio.run(DirectorSessionStore().load(key))
    assert stored == gone_on[:7]
    assert ["user", "assistant", "user", "assistant", "user", "assistant"] == kinds(gone_on[7:])
    (summary,) = asyncio.run(DirectorSessionStore().list_session_summaries(key["project_key"]))
    assert "6 times 7?" == summary["data"]["first_prompt"]


def session_of(key):
    return {"session_id": key["session_id"]}


def kinds(entries):
    return [each["type"] for each in entries]
