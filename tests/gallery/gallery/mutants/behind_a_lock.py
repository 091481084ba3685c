"""Races that a lock in the process hides from its own threads: only another process sees them."""

from __future__ import annotations

import os
import threading

from director_db.storage import Storage
from gallery.broken import BrokenDB
from gallery.mutants import concurrency as races
from gallery.mutants.concurrency import travel

VERBS = tuple(
    f"_{verb}_"
    for verb in (
        *("insert", "select", "update", "upsert", "delete", "save", "append"),
        *("pop", "replace", "copy"),
    )
)
OPERATIONS = [name for name in dir(Storage) if name.startswith(VERBS)]


class OneAtATime:
    """To stand before a mutant: of all its handles in a process, one does one thing at a time."""

    lock = threading.RLock()


def _one_at_a_time(name):
    def operation(self, *args, **kwargs):
        with OneAtATime.lock:
            return getattr(super(OneAtATime, self), name)(*args, **kwargs)

    return operation


for _name in OPERATIONS:
    setattr(OneAtATime, _name, _one_at_a_time(_name))


def _renew():
    # Who held it before a fork is not in the child.
    OneAtATime.lock = threading.RLock()


os.register_at_fork(after_in_child=_renew)


class LockedMessagesLookedUpFirst(
    OneAtATime, races.MessagesLookedUpFirst, rule="MSG-2", level="concurrent"
):
    """`created_at` is read and written back, one thread at a time."""


class LockedActivityReadThenWritten(
    OneAtATime, races.ActivityReadThenWritten, rule="SES-6", level="concurrent"
):
    """The larger time is found in Python, one thread at a time."""


class LockedGlobalSequence(OneAtATime, races.GlobalSequence, rule="MSG-6", level="concurrent"):
    """The place is taken in a transaction of its own, one thread at a time."""


class LockedBulkInTwoTransactions(OneAtATime, BrokenDB, rule="MSG-7", level="concurrent"):
    """The first message of a bulk commits by itself, and no thread looks in between."""

    def _upsert_messages(self, session_id, rows):
        with self.lock:
            found = super()._upsert_messages(session_id, rows[:1])
            if found and rows[1:]:
                travel()
                found = super()._upsert_messages(session_id, rows[1:])
            return found


class BulkInChunks(BrokenDB, rule="MSG-7", level="concurrent"):
    """A bulk is stored by the hundred, as a driver likes it: short ones are whole."""

    def _upsert_messages(self, session_id, rows):
        found = True
        for start in range(0, len(rows), 100):
            found = super()._upsert_messages(session_id, rows[start : start + 100])
        return found


class LockedContextGoneForAMoment(
    OneAtATime, races.ContextGoneForAMoment, rule="CTX-3", level="concurrent"
):
    """DELETE, then INSERT, in two transactions, and no thread looks in between."""


class LockedDeleteInThreeTransactions(
    OneAtATime, races.DeleteInThreeTransactions, rule="DEL-2", level="concurrent"
):
    """Messages, context, session by themselves, and no thread looks in between."""


class LockedBothDeletesFindIt(
    OneAtATime, races.BothDeletesFindIt, rule="DEL-2", level="concurrent"
):
    """Look what is there, then delete, one thread at a time."""


class LockedBothDeletesOfAPartFindIt(OneAtATime, BrokenDB, rule="DEL-1", level="concurrent"):
    """Look for the context, then delete it, one thread at a time."""

    def _delete_context(self, session_id):
        with self.lock:
            found = self._select_context(session_id) is not None
            travel()
            super()._delete_context(session_id)
            return found
