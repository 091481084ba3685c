"""The table of verdicts and the lines below it, of results that are given."""

from __future__ import annotations

import json

import pytest

from director_db.cli.console import CommandConsole
from director_db_conformance import CLAUSES
from director_db_conformance.face import FACES
from director_db_conformance.levels import Level
from director_db_conformance.record import Choice, Record
from director_db_conformance.report import as_json, as_junit, show
from director_db_conformance.verdict import Outcome, Result, Word

LIFE_OF_A_SERVER = [name for name, clause in CLAUSES.items() if clause.needs == "restart"]


def record(choice=None, *, without=(), **outcomes):
    """Return a run in which all passed but what is said."""
    results = {
        name: outcomes.get(name, Result(Outcome.PASSED, 0.5))
        for name in CLAUSES
        if name not in without
    }
    return Record("sqlite", choice or Choice(), results, chosen=list(CLAUSES), seconds=60)


@pytest.fixture
def shown(capsys, monkeypatch):
    def show_it(run, columns=80, *, strictly=False):
        monkeypatch.setenv("COLUMNS", str(columns))
        show(CommandConsole(), [run], run.choice.level, strictly=strictly)
        return capsys.readouterr().out

    return show_it


def line(text, start):
    (found,) = [each for each in text.splitlines() if each.strip().startswith(f"{start} ")]
    return found


def test_conformant_says_in_its_line_what_is_not_applicable(shown):
    missing = Result(Outcome.NOT_APPLICABLE, reason="the place offers no restart()")
    run = record(**dict.fromkeys(LIFE_OF_A_SERVER, missing))
    count = len(LIFE_OF_A_SERVER)
    assert f"✓ CONFORMANT  durable, {count} n/a" in line(shown(run), "sqlite")
    assert count == json.loads(as_json([run], strictly=True))["backends"][0]["not_applicable"]
    assert "✓ CONFORMANT  durable  " in line(shown(record()), "sqlite")


def test_the_widest_verdict_fits_into_80_columns(shown):
    failed = Result(Outcome.FAILED, reason="no")
    names = [name for name, clause in CLAUSES.items() if clause.level is Level.DURABLE]
    text = shown(record(**{names[0]: failed}))
    assert "✗ NOT CONFORMANT  only concurrent" in line(text, "sqlite")
    table = text[text.index("director-db conformance ·") :]
    assert max(map(len, table.splitlines())) <= 80
    core = sum(clause.level is Level.CORE for clause in CLAUSES.values())
    assert f" {core}/{core}  " in line(text, "sqlite")
    assert f" {len(names) - 1}/{len(names)}  " in line(text, "sqlite")


def test_a_level_that_was_asked_for_and_does_not_apply_was_not_shown(shown):
    missing = Result(Outcome.NOT_APPLICABLE, reason="the place is not shared: it is in memory")
    beyond = [name for name, clause in CLAUSES.items() if clause.level is not Level.CORE]
    run = record(**dict.fromkeys(beyond, missing))
    assert [True, False] == [run.is_conformant(strictly=strictly) for strictly in (False, True)]
    told = "sqlite: durable was asked for, and was not shown."
    assert told in shown(run, strictly=True)
    assert told not in shown(run)
    assert "✓ CONFORMANT  core  " in line(shown(run), "sqlite")


def test_the_server_is_named(shown):
    run = record()
    run.server = "Postgres 15.3 from a drawer"
    assert "\nsqlite: on Postgres 15.3 from a drawer\n" in shown(run)
    assert run.server == json.loads(as_json([run], strictly=True))["backends"][0]["server"]


@pytest.mark.parametrize("face", FACES)
def test_the_face_is_named(shown, face):
    name = next(iter(CLAUSES))
    run = record(Choice(face=face), **{name: Result(Outcome.FAILED, reason="no")})
    text = shown(run, 200)
    assert f"\nface: {face}\n" in text
    again = f"director-db-conformance sqlite{' --face asyncio' if face == 'asyncio' else ''} -k"
    assert f"again: {again} {name}\n" in text
    assert face == json.loads(as_json([run], strictly=True))["backends"][0]["face"]
    assert f'<property name="face" value="{face}" />' in as_junit([run])


def test_what_did_not_run_says_why(shown):
    first, second, *_ = CLAUSES
    run = record(without=(first,), **{second: Result(Outcome.NOT_RUN, reason="no place: none")})
    run.stopped = "others had hung for 600 s before; see --time-limit"
    text = shown(run, 200)
    assert "sqlite: 1 clause not run: others had hung for 600 s before; see --time-limit" in text
    assert f"sqlite: 1 clause not run: no place: none (in {second})" in text
    run.chosen = [second]
    assert "sqlite: 1 clause not run: something other than -k has left it out" in shown(run, 200)
    run.choice = Choice(keyword=second)
    assert "sqlite: 1 clause not run: left out" in shown(run, 200)


def test_junit_holds_whatever_a_backend_may_say():
    name = next(iter(CLAUSES))
    failed = Result(
        Outcome.FAILED, 1, "", "", "a", "b\0\ud800<]]>", ("db.get(1)",), "Traceback ..."
    )
    text = as_junit([record(**{name: failed})])
    assert f'<testsuite name="sqlite" time="60.000" tests="{len(CLAUSES)}" failures="1"' in text
    assert "actual:   b��&lt;]]&gt;" in text
    assert "Traceback ..." in text


def test_what_nobody_chose_to_leave_out_did_not_run():
    """Something in the process has taken it away, so nothing is PARTIAL."""
    name = next(iter(CLAUSES))
    passed = {name: Result(Outcome.PASSED, 1.0)}
    for choice, word in ((Choice(), Word.INCOMPLETE), (Choice(keyword=name), Word.PARTIAL)):
        assert word is Record("sqlite", choice, passed, chosen=[name]).verdict.word
