"""The life of an instance: health, administration, closing and forking.

Whatever it stores is the business of `BaseDB`, which adds the operations on records.
"""

from __future__ import annotations

import functools
import threading
import time
import weakref
from abc import ABCMeta
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, cast, final

from director_db import lifecycle, logs
from director_db.checks import future_warning
from director_db.context.memory import memory
from director_db.errors import ClosedError, ConfigurationError, DirectorDBError
from director_db.legacy.migrates import Migrates
from director_db.locks import new_lock
from director_db.rows import SessionQuery
from director_db.settings import Settings, environment
from director_db.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from types import TracebackType

    from director_db.locks import Lock
    from director_db.records import Distribution, Health, Migration

Method = TypeVar("Method", bound="Callable[..., Any]")
T = TypeVar("T")


def operation(method: Method) -> Method:
    """Make a public operation: through the gate, with the driver's exceptions translated.

    Not a context manager: between its ``__enter__`` and the block a signal's handler may raise, and
    the operation would never be seen to leave.
    """

    @functools.wraps(method)
    def run(self: Instance, /, *args: Any, **kwargs: Any) -> Any:
        if not lifecycle.mark[0]:
            lifecycle.outlive_untold_fork()
        gate, token = self._gate, object()
        try:
            if gate.get_ident is not threading.get_ident:
                lifecycle.outlive_patches(self)
                gate = self._gate
            gate.enter(token)
            return method(self, *args, **kwargs)
        except DirectorDBError:
            raise
        except Exception as error:
            ours = self._translate(error)
            if ours is None:
                raise
            raise ours from error
        finally:
            gate.inside.pop(token, None)

    return cast("Method", run)


class _Registering(ABCMeta):
    """Makes an instance known to the fork hooks when it is complete, and not before."""

    # Type checkers look at the class's own __init__ instead: with this they would know nothing of
    # what is made, and of the arguments.
    if not TYPE_CHECKING:

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            """Make an instance, from the environment if there are no arguments."""
            found = None
            try:
                if not args and not kwargs:
                    # As load_db() does; a backend need not read the environment in two ways.
                    kwargs = found = cls._settings(environment, None)
                instance = super().__call__(*args, **kwargs)
            except BaseException:
                # They may hold a password, and some tools show the locals of a traceback.
                del args, kwargs, found
                raise
            instance._remember(found)  # noqa: SLF001
            lifecycle.survive_forks(instance)
            return instance


