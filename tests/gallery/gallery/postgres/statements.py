"""Statements of many at once: locks, snapshots, places, and what a statement can carry."""

from __future__ import annotations

import random
import time
from functools import partial

from director_db.rows import DeletedComponents, SaveOutcome, StoredMessage
from director_db_postgres import errors, schema
from director_db_postgres.sql import sessions
from gallery.broken import ROUND_TRIP, read_until_changed
from gallery.postgres.broken import BrokenPostgresDB, connect_with, edit_sql

_INSERT_MESSAGE = """
    INSERT INTO director_conversations
        (session_id, seq, conv_id, msg_id, msg_type, agents, actions, content, status,
         created_at, updated_at, metadata)
    VALUES (%s, {place}, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (session_id, msg_id) DO UPDATE SET content = excluded.content
"""


def _fields(session_id, row):
    """Return the parameters of `_INSERT_MESSAGE`."""
    return [session_id, *row.columns]


# --- Locks ----------------------------------------------------------------------------------------


class LooksThenInserts(BrokenPostgresDB, rule="SES-2", level="concurrent"):
    """A SELECT that finds nothing, then an INSERT, which somebody else made in between."""

    by = "of_first_creates_at_once"

    def _insert_session(self, row):
        if super()._select_session(row.session_id) is not None:
            return False
        with self._connect() as connection:
            connection.execute(
                "INSERT INTO director_sessions (session_id, video_id, collection_id, created_at,"
                " updated_at, metadata, user_id, last_seq) VALUES (%s, %s, %s, %s, %s, %s, %s, 0)",
                list(row),
            )
        return True


class LockThatDoesNotWait(BrokenPostgresDB, rule="LIF-1", level="concurrent"):
    """FOR UPDATE NOWAIT: whoever is second fails."""

    by = "threads_share_one_instance"

    def _upsert_messages(self, session_id, rows):
        with self._connect() as connection:
            connection.execute(
                "SELECT FROM director_sessions WHERE session_id = %s FOR UPDATE NOWAIT",
                [session_id],
            )
            time.sleep(2 * ROUND_TRIP)
        return super()._upsert_messages(session_id, rows)


class LockedIsNotThere(BrokenPostgresDB, rule="LIF-1", level="concurrent"):
    """FOR UPDATE SKIP LOCKED: a session that somebody writes to is taken for none."""

    by = "threads_share_one_instance"

    def _upsert_messages(self, session_id, rows):
        with self._connect() as connection:
            found = connection.execute(
                "SELECT FROM director_sessions WHERE session_id = %s FOR UPDATE SKIP LOCKED",
                [session_id],
            ).fetchall()
            time.sleep(2 * ROUND_TRIP)
        return bool(found) and super()._upsert_messages(session_id, rows)


class MessagesLockedOneByOne(BrokenPostgresDB, rule="MSG-7", level="concurrent"):
    """A bulk locks each message as it comes to it, and two that meet half-way stop each other."""

    by = "no_reader_sees_a_part"

    def _upsert_messages(self, session_id, rows):
        with self._connect() as connection:
            for row in rows:
                connection.execute(
                    "SELECT FROM director_conversations"
                    " WHERE session_id = %s AND msg_id = %s FOR UPDATE",
                    [session_id, row.msg_id],
                )
                time.sleep(ROUND_TRIP)
        return super()._upsert_messages(session_id, rows)


class SerializableAndNotAgain(BrokenPostgresDB, rule="LIF-1", level="concurrent"):
    """Transactions are serializable, and what the server then refuses is not tried again."""

    by = "threads_share_one_instance"

    @classmethod
    def break_code(cls):
        connect_with(options="-c default_transaction_isolation=serializable")
        errors._RETRY = errors._RETRY - {"40001"}


# --- Places ---------------------------------------------------------------------------------------


