"""What takes a second handle, thread or process to see: races, caches and forks.

Where two statements should have been one, a round trip lies between them, as to a server.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
import time

from director_db import BackendUnavailableError
from director_db.payload import decode_payload, encode_payload
from director_db.rows import UNSET, DeletedComponents, SaveOutcome
from gallery.broken import ROUND_TRIP, BrokenDB
from gallery.mutants.context import WholeContexts
from gallery.mutants.messages import INSERT as INSERT_MESSAGE
from gallery.mutants.messages import TAKE_PLACE, UPDATE_ALL, OwnUpsert
from gallery.mutants.sessions import INSERT as INSERT_SESSION


def travel():
    """Let others run between two statements."""
    time.sleep(ROUND_TRIP)


# --- Visibility: LIF-1 --------------------------------------------------------------------------


class OneFileForEachHandle(BrokenDB, rule="LIF-1", level="concurrent"):
    """A private database for each handle, as ``:memory:`` is."""

    numbers = itertools.count()

    def __init__(self, db_path, **kwargs):
        super().__init__(f"{db_path}.{os.getpid()}.{next(self.numbers)}", **kwargs)


class OneFileForEachProcess(BrokenDB, rule="LIF-1", level="concurrent"):
    """A database that all handles of a process share, and no other process, as a shared cache."""

    def __init__(self, db_path, **kwargs):
        super().__init__(f"{db_path}.{os.getpid()}", **kwargs)


class CachedSessions(BrokenDB, rule="LIF-1", level="concurrent"):
    """What was read is kept until this handle itself writes."""

    def get_session(self, session_id):
        cached = self.__dict__.setdefault("_cached", {})
        if session_id not in cached or not cached[session_id]:
            cached[session_id] = super().get_session(session_id)
        return dict(cached[session_id])

    def __getattribute__(self, name):
        if name.startswith(("create_", "update_", "add_", "append_", "delete_")):
            self.__dict__.pop("_cached", None)
        return super().__getattribute__(name)


class CachedConversations(BrokenDB, rule="LIF-1", level="concurrent"):
    """A page that was read is kept for half a second, unless this handle writes."""

    def _select_messages(self, query):
        cached = self.__dict__.setdefault("_pages", {})
        until, rows = cached.get(query, (0, None))
        if time.monotonic() >= until or not rows:
            rows = super()._select_messages(query)
            cached[query] = time.monotonic() + 0.5, rows
        return rows

    def _upsert_messages(self, session_id, rows):
        try:
            return super()._upsert_messages(session_id, rows)
        finally:
            self.__dict__.pop("_pages", None)

    def _delete_message(self, session_id, msg_id):
        self.__dict__.pop("_pages", None)
        return super()._delete_message(session_id, msg_id)

    def _delete_messages(self, session_id):
        self.__dict__.pop("_pages", None)
        return super()._delete_messages(session_id)

    def _delete_session(self, session_id):
        self.__dict__.pop("_pages", None)
        return super()._delete_session(session_id)


class CachedContexts(BrokenDB, rule="LIF-1", level="concurrent"):
    """What this handle stored it also answers, whatever others stored since."""

    incremental_contexts = False

    def _save_context(self, row, *, if_version):
        outcome = super()._save_context(row, if_version=if_version)
        stored = super()._select_context(row.session_id)
        self.__dict__.setdefault("_contexts", {})[row.session_id] = stored
        return outcome

    def _select_context(self, session_id):
        cached = self.__dict__.setdefault("_contexts", {})
        return cached.get(session_id) or super()._select_context(session_id)

    def _delete_context(self, session_id):
        self.__dict__.pop("_contexts", None)
        return super()._delete_context(session_id)

    def _delete_session(self, session_id):
        self.__dict__.pop("_contexts", None)
        return super()._delete_session(session_id)


class OldSnapshot(BrokenDB, rule="LIF-1", level="concurrent"):
    """Reading holds a transaction open, and sees what was there when it began, until it writes."""

    def _select_sessions(self, query):
        snapshot = self.__dict__.setdefault("_snapshot", {})
        if query not in snapshot:
            snapshot[query] = super()._select_sessions(query)
        return snapshot[query]

    def _insert_session(self, row):
        self.__dict__.pop("_snapshot", None)
        return super()._insert_session(row)

    def _update_session(self, session_id, changes):
        self.__dict__.pop("_snapshot", None)
        return super()._update_session(session_id, changes)

    def _delete_session(self, session_id):
        self.__dict__.pop("_snapshot", None)
        return super()._delete_session(session_id)

    def _upsert_messages(self, session_id, rows):
        self.__dict__.pop("_snapshot", None)
        return super()._upsert_messages(session_id, rows)

    def _save_context(self, row, *, if_version):
        self.__dict__.pop("_snapshot", None)
        return super()._save_context(row, if_version=if_version)


class SecondHandleStartsEmpty(BrokenDB, rule="LIF-4", level="concurrent"):
    """First use creates the tables, after dropping what stands in their way."""

    _begun = False

    def _select_session(self, session_id):
        if not self._begun:
            self._begun = True
            self._execute("DELETE FROM director_sessions")
        return super()._select_session(session_id)

    def _insert_session(self, row):
        self._select_session("")
        return super()._insert_session(row)


# --- Threads and forks: LIF-1, LIF-5 ------------------------------------------------------------


class BoundToItsThread(BrokenDB, rule="LIF-1", level="concurrent"):
    """The driver lets a connection be used only by the thread that made it."""

    _owner = None

    def _check_thread(self):
        self._owner = self._owner or threading.get_ident()
        if threading.get_ident() != self._owner:
            message = "SQLite objects created in a thread can only be used in that same thread."
            raise BackendUnavailableError(message)

    def _upsert_messages(self, session_id, rows):
        self._check_thread()
        return super()._upsert_messages(session_id, rows)

    def _insert_session(self, row):
        self._check_thread()
        return super()._insert_session(row)


class ScratchOnTheInstance(BrokenDB, rule="LIF-1", level="concurrent"):
    """Parameters lie in an attribute between two steps, where another thread puts its own."""

    def _upsert_messages(self, session_id, rows):
        self._scratch = session_id, rows
        travel()
        return super()._upsert_messages(*self._scratch)


class ChildOfAForkIsClosed(BrokenDB, rule="LIF-1", level="concurrent"):
    """The child gets no connections of its own."""

    def _after_fork_in_child(self):
        super()._after_fork_in_child()
        self._gate.closed = True


class ChildOfAForkFails(BrokenDB, rule="LIF-1", level="concurrent"):
    """The child is told that its connection is not its own."""

    _pid = None

    def _select_session(self, session_id):
        self._pid = self._pid or os.getpid()
        if self._pid != os.getpid():
            message = "A connection cannot be used after a fork."
            raise BackendUnavailableError(message)
        return super()._select_session(session_id)

    def _upsert_messages(self, session_id, rows):
        self._select_session("")
        return super()._upsert_messages(session_id, rows)


class ForkClosesTheParent(BrokenDB, rule="LIF-1", level="concurrent"):
    """The connections are closed for the fork, and in the parent they stay so."""

    def _after_fork_in_parent(self):
        super()._after_fork_in_parent()
        self._gate.closed = True


class ChildStartsEmpty(BrokenDB, rule="LIF-1", level="concurrent"):
    """The child opens a database of its own."""

    def _after_fork_in_child(self):
        super()._after_fork_in_child()
        type(self).__init__(self, f"{self.db_path}.{os.getpid()}")


class ClosingOneClosesAll(BrokenDB, rule="LIF-5", level="concurrent"):
    """One pool for all handles of a process, and close() closes it."""

    handles = []  # noqa: RUF012 - of all instances

    def __init__(self, db_path, **kwargs):
        super().__init__(db_path, **kwargs)
        self.handles.append(self)

    def close(self):
        for handle in self.handles:
            handle._gate.closed = True
        super().close()


class ClosingDoesNotWait(BrokenDB, rule="LIF-5", level="concurrent"):
    """close() returns at once, and what was in flight is stored after it."""

    def close(self):
        self._gate.closed = True

    def _upsert_messages(self, session_id, rows):
        for _ in range(5):
            travel()
        return super()._upsert_messages(session_id, rows)


class ClosingCutsOff(BrokenDB, rule="LIF-5", level="concurrent"):
    """Connections are closed under the operations in flight, which fail."""

    def close(self):
        self._gate.closed = True

    def _upsert_messages(self, session_id, rows):
        for _ in range(5):
            travel()
            if self.closed:
                message = "The connection was closed during the operation."
                raise BackendUnavailableError(message)
        return super()._upsert_messages(session_id, rows)


# --- Busy: LIF-6, LIF-4 -------------------------------------------------------------------------


class BusyLeaks(BrokenDB, rule="LIF-6", level="durable"):
    """Nobody waits for the write lock, and what the driver says of it is handed on."""

    def _translate(self, error):
        return None

    def _upsert_messages(self, session_id, rows):
        self._select_session("")
        connection = sqlite3.connect(self.db_path, timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            travel()
            connection.execute("ROLLBACK")
        finally:
            connection.close()
        return super()._upsert_messages(session_id, rows)


class BusyIsUnavailable(BrokenDB, rule="LIF-1", level="concurrent"):
    """Nobody waits for the write lock: writers at once are told to try again."""

    _writing = threading.Lock()

    def _save_context(self, row, *, if_version):
        if not self._writing.acquire(blocking=False):
            message = "database is locked"
            raise BackendUnavailableError(message, retryable=True)
        try:
            travel()
            return super()._save_context(row, if_version=if_version)
        finally:
            self._writing.release()

    incremental_contexts = False


class FirstUseRaces(BrokenDB, rule="LIF-4", level="concurrent"):
    """CREATE TABLE after a look whether it is there: of two first uses at once, one fails."""

    _ready = False

    def _insert_session(self, row):
        if not self._ready:
            there = self._execute("SELECT 1 FROM sqlite_master WHERE name = 'gallery'")
            travel()
            if not there:
                self._execute("CREATE TABLE gallery (id)")
            self._ready = True
        return super()._insert_session(row)


# --- Sessions -----------------------------------------------------------------------------------


class RacyCreate(BrokenDB, rule="SES-2", level="concurrent"):
    """Look, then INSERT: of two creates at once, one meets the primary key."""

    def _insert_session(self, row):
        if self._select_session(row.session_id) is not None:
            return False
        travel()
        self._execute(INSERT_SESSION.format(or_what="", on_conflict=""), *row)
        return True


class LastCreateWins(BrokenDB, rule="SES-2", level="concurrent"):
    """Look, then upsert: of two creates at once, both take effect."""

    def _insert_session(self, row):
        if self._select_session(row.session_id) is not None:
            return False
        travel()
        statement = INSERT_SESSION.format(
            or_what="",
            on_conflict="""
                ON CONFLICT (session_id) DO UPDATE
                SET video_id = excluded.video_id, metadata = excluded.metadata
            """,
        )
        self._execute(statement, *row)
        return True


class EachFirstCreateWins(BrokenDB, rule="SES-2", level="concurrent"):
    """It looks, then inserts where there is none: of two at once, both say that they created."""

    def _insert_session(self, row):
        is_new = self._select_session(row.session_id) is None
        travel()
        super()._insert_session(row)
        return is_new


class UpdateOfTheWholeRow(BrokenDB, rule="SES-5", level="concurrent"):
    """Read, change, write all columns: of two updates of different fields, one is lost."""

    def _update_session(self, session_id, changes):
        found = self._select_session(session_id)
        if found is None:
            return False
        travel()
        changes = changes._replace(
            **{
                name: getattr(found, name)
                for name in ("video_id", "collection_id", "metadata")
                if getattr(changes, name) is UNSET
            }
        )
        return super()._update_session(session_id, changes)


class ActivityReadThenWritten(BrokenDB, rule="SES-6", level="concurrent"):
    """The larger time is found in Python: of two writes at once, the earlier may win."""

    def _upsert_messages(self, session_id, rows):
        before = self._select_session(session_id)
        if before is None:
            return False
        travel()
        found = super()._upsert_messages(session_id, rows)
        self._execute(
            "UPDATE director_sessions SET updated_at = ? WHERE session_id = ?",
            max([before.updated_at, *(row.updated_at for row in rows)]),
            session_id,
        )
        return found


# --- Messages -----------------------------------------------------------------------------------


class GlobalSequence(BrokenDB, rule="MSG-6", level="concurrent"):
    """The place is taken before the transaction, so a later one may be visible first."""

    def _upsert_messages(self, session_id, rows):
        places = [self._execute(TAKE_PLACE, row.updated_at, session_id) for row in rows]
        if not all(places):
            return False
        travel()
        statement = INSERT_MESSAGE.format(or_what="", on_conflict=UPDATE_ALL)
        try:
            self._run(
                lambda connection: connection.executemany(
                    statement,
                    [
                        (session_id, place[0][0], *row.columns)
                        for place, row in zip(places, rows, strict=True)
                    ],
                )
            )
        except sqlite3.IntegrityError:
            return False
        return True


class RacyFirstMessage(OwnUpsert, rule="MSG-1", level="concurrent"):
    """Look, then INSERT: of two first writes of one id at once, one meets the primary key."""

    def _upsert_messages(self, session_id, rows):
        new = {row.msg_id for row in rows if self._select_message(session_id, row.msg_id) is None}
        travel()

        def upsert(connection):
            there = connection.execute(
                "SELECT msg_id FROM director_conversations WHERE session_id = ?", (session_id,)
            )
            if new & {msg_id for (msg_id,) in there}:
                message = "UNIQUE constraint failed"
                raise sqlite3.IntegrityError(message)
            return [self._upsert(connection, session_id, row) for row in rows][-1]

        return self._run(upsert)


class MessagesLookedUpFirst(BrokenDB, rule="MSG-2", level="concurrent"):
    """`created_at` is read, and written back: of two updates at once, the older one comes back."""

    def _upsert_messages(self, session_id, rows):
        known = [self._select_message(session_id, row.msg_id) for row in rows]
        travel()
        rows = [
            row
            if row.created_at_given or stored is None
            else row._replace(created_at=stored.created_at, created_at_given=True)
            for row, stored in zip(rows, known, strict=True)
        ]
        return super()._upsert_messages(session_id, rows)


class SessionLookedUpBefore(BrokenDB, rule="DEL-2", level="concurrent"):
    """The session is looked up, and then the message stored: a delete in between leaves it."""

    def _upsert_messages(self, session_id, rows):
        if self._select_session(session_id) is None:
            return False
        travel()
        if super()._upsert_messages(session_id, rows):
            return True
        statement = INSERT_MESSAGE.format(or_what="", on_conflict=UPDATE_ALL)
        for place, row in enumerate(rows, 1_000_000):
            self._execute(statement, session_id, place, *row.columns, foreign_keys=False)
        return True


class RevivedByARace(BrokenDB, rule="DEL-2", level="concurrent"):
    """The session is looked up, and made anew by the write if it went meanwhile."""

    def _upsert_messages(self, session_id, rows):
        found = self._select_session(session_id)
        if found is None:
            return False
        travel()
        self._insert_session(found)
        return super()._upsert_messages(session_id, rows)


class BulkInManyTransactions(BrokenDB, rule="MSG-7", level="concurrent"):
    """Each message commits by itself, and readers see half a bulk."""

    def _upsert_messages(self, session_id, rows):
        found = True
        for row in rows:
            found = super()._upsert_messages(session_id, [row])
            if len(rows) > 1:
                travel()
        return found


class PlacesCountedByTheReader(BrokenDB, rule="MSG-3", level="concurrent"):
    """The next place is read and then taken: of two at once, both have it, and one is refused."""

    def _upsert_messages(self, session_id, rows):
        count = "SELECT max(seq) FROM director_conversations WHERE session_id = ?"
        before = self._execute(count, session_id)
        travel()
        if len(rows) == 1 and self._execute(count, session_id) != before:
            message = "UNIQUE constraint failed: director_conversations.seq"
            raise BackendUnavailableError(message)
        return super()._upsert_messages(session_id, rows)


# --- Context ------------------------------------------------------------------------------------


class AppendLosesOne(WholeContexts, rule="CTX-4", level="concurrent"):
    """Read, extend, save, and nobody looks whether it changed meanwhile."""

    def _save_context(self, row, *, if_version):
        if if_version is not None:
            travel()
        return super()._save_context(row, if_version=None)


class AppendItemByItem(BrokenDB, rule="CTX-4", level="concurrent"):
    """Items are appended one by one, so the blocks of two workers mix."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if not isinstance(messages, (list, tuple)) or not messages:
            return super().append_context_messages(session_id, messages, key=key)
        length = 0
        for message in messages:
            length = super().append_context_messages(session_id, [message], key=key)
            travel()
        return length


