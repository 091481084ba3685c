"""The storage operations on the history of a session, each one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import psycopg

from director_db.errors import InvalidRecordError
from director_db.rows import CopyRefusal
from director_db_postgres.arrays import BigintArray
from director_db_postgres.bulk import columns
from director_db_postgres.encoding import message_in_ascii
from director_db_postgres.sending import Sending, unless_impossible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director_db.rows import GuardedMessage, MessageColumns, SessionCopy
    from director_db_postgres.connections import Connection
    from director_db_postgres.pipeline import Step


_LONG_AGO: Final = -(2**63)


class PostgresHistory(Sending):
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

    def _replace_messages(self, session_id: str, rows: Sequence[GuardedMessage]) -> bool:
        latest = max((row.updated_at for row, _, _ in rows), default=_LONG_AGO)

        def replace(connection: Connection) -> bool:
            stored = [row if self._database.utf8 else message_in_ascii(row) for row, _, _ in rows]
            writes: list[Step] = []
            for given, (places, *arrays) in columns(stored):
                revisions = BigintArray(
                    rows[place - 1].revision for place in cast("list[int]", places)
                )
                values = (session_id, len(rows), given, places, *arrays, revisions)
                writes.append((self._sql.replace_messages, values))
            try:
                # The lock gives the transaction the number that the rest recognizes it by.
                _, counted, *_ = connection.run_together(
                    (self._sql.lock_session, (session_id,)),
                    (self._sql.count_messages, (session_id, len(rows), latest)),
                    *writes,
                    (self._sql.delete_replaced, (session_id, len(rows))),
                )
            except psycopg.errors.ForeignKeyViolation:
                # As in an upsert: somebody's trigger has deleted the session.
                return False
            return counted.count > 0

        return self._database.write_once(replace, session_id)

    def _delete_messages_after(self, session_id: str, msg_id: str) -> int | None:
        def delete(connection: Connection) -> int | None:
            locked, place, deleted = connection.run_together(
                (self._sql.lock_session, (session_id,)),
                (self._sql.select_locked_place, (session_id, msg_id)),
                (self._sql.delete_messages_after, (session_id, msg_id)),
            )
            return None if locked.count and not place.count else deleted.count

        try:
            return self._database.write_once(delete, session_id)
        except InvalidRecordError:
            # The server's encoding has no form for one of the ids.
            return 0 if self._select_session(session_id) is None else None

    def _copy_session(self, copy: SessionCopy) -> int | CopyRefusal:
        source, both = (copy.session_id,), (copy.session_id, copy.to)
        steps: list[Step] = [
            (self._sql.lock_session, source),
            (self._sql.copy_session, (*both, copy.created_at)),
            (self._sql.copy_messages, both),
            (self._sql.copy_context, both),
            (self._sql.copy_items, both),
        ]
        if copy.until is not None:
            steps[1:] = [
                (self._sql.copy_session_until, (*both, copy.created_at, copy.until)),
                (self._sql.copy_messages_until, (*both, copy.until)),
            ]

        claim: list[Step] = [
            (self._sql.claim_session, (copy.to,)),
            (self._sql.release_session, (copy.to,)),
        ]

        def make(connection: Connection) -> int | CopyRefusal:
            first = claim if connection.is_sharded else []
            try:
                locked, *results = connection.run_together(steps[0], *first, *steps[1:])
            except psycopg.errors.UniqueViolation:
                return self._refusal(connection, copy) if first else CopyRefusal.TAKEN
            made, messages, *_ = results[len(first) :]
            if not locked.count:
                return CopyRefusal.NO_SESSION
            return messages.count if made.count else CopyRefusal.NO_MESSAGE

        return self._database.write_once(make, copy.session_id)

    def _refusal(self, connection: Connection, copy: SessionCopy) -> CopyRefusal:
        """Return what comes first of all that is wrong: the claim was made before the rest."""

        def is_there(statement: bytes, *key: str) -> bool:
            return bool(connection.run(statement, key).rows())

        if not is_there(self._sql.select_session, copy.session_id):
            return CopyRefusal.NO_SESSION
        until = copy.until
        if until is None or is_there(self._sql.select_message, copy.session_id, until):
            return CopyRefusal.TAKEN
        return CopyRefusal.NO_MESSAGE
