"""VAL-3 and VAL-6: what a payload cannot hold, and what it holds in another form."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import enum
import itertools
import math
import uuid
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from director_db import InvalidRecordError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import full_session, new_session, put, unchanged
from director_db_conformance.clauses.payload_places import (
    expect_everywhere,
    store_everywhere,
    writes_by_payload,
)
from director_db_conformance.expectation import expect, expect_error, expect_that

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB

_MAX_BYTES: Final = 64 * 1024 * 1024


class _Role(str, enum.Enum):  # noqa: UP042 - a StrEnum has another str()
    """As callers write one; its str() is not its text."""

    USER = "user"


class _Level(enum.IntEnum):
    LOW = 1


class _Plain(enum.Enum):
    ONE = 1


class _Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class _Int(int):
    def __repr__(self) -> str:
        return "something else"


class _Float(float):
    __slots__ = ()

    def __repr__(self) -> str:
        return "something else"


class _List(list):  # type: ignore[type-arg]
    pass


class _Dict(dict):  # type: ignore[type-arg]
    pass


class _Unequal(str):
    """Hashes unlike its own text, so that one dict can hold both."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


@dataclasses.dataclass
class _Record:
    role: str


_Pair = collections.namedtuple("_Pair", "a b")  # noqa: PYI024 - an untyped one is the point


