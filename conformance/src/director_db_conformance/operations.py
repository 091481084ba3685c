"""What the tests know of an operation: how it is called, and which rules it keeps.

`model.Model` says it of each of its methods. `model.OPERATIONS` is the table of them: it drives the
state machine, the clauses that try every operation, and the tests that let two backends make the
same calls.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar

from hypothesis import strategies as st

from director_db import BaseDB
from director_db_conformance import strategies as draw

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_conformance.strategies import Arguments

Method = TypeVar("Method", bound="Callable[..., object]")


class Operation(NamedTuple):
    """What the tests know of an operation.

    Attributes:
        name: of the method of `BaseDB`, and of `Model`.
        rule: the rule of what it returns, and of what it changes.
        example: arguments that are right, where there is a session ``s1``.
        refused: to be put into the example: what no write accepts, and no read finds.
        drawn: draws its other arguments, all but the session's id; ids are numbers.
        changes: whether it writes a session itself, parts of one (which also is its last activity,
            SES-6), or nothing.
        needs_session: the rule that it keeps where the session is missing; empty if it needs none.
        refusals: values that it refuses, by argument, beside those of `strategies.REFUSED`.
        weight: how often it is drawn, in relation to the others.
    """

    name: str
    rule: str
    example: dict[str, Any]
    refused: dict[str, Any]
    drawn: Arguments
    changes: Literal["session", "parts", "nothing"]
    needs_session: str
    refusals: dict[str, list[Any]]
    weight: int

    @property
    def arguments(self) -> list[str]:
        """The names of all its arguments."""
        parameters = inspect.signature(getattr(BaseDB, self.name)).parameters.values()
        return [p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD]

    def rules_after(self) -> tuple[str, str, str]:
        """The rules that are broken if the session, its messages or its context are wrong then."""
        return ("SES-6" if self.changes == "parts" else self.rule, self.rule, self.rule)

    def drawn_refused(self) -> list[dict[str, Any]]:
        """Return the example with one value that is refused, in all ways."""
        known = {**draw.REFUSED, **self.refusals} if self.changes != "nothing" else self.refusals
        return [
            {**self.example, name: value}
            for name in self.arguments
            for value in known.get(name, ())
        ]


DECLARED: Final[list[Operation]] = []
"""Those of `model.OPERATIONS`, while the class is made."""


def operation(
    rule: str,
    *,
    example: dict[str, Any],
    refused: dict[str, Any],
    drawn: Arguments | None = None,
    changes: Literal["session", "parts", "nothing"] = "nothing",
    needs_session: str = "",
    refusals: dict[str, list[Any]] | None = None,
    weight: int = 1,
) -> Callable[[Method], Method]:
    """Say of a method of the model what the tests know of its operation; see `Operation`."""

    def declare(method: Method) -> Method:
        DECLARED.append(
            Operation(
                method.__name__,
                rule,
                example,
                refused,
                st.just({}) if drawn is None else drawn,
                changes,
                needs_session,
                refusals or {},
                weight,
            )
        )
        return method

    return declare
