"""LIF-3 to LIF-6: failures, first use, closing and errors, as one caller sees them."""

from __future__ import annotations

from pathlib import Path

from director_db import (
    BackendUnavailableError,
    ClosedError,
    InvalidRecordError,
    SchemaError,
    SessionNotFoundError,
)
from director_db.checks import lookup_id, message_rows, page_limit
from director_db.payload import encode_payload
from gallery.broken import BrokenDB, replace

# --- LIF-3 --------------------------------------------------------------------------------------


class FailurePoisonsTheNextCall(BrokenDB, rule="LIF-3"):
    """The failed transaction is never rolled back, and the next call is told so."""

    _aborted = False

    def _upsert_messages(self, session_id, rows):
        self._find_out()
        found = super()._upsert_messages(session_id, rows)
        self._aborted = not found
        return found

    def _select_session(self, session_id):
        self._find_out()
        return super()._select_session(session_id)

    def _select_messages(self, query):
        self._find_out()
        return super()._select_messages(query)

    def _find_out(self):
        if self._aborted:
            self._aborted = False
            message = "The transaction is aborted; commands are ignored until its end."
            raise BackendUnavailableError(message)


class RefusalPoisonsForGood(BrokenDB, rule="LIF-3"):
    """After a refused append the lock of its session is never given back."""

    _stuck = False

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if self._stuck:
            message = "The session is locked."
            raise BackendUnavailableError(message, retryable=True)
        try:
            return super().append_context_messages(session_id, messages, key=key)
        except InvalidRecordError:
            self._stuck = True
            raise


class RefusedAppendCountsAsActivity(BrokenDB, rule="LIF-3"):
    """The session is touched in a transaction before the one that fails."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if self.get_session(session_id):
            self.update_session(session_id)
        return super().append_context_messages(session_id, messages, key=key)


class RefusedAppendCreates(BrokenDB, rule="LIF-3"):
    """An empty context is made for the append, and stays when the append is refused."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if self.get_session(session_id) and not self.get_context(session_id):
            self.add_or_update_context_msg(session_id, {})
        return super().append_context_messages(session_id, messages, key=key)


class RefusedUpdateStoresHalf(BrokenDB, rule="LIF-3"):
    """Each field is an UPDATE of its own: what is before the bad one is stored."""

    def update_session(self, session_id, *, updated_at=None, **changes):
        for name, value in changes.items():
            super().update_session(session_id, updated_at=updated_at, **{name: value})
        super().update_session(session_id, updated_at=updated_at)


# --- LIF-4 --------------------------------------------------------------------------------------


class CreatedByHealthAlone(BrokenDB, rule="LIF-4"):
    """A new place has to be initialised before it can be used."""

    def _insert_session(self, row):
        if not Path(self.db_path).exists():
            message = "There are no tables yet. Run: director-db init"
            raise SchemaError(message)
        return super()._insert_session(row)


class DeletesNeedTables(BrokenDB, rule="LIF-4"):
    """Where nothing can be there to delete, nobody thinks of making it."""

    def _delete_context(self, session_id):
        if not Path(self.db_path).exists():
            message = "There are no tables yet."
            raise SchemaError(message)
        return super()._delete_context(session_id)


class ReadsNeedTables(BrokenDB, rule="LIF-4"):
    """Only writes create what is missing; reading a new place is an error."""

    def _select_session(self, session_id):
        if not Path(self.db_path).exists():
            message = "There are no tables yet."
            raise SchemaError(message)
        return super()._select_session(session_id)

    def _select_context(self, session_id):
        self._select_session(session_id)
        return super()._select_context(session_id)

    def _select_sessions(self, query):
        self._select_session("")
        return super()._select_sessions(query)


class HealthCheckLies(BrokenDB, rule="LIF-5"):
    """``return True``."""

    def health_check(self):
        return True


class HealthCheckRaises(BrokenDB, rule="LIF-5"):
    """It raises what it finds, so that nobody can ask."""

    def health_check(self):
        self.health()
        return True


class HealthCheckIsHealth(BrokenDB, rule="LIF-4"):
    """Something true is returned, but not True."""

    def health_check(self):
        return super().health_check() and self.health()


class HealthCheckIsNegative(BrokenDB, rule="LIF-4"):
    """It is False before the first operation, as nothing is connected yet."""

    def health_check(self):
        return self.closed is False and Path(self.db_path).exists()


class HealthIsADict(BrokenDB, rule="LIF-4"):
    """A dict for the named tuple."""

    def health(self):
        return super().health()._asdict()


class HealthOfAnotherType(BrokenDB, rule="LIF-4"):
    """`db_type` is the name of the engine, not that of the type."""

    def _check(self):
        return super()._check()._replace(db_type="SQLite 3")


# --- LIF-5 --------------------------------------------------------------------------------------


class ClosingTwiceRaises(BrokenDB, rule="LIF-5"):
    """close() goes through the same gate as every operation."""

    def close(self):
        if self.closed:
            message = "It is closed already."
            raise ClosedError(message)
        super().close()


class UseReopens(BrokenDB, rule="LIF-5"):
    """A closed instance connects again when it is used."""

    def get_session(self, session_id):
        self._gate.closed = False
        return super().get_session(session_id)


class WriteReopens(BrokenDB, rule="LIF-5"):
    """The same, where it writes."""

    def add_or_update_context_msg(self, session_id, *args, **kwargs):
        self._gate.closed = False
        return super().add_or_update_context_msg(session_id, *args, **kwargs)


