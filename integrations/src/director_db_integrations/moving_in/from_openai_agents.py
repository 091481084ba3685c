"""`SQLiteSession` and `SQLAlchemySession` of the OpenAI Agents SDK."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from director_db_integrations.moving_in.importing import Source, decoded, move_messages, seconds
from director_db_integrations.openai_items import FRAMEWORK, item_message

if TYPE_CHECKING:
    from director_db_integrations.moving_in.importing import Importing
    from director_db_integrations.moving_in.old_tables import OldTables

_SESSIONS: Final = "agent_sessions"
_MESSAGES: Final = "agent_messages"


def _move(old: OldTables, to: Importing) -> None:
    sessions, messages = old.table(_SESSIONS), old.table(_MESSAGES)
    times = f"{old.clock('s.created_at')}, {old.clock('s.updated_at')}"
    # Both classes make these tables; each reads what it has stored in an order of its own.
    by_time = "m.created_at, " if old.columns(_MESSAGES)["created_at"] else ""
    # Of messages whose session has no row, too: the SDK reads them all the same.
    with_messages = old.rows(
        f"SELECT m.session_id, {times}, m.id, m.message_data, {old.clock('m.created_at')}"
        f" FROM {messages} m LEFT JOIN {sessions} s ON s.session_id = m.session_id"
        f" ORDER BY m.session_id, {by_time}m.id"
    )
    without = old.rows(
        f"SELECT s.session_id, {times} FROM {sessions} s WHERE NOT EXISTS"
        f" (SELECT 1 FROM {messages} m WHERE m.session_id = s.session_id)"
    )
    rows = chain(with_messages, without)
    metadata = {"framework": FRAMEWORK}
    move_messages(to, rows, f"{_SESSIONS} session_id", _MESSAGES, metadata, _message)


def _message(number: int, data: Any, time: int | None) -> dict[str, Any]:
    item = decoded(data, "message_data")
    # Not the number alone: two databases that are imported may both have a session of this id.
    row = item_message(item, "message_data", of=f"{number} {data}")
    return row | {"created_at": seconds(time), "updated_at": seconds(time)}


SOURCE: Final = Source(
    {
        _SESSIONS: ("session_id", "created_at", "updated_at"),
        _MESSAGES: ("id", "session_id", "message_data", "created_at"),
    },
    _move,
)