class PlaceAfterTheLast(BrokenPostgresDB, rule="MSG-3", level="concurrent"):
    """``max(seq) + 1``: two who look at once take the same place."""

    by = "places_stay_while_others"

    def _upsert_messages(self, session_id, rows):
        if super()._select_session(session_id) is None:
            return False
        place = "(SELECT coalesce(max(seq), 0) + 1 FROM director_conversations)"
        with self._connect() as connection:
            for row in rows:
                statement = _INSERT_MESSAGE.format(place=place)
                connection.execute(statement, _fields(session_id, row))
        return True


class PlaceFromASequence(BrokenPostgresDB, rule="MSG-6", level="concurrent"):
    """A sequence gives places in the order of its calls, which is not that of the commits."""

    by = "pages_on_misses_nothing"

    @classmethod
    def break_code(cls):
        schema.CREATE += ("CREATE SEQUENCE {schema}director_places",)

    def _upsert_messages(self, session_id, rows):
        with self._connect() as connection:
            for row in rows:
                statement = _INSERT_MESSAGE.format(place="nextval('director_places')")
                connection.execute(statement, _fields(session_id, row))
            time.sleep(random.choice([0, 4 * ROUND_TRIP]))
        return True


class OrderOfTheHeap(BrokenPostgresDB, rule="MSG-3"):
    """No ORDER BY: a table is in the order of its inserts, until its rows are updated."""

    by = "an_update_keeps_the_place"

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        with self._connect() as connection:
            found = connection.execute(
                "SELECT msg_id FROM director_conversations WHERE session_id = %s ORDER BY ctid",
                [query.session_id],
            ).fetchall()
        places = {msg_id: place for place, (msg_id,) in enumerate(found)}
        return rows and sorted(rows, key=lambda row: places[StoredMessage._make(row).msg_id])


# --- Snapshots ------------------------------------------------------------------------------------


class ContextInTwoStatements(BrokenPostgresDB, rule="CTX-3", level="concurrent"):
    """A context and its items are read by two statements, each with a snapshot of its own."""

    by = "another_process_sees_no_part"

    def _select_context(self, session_id):
        context = super()._select_context(session_id)
        time.sleep(ROUND_TRIP)
        later = super()._select_context(session_id)
        return later and context and context._replace(items=later.items)


class LastSaveWins(BrokenPostgresDB, rule="CTX-4", level="concurrent"):
    """READ COMMITTED: an append reads, adds and saves, and so does somebody else meanwhile."""

    by = "appends_at_once_lose_nothing"
    incremental_contexts = False

    def _save_context(self, row, *, if_version):
        return super()._save_context(row, if_version=None)


class CountedBeforeTheDelete(BrokenPostgresDB, rule="DEL-2", level="concurrent"):
    """What a delete finds is asked for before it, without a lock."""

    by = "of_deletes_at_once_one_finds_the_session"

    def _delete_session(self, session_id):
        with self._connect() as connection:
            found = [
                connection.execute(
                    f"SELECT EXISTS (SELECT FROM {table} WHERE session_id = %s)", [session_id]
                ).fetchone()[0]
                for table in (
                    "director_conversations",
                    "director_context_messages",
                    "director_sessions",
                )
            ]
        super()._delete_session(session_id)
        return DeletedComponents._make(found)


# --- What a statement carries ---------------------------------------------------------------------


class AParameterForEachField(BrokenPostgresDB, rule="MSG-7"):
    """One INSERT for the bulk; the protocol counts its parameters with 16 bits."""

    by = "a_big_bulk"

    def _upsert_messages(self, session_id, rows):
        fields = [field for row in rows for field in row]
        row = f"({', '.join(['%s::text'] * len(rows[0]))})"
        with self._connect() as connection:
            connection.execute(f"VALUES {', '.join([row] * len(rows))}", fields)
        return super()._upsert_messages(session_id, rows)


