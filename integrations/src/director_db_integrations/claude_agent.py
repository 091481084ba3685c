"""A session store of the Claude Agent SDK, for its option `session_store`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from director_db import BackendUnavailableError, SessionNotFoundError
from director_db_integrations.cancelling import to_its_end
from director_db_integrations.database import async_database, content_of_each
from director_db_integrations.extras import extra
from director_db_integrations.messages import is_id, message, quoted_id, unique_id

with extra("claude-agent"):
    from claude_agent_sdk import fold_session_summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from claude_agent_sdk import SessionKey, SessionStoreEntry, SessionStoreListEntry
    from claude_agent_sdk.types import SessionListSubkeysKey, SessionSummaryEntry

    from director_db import BaseDB, Session
    from director_db.asyncio import AsyncDB

__all__ = ["DirectorSessionStore"]

FRAMEWORK: Final = "claude-agent"
"""What `metadata` of the sessions that are created here has under ``framework``."""

SUMMARY: Final = "session-summary"
"""The `msg_id` and `msg_type` of the message that holds a session's summary."""


class DirectorSessionStore:
    """Keeps the transcripts of the SDK as sessions of director-db, their entries as messages there.

    It has all that the protocol `claude_agent_sdk.SessionStore` asks for and offers. A transcript
    is the session ``claude/<project_key>/<session_id>``, with the `collection_id`
    ``claude/<project_key>``; one of a subagent has its ``/<subpath>`` behind that, and the session
    that it is of as its `collection_id`. An entry is the `content` of a message, its `type` the
    `msg_type`, its `uuid` the `msg_id`.

    The summary of a transcript is a message too, stored in the transaction of the entries that it
    tells of; what processes append at once is all in it.
    """

    def __init__(self, db: AsyncDB | BaseDB | None = None) -> None:
        """Name the database; nothing is opened.

        Args:
            db: of `director_db.asyncio` or not; None is what ``DB_TYPE`` names. It is not closed
                here.
        """
        self._db = async_database(db)

    async def append(self, key: SessionKey, entries: Sequence[SessionStoreEntry]) -> None:
        """Store entries behind those that are there, all or none.

        An entry whose `uuid` is there replaces that one, in its place, so that a batch may be
        appended again. What is not there is created, also if it was deleted before.

        Raises:
            InvalidRecordError: an entry is no JSON value, with its path; nothing is stored.
        """
        if not entries:
            return
        messages = [_message(entry) for entry in entries]
        is_main = key.get("subpath") is None  # A subagent's has no summary.
        # One operation: a caller that gives up between two steps would leave the summary behind.
        await to_its_end(
            self._append(key, entries, messages) if is_main else self._store(key, messages)
        )

    async def _append(
        self,
        key: SessionKey,
        entries: Sequence[SessionStoreEntry],
        messages: list[dict[str, Any]],
    ) -> None:
        """Store messages of entries, and their summary."""
        are_stored = was_lost = False
        while True:
            try:
                stored = await self._db.get_message(_transcript(key), SUMMARY)
                written = _folded(stored, key, entries)
                if are_stored:  # The summary is folded again, into the one that was faster.
                    answers = await self._db.add_or_update_msgs_to_conv(_transcript(key), [written])
                else:
                    answers = await self._store(key, [written, *messages])
            except SessionNotFoundError:
                if are_stored:
                    return  # Deleted since, and not to come back without its entries.
                raise
            except BackendUnavailableError as error:
                if error.maybe_applied and not was_lost:
                    # To be sent again with the same ids, which no other call has; a summary that is
                    # there then, ours or not, is folded into.
                    was_lost = True
                    continue
                if are_stored or was_lost:
                    raise BackendUnavailableError(
                        str(error), retryable=error.retryable, maybe_applied=True
                    ) from error
                raise
            are_stored = True
            if answers[0]:
                return

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """Return the entries of a transcript, in their order; None if it has none."""
        messages = await self._db.get_conversations(_transcript(key))
        return [each["content"] for each in messages if each["msg_id"] != SUMMARY] or None

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """Return the transcripts of a project, without those of subagents, and when each changed.

        The times are those of the summaries, in milliseconds.
        """
        return [
            {"session_id": summary["session_id"], "mtime": summary["mtime"]}
            for summary in await self.list_session_summaries(project_key)
        ]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Return the summaries of the transcripts of a project, without reading their entries."""
        sessions = await self._db.get_sessions(collection_id=_name(project_key))
        return await content_of_each(self._db, sessions, SUMMARY)

    async def delete(self, key: SessionKey) -> None:
        """Delete a transcript; where it is no subagent's, those of its subagents too, and first."""
        if key.get("subpath") is None:
            for session in await self._subagents(key):
                await self._db.delete_session(session["session_id"])
        await self._db.delete_session(_transcript(key))

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """Return the subpaths of the transcripts of a session's subagents."""
        return [session["metadata"]["subpath"] for session in await self._subagents(key)]

    async def _subagents(self, key: SessionKey | SessionListSubkeysKey) -> list[Session]:
        return await self._db.get_sessions(collection_id=_main(key))

    async def _store(self, key: SessionKey, messages: Sequence[Mapping[str, Any]]) -> list[bool]:
        session = _transcript(key)
        try:
            return await self._db.add_or_update_msgs_to_conv(session, messages)
        except SessionNotFoundError:
            of_what = _name(key["project_key"]) if key.get("subpath") is None else _main(key)
            about = {"framework": FRAMEWORK, **key}
            await self._db.create_session(session, collection_id=of_what, metadata=about)
            return await self._db.add_or_update_msgs_to_conv(session, messages)


def _folded(
    stored: Mapping[str, Any], key: SessionKey, entries: Sequence[SessionStoreEntry]
) -> dict[str, Any]:
    """Return the message of the summary with these entries, on top of the one that is stored."""
    before: SessionSummaryEntry | None = stored["content"] if stored else None
    summary = fold_session_summary(before, key, [*entries])
    later = before["mtime"] + 1 if before else 0  # Whatever the clocks say.
    summary["mtime"] = max(time.time_ns() // 1_000_000, later)
    # One more than was read: who else has stored one since holds this one back (MSG-11).
    revision = (stored["revision"] or 0) + 1 if stored else 1
    return message(SUMMARY, SUMMARY, summary) | {"revision": revision}


def _message(entry: SessionStoreEntry) -> dict[str, Any]:
    named = entry.get("uuid")
    if named == SUMMARY:
        named += ":entry"  # The same each time, so that it may be appended again.
    return message(named if named and is_id(named) else unique_id(), entry["type"], entry)


def _transcript(key: SessionKey) -> str:
    subpath = key.get("subpath")
    return _main(key) if subpath is None else _name(key["project_key"], key["session_id"], subpath)


def _main(key: SessionKey | SessionListSubkeysKey) -> str:
    return _name(key["project_key"], key["session_id"])


def _name(*parts: str) -> str:
    return quoted_id("claude", *parts)
