"""What a failure shows of the expected and the actual value."""

from __future__ import annotations

import pytest

from director_db import InvalidRecordError
from director_db_conformance.expectation import (
    NonconformityError,
    expect,
    expect_error,
    same,
)
from director_db_conformance.transcript import shown

RECORDS = [{"id": number, "text": "x" * 60} for number in range(12)]


def told(actual, expected):
    with pytest.raises(NonconformityError) as caught:
        expect(actual, expected)
    return caught.value.actual, caught.value.expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), (1, True), (0.0, -0.0), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ((1,), [1]),
        ("a", "A"), ([{"k": [1]}], [{"k": [1.0]}]), (None, False), ("", None), ({}, []),
    ],
)  # fmt: skip
def test_only_what_is_equal_to_the_last_bit_is_the_same(one, other):
    assert same(one, one)
    assert same(other, other)
    assert not same(one, other)
    assert not same(other, one)


def test_what_is_short_is_shown_whole():
    assert ("[1, 2]", "[1, 2.0]") == told([1, 2], [1, 2.0])


def test_of_what_is_long_the_first_difference_is_shown():
    changed = [dict(record) for record in RECORDS]
    changed[3]["text"] = "y"
    assert (f"at [3]['text']: {'x' * 60!r}", "at [3]['text']: 'y'") == told(RECORDS, changed)
    assert ("at ['k'][4999]: 1", "at ['k'][4999]: 2") == told(
        {"k": [1] * 5000}, {"k": [1] * 4999 + [2]}
    )


def test_a_list_that_lacks_one_says_where():
    lacking = [*RECORDS[:5], *RECORDS[6:]]
    assert (
        f"11 items; [5] is {shown(RECORDS[6])}",
        f"12 items; [5] is {shown(RECORDS[5])}",
    ) == told(lacking, RECORDS)
    assert (f"11 items; [11] is {'nothing'}", f"12 items; [11] is {shown(RECORDS[11])}") == told(
        RECORDS[:11], RECORDS
    )


def test_of_long_texts_what_stands_around_the_difference_is_shown():
    left, right = "a" * 5000 + "b", "a" * 5000 + "c"
    around = "a" * 20
    assert (f"at [4980:5020]: {around + 'b'!r}", f"at [4980:5020]: {around + 'c'!r}") == told(
        left, right
    )


def test_an_error_of_the_right_kind_is_returned():
    def refuse():
        raise InvalidRecordError("content", "no")

    assert "content" == expect_error(InvalidRecordError, refuse).path
    with pytest.raises(NonconformityError) as wrong:
        expect_error(KeyError, refuse)
    assert ("KeyError", "InvalidRecordError: content: no") == (
        wrong.value.expected,
        wrong.value.actual,
    )
    with pytest.raises(NonconformityError) as none:
        expect_error(KeyError, lambda: 5)
    assert ("KeyError", "returned 5") == (none.value.expected, none.value.actual)