class AppendReadsItsLength(BrokenDB, rule="CTX-4", level="concurrent"):
    """The new length is read after the append, when others have appended as well."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        super().append_context_messages(session_id, messages, key=key)
        travel()
        context = self.get_context_messages(session_id)
        return len(context if key is None else context.get(key, []))


class AppendTriesOnce(WholeContexts, rule="CTX-4", level="concurrent"):
    """When another one was faster the caller is told, instead of trying again."""

    def _save_context(self, row, *, if_version):
        if if_version is not None:
            travel()
        outcome = super()._save_context(row, if_version=if_version)
        if outcome is SaveOutcome.CONFLICT:
            message = "The context changed meanwhile."
            raise BackendUnavailableError(message, retryable=True)
        return outcome


class ContextGoneForAMoment(WholeContexts, rule="CTX-3", level="concurrent"):
    """DELETE, then INSERT, in two transactions: readers see none in between."""

    def _save_context(self, row, *, if_version):
        if if_version is None:
            stored = self._select_context(row.session_id)
            if stored is not None:
                self._delete_context(row.session_id)
                travel()
                if not row.created_at_given:
                    row = row._replace(created_at=stored.created_at, created_at_given=True)
        return super()._save_context(row, if_version=if_version)


class _InTwoSteps(WholeContexts):
    """Saves a list or a dict of lists as `_first` says, and then whole."""

    def _save_context(self, row, *, if_version):
        if if_version is None:
            value = decode_payload(row.context)
            stored = self._select_context(row.session_id)
            if isinstance(value, list) and value and stored is not None:
                first, second = self._steps(decode_payload(stored.context), value)
                super()._save_context(
                    row._replace(context=encode_payload(first, "context")), if_version=None
                )
                travel()
                if second is not None:
                    stored = self._select_context(row.session_id)
                    if stored is not None:
                        value = second(decode_payload(stored.context))
                        row = row._replace(context=encode_payload(value, "context"))
        return super()._save_context(row, if_version=if_version)

    def _steps(self, old, new):
        """Return the list that is there for a moment, and how to complete it, None for whole."""
        raise NotImplementedError


class HalfAContext(_InTwoSteps, rule="CTX-3", level="concurrent"):
    """A long list is stored in two transactions, and readers see the first half."""

    def _steps(self, old, new):
        return new[: (len(new) + 1) // 2], None


class MixedContexts(_InTwoSteps, rule="CTX-3", level="concurrent"):
    """Items are written over one by one in two transactions: two savers leave a mixture."""

    def _steps(self, old, new):
        middle = (len(new) + 1) // 2
        old = old if isinstance(old, list) else []

        def complete(found):
            return (found[:middle] if isinstance(found, list) else new[:middle]) + new[middle:]

        return new[:middle] + old[middle : len(new)], complete


class RememberedContextIsNotSaved(WholeContexts, rule="CTX-3", level="concurrent"):
    """What this handle saved last is not saved again, though another one has saved since."""

    def _save_context(self, row, *, if_version):
        remembered = self.__dict__.setdefault("_remembered", {})
        if if_version is None and remembered.get(row.session_id) == row.context:
            stored = self._select_context(row.session_id)
            if stored is not None:
                row = row._replace(context=stored.context)
        remembered[row.session_id] = row.context
        return super()._save_context(row, if_version=if_version)


class RememberedContextIsContinued(WholeContexts, rule="LIF-1", level="concurrent"):
    """Only what is new since this handle's last save is added, to whatever is stored."""

    def _save_context(self, row, *, if_version):
        remembered = self.__dict__.setdefault("_remembered", {})
        last = remembered.get(row.session_id)
        remembered[row.session_id] = row.context
        stored = self._select_context(row.session_id)
        if if_version is None and last is not None and stored is not None:
            old, new, there = (decode_payload(text) for text in (last, row.context, stored.context))
            lists = all(isinstance(value, list) for value in (old, new, there))
            if lists and len(new) > len(old) and new[: len(old)] == old:
                row = row._replace(context=encode_payload(there + new[len(old) :], "context"))
        return super()._save_context(row, if_version=if_version)


