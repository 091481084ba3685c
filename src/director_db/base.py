"""The contract: what every database does for an application.

`BaseDB` holds the meaning once. Each public method checks its arguments, fills defaults, encodes,
calls one storage operation and decodes. A backend writes the storage operations, see `storage.py`:
they get clean rows and know nothing of JSON, time or defaults.
"""

from __future__ import annotations

import functools
import threading
import time
from abc import ABCMeta
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    NoReturn,
    Self,
    TypeVar,
    cast,
    final,
)

from director_db import lifecycle, logs
from director_db.checks import (
    future_warning,
    lookup_id,
    message_row,
    message_rows,
    optional_text,
    page_limit,
    required_id,
    session_changes,
    session_cursor,
    session_row,
)
from director_db.context import saving
from director_db.context.memory import memory
from director_db.context.parts import context_record, context_value
from director_db.db_type import DBType
from director_db.errors import (
    ClosedError,
    ConfigurationError,
    DirectorDBError,
    InvalidRecordError,
    SessionNotFoundError,
)
from director_db.records import (
    Context,
    DeleteResult,
    Distribution,
    Health,
    Message,
    Migration,
    Session,
    message_records,
    session_record,
)
from director_db.rows import (
    UNSET,
    DeletedComponents,
    MessageQuery,
    SessionQuery,
    StoredContext,
    Unset,
)
from director_db.settings import Settings, environment
from director_db.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from types import TracebackType

Method = TypeVar("Method", bound="Callable[..., Any]")

CONTRACT_VERSION: Final = "1.0"
"""The version of the contract that this release keeps; CONTRACT.md carries its text."""


def _operation(method: Method) -> Method:
    """Make a public operation: through the gate, with the driver's exceptions translated.

    Not a context manager: between its ``__enter__`` and the block a signal's handler may raise, and
    the operation would never be seen to leave.
    """

    @functools.wraps(method)
    def run(self: BaseDB, *args: Any, **kwargs: Any) -> Any:
        gate, token = self._gate, object()
        try:
            if gate.get_ident is not threading.get_ident:
                lifecycle.outlive_patches(self)
                gate = self._gate
            gate.enter(token)
            return method(self, *args, **kwargs)
        except DirectorDBError:
            raise
        except Exception as error:
            ours = self._translate(error)
            if ours is None:
                raise
            raise ours from error
        finally:
            gate.inside.pop(token, None)

    return cast("Method", run)


class _Registering(ABCMeta):
    """Makes an instance known to the fork hooks when it is complete, and not before."""

    # Type checkers look at the class's own __init__ instead: with this they would know nothing of
    # what is made, and of the arguments.
    if not TYPE_CHECKING:

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            found = None
            try:
                if not args and not kwargs:
                    # As load_db() does; a backend need not read the environment in two ways.
                    kwargs = found = cls._settings(environment, None)
                instance = super().__call__(*args, **kwargs)
            except BaseException:
                # They may hold a password, and some tools show the locals of a traceback.
                del args, kwargs, found
                raise
            instance._remember(found)  # noqa: SLF001
            lifecycle.survive_forks(instance)
            return instance


