"""How a clause says what it expects; a failure carries the expected and the actual value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

from director_db_conformance.transcript import shown, shown_error, transcript

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_conformance.levels import Clause

E = TypeVar("E", bound=BaseException)

_LONGEST_WHOLE: Final = 300
"""Up to so many characters, values are shown whole."""

_LONGEST_TEXT: Final = 100
_AROUND: Final = 20


class NonconformityError(AssertionError):
    """A backend does not behave as a rule says.

    Attributes:
        clause: the clause that found it; None until the clause has ended.
        rule: the rule that is broken, where that is not the clause's own.
        expected: what the rule asks for, as text.
        actual: what the backend did, as text.
        calls: the calls that show it, one a line.
    """

    def __init__(self, expected: str, actual: str, rule: str | None = None) -> None:
        """Take both sides; the calls are those of the transcript."""
        super().__init__(expected, actual)
        self.clause: Clause | None = None
        self.rule = rule
        self.expected = expected
        self.actual = actual
        self.calls = transcript.lines

    def __str__(self) -> str:
        head = [] if self.clause is None else [self.clause.title, self.clause.meaning]
        calls = [f"    {line}" for line in "\n".join(self.calls).splitlines()]
        return "\n".join(
            [*head, f"expected: {self.expected}", f"actual:   {self.actual}", "calls:", *calls]
        )


def same(one: object, other: object) -> bool:
    """Say whether two values are equal to the last bit (VAL-1).

    Python's ``==`` takes 1, 1.0 and True for equal, 0.0 and -0.0 too, and ignores the order of
    keys.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def expect(actual: object, expected: object, about: str = "") -> None:
    """Fail unless the two are the same to the last bit; `about` says what was looked at."""
    if not same(actual, expected):
        subject = f"{about}: " if about else ""
        left, right = _differing(actual, expected)
        raise NonconformityError(f"{subject}{right}", f"{subject}{left}")


def expect_that(holds: object, expected: str, actual: object) -> None:
    """Fail unless something holds; `expected` says in words what should."""
    if not holds:
        raise NonconformityError(expected, actual if isinstance(actual, str) else shown(actual))


def expect_error(kind: type[E], call: Callable[..., object], *args: Any, **kwargs: Any) -> E:
    """Fail unless the call raises just this error; return the error.

    A subclass will do. `call` is a method of a recorded handle, so the arguments are in its
    transcript.
    """
    try:
        result = call(*args, **kwargs)
    except kind as error:
        return error
    except Exception as error:
        raise NonconformityError(kind.__name__, shown_error(error, causes=True)) from error
    raise NonconformityError(kind.__name__, "returned " + shown(result))


def _differing(actual: object, expected: object) -> tuple[str, str]:
    """Show both values; where they are long, only what differs first, and where that is."""
    whole = shown(actual), shown(expected)
    if whole[0] != whole[1] and max(map(len, whole)) <= _LONGEST_WHOLE:
        return whole
    path = ""
    while True:
        step = _first_difference(actual, expected)
        if step is None:
            break
        path += f"[{shown(step)}]"
        actual, expected = actual[step], expected[step]  # type: ignore[index]
    if isinstance(actual, str) and isinstance(expected, str):
        actual, expected, path = _around_difference(actual, expected, path)
    left, right = shown(actual), shown(expected)
    if left == right or max(len(left), len(right)) > _LONGEST_WHOLE:
        left, right = f"{left} ({_kind(actual)})", f"{right} ({_kind(expected)})"
        if isinstance(actual, list) and isinstance(expected, list):
            return _of_lists(path, actual, expected)
    prefix = f"at {path}: " if path else ""
    return prefix + left, prefix + right


def _around_difference(actual: str, expected: str, path: str) -> tuple[str, str, str]:
    """Return what stands around the first difference of two long texts."""
    if max(len(actual), len(expected)) <= _LONGEST_TEXT:
        return actual, expected, path
    pairs = enumerate(zip(actual, expected, strict=False))
    shorter = min(len(actual), len(expected))
    index = next((index for index, (a, b) in pairs if a != b), shorter)
    start = max(0, index - _AROUND)
    stop = index + _AROUND
    return actual[start:stop], expected[start:stop], f"{path}[{start}:{stop}]"


def _first_difference(actual: object, expected: object) -> Any:
    """Return the key or index below which two values of one form differ first; None if here."""
    if isinstance(actual, dict) and isinstance(expected, dict) and list(actual) == list(expected):
        return next((key for key in actual if not same(actual[key], expected[key])), None)
    if isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        pairs = enumerate(zip(actual, expected, strict=True))
        return next((index for index, (a, b) in pairs if not same(a, b)), None)
    return None


def _of_lists(path: str, actual: list[Any], expected: list[Any]) -> tuple[str, str]:
    """Show lists of different lengths: how long they are, and where they part."""
    pairs = enumerate(zip(actual, expected, strict=False))
    shorter = min(len(actual), len(expected))
    index = next((index for index, (a, b) in pairs if not same(a, b)), shorter)
    here = f"at {path}: " if path else ""

    def text(items: list[Any]) -> str:
        first = shown(items[index]) if index < len(items) else "nothing"
        return f"{here}{len(items)} items; [{index}] is {first}"

    return text(actual), text(expected)


def _kind(value: object) -> str:
    size = f" of {len(value)}" if isinstance(value, (str, bytes, list, tuple, dict)) else ""
    return f"{type(value).__module__}.{type(value).__name__}{size}"
