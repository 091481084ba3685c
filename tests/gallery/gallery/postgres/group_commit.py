"""Mistakes where messages of many callers share one transaction and one round trip."""

from __future__ import annotations

import math
import threading
import time

from director_db_postgres import group
from director_db_postgres.call import Call
from director_db_postgres.connections import Connection
from director_db_postgres.database import Database
from director_db_postgres.group import Group
from gallery.broken import ROUND_TRIP
from gallery.postgres.broken import BrokenPostgresDB, edit_sql


def _always_together():
    """Let callers queue also while connections are free, so that a few make batches."""
    Group.takes = lambda self, _row, **_: threading.get_ident() != self.queue.main_thread


class AllOfABatchAreStored(BrokenPostgresDB, rule="LIF-3", level="concurrent"):
    """A batch that was committed is told as stored, with those whose session is missing."""

    by = "an_outcome_of_its_own"

    @classmethod
    def break_code(cls):
        _always_together()
        send = Group._send

        def broken(self, connection, batch):
            send(self, connection, batch)
            for queued in batch.calls:
                queued.operation.is_stored = True

        Group._send = broken


class LeftOutMeansNoSession(BrokenPostgresDB, rule="MSG-1", level="concurrent"):
    """Whoever was left out of a batch has no session; it may also be locked for a moment."""

    by = "of_first_writes_of_one_id"

    @classmethod
    def break_code(cls):
        _always_together()

        def broken(self, operation, session_id, row):
            call = Call(self._settings, session_id)
            if self._group.takes(row, waits=not self._turns.has_place(session_id)):
                return self._group.store(call, row)
            return self._run(operation, call)

        Database.write_message = broken


class OneGivesTheTimeOfAll(BrokenPostgresDB, rule="LIF-3", level="concurrent"):
    """Where one message of a batch gives its created_at, those of all others are replaced."""

    by = "an_outcome_of_its_own"

    @classmethod
    def break_code(cls):
        _always_together()
        edit_sql(
            "UPSERT_TOGETHER",
            ("(excluded.session_id, excluded.msg_id)", "0"),
            ("IN (SELECT * FROM", "< (SELECT count(*) FROM"),
        )


class NobodyGivesATime(BrokenPostgresDB, rule="LIF-3", level="concurrent"):
    """In a batch the stored created_at stays, also where a message gives another."""

    by = "an_outcome_of_its_own"

    @classmethod
    def break_code(cls):
        _always_together()
        edit_sql("UPSERT_TOGETHER", ("THEN excluded.created_at", "THEN stored.created_at"))


class WokenBeforeTheAnswer(BrokenPostgresDB, rule="LIF-1", level="concurrent"):
    """The leader wakes its followers when it sends their messages, before there is an answer."""

    by = "any_number_of_calls"

    @classmethod
    def break_code(cls):
        _always_together()
        run = Group.run

        def broken(self, batch, deadline):
            time.sleep(100 * ROUND_TRIP)  # The others come.
            while batch.take() is not None:
                pass
            for call in batch.calls:
                if call is not batch._own:
                    call.result = call.settled = True
                    call.awaken()
            time.sleep(300 * ROUND_TRIP)
            run(self, batch, deadline)

        Group.run = broken


class AFailedBatchIsStored(BrokenPostgresDB, rule="LIF-6", level="durable"):
    """Somebody else has sent it, and so it is told as stored, whatever became of that."""

    by = "database_that_is_read_only"

    @classmethod
    def break_code(cls):
        _always_together()
        part = Group._part

        def broken(self, batch, attempt, error):
            part(self, batch, attempt, error)
            for queued in batch.calls:
                queued.operation.is_stored = True

        Group._part = broken


class ABatchWaitsForLocks(BrokenPostgresDB, rule="LIF-3", level="durable"):
    """What is sent together waits for all of its sessions; a locked one holds up the others."""

    by = "hold_up_nobody"

    @classmethod
    def break_code(cls):
        _always_together()
        group.LONG = math.inf
        group._LOCK_WAIT = "0"
        edit_sql("COUNT_TOGETHER", (" SKIP LOCKED", ""))
        # As in AllWaitOnTheServer.
        Connection.find_out = lambda self, connector: None
