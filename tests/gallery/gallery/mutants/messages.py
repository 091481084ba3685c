"""MSG-1 to MSG-5, MSG-8, MSG-9: storing messages, and reading one."""

from __future__ import annotations

from enum import Enum

from director_db import InvalidRecordError
from director_db.checks import message_row, optional_text
from director_db.payload import decode_payload, encode_payload
from director_db.rows import SessionRow, StoredMessage
from gallery.broken import BrokenDB, replace

TAKE_PLACE = """
    UPDATE director_sessions SET last_seq = last_seq + 1, updated_at = max(updated_at, ?)
    WHERE session_id = ? RETURNING last_seq
"""

INSERT = """
    INSERT {or_what} INTO director_conversations
        (session_id, seq, conv_id, msg_id, msg_type, agents, actions, content, status,
         created_at, updated_at, metadata)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {on_conflict}
"""

UPDATE_ALL = """
    ON CONFLICT (session_id, msg_id) DO UPDATE SET
        conv_id = excluded.conv_id, msg_type = excluded.msg_type, agents = excluded.agents,
        actions = excluded.actions, content = excluded.content, status = excluded.status,
        updated_at = excluded.updated_at, metadata = excluded.metadata
"""


class OwnUpsert(BrokenDB):
    """Upserts by statements of its own."""

    or_what = ""
    on_conflict = UPDATE_ALL

    def _upsert_messages(self, session_id, rows):
        return self._run(
            lambda connection: [self._upsert(connection, session_id, row) for row in rows][-1]
        )

    def _upsert(self, connection, session_id, row):
        place = self._next_place(connection, session_id, row)
        if place is None:
            return False
        statement = INSERT.format(or_what=self.or_what, on_conflict=self.on_conflict)
        connection.execute(statement, (session_id, place, *row.columns))
        if row.created_at_given:
            connection.execute(
                """
                UPDATE director_conversations SET created_at = ?
                WHERE session_id = ? AND msg_id = ?
                """,
                (row.created_at, session_id, row.msg_id),
            )
        return True

    def _next_place(self, connection, session_id, row):
        taken = connection.execute(TAKE_PLACE, (row.updated_at, session_id)).fetchone()
        return None if taken is None else taken[0]


class _ChangedRows(BrokenDB):
    """Stores rows that `_changed` made from what was given and what is stored."""

    def _changed(self, row, stored):
        """Return the row to store; `stored` is None for a new message."""
        raise NotImplementedError

    def _upsert_messages(self, session_id, rows):
        changed = []
        known = {}
        for row in rows:
            stored = known.get(row.msg_id) or self._select_message(session_id, row.msg_id)
            changed.append(self._changed(row, stored))
            known[row.msg_id] = StoredMessage(session_id, *changed[-1].columns)
        return super()._upsert_messages(session_id, changed)


# --- MSG-1 --------------------------------------------------------------------------------------


class IgnoreOnDuplicate(OwnUpsert, rule="MSG-1"):
    """ON CONFLICT DO NOTHING: a streamed answer stays at its first words."""

    on_conflict = "ON CONFLICT DO NOTHING"


class DuplicateMessageRaises(OwnUpsert, rule="MSG-1"):
    """A plain INSERT meets the primary key."""

    on_conflict = ""


class UpdateKeepsTheConversation(OwnUpsert, rule="MSG-1"):
    """`conv_id` is thought to be part of the key and is not in the SET."""

    on_conflict = UPDATE_ALL.replace("conv_id = excluded.conv_id,", "")


class UpdateKeepsTheType(OwnUpsert, rule="MSG-1"):
    """A column that was forgotten in the SET."""

    on_conflict = UPDATE_ALL.replace("msg_type = excluded.msg_type,", "")


class UpdateKeepsAgents(OwnUpsert, rule="MSG-1"):
    """Another one that was forgotten."""

    on_conflict = UPDATE_ALL.replace("agents = excluded.agents,", "")


class UpdateKeepsTheStatus(OwnUpsert, rule="MSG-1"):
    """COALESCE: a status that is left out stays, where it is to become None."""

    on_conflict = UPDATE_ALL.replace(
        "status = excluded.status", "status = coalesce(excluded.status, status)"
    )


