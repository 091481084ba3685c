"""VAL-1 and VAL-2; what is refused is in `values_refused`."""

from __future__ import annotations

import contextlib
import itertools
import sys
from typing import TYPE_CHECKING, Any, Final

from hypothesis import given

from director_db import InvalidRecordError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import message, new_session, put, unchanged
from director_db_conformance.clauses.drawn import bounded, payloads
from director_db_conformance.clauses.naughty import PAYLOAD_TEXTS
from director_db_conformance.clauses.payload_places import (
    expect_everywhere,
    store_everywhere,
    writes_by_payload,
)
from director_db_conformance.expectation import expect, expect_error
from director_db_conformance.transcript import transcript

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director_db_conformance.transcript import RecordedDB

_NUMBERS: Final[tuple[Any, ...]] = (
    *(0, 1, -1, True, False, 0.0, -0.0, 1.0, -1.0, 1.5, 0.1, 1e16, -1e16, 1e22, 1e21, 123456789.0),
    *(
        2**31,
        2**53,
        2**53 + 1,
        float(2**53),
        2**63 - 1,
        2**63,
        2**64 - 1,
        2**64,
        -(2**63),
        -(2**63) - 1,
    ),
    *(10**18, 10**19, 10**30, 10**400, -(10**400), 1e308, 1.7976931348623157e308, 5e-324, -5e-324),
    *(2.2250738585072014e-308, 1e-7, 0.30000000000000004, 1 / 3, 9007199254740993.0, 100.0, 1e2),
)
_FIELDS: Final = ("agents", "actions", "content", "metadata")


