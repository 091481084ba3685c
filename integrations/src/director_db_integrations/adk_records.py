"""What Google ADK keeps, as sessions and messages; without ADK, for what only moves it."""

from __future__ import annotations

from typing import Any, Final

from director_db_integrations.messages import is_id, message, quoted_id

FRAMEWORK: Final = "google-adk"
"""What `metadata` of the sessions that are created here has under ``framework``."""

HEAD: Final = "session"
"""The `msg_id` and `msg_type` of the message that holds the state of a session."""

STATE: Final = "state"
"""The `msg_type` of a message that holds a key of the state of an app or a user."""


def named(*parts: str) -> str:
    """Return the id of the session of an app's state, of a user's, or of a session of ADK."""
    return quoted_id(FRAMEWORK, *parts)


def plain(text: str) -> str:
    """Return a text that can be an id as it is, and any other as one that none of those is."""
    is_free = is_id(text) and not text.startswith(FRAMEWORK)
    return text if is_free else quoted_id(FRAMEWORK, text)


def about(*parts: str) -> dict[str, str]:
    """Return the metadata of that session."""
    names = ("app_name", "user_id", "session_id")
    return {"framework": FRAMEWORK, **dict(zip(names, parts, strict=False))}


def new_head(
    key: tuple[str, str, str],
    state: dict[str, Any],
    last_update_time: float,
    number: int,
    shared: dict[str, Any],
) -> dict[str, Any]:
    """Return the head of a session without events.

    Args:
        key: the app's name, the user's id and the session's.
        state: the session's own, without the app's and the user's.
        last_update_time: seconds since the epoch.
        number: what the first event's is one more than; no session of this id has had it.
        shared: what it changed in the other states.
    """
    return {
        "key": key,
        "state": state,
        "last_update_time": last_update_time,
        "created": number,
        "number": number,
        "latest": None,
        "shared": shared,
    }


def state_message(key: str, value: Any) -> dict[str, Any]:
    """Return the message of a key of the state of an app or a user; the key has no prefix."""
    return message(plain(key), STATE, value) | {"metadata": {"key": key}}


def event_message(number: int, latest: float, content: dict[str, Any]) -> dict[str, Any]:
    """Return the message of an event; `latest` is the latest time of it and those before it."""
    role: str | None = (content.get("content") or {}).get("role")
    invocation, author = content["invocation_id"], content["author"]
    return message(str(number), role if role and is_id(role) else "event", content) | {
        "conv_id": invocation if is_id(invocation) else None,
        "agents": [] if author == "user" else [author],
        # Of this event and all before it: where no later event can be wanted, reading ends.
        "metadata": {"latest": latest},
        "if_absent": True,
    }
