"""Connections to a Postgres server, and why one could not be made."""

from __future__ import annotations

import contextlib
from typing import Any, Final, Self

import psycopg

from director_db.errors import ConfigurationError
from director_db_postgres.pipeline import PipelinedConnection
from director_db_postgres.refusal import refusal_state

# How long the server may take to hear of a cancelled statement, in seconds.
_CANCEL_PATIENCE: Final = 2.0


class Connection(PipelinedConnection):
    """A connection as the pool makes it."""

    @classmethod
    def connect(  # type: ignore[override]
        cls, conninfo: str = "", *, connector: Connector, **kwargs: Any
    ) -> Self:
        """Connect, or hand over the connection that was made to look at the schema."""
        with contextlib.suppress(IndexError):
            return connector.ready.pop()  # type: ignore[return-value]
        token = object()
        nameless = None
        try:
            connector.connecting[token] = None
            connection = super().connect(conninfo, **kwargs)
        except psycopg.OperationalError as error:
            text, timed_out = str(error), isinstance(error, psycopg.errors.ConnectionTimeout)
        except UnicodeError as error:
            nameless = f"A Postgres host has a name that cannot be looked up: {error}."
        else:
            connector.failure = None
            connection.is_sharded = connector.is_sharded
            return connection
        finally:
            connector.connecting.pop(token, None)
        # Not while the other exception is handled: it would go along, and knows the password.
        if nameless is not None:
            raise ConfigurationError(nameless)
        state = None if timed_out else refusal_state(conninfo, connector.patience)
        connector.failure = Failure(text, state)
        raise connector.failure.error()

    def abort(self) -> None:
        """Close this connection, which was interrupted and may be in the middle of a statement.

        That is cancelled first: one that waits for a lock would be applied when nobody expects it
        any more, even after later writes.
        """
        try:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                with contextlib.suppress(psycopg.Error):
                    self.cancel_safe(timeout=_CANCEL_PATIENCE)
        finally:
            self.close()

    def is_alive(self) -> bool:
        """Whether the server has not ended this idle connection, as far as can be known for free.

        Reads what has arrived already, no more. So a server's restart or an administrator's
        command costs no statement, and no doubt about one. The farewell and the end of the stream
        are two reads.
        """
        try:
            self.pgconn.consume_input()
            self.pgconn.consume_input()
        except psycopg.OperationalError:
            return False
        return not self.closed


class Failure:
    """Why a connection could not be made."""

    def __init__(self, text: str, state: str | None) -> None:
        """Take libpq's message and the server's SQLSTATE."""
        self._text = text
        self._state = state

    def error(self) -> psycopg.OperationalError:
        """Return an exception, a new one for each who raises it.

        It carries less than psycopg's own, which knows the connection with its password.
        """
        error = psycopg.OperationalError(self._text)
        error.sqlstate = self._state
        error.is_refusal = True  # type: ignore[attr-defined]
        return error


class Connector:
    """What the pool's connections share with those who wait for them."""

    def __init__(self, patience: float) -> None:
        """Start with nothing known; `patience` is for asking why a connection failed, seconds."""
        self.patience = patience
        self.ready: list[Connection] = []
        # The attempts to connect that are under way.
        self.connecting: dict[object, None] = {}
        self.failure: Failure | None = None
        # What the first connection saw.
        self.is_sharded = False
