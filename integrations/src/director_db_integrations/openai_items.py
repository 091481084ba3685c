"""Items of the OpenAI Agents SDK as messages; without the SDK, for what only moves them."""

from __future__ import annotations

from typing import Any, Final

from director_db import InvalidRecordError
from director_db_integrations.messages import message, unique_id

FRAMEWORK: Final = "openai-agents"
"""What `metadata` of the sessions that are created here has under ``framework``."""


def item_message(item: Any, path: str, of: str | None = None) -> dict[str, Any]:
    """Return the message of an item.

    Args:
        item: a dict, as JSON.
        path: where the item is, for the error.
        of: what gives the message the same id each time; None is for a new one.

    Raises:
        InvalidRecordError: it is no dict.
    """
    if not isinstance(item, dict):
        raise InvalidRecordError(path, f"a dict, as the SDK's items are, not {type(item).__name__}")
    kind = item.get("role") or item.get("type") or "message"
    return message(unique_id(item.get("id"), of), kind, item)
