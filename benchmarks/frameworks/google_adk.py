"""Session services of Google ADK, which append one event at a time.

To append, ADK must have read the session, which opening does without its events. Each session is
another user's, so that one column tells their rows apart.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from google.adk.events import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.schemas.v1 import StorageEvent
from google.genai import types

from benchmarks.frameworks.sessions import Sessions, copy_rows
from benchmarks.payloads import text
from benchmarks.peers.event_loop import engine_at
from director_db_integrations.adk_records import HEAD, event_message, named
from director_db_integrations.google_adk import DirectorSessionService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from director_db import BaseDB

_APP, _SESSION = "app", "session"


class _Services(Sessions):
    async def open(self, name: str) -> Any:
        service = self._new(name)
        key = {"app_name": _APP, "user_id": name, "session_id": _SESSION}
        config = GetSessionConfig(num_recent_events=0)
        session = await service.get_session(**key, config=config)
        return service, session or await service.create_session(**key)

    async def add(self, session: Any, numbers: Sequence[int]) -> None:
        service, read = session
        for number in numbers:
            await service.append_event(read, _event(number))

    async def read(self, session: Any) -> Sequence[Any]:
        service, read = session
        found = await service.get_session(
            app_name=read.app_name, user_id=read.user_id, session_id=read.id
        )
        events: Sequence[Any] = found.events
        return events


class _OurServices(_Services):
    def __init__(self, db: BaseDB) -> None:
        service = DirectorSessionService(db)
        super().__init__(lambda _: service, self._copy_all)
        self._db = db

    async def add_many(self, session: Any, numbers: Sequence[int]) -> None:
        _, read = session
        name = named(_APP, read.user_id, _SESSION)
        head: Any = self._db.get_message(name, HEAD)
        start = head["revision"] + 1
        events = [
            event_message(
                start + at, 0.0, _event(number).model_dump(mode="json", exclude_none=True)
            )
            for at, number in enumerate(numbers)
        ]
        head["revision"] = head["content"]["number"] = start + len(events) - 1
        self._db.add_or_update_msgs_to_conv(name, [head, *events])

    async def _copy_all(self, name: str, others: Sequence[str]) -> None:
        # A session of ADK knows whose it is, so that a copy of it would be the same one.
        rows: list[Any] = self._db.get_conversations(named(_APP, name, _SESSION))
        (head,) = [row["content"] for row in rows if row["msg_id"] == HEAD]
        for other in others:
            head["key"] = key = (_APP, other, _SESSION)
            session = named(*key)
            self._db.create_session(session)
            copied = [{**row, "session_id": session} for row in rows]
            self._db.add_or_update_msgs_to_conv(session, copied)


class _TheirServices(_Services):
    async def add_many(self, session: Any, numbers: Sequence[int]) -> None:
        service, read = session
        async with service.database_session_factory() as rows:
            rows.add_all([StorageEvent.from_event(read, _event(number)) for number in numbers])
            await rows.commit()


@contextlib.asynccontextmanager
async def ours(db: BaseDB) -> AsyncIterator[Sessions]:
    """Give sessions in our database."""
    yield _OurServices(db)


@contextlib.asynccontextmanager
async def database_session_service(place: str) -> AsyncIterator[Sessions]:
    """Give sessions of ``DatabaseSessionService``."""
    async with engine_at(place) as engine:
        service = DatabaseSessionService(db_engine=engine)
        yield _TheirServices(lambda _: service, copy_rows(engine, "user_id"))


def _event(number: int) -> Event:
    role = "user" if number % 2 else "model"
    content = types.Content(role=role, parts=[types.Part(text=text(number))])
    return Event(invocation_id="i", author=role, content=content)
