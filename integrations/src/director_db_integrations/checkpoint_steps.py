"""What a checkpointer asks of the database, in steps that threads and coroutines can take."""

from __future__ import annotations

from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final

from director_db import InvalidRecordError, SessionNotFoundError
from director_db_integrations.checkpoints import (
    CHECKPOINT,
    NAMESPACE,
    WRITE,
    Place,
    thread_of,
)
from director_db_integrations.steps import store as store_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director_db_integrations.steps import Steps

Row = dict[str, Any]
Rows = list[Row]

_PAGE: Final = 100  # Checkpoints that are read at once.
_WRITES: Final = 1000  # The same of writes and of sessions.
_OURS: Final = (f"{CHECKPOINT}:", f"{CHECKPOINT}#")  # How the ids of checkpoints begin.
_IDS: Final = 100_000  # The most that may be asked for at once (MSG-12).


def store(place: Place, messages: Rows) -> Steps:
    """Store messages, all or none, in one call; in three where there is no session yet."""
    yield from store_messages(place.session, messages, place.session_metadata, again=True)


def messages_of(place: Place, keys: Sequence[str]) -> Steps:
    """Return messages of a thread by their ids, oldest place first."""
    unique = list(dict.fromkeys(keys))
    found: Rows = []
    for at in range(0, len(unique), _IDS):
        found += yield methodcaller("get_messages", place.session, unique[at : at + _IDS])
    return {message["msg_id"]: message for message in found}


def find(place: Place, checkpoint: str | None) -> Steps:
    """Return a checkpoint's message, without an id the latest; None if there is none."""
    if checkpoint:
        key = place.key(CHECKPOINT, checkpoint)
        return (yield methodcaller("get_message", place.session, key)) or None
    pages = Pages(place)
    yield from pages.begin(None)
    while (page := (yield from pages.next(1))) is not None:
        if page:
            return page[0]
    return None


def parent_of(place: Place, row: Row, known: dict[str, Row]) -> Steps:
    """Return the message of a checkpoint's parent, if it is there.

    Args:
        place: where the checkpoint is.
        row: its message.
        known: what was read before; a page of what stands before the parent is read too.
    """
    parent = row["content"]["parent"]
    if not parent:
        return None
    key = place.key(CHECKPOINT, parent)
    if key not in known:
        known.clear()
        known.update((yield from messages_of(place, [key])))
        if known:
            pages = Pages(place)
            pages.cursor = key
            page = yield from pages.next(_PAGE)
            known.update({found["msg_id"]: found for found in page or ()})
    return known.get(key)


class Pages:
    """The checkpoints of a thread, page by page, the latest first.

    Attributes:
        place: the thread and the namespace.
        everywhere: whether the checkpoints of all namespaces are meant.
        cursor: the message before which the next page ends.
    """

    def __init__(self, place: Place, *, everywhere: bool = False) -> None:
        """Name a thread and a namespace; with `everywhere` all of them."""
        self.place = place
        self.everywhere = everywhere
        self.cursor: str | None = None
        self._bound: str | None = None
        self._last: str | None = None
        self._ended = False
        self._given: Rows = []

    def begin(self, before: str | None) -> Steps:
        """Begin before a checkpoint; below its id where it is not in the namespace.

        Places of two namespaces say little: a graph's checkpoint may be stored after those of a
        subgraph that it has called.
        """
        place = self.place
        if place.ns:
            named = yield methodcaller("get_message", place.session, place.key(NAMESPACE))
            self._ended = not named
        if before and not self._ended:
            key = place.key(CHECKPOINT, before)
            self._last = before
            if not self.everywhere and (yield methodcaller("get_message", place.session, key)):
                self.cursor = key
            else:
                self._bound = before

    def only(self, checkpoint: str, before: str | None) -> Steps:
        """Begin with one checkpoint, and end there; with none if its id is not below `before`."""
        row = yield from find(self.place, checkpoint)
        below = before is None or checkpoint < before
        self._given = [row] if row and below else []
        self._ended = True

    def next(self, limit: int | None = None) -> Steps:
        """Return a page, which may be empty; None behind the last."""
        if self._given:
            return [self._given.pop()]
        if self._ended:
            return None
        size = min(limit or _PAGE, _PAGE)
        try:
            page = yield methodcaller(
                "get_conversations",
                self.place.session,
                limit=size,
                before=self.cursor,
                conv_id=None if self.everywhere else self.place.conv_id,
                msg_type=CHECKPOINT,
            )
        except InvalidRecordError:
            if self.cursor is None:
                raise
            # It was deleted since. In a namespace ids grow, so that the lower bound holds.
            bounds = [each for each in (self._bound, self._last) if each is not None]
            self.cursor, self._bound = None, min(bounds, default=None)
            return (yield from self.next(limit))
        self._ended = len(page) < size
        if page:
            self.cursor = page[0]["msg_id"]
        # What an application calls a checkpoint is none of ours.
        ours = [row for row in page if row["msg_id"].startswith(_OURS)]
        if ours:
            self._last = ours[0]["content"]["id"]
        bound = self._bound
        return [row for row in reversed(ours) if bound is None or row["content"]["id"] < bound]


