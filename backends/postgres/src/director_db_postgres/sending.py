"""What the storage operations of several subjects send, and what they do with the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director_db.errors import InvalidRecordError
from director_db.storage import Storage
from director_db_postgres.encoding import to_ascii

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from director_db_postgres.arrays import TextArray
    from director_db_postgres.connections import Connection
    from director_db_postgres.database import Database
    from director_db_postgres.statements import Statements

    T = TypeVar("T")
    Parameter = str | int | TextArray | None


class Sending(Storage):
    """The part of `PostgresDB` that its storage operations share."""

    _database: Database
    _sql: Statements

    def _rows(self, statement: bytes, parameters: Sequence[Parameter]) -> list[tuple[Any, ...]]:
        return self._database.read(lambda connection: connection.run(statement, parameters).rows())

    def _select(self, statement: bytes, parameters: Sequence[Parameter]) -> list[tuple[Any, ...]]:
        return unless_impossible(lambda: self._rows(statement, parameters), [])

    def _select_one(self, statement: bytes, *key: str) -> tuple[Any, ...] | None:
        rows = self._select(statement, key)
        return rows[0] if rows else None

    def _delete(self, statement: bytes, session_id: str, *key: str) -> bool:
        def delete(connection: Connection) -> bool:
            _, deleted = connection.run_together(
                (self._sql.lock_session, (session_id,)), (statement, (session_id, *key))
            )
            return deleted.count > 0

        return unless_impossible(
            lambda: self._database.write_once(delete, session_id), otherwise=False
        )

    def _text(self, payload: str) -> str:
        return payload if self._database.utf8 else to_ascii(payload)


def unless_impossible(attempt: Callable[[], T], otherwise: T) -> T:
    """Return what is not found where the server's encoding has no form for an id (VAL-4)."""
    try:
        return attempt()
    except InvalidRecordError:
        return otherwise
