r"""JSON in and out, exactly (VAL-1, VAL-2, VAL-3, VAL-6).

Functions without I/O, and without state but for who may encode; see `take_turns`.

A stored payload is compact JSON text, in one of two forms:

* plain: non-ASCII characters as they are. Nearly all payloads.
* marked: a leading tab, then pure ASCII. For payloads with lone surrogates, which UTF-8 cannot
  encode. An escape with upper-case digits (``\uD83D``) stands for a lone surrogate, a pair of
  escapes with lower-case digits (``\ud83d\ude00``) for one character beyond U+FFFF; in plain JSON
  both look alike. The plain form has no tab, and JSON allows white space before a value, so that
  other tools can read both forms.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import json
import re
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

from director_db.errors import SchemaError
from director_db.payload_rules import (
    MAX_PAYLOAD_BYTES,
    changed,
    check_payload,
    find_refused,
    too_long,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

# Below every limit that sys.set_int_max_str_digits accepts, so int() and str() cannot fail.
_INT_DIGITS_ALWAYS_SAFE: Final = 600
_LAST_OF_BMP: Final = 0xFFFF
_SURROGATES: Final = range(0xD800, 0xE000)
_MOST_BYTES: Final = 4  # of UTF-8 for a character

# What takes more than some tenths of a millisecond: so many characters, or parts.
_LONG: Final = 100_000
_MANY: Final = 500
_FIRST: Final = 8

# Nobody takes turns before there is a loop that would wait.
_large: threading.RLock | None = None
_NO_TURN: Final = contextlib.nullcontext()

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

_ESCAPED: Final = "director_db.escaped"
"""The name of the handler by which the codec of ASCII escapes what it has no bytes for."""

_ESCAPES = re.compile(r"((?:\\uD[89A-F][0-9A-F]{2})+)|\\.", re.DOTALL)


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
    if _large is not None and _is_large(value):
        with _large:
            return _checked_text(value, path)
    return _checked_text(value, path)


def take_turns() -> None:
    """Let threads encode large values one after another from now on, and not at once.

    Whoever encodes one holds the interpreter's lock for a while, and an event loop that wants it
    stands in line with all who do: behind 32 contexts of 4 MB it waited for 2.2 s, and for 0.2 s
    since they take turns.
    """
    global _large  # noqa: PLW0603 - of a fork's child, too, where nobody has it
    _large = threading.RLock()


def turn_of(value: object) -> AbstractContextManager[object]:
    """Return what to encode the parts of a value in; see `take_turns`."""
    return _NO_TURN if _large is None or not _is_large(value) else _large


def _is_large(value: object, depth: int = 3) -> bool:
    """Whether a value seems to take long to encode, after a look at its first few parts."""
    kind = type(value)
    if kind is str:
        return len(cast("str", value)) > _LONG
    if kind is not dict and kind is not list:
        return False
    parts = cast("dict[str, object] | list[object]", value)
    if len(parts) > _MANY or not depth:
        return len(parts) > _MANY
    # A copy: another thread may change it, which is told where it is encoded.
    first = [*(parts.values() if isinstance(parts, dict) else parts)][:_FIRST]
    return any(_is_large(each, depth - 1) for each in first)


def _checked_text(value: object, path: str) -> str:
    check_payload(value, path)
    try:
        # Not by the fast encoder: a thread that is struck while it imports it would leave a lock.
        text = _encode(value)
    except ValueError:
        # NaN, an infinity, or an integer beyond this process's own limit.
        refused = find_refused(value, path, 1)
        if refused is not None:
            raise refused from None
        text = _write(value)
    except RecursionError:
        raise
    except RuntimeError as error:
        raise changed(path, error) from error
    if not text.isascii():
        text = _mark_surrogates(text)
    # Counting bytes takes time, and most texts are short enough at four bytes a character.
    if len(text) * _MOST_BYTES > MAX_PAYLOAD_BYTES and payload_bytes(text) > MAX_PAYLOAD_BYTES:
        raise too_long(path)
    return text


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
def fast_codec() -> tuple[Callable[[object], bytes], Callable[[bytes], Any]]:
    """Return an encoder that takes a tenth of the time of `encode_plain`, and a decoder beside it.

    If decoding gives a value of plain types again, the text is that of `encode_plain`. The encoder
    also has texts for values that JSON has none for, as null for NaN and strings for dates; and it
    writes some floats in other digits, at which the decoder raises ValueError. Of values that are
    not plain, both may raise anything.
    """
    import msgspec  # noqa: PLC0415 - as in plain_decoder

    def parse_float(digits: str) -> float:
        number = float(digits)
        if repr(number) != digits:
            message = "encode_plain writes other digits"
            raise ValueError(message)
        return number

    decoder = msgspec.json.Decoder(float_hook=parse_float)
    return msgspec.json.Encoder().encode, decoder.decode


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


def is_marked(text: str) -> bool:
    """Whether a text has the marked form. Such a text cannot be made part of a plain one."""
    return text[:1] == MARK


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
        return MARK + text.encode("ascii", _ESCAPED).decode()
    return text


def _escape_run(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that are not ASCII, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101 - nothing else asks for it
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


codecs.register_error(_ESCAPED, _escape_run)


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
