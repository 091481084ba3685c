"""Saving a context (CTX-1, CTX-3, CTX-5), from the arguments of `BaseDB` to storage."""
# ruff: noqa: SLF001 - an operation of BaseDB calls its storage operations

from __future__ import annotations

from typing import TYPE_CHECKING

from director_db.checks import (
    encode_metadata,
    now,
    required_id,
    timestamp,
)
from director_db.context.items import ListItems, SurrogateError
from director_db.context.memory import RememberedContext, memory
from director_db.context.parts import are_worth_rows, split
from director_db.context.version import expected_version, new_version, version_text
from director_db.errors import (
    BackendUnavailableError,
    ConflictError,
    DirectorDBError,
    SessionNotFoundError,
)
from director_db.payload import encode_payload, payload_bytes, turn_of
from director_db.payload_rules import MAX_PAYLOAD_BYTES, check_payload, too_long
from director_db.rows import ContextChange, ContextRow, SaveOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director_db.context.parts import Parts
    from director_db.storage import Storage


def save_context(
    db: Storage,
    session_id: object,
    value: object,
    created_at: object,
    updated_at: object,
    metadata: object,
    if_version: object,
) -> str:
    """Store a context and return its version; the arguments of `add_or_update_context_msg`."""
    wanted = required_id(session_id, "session_id")
    expected = expected_version(if_version)
    draft = None
    if db.incremental_contexts:
        known = memory.take(db._owner, wanted)
        if known is not None and expected not in {None, known.version}:
            # What is remembered may be what is stored, and the caller's version the stale one.
            memory.put(db._owner, wanted, known)
            known = None
        with turn_of(value):
            draft = draft_context(value, "context_messages", known)
    current = now()
    row = ContextRow(
        wanted,
        encode_payload(value, "context_messages") if draft is None else draft.parts.rest,
        new_version(),
        current if created_at is None else timestamp(created_at, "created_at"),
        current if updated_at is None else timestamp(updated_at, "updated_at"),
        encode_metadata(metadata, "metadata"),
        created_at_given=created_at is not None,
    )
    if draft is None:
        outcome = db._save_context(row, if_version=expected)
    else:
        known_version = None if draft.known is None else draft.known.version
        outcome = save_draft(db, row, draft, known_version or expected)
        # Two round trips at most, whatever others do: this one stores the whole on top of any
        # version, and the database still writes only the items that differ.
        is_beaten = outcome in {SaveOutcome.CONFLICT, SaveOutcome.IN_DOUBT}
        if expected is None and draft.known and is_beaten:
            draft.known = None
            outcome = save_draft(db, row, draft, None)
    if outcome is SaveOutcome.NO_SESSION:
        raise SessionNotFoundError(wanted)
    if expected is not None and outcome is not SaveOutcome.SAVED:
        raise _refusal(db, wanted, outcome)
    return version_text(row.version)


def _refusal(db: Storage, session_id: str, outcome: SaveOutcome) -> DirectorDBError:
    """Return the error of a save that did not find the version that it was to replace."""
    if outcome is SaveOutcome.IN_DOUBT:
        message = (
            f"{db.place}: the connection was lost while the context of session {session_id!r} was "
            "saved, and what is stored now is another one. Read it to see whether it followed this "
            "save."
        )
        return BackendUnavailableError(message, maybe_applied=True)
    stored = db._select_context_version(session_id)
    version = None if stored is None else version_text(stored)
    return ConflictError(session_id, "context", version)


def save_draft(
    db: Storage, row: ContextRow, draft: ContextDraft, if_version: int | None
) -> SaveOutcome:
    """Save what a draft changes in the version that it knows, or else all of it; remember it."""
    outcome = db._save_context_change(draft.change(row, if_version))
    if outcome is SaveOutcome.SAVED:
        parts, items = draft.parts, draft.items
        saved = RememberedContext(
            row.version, parts.list_key, parts.rest, items.digests, items.sizes
        )
        memory.put(db._owner, row.session_id, saved)
    return outcome


class ContextDraft:
    """A context on its way to storage: checked, taken apart, and encoded as far as necessary."""

    def __init__(self, parts: Parts, known: RememberedContext | None) -> None:
        """Encode the items that are not in `known`, all of them where it has another list.

        Raises:
            InvalidRecordError: an item breaks a rule.
            SurrogateError: an item holds a lone surrogate.
        """
        self.parts = parts
        self.known = known if known is not None and known.list_key == parts.list_key else None
        self.items = ListItems(parts.items, parts.path, parts.depth)
        if self.known is None:
            self.items.encode(range(len(self.items)))
        else:
            self.items.sizes[: len(self.known.sizes)] = self.known.sizes[: len(self.items)]
            self.items.encode(self.items.differing(self.known.digests))
        self.total_bytes = payload_bytes(parts.rest) + self.items.total_bytes

    def change(self, row: ContextRow, if_version: int | None) -> ContextChange:
        """Return what differs from `known`, or everything if that is None."""
        texts = self.items.texts
        if self.known is None:
            indexes: Sequence[int] = range(len(self.items))
            # What is not encoded yet was stored before, by this process and under this key.
            self.items.encode([index for index in indexes if index not in texts], stored=True)
            rest_changed = True
        else:
            indexes = list(texts)
            rest_changed = not self.known.has_rest(self.parts.rest)
            if not rest_changed:  # Nobody reads it there, and it may be long.
                row = row._replace(context="")
        return ContextChange(
            row,
            if_version,
            rest_changed,
            self.parts.list_key,
            len(self.items),
            indexes,
            [texts[index] for index in indexes],
            self.total_bytes,
        )


def draft_context(
    value: object, path: str, known: RememberedContext | None, preferred: str | None = None
) -> ContextDraft | None:
    """Check a context and take it apart; None if it is to be stored as one text.

    That is so for a value without a list, one with a lone surrogate, and a long list of numbers or
    of other short items.

    Args:
        value: any JSON value.
        path: the root of the path in an error.
        known: what is remembered of the stored context, which is compared with the value.
        preferred: the `list_key` to take where a dict has several lists, unless another one is
            much longer; that of `known` if given.

    Raises:
        InvalidRecordError: the value breaks a rule (VAL-3, VAL-6). A value that is stored as one
            text may raise it later, from `encode_payload`.
    """
    check_payload(value, path)
    stored = None if known is None else known.list_key
    parts = split(value, path, stored, stored or preferred)
    if parts is None:
        return None
    try:
        draft = ContextDraft(parts, known)
    except SurrogateError:
        return None
    if draft.total_bytes > MAX_PAYLOAD_BYTES:
        raise too_long(path)
    if draft.known is None and not are_worth_rows(len(draft.items), draft.items.total_bytes):
        return None
    return draft