class Writes:
    """Writes of a thread's checkpoints that were read.

    Attributes:
        of: by the id of the message that stands before those of a checkpoint, and by their own.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.of: dict[str, dict[str, Row]] = {}
        self._first: str | None = None

    def read(self, place: Place, anchors: Sequence[str], stored: dict[str, Row]) -> Steps:
        """Read the writes of checkpoints, and no more than once what stands behind them.

        Args:
            place: the thread.
            anchors: the ids of the messages before the writes.
            stored: messages that were read, oldest place first; anchors that are not there have no
                writes.
        """
        if len(anchors) == 1:
            query: dict[str, Any] = {"conv_id": anchors[0]}
        else:
            query = {"limit": _WRITES}
        after = next((key for key in stored if key in set(anchors)), None)
        first: str | None = None
        while after is not None:
            try:
                page = yield methodcaller(
                    "get_conversations", place.session, after=after, msg_type=WRITE, **query
                )
            except InvalidRecordError:  # It was deleted since.
                stored = yield from messages_of(place, anchors)
                after = next(iter(stored), None)
                continue
            for row in page:
                self.of.setdefault(row["conv_id"], {})[row["msg_id"]] = row
            first = first or next((row["msg_id"] for row in page), None)
            ended = len(page) < query.get("limit", len(page) + 1)
            ended = ended or any(row["msg_id"] == self._first for row in page)
            after = None if ended else page[-1]["msg_id"]
        if len(anchors) > 1:
            self._first = first or self._first


def threads() -> Steps:
    """Return the threads of all sessions, the latest first."""
    found: list[str] = []
    page: Rows = []
    while not found or len(page) == _WRITES:
        before = page[-1] if page else None
        page = yield methodcaller("get_sessions", limit=_WRITES, before=before)
        if not page:
            break
        found += [thread_of(session) for session in page]
    return found


def all_checkpoints(place: Place) -> Steps:
    """Return the messages of all checkpoints of a thread, the latest first."""
    pages, rows = Pages(place, everywhere=True), []
    while (page := (yield from pages.next())) is not None:
        rows += page
    return rows


def delete_thread(thread: str) -> Steps:
    """Delete a thread's session."""
    yield methodcaller("delete_session", Place(str(thread), "").session)


def copy_thread(source: str, target: str) -> Steps:
    """Copy a thread's session, if there is one."""
    origin, place = Place(str(source), ""), Place(str(target), "")
    try:
        yield methodcaller("copy_session", origin.session, place.session)
    except SessionNotFoundError:
        return
    if {origin.session, place.session} != {origin.thread, place.thread}:
        metadata = (yield methodcaller("get_session", place.session)).get("metadata")
        if isinstance(metadata, dict):
            metadata.pop("thread_id", None)
            metadata |= place.session_metadata
            yield methodcaller("update_session", place.session, metadata=metadata)
