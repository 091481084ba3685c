"""Postgres's SQLSTATEs in terms of our errors; never by the text of a message."""

from __future__ import annotations

from typing import Final

import psycopg

from director_db.errors import (
    BackendUnavailableError,
    ConfigurationError,
    DirectorDBError,
    InvalidRecordError,
    SchemaError,
)

_UNTRANSLATABLE_CHARACTER: Final = "22P05"

READ_ONLY: Final = "25006"
"""The server became a standby, so that another connection may lead to the one that took over; or
it, this database or this user is read-only by its settings."""

STALE_PLAN: Final = "0A000"
"""What is not supported: among other things, a plan whose result would have other types now."""

CANCELLED: Final = "57014"
"""The statement was cancelled, or took longer than the statement timeout."""

LOCKED: Final = "55P03"
"""A lock was not to be had within ``lock_timeout``."""

LOST_STATEMENT: Final = frozenset({"26000", "42P05"})
"""A prepared statement is missing, or there already: this is another connection of the server."""

_CONNECTION_FAILED: Final = "08"

# Worth another try on the same server or the one that takes over. A whole class by its two letters.
_RETRY: Final = frozenset(
    {
        _CONNECTION_FAILED,  # what a pooler says of a server that it lost, too
        READ_ONLY,
        "40001",  # could not serialize
        "40P01",  # deadlock
        "53300",  # too many connections
        "57P01",  # terminated by an administrator, or by a shutdown
        "57P02",  # terminated by the crash of another process
        "57P03",  # starting up or shutting down
        "57P05",  # idle for too long
    }
)

# What a sharded server answers when the one that has the shard is lost.
_OF_A_SHARD: Final = frozenset({_CONNECTION_FAILED, "57", "58", "XX"})

# What the caller may try again, but not at once: waiting is what failed, or memory.
_RETRYABLE: Final = frozenset(
    {*_RETRY, "25P03", "25P04", "53200", "53400", "55006", LOCKED, CANCELLED}
)

PROTOCOL_VIOLATION: Final = "08P01"
"""What a pooler answers for all that it does not like; the server itself, for a broken protocol."""

_REFUSED: Final = {
    "28": "the server refused this user; correct the user, the password or pg_hba.conf",
    "3D000": "there is no such database; create it, or correct its name",
    "3F000": "there is no such schema; create it, or correct POSTGRES_SCHEMA",
    "42501": "this user lacks a right; grant it CONNECT on the database (and CREATE, if the schema "
    "does not exist yet), USAGE and CREATE on the schema, and all on the tables director_*",
    "42602": "that is no name for a schema; correct POSTGRES_SCHEMA",
    "42939": "that name is reserved by Postgres; correct POSTGRES_SCHEMA",
    STALE_PLAN: "the server does not do what is needed; if it is the coordinator of a cluster, ask "
    "director-db health whether the tables are distributed",
    "26000": "prepared statements got lost, as they do in a pooler; set POSTGRES_POOLER=1",
    "42P05": "prepared statements got mixed up, as they do in a pooler; set POSTGRES_POOLER=1",
}

_UNAVAILABLE: Final = {
    "08": "the connection failed; check the server and the network",
    READ_ONLY: "it is read-only; connect to the primary, or list all hosts in the DSN",
    "25P03": "the transaction was idle for longer than the server allows",
    "25P04": "the transaction took longer than the server allows",
    "40": "other transactions were in the way at every try",
    "53100": "the disk is full; free some space on the server",
    "53200": "the server is out of memory",
    "53300": "it has too many connections; lower POSTGRES_POOL_SIZE, raise max_connections, or use "
    "a pooler",
    "53": "the server is out of resources",
    "54": "a limit of the server was exceeded",
    "55": "something it needs is in use, or not ready",
    LOCKED: "a lock was not available in time",
    CANCELLED: "the statement was cancelled or took longer than the statement timeout",
    "57": "the server ended the connection; it may be starting up or shutting down",
    "58": "the server's system failed; check its disk and its log",
    "XX001": "the data is damaged; restore a backup",
    "XX002": "an index is damaged; run REINDEX",
    "XX": "the server failed; see its log",
}

