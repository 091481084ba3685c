"""The connections: how they are opened, shared, waited for, inherited and closed."""

from __future__ import annotations

import psycopg

from director_db_postgres import settings
from director_db_postgres.connections import Connection
from gallery.postgres.broken import BrokenPostgresDB

_SHARED = {"rule": "LIF-1", "level": "concurrent"}


class GivesUpAtOnce(BrokenPostgresDB, **_SHARED):
    """Nobody waits for a connection: where all are busy, the call fails."""

    by = "any_number_of_calls"

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"retry_deadline": 0.001})


class NeverCommitted(BrokenPostgresDB, **_SHARED):
    """The driver begins a transaction by itself, and the pool rolls it back."""

    by = "another_handle_sees"

    def _insert_session(self, row):
        with self._connect() as connection:
            connection.execute(
                "INSERT INTO director_sessions (session_id, video_id, collection_id, created_at,"
                " updated_at, metadata, user_id, last_seq) VALUES (%s, %s, %s, %s, %s, %s, %s, 0)",
                list(row),
            )
            connection.rollback()
        return True


class ReadsInOneTransaction(BrokenPostgresDB, **_SHARED):
    """Reads share a transaction that never ends, and see what was there when it began."""

    by = "another_handle_sees"
    _reader = None

    def _select_sessions(self, query):
        rows = super()._select_sessions(query)
        if self._reader is None:
            self._reader = self._connect()
            self._reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        known = self._reader.execute("SELECT session_id FROM director_sessions").fetchall()
        return [row for row in rows if row[:1] in known]


class CommitsInTheBackground(BrokenPostgresDB, rule="LIF-2", level="durable"):
    """synchronous_commit is off: told as stored before it is on the server's disk."""

    by = "the_server_is_killed"
    own_server = True

    @classmethod
    def break_code(cls):
        settings._DEFAULT_PARAMETERS["options"] = "-c synchronous_commit=off"


class ConnectionsStayOpen(BrokenPostgresDB, rule="LIF-5"):
    """close() forgets the pool, which goes when somebody collects it."""

    by = "lets_go_of_what_was_opened"

    def _close(self):
        pass


class PasswordInThePlace(BrokenPostgresDB, rule="LIF-6"):
    """The place is the connection string."""

    by = "no_password_shows"

    @property
    def place(self):
        return str(self._database._pool.conninfo)


class ForkKeepsThePool(BrokenPostgresDB, **_SHARED):
    """Parent and child of a fork speak to the server on the same connections."""

    by = "a_child_leaves_inherited_connections_alone"

    def _abandon(self):
        pass


class ForkClosesThePool(BrokenPostgresDB, **_SHARED):
    """The child closes what it inherited, and so says good-bye on its parent's connections."""

    by = "a_child_leaves_inherited_connections_alone"

    def _abandon(self):
        self._close()


class InterruptionIsALostConnection(BrokenPostgresDB, rule="LIF-3", level="concurrent"):
    """Whatever breaks off the waiting for an answer is taken for the network, and tried again."""

    by = "an_exception_from_a_signal"

    @classmethod
    def break_code(cls):
        wait = Connection.wait

        def broken(self, gen, *args, **kwargs):
            try:
                return wait(self, gen, *args, **kwargs)
            except psycopg.Error:
                raise
            except BaseException as error:
                self.close()
                message = "the connection was lost"
                raise psycopg.OperationalError(message) from error

        Connection.wait = broken


class InterruptedAndNotCancelled(BrokenPostgresDB, rule="LIF-3", level="durable"):
    """The connection of an interrupted call is closed, and the server still waits for its lock."""

    by = "an_interrupted_call_that_waited"

    @classmethod
    def break_code(cls):
        Connection.abort = Connection.close
