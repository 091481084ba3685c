"""Mistakes of the SQLite backend's writer, where many callers share one transaction."""

from __future__ import annotations

import time

from director_db_sqlite.writer import Writer
from gallery.broken import ROUND_TRIP, BrokenDB


class WokenBeforeTheCommit(BrokenDB, rule="LIF-2", level="durable"):
    """The leader wakes its followers when their work is done, and commits then."""

    @classmethod
    def break_code(cls):
        commit = Writer._commit

        def broken(self, connection):
            for call in self._batch[1:]:
                call.settled = True
                call.wake.release()
            time.sleep(2 * ROUND_TRIP)
            commit(self, connection)

        Writer._commit = broken


class LeaderDoesNotWait(BrokenDB, rule="LIF-1", level="concurrent"):
    """Followers are told of success whatever became of the commit, and before it."""

    @classmethod
    def break_code(cls):
        commit = Writer._commit

        def broken(self, connection):
            batch = self._batch
            self._settle()
            time.sleep(ROUND_TRIP)
            self._batch = batch
            commit(self, connection)

        Writer._commit = broken


class FollowerRollsBackTheLeader(BrokenDB, rule="LIF-3", level="concurrent"):
    """What fails rolls back all that is in the transaction, and the others are told of success."""

    class _NothingDoneError(Exception):
        """An operation found nothing to do, as the session is missing."""

    @classmethod
    def break_code(cls):
        write = Writer.write

        def broken_write(self, operation, size, deadline):
            def strict(connection):
                result = operation(connection)
                if result is False:
                    raise cls._NothingDoneError
                return result

            try:
                return write(self, strict, size, deadline)
            except cls._NothingDoneError:
                return False

        def broken_undo(self, connection):
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            return True

        Writer.write = broken_write
        Writer._undo = broken_undo


class FollowersGetTheLeadersResult(BrokenDB, rule="LIF-1", level="concurrent"):
    """One result for all that share a transaction."""

    @classmethod
    def break_code(cls):
        settle = Writer._settle

        def broken(self):
            for call in self._batch:
                call.result = self._batch[0].result
            settle(self)

        Writer._settle = broken