_OUT_OF_STEP: Final = (
    "its answers did not fit what was asked, as when a pooler or a proxy loses its server; see its "
    "log"
)

_READ_ONLY_FOR_GOOD: Final = (
    "it is read-only by its settings, and no standby; see default_transaction_read_only of the "
    "server, the database and the user"
)

_UNREACHABLE: Final = (
    "it cannot be reached; check that the server runs, that the network is up, and the settings of "
    "the connection, TLS's included"
)
_LOST_SHARD: Final = (
    "a server of the cluster was lost in the middle of a commit; check that all of them run"
)


class OutOfStepError(psycopg.OperationalError):
    """The answers are not those of what was asked: somebody in between said more, or less.

    Nothing more can be read from the connection, and what was sent may be stored.
    """


def is_out_of_step(error: Exception) -> bool:
    """Whether the driver failed on an answer it did not expect, and not on what we asked for.

    psycopg trusts the other side to answer what was asked, and where it does not, an IndexError or
    whatever comes out. The same comes out of a mistake of ours in the parameters, and out of a
    signal's handler, which runs in between. What was thrown into the thread has no frame of its
    own, but a class of its own, or is a TimeoutError.
    """
    if isinstance(error, (MemoryError, RecursionError, OSError)):
        return False
    if isinstance(error, psycopg.Error):
        # Its own words for a result that it did not expect; the server's have a SQLSTATE.
        return isinstance(error, psycopg.InternalError) and error.sqlstate is None
    if type(error).__module__ not in {"builtins", "struct"}:
        return False
    module = ""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_name == "_convert_query":
            return False
        module = traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next
    return module.startswith(("psycopg", __package__))


def sqlstate(error: psycopg.Error) -> str:
    """Return the SQLSTATE of a driver's exception; empty if the server gave none."""
    return error.sqlstate or ""


def ends_the_connection(error: psycopg.Error) -> bool:
    """Whether the server, or a pooler, says good-bye with it, whatever became of the statement."""
    return severity(error.diag) in {"FATAL", "PANIC"}


def severity(diagnostic: psycopg.errors.Diagnostic) -> str | None:
    """Return how bad it is, as ``ERROR``; PgBouncer says so in no other field than the old one."""
    return diagnostic.severity_nonlocalized or diagnostic.severity


def is_refusal(error: psycopg.Error) -> bool:
    """Whether this is the answer to a try to connect."""
    return getattr(error, "is_refusal", False)


def is_of_the_connection(error: psycopg.Error) -> bool:
    """Whether it says that the connection failed, and nothing about the statement.

    A pooler that has lost its server says so, before it closes the connection, and does not know
    either what became of what it had sent on. In a pipeline, psycopg may only say that it cannot
    end that in order.
    """
    state = sqlstate(error)
    if not state:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state[:2] == _CONNECTION_FAILED


def is_of_a_shard(error: psycopg.Error) -> bool:
    """Whether it may mean that another server, which had the work, died or could not be reached.

    The one that we talk to is healthy, and says so as of an error of its own (XX).
    """
    return sqlstate(error)[:2] in _OF_A_SHARD


def mark(error: psycopg.Error, *, maybe_applied: bool, is_stale_plan: bool = False) -> None:
    """Tell whoever handles a failure what only its place among other statements says.

    Args:
        error: what is raised.
        maybe_applied: whether what was sent may be stored.
        is_stale_plan: whether a plan was made for tables that were altered since. Any other
            connection may have one, too; a new one does not.
    """
    error.maybe_applied = maybe_applied  # type: ignore[attr-defined]
    error.is_stale_plan = is_stale_plan  # type: ignore[attr-defined]


def _is_of_a_broken_commit(error: psycopg.Error) -> bool:
    return may_be_applied(error) and is_of_a_shard(error)


def may_be_applied(error: psycopg.Error) -> bool:
    """Whether what was sent may be stored, as far as the failure tells."""
    marked: bool | None = getattr(error, "maybe_applied", None)
    return is_of_the_connection(error) if marked is None else marked


