"""VAL-1, VAL-2, VAL-3, VAL-6, VAL-7: payloads, and who owns them."""

from __future__ import annotations

import copy
import functools
import json
import math
import sys
import unicodedata
from datetime import date
from decimal import Decimal
from enum import Enum

from director_db import InvalidRecordError
from director_db.payload import decode_payload, encode_payload, payload_bytes
from director_db.payload_rules import MAX_DEPTH, MAX_PAYLOAD_BYTES
from gallery.broken import BrokenDB, replace

_MOST_PARTS = 100_000


def _is_huge(value):
    """Say whether a value has no end, or one too far off to look at all of it."""
    parts, size, left = 0, 0, [value]
    while left and parts < _MOST_PARTS and size < 3 * MAX_PAYLOAD_BYTES:
        item = left.pop()
        parts += 1
        if isinstance(item, str):
            size += str.__len__(item)
        elif isinstance(item, dict):
            left += [*item, *item.values()]
        elif isinstance(item, (list, tuple)):
            left += item[:_MOST_PARTS]
    return bool(left)


class _Coercing(BrokenDB):
    """Changes what is inside a payload before it is stored."""

    @classmethod
    def break_code(cls):
        def broken(value, path):
            return encode_payload(value if _is_huge(value) else cls._walked(value), path)

        replace(encode_payload, broken)

    @classmethod
    def _walked(cls, value, depth=0):
        if depth > MAX_DEPTH:
            return value  # It is refused anyway.
        value = cls._coerced(value)
        if type(value) is dict:
            return {
                cls._coerced_key(key): cls._walked(item, depth + 1) for key, item in value.items()
            }
        if type(value) in {list, tuple}:
            return [cls._walked(item, depth + 1) for item in value]
        return value

    @classmethod
    def _coerced(cls, value):
        return value

    @classmethod
    def _coerced_key(cls, key):
        return key


class _CoercingTexts(_Coercing):
    """Changes the texts, the keys too."""

    @classmethod
    def _coerced(cls, value):
        return cls._text(value) if type(value) is str else value

    @classmethod
    def _coerced_key(cls, key):
        return cls._text(key) if type(key) is str else key

    @classmethod
    def _text(cls, text):
        raise NotImplementedError


# --- VAL-1 --------------------------------------------------------------------------------------


class KeysSorted(_Coercing, rule="VAL-1"):
    """sort_keys=True, for stable diffs."""

    @classmethod
    def _coerced(cls, value):
        if type(value) is dict and all(type(key) is str for key in value):
            return dict(sorted(value.items()))
        return value


class KeysByLength(_Coercing, rule="VAL-1"):
    """JSONB: shorter keys first."""

    @classmethod
    def _coerced(cls, value):
        if type(value) is dict and all(type(key) is str for key in value):
            return dict(sorted(value.items(), key=lambda pair: (len(pair[0]), pair[0])))
        return value


class NullsLeftOut(_Coercing, rule="VAL-1"):
    """Keys whose value is null are dropped to save space."""

    @classmethod
    def _coerced(cls, value):
        if type(value) is dict:
            return {key: item for key, item in value.items() if item is not None}
        return value


class WholeFloatsToInt(_Coercing, rule="VAL-1"):
    """1.0 and 1e16 come back as integers, as from JSONB and JavaScript."""

    @classmethod
    def _coerced(cls, value):
        return int(value) if type(value) is float and value.is_integer() else value


class LargeFloatsToInt(_Coercing, rule="VAL-1"):
    """1e16 is written without its exponent, and read as an integer."""

    @classmethod
    def _coerced(cls, value):
        return int(value) if type(value) is float and 1e16 <= abs(value) < 1e300 else value


class NegativeZeroLosesItsSign(_Coercing, rule="VAL-1"):
    """``value or 0.0``, or a type of decimals."""

    @classmethod
    def _coerced(cls, value):
        return 0.0 if type(value) is float and value == 0 else value


class FloatsRounded(_Coercing, rule="VAL-1"):
    """Fifteen digits, as many printers of floats give."""

    @classmethod
    def _coerced(cls, value):
        return float(f"{value:.15g}") if type(value) is float else value


class IntsToFloat(_Coercing, rule="VAL-1"):
    """One type of numbers, as in JavaScript: 1 comes back as 1.0."""

    @classmethod
    def _coerced(cls, value):
        return float(value) if type(value) is int and abs(value) < 2**53 else value


