"""DEL-1, DEL-2: deleting parts of a session, and all of it."""

from __future__ import annotations

from director_db import DeleteResult
from director_db.rows import DeletedComponents
from gallery.broken import BrokenDB

# --- DEL-1 --------------------------------------------------------------------------------------


class DeletingIsAlwaysTrue(BrokenDB, rule="DEL-1"):
    """DELETE of no row is no error in SQL."""

    def delete_conversation(self, session_id):
        super().delete_conversation(session_id)
        return True


class DeletingContextIsAlwaysTrue(BrokenDB, rule="DEL-1"):
    """The same for the context."""

    def delete_context(self, session_id):
        super().delete_context(session_id)
        return True


class DeletingCounts(BrokenDB, rule="DEL-1"):
    """`rowcount` is returned: 1 is not True, nor is 5."""

    def _delete_messages(self, session_id):
        count = self._execute(
            "SELECT count(*) FROM director_conversations WHERE session_id = ?", session_id
        )
        super()._delete_messages(session_id)
        return count[0][0]


class ConversationTakesTheSession(BrokenDB, rule="DEL-1"):
    """A session without messages is thought to be of no use."""

    def _delete_messages(self, session_id):
        found = super()._delete_messages(session_id)
        self._delete_session(session_id)
        return found


class ConversationTakesTheContext(BrokenDB, rule="DEL-1"):
    """The context is thought to be a part of the conversation."""

    def _delete_messages(self, session_id):
        self._delete_context(session_id)
        return super()._delete_messages(session_id)


class ContextIsOnlyEmptied(BrokenDB, rule="DEL-1"):
    """UPDATE ... SET context = '{}': it is there still, with its metadata."""

    incremental_contexts = False

    def _delete_context(self, session_id):
        return bool(
            self._execute(
                """
                UPDATE director_context_messages SET context_data = '{}'
                WHERE session_id = ? RETURNING 1
                """,
                session_id,
            )
        )


class FirstConversationOnly(BrokenDB, rule="DEL-1"):
    """A session is thought to have one conversation: messages of the others stay."""

    def _delete_messages(self, session_id):
        return bool(
            self._execute(
                """
                DELETE FROM director_conversations WHERE session_id = ?1 AND conv_id IS (
                    SELECT conv_id FROM director_conversations WHERE session_id = ?1
                    ORDER BY seq LIMIT 1
                ) RETURNING 1
                """,
                session_id,
            )
        )


# --- DEL-2 --------------------------------------------------------------------------------------


class _OwnDelete(BrokenDB):
    """Deletes a session by statements of its own, with no foreign keys in force."""

    tables = ("director_conversations", "director_context_messages", "director_context_items")

    def _delete_session(self, session_id):
        return self._run(
            lambda connection: self._delete_all(connection, session_id), foreign_keys=False
        )

    def _delete_all(self, connection, session_id):
        there = DeletedComponents(
            *(
                connection.execute(
                    f"SELECT 1 FROM {table} WHERE session_id = ? LIMIT 1", (session_id,)
                ).fetchone()
                is not None
                for table in (*_OwnDelete.tables[:2], "director_sessions")
            )
        )
        for table in (*self.tables, "director_sessions"):
            connection.execute(f"DELETE FROM {table} WHERE session_id = ?", (session_id,))
        return there


class DeletingLeavesTheContext(_OwnDelete, rule="DEL-2"):
    """No cascade for the context, which the next session of that id inherits."""

    tables = ("director_conversations",)


class DeletingLeavesTheMessages(_OwnDelete, rule="DEL-2"):
    """No cascade for the messages, which the next session of that id inherits."""

    tables = ("director_context_messages", "director_context_items")


class DeletingIsHiding(_OwnDelete, rule="DEL-2"):
    """Only the session goes from sight; one of the same id brings everything back."""

    tables = ()


class AllPartsCount(_OwnDelete, rule="DEL-2"):
    """Where the session was there, its parts count as deleted, too."""

    def _delete_all(self, connection, session_id):
        found = super()._delete_all(connection, session_id)
        return DeletedComponents(found.session, found.session, found.session)


class _OtherResult(BrokenDB):
    """Returns what `_result` makes of the right result."""

    def _result(self, result):
        raise NotImplementedError

    def delete_session(self, session_id):
        return self._result(super().delete_session(session_id))


class ComponentsThatWereThere(_OtherResult, rule="DEL-2"):
    """The list holds what was deleted, not what was missing."""

    def _result(self, result):
        names = ["conversation", "context", "session"]
        missing = [name for name in names if name not in result.failed_components]
        return DeleteResult(result.success, missing)


class ComponentsInAnotherOrder(_OtherResult, rule="DEL-2"):
    """The session comes first, as it is deleted first."""

    def _result(self, result):
        return DeleteResult(result.success, result.failed_components[::-1])


class ComponentsAreATuple(_OtherResult, rule="DEL-2"):
    """A tuple where callers add to a list."""

    def _result(self, result):
        return DeleteResult(result.success, tuple(result.failed_components))


class ComponentsByTable(_OtherResult, rule="DEL-2"):
    """The names of the tables, not those of the parts."""

    def _result(self, result):
        return DeleteResult(result.success, [f"{name}s" for name in result.failed_components])


class SuccessNeedsAll(_OtherResult, rule="DEL-2"):
    """A session that has no context is thought to have failed."""

    def _result(self, result):
        return DeleteResult(not result.failed_components, result.failed_components)


class SuccessAlways(_OtherResult, rule="DEL-2"):
    """Nothing went wrong, so it is a success."""

    def _result(self, result):
        return result._replace(success=True)


class NothingFailsOnSuccess(_OtherResult, rule="DEL-2"):
    """On success no component is listed."""

    def _result(self, result):
        return DeleteResult(result.success, [] if result.success else result.failed_components)


class DeletingReturnsATuple(_OtherResult, rule="DEL-2"):
    """``return success, failed``: unpacking works, the names do not."""

    def _result(self, result):
        return tuple(result)


class DeletingReturnsABool(_OtherResult, rule="DEL-2"):
    """Callers unpack two values."""

    def _result(self, result):
        return result.success