class Instance(Storage, metaclass=_Registering):
    """A storage that can be closed, forked and asked how it is."""

    _gate: lifecycle.Gate
    _closing: Lock
    _released: bool
    _shared: bool
    _found: Mapping[str, Hashable] | None

    # In __new__, so that a backend whose __init__ forgets super().__init__() works all the same.
    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        """Give the instance what the public operations need."""
        self = super().__new__(cls)
        self._gate = lifecycle.Gate(cls.__name__)
        self._owner = object()
        self._closing = new_lock()  # A signal's handler may close what is being closed.
        self._released = False
        self._fork_ready = False
        self._shared = False
        self._found = None
        return self

    def __repr__(self) -> str:
        closed = " (closed)" if self.closed else ""
        # A constructor that failed is shown too, by tools that show the locals of a traceback.
        return f"<{type(self).__name__} {getattr(self, 'place', '(not made)')}{closed}>"

    def __reduce__(self) -> NoReturn:
        message = (
            f"A {type(self).__name__} cannot be sent to another process. Call load_db() there, or "
            "build one with the same settings."
        )
        raise TypeError(message)

    @final
    def health_check(self) -> bool:
        """Create what is missing and say whether the database can be used; never raise (LIF-4).

        Returns:
            False also after ``close()``, and on a schema that is not ours or too new, which stays
            as it is.
        """
        try:
            self.health()
        except Exception:  # noqa: BLE001 - the contract: whatever it is, the answer is False
            return False
        return True

    @final
    @operation
    def health(self) -> Health:
        """Create what is missing and describe the database, or raise why it cannot be used (LIF-4).

        Returns:
            The DB type, the place with any password masked, the versions of the parts, warnings on
            settings or versions that put data at risk, and where each setting comes from.
        """
        health = self._check()
        found = self._found if isinstance(self._found, Settings) else Settings({}, health.settings)
        # By the index of the list, so it costs a look.
        latest = self._select_sessions(SessionQuery(1, None, None, None))
        warnings = [*health.warnings, *map(future_warning, latest), *found.ignored]
        warnings = [warning for warning in warnings if warning]
        return health._replace(warnings=warnings, settings=dict(found.origins))

    @final
    @operation
    def migrate(self, *, skip_invalid: bool = False) -> Migration:
        """Carry over what the system before director-db stored in this database.

        Its tables ``sessions``, ``conversations`` and ``context_messages`` are read, all records
        are stored with their times and in their order, and the tables are renamed to
        ``old_sessions``, ``old_conversations`` and ``old_context_messages``: a backup, to be
        dropped at leisure. Messages and contexts without a session get one. All of it is one
        transaction. Stop the old application first.

        A database that is ours already stays as it is, also where old tables are there again; one
        that is missing or empty is created, and one of an earlier release upgraded, as by any first
        use, and on Postgres for as long as it takes.

        Args:
            skip_invalid: leave rows that break a rule of the contract (an empty id, text that is
                not JSON, NaN) in the renamed tables, instead of giving up.

        Returns:
            ``(sessions, messages, contexts, orphan_sessions, skipped)``: how many were carried
            over, how many sessions were made for messages and contexts that had none, and one text
            for each row that was left behind.

        Raises:
            SchemaError: a row breaks a rule; it is named with the reason, and nothing was changed.
            ConfigurationError: the old system had no such database.
        """
        if not isinstance(self, Migrates):
            message = f"A database of type {self.db_type} has no old layout to migrate."
            raise ConfigurationError(message)
        return self._migrate(skip_invalid=skip_invalid)

    @final
    @operation
    def distribute(self, *, shards: int | None = None) -> Distribution:
        """Spread the tables over several servers, each session with all its parts on one of them.

        Creates what is missing first. What is distributed already stays as it is; records that are
        there are moved, all or none, and writes wait meanwhile.

        Args:
            shards: in how many parts; at least 1. None leaves it to the backend. Where the sessions
                are distributed already it is not looked at.

        Returns:
            ``(version, shards, tables)``: of what does it, how many parts there are now, and the
            tables that this call has distributed.

        Raises:
            ConfigurationError: the database cannot do that, or its servers are not set up for it.
            SchemaError: a table is distributed in another way.
        """
        if shards is not None and (type(shards) is not int or shards < 1):
            message = f"shards must be an int of at least 1, not {shards!r}."
            raise ConfigurationError(message)
        return self._distribute(shards)

    @final
    def close(self) -> None:
        """Wait for the operations in flight, then let go of the database (LIF-5). Idempotent."""
        self._close_within(None)

    @property
    @final
    def closed(self) -> bool:
        """Whether ``close()`` was called (LIF-5)."""
        return self._gate.closed

    @final
    def __enter__(self) -> Self:
        if self.closed:
            message = f"This {type(self).__name__} is closed."
            raise ClosedError(message)
        return self

    @final
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._shared:
            self.close()

    def _still_in_flight(self, rest: Callable[[], T]) -> Callable[[], T]:
        """Return what is left of an operation, which is in flight until that has ended."""
        inside, token = self._gate.inside, object()

        def run() -> T:
            try:
                inside[token] = threading.get_ident()
                return rest()
            except DirectorDBError:
                raise
            except Exception as error:
                ours = self._translate(error)
                if ours is None:
                    raise
                raise ours from error
            finally:
                inside.pop(token, None)

        # If nobody calls it: whoever was to do so had no memory for it, say.
        weakref.finalize(run, inside.pop, token, None).atexit = False
        inside[token] = 0  # No thread's: it is not known yet which one it will be.
        return run

    # --- For the registry and the fork hooks ------------------------------------------------------

    def _remember(self, found: Mapping[str, Hashable] | None) -> None:
        """Keep the settings that the instance was built with, and tell what they ignored."""
        self._found = found
        logs.keep_quiet()
        for sentence in found.ignored if isinstance(found, Settings) else ():
            logs.log(self.db_type, logs.WARNING, "%s", sentence)

    def _close_within(self, seconds: float | None) -> None:
        lifecycle.outlive_untold_fork()
        lifecycle.outlive_patches(self)
        self._gate.closed = True
        if self._gate.wait_until_empty(seconds):
            with self._closing:
                # Who was interrupted in the middle has not released anything; the next one does.
                if not self._released:
                    self._close()
                    memory.forget(self._owner)
                    self._released = True

    def _rest(self, seconds: float) -> None:
        """Close the connections but not the instance; a later operation opens new ones."""
        lifecycle.outlive_untold_fork()
        try:
            if self._gate.pause(seconds) and not self._released:
                self._close()
        finally:
            self._gate.resume()

    def _before_fork(self, deadline: float) -> None:
        self._fork_ready = False
        if self._gate.pause(max(0.0, deadline - time.monotonic()), lifecycle.forks):
            self._prepare_fork()
            self._fork_ready = True
        else:
            text = "%r: an operation did not end before a fork; the child may not be able to use it"
            logs.log(self.db_type, logs.WARNING, text, self)

    def _after_fork_in_parent(self) -> None:
        self._fork_ready = False
        self._gate.resume()

    def _after_fork_in_child(self) -> None:
        self._gate = self._gate.renewed()
        self._closing = new_lock()
        try:
            self._abandon()
            self._fork_ready = False
        except BaseException:
            # What it holds is not known, so nothing may use it; who forked is told why.
            self._gate.closed = True
            raise