class TrueToOne(_Coercing, rule="VAL-1"):
    """No booleans, as in SQLite's columns."""

    @classmethod
    def _coerced(cls, value):
        return int(value) if type(value) is bool else value


class TextsNormalised(_CoercingTexts, rule="VAL-2"):
    """NFC: composed and decomposed accents become one."""

    @classmethod
    def _text(cls, text):
        return unicodedata.normalize("NFC", text)


class TextsTrimmed(_CoercingTexts, rule="VAL-1"):
    """strip() on the way in."""

    @classmethod
    def _text(cls, text):
        return text.strip()


class LineEndsChanged(_CoercingTexts, rule="VAL-2"):
    """Text mode: \\r\\n becomes \\n."""

    @classmethod
    def _text(cls, text):
        return text.replace("\r\n", "\n")


class EmptyTextsToNull(_Coercing, rule="VAL-1"):
    """An empty text is null, as in Oracle."""

    @classmethod
    def _coerced(cls, value):
        return None if type(value) is str and not value else value


class ControlCharactersDropped(_CoercingTexts, rule="VAL-1"):
    """Cleaned of what cannot be printed: the escapes of a terminal's output, too."""

    @classmethod
    def _text(cls, text):
        return "".join(c for c in text if c in "\t\n\r" or not "\x01" <= c < " ")


class MarkupEscaped(_CoercingTexts, rule="VAL-1"):
    """Escaped for HTML on the way in."""

    @classmethod
    def _text(cls, text):
        return text.replace("&", "&amp;").replace("<", "&lt;")


class JsonInATextParsed(_Coercing, rule="VAL-1"):
    """A text that looks like JSON is decoded once more: arguments of a tool call become a dict."""

    @classmethod
    def _coerced(cls, value):
        if type(value) is str and value[:1] in {"{", "["}:
            try:
                return json.loads(value)
            except ValueError:
                return value
        return value


# --- VAL-2 --------------------------------------------------------------------------------------


class SurrogatesReplaced(_CoercingTexts, rule="VAL-2"):
    """encode(errors="replace"): a lone surrogate becomes a question mark."""

    @classmethod
    def _text(cls, text):
        return text.encode(errors="replace").decode()


class SurrogatesRefused(_CoercingTexts, rule="VAL-2"):
    """UTF-8 has no form for them, so they are refused."""

    @classmethod
    def _text(cls, text):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidRecordError("content", "a lone surrogate") from None
        return text


class SurrogatesJoined(_CoercingTexts, rule="VAL-2"):
    """A high and a low one side by side become one character, as json.loads does it."""

    @classmethod
    def _text(cls, text):
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


class TextsEndAtNul(_CoercingTexts, rule="VAL-2"):
    """A text of C ends at U+0000."""

    @classmethod
    def _text(cls, text):
        return text.partition("\0")[0]


class NulDropped(_CoercingTexts, rule="VAL-2"):
    """U+0000 is taken out, since Postgres refuses it in its own types."""

    @classmethod
    def _text(cls, text):
        return text.replace("\0", "")


class AstralReplaced(_CoercingTexts, rule="VAL-2"):
    """Three bytes a character, as in MySQL's utf8: an emoji becomes a question mark."""

    @classmethod
    def _text(cls, text):
        return "".join("?" if ord(character) > 0xFFFF else character for character in text)


class LongIntsToFloat(_Coercing, rule="VAL-1"):
    """Beyond 64 bits a number is a float, as orjson reads it."""

    @classmethod
    def _coerced(cls, value):
        if type(value) is int and not -(2**63) <= value < 2**64 and abs(value) < 10**300:
            return float(value)
        return value


class LongIntsRefused(_Coercing, rule="VAL-2"):
    """Beyond 64 bits a number is refused, as orjson writes it."""

    @classmethod
    def _coerced(cls, value):
        if type(value) is int and not -(2**63) <= value < 2**64:
            raise InvalidRecordError("content", "at most 64 bits")
        return value


class ExactIntsOfFloats(_Coercing, rule="VAL-1"):
    """Beyond 2**53 a number loses its last digits, as in JavaScript."""

    @classmethod
    def _coerced(cls, value):
        if type(value) is int and 2**53 < abs(value) < 2**64:
            return int(float(value))
        return value


class IntsLimitedByTheProcess(BrokenDB, rule="VAL-2"):
    """str() and int() obey sys.set_int_max_str_digits."""

    @classmethod
    def break_code(cls):
        def broken(value, path):
            try:
                if not _is_huge(value):
                    json.dumps(value)
            except ValueError as error:
                if "digits" in str(error):
                    raise InvalidRecordError(path, str(error)) from error
            except (TypeError, RecursionError):
                pass
            return encode_payload(value, path)

        replace(encode_payload, broken)