def is_read_only_for_good(error: psycopg.Error) -> bool:
    """Whether nothing can be written, and no other server is going to take over."""
    return getattr(error, "is_read_only_for_good", False)


def is_of_a_stale_plan(error: psycopg.Error) -> bool:
    """Whether a new connection prepares anew what failed here."""
    return getattr(error, "is_stale_plan", False)


def is_worth_retrying(error: psycopg.Error, *, pooler: bool) -> bool:
    """Whether the same operation may succeed in a moment, on this server or on its successor."""
    state = sqlstate(error)
    if state == PROTOCOL_VIOLATION and is_refusal(error):
        # Where a pooler is known to be, it may be for want of a server: one that starts up, or has
        # too many connections.
        return pooler
    if is_read_only_for_good(error):
        return False
    if not state:
        # Nothing came from the server: no answer to a connection, or no more answers on one.
        return isinstance(error, psycopg.OperationalError)
    return state in _RETRY or state[:2] in _RETRY or _is_of_a_broken_commit(error)


def translate(error: Exception, place: str) -> DirectorDBError | None:
    """Return our error for an exception of the driver, None for any other exception."""
    return explain(error, place) if isinstance(error, psycopg.Error) else None


def explain(error: psycopg.Error, place: str, *, maybe_applied: bool = False) -> DirectorDBError:
    """Return our error for an exception of the driver, with what to do about it."""
    state = sqlstate(error)
    said = reason(error)
    if state == _UNTRANSLATABLE_CHARACTER:
        return InvalidRecordError(
            "an id, msg_type or status",
            "the encoding of the server's database has no form for one of its characters; create "
            "the database with ENCODING 'UTF8'",
        )
    refused = _REFUSED.get(state) or _REFUSED.get(state[:2])
    if is_refusal(error) and state == PROTOCOL_VIOLATION:
        refused = (
            "the connection was refused, as a pooler does for a wrong password, database or "
            "start-up option, or while it has no server; behind PgBouncer, set POSTGRES_POOLER=1 "
            "and no statement timeout"
        )
    if refused is not None:
        return ConfigurationError(f"{place} cannot be used: {refused} ({said}).")
    unavailable = _UNAVAILABLE.get(state) or _UNAVAILABLE.get(state[:2])
    if not state and is_of_the_connection(error):
        unavailable = _OUT_OF_STEP if isinstance(error, OutOfStepError) else _UNREACHABLE
    if state[:2] == "XX" and _is_of_a_broken_commit(error):
        unavailable = _LOST_SHARD
    if is_read_only_for_good(error):
        message = f"{place} cannot be written: {_READ_ONLY_FOR_GOOD} ({said})."
        return BackendUnavailableError(message, maybe_applied=maybe_applied)
    if unavailable is not None:
        return BackendUnavailableError(
            f"{place} cannot be used: {unavailable} ({said}).",
            retryable=not state
            or state in _RETRYABLE
            or state[:2] in _RETRYABLE
            or _is_of_a_broken_commit(error),
            maybe_applied=maybe_applied,
        )
    if is_refusal(error):
        return ConfigurationError(f"{place} cannot be used: the connection was refused ({said}).")
    # What is left says that the tables are not as we made them: a missing table or column, a
    # constraint or a trigger of somebody else's.
    return SchemaError(f"{place} is not as director-db made it: {said}.")


def as_in_doubt(error: DirectorDBError) -> BackendUnavailableError:
    """Return the error of a call of which an earlier try may be stored, whatever this one met."""
    if isinstance(error, BackendUnavailableError):
        error.maybe_applied = True
        return error
    ours = BackendUnavailableError(str(error), maybe_applied=True)
    ours.__cause__ = error
    return ours


def reason(error: psycopg.Error) -> str:
    """Return the driver's message in one line, without the details that may hold stored values."""
    message = error.diag.message_primary or str(error)
    return message.strip().partition("\n")[0].rstrip(".")
