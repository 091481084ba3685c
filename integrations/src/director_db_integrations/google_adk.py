"""Sessions of Google ADK: ``Runner(..., session_service=DirectorSessionService())``."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import director_db
from director_db_integrations.adk_records import (
    HEAD,
    STATE,
    about,
    event_message,
    named,
    new_head,
    plain,
    state_message,
)
from director_db_integrations.database import async_database, content_of_each
from director_db_integrations.extras import extra
from director_db_integrations.messages import message

with extra("google-adk"):
    from google.adk.errors import StaleSessionError
    from google.adk.errors.already_exists_error import AlreadyExistsError
    from google.adk.errors.session_not_found_error import SessionNotFoundError
    from google.adk.events import Event, EventActions
    from google.adk.platform.time import get_time
    from google.adk.platform.uuid import new_uuid
    from google.adk.sessions import BaseSessionService, Session, State
    from google.adk.sessions.base_session_service import ListSessionsResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from google.adk.sessions.base_session_service import GetSessionConfig

    from director_db import BaseDB, Message
    from director_db.asyncio import AsyncDB

__all__ = ["DirectorSessionService"]

_PAGE: Final = 100  # Events that are read at once where nobody knows how many are wanted.

_LARGEST: Final = 10_000  # And where somebody does.

_SHARED: Final = {State.APP_PREFIX: 1, State.USER_PREFIX: 2}  # Parts of a key that they share.


class DirectorSessionService(BaseSessionService):
    """Keeps sessions of ADK as sessions of director-db, their events as messages there.

    It does what ADK's `DatabaseSessionService` does, in any number of processes, and refuses a
    stale session as that does.

    A session has a head, a message with its state and the number of its latest event. An event and
    the head that counts it are stored in one transaction, both only if nobody has stored an event
    of that number (MSG-11). A key of the state of an app or a user is a message of a session of its
    own, so that who changes other keys at once takes nothing from each other. A head names what it
    has changed there and its place among all changes; whoever finds that this is not done yet, as
    a process was killed between the two, does it, and no more than once.
    """

    def __init__(self, db: AsyncDB | BaseDB | None = None) -> None:
        """Name the database; nothing is opened.

        Args:
            db: of `director_db.asyncio` or not; None is what ``DB_TYPE`` names. It is not closed
                here.
        """
        self._db = async_database(db)
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Create a session and return it; state of the app and the user is shared at once.

        Args:
            app_name: the app, any text.
            user_id: its user, any text.
            state: keys with ``app:``, ``user:`` or no prefix; those with ``temp:`` are dropped.
            session_id: its id, any text, without blanks around it; None makes one.

        Raises:
            AlreadyExistsError: the user has such a session in this app; nothing is changed.
            InvalidRecordError: the state is larger or deeper than a payload may be (VAL-6).
        """
        key = app_name, user_id, (session_id or "").strip() or new_uuid()
        session = named(*key)
        own, shared = _split(EventActions(state_delta=state or {}).model_dump(mode="json"))
        number = time.time_ns()  # So that no session of this id that was deleted has had it.
        head = new_head(key, own, get_time(), number, await self._stamped(key, shared))
        await self._db.create_session(
            session,
            collection_id=named(app_name),
            user_id=plain(user_id),
            metadata=about(*key),
        )
        row = message(HEAD, HEAD, head) | {"revision": number, "if_absent": True}
        try:
            (is_new,) = await self._db.add_or_update_msgs_to_conv(session, [row])
        except director_db.BackendUnavailableError as lost:
            if not lost.maybe_applied:
                raise
            there = await self._db.get_message(session, HEAD)
            is_new = bool(there) and there["content"]["created"] == number  # It is ours.
        if not is_new:
            error = f"Session {key[2]!r} of user {user_id!r} exists already in app {app_name!r}."
            raise AlreadyExistsError(error)
        own_shared: dict[str, dict[str, Any]] = {}
        try:
            await self._share(key, head["shared"])
        except director_db.BackendUnavailableError:
            # The head names it: where this cannot be done now, `get_session` does it.
            own_shared = head["shared"]["values"]
        app, user = await asyncio.gather(self._state(app_name), self._state(app_name, user_id))
        return _session(
            head,
            _values(app) | own_shared.get(State.APP_PREFIX, {}),
            _values(user) | own_shared.get(State.USER_PREFIX, {}),
        )

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Return a session with its events, in the order in which they were appended, or None.

        Args:
            app_name: the app.
            user_id: its user.
            session_id: its id.
            config: `num_recent_events` reads that many and no more; `after_timestamp` reads from
                the end as far as there are such events. With both, it is the latest of those.
        """
        key = app_name, user_id, session_id.strip()
        (head, events), app, user = await asyncio.gather(
            self._db.run(partial(_read, named(*key), config)),
            self._state(app_name),
            self._state(app_name, user_id),
        )
        if not head:
            return None
        stored = {State.APP_PREFIX: app, State.USER_PREFIX: user}
        shared = head["shared"]
        for prefix, values in shared["values"].items():
            missing = [
                name
                for name in values
                if name not in stored[prefix]
                or (stored[prefix][name]["revision"] or 0) < shared["revision"]
            ]
            if missing:  # As a process was killed, or stores them at this moment.
                await self._share(key, shared)
                return await self.get_session(
                    app_name=app_name, user_id=user_id, session_id=session_id, config=config
                )
        return _session(head, _values(app), _values(user), events)

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Return the sessions of an app, or of a user in it, with their states, without events.

        The one whose latest event is the latest comes last.
        """
        user = None if user_id is None else plain(user_id)
        rows = await self._db.get_sessions(collection_id=named(app_name), user_id=user)
        heads = await content_of_each(self._db, rows, HEAD)
        users = sorted({head["key"][1] for head in heads})
        app, *states = await asyncio.gather(
            self._state(app_name), *[self._state(app_name, owner) for owner in users]
        )
        of_users = dict(zip(users, map(_values, states), strict=True))
        sessions = [_session(head, _values(app), of_users[head["key"][1]]) for head in heads]
        sessions.sort(key=lambda each: (each.last_update_time, each.user_id, each.id))
        return ListSessionsResponse(sessions=sessions)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session with its events; the states of its app and its user stay."""
        await self._db.delete_session(named(app_name, user_id, session_id.strip()))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state of a user in an app; its keys have no ``user:`` before them."""
        return _values(await self._state(app_name, user_id))

    async def append_event(self, session: Session, event: Event) -> Event:
        """Store an event with what it changes in the states, and add it to `session`.

        All of it is stored or nothing, also if the process is killed. A partial event is only
        returned. What `event` says of ``temp:`` keys goes into `session` and is not stored.

        Raises:
            StaleSessionError: somebody else has appended since `session` was read.
            SessionNotFoundError: of ADK; there is no such session.
            InvalidRecordError: the event or the state is larger or deeper than may be (VAL-6).
        """
        if event.partial:
            return event
        # Branches of an agent that append at once with one object are no strangers to each other.
        lock = self._locks.setdefault(id(session), asyncio.Lock())
        async with lock:
            await self._store(session, event)
            return await super().append_event(session, event)

    async def _store(self, session: Session, event: Event) -> None:
        key = session.app_name, session.user_id, session.id
        name = named(*key)
        stored = await self._db.get_message(name, HEAD)
        if not stored:
            error = f"Session {session.id!r} of user {session.user_id!r} is not there."
            raise SessionNotFoundError(error)
        head = stored["content"]
        if await self._is_stale(session, name, head["number"]):
            raise _stale(session)
        await self._share(key, head["shared"])  # What was not, if a process was killed.
        content = event.model_dump(mode="json", exclude_none=True)
        own, shared = _split(content["actions"])
        number = head["number"] + 1
        latest = max(event.timestamp, head["latest"] or event.timestamp)
        head |= {
            "state": head["state"] | own,
            "last_update_time": event.timestamp,
            "number": number,
            "latest": latest,
            "shared": await self._stamped(key, shared),
        }
        rows = [
            message(HEAD, HEAD, head) | {"revision": number},
            event_message(number, latest, content),
        ]
        try:
            counted, inserted = await self._db.add_or_update_msgs_to_conv(name, rows)
        except director_db.SessionNotFoundError as missing:
            error = f"Session {session.id!r} of user {session.user_id!r} was deleted."
            raise SessionNotFoundError(error) from missing
        except director_db.BackendUnavailableError as lost:
            if not lost.maybe_applied:
                raise
            # Both are there or neither; and to append it once more would double it.
            there = await self._db.get_message(name, str(number))
            if not there or there["content"]["id"] != event.id:
                raise
            counted = inserted = True
        if not counted:
            if inserted:  # The session was deleted and created again after its head was read.
                await self._db.delete_message(name, str(number))
            raise _stale(session)
        # As in `create_session`; so does the next append.
        with suppress(director_db.BackendUnavailableError):
            await self._share(key, head["shared"])
        _mark(session, head)

    async def _is_stale(self, session: Session, name: str, number: int) -> bool:
        mark = session._storage_update_marker  # noqa: SLF001 - ADK's own, for services as this one
        if mark is not None:
            return bool(mark != str(number))
        # One that was not read here, but from JSON for example, is as new as its last event.
        latest = await self._db.get_message(name, str(number))
        known = session.events[-1].id if session.events else None
        return known != (latest["content"]["id"] if latest else None)

    async def _state(self, *scope: str) -> dict[str, Message]:
        """Return the messages with the state of an app, or of a user in one, by its keys."""
        rows = await self._db.get_conversations(named(*scope))
        return {row["metadata"]["key"]: row for row in rows if row["msg_type"] == STATE}

    async def _stamped(
        self, key: tuple[str, str, str], values: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        """Return changes of the shared states with their place behind all that are stored."""
        known = await asyncio.gather(
            *[
                self._db.get_messages(named(*key[: _SHARED[prefix]]), [*map(plain, names)])
                for prefix, names in values.items()
            ]
        )
        behind = [(row["revision"] or 0) + 1 for rows in known for row in rows]
        # Clocks differ, so that the time alone would let one process hold back another for long.
        return {"revision": max([time.time_ns(), *behind]), "values": values}

    async def _share(self, key: tuple[str, str, str], shared: Mapping[str, Any]) -> None:
        """Store changes of the shared states; what is stored in that place or behind it stays."""
        for prefix, values in shared["values"].items():
            scope = key[: _SHARED[prefix]]
            rows = [
                state_message(name, value) | {"revision": shared["revision"]}
                for name, value in values.items()
            ]
            try:
                await self._put_in_place(named(*scope), rows)
            except director_db.SessionNotFoundError:
                owner = plain(scope[1]) if prefix == State.USER_PREFIX else None
                await self._db.create_session(named(*scope), user_id=owner, metadata=about(*scope))
                await self._put_in_place(named(*scope), rows)

    async def _put_in_place(self, session: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store messages that have their revisions, once more where the answer was lost."""
        try:
            await self._db.add_or_update_msgs_to_conv(session, rows)
        except director_db.BackendUnavailableError as lost:
            if not lost.maybe_applied:
                raise
            await self._db.add_or_update_msgs_to_conv(session, rows)


def _split(actions: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Take the ``temp:`` keys out of encoded actions; return a session's own, and the shared."""
    delta = actions["state_delta"]
    for key in [key for key in delta if key.startswith(State.TEMP_PREFIX)]:
        del delta[key]
    prefixes = {key: next((each for each in _SHARED if key.startswith(each)), "") for key in delta}
    own = {key: value for key, value in delta.items() if not prefixes[key]}
    shared = {
        prefix: {
            key.removeprefix(prefix): value
            for key, value in delta.items()
            if prefixes[key] == prefix
        }
        for prefix in _SHARED
        if prefix in prefixes.values()
    }
    return own, shared


def _number(row: Message, head: Mapping[str, Any]) -> int:
    """Return the number of the event that a message is; 0 if it is none of the session of ADK."""
    number = int(row["msg_id"]) if row["msg_id"].isdecimal() else 0
    return number if head and head["created"] < number <= head["number"] else 0


def _event(row: Message) -> Event:
    return Event.model_validate(row["content"])


def _values(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row["content"] for key, row in state.items()}


def _session(
    head: Mapping[str, Any],
    app: dict[str, Any],
    user: dict[str, Any],
    events: Iterable[Event] = (),
) -> Session:
    state = dict(head["state"])
    for prefix, values in zip(_SHARED, (app, user), strict=True):
        state |= {prefix + name: value for name, value in values.items()}
    app_name, user_id, session_id = head["key"]
    session = Session(
        app_name=app_name, user_id=user_id, id=session_id, state=state, events=[*events]
    )
    _mark(session, head)
    return session


def _mark(session: Session, head: Mapping[str, Any]) -> None:
    session.last_update_time = head["last_update_time"]
    session._storage_update_marker = str(head["number"])  # noqa: SLF001 - as above


def _stale(session: Session) -> StaleSessionError:
    return StaleSessionError(
        f"Session {session.id!r} was modified in storage since it was read; get it again, and "
        "append then."
    )


def _read(
    name: str, config: GetSessionConfig | None, db: BaseDB
) -> tuple[dict[str, Any], list[Event]]:
    """Return the head of a session, {} if there is none, and the events that are wanted."""
    limit = config.num_recent_events if config else None
    after = config.after_timestamp if config else None
    if limit is None and after is None:  # One read has all of one moment.
        rows = db.get_conversations(name)
        head: dict[str, Any] = next((row["content"] for row in rows if row["msg_id"] == HEAD), {})
        return head, [_event(row) for row in rows if _number(row, head)]
    stored = db.get_message(name, HEAD)
    if not stored:
        return {}, []
    head = stored["content"]
    events: list[Event] = []
    number = head["number"]
    while number > head["created"] and len(events) != limit:
        known = limit is not None and after is None
        page = min((limit or 0) - len(events), _LARGEST) if known else _PAGE
        numbers = range(max(number - page, head["created"]) + 1, number + 1)
        for row in reversed(db.get_messages(name, [*map(str, numbers)])):
            if after is not None and row["metadata"]["latest"] < after:
                return head, events[::-1]
            event = _event(row)
            if len(events) != limit and (after is None or event.timestamp >= after):
                events.append(event)
        number -= page
    return head, events[::-1]