class ReadingIsLimitedByTheProcess(BrokenDB, rule="VAL-2"):
    """What was written under one limit cannot be read under another."""

    @classmethod
    def break_code(cls):
        def broken(text):
            limit = sys.get_int_max_str_digits()
            if limit and any(len(run) > limit for run in _digit_runs(text)):
                raise InvalidRecordError("content", f"more than {limit} digits")
            return decode_payload(text)

        replace(decode_payload, broken)


def _digit_runs(text):
    return "".join(c if c.isdecimal() else " " for c in text).split() if len(text) > 600 else []


# --- VAL-3 --------------------------------------------------------------------------------------


class NanToNull(_Coercing, rule="VAL-3"):
    """orjson and msgspec write NaN as null."""

    @classmethod
    def _coerced(cls, value):
        return None if isinstance(value, float) and not math.isfinite(value) else value


class InfinityToALargeNumber(_Coercing, rule="VAL-3"):
    """The largest float stands for what is larger."""

    @classmethod
    def _coerced(cls, value):
        if isinstance(value, float) and math.isinf(value):
            return math.copysign(sys.float_info.max, value)
        return value


class NanAsAText(_Coercing, rule="VAL-3"):
    """repr() for what has no form."""

    @classmethod
    def _coerced(cls, value):
        return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


class KeysToText(_Coercing, rule="VAL-3"):
    """json.dumps makes "1" of the key 1."""

    @classmethod
    def _coerced_key(cls, key):
        return key if isinstance(key, str) else json.dumps(key, default=str)


class OtherKeysSkipped(_Coercing, rule="VAL-3"):
    """skipkeys=True."""

    @classmethod
    def _coerced(cls, value):
        if type(value) is dict:
            return {key: item for key, item in value.items() if isinstance(key, str)}
        return value


class ObjectsToText(_Coercing, rule="VAL-3"):
    """default=str: a date, a Decimal or any object is stored as its text."""

    @classmethod
    def _coerced(cls, value):
        known = value is None or isinstance(value, (str, int, float, list, tuple, dict))
        return value if known else str(value)


class SetsToLists(_Coercing, rule="VAL-3"):
    """A set becomes a list in some order."""

    @classmethod
    def _coerced(cls, value):
        return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value


class BytesDecoded(_Coercing, rule="VAL-3"):
    """Bytes become a text where they are one, as orjson's and msgspec's users expect."""

    @classmethod
    def _coerced(cls, value):
        return value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else value


class DecimalsToFloat(_Coercing, rule="VAL-3"):
    """A Decimal becomes a float."""

    @classmethod
    def _coerced(cls, value):
        return float(value) if isinstance(value, Decimal) else value


class DatesToText(_Coercing, rule="VAL-3"):
    """A date becomes its ISO form, as msgspec writes it."""

    @classmethod
    def _coerced(cls, value):
        return value.isoformat() if isinstance(value, date) else value


class TuplesRefused(_Coercing, rule="VAL-3"):
    """A list is a list."""

    @classmethod
    def _coerced(cls, value):
        if isinstance(value, tuple):
            raise InvalidRecordError("content", "a list, not a tuple")
        return value


class SubclassesRefused(_Coercing, rule="VAL-3"):
    """type(value) is str: an Enum that is a str is refused."""

    @classmethod
    def _coerced(cls, value):
        for plain in (str, int, float, list, dict):
            if isinstance(value, plain) and type(value) not in {plain, bool}:
                raise InvalidRecordError("content", f"a plain {plain.__name__}")
        return value


class EnumsByTheirName(_Coercing, rule="VAL-3"):
    """str(value): an Enum that is a str is stored as ``Kind.TEXT``."""

    @classmethod
    def _coerced(cls, value):
        return f"{type(value).__name__}.{value.name}" if isinstance(value, Enum) else value


class EnumKeysByTheirName(_Coercing, rule="VAL-3"):
    """The same, in keys only."""

    @classmethod
    def _coerced_key(cls, key):
        return f"{type(key).__name__}.{key.name}" if isinstance(key, Enum) else key


class LastOfEqualKeysWins(_Coercing, rule="VAL-3"):
    """Two keys of one text are written, and the last is read."""

    @classmethod
    def _coerced(cls, value):
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {str.__str__(key): item for key, item in value.items()}
        return value


