"""Mistakes where writes of many callers share one transaction and one round trip."""

from __future__ import annotations

import time

import psycopg

from director_db import queue
from director_db_postgres.group import Group
from gallery.broken import ROUND_TRIP
from gallery.postgres.broken import BrokenPostgresDB

# More than a clause waits for anything, in seconds.
_LONGEST = 180


def _writes(batch):
    return [call.operation for call in batch.calls]


class AnswersInTheOrderOfTheCallers(BrokenPostgresDB, rule="LIF-3", level="concurrent"):
    """Sessions are locked in an order of their own, and answers given out in the callers'."""

    by = "calls_that_fail_do_no_harm"

    @classmethod
    def break_code(cls):
        send = Group._send

        def broken(self, connection, batch, attempt, writes):
            results = send(self, connection, batch, attempt, writes)
            writes[:] = _writes(batch)
            return results

        Group._send = broken


class OneFailsForAll(BrokenPostgresDB, rule="LIF-3", level="concurrent"):
    """Where one of those who share a transaction finds no session, all are told that."""

    by = "calls_that_fail_do_no_harm"

    @classmethod
    def break_code(cls):
        send = Group._send

        def broken(self, connection, batch, attempt, writes):
            results = send(self, connection, batch, attempt, writes)
            return results if all(results) else [False] * len(results)

        Group._send = broken


class TheFirstResultForAll(BrokenPostgresDB, rule="LIF-3", level="concurrent"):
    """One result for all that share a transaction: that of its first statement."""

    by = "calls_that_fail_do_no_harm"

    @classmethod
    def break_code(cls):
        send = Group._send

        def broken(self, connection, batch, attempt, writes):
            results = send(self, connection, batch, attempt, writes)
            return [results[0] for _ in results]

        Group._send = broken


class LostTogetherIsStored(BrokenPostgresDB, rule="LIF-3", level="durable"):
    """A batch whose answer was lost has been sent, and so it is told as stored."""

    by = "cut_connections"
    own_server = True

    @classmethod
    def break_code(cls):
        part = Group._part

        def broken(self, batch, attempt, error):
            part(self, batch, attempt, error)
            for write in _writes(batch):
                if write.call.in_doubt and isinstance(error, psycopg.Error):
                    write.result = write.is_done = True

        Group._part = broken


class WokenBeforeTheAnswer(BrokenPostgresDB, rule="LIF-1", level="concurrent"):
    """The leader wakes its followers when it sends their writes, and waits for the answer then."""

    by = "any_number_of_calls"

    @classmethod
    def break_code(cls):
        run = Group.run

        def broken(self, batch, deadline):
            while batch.take() is not None:
                pass
            for call in batch.calls:
                if call is not batch.own:
                    call.operation.result = call.operation.is_done = call.settled = True
                    call.awaken()
            time.sleep(30 * ROUND_TRIP)
            run(self, batch, deadline)

        Group.run = broken


class LeaderWaitsForTheLock(BrokenPostgresDB, rule="LIF-3", level="durable"):
    """What is sent together is sent again until it works; one locked session holds up all."""

    by = "hold_up_nobody"

    @classmethod
    def break_code(cls):
        queue._LONG = float("inf")
        run = Group.run

        def broken(self, batch, deadline):
            deadline = time.monotonic() + _LONGEST
            run(self, batch, deadline)
            while time.monotonic() < deadline and not all(one.is_done for one in _writes(batch)):
                run(self, batch, deadline)

        Group.run = broken
