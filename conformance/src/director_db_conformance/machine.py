"""A state machine that makes drawn calls of every operation, on a backend and on a reference.

There are no bundles: what Hypothesis draws must not depend on what a backend answers, since a clock
that ticks between two runs would then make its draws differ, which it takes for an error.
"""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from director_db import ConflictError
from director_db_conformance import strategies as draw
from director_db_conformance.model import BY_NAME, OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director_db import BaseDB
    from director_db_conformance.operations import Operation

Step = tuple[str, tuple[Any, ...]]
"""A method of the machine, and what it was called with: what an example can be replayed from."""

_IDS: Final = (
    "msg_id",
    "conv_id",
    "video_id",
    "collection_id",
    "user_id",
    "before",
    "after",
    "until",
)
_LOOK_ALIKES: Final = draw.one_of(draw.LOOK_ALIKES)
_SAVE: Final = BY_NAME["add_or_update_context_msg"]
_VERSIONED: Final = frozenset({"get_session", "get_sessions", "get_context", _SAVE.name})
_REFUSED: Final = draw.one_of(
    [
        (operation, draw.one_of(refused))
        for operation in OPERATIONS
        if (refused := operation.drawn_refused())
    ]
).flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1]))


class Both(NamedTuple):
    """An argument that differs between the sides, as each has versions of its own."""

    actual: Any
    expected: Any


class OperationsMachine(RuleBasedStateMachine):
    """Makes each call on one of the handles and on the reference; both must answer alike.

    The place is one for many examples. Each begins with an empty one, and has ids of its own, since
    what a broken backend did not delete would else come and go.
    """

    handles: ClassVar[Sequence[Any]]
    """The handles on one place; each call is made on one of them. A subclass sets them."""

    reference: Any
    """Knows the right answers: another backend, or a model. A subclass sets it."""

    _numbers: ClassVar = itertools.count()

    def __init__(self) -> None:
        """Begin an example with an empty place."""
        super().__init__()
        self.steps: list[Step] = []
        self._cursor: dict[str, Any] | None = None
        self._saved: dict[tuple[int, Any], Any] = {}
        self._earlier: dict[tuple[str, Any], Both] = {}
        self._seen = Both({}, {})
        for db in (self.handles[0], self.reference):
            for session in db.get_sessions():
                db.delete_session(session["session_id"])

    def compare(self, handle: int, operation: Operation, args: list[Any], kwargs: Any) -> Any:
        """Make a call on both sides, compare the outcomes, and return what it returned."""
        db = self.handles[handle % len(self.handles)]
        actual = outcome(db, operation.name, args, of_side(kwargs, 0))
        expected = outcome(self.reference, operation.name, args, of_side(kwargs, 1))
        # As text, since 1 == 1.0 == True, 0.0 == -0.0, and dicts ignore their order.
        shown = [
            (type(side), str(side)) if isinstance(side, Exception) else repr(side)
            for side in self.numbered(operation.name, actual, expected)
        ]
        assert shown[0] == shown[1], (operation.name, args, kwargs)  # noqa: S101 - as a test does
        return actual

    def numbered(self, name: str, actual: Any, expected: Any) -> Both:
        """Return both results of an operation with versions as each side has come to see them.

        A version is any text. Numbered in the order in which they appear, they are the same on both
        sides if they are of the same states.
        """
        if isinstance(expected, ConflictError) and isinstance(actual, ConflictError):
            return Both(
                *[
                    (type(error), error.session_id, self._number(side, error.version))
                    for side, error in enumerate((actual, expected))
                ]
            )
        if name not in _VERSIONED:
            return Both(actual, expected)
        return Both(self._numbered(0, actual), self._numbered(1, expected))

    def _numbered(self, side: int, result: Any) -> Any:
        if isinstance(result, list):
            return [self._numbered(side, record) for record in result]
        if isinstance(result, dict):
            return {
                key: self._number(side, value) if key == "version" else value
                for key, value in result.items()
            }
        return self._number(side, result)

    def _number(self, side: int, version: Any) -> Any:
        if not isinstance(version, str):
            return version
        seen = self._seen[side]
        return f"version {seen.setdefault(version, len(seen))}"

    @initialize(kinds=st.tuples(_LOOK_ALIKES, _LOOK_ALIKES), count=st.integers(1, 4))
    def create_sessions(self, kinds: tuple[Sequence[str], Sequence[str]], count: int) -> None:
        """Begin with some sessions."""
        self.name_ids(kinds)
        for session in range(count):
            self.call(0, BY_NAME["create_session"], session, {"updated_at": 0})

    def name_ids(self, kinds: tuple[Sequence[str], Sequence[str]]) -> None:
        """Choose the look-alikes of sessions and of other ids."""
        self.kinds = kinds
        number = f"{next(self._numbers):03}1"
        self._sessions, self._ids = ([text.format(number) for text in kind] for kind in kinds)

    def call(self, handle: int, operation: Operation, session: Any, arguments: Any) -> Any:
        """Make a call whose ids are numbers."""
        self.steps.append(("call", (handle, operation, session, arguments)))
        args = []
        if "session_id" in operation.arguments:
            args.append(self._sessions[session] if type(session) is int else session)
        kwargs = self._with_ids(arguments)
        if kwargs.get("before") is draw.CURSOR:
            kwargs["before"] = self._cursor
        if "if_version" in kwargs:
            kwargs["if_version"] = self._version(handle, operation, args, kwargs["if_version"])
        if operation is _SAVE:
            self._saved[handle, session] = copy.deepcopy(kwargs["context_messages"])
        result = self.compare(handle, operation, args, kwargs)
        if operation.name == "get_sessions" and isinstance(result, list) and result:
            self._cursor = result[-1]
        return result

    def _version(self, handle: int, operation: Operation, args: list[Any], drawn: Any) -> Any:
        """Return a drawn version as each side knows it."""
        read = "get_context" if operation is _SAVE else "get_session"
        known = (read, args[0])
        if drawn is draw.EARLIER:
            return self._earlier.get(known, "none")
        if drawn is not draw.CURRENT:
            return drawn
        found = [
            outcome(side, read, args, {})
            for side in (self.handles[handle % len(self.handles)], self.reference)
        ]
        both = Both(*[each.get("version") if isinstance(each, dict) else None for each in found])
        self._earlier[known] = both
        return both

    def _with_ids(self, arguments: dict[str, Any]) -> dict[str, Any]:
        named = dict(arguments)
        for key, value in arguments.items():
            if key in _IDS and type(value) is int:
                named[key] = self._ids[value]
            elif key == "ids" and isinstance(value, list):
                named[key] = [self._ids[item] if type(item) is int else item for item in value]
            elif key == "to" and type(value) is int:
                named[key] = self._sessions[value]
            elif key == "messages" and isinstance(value, list):
                named[key] = [
                    self._with_ids(item) if isinstance(item, dict) and "msg_id" in item else item
                    for item in value
                ]
        return named

    # --- Rules: one for each operation, which are added below, and these ------------------------

    @rule(handle=draw.handles, session=draw.session_ids, call=_REFUSED)
    def refused(self, handle: int, session: Any, call: tuple[Operation, dict[str, Any]]) -> None:
        """Call an operation with one value that nobody may store."""
        operation, arguments = call
        arguments = {name: arguments[name] for name in arguments if name != "session_id"}
        self.call(handle, operation, session, arguments)

    @rule(
        handle=draw.handles,
        session=draw.known_ids,
        own=st.booleans(),
        keep=draw.one_of([9, 9, 9, 0, 1, 2, 3]),
        skip=st.integers(0, 1),
        items=draw.items,
    )
    def save_again(
        self, handle: int, session: Any, *, own: bool, keep: int, skip: int, items: list[Any]
    ) -> None:
        """Save a context that was stored, its list longer, shorter, changed or as it was.

        Args:
            handle: number of the handle.
            session: number of the session.
            own: what this handle saved last, also if others have changed it since.
            keep: how many items of the list stay.
            skip: how many after them go, if any are left.
            items: what is added.
        """
        context = copy.deepcopy(self._saved.get((handle, session))) if own else None
        if context is None:
            context = self.reference.get_context_messages(self._sessions[session])
        parts = [*context.values()] if isinstance(context, dict) else [context]
        lists = [part for part in parts if isinstance(part, list)]
        if lists:
            lists[0][keep:] = [*lists[0][keep + skip :], *items]
        self.call(handle, _SAVE, session, {"context_messages": context})

    @rule(handle=draw.handles, limit=draw.limits)
    def page_through_sessions(self, handle: int, limit: int) -> None:
        """Read all sessions, page by page."""
        self.steps.append(("page_through_sessions", (handle, limit)))
        operation = BY_NAME["get_sessions"]
        page = self.compare(handle, operation, [], {"limit": limit})
        while isinstance(page, list) and page:
            page = self.compare(handle, operation, [], {"limit": limit, "before": page[-1]})

    @rule(
        handle=draw.handles,
        session=draw.known_ids,
        limit=draw.limits,
        cursor=draw.one_of([("after", -1), ("before", 0)]),
        part=st.one_of(st.just({}), draw.some(**draw.part)),
    )
    def page_through_messages(
        self, handle: int, session: int, limit: int, cursor: tuple[str, int], part: dict[str, Any]
    ) -> None:
        """Read all messages of a session or of a part, forwards or backwards, page by page."""
        self.steps.append(("page_through_messages", (handle, session, limit, cursor, part)))
        operation, args = BY_NAME["get_conversations"], [self._sessions[session]]
        name, last = cursor
        kwargs = {"limit": limit, **self._with_ids(part)}
        page = self.compare(handle, operation, args, kwargs)
        while isinstance(page, list) and page:
            page = self.compare(handle, operation, args, {**kwargs, name: page[last]["msg_id"]})