class _OtherErrors(BrokenDB):
    """Raises what `_error` makes of the right error of a payload."""

    @classmethod
    def break_code(cls):
        def broken(value, path):
            try:
                return encode_payload(value, path)
            except InvalidRecordError as error:
                raise cls._error(error, path) from error

        replace(encode_payload, broken)

    @classmethod
    def _error(cls, error, path):
        raise NotImplementedError


class PathOfTheFieldAlone(_OtherErrors, rule="VAL-3"):
    """The error names the argument, and not the place inside."""

    @classmethod
    def _error(cls, error, path):
        return InvalidRecordError(path, error.reason)


class PathWithoutItsField(_OtherErrors, rule="VAL-3"):
    """The path begins inside the payload, as a checker of JSON would give it."""

    @classmethod
    def _error(cls, error, path):
        return InvalidRecordError(error.path.removeprefix(path) or "$", error.reason)


class PathWithDotsOnly(_OtherErrors, rule="VAL-3"):
    """Indexes and keys alike with a dot: ``content.0.score``."""

    @classmethod
    def _error(cls, error, path):
        inside = error.path.removeprefix(path).replace("[", ".").replace("]", "").replace('"', "")
        return InvalidRecordError(path + inside, error.reason)


class PathInAscii(_OtherErrors, rule="VAL-3"):
    """A quoted key as another encoder writes it: ``content["\\u00e9 b"]``."""

    @classmethod
    def _error(cls, error, path):
        spelled = error.path.encode("ascii", "backslashreplace").decode().replace("\\x", "\\u00")
        return InvalidRecordError(spelled if '["' in spelled else error.path, error.reason)


class RefusalIsATypeError(_OtherErrors, rule="VAL-3"):
    """What json.dumps raises is handed on."""

    @classmethod
    def _error(cls, error, path):
        return TypeError(str(error))


class RefusedContextDeletesTheOldOne(BrokenDB, rule="VAL-3"):
    """Delete, then insert: when the new value is refused, the old one is gone."""

    def add_or_update_context_msg(self, session_id, context_messages, *args, **kwargs):
        try:
            return super().add_or_update_context_msg(session_id, context_messages, *args, **kwargs)
        except InvalidRecordError:
            self.delete_context(session_id)
            raise


# --- VAL-6 --------------------------------------------------------------------------------------


def _depth(value):
    """Return how deep a value nests, without recursion; at least as much as is refused."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        inner = [item for item in level if isinstance(item, (list, tuple, dict))]
        depth += bool(inner)
        level = [
            child for item in inner for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


class _OtherBounds(BrokenDB):
    """Refuses payloads by bounds of its own."""

    deepest = MAX_DEPTH
    longest = MAX_PAYLOAD_BYTES

    @classmethod
    def _size(cls, text):
        return payload_bytes(text)

    @classmethod
    def break_code(cls):
        def broken(value, path):
            text = encode_payload(value, path)
            if _depth(value) > cls.deepest:
                raise InvalidRecordError(path, "nests too deep")
            if cls._size(text) > cls.longest:
                raise InvalidRecordError(path, "too long")
            return text

        replace(encode_payload, broken)


class ScalarsCountAsALevel(_OtherBounds, rule="VAL-6"):
    """A list of 200 levels with a number in it is taken for 201."""

    deepest = MAX_DEPTH - 1


class HalfAsDeep(_OtherBounds, rule="VAL-6"):
    """100 levels, the usual bound of databases' own JSON types."""

    deepest = MAX_DEPTH // 2


class SixteenMebibytes(_OtherBounds, rule="VAL-6"):
    """MEDIUMTEXT, or a document of BSON."""

    longest = 16 * 1024 * 1024 - 1


class MetadataOfAMebibyte(_OtherBounds, rule="VAL-6"):
    """Only content is thought of as long: the column beside it is a shorter one."""

    @classmethod
    def break_code(cls):
        def broken(value, path):
            text = encode_payload(value, path)
            if path.rpartition(".")[2] == "metadata" and len(text) > 1024 * 1024:
                raise InvalidRecordError(path, "too long")
            return text

        replace(encode_payload, broken)


class OneByteLess(_OtherBounds, rule="VAL-6"):
    """< for <=."""

    longest = MAX_PAYLOAD_BYTES - 1


