"""Stores of LlamaIndex: ``Memory.from_defaults("s1", chat_store=DirectorMemoryStore())``."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final

from director_db import InvalidRecordError, SessionNotFoundError
from director_db_integrations.database import async_database
from director_db_integrations.extras import extra
from director_db_integrations.messages import message as row
from director_db_integrations.messages import unique_id
from director_db_integrations.steps import atake, store, take

with extra("llama-index"):
    from llama_index.core.bridge.pydantic import BaseModel, PrivateAttr
    from llama_index.core.llms import ChatMessage
    from llama_index.core.storage.chat_store.base import BaseChatStore
    from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from director_db import BaseDB, Message, Session
    from director_db.asyncio import AsyncDB
    from director_db_integrations.steps import Steps

__all__ = ["DirectorChatStore", "DirectorMemoryStore"]

METADATA: Final = {"framework": "llama-index"}
"""Of the sessions that are created here."""

ACTIVE: Final = MessageStatus.ACTIVE
ARCHIVED: Final = MessageStatus.ARCHIVED
CONV_IDS: Final = {status: f"llama-index:{status.value}" for status in MessageStatus}
"""The `conv_id` of the messages that have a status."""

STORED: Final = 1
"""The `revision` of each message, which it has from being stored first. Archiving writes none: one
that is deleted meanwhile comes into being without it, and so is none (MSG-11)."""

_MANY: Final = 10_000  # Keys that a store remembers, those that it used last.


class _Store(BaseModel):
    """What both stores have."""

    _db: Any = PrivateAttr()
    _known: Any = PrivateAttr()

    def __init__(self, db: AsyncDB | BaseDB | None = None) -> None:
        """Take a database. Nothing is read or stored before the first call.

        Args:
            db: where the sessions are, of `director_db.asyncio` or not; None is what ``DB_TYPE``
                names. It is not closed here.
        """
        super().__init__()
        self._db = async_database(db)
        self._known = _Keys()


class DirectorChatStore(_Store, BaseChatStore):
    """A chat store whose keys are sessions of director-db, and whose messages are messages there.

    The `content` of a message is LlamaIndex's, as its stores write it; the `role` is the
    `msg_type`.

    Any number of stores, in any number of threads, processes and event loops, may be used for one
    key; the asynchronous methods never block their loop for the database. A cancelled call takes
    effect whole or not at all before CancelledError is raised (LIF-7): one that has begun is
    carried to its end.
    """

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes for the class."""
        return "DirectorChatStore"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Make a store of what `to_dict` has given, which does not say where the messages are.

        Args:
            data: what `to_dict` has given.
            kwargs: the `db`, as of the constructor.

        Raises:
            ValueError: there is no `db`. The one that ``DB_TYPE`` names may be another.
        """
        if kwargs.get("db") is None:
            message = f"{cls.class_name()} does not write which database it has: pass db=..."
            raise ValueError(message)
        made: Self = super().from_dict(data, **kwargs)
        return made

    def set_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Replace all messages of a key, in one step and one round trip.

        A session that is not there is created, which takes two more. One that was deleted after
        this store has read or stored messages in it is not; the call after that creates it.

        Raises:
            BackendUnavailableError: with `maybe_applied`, where it may have been stored.
            InvalidRecordError: a message would not come back as LlamaIndex writes it, with its
                path; nothing is stored.
            SessionNotFoundError: the session was deleted meanwhile.
        """
        take(self._db.sync_db, self._known.store(key, messages, replacing=True))

    async def aset_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Do the same as `set_messages`."""
        await atake(self._db, self._known.store(key, messages, replacing=True))

    def get_messages(self, key: str) -> list[ChatMessage]:
        """Return the messages of a key, oldest first; one round trip."""
        read: list[ChatMessage] = take(self._db.sync_db, self._known.read(key))
        return read

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        """Do the same as `get_messages`."""
        read: list[ChatMessage] = await atake(self._db, self._known.read(key))
        return read

    def add_message(self, key: str, message: ChatMessage) -> None:
        """Store a message behind those that are there, in one round trip; it raises as above.

        Where the answer was lost, it is not stored again: others may have deleted it meanwhile.
        """
        take(self._db.sync_db, self._known.store(key, [message]))

    async def async_add_message(self, key: str, message: ChatMessage) -> None:
        """Do the same as `add_message`."""
        await atake(self._db, self._known.store(key, [message]))

    def delete_messages(self, key: str) -> None:
        """Delete all messages of a key. The session stays, with whatever else it has."""
        self._db.sync_db.delete_conversation(key)

    async def adelete_messages(self, key: str) -> None:
        """Do the same as `delete_messages`."""
        await self._db.delete_conversation(key)

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete a message and return it; None if there is none.

        Args:
            key: the session.
            idx: its place among the messages, from 0; a negative one counts from the end. Of calls
                at once each gets another message, which was in that place.
        """
        return _one(take(self._db.sync_db, _delete_at(key, idx, ACTIVE)))

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Do the same as `delete_message`."""
        return _one(await atake(self._db, _delete_at(key, idx, ACTIVE)))

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the last message and return it; None if there is none. No two calls get the same.

        It takes one round trip. After a lost connection its outcome may not be known (MSG-13).

        Raises:
            BackendUnavailableError: with `maybe_applied`, where it may have been deleted.
        """
        return _one(self._db.sync_db.pop_message(key, conv_id=CONV_IDS[ACTIVE]))

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        """Do the same as `delete_last_message`."""
        return _one(await self._db.pop_message(key, conv_id=CONV_IDS[ACTIVE]))

    def get_keys(self) -> list[str]:
        """Return the ids of all sessions that were created for LlamaIndex, the last used last.

        All sessions are read, in pages.
        """
        return _keys(list(self._db.sync_db.iter_sessions()))

    async def aget_keys(self) -> list[str]:
        """Do the same as `get_keys`."""
        return _keys([session async for session in self._db.iter_sessions()])


