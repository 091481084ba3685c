"""The storage operations on the history of a session, each one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from director_db_postgres.sending import Sending, unless_impossible

if TYPE_CHECKING:
    from director_db.rows import MessageColumns
    from director_db_postgres.connections import Connection
    from director_db_postgres.pipeline import Step


class HistoryStorage(Sending):
    """The part of `PostgresDB` that takes messages back, and makes new histories of old ones."""

    def _pop_message(self, session_id: str, conv_id: str | None) -> MessageColumns | None:
        step: Step = (self._sql.pop_message, (session_id,))
        if conv_id is not None:
            step = (self._sql.pop_message_of_conversation, (session_id, conv_id))

        def pop(connection: Connection) -> MessageColumns | None:
            _, popped = connection.run_together((self._sql.lock_session, (session_id,)), step)
            rows = popped.rows()
            return cast("MessageColumns", rows[0]) if rows else None

        return unless_impossible(lambda: self._database.write_once(pop, session_id), None)
