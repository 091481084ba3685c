"""Appending to a context (CTX-4), from the arguments of `BaseDB` to storage."""
# ruff: noqa: SLF001 - an operation of BaseDB calls its storage operations

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

from director_db.checks import context_items, now, required_id
from director_db.context.items import ListItems, SurrogateError
from director_db.context.memory import RememberedContext, memory
from director_db.context.parts import DEPTH_IN_DICT, LIST_ITSELF
from director_db.context.saving import draft_context, save_draft
from director_db.context.stored import appended
from director_db.context.version import new_version
from director_db.errors import (
    BackendUnavailableError,
    InvalidRecordError,
    SessionNotFoundError,
)
from director_db.payload import encode_payload, is_marked, payload_bytes, turn_of
from director_db.payload_rules import MAX_PAYLOAD_BYTES, check_payload, too_long
from director_db.rows import NO_CONTEXT, ContextAppend, ContextRow, SaveOutcome

if TYPE_CHECKING:
    from director_db.rows import StoredContext
    from director_db.storage import Storage

_PATIENCE: Final = 30.0
"""How long an append that reads first is tried while others save, in seconds."""

_SHORTEST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.25
"""Before such an append is tried again, in seconds: at most the shortest, doubled with each try."""


def append_to_context(db: Storage, session_id: object, messages: object, key: object) -> int:
    """Add to a context's list; the arguments of `BaseDB.append_context_messages`."""
    wanted = required_id(session_id, "session_id")
    items = context_items(messages)
    # Checked before the context is read, and with the paths that the caller knows. In the context,
    # the list stands in a dict, unless it is the context itself.
    depth = DEPTH_IN_DICT - (key is None)
    check_payload(items, "messages", depth=depth - 1)
    encoded = None
    if db.incremental_contexts:
        encoded = ListItems(items, "messages", depth)
        try:
            with turn_of(items):
                encoded.encode(range(len(items)))
        except SurrogateError:
            encoded = None
    if encoded is None:
        encode_payload(items, "messages")
    elif encoded.total_bytes > MAX_PAYLOAD_BYTES:
        raise too_long("messages")
    if key is not None:
        if not isinstance(key, str):
            raise InvalidRecordError("key", f"a str or None, not {type(key).__name__}")
        key = str.__str__(key)
    list_key = encode_payload(key, "key")
    length = None
    if encoded is not None and not is_marked(list_key):
        length = _append_encoded(db, wanted, list_key, encoded)
    return _append_by_saving(db, wanted, key, items) if length is None else length


def _append_encoded(db: Storage, session_id: str, list_key: str, items: ListItems) -> int | None:
    """Append without reading; None where the stored context has no such list in parts."""
    rest = "[]" if list_key == LIST_ITSELF else f"{{{list_key}:[]}}"
    alone = payload_bytes(rest) + items.total_bytes
    if alone > MAX_PAYLOAD_BYTES:
        raise too_long("context")
    change = ContextAppend(
        session_id,
        new_version(),
        list_key,
        rest,
        list(items.texts.values()),
        alone,
        sum(items.sizes) + len(items),
        now(),
    )
    known = memory.take(db._owner, session_id)
    outcome, length, replaced = db._append_context(change)
    if outcome is SaveOutcome.NO_SESSION:
        raise SessionNotFoundError(session_id)
    if outcome is not SaveOutcome.SAVED:
        return None
    if replaced == NO_CONTEXT:
        known = RememberedContext(change.version, list_key, rest, items.digests, items.sizes)
    elif known is None or known.version != replaced or known.list_key != list_key:
        return length
    else:
        known.extend(change.version, items)
    memory.put(db._owner, session_id, known)
    return length


def _append_by_saving(db: Storage, session_id: str, key: str | None, items: list[Any]) -> int:
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
        # Another writer won. A random pause, so that those who lost do not come back together;
        # longer each time, until few enough come at once.
        time.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
        pause = min(2 * pause, _LONGEST_PAUSE)
    message = f"The context of session {session_id!r} changed at every try to append to it."
    raise BackendUnavailableError(message, retryable=True)


def _save_if_unchanged(
    db: Storage,
    session_id: str,
    stored: StoredContext | None,
    value: dict[str, Any] | list[Any],
    key: str | None,
) -> SaveOutcome:
    """Save a context on top of the version that was read, None if there was none.

    The list that was appended to is preferred as the one in parts: the next append to it then need
    not read it.
    """
    draft = None
    if db.incremental_contexts:
        draft = draft_context(value, "context", None, encode_payload(key, "key"))
    current = now()
    row = ContextRow(
        session_id,
        encode_payload(value, "context") if draft is None else draft.parts.rest,
        new_version(),
        current,
        created_at_given=False,
        updated_at=current,
        metadata="{}" if stored is None else stored.metadata,
    )
    version = NO_CONTEXT if stored is None else stored.version
    if draft is None:
        return db._save_context(row, if_version=version)
    return save_draft(db, row, draft, version)
