"""The storage operations on contexts, each one round trip; their lists are kept item by item."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final, cast

from director_db.errors import BackendUnavailableError, DirectorDBError
from director_db.payload_rules import MAX_PAYLOAD_BYTES
from director_db.rows import NO_CONTEXT, Appended, SaveOutcome, StoredContext, whole_context
from director_db_postgres.arrays import BigintArray, TextArray
from director_db_postgres.sending import Sending

if TYPE_CHECKING:
    from director_db.rows import ContextAppend, ContextChange, ContextRow
    from director_db_postgres.connections import Connection

# A call whose own time is up looks at what became of it for so long, in seconds.
_LOOK_PATIENCE: Final = 5.0

_ANY_VERSION: Final = -1


class PostgresContexts(Sending):
    """The part of `PostgresDB` that stores contexts."""

    incremental_contexts = True

    def _save_context(self, row: ContextRow, *, if_version: int | None) -> SaveOutcome:
        return self._save_context_change(whole_context(row, if_version))

    def _save_context_change(self, change: ContextChange) -> SaveOutcome:
        row = change.row

        ours = (row.session_id, row.version)

        def save(connection: Connection) -> SaveOutcome:
            write_items = (
                self._sql.write_items,
                (*ours, BigintArray(change.indexes), TextArray(map(self._text, change.items))),
            )
            locked, _, touched, *_ = connection.run_together(
                (self._sql.lock_session, (row.session_id,)),
                (
                    self._sql.save_context,
                    (
                        row.session_id,
                        _ANY_VERSION if change.if_version is None else change.if_version,
                        self._text(row.context),
                        change.rest_changed,
                        None if change.list_key is None else self._text(change.list_key),
                        change.list_len,
                        change.total_bytes,
                        row.version,
                        row.created_at,
                        row.created_at_given,
                        row.updated_at,
                        self._text(row.metadata),
                    ),
                ),
                (self._sql.touch_session, (*ours, row.updated_at)),
                (self._sql.cut_items, (*ours, change.list_len)),
                *([write_items] if change.items else []),
            )
            if not locked.count:
                return SaveOutcome.NO_SESSION
            # Ours may also have been stored by a try whose answer got lost.
            return SaveOutcome.SAVED if touched.count else SaveOutcome.CONFLICT

        outcome, in_doubt = self._database.write_in_doubt(save, row.session_id)
        # Either we were never applied, or we were and somebody has saved since.
        return SaveOutcome.IN_DOUBT if outcome is SaveOutcome.CONFLICT and in_doubt else outcome

    def _append_context(self, append: ContextAppend) -> Appended:
        session_id = append.session_id

        ours = (session_id, append.version)

        def add(connection: Connection) -> Appended:
            locked, known, added, *_ = connection.run_together(
                (self._sql.lock_session, (session_id,)),
                (self._sql.select_context_version, (session_id,)),
                (
                    self._sql.append_to_context,
                    (
                        session_id,
                        self._text(append.list_key),
                        self._text(append.rest),
                        len(append.items),
                        append.alone_bytes,
                        append.added_bytes,
                        append.version,
                        append.updated_at,
                        MAX_PAYLOAD_BYTES,
                    ),
                ),
                (self._sql.touch_session, (*ours, append.updated_at)),
                (
                    self._sql.append_items,
                    (*ours, len(append.items), TextArray(map(self._text, append.items))),
                ),
            )
            if not locked.count:
                return Appended(SaveOutcome.NO_SESSION)
            if not added.count:
                return Appended(SaveOutcome.CONFLICT)
            ((length,),) = added.rows()
            before = known.rows()
            return Appended(SaveOutcome.SAVED, length, before[0][0] if before else NO_CONTEXT)

        try:
            return self._database.write_once(add, session_id)
        except BackendUnavailableError as error:
            # It may not be sent again, but the version that it stored tells that it was applied.
            length = self._length_at(session_id, append.version) if error.maybe_applied else None
            if length is None:
                raise
            return Appended(SaveOutcome.SAVED, length)

    def _length_at(self, session_id: str, version: int) -> int | None:
        """Return the length of a context's list if that version is stored; None also if unknown."""
        try:
            rows = self._database.read(
                lambda connection: connection.run(
                    self._sql.select_context_length, (session_id, version)
                ).rows(),
                patience=_LOOK_PATIENCE,  # The call's own time may be up.
            )
        except DirectorDBError:
            # Whatever it is, the caller has to hear that the append may have been applied.
            return None
        return rows[0][0] if rows else None

    def _select_context(self, session_id: str) -> StoredContext | None:
        rows = self._select(self._sql.select_context, (session_id,))
        if not rows:
            return None
        rows.sort(key=itemgetter(0))
        return StoredContext._make((*rows[0][1:], tuple([row[2] for row in rows[1:]])))

    def _select_context_version(self, session_id: str) -> int | None:
        found = self._select_one(self._sql.select_context_version, session_id)
        return None if found is None else cast("int", found[0])

    def _delete_context(self, session_id: str) -> bool:
        return self._delete(self._sql.delete_context, session_id)
