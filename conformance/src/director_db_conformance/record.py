"""What is known of a backend's run of the suite, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from director_db_conformance.face import SYNC, Face
from director_db_conformance.levels import Level
from director_db_conformance.suite import CLAUSES
from director_db_conformance.verdict import Outcome, Result, Verdict, Word, judge

if TYPE_CHECKING:
    from collections.abc import Collection


class Choice(NamedTuple):
    """What to run, and how.

    Attributes:
        level: the highest level to run.
        keyword: run only the clauses that match, as pytest's ``-k``; all if it is empty.
        time_limit: how long a clause may make no call, in seconds; in all, ten times that.
        fail_fast: run none after the first that fails.
        face: through which face the calls go.
    """

    level: Level = Level.DURABLE
    keyword: str = ""
    time_limit: float = 120.0
    fail_fast: bool = False
    face: Face = SYNC


@dataclass
class Record:
    """The clauses on one backend.

    Attributes:
        db_type: the backend.
        choice: what is run.
        results: what became of the clauses so far, by name.
        chosen: the names of the clauses that are to run; None until that is known.
        server: the server that they run on, None if there is none or that is not known yet.
        stopped: why not all of them ran, if so.
        seconds: how long it took.
        output: the end of what pytest printed.
    """

    db_type: str
    choice: Choice
    results: dict[str, Result] = field(default_factory=dict)
    chosen: Collection[str] | None = None
    server: str | None = None
    stopped: str = ""
    seconds: float = 0.0
    output: str = ""

    @property
    def total(self) -> int:
        """How many clauses there are to run."""
        if self.chosen is not None:
            return len(self.chosen)
        return sum(self.choice.level.includes(clause.level) for clause in CLAUSES.values())

    @property
    def verdict(self) -> Verdict:
        """What the results say together, as far as they are known."""
        # Without -k nobody has chosen: what is missing did not run, whatever has left it out.
        chosen = self.chosen if self.choice.keyword else None
        return judge(CLAUSES.values(), self.results, self.choice.level, chosen)

    @property
    def failed(self) -> list[str]:
        """The names of the clauses that failed, in the order in which they run."""
        found = [name for name, result in self.results.items() if result.outcome is Outcome.FAILED]
        return sorted(found, key=list(CLAUSES).index)

    def is_conformant(self, *, strictly: bool) -> bool:
        """Whether the backend is conformant: at the very level if `strictly`, else as applies."""
        verdict = self.verdict
        conformant = verdict.word is Word.CONFORMANT
        return conformant and (verdict.reached is verdict.asked or not strictly)

    def is_left_out(self, name: str) -> bool:
        """Whether a clause is not among those that were asked for."""
        return bool(self.choice.keyword) and self.chosen is not None and name not in self.chosen

    def why_not_run(self, name: str) -> str:
        """Say why a clause has no result."""
        if self.chosen is not None and name not in self.chosen:
            return "left out" if self.choice.keyword else "something other than -k has left it out"
        return self.stopped or "the run ended before it"
