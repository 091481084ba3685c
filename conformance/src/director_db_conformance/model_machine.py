"""The state machine with the model as its reference: each difference is attributed to a rule."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from director_db import (
    ConflictError,
    DirectorDBError,
    InvalidRecordError,
    SessionExistsError,
    SessionNotFoundError,
)
from director_db_conformance.expectation import NonconformityError, expect, same
from director_db_conformance.machine import OperationsMachine, of_side, outcome
from director_db_conformance.model import ANY_PATH, Model, Moment
from director_db_conformance.strategies import LOOK_ALIKES
from director_db_conformance.transcript import shown, shown_error, transcript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director_db_conformance.machine import Step
    from director_db_conformance.operations import Operation
    from director_db_conformance.transcript import RecordedDB

_EXAMPLES: Final = 4
"""How many examples Hypothesis draws in one round, the first one of hardly anything."""

_MOST_REPLAYS: Final = 300
"""How often a failure is replayed to shrink it. A number and not a time, so that a busy machine
reports the same."""

_PARTS: Final = ("get_session", "get_conversations", "get_context")
_AFTER_AN_ERROR: Final = ("LIF-3", "LIF-3", "LIF-3")
_CREATED_AGAIN: Final = ("SES-2", "SES-2", "SES-2")
_COMPARED: Final = {"update_session": "SES-8", "add_or_update_context_msg": "CTX-5"}
_OTHER_SESSIONS: Final = ("MSG-4", "MSG-4", "MSG-4")


def compare_with_model(
    handles: Sequence[RecordedDB], *, rounds: int, steps: int, first: int = 0
) -> None:
    """Make drawn calls on the handles of one place, and fail with a short example that differs.

    Args:
        handles: each call is made on one of them.
        rounds: how many times to draw a few examples.
        steps: how many calls an example has.
        first: the number of the first round; each number draws other calls.

    Raises:
        NonconformityError: of the simplest example that was found.
    """
    fields = {"handles": handles, "failed": None}
    machine: type[ModelMachine] = type("Operations", (ModelMachine,), fields)
    # Hypothesis soon repeats, with small changes, what it has drawn before; so it begins anew, and
    # from a number of each round's own, in every run of the suite the same.
    for number in range(first, first + rounds):
        try:
            run_state_machine_as_test(
                seed(number)(machine),
                settings=settings(
                    max_examples=_EXAMPLES,
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
            # Flaky is what Hypothesis calls an example that does not differ when it is run again:
            # what differs only now and then is a failure all the same.
            if machine.failed is None:
                raise
            raise _Shrinker(machine, machine.failed).shrunk() from None


class _Failure(NamedTuple):
    """What differs, and the steps up to it."""

    error: NonconformityError
    kinds: Any
    steps: list[Step]


class _Shrinker:
    """Leaves out calls and arguments while what is left still breaks the same rule.

    Hypothesis can shrink, too, but needs far more replays: of an example that four calls show, it
    had seven left after 500 of them and 20 s.
    """

    def __init__(self, machine: type[ModelMachine], failure: _Failure) -> None:
        self._machine = machine
        self._failure = failure
        self._left = _MOST_REPLAYS

    def shrunk(self) -> NonconformityError:
        """Return what the simplest example shows."""
        # What comes and goes cannot be shrunk: nothing tells whether the calls left out matter.
        if self._shows(self._failure.steps):
            plain = LOOK_ALIKES[0]
            self._shows(self._failure.steps, (plain, plain))
            while self._has_less():
                pass
        return self._failure.error

    def _has_less(self) -> bool:
        """Leave out what can go, once all over; say whether something could."""
        before = self._failure
        size = len(before.steps)
        while size := size // 2:
            for start in range(len(self._failure.steps) - size, -1, -size):
                steps = self._failure.steps
                if start < len(steps):
                    self._shows([*steps[:start], *steps[start + size :]])
        for index in range(len(self._failure.steps)):
            self._shorten_arguments(index)
        return self._failure is not before

    def _shorten_arguments(self, index: int) -> None:
        method, values = self._failure.steps[index]
        if method != "call":
            return
        *others, arguments = values
        required = {"session_id", *values[1].example}
        for name in [name for name in arguments if name not in required]:
            less = {key: arguments[key] for key in arguments if key != name}
            steps = self._failure.steps
            step = (method, (*others, less))
            if self._shows([*steps[:index], step, *steps[index + 1 :]]):
                arguments = less

    def _shows(self, steps: list[Step], kinds: Any = None) -> bool:
        """Replay some steps; keep them if they break the same rule."""
        if self._left == 0:
            return False
        self._left -= 1
        kinds = kinds or self._failure.kinds
        self._machine.failed = None
        machine = self._machine()
        machine.name_ids(kinds)
        try:
            for method, values in steps:
                getattr(machine, method)(*values)
            machine.teardown()
        except NonconformityError as error:
            if error.rule == self._failure.error.rule:
                self._failure = _Failure(error, kinds, steps)
                return True
        return False


class ModelMachine(OperationsMachine):
    """Compares what each call returns, and what it leaves behind, with the model."""

    handles: ClassVar[Sequence[RecordedDB]]
    failed: ClassVar[_Failure | None]

    def __init__(self) -> None:
        """Begin an example."""
        self.reference = self._model = Model()
        self._lookers = itertools.cycle(self.handles)
        super().__init__()
        transcript.clear()

    def compare(self, handle: int, operation: Operation, args: list[Any], kwargs: Any) -> Any:
        """Make a call on both sides; compare what it returned and what it left behind.

        Raises:
            NonconformityError: they differ.
        """
        try:
            return self._compare(handle, operation, args, kwargs)
        except NonconformityError as error:
            self._fail(error)
            raise

    def teardown(self) -> None:
        """See that no session was touched by what was done to others."""
        # After a failure Hypothesis goes on; there is nothing more to see.
        if self.failed is not None:
            return
        try:
            for session in self._sessions:
                self._expect_parts(session, _OTHER_SESSIONS)
        except NonconformityError as error:
            self._fail(error)
            raise

    def _fail(self, error: NonconformityError) -> None:
        if self.failed is None:
            type(self).failed = _Failure(error, self.kinds, self.steps)

    def _compare(self, handle: int, operation: Operation, args: list[Any], kwargs: Any) -> Any:
        db = self.handles[handle % len(self.handles)]
        name = operation.name
        created_again = name == "create_session" and self._model.get_session(args[0]) != {}
        first = int(time.time())
        actual = outcome(db, name, args, of_side(kwargs, 0))
        last = int(time.time())
        self._model.now = first if first == last else Moment(first, last)
        expected = outcome(self._model, name, args, of_side(kwargs, 1))
        _expect_outcome(*self.numbered(name, actual, expected), operation)
        if operation.changes != "nothing":
            rules = _CREATED_AGAIN if created_again else operation.rules_after()
            if isinstance(actual, Exception):
                rules = _AFTER_AN_ERROR
            for session_id in (args[0], *([kwargs["to"]] if "to" in kwargs else [])):
                self._expect_parts(session_id, rules)
        return actual

    def _expect_parts(self, session_id: Any, rules: tuple[str, str, str]) -> None:
        # On the handles in turn: each has its own idea of what is stored.
        db = next(self._lookers)
        # Written down only where they show something, so that the transcript stays short.
        actual = [getattr(db.instance, part)(session_id) for part in _PARTS]
        self._settle([actual[0], *actual[1], actual[2]], session_id)
        for part, seen, broken in zip(_PARTS, actual, rules, strict=True):
            expected = getattr(self._model, part)(session_id)
            seen, expected = self.numbered(part, seen, expected)  # noqa: PLW2901
            if not same(seen, expected):
                getattr(db, part)(session_id)
                _expect(seen, expected, _finer(broken, seen, expected))

    def _settle(self, seen: list[dict[str, Any]], session_id: Any) -> None:
        """Take over the times that the model knows only roughly."""
        for known, found in zip(self._model.records(session_id), seen, strict=False):
            for key in ("created_at", "updated_at"):
                moment, exact = known[key], found.get(key)
                if (
                    isinstance(moment, Moment)
                    and type(exact) is int
                    and moment.first <= exact <= moment.last
                ):
                    known[key] = exact


def _expect_outcome(actual: object, expected: object, operation: Operation) -> None:
    raised = isinstance(actual, Exception)
    did = f"{'raised' if raised else 'returned'} {_shown(actual)}"
    if not isinstance(expected, Exception):
        if raised:
            rule = operation.rule if isinstance(actual, DirectorDBError) else "LIF-6"
            should = f"returned {_shown(expected)}"
            raise NonconformityError(should, did, rule)
        _expect(actual, expected, operation.rule)
        return
    rule = _rule_of_error(expected, operation)
    if not isinstance(actual, type(expected)):
        should = f"raised {_shown(expected)}"
        raise NonconformityError(should, did, rule)
    if isinstance(expected, InvalidRecordError) and expected.path != ANY_PATH:
        _expect(actual.path, expected.path, rule)  # type: ignore[attr-defined]
    elif isinstance(expected, (SessionNotFoundError, SessionExistsError)):
        _expect(actual.session_id, expected.session_id, rule)  # type: ignore[attr-defined]


def _expect(actual: object, expected: object, broken: str) -> None:
    try:
        expect(actual, expected)
    except NonconformityError as error:
        error.rule = broken
        raise


def _shown(outcome: object) -> str:
    return shown_error(outcome) if isinstance(outcome, Exception) else shown(outcome)


def _rule_of_error(error: Exception, operation: Operation) -> str:
    if isinstance(error, SessionNotFoundError):
        return operation.needs_session
    if isinstance(error, ConflictError):
        return _COMPARED[operation.name]
    if (
        not isinstance(error, InvalidRecordError)
        or operation.changes == "nothing"
        or operation.name.startswith("delete_")
        or error.path in {ANY_PATH, "key", "to", "until"}
    ):
        return operation.rule
    field = error.path.rpartition("].")[2] if error.path.startswith("messages[") else error.path
    if field in {"created_at", "updated_at"}:
        return "VAL-5"
    if field in {"revision", "if_absent"}:
        return "MSG-11"
    if field in {"if_version", "merge"}:
        return _COMPARED[operation.name]
    return "VAL-4" if field.endswith("_id") or field in {"msg_type", "status"} else "VAL-3"


def _finer(broken: str, seen: object, expected: object) -> str:
    """Return the rule of the places where only the order of the messages is wrong."""
    if broken != "MSG-1":
        return broken
    ids, wanted = ([message["msg_id"] for message in side] for side in (seen, expected))  # type: ignore[attr-defined]
    return "MSG-3" if ids != wanted and sorted(ids) == sorted(wanted) else broken