class UseAfterCloseIsAnotherError(BrokenDB, rule="LIF-5"):
    """What the driver says of a closed connection is handed on."""

    def get_sessions(self, **kwargs):
        if self.closed:
            message = "Cannot operate on a closed database."
            raise RuntimeError(message)
        return super().get_sessions(**kwargs)


class NothingFoundAfterClose(BrokenDB, rule="LIF-5"):
    """An id that no record can have is answered before anybody looks whether it is closed."""

    def get_message(self, session_id, msg_id):
        if lookup_id(session_id) is None or lookup_id(msg_id) is None:
            return {}
        return super().get_message(session_id, msg_id)


class CheckedBeforeClosed(BrokenDB, rule="LIF-5"):
    """A bad argument is told of before the close is."""

    def create_session(self, session_id, *args, metadata=None, **kwargs):
        encode_payload(metadata, "metadata")
        return super().create_session(session_id, *args, metadata=metadata, **kwargs)


class EmptyBulkAfterClose(BrokenDB, rule="LIF-5"):
    """Nothing to do is done by a closed instance as well."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        if self.closed and not messages:
            return []
        return super().add_or_update_msgs_to_conv(session_id, messages)


class HealthAfterClose(BrokenDB, rule="LIF-5"):
    """health() answers what it knew before the close."""

    def health(self):
        if self.closed and "_known" in self.__dict__:
            return self._known
        self._known = super().health()
        return self._known


class EnteringAfterClose(BrokenDB, rule="LIF-5"):
    """``with`` on a closed instance begins."""

    def __enter__(self):
        return self


class LeavingDoesNotClose(BrokenDB, rule="LIF-5"):
    """``with`` ends and the connections stay."""

    def __exit__(self, *_error):
        pass


class LeavingClosesTheShared(BrokenDB, rule="LIF-5", level="concurrent"):
    """``with load_db()`` closes what other threads are using."""

    def __exit__(self, *_error):
        self.close()


class ReprFailsAfterClose(BrokenDB, rule="LIF-5"):
    """repr() asks the connection."""

    def __repr__(self):
        if self.closed:
            message = "This DB is closed."
            raise ClosedError(message)
        return super().__repr__()


class PlaceGoesWithTheClose(BrokenDB, rule="LIF-5"):
    """The place is forgotten with the connection."""

    @property
    def place(self):
        return None if self.closed else super().place


class ClosingKeepsTheConnections(BrokenDB, rule="LIF-5"):
    """close() only says so, and the connections go when the instance is collected."""

    def _close(self):
        pass


class CloseIsNotSeen(BrokenDB, rule="LIF-5"):
    """`closed` tells whether there is a connection, and a new instance has none."""

    @property
    def closed(self):
        return self._gate.closed or not Path(self.db_path).exists()


# --- LIF-6 --------------------------------------------------------------------------------------


class TypeErrorLeaks(BrokenDB, rule="LIF-6"):
    """An id that is no text fails somewhere in the middle."""

    @classmethod
    def break_code(cls):
        def broken(value):
            len(value)
            return lookup_id(value)

        replace(lookup_id, broken)


class UnicodeErrorLeaks(BrokenDB, rule="LIF-6"):
    """The driver cannot encode a lone surrogate in an id."""

    @classmethod
    def break_code(cls):
        def broken(value):
            if isinstance(value, str):
                value.encode()
            return lookup_id(value)

        replace(lookup_id, broken)


class OverflowLeaks(BrokenDB, rule="LIF-6"):
    """The driver has 64 bits for a limit."""

    @classmethod
    def break_code(cls):
        def broken(value):
            if isinstance(value, int):
                value.to_bytes(8, signed=True)
            return page_limit(value)

        replace(page_limit, broken)


class KeyErrorLeaks(BrokenDB, rule="LIF-6"):
    """``message["content"]``."""

    @classmethod
    def break_code(cls):
        def broken(session_id, messages):
            for message in messages:
                if isinstance(message, dict):
                    message["content"], message["msg_id"]
            return message_rows(session_id, messages)

        replace(message_rows, broken)


class AttributeErrorLeaks(BrokenDB, rule="LIF-6"):
    """``message.get`` of what is no dict."""

    @classmethod
    def break_code(cls):
        def broken(session_id, messages):
            for message in messages:
                message.get("status")
            return message_rows(session_id, messages)

        replace(message_rows, broken)


class RecursionErrorLeaks(BrokenDB, rule="VAL-6"):
    """The encoder recurses, and what holds itself has no end."""

    @classmethod
    def break_code(cls):
        def descend(value):
            if isinstance(value, dict):
                value = [*value.values()]
            if value and isinstance(value, (list, tuple)):
                descend(value[0])

        def broken(value, path):
            descend(value)
            return encode_payload(value, path)

        replace(encode_payload, broken)


class NotFoundIsAKeyError(BrokenDB, rule="SES-5"):
    """A LookupError, but none of ours."""

    def update_session(self, session_id, **kwargs):
        try:
            super().update_session(session_id, **kwargs)
        except SessionNotFoundError as error:
            raise KeyError(session_id) from error


class NotFoundNamesNothing(BrokenDB, rule="LIF-6"):
    """The error does not carry the id."""

    def add_or_update_msg_to_conv(self, session_id, *args, **kwargs):
        try:
            return super().add_or_update_msg_to_conv(session_id, *args, **kwargs)
        except SessionNotFoundError as error:
            raise SessionNotFoundError("") from error


class RefusalIsAPlainValueError(BrokenDB, rule="LIF-6"):
    """A ValueError, but none of ours."""

    def get_sessions(self, **kwargs):
        try:
            return super().get_sessions(**kwargs)
        except InvalidRecordError as error:
            raise ValueError(str(error)) from error
