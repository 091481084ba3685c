"""MSG-7: many messages at once."""

from __future__ import annotations

from director_db import InvalidRecordError, checks
from director_db.checks import message_bytes
from director_db.payload_rules import MAX_PAYLOAD_BYTES
from gallery.broken import BrokenDB, replace

FIELDS = (
    "conv_id",
    "msg_id",
    "msg_type",
    "agents",
    "actions",
    "content",
    "status",
    "created_at",
    "updated_at",
    "metadata",
)


class BulkOneByOne(BrokenDB, rule="MSG-7"):
    """A loop over the single call: what is before the bad message stays."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        if not messages or not isinstance(messages, (list, tuple)):
            return super().add_or_update_msgs_to_conv(session_id, messages)
        store = super().add_or_update_msgs_to_conv
        return [stored for message in messages for stored in store(session_id, [message])]


class BulkSkipsTheBad(BrokenDB, rule="MSG-7"):
    """The good ones are stored, and then the bad one is told of."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        try:
            return super().add_or_update_msgs_to_conv(session_id, messages)
        except InvalidRecordError as error:
            number = error.path.removeprefix("messages[").partition("]")[0]
            if number.isdecimal():
                good = [m for n, m in enumerate(messages) if n != int(number)]
                super().add_or_update_msgs_to_conv(session_id, good)
            raise


class TwiceInABulkRefused(BrokenDB, rule="MSG-7"):
    """ON CONFLICT cannot touch a row twice in one statement; so it is forbidden."""

    def _upsert_messages(self, session_id, rows):
        ids = [row.msg_id for row in rows]
        if len(set(ids)) < len(ids):
            message = "an id stands in it twice"
            raise InvalidRecordError("messages", message)
        return super()._upsert_messages(session_id, rows)


class TwiceInABulkFirstWins(BrokenDB, rule="MSG-7"):
    """Repeated ids are dropped, and the later fields with them."""

    def _upsert_messages(self, session_id, rows):
        kept = {}
        for row in rows:
            kept.setdefault(row.msg_id, row)
        return super()._upsert_messages(session_id, list(kept.values()))


class TwiceInABulkLastPlace(BrokenDB, rule="MSG-7"):
    """Only the last of each id is stored: with its fields, and at its place."""

    def _upsert_messages(self, session_id, rows):
        kept = {}
        for row in rows:
            kept.pop(row.msg_id, None)
            kept[row.msg_id] = row
        return super()._upsert_messages(session_id, list(kept.values()))


class TwiceInABulkLosesTheTime(BrokenDB, rule="MSG-7"):
    """Repeated ids become one row, without the `created_at` that the first gave."""

    def _upsert_messages(self, session_id, rows):
        kept = {row.msg_id: row for row in rows}
        return super()._upsert_messages(session_id, list(kept.values()))


class TwiceInABulkLosesActivity(BrokenDB, rule="SES-6"):
    """Repeated ids become one row, and the time of the first does not count for the session."""

    def _upsert_messages(self, session_id, rows):
        given = {row.msg_id: row.created_at for row in rows if row.created_at_given}
        kept = {row.msg_id: row for row in rows}
        return super()._upsert_messages(
            session_id,
            [
                row._replace(
                    created_at=given.get(msg_id, row.created_at), created_at_given=msg_id in given
                )
                for msg_id, row in kept.items()
            ],
        )


class BulkBackwards(BrokenDB, rule="MSG-7"):
    """Places are taken in the wrong order."""

    def _upsert_messages(self, session_id, rows):
        return super()._upsert_messages(session_id, rows[::-1])


class BulkSortedById(BrokenDB, rule="MSG-7"):
    """Rows are sorted by their key before they are locked, and so are their places."""

    def _upsert_messages(self, session_id, rows):
        return super()._upsert_messages(session_id, sorted(rows, key=lambda row: row.msg_id))


class EmptyBulkPasses(BrokenDB, rule="MSG-7"):
    """Nothing to do: nobody looks whether the session is there."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        if not messages:
            return []
        return super().add_or_update_msgs_to_conv(session_id, messages)


class EmptyBulkRefused(BrokenDB, rule="MSG-7"):
    """An empty list is taken for a mistake of the caller."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        if not messages:
            message = "at least one message"
            raise InvalidRecordError("messages", message)
        return super().add_or_update_msgs_to_conv(session_id, messages)


