"""How long a call waits, for an answer and for locks, and who else has to wait with it."""

from __future__ import annotations

import psycopg

from director_db_postgres import database
from director_db_postgres.call import Call
from director_db_postgres.connections import Connection
from director_db_postgres.waiting import Turn
from gallery.postgres.broken import BrokenPostgresDB

_ENDS = {"rule": "LIF-3", "level": "durable"}


class WaitsForAnAnswerForEver(BrokenPostgresDB, **_ENDS):
    """Nothing but the driver waits for the server, and that has all the time in the world."""

    by = "answers_nothing"
    own_server = True

    @classmethod
    def break_code(cls):
        Connection.wait = psycopg.Connection.wait


class SilenceMeansNotApplied(BrokenPostgresDB, **_ENDS):
    """A write that was not answered in time is told as one that was not stored."""

    by = "answers_nothing"
    own_server = True

    @classmethod
    def break_code(cls):
        healthy = Call.no_answer

        def broken(self):
            self.in_doubt = False
            return healthy(self)

        Call.no_answer = broken


class AllWaitOnTheServer(BrokenPostgresDB, **_ENDS):
    """Every call takes a connection and waits for its lock there, until none is left."""

    by = "hold_up_nobody"

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"retry_deadline": 5})

    @classmethod
    def break_code(cls):
        # Before the statements are sent: the connections know the text itself.
        Connection.find_out = lambda self, connector: None
        Turn.wait = lambda self, deadline: True


class WaitsForALockForEver(BrokenPostgresDB, **_ENDS):
    """The lock of a session is waited for as long as somebody else holds it."""

    by = "somebody_else_has_locked"

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"operation_timeout": 0})


class ALockIsAFailure(BrokenPostgresDB, **_ENDS):
    """A lock that is not to be had within a second is told as an error, for good."""

    by = "hold_up_nobody"

    @classmethod
    def break_code(cls):
        database.LOCKED = "none"
