"""Statements that go to the server together and are answered together: one round trip.

psycopg's own pipelines do the same with a cursor for each statement and a look at the socket after
each, which takes longer than the server does for a small write. This is libpq's pipeline mode with
nothing in between, and psycopg's adapters on both ends.
"""

from __future__ import annotations

import secrets
import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg import generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.rows import TupleRow

from director_db_postgres.errors import (
    STALE_PLAN,
    OutOfStepError,
    ends_the_connection,
    is_of_a_shard,
    is_of_the_connection,
    is_out_of_step,
    mark,
    severity,
    sqlstate,
)
from director_db_postgres.sql.server import SET_LOCK_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import abc
    from psycopg.abc import Buffer, PQGen
    from psycopg.pq.abc import PGconn, PGresult

    Step = tuple[bytes, Sequence[Any]]
    """A statement and its parameters, each of which has its type in the statement's text."""

    Values = tuple[Sequence[Buffer | None], Sequence[int] | None]

_BEGIN: Final = b"BEGIN"
_COMMIT: Final = b"COMMIT"
_PASS_ON: Final = b"SET LOCAL citus.propagate_set_commands = 'local'"

_DONE: Final = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK})


class Answer:
    """What the server answered to one statement."""

    def __init__(self, result: PGresult, transformer: abc.Transformer) -> None:
        """Take a result that is no error."""
        self._result = result
        self._transformer = transformer

    @property
    def count(self) -> int:
        """How many rows were changed, locked or returned."""
        return self._result.command_tuples or 0

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows, new ones each time.

        Raises:
            OutOfStepError: there can be none, or they cannot be read: it answers something else.
        """
        if self._result.status != ExecStatus.TUPLES_OK:
            message = "the answer has no rows"
            raise OutOfStepError(message)
        try:
            self._transformer.set_pgresult(self._result)
            return self._transformer.load_rows(0, self._result.ntuples, tuple)
        except Exception as error:
            if not is_out_of_step(error):
                raise
            message = f"the answer's rows cannot be read: {type(error).__name__}"
            raise OutOfStepError(message) from error


class _Command(NamedTuple):
    """What one result is about.

    Attributes:
        statement: the text that was sent.
        prepares: the name that it gives to the statement, if that is what it does.
        is_answer: whether its result is the answer to a step.
        was_prepared: whether it executes what an earlier pipeline has prepared.
    """

    statement: bytes
    prepares: bytes | None = None
    is_answer: bool = False
    was_prepared: bool = False


class PipelinedConnection(psycopg.Connection[TupleRow]):
    """A connection in autocommit mode, whose statements go in pipelines.

    Attributes:
        is_sharded: whether the server commits each statement on its shard, so that a transaction of
            several takes a BEGIN and a COMMIT. Elsewhere a pipeline is one.
        is_disturbed: whether something arrived that was no answer.
        is_whole: whether libpq may have all that was to be sent: what commits it comes last.
        lock_timeout: how long a statement may wait for a lock, in milliseconds; None for ever.
        knows_lock_timeout: whether the server has been told, for all that comes on this connection.
    """

    is_sharded = False

    is_disturbed = False

    is_whole = True

    lock_timeout: int | None = None

    knows_lock_timeout = False

    def __init__(self, pgconn: PGconn) -> None:
        """Take a connection of libpq's."""
        super().__init__(pgconn)
        known = weakref.ref(self)

        def hear(notice: psycopg.errors.Diagnostic) -> None:
            # The server's notices have a code; an error among them was no answer to anything.
            connection = known()
            if connection is not None and (
                notice.sqlstate is None or severity(notice) in {"ERROR", "FATAL", "PANIC"}
            ):
                connection.is_disturbed = True

        self.add_notice_handler(hear)

    def run(self, statement: bytes, parameters: Sequence[Any] = ()) -> Answer:
        """Execute one statement, a transaction of its own."""
        (answer,) = self.run_together((statement, parameters))
        return answer

    def run_waiting(self, statement: bytes, parameters: Sequence[Any]) -> Answer:
        """Execute one statement that may wait for a lock."""
        (answer,) = self._run_waiting(((statement, parameters),))
        return answer

    def run_together(self, *steps: Step) -> list[Answer]:
        """Execute statements as one transaction, in one round trip; return an answer for each.

        Each sees what others had committed when it began, not when the transaction did. It is
        prepared from its first time on, unless `prepare_threshold` is None.

        Raises:
            psycopg.Error: one failed, and nothing is stored; or the connection is lost, and closed.
                `errors.mark` says what is known of it.
        """
        if len(steps) > 1:
            return self._run_waiting(steps)
        return self._run_together(*steps)

    def _run_waiting(self, steps: Sequence[Step]) -> list[Answer]:
        if self.is_sharded:
            return self._run_together(*steps, begins=True)
        if self.lock_timeout is None or self.knows_lock_timeout:
            return self._run_together(*steps)
        return self._run_together((SET_LOCK_TIMEOUT, (str(self.lock_timeout),)), *steps)[1:]

    def _run_together(self, *steps: Step, begins: bool = False) -> list[Answer]:
        # First all that may fail here: nothing is to be half sent.
        values = [self._dump(parameters) for _, parameters in steps]
        try:
            self.pgconn.enter_pipeline_mode()
            commands = self._send(steps, values, begins=begins)
            results = self.wait(self._receive())
            if not results or results.pop().status != ExecStatus.PIPELINE_SYNC:
                self._raise_failure(results)
                message = "the connection ended in the middle of an answer"
                raise psycopg.OperationalError(message)
            self.pgconn.exit_pipeline_mode()
            self._check_step(commands, results)
        except psycopg.Error as error:
            # Whatever else comes on it is no answer to what would be sent next.
            self.close()
            mark(error, maybe_applied=True)
            raise
        for command, result in zip(commands, results, strict=False):
            if command.prepares is not None and result.status in _DONE:
                self._names[command.statement] = command.prepares
        try:
            self._raise_failure(results)
        except psycopg.Error as error:
            self._mark(error, commands, results)
            raise
        return [
            Answer(result, self._transformer)
            for command, result in zip(commands, results, strict=True)
            if command.is_answer
        ]

    @cached_property
    def _transformer(self) -> abc.Transformer:
        # Not in the constructor: psycopg sets the adapters after it.
        return Transformer(self)

    @cached_property
    def _names(self) -> dict[bytes, bytes]:
        """The names of the statements that are prepared."""
        return {}

    @cached_property
    def _prefix(self) -> str:
        # Where a pooler hands connections on, another client's statement has a name, too: never
        # the one that we mean.
        return f"director_{secrets.token_hex(8)}_"

    def _dump(self, parameters: Sequence[Any]) -> Values:
        if not parameters:
            return (), None
        formats = [PyFormat.AUTO] * len(parameters)
        values = self._transformer.dump_sequence(parameters, formats)
        return values, self._transformer.formats

    def _send(
        self, steps: Sequence[Step], values: Sequence[Values], *, begins: bool
    ) -> list[_Command]:
        """Hand everything to libpq, which keeps what the socket does not take at once."""
        commands: list[_Command] = []
        new: dict[bytes, bytes] = {}
        self.is_whole = False
        for text in (_BEGIN, *self._limits_on_shards()) if begins else ():
            self.pgconn.send_query_params(text, None)
            commands.append(_Command(text))
        for (statement, _), (dumped, formats) in zip(steps, values, strict=True):
            if self.prepare_threshold is None:
                self.pgconn.send_query_params(statement, dumped, None, formats)
                commands.append(_Command(statement, is_answer=True))
                continue
            known = self._names.get(statement)
            name = known or new.get(statement)
            if name is None:
                name = f"{self._prefix}{len(self._names) + len(new)}".encode()
                new[statement] = name
                self.pgconn.send_prepare(name, statement)
                commands.append(_Command(statement, prepares=name))
            self.pgconn.send_query_prepared(name, dumped, formats)
            commands.append(_Command(statement, is_answer=True, was_prepared=known is not None))
        self.is_whole = True
        if begins:
            self.pgconn.send_query_params(_COMMIT, None)
            commands.append(_Command(_COMMIT))
        self.pgconn.pipeline_sync()
        return commands

    def _limits_on_shards(self) -> tuple[bytes, ...]:
        # What is set on the coordinator does not reach a shard, but for this one transaction.
        if self.lock_timeout is None:
            return ()
        return (_PASS_ON, f"SET LOCAL lock_timeout = {self.lock_timeout}".encode())

    def _receive(self) -> PQGen[list[PGresult]]:
        yield from generators.send(self.pgconn)
        results: list[PGresult] = []
        while not results or results[-1].status != ExecStatus.PIPELINE_SYNC:
            more = yield from generators.fetch_many(self.pgconn)
            if not more:
                break
            results += more
        return results

    def _check_step(self, commands: Sequence[_Command], results: Sequence[PGresult]) -> None:
        """Check that there is one result for each command, and nothing more.

        Raises:
            psycopg.Error: it is not so, or the connection is about to end.
        """
        failures = [result for result in results if result.status not in _DONE]
        # The end of the transaction that a pipeline is may fail too.
        expected = {len(commands), len(commands) + 1} if failures else {len(commands)}
        if len(results) not in expected or not self.is_in_step():
            message = f"{len(commands)} commands were answered by {len(results)} results"
            raise OutOfStepError(message)
        for result in failures:
            error = error_from_result(result, self.info.encoding)
            # A pooler that has lost its server may keep the client, and does not know either what
            # became of the commands that it had passed on. A coordinator knows what its shard did.
            if ends_the_connection(error) or (not self.is_sharded and is_of_the_connection(error)):
                raise error

    def is_in_step(self) -> bool:
        """Whether nothing has arrived that nobody asked for; reads no more from the network."""
        # libpq drops what comes while nothing is asked, and tells of it in a notice of its own; but
        # only if it looks at it then. Later it would take it for the next answer.
        self.pgconn.notifies()
        return not self.is_disturbed

    def _raise_failure(self, results: Sequence[PGresult]) -> None:
        """Raise what the first result that is an error says; those after it were skipped."""
        for result in results:
            if result.status not in _DONE:
                raise error_from_result(result, self.info.encoding)

    def _mark(
        self, error: psycopg.Error, commands: Sequence[_Command], results: Sequence[PGresult]
    ) -> None:
        """Say what is known of the failure of a command, on a connection that is still good."""
        done = next(number for number, result in enumerate(results) if result.status not in _DONE)
        # Beyond the last one, it is the end of the transaction that the pipeline is.
        failed = commands[done] if done < len(commands) else None
        begins = commands[0].statement is _BEGIN
        commits = failed is None or failed.statement is _COMMIT or not begins
        mark(
            error,
            maybe_applied=self.is_sharded and commits and is_of_a_shard(error),
            is_stale_plan=(
                failed is not None and failed.was_prepared and sqlstate(error) == STALE_PLAN
            ),
        )
        if begins:
            # The transaction is aborted, and not ended.
            self.rollback()
