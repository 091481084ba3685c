"""Backends that were written for an earlier version of the contract: they go on as they are.

Their storage operations get rows of the form that they know, and what they return is completed.
They lack what came later, and ConfigurationError says so to whoever asks for it.
"""

from __future__ import annotations

import functools
from collections import namedtuple
from typing import TYPE_CHECKING, Any, Final

from director_db.errors import ConfigurationError
from director_db.rows import (
    UNSET,
    MessageQuery,
    SessionChanges,
    SessionQuery,
    SessionRow,
    StoredMessage,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Method = Callable[..., Any]

KNOWN: Final = ("1.0", "1.1")
"""The versions of the contract that a backend may be written for."""

# The rows of version 1.0 by those of today, whose first fields they are.
_OF_1_0: Final[dict[type[Any], Any]] = {
    kind: namedtuple(kind.__name__, kind._fields[:count])  # noqa: PYI024
    for kind, count in (
        (SessionRow, 6),
        (SessionChanges, 4),
        (SessionQuery, 4),
        (MessageQuery, 4),
    )
}


def adapt(cls: type[Any]) -> None:
    """Let the storage operations of a class of version 1.0 be called as those of today."""
    for name, adapted in _ADAPTERS.items():
        method = getattr(cls, name)
        if not hasattr(method, "__isabstractmethod__") and not hasattr(method, "__wrapped__"):
            setattr(cls, name, adapted(method))


def _older(row: Any, backend: Any) -> Any:
    """Return a row in the form of version 1.0."""
    kind = _OF_1_0.get(type(row))
    if kind is None:
        return row
    count = len(kind._fields)
    for name, value in zip(row._fields[count:], row[count:], strict=True):
        if value is not None and value is not UNSET:
            raise not_in_contract(backend, name)
    return kind(*row[:count])


def not_in_contract(backend: Any, name: str) -> ConfigurationError:
    """Return the error of asking for what came after the contract that a backend keeps."""
    cls = type(backend)
    return ConfigurationError(
        f"The backend of {backend.db_type} ({cls.__module__}.{cls.__qualname__}) was written for "
        f"version {backend._contract} of the contract "  # noqa: SLF001
        f"and has no {name}. Install a release of it "
        f"for version {KNOWN[-1]}."
    )


def _adapter(complete: Callable[[Any], Any]) -> Callable[[Method], Method]:
    """Return what lets a method take rows of version 1.0, and completes what it returns."""

    def adapt_one(method: Method) -> Method:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            return complete(method(self, *[_older(arg, self) for arg in args], **kwargs))

        return call

    return adapt_one


def _row(kind: type[Any]) -> Callable[[Method], Method]:
    return _adapter(lambda row: None if row is None else kind(*row))


def _rows(kind: type[Any]) -> Callable[[Method], Method]:
    return _adapter(lambda rows: None if rows is None else [kind(*row) for row in rows])


def _first_messages(method: Method) -> Method:
    """Let a method that knows no part of a session be called with none (MSG-10)."""

    @functools.wraps(method)
    def call(self: Any, session_id: str, limit: int, *part: str | None) -> Any:
        _older(MessageQuery(session_id, limit, None, None, *part), self)
        return [StoredMessage(*row) for row in method(self, session_id, limit)]

    return call


_ADAPTERS: Final[dict[str, Callable[[Method], Method]]] = {
    "_insert_session": _adapter(lambda result: result),
    "_select_session": _row(SessionRow),
    "_select_sessions": _rows(SessionRow),
    "_update_session": _adapter(lambda result: result),
    "_select_message": _row(StoredMessage),
    "_select_messages": _rows(StoredMessage),
    "_select_first_messages": _first_messages,
}