class RememberedContextOfADeletedSession(WholeContexts, rule="CTX-3", level="concurrent"):
    """What is remembered outlives the session: a new one of that id gets only the difference."""

    def _save_context(self, row, *, if_version):
        remembered = self.__dict__.setdefault("_remembered", {})
        last = remembered.get(row.session_id)
        remembered[row.session_id] = row.context
        if if_version is None and last is not None:
            old, new = decode_payload(last), decode_payload(row.context)
            lists = isinstance(old, list) and isinstance(new, list)
            if lists and new[: len(old)] == old and self._select_context(row.session_id) is None:
                row = row._replace(context=encode_payload(new[len(old) :], "context"))
        return super()._save_context(row, if_version=if_version)


# --- Deleting -----------------------------------------------------------------------------------


class BothDeletesFindIt(BrokenDB, rule="DEL-2", level="concurrent"):
    """Look what is there, then delete: of two at once, both say that they did it."""

    def _delete_session(self, session_id):
        session = self._select_session(session_id)
        there = DeletedComponents(
            bool(
                self._execute(
                    "SELECT 1 FROM director_conversations WHERE session_id = ? LIMIT 1", session_id
                )
            ),
            self._select_context(session_id) is not None,
            session is not None,
        )
        travel()
        super()._delete_session(session_id)
        return there


class DeleteInThreeTransactions(BrokenDB, rule="DEL-2", level="concurrent"):
    """Messages, context, session: each in a transaction of its own."""

    def _delete_session(self, session_id):
        conversation = self._delete_messages(session_id)
        travel()
        context = self._delete_context(session_id)
        travel()
        return DeletedComponents(conversation, context, super()._delete_session(session_id).session)


class DeleteOfTheSessionFirst(BrokenDB, rule="DEL-2", level="concurrent"):
    """The session first, its parts in a second transaction: a new one of that id loses its own."""

    def _delete_session(self, session_id):
        found = super()._delete_session(session_id)
        travel()
        self._delete_messages(session_id)
        self._delete_context(session_id)
        return found


class BothDeletesOfAMessageFindIt(BrokenDB, rule="DEL-1", level="concurrent"):
    """Look, then delete: of two at once, both say that they did it."""

    def _delete_message(self, session_id, msg_id):
        found = self._select_message(session_id, msg_id) is not None
        travel()
        super()._delete_message(session_id, msg_id)
        return found