class UpdateKeepsMetadata(_ChangedRows, rule="MSG-1"):
    """Metadata that is left out stays, where it is to become {}."""

    def _changed(self, row, stored):
        if stored is not None and row.metadata == "{}":
            return row._replace(metadata=stored.metadata)
        return row


class UpdateMergesMessageMetadata(_ChangedRows, rule="MSG-1"):
    """``{**old, **new}`` where the new value replaces the old one."""

    def _changed(self, row, stored):
        if stored is None:
            return row
        old, new = decode_payload(stored.metadata), decode_payload(row.metadata)
        if not isinstance(old, dict) or not isinstance(new, dict):
            return row
        return row._replace(metadata=encode_payload({**old, **new}, "metadata"))


class UpdateAddsToTheContent(_ChangedRows, rule="MSG-1"):
    """A streamed part is added to the list that is there, and each part holds them all."""

    def _changed(self, row, stored):
        if stored is None or row.content[:1] != "[" or stored.content[:1] != "[":
            return row
        old, new = decode_payload(stored.content), decode_payload(row.content)
        return row._replace(content=encode_payload(old + new, "content"))


class KeyedByConversation(_ChangedRows, rule="MSG-1"):
    """The key holds `conv_id` too: one id in two conversations is two messages."""

    mark = "\x1f"

    def _changed(self, row, stored):
        if stored is None or stored.conv_id == row.conv_id:
            return row
        return row._replace(msg_id=f"{row.msg_id}{self.mark}{row.conv_id}")

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        return rows and [row._replace(msg_id=row.msg_id.split(self.mark)[0]) for row in rows]


class StoringReturnsTheId(BrokenDB, rule="MSG-1"):
    """The id of what was stored is returned, not None."""

    def add_or_update_msg_to_conv(self, session_id, conv_id, msg_id, *args, **kwargs):
        super().add_or_update_msg_to_conv(session_id, conv_id, msg_id, *args, **kwargs)
        return msg_id


class MessageKeywordsRefused(BrokenDB, rule="MSG-1"):
    """Callers pass ``**self.__dict__`` here as well."""

    def add_or_update_msg_to_conv(
        self,
        session_id,
        conv_id,
        msg_id,
        msg_type,
        agents,
        actions,
        content,
        status=None,
        created_at=None,
        updated_at=None,
        metadata=None,
    ):
        return super().add_or_update_msg_to_conv(
            session_id,
            conv_id,
            msg_id,
            msg_type,
            agents,
            actions,
            content,
            status,
            created_at,
            updated_at,
            metadata,
        )


class ActionsBeforeAgents(BrokenDB, rule="MSG-1"):
    """Two parameters of one kind, swapped; positional callers do not notice."""

    def add_or_update_msg_to_conv(
        self, session_id, conv_id, msg_id, msg_type, actions, agents, *args, **kwargs
    ):
        return super().add_or_update_msg_to_conv(
            session_id, conv_id, msg_id, msg_type, agents, actions, *args, **kwargs
        )


# --- MSG-2 --------------------------------------------------------------------------------------


class CreatedAtReset(_ChangedRows, rule="MSG-2"):
    """`created_at` is in the SET, with now for what was not given."""

    def _changed(self, row, stored):
        return row._replace(created_at_given=True)


class CreatedAtFrozen(_ChangedRows, rule="MSG-2"):
    """`created_at` is not in the SET, so that the one that is given is lost."""

    def _changed(self, row, stored):
        return row._replace(created_at_given=False)


class UpdatedAtNeverGoesBack(_ChangedRows, rule="MSG-2"):
    """The larger `updated_at` wins, where it is to be as given."""

    def _changed(self, row, stored):
        if stored is None:
            return row
        return row._replace(updated_at=max(row.updated_at, stored.updated_at))


class UpdatedAtKept(_ChangedRows, rule="MSG-2"):
    """`updated_at` was forgotten in the SET."""

    def _changed(self, row, stored):
        return row if stored is None else row._replace(updated_at=stored.updated_at)