class DirectorMemoryStore(_Store, AsyncDBChatStore):
    """A store of LlamaIndex's `Memory`, whose keys are sessions of director-db.

    What it stores is what `DirectorChatStore` does. A message has its status as `conv_id`:
    ``llama-index:active``, or ``llama-index:archived`` when `Memory` has moved it out of its queue;
    that changes neither its id nor its place.
    """

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes for the class."""
        return "DirectorMemoryStore"

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        """Return the messages of a key that have a status, oldest first; one round trip.

        Args:
            key: the session.
            status: None is any.
            limit: the most messages, the oldest; None is all.
            offset: how many are left out before them.

        Raises:
            InvalidRecordError: the limit or the offset is below 0.
        """
        for name, value in (("limit", limit), ("offset", offset)):
            if value is not None and value < 0:
                raise InvalidRecordError(name, f"0 or more, not {value}")
        read: list[ChatMessage] = await atake(self._db, self._known.read(key, status))
        start = offset or 0
        return read[start:] if limit is None else read[start : start + limit]

    async def count_messages(self, key: str, status: MessageStatus | None = ACTIVE) -> int:
        """Return how many messages of a key have a status; None is any."""
        return len(await self.get_messages(key, status))

    async def add_message(
        self, key: str, message: ChatMessage, status: MessageStatus = ACTIVE
    ) -> None:
        """Store a message; see `add_messages`."""
        await self.add_messages(key, [message], status)

    async def add_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = ACTIVE
    ) -> None:
        """Store messages behind those that are there, all or none, in one round trip.

        It creates sessions, and raises, as `DirectorChatStore.set_messages` does.
        """
        if messages:
            await atake(self._db, self._known.store(key, messages, status))

    async def set_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = ACTIVE
    ) -> None:
        """Replace all messages of a key, of any status; see `DirectorChatStore.set_messages`."""
        await atake(self._db, self._known.store(key, messages, status, replacing=True))

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete a message and return it; None if there is none.

        Args:
            key: the session.
            idx: its place among the messages of any status; see `DirectorChatStore`.
        """
        return _one(await atake(self._db, _delete_at(key, idx, None)))

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Delete the messages of a key that have a status. The session stays.

        With None all are deleted, in one step; else each by itself, so that those which come
        meanwhile stay.
        """
        if status is None:
            await self._db.delete_conversation(key)
        else:
            await atake(self._db, _delete_first(key, None, status))

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Delete the oldest `n` active messages, and return them; no two calls get the same.

        Each is deleted by itself. What others delete at the same time is not returned.
        """
        return [*map(_restored, await atake(self._db, _delete_first(key, n, ACTIVE)))]

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Archive the oldest `n` active messages, all or none, and return them.

        Calls at once may archive and return the same. One that is deleted meanwhile stays deleted.
        """
        return [*map(_restored, await atake(self._db, _archive(key, n)))]

    async def get_keys(self) -> list[str]:
        """Return the ids of all sessions that were created for LlamaIndex, the last used last.

        All sessions are read, in pages.
        """
        return _keys([session async for session in self._db.iter_sessions()])


class _Keys:
    """The keys that a store has found sessions for, those of late."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, None] = OrderedDict()

    def store(
        self,
        key: str,
        messages: Sequence[ChatMessage],
        status: MessageStatus = ACTIVE,
        *,
        replacing: bool = False,
    ) -> Steps:
        rows = [message_row(each, status, f"messages[{at}]") for at, each in enumerate(messages)]
        known = key in self._found
        try:
            yield from store(key, rows, METADATA, known=known, replacing=replacing)
        except SessionNotFoundError:
            self._found.pop(key, None)  # It is told once, and may begin anew.
            raise
        self._remember(key)

    def read(self, key: str, status: MessageStatus | None = ACTIVE) -> Steps:
        found = yield from _stored(key, status)
        if found:
            self._remember(key)
        return [_restored(each) for each in found]

    def _remember(self, key: str) -> None:
        self._found[key] = None
        with suppress(KeyError):  # Another thread was told that it is gone.
            self._found.move_to_end(key)
        if len(self._found) > _MANY:
            self._found.popitem(last=False)


