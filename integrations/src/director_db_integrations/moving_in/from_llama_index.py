"""`SQLAlchemyChatStore` of LlamaIndex."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from director_db_integrations.extras import extra
from director_db_integrations.llama_index import METADATA, message_row
from director_db_integrations.moving_in.importing import (
    Source,
    decoded,
    move_messages,
    reading,
    seconds,
)

with extra("llama-index"):
    from llama_index.core.llms import ChatMessage
    from llama_index.core.storage.chat_store.base_db import MessageStatus

if TYPE_CHECKING:
    from director_db_integrations.moving_in.importing import Importing
    from director_db_integrations.moving_in.old_tables import OldTables

_MESSAGES: Final = "llama_index_memory"  # As `Memory` calls it.


def _move(old: OldTables, to: Importing) -> None:
    # They have nanoseconds.
    first, last = (f"{each}(timestamp) OVER (PARTITION BY key) / 1000" for each in ("min", "max"))
    rows = old.rows(
        f"SELECT key, {first}, {last}, id, {old.text('data')}, status, timestamp / 1000"
        f" FROM {old.table(_MESSAGES)} ORDER BY key, timestamp, id"
    )
    move_messages(to, rows, f"{_MESSAGES} key", _MESSAGES, METADATA, _message)


def _message(number: int, text: Any, status: str, time: int) -> dict[str, Any]:
    stored = decoded(text, "data")
    with reading("LlamaIndex", "status"):
        known = MessageStatus(status)
    with reading("LlamaIndex", "data"):
        message = ChatMessage.model_validate(stored)
    # Not the status: the application may have archived it between two imports.
    row = message_row(message, known, "data", of=f"{number} {time} {text}")
    return row | {"created_at": seconds(time), "updated_at": seconds(time)}


SOURCE: Final = Source({_MESSAGES: ("id", "key", "timestamp", "status", "data")}, _move)
