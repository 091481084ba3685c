"""The verdict on a backend: one word, from the outcomes of the clauses."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from director_db_conformance.levels import Level

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from director_db_conformance.levels import Clause


class Outcome(Enum):
    """What became of a clause."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"
    NOT_RUN = "not run"


class Result(NamedTuple):
    """What became of a clause, and why.

    Attributes:
        outcome: in a word.
        seconds: how long it took.
        reason: why it failed, does not apply or did not run; for people.
        rule: the rule that a failure breaks.
        expected: what that rule asks for, where the failure can say it.
        actual: what the backend did.
        calls: the calls that show it.
        traceback: the end of the traceback of what was raised, or of where a process stood.
    """

    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""
    rule: str = ""
    expected: str = ""
    actual: str = ""
    calls: tuple[str, ...] = ()
    traceback: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as data."""
        return self._asdict() | {"outcome": self.outcome.value, "calls": list(self.calls)}

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> Result:
        """Make it of what `as_json` gave."""
        fields = {name: data[name] for name in cls._fields}
        return cls(**fields | {"outcome": Outcome(data["outcome"]), "calls": tuple(data["calls"])})


class Word(Enum):
    """The verdict on a backend."""

    CONFORMANT = "CONFORMANT"
    NOT_CONFORMANT = "NOT CONFORMANT"
    PARTIAL = "PARTIAL"
    INCOMPLETE = "INCOMPLETE"
    NOT_RUN = "NOT RUN"


class Verdict(NamedTuple):
    """What the clauses say together.

    Attributes:
        word: CONFORMANT if every clause up to the level ran and passed, NOT CONFORMANT if one
            failed, PARTIAL if some were chosen and all of those passed, NOT RUN if none ran;
            INCOMPLETE if none failed and some did not run.
        asked: the level that was asked for.
        applicable: the highest level up to it that says something of the place.
        reached: the highest level at which the backend is conformant, None if at none.
        not_applicable: how many clauses up to `applicable` say nothing of the place.
    """

    word: Word
    asked: Level
    applicable: Level
    reached: Level | None
    not_applicable: int = 0

    def __str__(self) -> str:
        if self.word is Word.CONFORMANT:
            at = f"{self.word.value} at {self.applicable.value}"
            if not self.not_applicable:
                return at
            clauses = "1 clause" if self.not_applicable == 1 else f"{self.not_applicable} clauses"
            return f"{at}, {clauses} not applicable"
        if self.word is Word.PARTIAL:
            return str(self.word.value)
        if self.reached is not None:
            return f"{self.word.value} at {self.asked.value}, but at {self.reached.value}"
        return str(self.word.value)


def judge(
    clauses: Collection[Clause],
    results: Mapping[str, Result],
    asked: Level = Level.DURABLE,
    chosen: Collection[str] | None = None,
) -> Verdict:
    """Judge a backend.

    Args:
        clauses: every clause of the suite, run or not: what is missing in `results` did not run.
        results: what became of them, by name.
        asked: the level to judge at; clauses beyond it do not count.
        chosen: the names of those that were to run, None for all.
    """
    reached = None
    applicable = Level.CORE
    unbroken = True
    outcomes = {
        clause.name: results[clause.name].outcome if clause.name in results else Outcome.NOT_RUN
        for clause in clauses
        if asked.includes(clause.level)
    }
    not_applicable = 0
    for level in Level:
        own = [outcomes[clause.name] for clause in clauses
               if clause.level is level and clause.name in outcomes]  # fmt: skip
        if {*own} - {Outcome.NOT_APPLICABLE}:
            applicable = level
            unbroken = unbroken and not {*own} & {Outcome.FAILED, Outcome.NOT_RUN}
            not_applicable += own.count(Outcome.NOT_APPLICABLE)
            if unbroken:
                reached = level
    found = {*outcomes.values()}
    if not found & {Outcome.PASSED, Outcome.FAILED}:
        word = Word.NOT_RUN
    elif reached is applicable:
        word = Word.CONFORMANT
    elif Outcome.FAILED in found:
        word = Word.NOT_CONFORMANT
    elif chosen is not None and all(
        outcomes[name] is not Outcome.NOT_RUN for name in chosen if name in outcomes
    ):
        word = Word.PARTIAL
    else:
        word = Word.INCOMPLETE
    return Verdict(word, asked, applicable, reached, not_applicable)
