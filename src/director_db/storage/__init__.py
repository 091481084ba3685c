"""What a backend writes: the storage operations, and nothing else.

`BaseDB` stands on them. It checks arguments, fills defaults, encodes payloads and decodes rows; a
storage operation gets clean rows, described in `director_db.rows`, and moves them in and out of one
database. Nineteen have to be written: six for the life of an instance, five for sessions, five for
messages, three for contexts; and seven for contract 1.1, six of them in `storage.history`.
The others have a default. What holds for all of them:

**Arguments are clean.** Ids have neither U+0000 nor lone surrogates. `session_id` and `msg_id` have
1 to 255 characters; the others have 0 to 255, or are None, which is not "" (`msg_type` never is).
Times are int seconds that fit 64 bits, payloads are text of at most 64 MiB of UTF-8 without U+0000.
Store it as it is, leading tab included. Ids are compared code point by code point.

**One operation is one transaction.** It has happened wholly and durably when it returns, and not at
all if it raises. In some databases (MySQL, Oracle) DDL commits: it ends the transaction that it
stands in. There, create tables in a transaction of their own, before the operation's, in steps that
can be repeated, and store the version of the schema last.

**Threads and processes.** Operations run at once in any number of threads, instances and processes.
None may see another half done.

**Locks.** Every write to the messages or the context of a session locks the session's row first,
and then writes. So a writer and `_delete_session` come one after the other, the next place of a
message is drawn by one writer at a time, and nobody deadlocks.

**Errors.** Let the driver's exceptions pass; `BaseDB` hands them to `_translate`. "Not there" is an
answer, as described at each operation, and no exception.

**A lost connection.** When it breaks, whoever sent a COMMIT does not know whether it took effect.
The driver's exception does not say whether one was sent, so `_translate` alone cannot know. Either
the place that sends COMMIT notes it, or the answer for every broken connection is
``BackendUnavailableError(..., maybe_applied=True)``. To leave `maybe_applied` out promises that
nothing was stored. An operation may be tried again on a new connection only where its result is the
same if the first try took effect.

An example, one operation with `sqlite3`; ``docs/writing-a-backend.md`` has a whole backend:

>>> import sqlite3
>>> from director_db.rows import NO_CONTEXT, ContextRow, SaveOutcome
>>> class Contexts:
...     def __init__(self, connection):
...         self.connection = connection
...
...     def _save_context(self, row, *, if_version):
...         run = self.connection.execute
...         with self.connection:  # commits, or rolls back what raises
...             run("BEGIN IMMEDIATE")  # in SQLite, the lock of all rows
...             if not run("SELECT 1 FROM session WHERE id = ?", row[:1]).fetchone():
...                 return SaveOutcome.NO_SESSION
...             found = run("SELECT version FROM context WHERE id = ?", row[:1]).fetchone()
...             stored = NO_CONTEXT if found is None else found[0]
...             if if_version is not None and if_version != stored:
...                 return SaveOutcome.CONFLICT
...             run(
...                 "INSERT INTO context VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (id) DO UPDATE"
...                 " SET context = ?2, version = ?3, updated_at = ?5, metadata = ?6,"
...                 " created_at = iif(?7, ?4, created_at)",
...                 row,
...             )
...             run("UPDATE session SET updated_at = max(updated_at, ?5) WHERE id = ?1", row[:5])
...         return SaveOutcome.SAVED
>>> contexts = Contexts(sqlite3.connect(":memory:"))
>>> _ = contexts.connection.executescript('''
...     CREATE TABLE session (id TEXT PRIMARY KEY, updated_at INTEGER);
...     CREATE TABLE context (
...         id TEXT PRIMARY KEY REFERENCES session ON DELETE CASCADE,
...         context TEXT, version INTEGER, created_at INTEGER, updated_at INTEGER, metadata TEXT
...     );
...     INSERT INTO session VALUES ('s1', 100);
... ''')
>>> row = ContextRow("s1", "[1]", 7, 200, 200, "{}", created_at_given=False)
>>> contexts._save_context(row, if_version=NO_CONTEXT)
<SaveOutcome.SAVED: 'saved'>
>>> contexts._save_context(row._replace(context="[1, 2]", version=8), if_version=5)
<SaveOutcome.CONFLICT: 'another version is stored'>
>>> contexts._save_context(row._replace(session_id="s2"), if_version=5)
<SaveOutcome.NO_SESSION: 'no session'>
>>> contexts.connection.close()
"""
# ruff: noqa: ARG002 - arguments are for those who write an operation

