"""`DatabaseSessionService` of Google ADK."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db import InvalidRecordError
from director_db_integrations.adk_records import (
    HEAD,
    about,
    event_message,
    named,
    new_head,
    plain,
    state_message,
)
from director_db_integrations.messages import message
from director_db_integrations.moving_in.importing import Source, decoded, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director_db_integrations.moving_in.importing import Importing
    from director_db_integrations.moving_in.old_tables import OldTables

_PICKLED: Final = (
    "the older schema of ADK has pickled their actions, and nothing is unpickled here: let "
    '"adk migrate session" make the newer schema of them, and import that'
)

_TOO_LATE: Final = (
    "it was stored after its session was imported, or refused then; to have it, delete the session "
    "in director-db and import again"
)

_ASKED: Final = 500  # Events that are looked for at once.


def _move(old: OldTables, to: Importing) -> None:
    _states(old, to, "app_states", "app_name")
    _states(old, to, "user_states", "app_name", "user_id")
    if "event_data" in old.columns("events"):
        old.need("events", "invocation_id", "timestamp")
        _sessions(old, to)
    else:
        old.need("events", "actions")
        _older_sessions(old, to)


def _states(old: OldTables, to: Importing, table: str, *columns: str) -> None:
    """Import the states of apps or users: a message for each key."""
    names = ", ".join(columns)
    for *scope, text, updated in old.rows(
        f"SELECT {names}, {old.text('state')}, {old.utc('update_time')} FROM {old.table(table)}"
        f" ORDER BY {names}"
    ):
        place = f"{table} {'/'.join(map(str, scope))}"
        if not all(isinstance(part, str) for part in scope):
            to.enter(None, place)
            continue
        owner = plain(scope[1]) if scope[1:] else None
        to.enter(named(*scope), place, user_id=owner, metadata=about(*scope))
        try:
            state = _state(text)
        except InvalidRecordError as error:
            to.count(place, error)
            continue
        time = updated or 0
        for key, value in state.items():
            row = state_message(key, value) | {"revision": time * 1000}
            row |= {"created_at": seconds(updated), "updated_at": seconds(updated)}
            to.add(f"{place} key {key!r}", partial(dict, row))


def _sessions(old: OldTables, to: Importing) -> None:
    # Ordered as ADK reads them. The state comes by itself: it would come again with each event.
    session: _Session | None = None
    for *key, created, updated, event_id, invocation, time, data in old.rows(
        f"SELECT s.app_name, s.user_id, s.id, {old.utc('s.create_time')},"
        f" {old.utc('s.update_time')}, e.id, e.invocation_id, {old.utc('e.timestamp')},"
        f" {old.text('e.event_data')}"
        f" FROM {old.table('sessions')} s LEFT JOIN {old.table('events')} e"
        " ON e.app_name = s.app_name AND e.user_id = s.user_id AND e.session_id = s.id"
        " ORDER BY s.app_name, s.user_id, s.id, e.timestamp, e.id"
    ):
        if session is None or session.key != key:
            if session is not None:
                session.end()
            session = _Session(old, to, key, created, updated)
        if event_id is not None:
            session.event(event_id, invocation, time, data)
    if session is not None:
        session.end()


class _Session:
    """A session that is imported as a whole: ADK sees it once its head is stored, the last thing.

    One whose head is there is left as it is.
    """

    def __init__(
        self,
        old: OldTables,
        to: Importing,
        key: Sequence[str],
        created: int | None,
        updated: int | None,
    ) -> None:
        self.key = key
        self._to = to
        self._place = f"session {'/'.join(map(str, key))}"
        self._updated = updated or created or 0
        # Of its creation, so that another run has the same, and a session of director-db another.
        self._number = (created or 0) * 1000
        self._events = 0
        self._latest: float | None = None
        self._head: dict[str, Any] | None = None
        self._asked: list[tuple[str, str, str]] = []
        _begin(to, key, created, self._updated)
        if to.refused_session:
            return
        found = to.find(HEAD)
        self._is_there = bool(found)
        if found:
            self._compare(found[0]["content"])
            return
        mark = old.mark
        ((text,),) = old.rows(
            f"SELECT {old.text('state')} FROM {old.table('sessions')}"
            f" WHERE app_name = {mark} AND user_id = {mark} AND id = {mark}",
            *key,
        )
        try:
            state = _state(text)
        except InvalidRecordError as error:
            to.give_up(self._place, error.path, error.reason)
            return
        shared = {"revision": self._number, "values": {}}
        names = (key[0], key[1], key[2])
        self._head = new_head(names, state, self._updated / 1_000_000, self._number, shared)

    def event(self, event_id: str, invocation: str, time: int | None, data: Any) -> None:
        self._events += 1
        number = self._number + self._events
        place = f"events id={event_id!r} of {self._place}"
        if not self._to.refused_session and self._is_there:
            self._asked.append((place, str(number), event_id))
            if len(self._asked) == _ASKED:
                self._ask()
            return
        make = partial(self._message, number, event_id, invocation, time, data)
        self._to.add(place, make, data)

    def end(self) -> None:
        self._ask()
        if self._to.refused_session or self._head is None:
            return
        self._to.flush()
        head = self._head | {"number": self._number + self._events, "latest": self._latest}
        row = message(HEAD, HEAD, head) | {"revision": head["number"], "if_absent": True}
        row |= {"created_at": seconds(self._number // 1000), "updated_at": seconds(self._updated)}
        try:
            (is_stored,) = self._to.put([row])
        except InvalidRecordError as error:
            self._to.give_up(self._place, "state", error.reason)
            return
        if not is_stored:  # Somebody has imported it at the same time, or created it.
            self._compare(self._to.find(HEAD)[0]["content"])

    def _compare(self, head: dict[str, Any]) -> None:
        if head["created"] != self._number:
            reason = "director-db has another session of this id, and keeps it"
            self._to.give_up(self._place, "id", reason)

    def _ask(self) -> None:
        """Count events of a session that is there: those that came with it, and any others."""
        asked, self._asked = self._asked, []
        found = {row["msg_id"]: row for row in self._to.find(*[number for _, number, _ in asked])}
        for place, number, event_id in asked:
            is_there = number in found and found[number]["content"]["id"] == event_id
            self._to.count(place, None if is_there else InvalidRecordError("id", _TOO_LATE))

    def _message(
        self, number: int, event_id: str, invocation: str, time: int | None, data: Any
    ) -> dict[str, Any]:
        content = decoded(data, "event_data")
        if not isinstance(content, dict) or not isinstance(content.get("author"), str):
            raise InvalidRecordError("event_data", "an event of ADK, with an author")
        said = content.get("content")
        if said is not None and not isinstance(said, dict):
            raise InvalidRecordError("event_data.content", "a dict, or null")
        # ADK, too, takes these from their columns, and the time where the event has none.
        content |= {"id": event_id, "invocation_id": invocation}
        stamp = content.get("timestamp")
        if stamp is None:
            stamp = content["timestamp"] = (time or 0) / 1_000_000
        if not isinstance(stamp, int | float) or not abs(stamp) < 2**60:
            raise InvalidRecordError("event_data.timestamp", "seconds since the epoch")
        self._latest = stamp if self._latest is None else max(self._latest, stamp)
        row = event_message(number, self._latest, content)
        return row | {"created_at": int(stamp // 1), "updated_at": int(stamp // 1)}


def _older_sessions(old: OldTables, to: Importing) -> None:
    """Import the sessions without events; those of the others would have to be unpickled."""
    count = (
        f"(SELECT count(*) FROM {old.table('events')} e WHERE e.app_name = s.app_name"
        " AND e.user_id = s.user_id AND e.session_id = s.id)"
    )
    for *key, created, updated, events in old.rows(
        f"SELECT s.app_name, s.user_id, s.id, {old.utc('s.create_time')},"
        f" {old.utc('s.update_time')}, {count} FROM {old.table('sessions')} s"
        " ORDER BY s.app_name, s.user_id, s.id"
    ):
        if events:
            to.skip(f"session {'/'.join(map(str, key))}, {events} events", _PICKLED)
        else:
            _Session(old, to, key, created, updated).end()


def _begin(to: Importing, key: Sequence[str], created: int | None, updated: int) -> None:
    place = f"session {'/'.join(map(str, key))}"
    if not all(isinstance(part, str) for part in key):
        to.begin(None, place)
        return
    to.begin(
        named(*key),
        place,
        collection_id=named(key[0]),
        user_id=plain(key[1]),
        created_at=seconds(created),
        updated_at=seconds(updated),
        metadata=about(*key),
    )


def _state(text: Any) -> dict[str, Any]:
    state = decoded(text, "state")
    if not isinstance(state, dict):
        raise InvalidRecordError("state", f"a dict, not {type(state).__name__}")
    return state


SOURCE: Final = Source(
    {
        "sessions": ("app_name", "user_id", "id", "state", "create_time", "update_time"),
        "events": ("id", "app_name", "user_id", "session_id"),
        "app_states": ("app_name", "state", "update_time"),
        "user_states": ("app_name", "user_id", "state", "update_time"),
    },
    _move,
)
