r"""JSON in and out, exactly (VAL-1, VAL-2, VAL-3, VAL-6).

Pure functions, without I/O or state.

A stored payload is compact JSON text, in one of two forms:

* plain: non-ASCII characters as they are. Nearly all payloads.
* marked: a leading tab, then pure ASCII. For payloads with lone surrogates, which UTF-8 cannot
  encode. An escape with upper-case digits (``\uD83D``) stands for a lone surrogate, a pair of
  escapes with lower-case digits (``\ud83d\ude00``) for one character beyond U+FFFF; in plain JSON
  both look alike. The plain form has no tab, and JSON allows white space before a value, so that
  other tools can read both forms.
"""

from __future__ import annotations

import functools
import json
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from director_db.errors import InvalidRecordError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
# Below every limit that sys.set_int_max_str_digits accepts, so int() and str() cannot fail.
_INT_DIGITS_ALWAYS_SAFE: Final = 600
_LAST_OF_BMP: Final = 0xFFFF
_SURROGATES: Final = range(0xD800, 0xE000)
_MOST_BYTES: Final = 4  # of UTF-8 for a character
MARK: Final = "\t"
"""What the marked form begins with, and the plain form never does."""


def _make_encoder() -> Callable[[object], str]:
    """Return a function that writes a checked value as compact JSON.

    `json.JSONEncoder.encode` makes a new C encoder for each value, which takes longer than encoding
    most payloads. So one C encoder is made here, where the interpreter has it.
    """
    encoder = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    quote = json.encoder.encode_basestring
    parts = make(None, encoder.default, quote, None, ":", ",", False, False, False)  # noqa: FBT003
    return lambda value: "".join(parts(value, 0))


_encode: Final = _make_encoder()

_NON_ASCII = re.compile(r"[^\x00-\x7f]+")
_ESCAPES = re.compile(r"((?:\\uD[89A-F][0-9A-F]{2})+)|\\.", re.DOTALL)


class _RefusedError(Exception):
    """`_walk` found what JSON cannot store; `_find_refused` then finds the path."""


class _TooLongError(Exception):
    """`_walk` found that the text would be too long; no single part is the cause."""


def encode_payload(value: object, path: str) -> str:
    """Return the stored text of a payload.

    Args:
        value: any JSON value; tuples and subclasses of the JSON types count as the plain type.
        path: the name of the field, the root of the path in an error.

    Raises:
        InvalidRecordError: JSON has no exact form for something inside the value, an integer has
            more than 4,300 digits, it nests more than 200 deep, or its text is longer than 64 MiB.
    """
    # The most common values: three of a message's four payloads are usually empty. The type is
    # asked first: whether another object counts as true may be code of the caller that raises.
    kind = type(value)
    if kind is list and not value:
        return "[]"
    if kind is dict and not value:
        return "{}"
    check_payload(value, path)
    try:
        text = _encode(value)
    except ValueError:
        # NaN, an infinity, or an integer beyond this process's own limit.
        refused = _find_refused(value, path, 1)
        if refused is not None:
            raise refused from None
        text = _write(value)
    except RecursionError:
        raise
    except RuntimeError as error:
        raise _changed(path, error) from error
    if not text.isascii():
        text = _mark_surrogates(text)
    # Counting bytes takes time, and most texts are short enough at four bytes a character.
    if len(text) * _MOST_BYTES > MAX_PAYLOAD_BYTES and payload_bytes(text) > MAX_PAYLOAD_BYTES:
        raise too_long(path)
    return text


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
        raise _find_refused(value, path, depth) or too_long(path) from None
    except _TooLongError:
        raise too_long(path) from None
    except RecursionError:
        raise
    except RuntimeError as error:
        raise _changed(path, error) from error


def encode_plain(value: object) -> str:
    """Return the text of a checked value of plain types, without any further check.

    Raises:
        ValueError: it holds NaN, an infinity, or an integer beyond this process's own limit.
        TypeError: it holds an object that has no form in JSON.
    """
    return _encode(value)


