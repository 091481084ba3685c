"""Every error that director-db raises, so that callers can catch by meaning.

The tree, each with the built-in class that callers already expect for its kind::

    DirectorDBError
    ├── ConfigurationError (ValueError)             bad settings
    │   └── UnknownDBTypeError                      no such backend is installed
    ├── PluginError (ImportError)                   a package is broken, or two claim one name
    ├── InvalidRecordError (ValueError)             the input breaks a rule; says where
    ├── SessionExistsError (ValueError)             a copy to a session that exists already
    ├── SessionNotFoundError (LookupError)          a write to a session that does not exist
    ├── ConflictError                               something newer is stored than was expected
    ├── BackendUnavailableError (ConnectionError)   not reachable, locked, read-only or out of space
    ├── SchemaError                                 what is stored is newer, older or not ours
    └── ClosedError (RuntimeError)                  an operation after ``close()``

A driver's own exception never leaks (LIF-6); it is the ``__cause__`` of ours.
"""

from __future__ import annotations


class DirectorDBError(Exception):
    """The root of everything that director-db raises."""


class ConfigurationError(DirectorDBError, ValueError):
    """A setting is missing, malformed or contradicts another one."""


class UnknownDBTypeError(ConfigurationError):
    """No installed backend has the DB type that was asked for."""


class PluginError(DirectorDBError, ImportError):
    """A backend's package is broken, or two packages claim one DB type."""


class InvalidRecordError(DirectorDBError, ValueError):
    """The input breaks a rule of the contract; nothing was stored.

    Attributes:
        path: where the offending value is, as ``content[0].score``.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        """Name the place and the reason."""
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class SessionNotFoundError(DirectorDBError, LookupError):
    """A write named a session that does not exist; nothing was stored (MSG-5, CTX-1, SES-5).

    Attributes:
        session_id: the id that was not found.
    """

    def __init__(self, session_id: str) -> None:
        """Name the session."""
        super().__init__(session_id)
        self.session_id = session_id

    def __str__(self) -> str:
        return f"There is no session {self.session_id!r}. Create it first with create_session()."


class SessionExistsError(DirectorDBError, ValueError):
    """A session was to be copied to an id that is taken; nothing was stored (SES-9).

    Attributes:
        session_id: the id that is taken.
    """

    def __init__(self, session_id: str) -> None:
        """Name the session."""
        super().__init__(session_id)
        self.session_id = session_id

    def __str__(self) -> str:
        return (
            f"There is a session {self.session_id!r} already, and it stays as it is. Choose another"
            " id, or delete it first with delete_session()."
        )


class ConflictError(DirectorDBError):
    """Another version is stored than `if_version` names; nothing was stored (CTX-5, SES-8).

    The same call would fail again: read what is stored, make the change on top of that, and give
    its version.

    Attributes:
        session_id: the session.
        version: what is stored now; None if there is no context.
    """

    def __init__(self, session_id: str, what: str, version: str | None) -> None:
        """Name the session, what of it was to be stored (``"context"``), and what is there."""
        super().__init__(session_id, what, version)
        self.session_id = session_id
        self.version = version
        self._what = what

    def __str__(self) -> str:
        read = f"get_{self._what}()"
        what = "session" if self._what == "session" else f"{self._what} of session"
        return (
            f"The {what} {self.session_id!r} is not of the version that if_version names: another "
            f"writer came first. Read it with {read}, make the change on top of that, and give its "
            "version."
        )


class BackendUnavailableError(DirectorDBError, ConnectionError):
    """The database could not be reached, is locked, read-only, damaged or out of space.

    Attributes:
        retryable: True if the same call may succeed soon without anybody mending anything.
        maybe_applied: True if the write may have been stored although it was not confirmed.
    """

    def __init__(
        self, message: str, *, retryable: bool = False, maybe_applied: bool = False
    ) -> None:
        """Say what happened, and what the caller may conclude from it."""
        super().__init__(message)
        self.retryable = retryable
        self.maybe_applied = maybe_applied

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by the default pickling of exceptions, and errors do
        # cross processes (multiprocessing, concurrent.futures).
        return (_unavailable, (str(self), self.retryable, self.maybe_applied))


class SchemaError(DirectorDBError):
    """The stored schema is newer than this release, old and not yet migrated, or not ours."""


class ClosedError(DirectorDBError, RuntimeError):
    """An operation on an instance after its ``close()`` (LIF-5)."""


def _unavailable(message: str, retryable: bool, maybe_applied: bool) -> BackendUnavailableError:  # noqa: FBT001
    return BackendUnavailableError(message, retryable=retryable, maybe_applied=maybe_applied)
