"""`SQLChatMessageHistory` of LangChain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from director_db_integrations.extras import extra
from director_db_integrations.langchain import METADATA, message_row
from director_db_integrations.moving_in.importing import Source, decoded, move_messages, reading

with extra("langchain"):
    from langchain_core.messages import messages_from_dict

if TYPE_CHECKING:
    from director_db_integrations.moving_in.importing import Importing
    from director_db_integrations.moving_in.old_tables import OldTables

_MESSAGES: Final = "message_store"


def _move(old: OldTables, to: Importing) -> None:
    rows = old.rows(
        f"SELECT session_id, NULL, NULL, id, message FROM {old.table(_MESSAGES)}"
        " ORDER BY session_id, id"
    )
    move_messages(to, rows, f"{_MESSAGES} session_id", _MESSAGES, METADATA, _message)


def _message(number: int, text: Any) -> dict[str, Any]:
    stored = decoded(text, "message")
    with reading("LangChain", "message"):
        (message,) = messages_from_dict([stored])
    return message_row(message, "message", of=f"{number} {text}")


SOURCE: Final = Source({_MESSAGES: ("id", "session_id", "message")}, _move)
