"""A conversation store of Pydantic AI: ``await DirectorConversationStore().save(result)``."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from director_db import BackendUnavailableError, DirectorDBError, SessionNotFoundError
from director_db_integrations.cancelling import to_its_end
from director_db_integrations.database import async_database, message_of_each
from director_db_integrations.extras import extra
from director_db_integrations.messages import message

with extra("pydantic-ai"):
    import pydantic
    from pydantic_ai import ModelMessagesTypeAdapter
    from pydantic_ai.conversation_store import (
        ConversationConflict,
        ConversationEntry,
        ConversationRecord,
        ConversationStore,
    )

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic_ai import ModelMessage

    from director_db import BaseDB, Message, Session
    from director_db.asyncio import AsyncDB

__all__ = ["DirectorConversationStore"]

FRAMEWORK: Final = "pydantic-ai"
"""What `metadata` of the sessions that are created here has under ``framework``."""

RECORD: Final = "conversation-record"
"""The `msg_id` and `msg_type` of the message that holds a conversation's record."""

_PAGE: Final = 100  # Sessions that a listing with a limit reads at once.

# As `ModelMessagesTypeAdapter` has it: bytes anywhere in a record are Base64.
_RECORDS: Final = pydantic.TypeAdapter(
    list[ConversationRecord],
    config=pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"),
)

_ROLES: Final = {
    "user-prompt": "user",
    "tool-return": "tool",
    "retry-prompt": "tool",
    "system-prompt": "system",
}
"""The role of a request, by the kinds of its parts; the first that it has counts."""


class _EntryId(str):
    """The id of an entry that was read, which knows in which session it is.

    The framework reads a history by nothing but the id of its last entry, and director-db has
    messages in sessions; another id than this one has to be looked for.
    """

    __slots__ = ("session_id",)
    session_id: str

    @classmethod
    def of(cls, value: str | None, session_id: str) -> _EntryId | None:
        if value is None:
            return None
        entry_id = cls(value)
        entry_id.session_id = session_id
        return entry_id