class _LooserBounds(BrokenDB):
    """Stores what is beyond a bound."""

    @classmethod
    def break_code(cls):
        def broken(value, path):
            try:
                return encode_payload(value, path)
            except InvalidRecordError:
                text = None if _is_huge(value) else cls._text(value)
                if text is None:
                    raise
                return text

        replace(encode_payload, broken)

    @classmethod
    def _text(cls, value):
        """Return the text of a value that was refused, None if it stays so."""
        raise NotImplementedError


class AnyDepth(_LooserBounds, rule="VAL-6"):
    """No bound of depth but the interpreter's."""

    @classmethod
    def _text(cls, value):
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return None
        return text if MAX_DEPTH < _depth(value) and len(text) < 10_000 else None


class CharactersForBytes(_LooserBounds, rule="VAL-6"):
    """len(text) is taken for its length in UTF-8."""

    @classmethod
    def _text(cls, value):
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            return None
        return text if len(text) <= MAX_PAYLOAD_BYTES < payload_bytes(text) else None


class OneByteMore(_LooserBounds, rule="VAL-6"):
    """<= for <."""

    @classmethod
    def _text(cls, value):
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            return None
        return text if payload_bytes(text) == MAX_PAYLOAD_BYTES + 1 else None


# --- VAL-7 --------------------------------------------------------------------------------------


class ArgumentsKept(BrokenDB, rule="VAL-7"):
    """A cache of what was written holds the caller's own object."""

    def add_or_update_context_msg(self, session_id, context_messages, *args, **kwargs):
        stored = super().add_or_update_context_msg(session_id, context_messages, *args, **kwargs)
        self.__dict__.setdefault("_kept", {})[session_id] = context_messages
        return stored

    def get_context_messages(self, session_id):
        stored = super().get_context_messages(session_id)
        kept = self.__dict__.get("_kept", {}).get(session_id)
        return kept if isinstance(kept, (dict, list)) and stored and len(kept) else stored


class ResultsShared(BrokenDB, rule="VAL-7"):
    """A cache of what was read gives the same object twice."""

    def get_message(self, session_id, msg_id):
        found = super().get_message(session_id, msg_id)
        cached = self.__dict__.setdefault("_cached", {})
        if found == cached.get((session_id, msg_id, "copy")):
            return cached[session_id, msg_id]
        cached[session_id, msg_id] = found
        cached[session_id, msg_id, "copy"] = copy.deepcopy(found)
        return found


class PayloadsShared(BrokenDB, rule="VAL-7"):
    """Equal texts are decoded once: two messages hold one list."""

    @classmethod
    def break_code(cls):
        decode = functools.cache(decode_payload)
        replace(decode_payload, decode)


EMPTY = {}


class OneEmptyDict(BrokenDB, rule="VAL-7"):
    """One {} for all that is not there."""

    def get_session(self, session_id):
        return super().get_session(session_id) or EMPTY

    def get_context_messages(self, session_id):
        found = super().get_context_messages(session_id)
        return EMPTY if found == {} else found


class OneEmptyList(BrokenDB, rule="VAL-7"):
    """One [] for every conversation that is empty."""

    empty = []  # noqa: RUF012 - shared, which is the mistake

    def get_conversations(self, session_id, **kwargs):
        return super().get_conversations(session_id, **kwargs) or self.empty


class BulkPopsTheSession(BrokenDB, rule="MSG-7"):
    """``message.pop("session_id")`` on the caller's own dict."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        answers = super().add_or_update_msgs_to_conv(session_id, messages)
        for message in messages:
            message.pop("session_id", None)
        return answers


class DefaultsFilledIn(BrokenDB, rule="VAL-7"):
    """``message.setdefault("status", None)`` on the caller's own dict."""

    def add_or_update_msgs_to_conv(self, session_id, messages):
        answers = super().add_or_update_msgs_to_conv(session_id, messages)
        for message in messages:
            message.setdefault("status", None)
        return answers


class AppendFillsTheCallersList(BrokenDB, rule="VAL-7"):
    """The list of the context grows in the hands of the caller."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        length = super().append_context_messages(session_id, messages, key=key)
        if isinstance(messages, list):
            context = self.get_context_messages(session_id)
            messages[:] = context if key is None else context[key]
        return length


class MetadataStamped(BrokenDB, rule="VAL-7"):
    """Something is added to the caller's own metadata."""

    def create_session(self, session_id, *args, metadata=None, **kwargs):
        is_new = super().create_session(session_id, *args, metadata=metadata, **kwargs)
        if isinstance(metadata, dict):
            metadata.setdefault("stored", True)
        return is_new
