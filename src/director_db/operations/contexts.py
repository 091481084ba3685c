"""The operations on contexts (CTX-1 to CTX-5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from director_db.checks import lookup_id
from director_db.context.appending import append_to_context
from director_db.context.memory import memory
from director_db.context.saving import save_context
from director_db.context.stored import context_record, context_value
from director_db.instance import Instance, operation
from director_db.rows import UNSET, Unset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director_db.records import Context
    from director_db.rows import StoredContext


class ContextOperations(Instance):
    """The part of `BaseDB` that stores contexts."""

    @final
    @operation
    def add_or_update_context_msg(
        self,
        /,
        session_id: str,
        context_messages: Any,
        created_at: int | None = None,
        updated_at: int | None = None,
        metadata: Any = None,
        *,
        if_version: str | Unset | None = UNSET,
        **_ignored: object,
    ) -> str:
        """Store the context of a session, replacing the whole value atomically (CTX-1, CTX-3).

        With `if_version` nothing is stored where another writer came first (CTX-5).

        Args:
            session_id: the session, which must exist.
            context_messages: any JSON value, usually a list or ``{"reasoning": [...]}``.
            created_at: int seconds since the epoch; None keeps the stored one, or means now.
            updated_at: int seconds since the epoch; None means now.
            metadata: any JSON value; None means ``{}``.
            if_version: the version of the context to replace, as `get_context` gives it; None if
                there is to be none yet. Left out, whatever is stored is replaced.
            _ignored: other keywords are ignored.

        Returns:
            The version that is stored now, for the next save.

        Raises:
            InvalidRecordError: a value has no exact form, with its path.
            SessionNotFoundError: there is no such session; nothing is stored.
            ConflictError: another version is stored than `if_version`; nothing is changed.
        """
        return save_context(
            self, session_id, context_messages, created_at, updated_at, metadata, if_version
        )

    @final
    @operation
    def append_context_messages(
        self, session_id: str, messages: Sequence[Any], *, key: str | None = "reasoning"
    ) -> int:
        """Add messages to the end of the list under `key` of the context (CTX-4).

        Workers that append at once lose nothing. A context that does not exist yet becomes
        ``{key: [...]}``, or the list itself with ``key=None``; the metadata stays.

        Args:
            session_id: the session, which must exist.
            messages: a list of any JSON values.
            key: the key of the list in the context, which is a dict; None for a context that is a
                list itself.

        Returns:
            The new length of the list.

        Raises:
            InvalidRecordError: a value has no exact form; the context is not a dict, or with
                ``key=None`` not a list; what stands under `key` is not a list; or the whole would
                exceed 64 MiB.
            SessionNotFoundError: there is no such session; nothing is stored.
        """
        return append_to_context(self, session_id, messages, key)

    @final
    @operation
    def get_context_messages(self, session_id: str) -> Any:
        """Return the context's value, whatever JSON it is; ``{}`` where there is none (CTX-2)."""
        row = self._find_context(session_id)
        return {} if row is None else context_value(row)

    @final
    @operation
    def get_context(self, session_id: str) -> Context | dict[str, Any]:
        """Return the context with its times and metadata, ``{}`` if there is none (CTX-2).

        Returns:
            A dict with exactly ``session_id, context, created_at, updated_at, metadata, version``.
            The last is a text that is new with each save and append (CTX-5).
        """
        row = self._find_context(session_id)
        return {} if row is None else context_record(row)

    @final
    @operation
    def delete_context(self, session_id: str) -> bool:
        """Delete the context of a session; True if there was one (DEL-1)."""
        wanted = lookup_id(session_id)
        if wanted is None:
            return False
        memory.take(self._owner, wanted)
        return self._delete_context(wanted)

    def _find_context(self, session_id: object) -> StoredContext | None:
        wanted = lookup_id(session_id)
        return None if wanted is None else self._select_context(wanted)
