"""Sessions of Google ADK in director-db."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from google.adk.agents import LlmAgent
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event, EventActions
from google.adk.events.event import NodeInfo
from google.adk.models.cache_metadata import CacheMetadata
from google.adk.runners import Runner
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types
from pydantic import BaseModel

from director_db import BackendUnavailableError, InvalidRecordError, close_all
from director_db_integrations.google_adk import DirectorSessionService
from director_db_sqlite import SQLiteDB

WHO = {"app_name": "app", "user_id": "u1"}
S1 = {**WHO, "session_id": "s1"}
AT = "google-adk/app/u1/s1"


def event(text="hi", *, role="user", **fields):
    fields = {"author": "user", "invocation_id": "i1"} | fields
    content = types.Content(role=role, parts=[types.Part(text=text)])
    return Event(content=content, **fields)


def changing(**delta):
    """An event that changes keys of the state; in their names, __ stands for a colon."""
    delta = {key.replace("__", ":"): value for key, value in delta.items()}
    return event(actions=EventActions(state_delta=delta))


class Profile(BaseModel):
    """What an application may keep in a state."""

    name: str = "Ada"


def event_with_all_fields():
    parts = [
        types.Part(text="Grüße \ud83d \x00", thought=True, thought_signature=b"\x00\xff"),
        types.Part.from_bytes(data=bytes(range(256)), mime_type="image/png"),
        types.Part(
            function_call=types.FunctionCall(id="c1", name="f", args={"b": 1, "a": [None, 2.0]})
        ),
    ]
    return Event(
        model_version="m1",
        content=types.Content(role="model", parts=parts),
        grounding_metadata=types.GroundingMetadata(
            search_entry_point=types.SearchEntryPoint(sdk_blob=b"\xfe")
        ),
        partial=False,
        turn_complete=True,
        turn_complete_reason=types.TurnCompleteReason.MALFORMED_FUNCTION_CALL,
        interaction_status=[*types.InteractionStatus][-1],
        finish_reason=types.FinishReason.STOP,
        error_code="E1",
        error_message="broken",
        interrupted=True,
        custom_metadata={"z": None, "a": [1, 1.5, -0.0, {"n": None}]},
        usage_metadata=types.GenerateContentResponseUsageMetadata(total_token_count=3),
        live_session_resumption_update=types.LiveServerSessionResumptionUpdate(new_handle="h"),
        live_session_id="l1",
        go_away=types.LiveServerGoAway(time_left="1s"),
        voice_activity=types.VoiceActivity(),
        input_transcription=types.Transcription(text="in", finished=True),
        output_transcription=types.Transcription(text="out"),
        avg_logprobs=-0.1,
        logprobs_result=types.LogprobsResult(log_probability_sum=-1.5),
        cache_metadata=CacheMetadata(fingerprint="f", contents_count=1),
        citation_metadata=types.CitationMetadata(citations=[types.Citation(uri="u")]),
        interaction_id="x1",
        environment_id="n1",
        invocation_id="i1",
        author="agent",
        actions=EventActions(
            state_delta={"gone": None, "kept": {"n": None}},
            artifact_delta={"file": 0},
            transfer_to_agent="other",
            escalate=False,
            route=["a", 1, True],
        ),
        output={"answer": [None, 42]},
        node_info=NodeInfo(path="a@1/b@2"),
        long_running_tool_ids={"c2", "c1"},
        branch="a.b",
        isolation_scope="fc",
        id="e1",
        timestamp=1700000000.1234567,
    )


def test_an_event_comes_back_with_all_its_fields(db):
    given = event_with_all_fields()
    assert set(Event.model_fields) == given.model_fields_set
    expected = given.model_copy(deep=True)

    async def main():
        service = DirectorSessionService(db)
        session = await service.create_session(**S1)
        assert given is await service.append_event(session, given)
        assert [given] == session.events
        return await DirectorSessionService(db).get_session(**S1), session

    stored, session = asyncio.run(main())
    assert expected == given
    assert [expected] == stored.events
    json_of = [json.dumps(each.model_dump(mode="json")) for each in (expected, stored.events[0])]
    assert json_of[0] == json_of[1]
    assert {"gone": None, "kept": {"n": None}} == stored.state
    assert session == stored
    assert 1700000000.1234567 == stored.last_update_time


def test_from_outside_they_are_messages(db):
    async def main():
        service = DirectorSessionService(db)
        session = await service.create_session(**S1, state={"app:a": 1, "user:b": {"c": None}})
        await service.append_event(session, event("Hi", id="e1"))
        await service.append_event(session, event("Yes", role="model", author="agent", id="e2"))
        await service.append_event(session, Event(author="agent", invocation_id="", id="e3"))

    asyncio.run(main())
    session = db.get_session(AT)
    assert {"framework": "google-adk", **S1} == session["metadata"]
    assert ("u1", "google-adk/app") == (session["user_id"], session["collection_id"])
    head, *messages = db.get_conversations(AT)
    assert ("session", "session") == (head["msg_id"], head["msg_type"])
    assert ["user", "model", "event"] == [message["msg_type"] for message in messages]
    assert [[], ["agent"], ["agent"]] == [message["agents"] for message in messages]
    assert ["i1", "i1", None] == [message["conv_id"] for message in messages]
    assert ["e1", "e2", "e3"] == [message["content"]["id"] for message in messages]
    for scope, key, value in (("app", "a", 1), ("app/u1", "b", {"c": None})):
        (message,) = db.get_conversations(f"google-adk/{scope}")
        found = (message["msg_id"], message["msg_type"], message["content"])
        assert (key, "state", value) == found
    assert {"framework": "google-adk", **WHO} == db.get_session("google-adk/app/u1")["metadata"]
    assert "u1" == db.get_session("google-adk/app/u1")["user_id"]


def test_what_the_application_adds_to_a_session_is_no_event(db):
    async def main():
        service = DirectorSessionService(db)
        session = await service.create_session(**S1)
        db.update_session(AT, metadata={"title": "Sums"})
        for name in ("note", "7", "9" * 19):
            db.add_or_update_msg_to_conv(AT, None, name, "user", [], [], "note")
        await service.append_event(session, event("one"))
        stored = await service.get_session(**S1)
        assert ["one"] == texts(stored)
        assert [session.id] == [each.id for each in (await service.list_sessions(**WHO)).sessions]

    asyncio.run(main())


def texts(session):
    return [each.content.parts[0].text for each in session.events]


def test_only_the_wanted_events_are_read(tmp_path):
    asked = []

    class AskedDB(SQLiteDB, db_type="asked"):
        def _select_messages(self, query):
            asked.append("all" if query.session_id == AT else "state")
            return super()._select_messages(query)

        def _select_messages_by_id(self, session_id, msg_ids):
            asked.append(len(msg_ids))
            return super()._select_messages_by_id(session_id, msg_ids)

    async def main(db):
        service = DirectorSessionService(db)
        session = await service.create_session(**S1)
        for number in range(250):
            await service.append_event(session, event(str(number), timestamp=float(number)))

        async def read(**config):
            asked.clear()
            got = await service.get_session(**S1, config=GetSessionConfig(**config))
            return [int(text) for text in texts(got)], [each for each in asked if each != "state"]

        assert ([*range(250)], ["all"]) == await read()
        assert ([], []) == await read(num_recent_events=0)
        assert ([247, 248, 249], [3]) == await read(num_recent_events=3)
        assert ([*range(250)], [250]) == await read(num_recent_events=1000)
        assert ([*range(248, 250)], [100]) == await read(after_timestamp=248.0)
        assert ([*range(120, 250)], [100, 100]) == await read(after_timestamp=120.0)
        assert ([*range(250)], [100, 100, 50]) == await read(after_timestamp=-1.0)
        assert ([], [100]) == await read(after_timestamp=1e9)
        assert ([249], [100]) == await read(after_timestamp=248.0, num_recent_events=1)
        assert ([249], [100]) == await read(after_timestamp=248.5, num_recent_events=9)
        # One whose clock was behind is no reason to leave out what was before it.
        await service.append_event(session, event("250", timestamp=5.0))
        assert ([248, 249], [100]) == await read(after_timestamp=248.0)
        assert 5.0 == (await service.get_session(**S1)).last_update_time

    with AskedDB(tmp_path / "director.db") as db:
        asyncio.run(main(db))


def test_states_belong_to_an_app_a_user_and_a_session(db):
    async def main():
        service = DirectorSessionService(db)
        given = {"app:a": 1, "user:b": 2, "c": 3, "temp:d": 4}
        first = await service.create_session(**S1, state=given)
        assert {"app:a": 1, "user:b": 2, "c": 3} == first.state
        await service.append_event(
            first, changing(app__a=[1], user__e=None, c=None, temp__d=5, user=6)
        )
        state = {"app:a": [1], "user:b": 2, "user:e": None, "c": None, "user": 6}
        assert state | {"temp:d": 5} == first.state
        assert {"user:e": None, "app:a": [1], "c": None, "user": 6} == (
            first.events[0].actions.state_delta
        )
        stored = await service.get_session(**S1)
        assert state == stored.state
        assert first.events == stored.events
        same_user = await service.create_session(**WHO)
        assert {"app:a": [1], "user:b": 2, "user:e": None} == same_user.state
        other_user = await service.create_session(app_name="app", user_id="u2")
        assert {"app:a": [1]} == other_user.state
        other_app = await service.create_session(app_name="app2", user_id="u1")
        assert {} == other_app.state
        assert {"b": 2, "e": None} == await service.get_user_state(**WHO)
        assert {} == await service.get_user_state(app_name="app2", user_id="u1")
        listed = await service.list_sessions(app_name="app")
        assert [state, same_user.state, other_user.state] == [
            next(each.state for each in listed.sessions if each.id == wanted.id)
            for wanted in (first, same_user, other_user)
        ]
        await service.delete_session(**S1)
        assert await service.get_session(**S1) is None
        assert {"b": 2, "e": None} == await service.get_user_state(**WHO)

    asyncio.run(main())


def test_what_json_does_not_know_is_stored_as_the_event_stores_it(db):
    async def main():
        service = DirectorSessionService(db)
        session = await service.create_session(
            **S1, state={"who": Profile(), "user:who": Profile()}
        )
        await service.append_event(session, changing(app__who=Profile(name="Bob"), seen={"x"}))
        state = (await service.get_session(**S1)).state
        names = {"who": {"name": "Ada"}, "user:who": {"name": "Ada"}, "app:who": {"name": "Bob"}}
        assert names | {"seen": ["x"]} == state

    asyncio.run(main())


def test_what_is_no_payload_is_refused_and_nothing_is_stored(db):
    deep = []
    for _ in range(200):
        deep = [deep]

    async def main():
        service = DirectorSessionService(db)
        session = await service.create_session(**S1)
        for refused in (changing(app__k=1, deep=deep), changing(app__deep=deep)):
            with pytest.raises(InvalidRecordError, match=r"deep"):
                await service.append_event(session, refused)
        with pytest.raises(InvalidRecordError, match=r"deep"):
            await service.create_session(**WHO, session_id="s2", state={"app:deep": deep})
        assert session == await service.get_session(**S1)
        assert ([], {}) == (session.events, session.state)
        assert ["s1"] == [each.id for each in (await service.list_sessions(**WHO)).sessions]

    asyncio.run(main())


def test_a_stale_session_is_refused(db):
    async def main():
        service, other = DirectorSessionService(db), DirectorSessionService(db)
        first = await service.create_session(**S1)
        second = await other.get_session(**S1)
        await service.append_event(first, changing(one=1, app__one=1))
        for stale in (second, second.model_copy(deep=True), Session(**S1_FIELDS)):
            with pytest.raises(StaleSessionError, match="modified in storage"):
                await other.append_event(stale, changing(two=2, app__two=2))
            assert ([], {}) == (stale.events, stale.state)
        assert {"one": 1, "app:one": 1} == (await other.get_session(**S1)).state
        read = await other.get_session(**S1, config=GetSessionConfig(num_recent_events=0))
        await other.append_event(read, changing(two=2))
        # One that was kept as JSON has nothing but its events to tell by.
        kept = Session.model_validate_json((await service.get_session(**S1)).model_dump_json())
        await service.append_event(kept, changing(three=3))
        stored = await service.get_session(**S1)
        assert {"one": 1, "app:one": 1, "two": 2, "three": 3} == stored.state
        assert 3 == len(stored.events)

    asyncio.run(main())


S1_FIELDS = {"app_name": "app", "user_id": "u1", "id": "s1"}


def test_of_copies_that_append_at_once_one_is_stored(db):
    async def main():
        services = [DirectorSessionService(db) for _ in range(4)]
        await services[0].create_session(**S1)
        for turn in range(5):
            copies = [await service.get_session(**S1) for service in services]
            events = [
                changing(**{f"{turn}": number, f"app__{turn}": number}) for number in range(4)
            ]
            outcomes = await asyncio.gather(
                *[
                    service.append_event(copy, each)
                    for service, copy, each in zip(services, copies, events, strict=True)
                ],
                return_exceptions=True,
            )
            (stored,) = [number for number in range(4) if outcomes[number] is events[number]]
            assert 3 == sum(isinstance(each, StaleSessionError) for each in outcomes)
            session = await services[0].get_session(**S1)
            assert turn + 1 == len(session.events)
            assert (stored, stored) == (session.state[f"{turn}"], session.state[f"app:{turn}"])

    asyncio.run(main())


def test_branches_append_at_once_with_one_object(db):
    async def main():
        service = DirectorSessionService(db)
        session = await service.create_session(**S1)
        await asyncio.gather(
            *[service.append_event(session, event(str(number))) for number in range(20)]
        )
        assert sorted(map(str, range(20))) == sorted(texts(session))
        assert session == await service.get_session(**S1)

    asyncio.run(main())


def test_a_deleted_session_is_not_brought_back(db):
    async def main():
        service = DirectorSessionService(db)
        old = await service.create_session(**S1)
        await service.append_event(old, event())
        with pytest.raises(AlreadyExistsError, match="s1"):
            await service.create_session(**S1, state={"app:no": 1})
        await service.delete_session(**S1)
        await service.delete_session(**S1)
        with pytest.raises(SessionNotFoundError, match="s1"):
            await service.append_event(old, changing(app__no=1))
        assert await service.get_session(**S1) is None
        new = await service.create_session(**S1)
        with pytest.raises(StaleSessionError):
            await service.append_event(old, changing(app__no=1))
        await service.append_event(new, event("new"))
        with pytest.raises(StaleSessionError):
            await service.append_event(old, changing(app__no=1))
        stored = await service.get_session(**S1)
        assert ({}, ["new"]) == (stored.state, texts(stored))

    asyncio.run(main())


class RecreatedBetween(DirectorSessionService):
    """Has its session deleted and created again after it has read the head."""

    async def _stamped(self, key, values):
        service = DirectorSessionService(self._db)
        await service.delete_session(**S1)
        await service.create_session(**S1)
        return await super()._stamped(key, values)


def test_an_event_for_a_deleted_session_does_not_get_into_the_new_one(db):
    async def main():
        session = await DirectorSessionService(db).create_session(**S1)
        with pytest.raises(StaleSessionError):
            await RecreatedBetween(db).append_event(session, changing(app__no=1, no=1))
        stored = await DirectorSessionService(db).get_session(**S1)
        assert ({}, []) == (stored.state, stored.events)
        assert ["session"] == [message["msg_id"] for message in db.get_conversations(AT)]

    asyncio.run(main())


def test_a_session_whose_creation_was_cut_off_can_be_created(db):
    db.create_session(AT, collection_id="google-adk/app", user_id="u1")

    async def main():
        service = DirectorSessionService(db)
        assert await service.get_session(**S1) is None
        assert [] == (await service.list_sessions(**WHO)).sessions
        await service.append_event(await service.create_session(**S1), event())
        assert 1 == len((await service.get_session(**S1)).events)

    asyncio.run(main())


def test_of_creates_at_once_one_creates(db):
    async def main():
        outcomes = await asyncio.gather(
            *[
                DirectorSessionService(db).create_session(**S1, state={"n": n, "user:n": n})
                for n in range(8)
            ],
            return_exceptions=True,
        )
        (created,) = [each for each in outcomes if isinstance(each, Session)]
        assert 7 == sum(isinstance(each, AlreadyExistsError) for each in outcomes)
        assert created.state["n"] == created.state["user:n"]
        assert created == await DirectorSessionService(db).get_session(**S1)

    asyncio.run(main())


def test_partial_events_are_not_stored(db):
    async def main():
        service = DirectorSessionService(db)
        session = await service.create_session(**S1)
        part = event(partial=True)
        assert part is await service.append_event(session, part)
        assert [] == session.events == (await service.get_session(**S1)).events

    asyncio.run(main())


NAMES = ["a", "a/b", "b", "", "%2F", "é" * 300, "é" * 301, "\ud800", "\x00", "google-adk/a"]


def test_no_two_names_are_the_same(db):
    triples = [(app, "u", "s") for app in NAMES] + [("a", user, "s") for user in NAMES]
    triples += [("a", "b", name) for name in NAMES if name.strip()] + [("a", "b/s", "s")]

    async def main():
        service = DirectorSessionService(db)
        for app, user, name in triples:
            session = await service.create_session(
                app_name=app, user_id=user, session_id=name, state={"user:k": user, "k": name}
            )
            assert (app, user, name) == (session.app_name, session.user_id, session.id)
        for app in NAMES:
            listed = (await service.list_sessions(app_name=app)).sessions
            expected = sorted(each for each in triples if each[0] == app)
            assert expected == sorted((each.app_name, each.user_id, each.id) for each in listed)
            assert all(each.user_id == each.state["user:k"] for each in listed)
        for user in NAMES:
            listed = (await service.list_sessions(app_name="a", user_id=user)).sessions
            expected = sorted(each[2] for each in triples if each[:2] == ("a", user))
            assert expected == sorted(each.id for each in listed)
        names = [
            name for name in NAMES if name != "\ud800"
        ]  # ADK's encoder does not know that key.
        delta = {f"user:{name}": number for number, name in enumerate(names)}
        session = await service.create_session(app_name="keys", user_id="u", state=delta)
        assert delta == session.state
        padded = {"app_name": "a", "user_id": "b", "session_id": " b\n"}
        assert "b" == (await service.get_session(**padded)).id
        with pytest.raises(AlreadyExistsError):
            await service.create_session(**padded)
        await service.delete_session(**padded)
        assert await service.get_session(**padded) is None

    asyncio.run(main())


def test_sessions_are_listed_by_their_latest_event(db):
    async def main():
        service = DirectorSessionService(db)
        for name, when in (("x", 30.0), ("y", 10.0), ("z", 20.0), ("w", 20.0)):
            session = await service.create_session(**WHO, session_id=name)
            await service.append_event(session, event(timestamp=when))
        listed = (await service.list_sessions(**WHO)).sessions
        assert ["y", "w", "z", "x"] == [each.id for each in listed]
        assert [[]] * 4 == [each.events for each in listed]
        assert [] == (await service.list_sessions(app_name="app", user_id="u2")).sessions

    asyncio.run(main())


class KilledBetween(DirectorSessionService):
    """Stores events, but nothing in the states of app and user, as if killed between the two."""

    async def _share(self, key, shared):
        if any(shared["values"].values()):
            raise KeyboardInterrupt


@pytest.mark.parametrize("mended_by", ["get", "append", "nobody"])
def test_a_change_of_shared_states_is_made_once_whoever_is_killed(db, mended_by):
    async def main():
        service = DirectorSessionService(db)
        session = await service.create_session(**S1)
        other = await service.create_session(**WHO, session_id="s2")
        with pytest.raises(KeyboardInterrupt):
            await KilledBetween(db).append_event(
                session, changing(app__a="s1", user__b="s1", c="s1")
            )
        assert {} == await service.get_user_state(**WHO)
        with pytest.raises(StaleSessionError):  # It does not know what became of its event.
            await service.append_event(session, event())
        if mended_by == "get":
            assert {"app:a": "s1", "user:b": "s1", "c": "s1"} == (
                (await service.get_session(**S1)).state
            )
        elif mended_by == "append":
            listed = (await service.list_sessions(**WHO)).sessions
            (session,) = [each for each in listed if each.id == "s1"]
            assert {"c": "s1"} == session.state
            await service.append_event(session, event())
        # Whoever comes later is not overwritten, and what nobody has changed is made good.
        await service.append_event(other, changing(app__a="s2"))
        state = (await service.get_session(**S1)).state
        assert {"app:a": "s2", "user:b": "s1", "c": "s1"} == state
        assert state == (await service.get_session(**S1)).state

    asyncio.run(main())


def test_a_clock_that_is_behind_loses_nothing(db, monkeypatch):
    async def main():
        service = DirectorSessionService(db)
        session = await service.create_session(**S1, state={"user:k": 0})
        monkeypatch.setattr("time.time_ns", lambda: 1_000)
        await service.append_event(session, changing(user__k=1, app__k=1))
        await service.append_event(session, changing(user__k=2, app__k=2))
        assert {"user:k": 2, "app:k": 2} == (await service.get_session(**S1)).state

    asyncio.run(main())


def test_writers_in_two_processes_lose_nothing(program, db):
    names = ["w1", "w2"]
    writers = [program("google_adk_agent", "writer", name) for name in names]
    assert ['"ready"\n'] * 2 == [writer.stdout.readline() for writer in writers]
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert ['"done"\n'] * 2 == [writer.stdout.readline() for writer in writers]
    shared = {
        f"{scope}:{name}{number}": number
        for scope in ("app", "user")
        for name in names
        for number in range(30)
    }
    who = {"app_name": "calculator", "user_id": "u1"}
    sessions = asyncio.run(DirectorSessionService(db).list_sessions(**who)).sessions
    assert names == sorted(each.id for each in sessions)
    for session in sessions:
        last = session.state.pop("app:both")
        assert last in [["w1", 29], ["w2", 29]]
        assert shared | {f"own{number}": number for number in range(30)} == session.state
        got = asyncio.run(DirectorSessionService(db).get_session(**who, session_id=session.id))
        assert 30 == len(got.events)
    assert 60 == len(db.get_conversations("google-adk/calculator/u1"))


def test_a_cancelled_event_is_stored_whole_or_not_at_all(tmp_path):
    begun, go_on = threading.Event(), threading.Event()
    go_on.set()

    class HeldDB(SQLiteDB, db_type="held"):
        def _upsert_guarded(self, *args):
            begun.set()
            assert go_on.wait(120)
            return super()._upsert_guarded(*args)

    async def main(db):
        service = DirectorSessionService(db)
        session = await service.create_session(**S1)
        begun.clear()
        go_on.clear()
        appending = asyncio.create_task(service.append_event(session, changing(k=1, user__k=1)))
        assert await asyncio.to_thread(begun.wait, 120)
        appending.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await appending
        stored = await service.get_session(**S1)
        assert (1, {"k": 1, "user:k": 1}) == (len(stored.events), stored.state)
        await service.append_event(stored, event())

    with HeldDB(tmp_path / "director.db") as db:
        asyncio.run(main(db))


def test_a_session_is_rewound(db):
    async def main():
        service = DirectorSessionService(db)
        session = await service.create_session(**S1)
        for number in range(3):
            delta = {"n": number, f"k{number}": number, "user:n": number}
            actions = EventActions(state_delta=delta)
            await service.append_event(
                session, event(str(number), invocation_id=f"i{number}", actions=actions)
            )
        agent = LlmAgent(name="agent", model="none")
        runner = Runner(app_name="app", agent=agent, session_service=service)
        await runner.rewind_async(user_id="u1", session_id="s1", rewind_before_invocation_id="i1")
        stored = await service.get_session(**S1)
        state = {"n": 0, "k0": 0, "k1": None, "k2": None, "user:n": 2}
        assert state == stored.state
        assert 4 == len(stored.events)
        assert "i1" == stored.events[-1].actions.rewind_before_invocation_id

    asyncio.run(main())


def test_an_event_whose_answer_was_lost_is_stored_once(proxied):
    db, proxy = proxied
    asyncio.run(_lose_an_answer(DirectorSessionService(db), proxy))


async def _lose_an_answer(service, proxy):
    store = service._db.add_or_update_msgs_to_conv

    seen = []

    async def cut(*args):
        if args not in seen:  # Whoever asks once more has an answer.
            seen.append(args)
            proxy.cut_after(0)
        return await store(*args)

    service._db = Replaced(service._db, add_or_update_msgs_to_conv=cut)
    session = await service.create_session(**S1, state={"app:a": 1, "user:b": 2})
    with pytest.raises(AlreadyExistsError):
        await service.create_session(**S1)
    first, second = (
        event(name, actions=EventActions(state_delta={"user:b": name, f"app:{name}": 1}))
        for name in ("first", "second")
    )
    await service.append_event(session, first)
    await service.append_event(session, second)
    found = await service.get_session(**S1)
    assert [first.id, second.id] == [each.id for each in found.events]
    assert {"app:a": 1, "user:b": "second", "app:first": 1, "app:second": 1} == found.state


def test_it_is_stored_though_its_state_cannot_be_shared_now(db):
    """The head names what is left to do, and whoever reads or appends next does it."""
    service = DirectorSessionService(db)
    whole, away = service._db, "It is away."

    def fail(number):
        calls = iter(range(10))

        async def store(*args):
            if next(calls) == number:
                raise BackendUnavailableError(away)
            return await whole.add_or_update_msgs_to_conv(*args)

        service._db = Replaced(whole, add_or_update_msgs_to_conv=store)

    async def main():
        fail(1)
        session = await service.create_session(**S1, state={"user:a": 1, "app:c": 3})
        assert {"user:a": 1, "app:c": 3} == session.state
        assert {} == await service.get_user_state(app_name="app", user_id="u1")
        service._db = whole
        session = await service.get_session(**S1)
        fail(3)  # Behind what was shared before, of the app and the user, and the event itself.
        actions = EventActions(state_delta={"user:b": 2})
        await service.append_event(session, event("one", actions=actions))
        service._db = whole
        await service.append_event(session, event("two"))
        return await service.get_session(**S1)

    found = asyncio.run(main())
    assert (2, {"user:a": 1, "user:b": 2, "app:c": 3}) == (len(found.events), found.state)


class Replaced:
    """Another object with some of its attributes replaced."""

    def __init__(self, other, **attributes):
        self._other = other
        vars(self).update(attributes)

    def __getattr__(self, name):
        return getattr(self._other, name)


def test_round_trips_are_few(proxied):
    db, proxy = proxied
    asyncio.run(_count(DirectorSessionService(db), proxy))


async def _count(service, proxy):
    session = await service.create_session(**S1, state={"app:a": 1, "user:a": 1})
    await service.append_event(session, event())
    recent = GetSessionConfig(num_recent_events=1)
    for expected, call in (
        (2, lambda: service.append_event(session, event())),
        (2, lambda: service.append_event(session, changing(own=1))),
        (4, lambda: service.append_event(session, changing(app__a=2))),
        (3, lambda: service.append_event(session, event())),  # after one that changed app's state
        (3, lambda: service.get_session(**S1)),
        (4, lambda: service.get_session(**S1, config=recent)),
        (4, lambda: service.list_sessions(**WHO)),
        (1, lambda: service.get_user_state(**WHO)),
        (4, lambda: service.create_session(**WHO)),
    ):
        with proxy.count() as count:
            await call()
        assert expected == count.round_trips


def test_an_agent_that_is_killed_in_a_turn_goes_on_in_another_process(program, db):
    first = program("google_adk_agent", "first")
    assert '"hanging"\n' == first.stdout.readline()
    first.kill()
    assert -9 == first.wait(60)

    def stored():
        who = {"app_name": "calculator", "user_id": "u1", "session_id": "s1"}
        return asyncio.run(DirectorSessionService().get_session(**who))

    before = stored()
    kinds = ["text", "call", "response", "text", "text", "call", "response", "call"]
    assert kinds == [kind(each) for each in before.events]
    assert {"result": 84} == before.events[6].get_function_responses()[0].response
    assert b"\x00\xff" == before.events[1].content.parts[0].thought_signature
    assert {"last": 84, "app:last": 84, "user:count": 2} == before.state

    close_all()
    second = program("google_adk_agent", "second")
    lines = second.communicate(timeout=300)[0].splitlines()
    assert 0 == second.returncode
    asked = [part for content in json.loads(lines[0]) for part in content["parts"]]
    assert {"text": "6 times 7?"} == asked[0]
    assert {"text": "What was it?"} == asked[-1]
    assert [42, 84] == [
        part["function_response"]["response"]["result"]
        for part in asked
        if "result" in part.get("function_response", {}).get("response", {})
    ]
    after = stored()
    assert before.events == after.events[:8]
    assert ["What was it?", "It was 84."] == texts(after)[8:]
    assert before.state == after.state


def kind(each):
    if each.get_function_calls():
        return "call"
    return "response" if each.get_function_responses() else "text"