from __future__ import annotations

from abc import abstractmethod
from math import inf
from typing import TYPE_CHECKING, ClassVar

from director_db.earlier import not_in_contract
from director_db.errors import ConfigurationError
from director_db.rows import MessageQuery, StoredMessage
from director_db.storage.history import HistoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from director_db.errors import DirectorDBError
    from director_db.records import Distribution, Health
    from director_db.rows import (
        Appended,
        ContextAppend,
        ContextChange,
        ContextRow,
        Decide,
        DeletedComponents,
        MessageColumns,
        MessageRow,
        SaveOutcome,
        SessionChanges,
        SessionQuery,
        SessionRow,
        StoredContext,
    )


class Storage(HistoryStorage):
    """The storage operations of one database; a backend is a subclass of `BaseDB`.

    The module's docstring says what holds for all operations.
    """

    db_type: ClassVar[str]
    """The DB type; ``class DuckDB(BaseDB, db_type="duck", contract="1.1")`` sets it."""

    _contract: ClassVar[str] = "1.0"
    """The version of the contract that it is written for: the class keyword `contract` sets it.

    A backend of an earlier one goes on: its operations get the rows of that version, and what came
    later raises `ConfigurationError`. New in 1.1: the `user_id` of `SessionRow`, `SessionChanges`
    and `SessionQuery`, what `_insert_session` returns, the `revision` of `StoredMessage`, the
    `conv_id` and `msg_type` of `MessageQuery`, and the operations that say so.
    """

    incremental_contexts: ClassVar[bool] = False
    """Whether `_save_context_change` and `_append_context` are written.

    Without them each save stores the whole context as one text, and an append reads it first.
    """

    _fork_ready: bool
    """For `_abandon`: whether no operation was in flight when the process forked."""

    _owner: object
    """A token of the instance, by which what it saved is remembered."""

    _patience: float = inf
    """For how many seconds a call waits for a lock at most, where a setting of its says so."""

    # --- Life -----------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def _settings(cls, environ: Mapping[str, str], url: str | None) -> dict[str, Hashable]:
        """Return the constructor's keyword arguments that the environment, or a URL, asks for.

        `load_db` shares one instance among calls whose settings are equal, and the class without
        any argument is built with them. No I/O.

        Args:
            environ: the environment.
            url: None, or a URL whose scheme is one of the backend's, without the driver that may
                follow a ``+``.

        Returns:
            A dict; `director_db.settings.Settings` is one that also says where each comes from.

        Raises:
            ConfigurationError: a setting is malformed; the message names it, and no password.
        """

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the data is, for people: a path or a URL with the password masked. No I/O."""

    @abstractmethod
    def _check(self) -> Health:
        """Connect, create what is missing, and describe the database (LIF-4).

        Every first operation creates what is missing, as this one does, and upgrades what an
        earlier release of the backend has made; `director_db.schema_version` helps. Many processes
        may do so at once, and one may have died in the middle.

        Raises:
            SchemaError: the tables are not ours, or of another release; nothing is changed.
        """

    @abstractmethod
    def _close(self) -> None:
        """Close every connection, with no operation in flight; a later one may open new ones."""

    @abstractmethod
    def _abandon(self) -> None:
        """Forget every connection, lock and thread: this is a forked child (LIF-1).

        Inherited connections must be neither used nor closed nor garbage-collected here; the next
        operation opens new ones. Where `_fork_ready` is False, an operation was in flight, and
        `_prepare_fork` was not called.
        """

    @abstractmethod
    def _translate(self, error: Exception) -> DirectorDBError | None:
        """Return our error for a driver's exception, by its code; None if it is not a driver's.

        Called with whatever an operation raised. A lost connection during a write is
        `BackendUnavailableError` with ``maybe_applied=True``, unless it is known that no COMMIT was
        sent; see the module's docstring. ``retryable=True`` where the same call may succeed soon
        without anybody mending anything. No password in the message (LIF-6).
        """

    def _prepare_fork(self) -> None:
        """Get ready for a fork of this process, with no operation in flight."""

    def _renew_locks(self) -> None:
        """Make every lock anew, as gevent has replaced those of the standard library.

        No operation is in flight. Backends that make locks together with connections need not write
        it: the connections are closed, and the next operation opens new ones.
        """
        self._close()

    def _distribute(self, shards: int | None) -> Distribution:
        """Spread the tables over several servers, each session on one of them.

        Optional. `shards` is at least 1; None leaves it to the backend.
        """
        message = f"A database of type {self.db_type} is on one machine; it cannot be distributed."
        raise ConfigurationError(message)

    # --- Sessions -------------------------------------------------------------------------------

    @abstractmethod
    def _insert_session(self, row: SessionRow) -> bool:
        """Insert a session; one that exists already stays as it is (SES-1, SES-2).

        Of two inserts of one id at once, one wins and neither raises. True for the one that
        inserted. A backend that tries again after a lost connection answers True also where it
        finds such a row.
        """

    @abstractmethod
    def _select_session(self, session_id: str) -> SessionRow | None:
        """Return a session, None if there is none (SES-3)."""

    @abstractmethod
    def _select_sessions(self, query: SessionQuery) -> Sequence[SessionRow]:
        """Return a page of sessions (SES-4).

        By ``(updated_at, created_at, session_id)``, highest first, ids by code point. With
        `query.before` only rows below that triple; with `query.video_id`, `query.collection_id` or
        `query.user_id` only rows with exactly that value; at most `query.limit` rows, None for all.
        """

    @abstractmethod
    def _update_session(self, session_id: str, changes: SessionChanges) -> bool:
        """Change the columns that are not `UNSET`; False if there is no such session (SES-5)."""

    def _change_session(self, session_id: str, decide: Decide) -> SaveOutcome:
        """Store what `decide` says of a session's row, in one step (SES-8). New in contract 1.1.

        It is stored only on top of the metadata, video, collection and user that it was asked of:
        under the row's lock, or by comparing them. `CONFLICT` if it said None, after a lost
        connection `IN_DOUBT`, as the first try may be why; else `SAVED`, or `NO_SESSION`.
        """
        raise not_in_contract(self, "if_version or merge")

    @abstractmethod
    def _delete_session(self, session_id: str) -> DeletedComponents:
        """Delete a session with its messages and its context; return which were there (DEL-2).

        Of two deletes at once, one finds what there was and the other nothing. A write that is in
        flight comes before and is deleted too, or after and finds no session.
        """

    # --- Messages -------------------------------------------------------------------------------

    @abstractmethod
    def _upsert_messages(self, session_id: str, rows: Sequence[MessageRow]) -> bool:
        """Insert or update one message or more; False if there is no such session (MSG-1 to MSG-7).

        As if one row after another: an id that comes twice has the place of the first row and the
        fields of the last. A new message takes the next place in its session, a known one keeps its
        place; `created_at` of a known one is replaced only by a row with `created_at_given`. The
        session's `updated_at` becomes the latest of itself and the rows' (SES-6).

        Writers of one session at once must not draw the same place. A place becomes visible no
        later than any higher one, or a reader that pages by `after` misses a message.
        """

    def _upsert_together(
        self, messages: Sequence[tuple[str, MessageRow]]
    ) -> Sequence[bool | Callable[[], bool]]:
        """Store messages of several callers, each as `_upsert_messages` does that of one.

        Optional: for coroutines that store at once, in one thread and in as few transactions as
        can be. One that fails takes no other with it, and whatever holds one up, as a lock of its
        session does, holds up no other. It sees the context variables of none of the callers, and
        raises nothing once anything may be stored.

        Args:
            messages: session and row of each. A message may come twice.

        Returns:
            For each True if it is stored. False if nothing was done: it goes by itself, as if it
            had just come. Else what is left to do: called once, in another thread, that answers or
            raises as `_upsert_messages` does.
        """
        return [False] * len(messages)

    @abstractmethod
    def _select_messages(self, query: MessageQuery) -> Sequence[MessageColumns] | None:
        """Return a page of messages, oldest place first (MSG-6).

        Returns:
            Tuples with the columns of `StoredMessage`. Empty if there is no such session. None if
            the session exists and the message of `query.before` or `query.after` is not in it.
        """

    def _select_first_messages(
        self, session_id: str, limit: int, conv_id: str | None = None, msg_type: str | None = None
    ) -> Sequence[MessageColumns]:
        """Return the first messages of a session, oldest place first, `limit` at most (MSG-10).

        Optional: without it, an iteration reads its session once more, back from its end. New in
        contract 1.1: with `conv_id` or `msg_type`, the first that have it. Empty if there is none.
        """
        query = MessageQuery(session_id, limit, None, None, conv_id, msg_type)
        first = self._select_messages(query) or ()
        while len(first) == limit:
            cursor = StoredMessage._make(first[0]).msg_id
            before = self._select_messages(query._replace(before=cursor))
            if before is None:  # The cursor was deleted meanwhile.
                whole = self._select_messages(query._replace(limit=None)) or ()
                return whole[:limit]
            if not before:
                break
            first = [*before, *first][:limit]
        return first

    @abstractmethod
    def _select_message(self, session_id: str, msg_id: str) -> MessageColumns | None:
        """Return a message, None if it is not there (MSG-9)."""

    @abstractmethod
    def _delete_message(self, session_id: str, msg_id: str) -> bool:
        """Delete a message; True if it was there. The others keep their places (MSG-9)."""

    @abstractmethod
    def _delete_messages(self, session_id: str) -> bool:
        """Delete all messages of a session; True if there was one (DEL-1)."""

    # --- Contexts -------------------------------------------------------------------------------

    @abstractmethod
    def _save_context(self, row: ContextRow, *, if_version: int | None) -> SaveOutcome:
        """Insert or replace the context of a session (CTX-1, CTX-3).

        `created_at` of a stored context is replaced only by a row with `created_at_given`. The
        session's `updated_at` becomes the later of itself and the row's.

        Args:
            row: the context; `row.version` is stored with it.
            if_version: save only on top of this version, `NO_CONTEXT` meaning that none is stored;
                None saves on top of any. Of several saves on top of one version, one wins.

        Returns:
            `NO_SESSION` if there is no such session, whatever the version; else `CONFLICT` if
            another version is stored; else `SAVED`. Only `SAVED` changes anything. A backend that
            tries again after a lost connection answers `SAVED` where it finds `row.version`, and
            `IN_DOUBT` in place of `CONFLICT`: the first try may have been stored and replaced.
        """

    def _save_context_change(self, change: ContextChange) -> SaveOutcome:
        """Save a context that is kept item by item; the answers are those of `_save_context`.

        Optional: written by backends that set `incremental_contexts`. Their `_save_context` deletes
        the items of the context that it replaces.
        """
        raise NotImplementedError

    def _append_context(self, append: ContextAppend) -> Appended:
        """Add items to the end of a context's list without reading it, or start a context (CTX-4).

        The outcome is `CONFLICT`, and nothing is changed, if the stored `list_key` is another one,
        or the whole would be longer than `MAX_PAYLOAD_BYTES`. `created_at` and the metadata of a
        context that exists stay. Appends at once all happen. Optional, as `_save_context_change`.
        """
        raise NotImplementedError

    @abstractmethod
    def _select_context(self, session_id: str) -> StoredContext | None:
        """Return the context of a session, of one moment; None if there is none (CTX-2)."""

    def _select_context_version(self, session_id: str) -> int | None:
        """Return a context's version, None if there is none. Optional; asked after a `CONFLICT`."""
        row = self._select_context(session_id)
        return None if row is None else row.version

    @abstractmethod
    def _delete_context(self, session_id: str) -> bool:
        """Delete the context of a session; True if there was one (DEL-1)."""
