"""The mark of a clause."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Final, TypeVar

from director_db_conformance.levels import Clause, Level
from director_db_conformance.unexpected import nonconformity

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = TypeVar("Check", bound=Callable[..., None])

ATTRIBUTE: Final = "director_db_clause"

completed: Final[set[str]] = set()
"""The clauses whose bodies have run to their end; a test that passed without is no proof."""


def clause(
    rule: str, *, level: str = "core", needs: str | None = None, sync_only: str = ""
) -> Callable[[Check], Check]:
    """Mark a method as a clause of the suite.

    Its docstring says what the rule means to a user. Whatever it raises is a nonconformity: with
    the rule, the expected and the actual value, and the calls that show it.

    Args:
        rule: the id of the rule in CONTRACT.md.
        level: ``core``, ``concurrent`` or ``durable``.
        needs: what it cannot do without: an attribute of the place, as ``restart`` or ``url``, one
            of its faults, as ``locked``, or ``fork`` of the system.
        sync_only: why it says nothing of the asynchronous face; empty if it does.
    """

    def mark(check: Check) -> Check:
        meaning = " ".join((inspect.getdoc(check) or "").split())
        if not meaning:
            message = f"The clause {check.__qualname__} does not say what its rule means."
            raise TypeError(message)
        marked = Clause(rule, check.__name__, Level(level), needs, meaning, sync_only)

        @functools.wraps(check)
        def run(*args: object, **kwargs: object) -> None:
            try:
                check(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                found = nonconformity(error)
                found.clause = marked
                raise found from found.__cause__
            completed.add(marked.name)

        setattr(run, ATTRIBUTE, marked)
        return run  # type: ignore[return-value]

    return mark


def clause_of(check: object) -> Clause | None:
    """Return what a method is marked with, None if it is no clause."""
    found = getattr(check, ATTRIBUTE, None)
    return found if isinstance(found, Clause) else None