class RefusedPayloadClauses:
    """What JSON has no form for, subclasses of what it has, and bounds."""

    # --- VAL-3: what JSON cannot hold -----------------------------------------------------------

    @clause("VAL-3")
    def test_val_3_numbers_that_json_has_no_form_for(self, db: RecordedDB) -> None:
        """NaN and the infinities are refused in every payload, and nothing is stored."""
        full_session(db)
        with unchanged(db):
            for path, write in writes_by_payload(db):
                for bad in (math.nan, math.inf, -math.inf, _Float("nan"), Decimal("NaN"), 1j):
                    expect(expect_error(InvalidRecordError, write, bad).path, path)
                    error = expect_error(InvalidRecordError, write, [0, {"score": bad}])
                    expect(error.path, f"{path}[1].score")

    @clause("VAL-3")
    def test_val_3_keys_are_str(self, db: RecordedDB) -> None:
        """A key that is not a str is refused; none is turned into text."""
        full_session(db)
        with unchanged(db):
            for path, write in writes_by_payload(db):
                for key in (1, 1.5, True, None, b"k", ("t",), _Plain.ONE, _Level.LOW):
                    expect(expect_error(InvalidRecordError, write, {key: 1}).path, path)
                    error = expect_error(InvalidRecordError, write, {"a": [{"b": 1, key: 2}]})
                    expect(error.path, f"{path}.a[0]")

    @clause("VAL-3")
    def test_val_3_two_keys_with_the_same_text(self, db: RecordedDB) -> None:
        """A dict whose keys would become one text is refused; no value is lost silently."""
        full_session(db)
        with unchanged(db):
            for path, write in writes_by_payload(db):
                for twice in ({_Unequal("a"): 1, "a": 2}, {_Unequal("a"): 1, _Unequal("a"): 1}):
                    expect(expect_error(InvalidRecordError, write, {"x": twice}).path, f"{path}.x")

    @clause("VAL-3")
    def test_val_3_objects_that_json_has_no_form_for(self, db: RecordedDB) -> None:
        """What JSON has no form for is refused; nothing is stored as its str() or repr()."""
        full_session(db)
        objects: tuple[Any, ...] = (
            *(b"bytes", bytearray(b"b"), memoryview(b"m"), {1, 2}, frozenset(), range(2), ...),
            *(dt.date(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.timedelta(1)),
            *(Decimal(1), Fraction(1, 2), uuid.UUID(int=1), PurePosixPath("a"), array.array("i")),
            *(object(), object, len, iter([1]), _Plain.ONE, collections.deque([1]), NotImplemented),
            *({}.keys(), {"a": 1}.items(), collections.UserDict(a=1), collections.UserList([1])),
            *(_Record("user"), _Record),
        )
        with unchanged(db):
            for bad in objects:
                for path, write in writes_by_payload(db):
                    error = expect_error(InvalidRecordError, write, [bad])
                    expect(error.path, f"{path}[0]")

    @clause("VAL-3")
    def test_val_3_the_path_leads_to_the_value(self, db: RecordedDB) -> None:
        """An error says where in the payload the value is, in a form that can be read."""
        full_session(db)
        bad = object()
        cases: tuple[tuple[Any, str], ...] = (
            (bad, "content"),
            ([[0], [1, [bad]]], "content[1][1][0]"),
            ((0, (1, bad)), "content[1][1]"),
            ([{"score": bad}], "content[0].score"),
            ({"a": {"b_1": {"C": bad}}}, "content.a.b_1.C"),
            ({"a b": [bad]}, 'content["a b"][0]'),
            ({"": bad}, 'content[""]'),
            ({"1": bad}, 'content["1"]'),
            ({'"': {"\\": bad}}, 'content["\\""]["\\\\"]'),
            ({"\xe9": [..., 1]}, "content.\xe9[0]"),
            ({"a.b": {"[0]": bad}}, 'content["a.b"]["[0]"]'),
        )
        with unchanged(db):
            for value, path in cases:
                error = expect_error(InvalidRecordError, put, db, "s1", "a", value)
                expect(error.path, path)
                expect(str(error)[: len(path) + 2], f"{path}: ", "the message")

    @clause("VAL-3")
    def test_val_3_a_path_is_spelled_alike_everywhere(self, db: RecordedDB) -> None:
        """A key is written in one way, whatever is refused below it, in each payload."""
        full_session(db)
        cases = (
            ("k", ".k"),
            ("a b", '["a b"]'),
            ("\xe9 b", '["\xe9 b"]'),
            ("\u65e5 \U0001f600", '["\u65e5 \U0001f600"]'),
            ("\xe9\n", '["\\u00e9\\n"]'),
            ("\xe9\u2028", '["\\u00e9\\u2028"]'),
            ("\ud800", '["\\ud800"]'),
        )
        with unchanged(db):
            # What is found by looking at a value, and what only by encoding it.
            for bad in (object(), math.nan):
                for path, write in writes_by_payload(db):
                    for key, spelled in cases:
                        error = expect_error(InvalidRecordError, write, {key: [0, bad]})
                        expect(error.path, f"{path}{spelled}[1]")
                        error = expect_error(InvalidRecordError, write, [{key: {key: bad}}])
                        expect(error.path, f"{path}[0]{spelled}{spelled}")

    @clause("VAL-3")
    def test_val_3_a_tuple_comes_back_as_a_list(self, db: RecordedDB) -> None:
        """JSON has one kind of sequence, so a tuple is stored as a list, a named one too."""
        new_session(db)
        pairs: tuple[tuple[Any, Any], ...] = (
            ((), []),
            ((1, (2, ())), [1, [2, []]]),
            ({"k": (1,)}, {"k": [1]}),
            ([(), [()]], [[], [[]]]),
            (_Pair(1, _Pair("a", [])), [1, ["a", []]]),
        )
        for number, (given_value, expected) in enumerate(pairs):
            store_everywhere(db, "s1", f"m{number}", given_value)
            expect_everywhere(db, "s1", f"m{number}", expected)

    @clause("VAL-3")
    def test_val_3_subclasses_come_back_as_the_plain_type(self, db: RecordedDB) -> None:
        """An Enum that is a str, or any subclass of a JSON type, is stored as what it is worth."""
        new_session(db)
        pairs: tuple[tuple[Any, Any], ...] = (
            (_Role.USER, "user"),
            ({_Role.USER: [_Role.USER]}, {"user": ["user"]}),
            (_Text("text"), "text"),
            ({_Text("key"): {_Text(""): 1}}, {"key": {"": 1}}),
            (_Level.LOW, 1),
            ([_Int(7), _Int(10**400), _Int(-5)], [7, 10**400, -5]),
            ([_Float(1.5), _Float("-0.0"), _Float(1e16)], [1.5, -0.0, 1e16]),
            (_List([1, _List()]), [1, []]),
            (_Dict(b=1, a=_Dict()), {"b": 1, "a": {}}),
            (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
            (collections.defaultdict(list, x=[1]), {"x": [1]}),
            (collections.Counter("aab"), {"a": 2, "b": 1}),
        )
        for number, (given_value, expected) in enumerate(pairs):
            store_everywhere(db, "s1", f"m{number}", given_value)
            expect_everywhere(db, "s1", f"m{number}", expected)

    # --- VAL-6: bounds --------------------------------------------------------------------------

    @clause("VAL-6")
    def test_val_6_a_payload_nests_200_deep(self, db: RecordedDB) -> None:
        """A payload of just 200 lists or dicts in one another is stored and read."""
        new_session(db)
        for number, kinds in enumerate(("l", "d", "ld", "t", "dtl")):
            value = expected = _nested(200, kinds)
            if "t" in kinds:
                expected = _nested(200, kinds.replace("t", "l"))
            put(db, "s1", f"m{number}", value, metadata=value)
            record = db.get_message("s1", f"m{number}")
            expect([record["content"], record["metadata"]], [expected] * 2)
            db.add_or_update_context_msg("s1", value, metadata=value)
            expect(db.get_context_messages("s1"), expected)
            db.create_session(f"n{number}", metadata=value)
            expect(db.get_session(f"n{number}")["metadata"], expected)

    @clause("VAL-6")
    def test_val_6_a_payload_nests_no_deeper(self, db: RecordedDB) -> None:
        """201 deep is refused, empty at the end or not, and so is a value that holds itself."""
        full_session(db)
        endless: list[Any] = []
        endless += [endless, endless]
        endless_dict: dict[str, Any] = {}
        endless_dict["k"] = [endless_dict]
        values = [_nested(201, kinds) for kinds in ("l", "d", "ld", "t", "dtl")]
        values += [_nested(100_000, "l"), endless, endless_dict]
        values += [[0, "x", {"a": _nested(199, "l")}], {"a": 1, "b": [_nested(199, "d")]}]
        with unchanged(db):
            for path, write in writes_by_payload(db):
                for value in values:
                    error = expect_error(InvalidRecordError, write, value)
                    expect(error.path[: len(path)], path)

    @clause("VAL-6")
    def test_val_6_the_longest_payload(self, db: RecordedDB) -> None:
        """A payload of just 64 MiB of UTF-8 is stored and read; one byte more is refused."""
        new_session(db)
        longest = "\xe9" * ((_MAX_BYTES - len('""')) // 2)
        put(db, "s1", "m", longest)
        came_back = db.get_message("s1", "m")["content"]
        expect_that(came_back == longest, "the text of 64 MiB that was stored", came_back)
        error = expect_error(InvalidRecordError, put, db, "s1", "m", longest + "x")
        expect(error.path, "content")

    @clause("VAL-6")
    def test_val_6_the_bound_is_the_same_in_every_place(self, db: RecordedDB) -> None:
        """No payload has a smaller bound of its own, and none has a larger one."""
        full_session(db)
        # Six bytes for a character, and one too many; an encoder is quicker with fewer characters.
        too_long = "\0" * ((_MAX_BYTES - 2) // 6) + "x" * ((_MAX_BYTES - 2) % 6 + 1)
        with unchanged(db):
            for path, write in writes_by_payload(db):
                error = expect_error(InvalidRecordError, write, too_long)
                # What is appended is told as a whole: many items may be too long together.
                expect(error.path, "messages" if path == "messages[0]" else path)
        # More than one field may hold in some databases, and a page of memory in others.
        value = "\xe9" * (9 * 1024 * 1024)
        store_everywhere(db, "s1", "b", value)
        expect_everywhere(db, "s1", "b", value)

    @clause("VAL-6")
    def test_val_6_how_the_length_of_a_payload_is_counted(self, db: RecordedDB) -> None:
        """The bound is on compact JSON: quotes, commas and escapes count as they are written."""
        for text, length in (
            ('"\n\\' * 1000 + "\0" * 1000, 6 * 1000 + 6 * 1000),
            # With a lone surrogate every non-ASCII character is counted as an escape.
            ("\xe9" * 999 + "\ud800", 6 * 1000),
        ):
            zeros, more = divmod(_MAX_BYTES - len('["",""]') - length, 6)
            just = [text, "\0" * zeros + "x" * more]
            # What is just allowed is not stored, which would take long, but refused for the next
            # field.
            error = expect_error(InvalidRecordError, put, db, "s1", "a", just, metadata=b"")
            expect(error.path, "metadata")
            just[-1] += "x"
            error = expect_error(InvalidRecordError, put, db, "s1", "a", just)
            expect(error.path, "content")

    @clause("VAL-6")
    def test_val_6_what_repeats_one_part_without_end(self, db: RecordedDB) -> None:
        """A small object that stands for an enormous text is refused before it fills the memory."""
        full_session(db)
        long = "k" * 1024 * 1024
        layers = [[[long] * 1000] * 1000] * 1000
        with unchanged(db):
            for bomb in (layers, [long] * 1_000_000, [{long: 1}] * 5000, [_Text(long)] * 5000):
                error = expect_error(InvalidRecordError, put, db, "s1", "a", bomb)
                expect(error.path, "content")


def _nested(depth: int, kinds: str) -> Any:
    """Return a value of just this depth: of lists, dicts and tuples by turns."""
    value: Any = None
    for _, kind in zip(range(depth), itertools.cycle(kinds), strict=False):
        if value is None:
            value = {"l": [], "d": {}, "t": ()}[kind]
        else:
            value = [value] if kind == "l" else {"k": value} if kind == "d" else (value,)
    return value