def _rule_of(operation: Operation) -> Callable[..., None]:
    def call(self: OperationsMachine, handle: int, session: Any, arguments: Any) -> None:
        self.call(handle, operation, session, arguments)

    call.__name__ = operation.name
    return rule(handle=draw.handles, session=draw.session_ids, arguments=operation.drawn)(call)


for _operation in OPERATIONS:
    # Hypothesis draws all rules alike, and so more often what has several.
    for _number in range(_operation.weight):
        setattr(OperationsMachine, f"{_operation.name}_{_number}", _rule_of(_operation))


def compare_backends(
    one: BaseDB,
    other: BaseDB,
    *,
    examples: int,
    steps: int,
    machine: type[OperationsMachine] = OperationsMachine,
) -> None:
    """Make drawn calls on two backends, and fail with a short example that differs.

    Their clocks have to show the same time throughout. What is in them is deleted.

    Args:
        one: the one.
        other: the other; in reports, that which is right.
        examples: how many examples to draw.
        steps: how many calls an example has.
        machine: a subclass that looks at more.
    """
    run_state_machine_as_test(
        type("Pair", (machine,), {"handles": [one], "reference": other}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def of_side(kwargs: dict[str, Any], side: int) -> dict[str, Any]:
    """Return the arguments of one side."""
    return {name: arg[side] if isinstance(arg, Both) else arg for name, arg in kwargs.items()}


def outcome(side: Any, name: str, args: list[Any], kwargs: dict[str, Any]) -> object:
    """Return what a call returned, or the error that it raised."""
    try:
        return getattr(side, name)(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - both must raise the same
        return error