class CopyWrittenByHand(BrokenPostgresDB, rule="VAL-1"):
    """COPY is fast, and its text has escapes of its own, which nobody made."""

    by = "any_payload_in_any_place"

    def _upsert_messages(self, session_id, rows):
        with self._connect() as connection:
            connection.execute("CREATE TEMPORARY TABLE copied (content TEXT)")
            with connection.cursor().copy("COPY copied FROM STDIN") as copy:
                copy.write("".join(f"{row.content}\n" for row in rows))
            copied = connection.execute("SELECT content FROM copied").fetchall()
        rows = [row._replace(content=text) for row, (text,) in zip(rows, copied, strict=True)]
        return super()._upsert_messages(session_id, rows)


class LikeForEquals(BrokenPostgresDB, rule="VAL-4"):
    """LIKE, with the signs that stand for any others in it."""

    by = "naughty_message_ids"

    def _select_message(self, session_id, msg_id):
        with self._connect() as connection:
            found = connection.execute(
                "SELECT msg_id FROM director_conversations WHERE session_id = %s"
                " AND msg_id LIKE %s ORDER BY msg_id",
                [session_id, msg_id],
            ).fetchone()
        return found and super()._select_message(session_id, *found)


class LimitOfFourBytes(BrokenPostgresDB, rule="MSG-6"):
    """The parameter of LIMIT is an integer of 32 bits."""

    by = "takes_any_int_as_a_limit"

    def _select_messages(self, query):
        with self._connect() as connection:
            connection.execute("SELECT %s::integer", [query.limit])
        return super()._select_messages(query)


class AnyListWillDo(BrokenPostgresDB, rule="CTX-4"):
    """The list that is kept in parts is appended to, whatever its key."""

    by = "a_list_takes_no_key"

    @classmethod
    def break_code(cls):
        edit_sql("APPEND_TO_CONTEXT", ("known.list_key = $2::text", "known.list_key IS NOT NULL"))


class NullIsNoPart(BrokenPostgresDB, rule="MSG-6"):
    """``conv_id = NULL`` where no conversation is asked for: nothing is equal to it."""

    by = "every_page_of_every_part"

    @classmethod
    def break_code(cls):
        for name, number in (("SELECT_LAST_OF_PART", 3), ("SELECT_PART_AFTER", 4)):
            edit_sql(name, (f"coalesce(conv_id = ${number}::text, ${number}::text IS NULL)",
                            f"conv_id = ${number}::text"))  # fmt: skip


class OrderAsTheIndexGives(BrokenPostgresDB, rule="MSG-12"):
    """No order is asked for, and the rows come in that of the index, or of the table."""

    by = "in_the_order_of_the_conversation"

    def _select_messages_by_id(self, session_id, msg_ids):
        with self._connect() as connection:
            found = connection.execute(
                "SELECT msg_id FROM director_conversations WHERE session_id = %s"
                " AND msg_id = ANY(%s) ORDER BY ctid",
                [session_id, list(msg_ids)],
            ).fetchall()
        rows = map(StoredMessage._make, super()._select_messages_by_id(session_id, msg_ids))
        known = {row.msg_id: row for row in rows}
        return [known[msg_id] for (msg_id,) in found]


class AParameterForEachId(BrokenPostgresDB, rule="MSG-12"):
    """``IN ($2, $3, ...)``; the protocol counts its parameters with 16 bits."""

    by = "very_many_at_once"

    def _select_messages_by_id(self, session_id, msg_ids):
        with self._connect() as connection:
            connection.execute(f"SELECT '' IN ({', '.join(['%s'] * len(msg_ids))})", msg_ids)
        return super()._select_messages_by_id(session_id, msg_ids)


class MessagesInTwoStatements(BrokenPostgresDB, rule="MSG-12", level="concurrent"):
    """Two batches, each a statement with a snapshot of its own."""

    by = "are_of_one_moment"

    def _select_messages_by_id(self, session_id, msg_ids):
        read = partial(super()._select_messages_by_id, session_id, msg_ids)
        first = read()
        return [*first[:1], *read_until_changed(read, first, 1)[1:]]


