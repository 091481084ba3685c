"""Chat message histories of LangChain: ``DirectorChatMessageHistory("s1").add_messages([...])``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from director_db import InvalidRecordError
from director_db_integrations.database import async_database
from director_db_integrations.extras import extra
from director_db_integrations.messages import message as row
from director_db_integrations.messages import unique_id
from director_db_integrations.steps import atake, store, take

with extra("langchain"):
    from langchain_core import messages as kinds
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.documents import Document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from director_db import BaseDB, Message
    from director_db.asyncio import AsyncDB
    from director_db_integrations.steps import Steps

    Messages: TypeAlias = list[BaseMessage]

__all__ = ["DirectorChatMessageHistory"]

CONV_ID: Final = "langchain"
"""Of the messages that are stored here; what others have in the session is none of LangChain's."""

METADATA: Final = {"framework": "langchain"}
"""Of the sessions that are created here."""

DOCUMENT: Final = "document"
DOCUMENTS: Final = "documents"
"""What `metadata` of a message has under ``artifact`` where that is a document, or some."""

CLASSES: Final[dict[str, type[BaseMessage]]] = {
    "human": kinds.HumanMessage,
    "ai": kinds.AIMessage,
    "system": kinds.SystemMessage,
    "tool": kinds.ToolMessage,
    "function": kinds.FunctionMessage,
    "chat": kinds.ChatMessage,
    "remove": kinds.RemoveMessage,
    "HumanMessageChunk": kinds.HumanMessageChunk,
    "AIMessageChunk": kinds.AIMessageChunk,
    "SystemMessageChunk": kinds.SystemMessageChunk,
    "ToolMessageChunk": kinds.ToolMessageChunk,
    "FunctionMessageChunk": kinds.FunctionMessageChunk,
    "ChatMessageChunk": kinds.ChatMessageChunk,
}
"""LangChain's messages by their `type`."""


class DirectorChatMessageHistory(BaseChatMessageHistory):
    """A chat message history that is a session of director-db, its messages messages there.

    The `content` of a message is what LangChain's `message_to_dict` makes of it, the `type` is its
    `msg_type`, ``langchain`` the `conv_id`, and its id begins with LangChain's, where it has one.
    That is not all of it, as a history may be given a message twice.

    Any number of objects, in any number of threads, processes and event loops, may be used for one
    session; the asynchronous methods never block their loop for the database. A cancelled call that
    has begun is carried to its end before CancelledError is raised (LIF-7).

    Attributes:
        session_id: the session, 1 to 255 characters.
        limit: the most messages that are returned, the latest; None is all.
    """

    def __init__(
        self, session_id: str, db: AsyncDB | BaseDB | None = None, *, limit: int | None = None
    ) -> None:
        """Name a session. Nothing is read or stored before the first call.

        Args:
            session_id: the session, 1 to 255 characters; adding messages creates one that is not
                there.
            db: where it is, of `director_db.asyncio` or not; None is what ``DB_TYPE`` names. It is
                not closed here.
            limit: the most messages that are returned, the latest, at least 1; None is all.
        """
        super().__init__()
        self.session_id = session_id
        self.limit = limit
        self._db = async_database(db)
        self._known = False

    @property
    def messages(self) -> Messages:  # type: ignore[override]
        """The messages, oldest first; one round trip, which reads no more than it returns.

        Raises:
            InvalidRecordError: the limit is below 1.
        """
        return self._read(self._db.sync_db)

    async def aget_messages(self) -> Messages:
        """Return `messages`."""
        return await self._db.run(self._read)

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Store messages behind those that are there, all or none, in one round trip.

        A session that is not there is created, which takes two more. One that was deleted after
        this object has read or stored messages in it is not: what comes late does not bring it
        back (MSG-5).

        Raises:
            BackendUnavailableError: with `maybe_applied`, where they may have been stored.
            InvalidRecordError: a message holds what is no JSON value, with its path, or it is of a
                class that is not LangChain's own; nothing is stored.
            SessionNotFoundError: the session was deleted meanwhile.
        """
        take(self._db.sync_db, self._add(messages))

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Do the same as `add_messages`."""
        await atake(self._db, self._add(messages))

    def clear(self) -> None:
        """Delete all messages of the session, in one step and one round trip; its context stays.

        Messages that others have stored in the session are deleted with them.
        """
        self._db.sync_db.delete_conversation(self.session_id)

    async def aclear(self) -> None:
        """Do the same as `clear`."""
        await self._db.delete_conversation(self.session_id)

    def _read(self, db: BaseDB) -> Messages:
        stored = db.get_conversations(self.session_id, limit=self.limit, conv_id=CONV_ID)
        if stored:
            self._known = True
        return [_restored(each) for each in stored]

    def _add(self, messages: Sequence[BaseMessage]) -> Steps:
        rows = [
            message_row(message, f"messages[{number}]") for number, message in enumerate(messages)
        ]
        if rows:
            yield from store(self.session_id, rows, METADATA, known=self._known)
            self._known = True


def message_row(message: BaseMessage, path: str, of: str | None = None) -> dict[str, Any]:
    """Return the message that one of LangChain is stored as.

    Args:
        message: LangChain's.
        path: where it is, for the error.
        of: what gives it the same id each time; None is for a new one.

    Raises:
        InvalidRecordError: it is of a class that is not LangChain's own.
    """
    kind = getattr(message, "type", None)
    if not isinstance(kind, str) or type(message) is not CLASSES.get(kind):
        wanted = f"a message of LangChain's own classes, not {type(message).__name__}"
        raise InvalidRecordError(path, wanted)
    # Not `model_dump()`: it makes a dict of any model within, which comes back as a dict then.
    data = dict(message)
    stored = row(unique_id(message.id, of), kind, {"type": kind, "data": data})
    stored["conv_id"] = CONV_ID
    artifact: Any = data.get("artifact")
    if type(artifact) is Document:
        data["artifact"] = dict(artifact)
        stored["metadata"] = {"artifact": DOCUMENT}
    elif type(artifact) is list and artifact and all(type(each) is Document for each in artifact):
        data["artifact"] = [dict(each) for each in artifact]
        stored["metadata"] = {"artifact": DOCUMENTS}
    return stored


def _restored(stored: Message) -> BaseMessage:
    data: dict[str, Any] = stored["content"]["data"]
    match stored["metadata"]:
        case {"artifact": "document"}:
            data["artifact"] = Document.model_construct(**data["artifact"])
        case {"artifact": "documents"}:
            data["artifact"] = [Document.model_construct(**each) for each in data["artifact"]]
    # Not the constructor: it would make tool calls of what `additional_kwargs` has, for example.
    return CLASSES[stored["content"]["type"]].model_construct(**data)
