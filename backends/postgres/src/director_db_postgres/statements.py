"""The statements of an instance: those of `sql`, with the schema's name in them."""

from __future__ import annotations

import itertools

from psycopg.sql import SQL, Composable, Identifier

from director_db_postgres import sql


class Statements:
    """The statements with the schema's name in them, composed once for each instance."""

    def __init__(self, schema: str | None) -> None:
        """Compose for a schema; None leaves the names to the connection's search path."""
        self.schema = schema
        self.select_schema_version = self.compose(
            sql.SELECT_OWN_SCHEMA_VERSION if schema is None else sql.SELECT_SCHEMA_VERSION
        )
        self.probe_tables = self.compose(sql.PROBE_TABLES)
        self.insert_session = self.compose(sql.INSERT_SESSION)
        self.select_session = self.compose(sql.SELECT_SESSION)
        self.update_session = self.compose(sql.UPDATE_SESSION)
        self.update_session_read = self.compose(sql.UPDATE_SESSION_READ)
        self.lock_session = self.compose(sql.LOCK_SESSION)
        self.select_holder = self.compose(sql.SELECT_HOLDER)
        self.delete_session = self.compose(sql.DELETE_SESSION)
        self.count_messages = self.compose(sql.COUNT_MESSAGES)
        self.upsert_message = self.compose(sql.UPSERT_MESSAGE)
        self.upsert_messages = self.compose(sql.UPSERT_MESSAGES)
        self.count_together = self.compose(sql.COUNT_TOGETHER)
        self.upsert_together = self.compose(sql.UPSERT_TOGETHER)
        self.upsert_guarded = self.compose(sql.UPSERT_GUARDED)
        self.count_guarded = self.compose(sql.COUNT_GUARDED)
        self.select_message = self.compose(sql.SELECT_MESSAGE)
        self.select_first_messages = self.compose(sql.SELECT_FIRST_MESSAGES)
        self.select_last_messages = self.compose(sql.SELECT_LAST_MESSAGES)
        self.select_messages_after = self.compose(sql.SELECT_MESSAGES_AFTER)
        self.select_messages_before = self.compose(sql.SELECT_MESSAGES_BEFORE)
        self.select_messages_by_id = self.compose(sql.SELECT_MESSAGES_BY_ID)
        self.select_first_of_part = self.compose(sql.SELECT_FIRST_OF_PART)
        self.select_last_of_part = self.compose(sql.SELECT_LAST_OF_PART)
        self.select_part_after = self.compose(sql.SELECT_PART_AFTER)
        self.select_part_before = self.compose(sql.SELECT_PART_BEFORE)
        self.delete_message = self.compose(sql.DELETE_MESSAGE)
        self.delete_messages = self.compose(sql.DELETE_MESSAGES)
        self._compose_history()
        self.save_context = self.compose(sql.SAVE_CONTEXT)
        self.append_to_context = self.compose(sql.APPEND_TO_CONTEXT)
        self.append_items = self.compose(sql.APPEND_ITEMS)
        self.write_items = self.compose(sql.WRITE_ITEMS)
        self.cut_items = self.compose(sql.CUT_ITEMS)
        self.touch_session = self.compose(sql.TOUCH_SESSION)
        self.select_context_version = self.compose(sql.SELECT_CONTEXT_VERSION)
        self.select_context_length = self.compose(sql.SELECT_CONTEXT_LENGTH)
        self.select_context = self.compose(sql.SELECT_CONTEXT)
        self.delete_context = self.compose(sql.DELETE_CONTEXT)
        self._select_sessions = {
            flags: self.compose(
                sql.select_sessions(
                    before=flags[0], user=flags[1], video=flags[2], collection=flags[3]
                )
            )
            for flags in itertools.product((False, True), repeat=4)
        }

    def _compose_history(self) -> None:
        self.pop_message = self.compose(sql.POP_MESSAGE)
        self.pop_message_of_conversation = self.compose(sql.POP_MESSAGE_OF_CONVERSATION)
        self.claim_session = self.compose(sql.CLAIM_SESSION)
        self.release_session = self.compose(sql.RELEASE_SESSION)
        self.copy_session = self.compose(sql.COPY_SESSION)
        self.copy_session_until = self.compose(sql.COPY_SESSION_UNTIL)
        self.copy_messages = self.compose(sql.COPY_MESSAGES)
        self.copy_messages_until = self.compose(sql.COPY_MESSAGES_UNTIL)
        self.copy_context = self.compose(sql.COPY_CONTEXT)
        self.copy_items = self.compose(sql.COPY_ITEMS)
        self.replace_messages = self.compose(sql.REPLACE_MESSAGES)
        self.delete_replaced = self.compose(sql.DELETE_REPLACED)
        self.select_locked_place = self.compose(sql.SELECT_LOCKED_PLACE)
        self.delete_messages_after = self.compose(sql.DELETE_MESSAGES_AFTER)

    def select_sessions(self, *, before: bool, user: bool, video: bool, collection: bool) -> bytes:
        """Return the statement of a page; its parameters in the order of the arguments."""
        return self._select_sessions[before, user, video, collection]

    def compose(self, statement: str) -> bytes:
        """Put the schema's name into a statement of this package."""
        prefix: Composable = SQL("")
        if self.schema is not None:
            prefix = SQL("{}.").format(Identifier(self.schema))
        return SQL(statement).format(schema=prefix).as_bytes(None)