def message_row(
    message: ChatMessage, status: MessageStatus, path: str, of: str | None = None
) -> dict[str, Any]:
    """Return the message that one of LlamaIndex is stored as.

    Args:
        message: LlamaIndex's.
        status: whether it is archived.
        path: where it is, for the error.
        of: what gives it the same id each time; None is for a new one.

    Raises:
        InvalidRecordError: it would not come back as LlamaIndex writes it.
    """
    if type(message) is not ChatMessage:
        wanted = f"a ChatMessage of LlamaIndex, not {type(message).__name__}"
        raise InvalidRecordError(path, wanted)
    try:
        # What LlamaIndex makes of `additional_kwargs` is not turned into JSON here: pydantic would
        # make null of NaN, and a list of a set, where director-db refuses them.
        kwargs = message.model_dump(include={"additional_kwargs"})
        blocks = message.model_dump(mode="json", include={"blocks"})
        content = {"role": message.role.value, **kwargs, **blocks}
        came = ChatMessage.model_validate(content).model_dump(include={"blocks"})
        is_equal = came == message.model_dump(include={"blocks"})
    # What their code and pydantic raise, also where it looks for the file of a path.
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise InvalidRecordError(path, f"LlamaIndex cannot write and read it: {error}") from error
    if not is_equal:
        raise InvalidRecordError(f"{path}.blocks", "LlamaIndex would read what it writes otherwise")
    written = row(unique_id(of=of), message.role.value, content)
    return written | {"conv_id": CONV_IDS[status], "revision": STORED}


def _restored(stored: Message) -> ChatMessage:
    return ChatMessage.model_validate(stored["content"])


def _one(stored: Message | None) -> ChatMessage | None:
    return _restored(stored) if stored else None


def _stored(key: str, status: MessageStatus | None) -> Steps:
    """Return what is stored of a key in a status, None is any; messages of others are none."""
    conv_id = None if status is None else CONV_IDS[status]
    found = yield methodcaller("get_conversations", key, conv_id=conv_id)
    ours = CONV_IDS.values()
    return [each for each in found if each["conv_id"] in ours and each["revision"] == STORED]


def _delete_at(key: str, idx: int, status: MessageStatus | None) -> Steps:
    """Delete the message in a place, and return what was stored; None if there is none."""
    while True:
        found = yield from _stored(key, status)
        if not -len(found) <= idx < len(found):
            return None
        if (yield methodcaller("delete_message", key, found[idx]["msg_id"])):
            return found[idx]


def _delete_first(key: str, n: int | None, status: MessageStatus) -> Steps:
    """Delete the first `n` messages in a status, None is all, and return those that it deleted."""
    deleted = []
    for each in (yield from _stored(key, status))[: n if n is None else max(n, 0)]:
        if (yield methodcaller("delete_message", key, each["msg_id"])):
            deleted.append(each)  # noqa: PERF401 - no comprehension may yield
    return deleted


def _archive(key: str, n: int) -> Steps:
    """Archive the first `n` active messages, and return them as they were."""
    oldest = (yield from _stored(key, ACTIVE))[: max(n, 0)]
    if not oldest:
        return oldest
    archived = {"conv_id": CONV_IDS[ARCHIVED], "created_at": None, "revision": None}
    try:
        yield methodcaller(
            "add_or_update_msgs_to_conv", key, [{**each, **archived} for each in oldest]
        )
    except SessionNotFoundError:
        return []  # Deleted with all that it had.
    # A message that was deleted after we read it is there again, without its revision: delete it.
    ids = [each["msg_id"] for each in oldest]
    there = yield methodcaller("get_messages", key, ids)
    for each in there:
        if each["revision"] != STORED:
            yield methodcaller("delete_message", key, each["msg_id"])
    kept = {each["msg_id"] for each in there if each["revision"] == STORED}
    return [each for each in oldest if each["msg_id"] in kept]


def _keys(sessions: Iterable[Session]) -> list[str]:
    found = [
        session["session_id"]
        for session in sessions
        if isinstance(session["metadata"], dict)
        and session["metadata"].get("framework") == METADATA["framework"]
    ]
    return found[::-1]
