"""Stored contexts put together again: the value, the record, and the value with more in a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director_db.context.version import version_text
from director_db.errors import InvalidRecordError, SchemaError
from director_db.payload import decode_payload
from director_db.payload_rules import member_path

if TYPE_CHECKING:
    from director_db.records import Context
    from director_db.rows import StoredContext


def context_value(row: StoredContext) -> Any:
    """Return the value that a stored context stands for: equal, and the caller's own (CTX-2).

    Raises:
        SchemaError: something else wrote the row.
    """
    if row.list_key is None:
        return decode_payload(row.context)
    # One call for all items: a call takes longer than to decode a short one.
    items = decode_payload(f"[{','.join(row.items)}]")
    if len(items) != len(row.items):
        message = (
            f"The context of session {row.session_id!r} has {len(row.items):,} stored items that "
            f"stand for {len(items):,} values. Something else wrote them."
        )
        raise SchemaError(message)
    key = decode_payload(row.list_key)
    if key is None:
        return items
    value = decode_payload(row.context)
    value[key] = items  # In place of the empty list there, so that the order of keys stays.
    return value


def context_record(row: StoredContext) -> Context:
    """Return the record of a stored context."""
    return {
        "session_id": row.session_id,
        "context": context_value(row),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "metadata": decode_payload(row.metadata),
        "version": version_text(row.version),
    }


def appended(
    stored: StoredContext | None, items: list[Any], key: str | None
) -> tuple[dict[str, Any] | list[Any], int]:
    """Return a context with `items` added under `key`, and the new length of that list (CTX-4).

    Without a key they are added to the context itself.

    Raises:
        InvalidRecordError: the context is not a dict, or its `key` holds anything but a list; or
            the context itself is not a list.
    """
    wanted: type[Any] = list if key is None else dict
    context = wanted() if stored is None else context_value(stored)
    if not isinstance(context, wanted):
        found = type(context).__name__
        reason = f"the stored context is of type {found}, not a {wanted.__name__}"
        if found in {"dict", "list"}:
            reason += "; give its key" if key is None else "; append to it with key=None"
        raise InvalidRecordError("context", reason)
    if key is None:
        context.extend(items)
        return context, len(context)
    known = context.setdefault(key, [])
    if not isinstance(known, list):
        reason = f"holds what is of type {type(known).__name__}, not a list to append to"
        raise InvalidRecordError(member_path("context", key), reason)
    known.extend(items)
    return context, len(known)