class TouchedByATrigger(BrokenPostgresDB, rule="MSG-2"):
    """A trigger that sets updated_at on every UPDATE."""

    by = "updated_at_is_stored_if_it_is_given"

    @classmethod
    def break_code(cls):
        schema.CREATE += (
            """
            CREATE FUNCTION director_touch() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                NEW.updated_at = extract(epoch FROM now())::bigint;
                RETURN NEW;
            END $$
            """,
            """
            CREATE TRIGGER director_touch BEFORE UPDATE ON {schema}director_conversations
            FOR EACH ROW EXECUTE FUNCTION director_touch()
            """,
        )


class HeldBackIsCounted(BrokenPostgresDB, rule="MSG-11"):
    """The session's row is updated with the message, whatever became of that."""

    by = "a_lower_or_equal_revision"

    @classmethod
    def break_code(cls):
        edit_sql("COUNT_GUARDED", ("AND age(message.xmin) = 0", ""))
        edit_sql("COUNT_GUARDED", ("(SELECT stored.updated_at FROM stored)", "updated_at + 1"))


class GuardThatForgetsNulls(BrokenPostgresDB, rule="MSG-11"):
    """NULL < 5 is not true, and a message without a revision can never be replaced by one."""

    by = "the_first_revision"

    @classmethod
    def break_code(cls):
        edit_sql(
            "UPSERT_GUARDED",
            (
                "coalesce(stored.revision < excluded.revision, true)",
                "(excluded.revision IS NULL OR stored.revision < excluded.revision)",
            ),
        )


class PopWithoutTheLock(BrokenPostgresDB, rule="MSG-13", level="concurrent"):
    """A DELETE locks the row by itself: who waits for it finds it gone, and answers None."""

    by = "of_pops_at_once"

    def _pop_message(self, session_id, conv_id):
        with self._connect() as connection:
            popped = connection.execute(
                """
                DELETE FROM director_conversations WHERE session_id = %s AND seq = (
                    SELECT max(seq) FROM director_conversations WHERE session_id = %s
                )
                RETURNING session_id, conv_id, msg_id, msg_type, agents, actions, content, status,
                    created_at, updated_at, metadata, revision
                """,
                [session_id, session_id],
            ).fetchone()
            time.sleep(50 * ROUND_TRIP)
        return popped


class PopOfWhatIsStillUnlocked(BrokenPostgresDB, rule="MSG-13", level="concurrent"):
    """The lock and the look are one statement, which sees what was there before it waited."""

    by = "of_pops_at_once"

    def _pop_message(self, session_id, conv_id):
        with self._connect() as connection:
            found = connection.execute(
                """
                SELECT (
                    SELECT msg_id FROM director_conversations AS message
                    WHERE message.session_id = %s ORDER BY seq DESC LIMIT 1
                )
                FROM director_sessions WHERE session_id = %s FOR UPDATE
                """,
                [session_id, session_id],
            ).fetchone()
            time.sleep(50 * ROUND_TRIP)
            if found is None or found[0] is None:
                return None
            popped = super()._select_message(session_id, found[0])
            connection.execute(
                "DELETE FROM director_conversations WHERE session_id = %s AND msg_id = %s",
                [session_id, found[0]],
            )
        return popped


