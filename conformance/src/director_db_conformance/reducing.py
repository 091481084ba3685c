"""Reducing a row of calls that shows a difference to the least that still shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from director_db_conformance.expectation import same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from director_db_conformance.expectation import NonconformityError
    from director_db_conformance.game import Move

_MOST_REPLAYS: Final = 400
"""How often a row is played again. A number and not a time, so that a busy machine reports the
same."""

_GONE: Final = object()
"""Stands for leaving something out."""

_PAYLOADS: Final[tuple[Any, ...]] = ([], 1, "x", {})
_SIMPLE: Final[dict[str, tuple[Any, ...]]] = {
    "created_at": (0, 1, 2, 3),
    "updated_at": (0, 1, 2, 3),
    "limit": (1, 2, 3),
    "msg_type": ("x",),
    **dict.fromkeys(["agents", "actions", "content", "context_messages", "metadata"], _PAYLOADS),
}
"""What is put in the place of an argument, the simplest first."""

_OPTIONAL: Final = {
    "video_id", "collection_id", "created_at", "updated_at", "metadata", "connection", "status",
    "key", "before", "after",
}  # fmt: skip
_MESSAGE_IDS: Final = ("msg_id", "before", "after")
_IDS: Final = (*_MESSAGE_IDS, "conv_id", "video_id", "collection_id")

Path = tuple[Any, ...]


class Failure(NamedTuple):
    """A difference, and the calls up to it."""

    error: NonconformityError
    row: Sequence[Move]


def reduced(
    failure: Failure, replay: Callable[[Sequence[Move]], Failure | None]
) -> NonconformityError:
    """Return the difference that the least calls with the simplest arguments show.

    By hand: Hypothesis takes the drawn choices for what has to be simple, and needs far longer to
    get rid of the calls that have no part in it.

    Args:
        failure: what was found.
        replay: plays a row on fresh ids, and returns what differs, or None.
    """
    reduction = _Reduction(failure, replay)
    # What comes and goes cannot be reduced: no row tells whether the calls left out matter.
    if reduction.shows(failure.row):
        while reduction.has_less():
            pass
    return reduction.failure.error


class _Reduction:
    """The least row so far."""

    def __init__(
        self, failure: Failure, replay: Callable[[Sequence[Move]], Failure | None]
    ) -> None:
        self.failure = failure
        self._row = failure.row
        self._replay = replay
        self._left = _MOST_REPLAYS
        self._known: set[str] = set()

    def shows(self, row: Sequence[Move]) -> bool:
        """Play a row; keep it and say True if it breaks the same rule."""
        text = repr(row)
        if self._left == 0 or text in self._known:
            return False
        self._left -= 1
        self._known.add(text)
        found = self._replay(row)
        if found is None or found.error.rule != self.failure.error.rule:
            return False
        self.failure, self._row = found, row
        return True

    def has_less(self) -> bool:
        """Go over everything once; say whether something could go."""
        # Each takes the row as the one before has left it.
        changes = (self._without_calls, self._fewer_ids, self._simpler_arguments)
        smaller = False
        for change in changes:
            self._row = self.failure.row
            for row in change():
                smaller = self.shows(row) or smaller
        return smaller

    def _without_calls(self) -> Iterator[list[Move]]:
        size = len(self._row) // 2 or 1
        while size:
            for start in range(len(self._row) - size, -1, -size):
                yield [*self._row[:start], *self._row[start + size :]]
            size //= 2

    def _fewer_ids(self) -> Iterator[list[Move]]:
        """Yield the row with one session or message instead of another, or on the first handle."""
        for old in (3, 2, 1):
            for new in range(old):
                yield [
                    move._replace(session=new) if _is(move.session, old) else move
                    for move in self._row
                ]
                yield [
                    move._replace(arguments=_renamed(move.arguments, old, new))
                    for move in self._row
                ]
        for index in range(len(self._row)):
            yield self._with(index, self._row[index]._replace(session=0))
            yield self._with(index, self._row[index]._replace(handle=0))

    def _simpler_arguments(self) -> Iterator[list[Move]]:
        for index in reversed(range(len(self._row))):
            # From the end, so that what is left out does not move what comes next.
            for path in list(_paths(self._row[index].arguments)):
                move = self._row[index]
                for value in _simpler(move, path):
                    arguments = _changed(move.arguments, path, value)
                    row = self._with(index, move._replace(arguments=arguments))
                    yield row
                    if self._row is row:
                        break

    def _with(self, index: int, move: Move) -> list[Move]:
        return [*self._row[:index], move, *self._row[index + 1 :]]


def _is(value: Any, number: int) -> bool:
    return type(value) is int and value == number


def _renamed(arguments: dict[str, Any], old: int, new: int) -> dict[str, Any]:
    renamed: dict[str, Any] = {
        key: new if key in _MESSAGE_IDS and _is(value, old) else value
        for key, value in arguments.items()
    }
    if _is_bulk(renamed):
        renamed["messages"] = [_renamed(message, old, new) for message in renamed["messages"]]
    return renamed


def _is_bulk(arguments: dict[str, Any]) -> bool:
    messages = arguments.get("messages") or [None]
    return all(isinstance(message, dict) and "msg_id" in message for message in messages)


def _paths(value: Any) -> Iterator[Path]:
    """Yield the way to everything in a value: the whole before its parts, the last part first."""
    steps: Iterable[Any] = ()
    if type(value) is dict:
        steps = value
    elif type(value) is list:
        steps = range(len(value))
    for step in reversed([*steps]):
        yield (step,)
        yield from ((step, *path) for path in _paths(value[step]))


def _simpler(move: Move, path: Path) -> Iterator[Any]:
    """Yield what may stand at a place, the simplest first; nothing if it is as simple already."""
    try:
        present = _at(move.arguments, path)
    except (LookupError, TypeError):  # It went with what it was a part of.
        return
    is_bulk = _is_bulk(move.arguments)
    inside = path[2:] if is_bulk and path[0] == "messages" else path
    name = inside[0] if len(inside) == 1 else None
    if _can_go(move.name, name):
        yield _GONE
    if name in _IDS:
        # The cursor of a page of sessions is neither an int nor a text, and stays.
        values: Sequence[Any] = ()
        if type(present) is int:
            values = range(present)
        elif type(present) is str:
            values = (0,)
    elif name is None:
        values = () if is_bulk and len(path) == 2 else _PAYLOADS  # noqa: PLR2004 - a message
    else:
        values = _SIMPLE.get(name, ())
    for value in values:
        if same(value, present):
            return
        yield value


def _can_go(operation: str, name: Any) -> bool:
    if name is None:  # In a list or a payload.
        return True
    return name in _OPTIONAL or (name == "limit" and operation.startswith("get_"))


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _changed(value: Any, path: Path, part: Any) -> Any:
    """Return a copy with another part at a place, or without it."""
    step, *rest = path
    copy = value.copy()
    if rest:
        copy[step] = _changed(value[step], tuple(rest), part)
    elif part is _GONE:
        del copy[step]
    else:
        copy[step] = part
    return copy
