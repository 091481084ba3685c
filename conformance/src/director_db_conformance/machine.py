"""A state machine that plays every operation on a backend and on the model, and compares them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, ClassVar, Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from director_db_conformance import strategies as draw
from director_db_conformance.expectation import NonconformityError
from director_db_conformance.game import Game, Move
from director_db_conformance.reducing import Failure, reduced

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director_db_conformance.transcript import RecordedDB

_ROWS: Final = 4
"""How many rows of calls Hypothesis draws in one round, the first one of hardly anything."""


def play_everything(handles: Sequence[RecordedDB], *, rounds: int, steps: int) -> None:
    """Play random calls on the handles of one place, and fail with a short row that differs.

    Args:
        handles: each call is made on one of them.
        rounds: how many times to play a few rows of calls.
        steps: how many calls a row has.
    """
    run = _Run(handles)
    machine = type("Everything", (Machine,), {"run": run})
    # Hypothesis soon repeats, with small changes, what it has drawn before; so it begins anew, and
    # from a number of each round's own, in every run of the suite the same.
    for number in range(rounds):
        try:
            run_state_machine_as_test(
                seed(number)(machine),
                settings=settings(
                    max_examples=_ROWS,
                    stateful_step_count=steps,
                    phases=[Phase.generate],
                    database=None,
                    deadline=None,
                    report_multiple_bugs=False,
                    print_blob=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except (NonconformityError, Flaky):
            # Flaky is what Hypothesis calls a row that does not differ when it is played again:
            # what differs only now and then is a failure all the same.
            if run.failure is None:
                raise
            raise run.reduced(run.failure) from None


class _Run:
    """The games of one run, and the row that failed."""

    def __init__(self, handles: Sequence[RecordedDB]) -> None:
        self._handles = handles
        self._numbers = itertools.count()
        self._kind: int | None = 0
        self.row: list[Move] = []
        self.failure: NonconformityError | None = None

    def new_game(self) -> Game:
        """Begin another row of calls."""
        self.row = []
        number = next(self._numbers)
        # In turn: what Hypothesis draws is not even, and each kind finds faults of its own.
        self._kind = number
        return Game(self._handles, number, self._kind)

    def reduced(self, failure: NonconformityError) -> NonconformityError:
        """Return what the least calls show, on plain ids if nothing more is needed."""
        found = Failure(failure, self.row)
        kind, self._kind = self._kind, None
        plain = self._replayed(found.row)
        if plain is not None and plain.error.rule == failure.rule:
            found = plain
        else:
            self._kind = kind
        return reduced(found, self._replayed)

    def _replayed(self, row: Sequence[Move]) -> Failure | None:
        """Play a row of calls anew, on ids that no row before it had."""
        try:
            game = Game(self._handles, next(self._numbers), self._kind)
            for move in row:
                game.play(move)
            game.end()
        except NonconformityError as error:
            return Failure(error, row)
        except Exception:  # noqa: BLE001 - what breaks off in another way does not show it
            return None
        return None


class Machine(RuleBasedStateMachine):
    """Draws the calls. A subclass for each run knows it."""

    run: ClassVar[_Run]

    def __init__(self) -> None:
        """Begin a row."""
        super().__init__()
        self._game = None if self.run.failure else self.run.new_game()

    @initialize(sessions=st.integers(2, 4))
    def create_sessions(self, sessions: int) -> None:
        """Begin with some sessions."""
        for session in range(sessions):
            self._play(Move(0, "create_session", session, {"updated_at": 0}))

    # One rule for all operations: Hypothesis switches rules off at random for a whole row, and few
    # rows would then hold what it takes.
    @rule(call=draw.calls(), handle=draw.handles)
    def call(self, call: tuple[str, Any, dict[str, Any]], handle: int) -> None:
        """Make one call."""
        self._play(Move(handle, *call))

    def teardown(self) -> None:
        """End the row."""
        if self._game is not None and self.run.failure is None:
            self._note(self._game.end)

    def _play(self, move: Move) -> None:
        # After a failure Hypothesis plays on; there is nothing more to see.
        if self._game is not None and self.run.failure is None:
            self.run.row.append(move)
            self._note(self._game.play, move)

    def _note(self, play: Callable[..., None], *args: Any) -> None:
        try:
            play(*args)
        except NonconformityError as error:
            self.run.failure = error
            raise