@functools.cache
def plain_decoder() -> tuple[Callable[[str], Any], tuple[type[Exception], ...]]:
    """Return the fast decoder of plain texts, and the exceptions by which it refuses a few of them.

    `decode_payload` can decode those too. Call this decoder directly where there are many texts.
    """
    # msgspec's and orjson's encoders write NaN as null, and orjson reads long integers as floats;
    # only msgspec's decoder is exact. Imported when needed: a third of director_db's import time.
    import msgspec  # noqa: PLC0415

    return msgspec.json.Decoder().decode, (msgspec.DecodeError, UnicodeEncodeError)


@functools.cache
def fast_codec() -> tuple[
    Callable[[object], bytes], Callable[[bytes], Any], tuple[type[Exception], ...]
]:
    """Return an encoder that takes a tenth of the time of `encode_plain`, and a decoder beside it.

    What comes back from the decoder as it was has the very text of `encode_plain`. The encoder also
    has texts for values that JSON has none for, as null for NaN and strings for dates; and it
    writes some floats in other digits, at which the decoder raises ValueError. What both raise
    comes third.
    """
    import msgspec  # noqa: PLC0415 - as above

    def parse_float(digits: str) -> float:
        number = float(digits)
        if repr(number) != digits:
            message = "encode_plain writes other digits"
            raise ValueError(message)
        return number

    decoder = msgspec.json.Decoder(float_hook=parse_float)
    refusals = (msgspec.DecodeError, ValueError, TypeError, RecursionError)
    return msgspec.json.Encoder().encode, decoder.decode, refusals


def decode_payload(text: str) -> Any:
    """Return the value of a stored text: equal to what was stored, and the caller's own.

    Raises:
        SchemaError: the text is not JSON, so something else wrote it.
    """
    if not is_marked(text):
        decode, refusals = plain_decoder()
        try:
            return decode(text)
        except refusals:
            # Surrogate escapes, very long integers, or not JSON at all: json tells which.
            pass
    else:
        text = _ESCAPES.sub(_unescape, text)
    try:
        return json.loads(text, parse_int=_parse_int)
    except ValueError as error:
        message = f"A stored payload is not JSON: {error}. Something else wrote it."
        raise SchemaError(message) from error


def payload_bytes(text: str) -> int:
    """Return the length of an encoded payload in bytes of UTF-8, without a mark."""
    return (len(text) if text.isascii() else len(text.encode())) - text.startswith(MARK)


def too_long(path: str) -> InvalidRecordError:
    """Return the error of a payload that is longer than 64 MiB (VAL-6)."""
    return InvalidRecordError(path, f"longer than {MAX_PAYLOAD_BYTES // 1024 // 1024} MiB as JSON")


def is_marked(text: str) -> bool:
    """Whether a text has the marked form. Such a text cannot be made part of a plain one."""
    return text[:1] == MARK


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


def _find_refused(root: object, path: str, depth: int) -> InvalidRecordError | None:
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


def _changed(path: str, error: RuntimeError) -> InvalidRecordError:
    return InvalidRecordError(path, f"it changed while it was stored ({error})")


def _write(value: object) -> str:
    """Encode a value with integers that are beyond this process's own limit."""
    if isinstance(value, dict):
        pairs = (f"{_encode(key)}:{_write(item)}" for key, item in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_write, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        # Decimal converts exactly, and no limit applies to it.
        return str(Decimal(int.__index__(value)))
    return _encode(value)


def _parse_int(digits: str) -> int:
    return int(digits) if len(digits) < _INT_DIGITS_ALWAYS_SAFE else int(Decimal(digits))


def _mark_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return MARK + _NON_ASCII.sub(lambda run: "".join(map(_escape, run[0])), text)
    return text


@functools.lru_cache(4096)
def _escape(character: str) -> str:
    code = ord(character)
    if code > _LAST_OF_BMP:
        high, low = divmod(code - 0x10000, 0x400)
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
    return f"\\u{code:04X}" if code in _SURROGATES else f"\\u{code:04x}"


def _unescape(match: re.Match[str]) -> str:
    codes = match[1].removeprefix("\\u").split("\\u") if match[1] else []
    return "".join([chr(int(code, 16)) for code in codes]) or match[0]