class ReplacesUpToWhatItHasSeen(BrokenPostgresDB, rule="MSG-14", level="concurrent"):
    """It looks for the last old place before it waits for the lock: what came since stays."""

    by = "of_replaces_at_once"

    def _replace_messages(self, session_id, rows):
        with self._connect() as connection:
            seen = connection.execute(
                "SELECT coalesce(max(seq), 0) FROM director_conversations WHERE session_id = %s",
                [session_id],
            ).fetchone()[0]
        time.sleep(50 * ROUND_TRIP)
        with self._connect() as connection:
            connection.execute(
                "UPDATE director_sessions SET last_seq = last_seq + %s WHERE session_id = %s",
                [len(rows), session_id],
            )
            connection.execute(
                "DELETE FROM director_conversations WHERE session_id = %s AND (seq <= %s"
                " OR msg_id = ANY(%s))",
                [session_id, seen, [row.row.msg_id for row in rows]],
            )
            place = "(SELECT last_seq - %s FROM director_sessions WHERE session_id = %s)"
            for left, row in enumerate(reversed(rows)):
                _, *fields = _fields(session_id, row.row)
                connection.execute(
                    _INSERT_MESSAGE.format(place=place), [session_id, left, session_id, *fields]
                )
        return True


class ReplacedRevisionIsOverwritten(BrokenPostgresDB, rule="MSG-14"):
    """``SET revision = excluded.revision``: what is not given becomes NULL."""

    by = "an_id_that_stays"

    @classmethod
    def break_code(cls):
        edit_sql(
            "REPLACE_MESSAGES",
            ("coalesce(excluded.revision, stored.revision)", "excluded.revision"),
        )


class CopyWithoutTheLock(BrokenPostgresDB, rule="SES-9", level="concurrent"):
    """READ COMMITTED: one transaction, and yet each statement is of a moment of its own."""

    by = "a_copy_is_of_one_moment"

    @classmethod
    def break_code(cls):
        for name in ("COPY_SESSION", "COPY_MESSAGES", "COPY_CONTEXT", "COPY_ITEMS"):
            edit_sql(name, (f"AND {sessions.IS_LOCKED}", ""))
        # After its own snapshot, and before that of the next one. An EXISTS alone is not run.
        late = "(SELECT 1 FROM pg_sleep(0.1)) = 1 AND EXISTS ("
        edit_sql("COPY_MESSAGES", ("EXISTS (", late))

    def _copy_session(self, copy):
        # With a row to lock that nobody else does.
        self._sql.lock_session = self._sql.lock_session.replace(b"FOR UPDATE", b"")
        return super()._copy_session(copy)


# --- Compare and set ------------------------------------------------------------------------------


class SaveOnTopOfAnyVersion(BrokenPostgresDB, rule="CTX-5"):
    """The condition is lost among those of the lock."""

    by = "stores_only_on_top"

    @classmethod
    def break_code(cls):
        edit_sql(
            "SAVE_CONTEXT",
            ("$2::bigint < 0 OR $2::bigint = coalesce(known.version, 0)", "$2::bigint IS NOT NULL"),
        )


class VersionComparedBeforeTheLock(BrokenPostgresDB, rule="CTX-5", level="concurrent"):
    """The version is read first, and nobody holds it until the save."""

    by = "of_saves_at_once"

    def _save_context_change(self, change):
        if change.if_version is not None:
            if (self._select_context_version(change.row.session_id) or 0) != change.if_version:
                return SaveOutcome.CONFLICT
            time.sleep(ROUND_TRIP)
        return super()._save_context_change(change._replace(if_version=None))


class UpdateOnTopOfAnything(BrokenPostgresDB, rule="SES-8", level="concurrent"):
    """What was read is not compared, so that it is only the latest who wins."""

    by = "of_changes_at_once"

    @classmethod
    def break_code(cls):
        edit_sql("UPDATE_SESSION_READ", ("metadata = $13::text", "$13::text IS NOT NULL"))

    def _change_session(self, session_id, decide):
        def slowly(row):
            changes = decide(row)
            time.sleep(ROUND_TRIP)
            return changes

        return super()._change_session(session_id, slowly)


class NullIsNoNull(BrokenPostgresDB, rule="SES-8"):
    """``user_id = NULL`` is not true, and a session without a user is changed by nobody."""

    by = "merges_as_rfc"

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"operation_timeout": 1})

    @classmethod
    def break_code(cls):
        edit_sql("UPDATE_SESSION_READ", ("IS NOT DISTINCT FROM", "="))