class BaseDB(Storage, metaclass=_Registering):
    """Stores sessions, their conversations and their context messages.

    Thread safety: one instance serves any number of threads at once (LIF-1). After a fork it
    works in the parent and in the child. ``close()`` ends it; an instance built directly also ends
    with its ``with`` block, one from `load_db` does not, as other threads may be using it (LIF-5).

    Durability: a write that has returned survives crashes and power cuts (LIF-2). A session's row
    that is deleted by other means takes its messages and its context with it (DEL-3).

    Ownership: arguments are neither changed nor kept, and what is returned is the caller's own
    (VAL-7).

    Errors: everything raised is a `DirectorDBError`; a failed call leaves the data as it was and
    the instance usable (LIF-3, LIF-6). Every operation raises `ClosedError` after ``close()``,
    `BackendUnavailableError` if the database cannot be used, and `SchemaError` if what is stored in
    it is not ours or of another release.
    """

    db_type: ClassVar[DBType]
    """The DB type; ``class DuckDB(BaseDB, db_type="duck")`` sets it."""

    _gate: lifecycle.Gate
    _closing: threading.Lock
    _released: bool
    _shared: bool
    _found: Mapping[str, Hashable] | None

    # ABC would let a subclass replace a public operation, and with it the meaning that all
    # backends share; `final` alone is seen by type checkers only.
    def __init_subclass__(cls, *, db_type: str | None = None, **kwargs: Any) -> None:
        """Set the DB type, and refuse a backend that overrides a public operation."""
        super().__init_subclass__(**kwargs)
        if db_type is not None:
            cls.db_type = DBType.of(db_type)
        for name, operation in vars(BaseDB).items():
            is_final = getattr(getattr(operation, "fget", operation), "__final__", False)
            # Looked up by hand, as a mixin may override it too, and getattr would bind it.
            found = next(vars(parent)[name] for parent in cls.__mro__ if name in vars(parent))
            if is_final and found is not operation:
                message = (
                    f"{cls.__qualname__}.{name} overrides a final operation of BaseDB. A backend "
                    "writes the storage operations, whose names start with one underscore."
                )
                raise TypeError(message)

    # In __new__, so that a backend whose __init__ forgets super().__init__() works all the same.
    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        """Give the instance what the public operations need."""
        self = super().__new__(cls)
        self._gate = lifecycle.Gate(cls.__name__)
        self._owner = object()
        self._closing = threading.Lock()
        self._released = False
        self._fork_ready = False
        self._shared = False
        self._found = None
        return self

    def __repr__(self) -> str:
        closed = " (closed)" if self.closed else ""
        # A constructor that failed is shown too, by tools that show the locals of a traceback.
        return f"<{type(self).__name__} {getattr(self, 'place', '(not made)')}{closed}>"

    def __reduce__(self) -> NoReturn:
        message = (
            f"A {type(self).__name__} cannot be sent to another process. Call load_db() there, or "
            "build one with the same settings."
        )
        raise TypeError(message)

    # --- Sessions -------------------------------------------------------------------------------

    @final
    @_operation
    def create_session(
        self,
        session_id: str,
        video_id: str | None = None,
        collection_id: str | None = None,
        created_at: int | None = None,
        updated_at: int | None = None,
        metadata: Any = None,
        **_ignored: object,
    ) -> None:
        """Store a session; one that exists already stays as it is (SES-1, SES-2).

        Args:
            session_id: 1 to 255 characters (VAL-4).
            video_id: 0 to 255 characters, or None.
            collection_id: 0 to 255 characters, or None.
            created_at: int seconds since the epoch; None means now (VAL-5).
            updated_at: int seconds since the epoch; None means now.
            metadata: any JSON value; None means ``{}`` (VAL-8).
            _ignored: other keywords are ignored, so that callers can pass ``**self.__dict__``.

        Raises:
            InvalidRecordError: a value breaks one of these bounds; nothing is stored.
        """
        row = session_row(session_id, video_id, collection_id, created_at, updated_at, metadata)
        self._insert_session(row)

    @final
    @_operation
    def get_session(self, session_id: str) -> Session | dict[str, Any]:
        """Return the session, ``{}`` if there is none (SES-3).

        Returns:
            A dict with exactly ``session_id, video_id, collection_id, created_at, updated_at,
            metadata``.
        """
        wanted = lookup_id(session_id)
        row = None if wanted is None else self._select_session(wanted)
        return {} if row is None else session_record(row)

    @final
    @_operation
    def get_sessions(
        self,
        *,
        limit: int | None = None,
        before: Mapping[str, Any] | None = None,
        video_id: str | None = None,
        collection_id: str | None = None,
    ) -> list[Session]:
        """Return sessions by last activity, the latest first (SES-4, SES-6).

        The order is ``updated_at``, then ``created_at``, then ``session_id``, all descending.

        Args:
            limit: the most sessions to return, at least 1; None for all.
            before: the last session of the page before, as returned; what follows it is returned,
                also if it was deleted meanwhile.
            video_id: only sessions of this video; None for any.
            collection_id: only sessions of this collection; None for any.

        Raises:
            InvalidRecordError: `limit` is below 1, or `before` is no session.
        """
        rows_limit = page_limit(limit)
        cursor = session_cursor(before)
        try:
            video = optional_text(video_id, "video_id")
            collection = optional_text(collection_id, "collection_id")
        except InvalidRecordError:
            return []  # No session can have such an id (VAL-4).
        query = SessionQuery(rows_limit, cursor, video, collection)
        return [session_record(row) for row in self._select_sessions(query)]

    @final
    @_operation
    def update_session(
        self,
        session_id: str,
        *,
        video_id: str | Unset | None = UNSET,
        collection_id: str | Unset | None = UNSET,
        metadata: Any = UNSET,
        updated_at: int | None = None,
    ) -> None:
        """Change the given fields of a session and no other (SES-5).

        Args:
            session_id: the session to change.
            video_id: 0 to 255 characters; None stores null.
            collection_id: 0 to 255 characters; None stores null.
            metadata: any JSON value, replaced whole; None stores ``{}`` (VAL-8).
            updated_at: int seconds since the epoch; None means now.

        Raises:
            InvalidRecordError: a value breaks one of these bounds.
            SessionNotFoundError: there is no such session.
        """
        changes = session_changes(video_id, collection_id, metadata, updated_at)
        wanted = required_id(session_id, "session_id")
        if not self._update_session(wanted, changes):
            raise SessionNotFoundError(wanted)

    @final
    @_operation
    def delete_session(self, session_id: str) -> DeleteResult:
        """Delete a session, its messages and its context in one transaction (DEL-2).

        Returns:
            ``(success, failed_components)``; the latter lists those of ``"conversation"``,
            ``"context"``, ``"session"`` that were not there; `success` is False only if none was.
        """
        wanted = lookup_id(session_id)
        if wanted is None:
            deleted = DeletedComponents(conversation=False, context=False, session=False)
        else:
            memory.take(self._owner, wanted)
            deleted = self._delete_session(wanted)
        failed = [name for name, there in deleted._asdict().items() if not there]
        return DeleteResult(any(deleted), failed)

    # --- Messages -------------------------------------------------------------------------------

    @final
    @_operation
    def add_or_update_msg_to_conv(
        self,
        session_id: str,
        conv_id: str | None,
        msg_id: str,
        msg_type: str,
        agents: Any,
        actions: Any,
        content: Any,
        status: str | None = None,
        created_at: int | None = None,
        updated_at: int | None = None,
        metadata: Any = None,
        **_ignored: object,
    ) -> None:
        """Insert a message, or replace every field of the one with this id (MSG-1).

        An update keeps the message's place in the conversation (MSG-3) and, unless `created_at` is
        given, its `created_at` (MSG-2). The session's `updated_at` follows (SES-6).

        Args:
            session_id: the session, which must exist (MSG-5).
            conv_id: the conversation, 0 to 255 characters or None.
            msg_id: 1 to 255 characters, unique in its session (MSG-4).
            msg_type: usually ``"input"`` or ``"output"``; 0 to 255 characters.
            agents: any JSON value.
            actions: any JSON value.
            content: any JSON value.
            status: 0 to 255 characters, or None; a `str` Enum is stored as its value.
            created_at: int seconds since the epoch; None keeps the stored one, or means now.
            updated_at: int seconds since the epoch; None means now.
            metadata: any JSON value; None means ``{}``.
            _ignored: other keywords are ignored, so that callers can pass ``**self.__dict__``.

        Raises:
            InvalidRecordError: a value has no exact form, with its path as ``content[0].score``.
            SessionNotFoundError: there is no such session; nothing is stored.
        """
        wanted = required_id(session_id, "session_id")
        row = message_row(
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
        if not self._upsert_messages(wanted, (row,)):
            raise SessionNotFoundError(wanted)

    @final
    @_operation
    def add_or_update_msgs_to_conv(
        self, session_id: str, messages: Sequence[Mapping[str, Any]]
    ) -> None:
        """Insert or update messages, all or none, as if one after another (MSG-7).

        Args:
            session_id: the session of all of them, which must exist.
            messages: dicts with the arguments of `add_or_update_msg_to_conv` but `session_id`. An
                id may come twice. Their payloads together come to at most 256 MiB. An empty list
                only checks that the session exists.

        Raises:
            InvalidRecordError: a message is not as described; the path starts ``messages[2]``.
            SessionNotFoundError: there is no such session.
        """
        wanted = required_id(session_id, "session_id")
        rows = message_rows(wanted, messages)
        found = self._upsert_messages(wanted, rows) if rows else self._has_session(wanted)
        if not found:
            raise SessionNotFoundError(wanted)

    @final
    @_operation
    def get_conversations(
        self,
        session_id: str,
        *,
        limit: int | None = None,
        before: str | None = None,
        after: str | None = None,
    ) -> list[Message]:
        """Return the messages of a session, oldest first: the order of first insertion (MSG-6).

        Args:
            session_id: the session; one that does not exist has no messages.
            limit: the most messages to return, at least 1; None for all.
            before: a message id; the last `limit` messages before it are returned.
            after: a message id; the first `limit` messages after it are returned. With neither, the
                last `limit` of all.

        Raises:
            InvalidRecordError: `before` and `after` together, a `limit` below 1, or a message id
                that is not in the session. A session that does not exist is ``[]`` first.
        """
        wanted = lookup_id(session_id)
        if wanted is None:
            return []
        try:
            query = _message_query(wanted, limit, before, after)
        except InvalidRecordError:
            if self._has_session(wanted):
                raise
            return []
        rows = self._select_messages(query)
        if rows is None:
            raise _unknown_cursor(before, after)
        return message_records(rows)

    @final
    @_operation
    def get_message(self, session_id: str, msg_id: str) -> Message | dict[str, Any]:
        """Return one message, ``{}`` if it is not there (MSG-9)."""
        session, message = lookup_id(session_id), lookup_id(msg_id)
        if session is None or message is None:
            return {}
        row = self._select_message(session, message)
        return {} if row is None else message_records((row,))[0]

    @final
    @_operation
    def delete_message(self, session_id: str, msg_id: str) -> bool:
        """Delete one message; True if it was there. The others keep their places (MSG-9)."""
        session, message = lookup_id(session_id), lookup_id(msg_id)
        if session is None or message is None:
            return False
        return self._delete_message(session, message)

    @final
    @_operation
    def delete_conversation(self, session_id: str) -> bool:
        """Delete all messages of a session; True if there was one (DEL-1)."""
        wanted = lookup_id(session_id)
        return wanted is not None and self._delete_messages(wanted)

    # --- Context --------------------------------------------------------------------------------

    @final
    @_operation
    def add_or_update_context_msg(
        self,
        session_id: str,
        context_messages: Any,
        created_at: int | None = None,
        updated_at: int | None = None,
        metadata: Any = None,
        **_ignored: object,
    ) -> None:
        """Store the context of a session, replacing the whole value atomically (CTX-1, CTX-3).

        Args:
            session_id: the session, which must exist.
            context_messages: any JSON value, usually a list or ``{"reasoning": [...]}``.
            created_at: int seconds since the epoch; None keeps the stored one, or means now.
            updated_at: int seconds since the epoch; None means now.
            metadata: any JSON value; None means ``{}``.
            _ignored: other keywords are ignored.

        Raises:
            InvalidRecordError: a value has no exact form, with its path.
            SessionNotFoundError: there is no such session; nothing is stored.
        """
        saving.save(self, session_id, context_messages, created_at, updated_at, metadata)

    @final
    @_operation
    def append_context_messages(
        self, session_id: str, messages: Sequence[Any], *, key: str = "reasoning"
    ) -> int:
        """Add messages to the end of the list under `key` of the context (CTX-4).

        Workers that append at once lose nothing. A context that does not exist yet becomes
        ``{key: [...]}``; the metadata stays.

        Args:
            session_id: the session, which must exist.
            messages: a list of any JSON values.
            key: the key of the list in the context, which is a dict.

        Returns:
            The new length of the list.

        Raises:
            InvalidRecordError: a value has no exact form; the context is not a dict; what stands
                under `key` is not a list; or the whole would exceed 64 MiB.
            SessionNotFoundError: there is no such session; nothing is stored.
        """
        return saving.append(self, session_id, messages, key)

    @final
    @_operation
    def get_context_messages(self, session_id: str) -> Any:
        """Return the context's value, whatever JSON it is; ``{}`` where there is none (CTX-2)."""
        row = self._find_context(session_id)
        return {} if row is None else context_value(row)

    @final
    @_operation
    def get_context(self, session_id: str) -> Context | dict[str, Any]:
        """Return the context with its times and metadata, ``{}`` if there is none (CTX-2).

        Returns:
            A dict with exactly ``session_id, context, created_at, updated_at, metadata``.
        """
        row = self._find_context(session_id)
        return {} if row is None else context_record(row)

    @final
    @_operation
    def delete_context(self, session_id: str) -> bool:
        """Delete the context of a session; True if there was one (DEL-1)."""
        wanted = lookup_id(session_id)
        if wanted is None:
            return False
        memory.take(self._owner, wanted)
        return self._delete_context(wanted)

    # --- Life -----------------------------------------------------------------------------------

    @final
    def health_check(self) -> bool:
        """Create what is missing and say whether the database can be used; never raise (LIF-4).

        Returns:
            False also after ``close()``, and on a schema that is not ours or too new, which stays
            as it is.
        """
        try:
            self.health()
        except Exception:  # noqa: BLE001 - the contract: whatever it is, the answer is False
            return False
        return True

    @final
    @_operation
    def health(self) -> Health:
        """Create what is missing and describe the database, or raise why it cannot be used (LIF-4).

        Returns:
            The DB type, the place with any password masked, the versions of the parts, warnings on
            settings or versions that put data at risk, and where each setting comes from.
        """
        health = self._check()
        found = self._found if isinstance(self._found, Settings) else Settings({}, health.settings)
        # By the index of the list, so it costs a look.
        latest = self._select_sessions(SessionQuery(1, None, None, None))
        warnings = [*health.warnings, *map(future_warning, latest), *found.ignored]
        warnings = [warning for warning in warnings if warning]
        return health._replace(warnings=warnings, settings=dict(found.origins))

    @final
    @_operation
    def migrate(self, *, skip_invalid: bool = False) -> Migration:
        """Carry over what the system before director-db stored in this database.

        Its tables ``sessions``, ``conversations`` and ``context_messages`` are read, all records
        are stored with their times and in their order, and the tables are renamed to
        ``old_sessions``, ``old_conversations`` and ``old_context_messages``: a backup, to be
        dropped at leisure. Messages and contexts without a session get one. All of it is one
        transaction. Stop the old application first.

        A database that is ours already stays as it is, also where old tables are there again; one
        that is missing or empty is created, as by any first use.

        Args:
            skip_invalid: leave rows that break a rule of the contract (an empty id, text that is
                not JSON, NaN) in the renamed tables, instead of giving up.

        Returns:
            ``(sessions, messages, contexts, orphan_sessions, skipped)``: how many were carried
            over, how many sessions were made for messages and contexts that had none, and one text
            for each row that was left behind.

        Raises:
            SchemaError: a row breaks a rule; it is named with the reason, and nothing was changed.
            ConfigurationError: the old system had no such database.
        """
        return self._migrate(skip_invalid=skip_invalid)

    @final
    @_operation
    def distribute(self, *, shards: int | None = None) -> Distribution:
        """Spread the tables over several servers, each session with all its parts on one of them.

        Creates what is missing first. What is distributed already stays as it is; records that are
        there are moved, all or none, and writes wait meanwhile.

        Args:
            shards: in how many parts; at least 1. None leaves it to the backend. Where the sessions
                are distributed already it is not looked at.

        Returns:
            ``(version, shards, tables)``: of what does it, how many parts there are now, and the
            tables that this call has distributed.

        Raises:
            ConfigurationError: the database cannot do that, or its servers are not set up for it.
            SchemaError: a table is distributed in another way.
        """
        if shards is not None and (type(shards) is not int or shards < 1):
            message = f"shards must be an int of at least 1, not {shards!r}."
            raise ConfigurationError(message)
        return self._distribute(shards)

    @final
    def close(self) -> None:
        """Wait for the operations in flight, then let go of the database (LIF-5). Idempotent."""
        self._close_within(None)

    @property
    @final
    def closed(self) -> bool:
        """Whether ``close()`` was called (LIF-5)."""
        return self._gate.closed

    @final
    def __enter__(self) -> Self:
        if self.closed:
            message = f"This {type(self).__name__} is closed."
            raise ClosedError(message)
        return self

    @final
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._shared:
            self.close()

    # --- Shared by the public operations --------------------------------------------------------

    def _remember(self, found: Mapping[str, Hashable] | None) -> None:
        """Keep the settings that the instance was built with, and tell what they ignored."""
        self._found = found
        logs.keep_quiet()
        for sentence in found.ignored if isinstance(found, Settings) else ():
            logs.tell(self.db_type, logs.WARNING, "%s", sentence)

    def _has_session(self, session_id: str) -> bool:
        return self._select_session(session_id) is not None

    def _find_context(self, session_id: object) -> StoredContext | None:
        wanted = lookup_id(session_id)
        return None if wanted is None else self._select_context(wanted)

    def _close_within(self, seconds: float | None) -> None:
        lifecycle.outlive_patches(self)
        self._gate.closed = True
        if self._gate.wait_until_empty(seconds):
            with self._closing:
                # Who was interrupted in the middle has not released anything; the next one does.
                if not self._released:
                    self._close()
                    memory.forget(self._owner)
                    self._released = True

    def _rest(self, seconds: float) -> None:
        """Close the connections but not the instance; a later operation opens new ones."""
        try:
            if self._gate.pause(seconds) and not self._released:
                self._close()
        finally:
            self._gate.resume()

    def _before_fork(self, deadline: float) -> None:
        self._fork_ready = False
        self._fork_ready = self._gate.pause(max(0.0, deadline - time.monotonic()))
        if self._fork_ready:
            self._prepare_fork()
        else:
            text = "%r: an operation did not end before a fork; the child may not be able to use it"
            logs.tell(self.db_type, logs.WARNING, text, self)

    def _after_fork_in_parent(self) -> None:
        self._gate.resume()

    def _after_fork_in_child(self) -> None:
        self._gate = self._gate.renewed()
        self._closing = threading.Lock()
        try:
            self._abandon()
        except BaseException:
            # What it holds is not known, so nothing may use it; who forked is told why.
            self._gate.closed = True
            raise


def _message_query(session_id: str, limit: object, before: object, after: object) -> MessageQuery:
    rows_limit = page_limit(limit)
    if before is not None and after is not None:
        raise InvalidRecordError("before", "cannot be given together with after")
    cursor = lookup_id(after if before is None else before)
    if cursor is None and (before is not None or after is not None):
        raise _unknown_cursor(before, after)
    if before is not None:
        return MessageQuery(session_id, rows_limit, cursor, None)
    return MessageQuery(session_id, rows_limit, None, cursor)


def _unknown_cursor(before: object, after: object) -> InvalidRecordError:
    name, value = ("after", after) if before is None else ("before", before)
    # Whatever it is was passed here, and the repr of some objects raises, that of a long int too.
    what = str.__repr__(value) if isinstance(value, str) else f"of type {type(value).__name__}"
    return InvalidRecordError(name, f"there is no message {what} in the session")
