"""What may be stored as a payload, and the path of what may not (VAL-3, VAL-6)."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from director_db.errors import InvalidRecordError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PAYLOAD_BYTES: Final = 64 * 1024 * 1024
"""The longest encoded payload, in bytes of UTF-8 (VAL-6)."""

MAX_BULK_BYTES: Final = 256 * 1024 * 1024
"""The most that the payloads of one bulk write may come to, in bytes of UTF-8 (MSG-7)."""

MAX_DEPTH: Final = 200
"""The deepest nesting of a payload; ``[]`` is 1 (VAL-6)."""

MAX_INT_DIGITS: Final = 4300
"""The longest integer inside a payload, in decimal digits (VAL-2)."""

_INT_BOUND: Final = 10**MAX_INT_DIGITS
_PLAIN_INT: Final = 2**64


class _RefusedError(Exception):
    """`_walk` found what JSON cannot store; `find_refused` then finds the path."""


class _TooLongError(Exception):
    """`_walk` found that the text would be too long; no single part is the cause."""


def check_payload(value: object, path: str, *, depth: int = 1) -> None:
    """Check a value without encoding it: all rules but NaN, infinities and the exact length.

    Args:
        value: any JSON value, as for `encode_payload`.
        path: the root of the path in an error.
        depth: how deep the value stands inside a larger one; 1 is a value of its own.

    Raises:
        InvalidRecordError: as `encode_payload`.
    """
    try:
        _walk(value, MAX_DEPTH + 1 - depth)
    except _RefusedError:
        raise find_refused(value, path, depth) or too_long(path) from None
    except _TooLongError:
        raise too_long(path) from None
    except RecursionError:
        raise
    except RuntimeError as error:
        raise changed(path, error) from error


def too_long(path: str) -> InvalidRecordError:
    """Return the error of a payload that is longer than 64 MiB (VAL-6)."""
    return InvalidRecordError(path, f"longer than {MAX_PAYLOAD_BYTES // 1024 // 1024} MiB as JSON")


def _walk(root: object, deepest: int) -> None:  # noqa: PLR0912 - a call for each would be slower
    """Refuse what cannot be stored exactly, as fast as possible.

    Iterative, as the caller may already be deep in recursion. `budget` counts down by a lower bound
    of the text's length: a small value may hold one list or string millions of times, and must be
    refused before its text fills the memory.
    """
    budget = MAX_PAYLOAD_BYTES
    above: list[Iterator[Any]] = []
    items: Iterator[Any] = iter((root,))
    while True:
        for item in items:
            kind = type(item)
            if kind is str:
                budget -= len(item)
            elif (
                (kind is int and -_PLAIN_INT < item < _PLAIN_INT)
                or item is None
                or kind is float
                or kind is bool
            ):
                continue
            else:
                children: Iterator[Any] | None
                if kind is list:
                    cost, children = 2 * len(item), iter(item)  # "1,"
                elif kind is dict:
                    cost = 0
                    for key in item:
                        if type(key) is not str:
                            cost, children = _look_at(item)
                            break
                        cost += len(key) + 5  # '"":1,'
                    else:
                        children = iter(item.values())
                else:
                    cost, children = _look_at(item)
                budget -= cost
                if budget < 0:
                    raise _TooLongError
                if children is not None:
                    if len(above) == deepest:
                        raise _RefusedError
                    above.append(items)
                    items = children
                    break
        else:
            if not above:
                break
            items = above.pop()
    if budget < 0:
        raise _TooLongError


def _look_at(item: object) -> tuple[int, Iterator[object] | None]:
    """Return a lower bound of the length of an item's own text, and its children or None.

    For what `_walk` does not handle itself. Subclasses are read as the encoder reads them, by the
    methods that they may override.
    """
    if isinstance(item, dict):
        pairs = item.items()
        plain = True
        cost = 0
        for key, _ in pairs:
            if type(key) is not str:
                if not isinstance(key, str):
                    raise _RefusedError
                plain = False
            cost += len(key) + 5  # '"":1,'
        if not plain and len({str.__str__(key) for key, _ in pairs}) != len(pairs):
            # Keys of a subclass of str may hash differently, and so have the same text twice.
            raise _RefusedError
        return cost, iter(item.values() if type(item) is dict else [value for _, value in pairs])
    if isinstance(item, (list, tuple)):
        return 2 * len(item), iter(item)  # "1,"
    if isinstance(item, str):
        return str.__len__(item), None
    if isinstance(item, float):
        return 1, None
    if isinstance(item, int):
        number = int.__index__(item)
        if not -_INT_BOUND < number < _INT_BOUND:
            raise _RefusedError
        return number.bit_length() * 3 // 10, None
    raise _RefusedError


def find_refused(root: object, path: str, depth: int) -> InvalidRecordError | None:
    """Return the error, with its path, of the first part that breaks a rule; None if none does."""
    size = 0
    stack: list[tuple[object, str, int]] = [(root, path, depth)]
    while stack and size <= MAX_PAYLOAD_BYTES:
        item, here, depth = stack.pop()
        reason = _reason(item, depth)
        if reason is not None:
            return InvalidRecordError(here, reason)
        if isinstance(item, (str, list, tuple, dict)):
            size += len(item)
        if isinstance(item, dict):
            stack.extend(
                (value, member_path(here, key), depth + 1) for key, value in [*item.items()][::-1]
            )
        elif isinstance(item, (list, tuple)):
            stack.extend(
                (value, f"{here}[{index}]", depth + 1) for index, value in [*enumerate(item)][::-1]
            )
    return None


def _reason(item: object, depth: int) -> str | None:
    if isinstance(item, float):
        if not math.isfinite(item):
            return f"{float.__repr__(item)} has no form in JSON"
    elif isinstance(item, int):
        if not -_INT_BOUND < int.__index__(item) < _INT_BOUND:
            return f"an integer has at most {MAX_INT_DIGITS:,} digits"
    elif isinstance(item, dict):
        seen: set[str] = set()
        for key, _ in item.items():  # noqa: PERF102 - as the encoder asks, and a subclass answers
            if not isinstance(key, str):
                return f"keys are str; this dict has a key of type {_type_name(key)}: use str(key)"
            if str.__str__(key) in seen:
                return f"the key {str.__str__(key)!r} stands in it twice"
            seen.add(str.__str__(key))
        if depth > MAX_DEPTH:
            return f"nests more than {MAX_DEPTH} deep"
    elif isinstance(item, (list, tuple)):
        if depth > MAX_DEPTH:
            return f"nests more than {MAX_DEPTH} deep"
    elif item is not None and not isinstance(item, str):
        from director_db.remedies import remedy  # noqa: PLC0415 - for what is refused only

        return f"JSON has no form for {_type_name(item)}: {remedy(item)}"
    return None


def member_path(path: str, key: object) -> str:
    """Return the path of a dict's member: ``path.key``, or ``path["a key"]`` (VAL-3).

    Keys that are not printable are escaped, as a path goes into logs.
    """
    name = str.__str__(key) if isinstance(key, str) else "?"
    if name.isidentifier():
        return f"{path}.{name}"
    return f"{path}[{json.dumps(name, ensure_ascii=not name.isprintable())}]"


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def changed(path: str, error: RuntimeError) -> InvalidRecordError:
    """Return the error of a value that another thread changed in the middle."""
    return InvalidRecordError(path, f"it changed while it was stored ({error})")
