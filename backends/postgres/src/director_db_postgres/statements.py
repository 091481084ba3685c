"""The statements of an instance: those of `sql`, with the schema's name in them."""

from __future__ import annotations

import itertools

from psycopg.sql import SQL, Composable, Identifier

from director_db_postgres.sql import contexts, history, messages, server, sessions


class Statements:
    """The statements with the schema's name in them, composed once for each instance."""

    def __init__(self, schema: str | None) -> None:
        """Compose for a schema; None leaves the names to the connection's search path."""
        self.schema = schema
        self.select_schema_version = self.compose(
            server.SELECT_OWN_SCHEMA_VERSION if schema is None else server.SELECT_SCHEMA_VERSION
        )
        self.probe_tables = self.compose(server.PROBE_TABLES)
        self.insert_session = self.compose(sessions.INSERT_SESSION)
        self.select_session = self.compose(sessions.SELECT_SESSION)
        self.update_session = self.compose(sessions.UPDATE_SESSION)
        self.update_session_read = self.compose(sessions.UPDATE_SESSION_READ)
        self.lock_session = self.compose(sessions.LOCK_SESSION)
        self.select_holder = self.compose(sessions.SELECT_HOLDER)
        self.delete_session = self.compose(sessions.DELETE_SESSION)
        self.count_messages = self.compose(messages.COUNT_MESSAGES)
        self.upsert_message = self.compose(messages.UPSERT_MESSAGE)
        self.upsert_messages = self.compose(messages.UPSERT_MESSAGES)
        self.count_together = self.compose(messages.COUNT_TOGETHER)
        self.upsert_together = self.compose(messages.UPSERT_TOGETHER)
        self.upsert_guarded = self.compose(messages.UPSERT_GUARDED)
        self.count_guarded = self.compose(messages.COUNT_GUARDED)
        self.select_message = self.compose(messages.SELECT_MESSAGE)
        self.select_first_messages = self.compose(messages.SELECT_FIRST_MESSAGES)
        self.select_last_messages = self.compose(messages.SELECT_LAST_MESSAGES)
        self.select_messages_after = self.compose(messages.SELECT_MESSAGES_AFTER)
        self.select_messages_before = self.compose(messages.SELECT_MESSAGES_BEFORE)
        self.select_messages_by_id = self.compose(messages.SELECT_MESSAGES_BY_ID)
        self.select_first_of_part = self.compose(messages.SELECT_FIRST_OF_PART)
        self.select_last_of_part = self.compose(messages.SELECT_LAST_OF_PART)
        self.select_part_after = self.compose(messages.SELECT_PART_AFTER)
        self.select_part_before = self.compose(messages.SELECT_PART_BEFORE)
        self.delete_message = self.compose(messages.DELETE_MESSAGE)
        self.delete_messages = self.compose(messages.DELETE_MESSAGES)
        self._compose_history()
        self.save_context = self.compose(contexts.SAVE_CONTEXT)
        self.append_to_context = self.compose(contexts.APPEND_TO_CONTEXT)
        self.append_items = self.compose(contexts.APPEND_ITEMS)
        self.write_items = self.compose(contexts.WRITE_ITEMS)
        self.cut_items = self.compose(contexts.CUT_ITEMS)
        self.touch_session = self.compose(contexts.TOUCH_SESSION)
        self.select_context_version = self.compose(contexts.SELECT_CONTEXT_VERSION)
        self.select_context_length = self.compose(contexts.SELECT_CONTEXT_LENGTH)
        self.select_context = self.compose(contexts.SELECT_CONTEXT)
        self.delete_context = self.compose(contexts.DELETE_CONTEXT)
        self._select_sessions = {
            flags: self.compose(
                sessions.select_sessions(
                    before=flags[0], user=flags[1], video=flags[2], collection=flags[3]
                )
            )
            for flags in itertools.product((False, True), repeat=4)
        }

    def _compose_history(self) -> None:
        self.pop_message = self.compose(history.POP_MESSAGE)
        self.pop_message_of_conversation = self.compose(history.POP_MESSAGE_OF_CONVERSATION)
        self.claim_session = self.compose(history.CLAIM_SESSION)
        self.release_session = self.compose(history.RELEASE_SESSION)
        self.copy_session = self.compose(history.COPY_SESSION)
        self.copy_session_until = self.compose(history.COPY_SESSION_UNTIL)
        self.copy_messages = self.compose(history.COPY_MESSAGES)
        self.copy_messages_until = self.compose(history.COPY_MESSAGES_UNTIL)
        self.copy_context = self.compose(history.COPY_CONTEXT)
        self.copy_items = self.compose(history.COPY_ITEMS)
        self.replace_messages = self.compose(history.REPLACE_MESSAGES)
        self.delete_replaced = self.compose(history.DELETE_REPLACED)
        self.select_locked_place = self.compose(history.SELECT_LOCKED_PLACE)
        self.delete_messages_after = self.compose(history.DELETE_MESSAGES_AFTER)

    def select_sessions(self, *, before: bool, user: bool, video: bool, collection: bool) -> bytes:
        """Return the statement of a page; its parameters in the order of the arguments."""
        return self._select_sessions[before, user, video, collection]

    def compose(self, statement: str) -> bytes:
        """Put the schema's name into a statement of this package."""
        prefix: Composable = SQL("")
        if self.schema is not None:
            prefix = SQL("{}.").format(Identifier(self.schema))
        return SQL(statement).format(schema=prefix).as_bytes(None)
