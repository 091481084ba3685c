"""One word for what happened to all clauses."""

from __future__ import annotations

import pytest

from director_db_conformance.levels import Clause, Level
from director_db_conformance.verdict import Outcome, Result, Word, judge

CORE, CONCURRENT, DURABLE = Level
CLAUSES = [
    Clause("SES-1", "a", CORE, None, ""),
    Clause("SES-2", "b", CORE, None, ""),
    Clause("LIF-1", "c", CONCURRENT, None, ""),
    Clause("LIF-2", "d", DURABLE, None, ""),
    Clause("LIF-2", "e", DURABLE, "cut", ""),
]
PASSED, FAILED, NOT_APPLICABLE, NOT_RUN = Outcome
MARKS = {"+": PASSED, "x": FAILED, "/": NOT_APPLICABLE, "-": NOT_RUN}


def judged(marks, asked=DURABLE, chosen=None):
    """A mark for each clause; a space is a clause of which nothing is known."""
    results = {
        clause.name: Result(MARKS[mark])
        for clause, mark in zip(CLAUSES, marks, strict=True)
        if mark != " "
    }
    return judge(CLAUSES, results, asked, chosen)


@pytest.mark.parametrize(
    ("marks", "asked", "word", "applicable", "reached"),
    [
        ("+++++", DURABLE, Word.CONFORMANT, DURABLE, DURABLE),
        ("++++/", DURABLE, Word.CONFORMANT, DURABLE, DURABLE),
        ("+++//", DURABLE, Word.CONFORMANT, CONCURRENT, CONCURRENT),
        ("++///", DURABLE, Word.CONFORMANT, CORE, CORE),
        ("++   ", CORE, Word.CONFORMANT, CORE, CORE),
        ("++xxx", CORE, Word.CONFORMANT, CORE, CORE),
        ("+++  ", CONCURRENT, Word.CONFORMANT, CONCURRENT, CONCURRENT),
        ("++   ", CONCURRENT, Word.INCOMPLETE, CONCURRENT, CORE),
        ("++/++", DURABLE, Word.CONFORMANT, DURABLE, DURABLE),
        ("+++x+", DURABLE, Word.NOT_CONFORMANT, DURABLE, CONCURRENT),
        ("++x++", DURABLE, Word.NOT_CONFORMANT, DURABLE, CORE),
        ("x++++", DURABLE, Word.NOT_CONFORMANT, DURABLE, None),
        ("++++-", DURABLE, Word.INCOMPLETE, DURABLE, CONCURRENT),
        ("++++ ", DURABLE, Word.INCOMPLETE, DURABLE, CONCURRENT),
        ("+ +++", DURABLE, Word.INCOMPLETE, DURABLE, None),
        ("+x   ", DURABLE, Word.NOT_CONFORMANT, DURABLE, None),
        ("     ", DURABLE, Word.NOT_RUN, DURABLE, None),
        ("-----", DURABLE, Word.NOT_RUN, DURABLE, None),
        ("/////", DURABLE, Word.NOT_RUN, CORE, None),
        ("-////", DURABLE, Word.NOT_RUN, CORE, None),
        ("  ++ ", CORE, Word.NOT_RUN, CORE, None),
    ],
)
def test_every_clause_up_to_the_level_counts(marks, asked, word, applicable, reached):
    assert (word, asked, applicable, reached) == judged(marks, asked)[:4]


@pytest.mark.parametrize(
    ("marks", "chosen", "word"),
    [
        ("+    ", "a", Word.PARTIAL),
        ("+  / ", "ad", Word.PARTIAL),
        ("+    ", "ab", Word.INCOMPLETE),
        ("+-   ", "ab", Word.INCOMPLETE),
        ("+x   ", "ab", Word.NOT_CONFORMANT),
        ("   / ", "d", Word.NOT_RUN),
        ("     ", "", Word.NOT_RUN),
        ("+++++", "abcde", Word.CONFORMANT),
    ],
)
def test_a_choice_that_passed_is_partial(marks, chosen, word):
    assert word is judged(marks, chosen=chosen).word


def test_a_verdict_in_words():
    assert "CONFORMANT at durable" == str(judged("+++++"))
    assert "CONFORMANT at durable, 1 clause not applicable" == str(judged("++++/"))
    assert "CONFORMANT at durable, 2 clauses not applicable" == str(judged("+/++/"))
    assert "CONFORMANT at core" == str(judged("++///"))
    assert "PARTIAL" == str(judged("+    ", chosen="a"))
    assert "NOT CONFORMANT at durable, but at core" == str(judged("++x++"))
    assert "NOT CONFORMANT" == str(judged("x++++"))
    assert "NOT RUN" == str(judged("     "))


def test_no_clauses_are_no_verdict():
    assert (Word.NOT_RUN, DURABLE, CORE, None, 0) == judge([], {})


def test_a_result_survives_the_way_through_json():
    result = Result(FAILED, 1.5, "why", "SES-2", "this", "that", ("one()", "two()"), "line")
    assert result == Result.of_json(result.as_json())