class DirectorConversationStore(ConversationStore):
    """Keeps the conversations of Pydantic AI as sessions of director-db.

    A conversation is the session of its id, with its scope as the `user_id`. An entry is a message
    of it: `content` is the message of the framework, the `msg_id` the entry's id, the `msg_type`
    the role. The record of the conversation is a message as well.

    A save stores the record and its entries in one transaction, if the revision is still the one
    that it expects. That is the `revision` of the record's message (MSG-11), so it holds for any
    number of processes. A fork has the history that it begins with as messages of its own, so
    deleting a conversation deletes all of it and takes nothing from another.
    """

    def __init__(self, db: AsyncDB | BaseDB | None = None) -> None:
        """Name the database; nothing is opened.

        Args:
            db: of `director_db.asyncio` or not; None is what ``DB_TYPE`` names. It is not closed
                here.
        """
        self._db = async_database(db)

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """Return the record of a conversation, or None if there is none."""
        stored = await self._db.get_message(conversation_id, RECORD)
        return _record(stored)

    async def read_records(
        self, *, scope: str | None = None, limit: int | None = None
    ) -> list[ConversationRecord]:
        """Return the records, or those with a scope, the latest saved first.

        Args:
            scope: of which conversations; None is of all.
            limit: the most records. No more sessions are read than it takes, page by page.
        """
        records: list[ConversationRecord] = []
        page = None if limit is None else max(limit, _PAGE)
        before: Session | None = None
        while limit is None or limit > 0:
            sessions = await self._db.get_sessions(limit=page, before=before, user_id=scope)
            ours = [session for session in sessions if _may_be_ours(session)]
            read = map(_record, await message_of_each(self._db, ours, RECORD))
            records += [each for each in read if each and scope in (None, each.scope)]
            records.sort(key=lambda record: record.updated_at, reverse=True)
            if page is None or len(sessions) < page:
                break
            # A session is never older than its record, and those that come are not newer than this
            # one, in whole seconds.
            before = sessions[-1]
            newest = records[limit - 1 : limit] if limit else []
            if newest and newest[0].updated_at.timestamp() >= before["updated_at"] + 1:
                break
        return records[:limit]

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and new entries in one transaction, on top of a revision.

        A call that is cancelled is carried through before CancelledError is raised, with the note
        and the cause of LIF-7.

        Args:
            record: the record, which replaces that of the same conversation.
            new_entries: what its history adds, each behind the one that it points at.
            expected_revision: that of the stored record; None where there is to be none.

        Raises:
            ConversationConflict: another revision is stored, the conversation is being deleted, or
                an entry that this points at is not there; nothing has been stored.
            InvalidRecordError: an id or the scope can be none here (VAL-4), or the value is no
                payload (VAL-3, VAL-6); nothing has been stored.
            BackendUnavailableError: with `maybe_applied`, where the connection was lost and who
                saved last cannot be told.
        """
        await to_its_end(self._write(record, [*new_entries], expected_revision))

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation with all of its messages, if it has that revision.

        Raises:
            ConversationConflict: it has another one, or is not there.
        """
        await to_its_end(self._delete(conversation_id, expected_revision))

    async def delete(self, conversation_id: str, *, scope: str | None = None) -> None:
        """Delete a conversation with all of its messages, branches too; the session goes.

        One whose deletion was killed in the middle is deleted to its end.

        Args:
            conversation_id: which; it need not be there.
            scope: if given, a conversation with another one stays.
        """
        await super().delete(conversation_id, scope=scope)
        stored = await self._db.get_message(conversation_id, RECORD)
        if stored and _record(stored) is None:
            await self._db.delete_session(conversation_id)

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """Return an entry. One of a record that was read is found at once.

        Any other id is looked for in one session after another.

        Raises:
            LookupError: there is no such entry.
        """
        row = await self._db.get_message(await self._session_of(entry_id), entry_id)
        if not row:
            raise _no_entry(entry_id)
        return _entry(row)

    async def read_history(
        self, head_id: str | None, *, limit: int | None = None
    ) -> list[ConversationEntry]:
        """Return the entries up to that one, or the last `limit` of them, in one or two reads.

        Raises:
            LookupError: one of them is not there.
        """
        return [_entry(row) for row in await self._line(head_id, limit)]

    async def _line(self, head_id: str | None, limit: int | None = None) -> list[Message]:
        """Return the messages of a history."""
        if head_id is None or limit == 0:
            return []
        session_id = await self._session_of(head_id)
        # Where branches lie between, the latest are not enough.
        for latest in (limit, None) if limit else (None,):
            rows = await self._db.get_conversations(session_id, limit=latest)
            line = _line_to(head_id, rows, limit)
            if line is not None:
                return line
        raise _no_entry(head_id)

    async def _session_of(self, entry_id: str) -> str:
        if isinstance(entry_id, _EntryId):
            return entry_id.session_id
        async for session in self._db.iter_sessions():
            name = session["session_id"]
            if _may_be_ours(session) and await self._db.get_message(name, entry_id):
                return name
        raise _no_entry(entry_id)

    async def _write(  # noqa: PLR0915 - one write and what may become of it
        self,
        record: ConversationRecord,
        new_entries: list[ConversationEntry],
        expected_revision: str | None,
    ) -> None:
        name, conflict = record.conversation_id, ConversationConflict(record.conversation_id)
        # At once, as the caller may go on to change them.
        written = message(RECORD, RECORD, _RECORDS.dump_python([record], mode="json")[0])
        written["updated_at"] = int(record.updated_at.timestamp())
        entries = list(map(_message, new_entries))
        new = {entry.id for entry in new_entries}
        pointed_at = [record.head_id, *(entry.parent_id for entry in new_entries)]
        needed = {each for each in pointed_at if each is not None} - new
        rows = await self._db.get_messages(name, [RECORD, *needed])
        there = {row["msg_id"]: row for row in rows}
        stored = there.pop(RECORD, None)
        before = _record(stored)
        if (stored and not before) or (before.revision if before else None) != expected_revision:
            raise conflict
        try:
            # Of a fork, which begins with the history of another conversation.
            copied = [await self._line(each) for each in needed if each not in there]
        except LookupError:
            raise conflict from None
        if stored:
            # One more than was read: who else has saved since holds this one back (MSG-11).
            written["revision"] = (stored["revision"] or 0) + 1
        else:
            # So that no conversation of this id that was deleted has had it.
            written |= {"revision": time.time_ns(), "if_absent": True}
        messages = [
            written,
            *({**row, "session_id": name, "if_absent": True} for line in copied for row in line),
            *entries,
        ]
        created = False
        try:
            try:
                results = await self._db.add_or_update_msgs_to_conv(name, messages)
            except SessionNotFoundError:
                if before:
                    raise
                created = await self._db.create_session(
                    name, user_id=record.scope, metadata={"framework": FRAMEWORK}
                )
                results = await self._db.add_or_update_msgs_to_conv(name, messages)
        except SessionNotFoundError:
            raise conflict from None
        except BackendUnavailableError as lost:
            if not lost.maybe_applied:
                raise
            # The record and the entries are there or none of them is; both say whose they are.
            try:
                saved = await self.read_record(name)
            except BackendUnavailableError:
                raise lost from None
            if not saved or saved.revision != record.revision:
                raise
            results = [True]
        if not results[0]:
            # What came with it has to go. What was there before is not this call's.
            added = [row["msg_id"] for row, is_new in zip(messages, results, strict=True) if is_new]
            await self._remove(name, added)
            raise conflict
        if not created and record.scope != (before.scope if before else None):
            with contextlib.suppress(SessionNotFoundError):  # It was deleted, right after.
                await self._db.update_session(name, user_id=record.scope)

    async def _remove(self, name: str, ids: list[str]) -> None:
        for each in ids:
            with contextlib.suppress(DirectorDBError):  # No history reaches it.
                await self._db.delete_message(name, each)

    async def _delete(self, name: str, expected_revision: str) -> None:
        conflict = ConversationConflict(name)
        stored = await self._db.get_message(name, RECORD)
        record = _record(stored)
        if not record or record.revision != expected_revision:
            raise conflict
        # From here on it is deleted for all who read, and nobody can save on top of it.
        written = message(RECORD, RECORD, None) | {"revision": (stored["revision"] or 0) + 1}
        try:
            (was_stored,) = await self._db.add_or_update_msgs_to_conv(name, [written])
        except SessionNotFoundError:
            raise conflict from None
        if not was_stored:
            raise conflict
        await self._db.delete_session(name)


