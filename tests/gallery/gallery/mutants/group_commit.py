"""Mistakes of the SQLite backend's writer, where many callers share one transaction."""

from __future__ import annotations

import time

from director_db.queue import Queue
from director_db_sqlite import writer
from director_db_sqlite.upsert import Upsert
from director_db_sqlite.writer import Writer
from gallery.broken import ROUND_TRIP, BrokenDB


class WokenBeforeTheCommit(BrokenDB, rule="LIF-2", level="durable"):
    """The leader wakes its followers when their work is done, and commits then."""

    @classmethod
    def break_code(cls):
        commit = Writer._commit

        def broken(self, connection, batch):
            for call in batch.calls[1:]:
                call.settled = True
                call.awaken()
            time.sleep(2 * ROUND_TRIP)
            commit(self, connection, batch)

        Writer._commit = broken


class LeaderDoesNotWait(BrokenDB, rule="LIF-1", level="concurrent"):
    """Followers are told of success whatever became of the commit, and before it."""

    @classmethod
    def break_code(cls):
        commit = Writer._commit

        def broken(self, connection, batch):
            self.queue._settle(batch)
            time.sleep(ROUND_TRIP)
            self.queue._batch = batch
            commit(self, connection, batch)

        Writer._commit = broken


class FollowerRollsBackTheLeader(BrokenDB, rule="LIF-3", level="concurrent"):
    """What fails rolls back all that is in the transaction, and the others are told of success."""

    class _NothingDoneError(Exception):
        """An operation found nothing to do, as the session is missing."""

    @classmethod
    def break_code(cls):
        run = Queue.run

        def broken_run(self, operation, size, deadline):
            def strict(connection):
                result = operation(connection)
                if result is False:
                    raise cls._NothingDoneError
                return result

            try:
                return run(self, strict, size, deadline)
            except cls._NothingDoneError:
                return False

        def broken_undo(self, connection):
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            return True

        Queue.run = broken_run
        Writer._undo = broken_undo


class FollowersGetTheLeadersResult(BrokenDB, rule="LIF-1", level="concurrent"):
    """One result for all that share a transaction."""

    @classmethod
    def break_code(cls):
        settle = Queue._settle

        def broken(self, batch):
            for call in batch.calls:
                call.result = batch.calls[0].result
            settle(self, batch)

        Queue._settle = broken


class OneOfABatchGivesTheTimeOfAll(BrokenDB, rule="LIF-3", level="concurrent"):
    """As soon as one of those who share a statement gives its time of creation, all do."""

    @classmethod
    def break_code(cls):
        writer._FEWEST = 2  # On a fast disk few come together.
        together = Upsert.together

        def broken(connection, upserts):
            given = any(upsert.row.created_at_given for upsert in upserts)
            rows = [upsert.row._replace(created_at_given=given) for upsert in upserts]
            ids = [upsert.session_id for upsert in upserts]
            return together(connection, [*map(Upsert, ids, rows)])

        Upsert.together = staticmethod(broken)


class NobodyOfABatchMissesTheSession(BrokenDB, rule="LIF-3", level="concurrent"):
    """Those who share a statement are told that they are stored, also without a session."""

    @classmethod
    def break_code(cls):
        writer._FEWEST = 2
        together = Upsert.together

        def broken(connection, upserts):
            asked = "SELECT count(*) FROM director_sessions WHERE session_id = ?"
            there = [
                upsert
                for upsert in upserts
                if connection.execute(asked, [upsert.session_id]).fetchone() == (1,)
            ]
            return not there or together(connection, there)

        Upsert.together = staticmethod(broken)