class CreatedWhenUpdated(BrokenDB, rule="MSG-2"):
    """One time for both: `created_at` that is left out becomes the `updated_at` that is given."""

    def _upsert_messages(self, session_id, rows):
        rows = [
            row if row.created_at_given else row._replace(created_at=row.updated_at) for row in rows
        ]
        return super()._upsert_messages(session_id, rows)


# --- MSG-3 --------------------------------------------------------------------------------------


class ReplaceForUpsert(OwnUpsert, rule="MSG-3"):
    """INSERT OR REPLACE deletes the row and inserts it anew: at the end."""

    or_what = "OR REPLACE"
    on_conflict = ""


class UpdateMovesToTheEnd(OwnUpsert, rule="MSG-3"):
    """The place is in the SET with all the other columns."""

    on_conflict = UPDATE_ALL + ", seq = excluded.seq"


class UpdateOfTheStatusMoves(OwnUpsert, rule="MSG-3"):
    """Only a message that becomes done moves: order by completion."""

    on_conflict = (
        UPDATE_ALL + ", seq = CASE WHEN excluded.status IS status THEN seq ELSE excluded.seq END"
    )


class _SortedMessages(BrokenDB):
    """Orders a conversation by what `_order` gives."""

    def _order(self, row):
        raise NotImplementedError

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        return rows and sorted(rows, key=self._order)


class OrderByCreation(_SortedMessages, rule="MSG-3"):
    """ORDER BY created_at."""

    def _order(self, row):
        return row.created_at


class OrderByUpdate(_SortedMessages, rule="MSG-3"):
    """ORDER BY updated_at."""

    def _order(self, row):
        return row.updated_at


class OrderById(_SortedMessages, rule="MSG-3"):
    """The order of the primary key."""

    def _order(self, row):
        return row.msg_id


class OrderByConversation(_SortedMessages, rule="MSG-3"):
    """ORDER BY conv_id, seq: a session's conversations one after another."""

    def _order(self, row):
        return row.conv_id or ""


class PlaceByCount(OwnUpsert, rule="MSG-3"):
    """The next place is counted, so after a deletion it is taken already."""

    def _next_place(self, connection, session_id, row):
        if super()._next_place(connection, session_id, row) is None:
            return None
        counted = connection.execute(
            "SELECT count(*) + 1 FROM director_conversations WHERE session_id = ?", (session_id,)
        )
        return counted.fetchone()[0]


class SoftDelete(BrokenDB, rule="MSG-3"):
    """Deleting only hides: a message that is stored again is back at its old place."""

    def _delete_message(self, session_id, msg_id):
        hidden = self.__dict__.setdefault("_hidden", {})
        place = self._execute(
            "SELECT seq FROM director_conversations WHERE session_id = ? AND msg_id = ?",
            session_id,
            msg_id,
        )
        if place:
            hidden[session_id, msg_id] = place[0][0]
        return super()._delete_message(session_id, msg_id)

    def _upsert_messages(self, session_id, rows):
        found = super()._upsert_messages(session_id, rows)
        for row in rows:
            place = self.__dict__.get("_hidden", {}).pop((session_id, row.msg_id), None)
            if found and place is not None:
                self._execute(
                    """
                    UPDATE director_conversations SET seq = ? WHERE session_id = ? AND msg_id = ?
                    """,
                    place,
                    session_id,
                    row.msg_id,
                )
        return found


# --- MSG-4 --------------------------------------------------------------------------------------


class MessageIdsAreGlobal(OwnUpsert, rule="MSG-4"):
    """The key is `msg_id` alone: another session's message is overwritten."""

    def _upsert(self, connection, session_id, row):
        taken = connection.execute(
            """
            UPDATE director_conversations SET content = ?, updated_at = ?
            WHERE msg_id = ? AND session_id <> ?
            """,
            (row.content, row.updated_at, row.msg_id, session_id),
        )
        return taken.rowcount > 0 or super()._upsert(connection, session_id, row)


