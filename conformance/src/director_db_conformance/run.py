"""One backend's run of the suite, in processes of its own.

A broken backend may hang, end the process, or leave threads and locks behind; none of that may
reach the run of another, keep the command from its verdict, or cost more than one clause: the rest
runs on in a new process.

Most of what a clause does is to wait, for a disk or a server, or for what must not come. So where
places of several processes do not reach one another, several processes share the clauses.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from director_db_conformance.clauses.patience import crowd
from director_db_conformance.record import Record
from director_db_conformance.suite import CLAUSES
from director_db_conformance.verdict import Outcome, Result
from director_db_conformance.worker import Worker

if TYPE_CHECKING:
    from pathlib import Path

    from director_db_conformance.guard import Guard
    from director_db_conformance.record import Choice

_ENDED: Final = "the run ended before it"
_LAST_GRACE: Final = 15.0
_FIRST_PLACE: Final = 600.0
_NEXT_PLACE: Final = 60.0

# Where a clause hangs, others that use the same will. The first is given all of its time, and the
# others some times as much as any took that ended; all together so many times the limit.
_SHORTEST_LIMIT: Final = 10.0
_TIMES_THE_SLOWEST: Final = 5
_MOST_LIMITS: Final = 5
_MOST_DEATHS: Final = 40

_WORKERS: Final = 3
_FEW_CLAUSES: Final = 6
"""So many are not worth another process, and another server."""


class SuiteRun(Record):
    """The clauses on one backend, under way or finished."""

    def __init__(self, db_type: str, directory: Path, choice: Choice, guard: Guard) -> None:
        """Start it.

        Args:
            db_type: the backend.
            directory: an empty folder for everything that the run writes.
            choice: what to run.
            guard: ends its processes if the command cannot.
        """
        super().__init__(db_type, choice)
        self._directory = directory
        self._guard = guard
        self._started = time.monotonic()
        self._has_placed = False
        self._are_apart = False
        self._hung_for = 0.0
        self._deaths = 0
        self._given_back = False
        (directory / "claims").mkdir()
        self._workers: list[Worker] = []
        self._at_work: list[Worker] = []
        self._add_worker()

    @property
    def usage_error(self) -> str | None:
        """What pytest refuses in how it was called, such as a keyword that is no expression."""
        return None if self.results else self._workers[0].usage_error

    @property
    def under_way(self) -> str:
        """The name of the clause that has run for the longest, of those that run now."""
        busy = [worker for worker in self._at_work if worker.under_way]
        return max(busy, key=lambda worker: worker.seconds).under_way or "" if busy else ""

    def poll(self) -> bool:
        """Read what has happened since; False when the run has ended.

        A clause beyond its time ends its process: what hangs is a nonconformity. What is slow is
        none: each call that begins gives it time again.
        """
        for worker in list(self._at_work):
            if not self.stopped:
                self._poll(worker)
        while not self.stopped and len(self._workers) < self._wanted_workers:
            self._add_worker()
        self.seconds = time.monotonic() - self._started
        if not self._at_work and not self.stopped and self._left():
            if self._given_back:
                self._given_back = False
                self._restart(self._workers[0])
            else:
                self.stopped = _ENDED
        return bool(self._at_work)

    def stop(self, reason: str) -> None:
        """End it, before all clauses have run."""
        self.stopped = reason
        self.end()

    def end(self) -> None:
        """End it with all that it started."""
        for worker in self._at_work:
            worker.end()
            self.output = self.output or worker.output
        self._at_work = []

    @property
    def _wanted_workers(self) -> int:
        if not self._are_apart or self.choice.fail_fast:  # The first failure is one, in order.
            return 1
        return min(_WORKERS, 1 + len(self._left()) // _FEW_CLAUSES)

    def _add_worker(self) -> None:
        number = len(self._workers)
        # The one that begins at the end has what waits for the longest, for the length of the run.
        worker = Worker(
            self.db_type,
            self._directory / str(number),
            self.choice,
            self._guard,
            backwards=number == 1,
        )
        self._workers.append(worker)
        self._at_work.append(worker)

    def _poll(self, worker: Worker) -> None:
        ended = worker.has_ended
        for event in worker.hear():
            if self._is_unneeded(worker) and event.get("outcome") == Outcome.NOT_RUN.value:
                # It has no place, and others have: they run what it has claimed.
                self._give_back(worker)
                return
            self._note(event)
        silence, limit = worker.silence, self._limit(worker)
        if not ended and silence <= limit * crowd():
            return
        if self._is_unneeded(worker):
            self._give_back(worker)
            return
        if ended:
            last_words = f"the process ended in {{}}, {worker.how_it_ended}"
            self._deaths += worker.under_way is not None
        else:
            last_words = f"{{}} did not end within {limit:g} s"
            # What is slow to leave has not hung.
            self._hung_for += silence / crowd() if worker.under_way is not None else 0.0
        if worker.under_way is not None:
            # Before the kill, which may take a moment and change nothing any more.
            self._lose(worker, worker.under_way, last_words)
        self._dismiss(worker)
        if self._left() and (not worker.is_over or self.choice.fail_fast):
            reason = self._why_stop(worker, last_words)
            if reason:
                self.stop(reason)
                return
            self._restart(worker)

    def _is_unneeded(self, worker: Worker) -> bool:
        """Say whether a process that has never had a place can be spared, as another has one."""
        if worker.has_placed or worker.is_over or not self._has_placed:
            return False
        # The first one is started again for what is left.
        return worker is not self._workers[0] or len(self._at_work) > 1

    def _give_back(self, worker: Worker) -> None:
        self._dismiss(worker)
        self._given_back = True

    def _dismiss(self, worker: Worker) -> None:
        worker.end()
        worker.release(self.results)
        self.output = worker.output
        self._at_work.remove(worker)

    def _restart(self, worker: Worker) -> None:
        worker.start()
        self._at_work.append(worker)

    def _left(self) -> set[str]:
        """Return the clauses that no worker has finished, or is at."""
        under_way = {worker.under_way for worker in self._at_work}
        return {*(self.chosen or ())} - {*self.results} - under_way

    def _limit(self, worker: Worker) -> float:
        """Return how long there may be silence now, on an idle machine."""
        limit = self.choice.time_limit
        if worker.is_over:
            return _LAST_GRACE
        if not self._has_placed:
            # The first place may take a server that has to be fetched first; one of another
            # process, a server that has to start.
            return max(limit, _FIRST_PLACE)
        if not worker.has_placed:
            return max(limit, _NEXT_PLACE)
        if not self._hung_for:
            return limit
        slowest = max((result.seconds for result in self.results.values()
                       if result.outcome is Outcome.PASSED), default=0.0)  # fmt: skip
        return min(limit, max(_SHORTEST_LIMIT, _TIMES_THE_SLOWEST * slowest))

    def _why_stop(self, worker: Worker, last_words: str) -> str:
        """Say why nothing of what is left will run; "" if it goes on in another process."""
        if self.choice.fail_fast and self.failed:
            return "stopped at the first failure"
        if worker.is_over:
            return _ENDED
        if not self._has_placed:
            return "no place was ever made"
        if not worker.finished:
            return last_words.format("what comes before it")
        if self._hung_for >= _MOST_LIMITS * self.choice.time_limit:
            return f"others had hung for {self._hung_for:.0f} s before; see --time-limit"
        if self._deaths >= _MOST_DEATHS:
            return f"{self._deaths} others had ended the process before"
        return ""

    def _note(self, event: dict[str, Any]) -> None:
        match event:
            case {"chosen": names}:
                self.chosen = names if self.chosen is None else self.chosen
            case {"phase": "call"}:
                self._has_placed = True
            case {"server": server}:
                self.server = server
            case {"apart": apart}:
                self._are_apart = apart
            case {"clause": name}:
                before = self.results.get(name)
                # One whose claim was lost may run twice.
                if before is None or before.outcome is not Outcome.FAILED:
                    self.results[name] = Result.of_json(event)

    def _lose(self, worker: Worker, name: str, last_words: str) -> None:
        """Note that a clause took its process with it."""
        clause = CLAUSES.get(name)
        before = self.results.get(name)
        if clause is None or (before is not None and before.outcome is Outcome.FAILED):
            return  # What failed first is the fault.
        worker.finished += 1
        what = last_words.format(worker.where)
        seconds, stacks, calls = worker.seconds, worker.stacks, worker.calls
        if worker.phase == "setup":
            # The clause has not begun, so nothing is known about its rule.
            reason = f"no place: {what}"
            self.results[name] = Result(Outcome.NOT_RUN, seconds, reason, traceback=stacks)
            return
        expected = "every call returns, and the process lives"
        self.results[name] = Result(
            Outcome.FAILED, seconds, clause.meaning, clause.rule, expected, what, calls, stacks
        )