def _record(row: Message | dict[str, Any] | None) -> ConversationRecord | None:
    """Return the record that a message holds; None of one that is not there, or was deleted."""
    if not row or row["content"] is None:
        return None
    (record,) = _RECORDS.validate_python([row["content"]])
    # A session that was copied (SES-9) is a conversation of its own.
    record.conversation_id = name = row["session_id"]
    record.head_id = _EntryId.of(record.head_id, name)
    record.branches = [_EntryId.of(tip, name) or tip for tip in record.branches]
    return record


def _entry(row: Message | dict[str, Any]) -> ConversationEntry:
    (content,) = ModelMessagesTypeAdapter.validate_python([row["content"]])
    name = row["session_id"]
    return ConversationEntry(
        id=_EntryId.of(row["msg_id"], name) or "",
        parent_id=_EntryId.of(row["metadata"]["parent_id"], name),
        message=content,
    )


def _message(entry: ConversationEntry) -> dict[str, Any]:
    (content,) = ModelMessagesTypeAdapter.dump_python([entry.message], mode="json")
    return message(entry.id, _role(entry.message), content) | {
        "metadata": {"parent_id": entry.parent_id},
        "if_absent": True,
    }


def _role(said: ModelMessage) -> str:
    if said.kind == "response":
        return "assistant"
    kinds = {part.part_kind for part in said.parts}
    return next((role for kind, role in _ROLES.items() if kind in kinds), "user")


def _line_to(head_id: str, rows: Iterable[Message], limit: int | None) -> list[Message] | None:
    """Return the messages from the first, or the last `limit`, up to one; None if one lacks."""
    there = {row["msg_id"]: row for row in rows}
    line: list[Message] = []
    next_id: str | None = head_id
    while next_id is not None and len(line) != limit:
        row = there.pop(next_id, None)
        if row is None:
            return None
        line.append(row)
        next_id = row["metadata"]["parent_id"]
    return line[::-1]


def _may_be_ours(session: Session) -> bool:
    """Return whether a session can have a record; what an application makes names no framework."""
    metadata = session["metadata"]
    return not isinstance(metadata, dict) or metadata.get("framework", FRAMEWORK) == FRAMEWORK


def _no_entry(entry_id: str) -> LookupError:
    return LookupError(f"There is no entry {str(entry_id)!r} in the store.")