class SameIdMoves(OwnUpsert, rule="MSG-4"):
    """`session_id` is in the SET: the message changes its session."""

    def _upsert(self, connection, session_id, row):
        connection.execute(
            "DELETE FROM director_conversations WHERE msg_id = ? AND session_id <> ?",
            (row.msg_id, session_id),
        )
        return super()._upsert(connection, session_id, row)


class DeletesTheIdEverywhere(BrokenDB, rule="MSG-4"):
    """DELETE ... WHERE msg_id = ? without the session."""

    def _delete_message(self, session_id, msg_id):
        found = super()._delete_message(session_id, msg_id)
        self._execute("DELETE FROM director_conversations WHERE msg_id = ?", msg_id)
        return found


class FindsTheIdAnywhere(BrokenDB, rule="MSG-9"):
    """SELECT ... WHERE msg_id = ? without the session."""

    def _select_message(self, session_id, msg_id):
        found = super()._select_message(session_id, msg_id)
        if found is None:
            for (other,) in self._execute(
                "SELECT session_id FROM director_conversations WHERE msg_id = ?", msg_id
            ):
                return super()._select_message(other, msg_id)
        return found


# --- MSG-5 --------------------------------------------------------------------------------------


class OrphanAccepted(OwnUpsert, rule="MSG-5"):
    """No foreign key in force: SQLite has them off by default."""

    def _upsert_messages(self, session_id, rows):
        return self._run(
            lambda connection: [self._upsert(connection, session_id, row) for row in rows][-1],
            foreign_keys=False,
        )

    def _next_place(self, connection, session_id, row):
        counted = connection.execute(
            "SELECT coalesce(max(seq), 0) + 1 FROM director_conversations WHERE session_id = ?",
            (session_id,),
        )
        place = counted.fetchone()[0]
        return super()._next_place(connection, session_id, row) or place


class LateWriteRevives(BrokenDB, rule="MSG-5"):
    """A message makes its session if need be, so a late one brings a deleted session back."""

    def _upsert_messages(self, session_id, rows):
        now = rows[0].updated_at
        self._insert_session(SessionRow(session_id, None, None, now, now, "{}"))
        return super()._upsert_messages(session_id, rows)


class MissingSessionPasses(BrokenDB, rule="MSG-5"):
    """INSERT ... SELECT from no session stores nothing, and nobody looks at the count."""

    def _upsert_messages(self, session_id, rows):
        super()._upsert_messages(session_id, rows)
        return True


class MissingSessionIsAnInvalidRecord(BrokenDB, rule="MSG-5"):
    """The error is of another kind than the rule says."""

    def _upsert_messages(self, session_id, rows):
        if not super()._upsert_messages(session_id, rows):
            message = "there is no such session"
            raise InvalidRecordError("session_id", message)
        return True


class SessionLookedUpFirst(BrokenDB, rule="MSG-5"):
    """The session is looked up before the arguments are checked."""

    def add_or_update_msg_to_conv(self, session_id, *args, **kwargs):
        self.add_or_update_msgs_to_conv(session_id, [])
        return super().add_or_update_msg_to_conv(session_id, *args, **kwargs)


# --- MSG-8 --------------------------------------------------------------------------------------


class MessageKeysSorted(BrokenDB, rule="MSG-8"):
    """The keys in an order of their own."""

    def get_conversations(self, session_id, **kwargs):
        return [
            dict(sorted(message.items()))
            for message in super().get_conversations(session_id, **kwargs)
        ]


class MessageWithItsPlace(BrokenDB, rule="MSG-8"):
    """A column for the backend's own use comes along."""

    def get_conversations(self, session_id, **kwargs):
        return [
            {**message, "seq": place}
            for place, message in enumerate(super().get_conversations(session_id, **kwargs))
        ]


class AgentsMustBeAList(BrokenDB, rule="MSG-8"):
    """Agents are thought to be a list of names; a dict of them is refused."""

    def add_or_update_msg_to_conv(
        self, session_id, conv_id, msg_id, msg_type, agents, *args, **kwargs
    ):
        if not isinstance(agents, list):
            message = "a list"
            raise InvalidRecordError("agents", message)
        return super().add_or_update_msg_to_conv(
            session_id, conv_id, msg_id, msg_type, agents, *args, **kwargs
        )