class PayloadClauses:
    """Payloads come back to the last bit."""

    # --- VAL-1: payloads come back equal --------------------------------------------------------

    @clause("VAL-1")
    def test_val_1_numbers_keep_type_and_value(self, db: RecordedDB) -> None:
        """1 is not 1.0, True is not 1, -0.0 keeps its sign, 1e16 is a float, no digit is lost."""
        new_session(db)
        for number, value in enumerate(_NUMBERS):
            store_everywhere(db, "s1", f"m{number}", value)
            expect_everywhere(db, "s1", f"m{number}", value)
        expect([record["content"] for record in db.get_conversations("s1")], [*_NUMBERS])
        store_everywhere(db, "s1", "all", [*_NUMBERS])
        expect_everywhere(db, "s1", "all", [*_NUMBERS])

    @clause("VAL-1")
    def test_val_1_keys_keep_their_order(self, db: RecordedDB) -> None:
        """Dicts come back in the order in which they were written, at every depth."""
        new_session(db)
        orders = itertools.permutations(("b", "a", "10", "9", "B"))
        for number, order in enumerate([*orders][::7]):
            value = {key: {inner: [{inner: 0, "": 1}] for inner in order} for key in order}
            value |= {"role": {}, "content": {}, "": {}, "a a": {}}
            store_everywhere(db, "s1", f"m{number}", value)
            expect_everywhere(db, "s1", f"m{number}", value)

    @clause("VAL-1")
    def test_val_1_an_update_takes_the_new_order_of_keys(self, db: RecordedDB) -> None:
        """A value that differs from the stored one only in its order is stored anew."""
        new_session(db)
        for value in ({"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": [{"d": 3, "c": 2}], "a": 1}):
            store_everywhere(db, "s1", "m", value)
            expect_everywhere(db, "s1", "m", value)

    @clause("VAL-1")
    def test_val_1_empty_and_nested_values(self, db: RecordedDB) -> None:
        """Empty and nested values come back as they were, at every place."""
        new_session(db)
        for number, value in enumerate(
            (
                *(
                    [[]],
                    [{}],
                    {"a": []},
                    {"a": {}},
                    [None],
                    {"": None},
                    [""],
                    [[[]], {}],
                    {"a": {"a": {}}},
                ),
                *([[1], [[2]], [[[3]]]], [0, "0", None, False, "", [], {}], {"null": None}, "null"),
                *(
                    "true",
                    "1",
                    '"',
                    "[]",
                    "{}",
                    [True, 1, 1.0, "1"],
                    {"1": 1, "01": 1.0, "1.0": True},
                ),
            )
        ):
            store_everywhere(db, "s1", f"m{number}", value)
            expect_everywhere(db, "s1", f"m{number}", value)

    @clause("VAL-1")
    def test_val_1_one_odd_payload_among_many(self, db: RecordedDB) -> None:
        """A payload that needs care does not change those that are read with it."""
        new_session(db)
        odd_ones = ("\ud800", 10**4299, "\0", "\ud83d\ude00", "\t", "[1", "1,2", {"a": "\udfff"})
        for number, odd in enumerate(odd_ones):
            name = new_session(db, f"s{number}")
            contents = ["a", odd, 1, [odd], {}, -0.0]
            for place, content in enumerate(contents):
                put(db, name, f"m{place}", content, agents=[place], metadata={"k": place})
            records = db.get_conversations(name)
            expect([record["content"] for record in records], contents)
            expect([record["agents"] for record in records], [[place] for place in range(6)])
            expect([record["metadata"] for record in records], [{"k": place} for place in range(6)])

    @clause("VAL-1")
    def test_val_1_payloads_of_every_size(self, db: RecordedDB) -> None:
        """Short or long, a payload is never cut, also around sizes where storage changes."""
        new_session(db)
        for number, size in enumerate(
            (127, 128, 255, 256, 2000, 8191, 8192, 65_535, 65_536, 10**6)
        ):
            # Neighbours that differ, so that no compression makes them short again.
            text = "".join(chr(0x20 + place * 7919 % 0x250) for place in range(size))
            store_everywhere(db, "s1", f"m{number}", [text])
            expect_everywhere(db, "s1", f"m{number}", [text])

    @clause("VAL-1")
    def test_val_1_any_payload_in_any_place(self, db: RecordedDB) -> None:
        """Whatever JSON a payload is, it comes back the same from wherever it is stored."""
        counter = itertools.count()

        @bounded(40)
        @given(payloads)
        def check(value: Any) -> None:
            transcript.clear()
            name = new_session(db, f"s{next(counter)}")
            store_everywhere(db, name, "m", value)
            expect_everywhere(db, name, "m", value)

        check()

    # --- VAL-2: all texts, long integers --------------------------------------------------------

    @clause("VAL-2")
    def test_val_2_every_text_as_a_value(self, db: RecordedDB) -> None:
        """U+0000, lone surrogates, and what looks like SQL or JSON stand in a payload as text."""
        new_session(db)
        db.add_or_update_msgs_to_conv(
            "s1", [message(f"m{number}", text) for number, text in enumerate(PAYLOAD_TEXTS)]
        )
        for number, text in enumerate(PAYLOAD_TEXTS):
            transcript.clear()
            expect(db.get_message("s1", f"m{number}")["content"], text)
        expect([record["content"] for record in db.get_conversations("s1")], [*PAYLOAD_TEXTS])
        for texts in ([*PAYLOAD_TEXTS], [text for text in PAYLOAD_TEXTS if text.isascii()]):
            store_everywhere(db, "s1", "all", texts)
            expect_everywhere(db, "s1", "all", texts)

    @clause("VAL-2")
    def test_val_2_every_text_as_a_key(self, db: RecordedDB) -> None:
        """Keys are texts like others; none is dropped, changed or taken for another."""
        new_session(db)
        keys = list(dict.fromkeys(PAYLOAD_TEXTS))
        value = {key: number for number, key in enumerate(keys)}
        backwards = {key: {key: [key]} for key in keys[::-1]}
        for number, whole in enumerate((value, backwards)):
            store_everywhere(db, "s1", f"m{number}", whole)
            expect_everywhere(db, "s1", f"m{number}", whole)

    @clause("VAL-2")
    def test_val_2_surrogates_stay_as_they_are(self, db: RecordedDB) -> None:
        """Two surrogates side by side stay two; beside real characters, each stays what it is."""
        new_session(db)
        for number, text in enumerate(
            (
                *("\ud800", "\udc00", "\ud83d\ude00", "\U0001f600", "\U0001f600\ud83d\ude00"),
                *(
                    "\ud83d\U0001f600",
                    "\U0001f600\ude00",
                    "\\ud83d\\ude00",
                    "\\uD83D\ude00",
                    "\\\ud800",
                ),
                *(
                    "\ud83d\ude00\ud83d\ude00",
                    "\xe9\ud800\xe9",
                    "\ud800\0",
                    "\ude00\ud83d",
                    "\\\\\udc00",
                ),
            )
        ):
            for value in (text, {text: 1}, [{"k": [text, "\U0001f600"]}]):
                store_everywhere(db, "s1", f"m{number}", value)
                expect_everywhere(db, "s1", f"m{number}", value)

    @clause("VAL-2")
    def test_val_2_integers_of_4300_digits(self, db: RecordedDB) -> None:
        """An integer has up to 4,300 digits, each of which comes back; one more is refused."""
        new_session(db)
        largest = 10**4300 - 1
        for number, value in enumerate((largest, -largest, [{"n": [10**4299, -(10**4299), 1]}])):
            store_everywhere(db, "s1", f"m{number}", value)
            expect_everywhere(db, "s1", f"m{number}", value)
        with unchanged(db):
            for bad in (largest + 1, -largest - 1, 10**5000):
                for path, write in writes_by_payload(db):
                    error = expect_error(InvalidRecordError, write, {"n": [bad]})
                    expect(error.path, f"{path}.n[0]")

    @clause("VAL-2")
    def test_val_2_integers_whatever_the_process_allows(self, db: RecordedDB) -> None:
        """The limit that a process sets for its own conversions changes nothing here."""
        new_session(db)
        value = [10**4299, -(10**4300) + 1, {"n": [7 * 10**900, "\xe9", True, None, 1.5, -0.0]}]
        for limit in (640, 4300, 0):
            name = f"m{limit}"
            with _int_digits(limit):
                store_everywhere(db, "s1", name, value)
                records = db.get_message("s1", name), db.get_conversations("s1")[-1]
                context = db.get_context_messages("s1")
                db.add_or_update_context_msg("s1", {})
                db.append_context_messages("s1", [value])
                db.append_context_messages("s1", [1])
                appended = db.get_context_messages("s1")
                error = expect_error(InvalidRecordError, put, db, "s1", "bad", [10**4300])
            for record in records:
                expect([record[key] for key in _FIELDS], [value] * 4)
            expect(context, value)
            expect(appended, {"reasoning": [value, 1]})
            expect(error.path, "content[0]")


@contextlib.contextmanager
def _int_digits(limit: int) -> Iterator[None]:
    """Set what this process allows for the conversion of integers."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(limit)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)
