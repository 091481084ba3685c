"""Saving contexts and appending to them (CTX-1, CTX-3, CTX-4).

The steps of two operations of `BaseDB`: with few round trips and few bytes where the backend keeps
contexts in parts, and by the plain operations that every backend has where it does not.
"""
# ruff: noqa: SLF001 - an operation of BaseDB calls its storage operations

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

from director_db.checks import (
    context_items,
    encode_metadata,
    new_version,
    now,
    required_id,
    timestamp,
)
from director_db.context.memory import memory
from director_db.context.parts import (
    appended,
    context_append,
    draft_context,
    encode_items,
    remember_append,
)
from director_db.errors import (
    BackendUnavailableError,
    InvalidRecordError,
    SessionNotFoundError,
)
from director_db.payload import check_payload, encode_payload
from director_db.rows import NO_CONTEXT, ContextRow, SaveOutcome

if TYPE_CHECKING:
    from director_db.context.parts import ContextDraft, EncodedItems, RememberedContext
    from director_db.rows import StoredContext
    from director_db.storage import Storage

_PATIENCE: Final = 30.0
"""How long an append that reads first is tried while others save, in seconds."""

_SHORTEST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.25
"""Before such an append is tried again, in seconds: at most the shortest, doubled with each try."""


def save(
    db: Storage,
    session_id: object,
    value: object,
    created_at: object,
    updated_at: object,
    metadata: object,
) -> None:
    """Store a context, whatever is stored; the arguments of `BaseDB.add_or_update_context_msg`."""
    wanted = required_id(session_id, "session_id")
    known = draft = None
    if db.incremental_contexts:
        known = memory.take(db._owner, wanted)
        draft = draft_context(value, "context_messages", known)
    current = now()
    row = ContextRow(
        wanted,
        encode_payload(value, "context_messages") if draft is None else draft.rest,
        new_version(),
        current if created_at is None else timestamp(created_at, "created_at"),
        current if updated_at is None else timestamp(updated_at, "updated_at"),
        encode_metadata(metadata, "metadata"),
        created_at is not None,
    )
    if draft is None:
        outcome = db._save_context(row, if_version=None)
    else:
        outcome = _save_draft(db, row, draft, known)
    if outcome is SaveOutcome.NO_SESSION:
        raise SessionNotFoundError(wanted)


def append(db: Storage, session_id: object, messages: object, key: object) -> int:
    """Add to a context's list; the arguments of `BaseDB.append_context_messages`."""
    wanted = required_id(session_id, "session_id")
    items = context_items(messages)
    # Checked before the context is read, and with the paths that the caller knows. In the context,
    # the list stands in a dict.
    check_payload(items, "messages", depth=2)
    encoded = encode_items(items, "messages") if db.incremental_contexts else None
    if encoded is None:
        encode_payload(items, "messages")
    if not isinstance(key, str):
        raise InvalidRecordError("key", f"a str, not {type(key).__name__}")
    key = str.__str__(key)
    encode_payload(key, "key")
    length = None if encoded is None else _append_encoded(db, wanted, key, encoded)
    return _append_by_saving(db, wanted, key, items) if length is None else length


def _save_draft(
    db: Storage, row: ContextRow, draft: ContextDraft, known: RememberedContext | None
) -> SaveOutcome:
    """Save what changed since the version that is known, or else the whole value.

    Two round trips at most, whatever others do: the second one stores the whole on top of any
    version, and the database still writes only the items that differ.
    """
    outcome = SaveOutcome.CONFLICT
    if known is not None and known.list_key == draft.list_key:
        outcome = db._save_context_change(draft.change(row, known))
    if outcome in {SaveOutcome.CONFLICT, SaveOutcome.IN_DOUBT}:
        outcome = db._save_context_change(draft.whole(row, None))
    if outcome is SaveOutcome.SAVED:
        memory.put(db._owner, row.session_id, draft.remember(row.version))
    return outcome


def _append_encoded(db: Storage, session_id: str, key: str, items: EncodedItems) -> int | None:
    """Append without reading; None where the stored context has no such list in parts."""
    change = context_append(session_id, key, items, new_version(), now())
    if change is None:
        return None
    known = memory.take(db._owner, session_id)
    outcome, length, replaced = db._append_context(change)
    if outcome is SaveOutcome.NO_SESSION:
        raise SessionNotFoundError(session_id)
    if outcome is not SaveOutcome.SAVED:
        return None
    known = remember_append(known, replaced, change, items)
    if known is not None:
        memory.put(db._owner, session_id, known)
    return length


def _append_by_saving(db: Storage, session_id: str, key: str, items: list[Any]) -> int:
    """Read the context, add to it, and save it unless another writer was faster."""
    deadline = time.monotonic() + _PATIENCE
    pause = _SHORTEST_PAUSE
    while time.monotonic() < deadline:
        stored = db._select_context(session_id)
        value, length = appended(stored, items, key)
        outcome = _save_if_unchanged(db, session_id, stored, value, key)
        if outcome is SaveOutcome.SAVED:
            return length
        if outcome is SaveOutcome.NO_SESSION:
            raise SessionNotFoundError(session_id)
        if outcome is SaveOutcome.IN_DOUBT:
            message = (
                f"{db.place}: the connection was lost while messages were appended to the context "
                f"of session {session_id!r}, and another writer saved it meanwhile. Read it to see "
                "whether they are part of it."
            )
            raise BackendUnavailableError(message, maybe_applied=True)
        # One of all who read at once has won. By chance, so that they do not come back together;
        # longer each time, so that the fewer are in each other's way the more there are.
        time.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
        pause = min(2 * pause, _LONGEST_PAUSE)
    message = f"The context of session {session_id!r} changed at every try to append to it."
    raise BackendUnavailableError(message, retryable=True)


def _save_if_unchanged(
    db: Storage, session_id: str, stored: StoredContext | None, value: dict[str, Any], key: str
) -> SaveOutcome:
    """Save a context on top of the version that was read, None if there was none.

    The list that was appended to comes in parts where it can, so that the next append need not
    read it.
    """
    draft = None
    if db.incremental_contexts:
        draft = draft_context(value, "context", None, encode_payload(key, "key"))
    current = now()
    row = ContextRow(
        session_id,
        encode_payload(value, "context") if draft is None else draft.rest,
        new_version(),
        current,
        current,
        "{}" if stored is None else stored.metadata,
        created_at_given=False,
    )
    version = NO_CONTEXT if stored is None else stored.version
    if draft is None:
        return db._save_context(row, if_version=version)
    outcome = db._save_context_change(draft.whole(row, version))
    if outcome is SaveOutcome.SAVED:
        memory.put(db._owner, session_id, draft.remember(row.version))
    return outcome