class FalsyPayloadBecomesAList(BrokenDB, rule="MSG-8"):
    """``json.dumps(content or [])``: null, 0, "" and {} all come back as []."""

    @classmethod
    def break_code(cls):
        def broken(value, path):
            is_part = path.endswith(("agents", "actions", "content"))
            return encode_payload(value or [] if is_part else value, path)

        replace(encode_payload, broken)


class UnknownTypeRefused(_ChangedRows, rule="MSG-8"):
    """An Enum of message types: a word of the application's own is refused."""

    def _changed(self, row, stored):
        if row.msg_type not in {"input", "output"}:
            message = "input or output"
            raise InvalidRecordError("msg_type", message)
        return row


class EmptyStatusIsNone(_ChangedRows, rule="MSG-8"):
    """``status or None``."""

    def _changed(self, row, stored):
        return row._replace(status=row.status or None)


class NoTypeIsInput(BrokenDB, rule="VAL-4"):
    """A default for what must be given: `msg_type` None is accepted."""

    def add_or_update_msg_to_conv(self, session_id, conv_id, msg_id, msg_type, *args, **kwargs):
        return super().add_or_update_msg_to_conv(
            session_id, conv_id, msg_id, "input" if msg_type is None else msg_type, *args, **kwargs
        )


class StatusByItsName(BrokenDB, rule="VAL-4"):
    """str(status): an Enum that is a str is stored as ``Status.DONE``."""

    @classmethod
    def break_code(cls):
        replace(
            optional_text,
            lambda value, path: optional_text(
                str(value) if isinstance(value, Enum) else value, path
            ),
        )


class LongStatusCut(BrokenDB, rule="MSG-8"):
    """VARCHAR(50): a longer one is cut without a word."""

    @classmethod
    def break_code(cls):
        def broken(*args, **kwargs):
            row = message_row(*args, **kwargs)
            return row if row.status is None else row._replace(status=row.status[:50])

        replace(message_row, broken)


# --- MSG-9 --------------------------------------------------------------------------------------


class MissingMessageIsNone(BrokenDB, rule="MSG-9"):
    """``fetchone()`` is handed on."""

    def get_message(self, session_id, msg_id):
        return super().get_message(session_id, msg_id) or None


class DeleteMessageAlwaysTrue(BrokenDB, rule="MSG-9"):
    """DELETE of no row is no error in SQL."""

    def _delete_message(self, session_id, msg_id):
        super()._delete_message(session_id, msg_id)
        return True


class DeleteMessageCounts(BrokenDB, rule="MSG-9"):
    """`rowcount` is returned: 1 is not True."""

    def delete_message(self, session_id, msg_id):
        return int(super().delete_message(session_id, msg_id))


class DeleteMessageEmptiesIt(BrokenDB, rule="MSG-9"):
    """A tombstone: the message stays with no content."""

    def _delete_message(self, session_id, msg_id):
        return bool(
            self._execute(
                """
                UPDATE director_conversations SET content = 'null', status = 'deleted'
                WHERE session_id = ? AND msg_id = ? AND status IS NOT 'deleted' RETURNING seq
                """,
                session_id,
                msg_id,
            )
        )


class DeleteMessageTruncates(BrokenDB, rule="MSG-9"):
    """Going back to a message: what follows it is deleted as well."""

    def _delete_message(self, session_id, msg_id):
        self._execute(
            """
            DELETE FROM director_conversations WHERE session_id = ?1 AND seq >
                (SELECT seq FROM director_conversations WHERE session_id = ?1 AND msg_id = ?2)
            """,
            session_id,
            msg_id,
        )
        return super()._delete_message(session_id, msg_id)


class OneMessageOfItsOwnForm(BrokenDB, rule="MSG-9"):
    """`get_message` leaves out the session, which the caller knows."""

    def get_message(self, session_id, msg_id):
        found = super().get_message(session_id, msg_id)
        return {key: value for key, value in found.items() if key != "session_id"}