class BulkRevives(BrokenDB, rule="MSG-7"):
    """The bulk makes its session if need be."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        if messages:
            self.create_session(session_id)
        return super().add_or_update_msgs_to_conv(session_id, messages)


class _BulkOf(BrokenDB):
    """Gives the bulk on with each message as `_message` makes it."""

    def _message(self, session_id, message):
        raise NotImplementedError

    def add_or_update_msgs_to_conv(self, session_id, messages):
        if isinstance(messages, (list, tuple)):
            messages = [
                self._message(session_id, m) if isinstance(m, dict) else m for m in messages
            ]
        return super().add_or_update_msgs_to_conv(session_id, messages)


class ForeignSessionInABulk(_BulkOf, rule="MSG-7"):
    """The `session_id` of a message is ignored: one of another session is stored here."""

    def _message(self, session_id, message):
        return {key: value for key, value in message.items() if key != "session_id"}


class NullSessionInABulk(_BulkOf, rule="MSG-7"):
    """``message.get("session_id") or session_id``: None is taken for left out."""

    def _message(self, session_id, message):
        return message | ({} if message.get("session_id", "") else {"session_id": session_id})


class OwnSessionInABulkRefused(_BulkOf, rule="MSG-7"):
    """What was read cannot be written back, as it carries its session's id."""

    def _message(self, session_id, message):
        if "session_id" in message:
            raise InvalidRecordError("messages[0].session_id", "not allowed")
        return message


class OtherKeysInABulkRefused(_BulkOf, rule="MSG-7"):
    """Each message has to have known keys only."""

    def _message(self, session_id, message):
        unknown = [key for key in message if key not in (*FIELDS, "session_id")]
        if unknown:
            raise InvalidRecordError("messages[0]", f"does not have {unknown[0]}")
        return message


class BulkNeedsAStatus(_BulkOf, rule="MSG-7"):
    """``message["status"]``: what may be left out is required."""

    def _message(self, session_id, message):
        if "status" not in message:
            raise InvalidRecordError("messages[0]", "lacks status")
        return message


class BulkDefaults(_BulkOf, rule="MSG-7"):
    """What is required gets a default: a message without content is stored."""

    def _message(self, session_id, message):
        return {"conv_id": "", "agents": [], "actions": [], "content": []} | message


class BulkWithoutMetadata(_BulkOf, rule="MSG-7"):
    """The bulk's own statement has a column less."""

    def _message(self, session_id, message):
        return {key: value for key, value in message.items() if key != "metadata"}


class BulkPathWithoutItsPlace(BrokenDB, rule="MSG-7"):
    """The error names the field and not which message of fifty."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        try:
            return super().add_or_update_msgs_to_conv(session_id, messages)
        except InvalidRecordError as error:
            path = error.path.partition("].")[2] or error.path
            raise InvalidRecordError(path, error.reason) from error


class BulkTakesNoTuple(BrokenDB, rule="MSG-7"):
    """isinstance(messages, list)."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        if not isinstance(messages, list):
            raise InvalidRecordError("messages", "a list")
        return super().add_or_update_msgs_to_conv(session_id, messages)


class BulkTakesAnything(BrokenDB, rule="MSG-7"):
    """``list(messages)``: a generator or a dict is taken as well."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        return super().add_or_update_msgs_to_conv(session_id, list(messages))


class BulkReturnsACount(BrokenDB, rule="MSG-7"):
    """It says how many were stored."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        super().add_or_update_msgs_to_conv(session_id, messages)
        return len(messages)


class BulkAsBigAsAMessage(BrokenDB, rule="MSG-7"):
    """The bound of one payload holds for all of them together."""

    @classmethod
    def break_code(cls):
        checks.MAX_BULK_BYTES = MAX_PAYLOAD_BYTES


class BulkOfAnySize(BrokenDB, rule="MSG-7"):
    """Each payload has a bound, and nobody adds them up."""

    @classmethod
    def break_code(cls):
        checks.MAX_BULK_BYTES = 2**63


class BulkInCharacters(BrokenDB, rule="MSG-7"):
    """len(text) is taken for its length in UTF-8."""

    @classmethod
    def break_code(cls):
        replace(
            message_bytes,
            lambda row: sum(map(len, (row.agents, row.actions, row.content, row.metadata))),
        )
