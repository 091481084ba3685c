"""The suite catches every broken backend of the gallery, which leaves no rule out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from _pytest.config import default_plugins

from director_db_conformance import CLAUSES, Level
from gallery.broken import SQLITE
from gallery.registry import whole_gallery
from gallery.report import as_json, as_markdown, left_to_luck, others, summary
from gallery.runner import RACES, Trials, Verdict
from gallery.trial import RESULT, UNNEEDED, Trial, known_killers
from gallery.verdicts import OF_DAYS, PROPERTY, SAMPLED, has_its_turn, sample

CONTRACT = (Path(__file__).parents[2] / "CONTRACT.md").read_text(encoding="utf-8")
RULES = re.findall(r"^### ([A-Z]{3}-\d+):", CONTRACT, re.MULTILINE)

GALLERY, HEALTHY = whole_gallery()
OF_SQLITE = [name for name, mutant in GALLERY.items() if mutant.kind == SQLITE]
OF_POSTGRES = [name for name, mutant in GALLERY.items() if mutant.kind != SQLITE]

EVERYTHING = "ALL"
"""The rule of the clauses that play random calls: they check all rules at once."""


def by_construction():
    """Return the rules in the table of what no portable test can show."""
    text = CONTRACT.split("\n## Rules by construction\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| ([A-Z]{3}-\d+) \|", text, re.MULTILINE))


TWINS_OF_SQLITE = [name for name, twin in HEALTHY.items() if twin.kind == SQLITE]
TWINS_OF_POSTGRES = [name for name, twin in HEALTHY.items() if twin.kind != SQLITE]


@pytest.fixture(scope="session")
def trials():
    with Trials() as trials:
        yield trials


@pytest.fixture
def verdict_on(trials, record_property):
    """Try one that is in no need of a server, or for which there is one."""

    def verdict_on(name):
        levels = [HEALTHY[name].level] if name in HEALTHY else []
        verdict = trials.begin(name, *levels).result()
        record_property(PROPERTY, verdict._asdict())
        return verdict

    return verdict_on


@pytest.fixture
def with_postgres(trials, postgres_server, postgres_cluster):
    """A server for the trials, and one that can be killed."""
    trials.server = postgres_server


@pytest.mark.sampled
@pytest.mark.parametrize("name", TWINS_OF_SQLITE)
def test_the_machinery_alone_kills_nobody(verdict_on, name):
    verdict = verdict_on(name)
    assert "survived" == verdict.fate, verdict
    of_core = [clause.name for clause in CLAUSES.values() if clause.level is Level.CORE]
    assert len(of_core) == verdict.passed


@pytest.mark.sampled
@pytest.mark.usefixtures("with_postgres")
@pytest.mark.parametrize("name", TWINS_OF_POSTGRES)
def test_no_place_alone_kills_anybody(verdict_on, name):
    verdict = verdict_on(name)
    assert "survived" == verdict.fate, verdict
    assert verdict.passed > 0


def expect_killed(verdict):
    assert [] == others([verdict])
    found_at = CLAUSES[verdict.clause].level
    assert Level(verdict.level).includes(found_at), f"only found at level {found_at.value}"


# That each rule is defended by clauses of its own, and not by luck, is judged at the end of a run.
@pytest.mark.parametrize("name", OF_SQLITE)
def test_a_mutant_is_killed(verdict_on, name):
    expect_killed(verdict_on(name))


@pytest.mark.usefixtures("with_postgres")
@pytest.mark.parametrize("name", OF_POSTGRES)
def test_a_mutant_of_postgres_is_killed(verdict_on, name):
    verdict = verdict_on(name)
    expect_killed(verdict)
    assert verdict.rule == verdict.found_rule


def test_the_mutants_are_many():
    levels = [mutant.level for mutant in GALLERY.values()]
    assert len(levels) >= 50
    assert sum(level != "core" for level in levels) >= 8
    assert len(OF_POSTGRES) >= 40


def test_every_rule_has_a_clause_and_a_mutant_or_says_why_not():
    clauses = {clause.rule for clause in CLAUSES.values()}
    mutants = {mutant.rule for mutant in GALLERY.values()}
    assert len(RULES) > 30
    unchecked = [rule for rule in RULES if rule not in clauses or rule not in mutants]
    assert set() == {*unchecked} - by_construction()


def test_no_clause_and_no_mutant_is_of_a_rule_that_does_not_exist():
    assert [] == [name for name, found in CLAUSES.items() if found.rule not in {*RULES, EVERYTHING}]
    assert [] == [name for name, mutant in GALLERY.items() if mutant.rule not in RULES]
    assert set() == by_construction() - {*RULES}


def test_every_mutant_tells_its_mistake():
    assert [] == [name for name, mutant in GALLERY.items() if not mutant.mistake().endswith(".")]


def test_what_is_tried_first_is_of_the_rule_that_the_mutant_breaks():
    """What is not noted, or has another killer by now, only takes longer."""
    noted = known_killers()
    assert set() == noted.keys() - GALLERY.keys(), "run.py --keep leaves these out"
    assert set() == {*noted.values()} - CLAUSES.keys(), "and notes what these are called now"
    strange = [name for name, by in noted.items() if CLAUSES[by].rule != GALLERY[name].rule]
    assert [] == strange
    (own, *_) = [name for name in CLAUSES if CLAUSES[name].rule == "MSG-3"][::-1]
    tried = Trial(GALLERY["ReplaceForUpsert"], "own")
    tried._killer_before = own
    items = [SimpleNamespace(originalname=name) for name in CLAUSES]
    tried.pytest_collection_modifyitems(items)
    assert own == items[0].originalname


def test_what_pytest_is_to_do_without_are_plugins_of_its_own():
    assert set() == {*UNNEEDED} - {*default_plugins}


class Missing(Trials):
    """Trials that miss a race as often as is said."""

    def __init__(self, misses):
        super().__init__()
        self.statuses = iter([0] * misses + [1])
        self.tried = []

    def _run(self, name, chosen, folder, level):
        self.tried.append(chosen)
        killer = dict.fromkeys(("clause", "rule", "expected", "actual"), "x")
        found = {"status": next(self.statuses), "passed": [], "killer": killer}
        Path(folder, RESULT).write_text(json.dumps(found), encoding="utf-8")
        return True


@pytest.mark.parametrize(
    ("name", "misses", "fate", "tried"),
    [
        ("DeleteOfTheSessionFirst", 0, "killed", ["own"]),
        ("DeleteOfTheSessionFirst", 2, "killed", ["own"] * RACES),
        ("DeleteOfTheSessionFirst", 9, "survived", ["own"] * RACES + ["others"]),
        ("ReplaceForUpsert", 1, "killed", ["own", "others"]),
        ("ReplaceForUpsert", 9, "survived", ["own", "others"]),
        ("LostCommitIsNoCommit", 9, "survived", ["own"] * RACES),
        (TWINS_OF_SQLITE[0], 9, "survived", ["all"]),
    ],
)
def test_only_a_race_is_tried_again(name, misses, fate, tried):
    with Missing(misses) as missing:
        verdict = missing.begin(name).result()
    assert (fate, len(tried), tried) == (verdict.fate, verdict.attempts, missing.tried)


def test_a_sample_is_drawn_anew_with_each_seed():
    drawn = sample(GALLERY, "2026-01-01")
    assert drawn == sample(reversed(GALLERY), "2026-01-01")
    assert drawn <= {*GALLERY}
    assert SAMPLED == len(drawn)
    assert drawn != sample(GALLERY, "2026-01-02")


def test_each_sampled_test_has_its_turn_within_some_weeks():
    days = [f"2026-{month:02}-{day:02}" for month in (1, 2, 3) for day in range(1, 29)]
    turns = {
        name: [day for day in days if has_its_turn(name, day)] for name in map(str, range(200))
    }
    assert all(turns.values())
    drawn = sum(map(len, turns.values())) / len(turns) / len(days)
    assert 0.8 / OF_DAYS < drawn < 1.25 / OF_DAYS


class TestReport:
    KILLED = Verdict(
        *("ReplaceForUpsert", SQLITE, "MSG-3", "core", "killed", "test_msg_3_x", "MSG-3"),
        *("1", "2", 7, 1, 0.5),
    )
    ALIVE = KILLED._replace(fate="survived", clause="", found_rule="", expected="", actual="")

    def test_a_survivor_is_told_with_its_mistake(self):
        assert [] == others([self.KILLED])
        (told,) = others([self.ALIVE])
        assert told == (
            "ReplaceForUpsert survived 7 clauses; it breaks MSG-3: INSERT OR REPLACE deletes the "
            "row and inserts it anew: at the end."
        )

    def test_a_rule_that_only_others_defend_is_told(self):
        """Once all of its mutants were tried: the clause of another may have been luck."""
        own = [name for name in OF_SQLITE if GALLERY[name].rule == "MSG-3"]
        by_luck = [self.KILLED._replace(mutant=name, found_rule="MSG-4") for name in own]
        assert ["MSG-3"] == left_to_luck(by_luck)
        assert [] == left_to_luck(by_luck[1:])
        assert [] == left_to_luck([*by_luck[1:], by_luck[0]._replace(found_rule="MSG-3")])

    def test_a_hung_trial_is_told_with_what_it_said(self):
        hung = self.ALIVE._replace(fate="hung", actual="in clause x")
        assert ["ReplaceForUpsert hung: in clause x"] == others([hung])

    def test_the_table_names_the_clause(self):
        table = as_markdown([self.KILLED, self.ALIVE])
        assert "| `test_msg_3_x` | 0.5 |" in table
        assert "| **survived** | 0.5 |" in table

    def test_the_page_says_which_kinds_of_backend_a_rule_was_proven_on(self):
        by_luck = self.KILLED._replace(found_rule="MSG-4", kind="Postgres")
        own = self.KILLED._replace(kind="Postgres behind a pooler")
        (line,) = [
            line
            for line in as_markdown([self.KILLED, self.KILLED, self.ALIVE, by_luck, own]).split(
                "\n"
            )
            if line.startswith("| MSG-3 |") and line.count("|") == 5
        ]
        assert line == "| MSG-3 | 2 | - | 1 |"

    def test_healthy_twins_are_counted_by_themselves(self):
        twin = self.ALIVE._replace(mutant=TWINS_OF_SQLITE[0])
        assert summary([self.KILLED, self.ALIVE, twin, twin._replace(fate="killed")]) == (
            "1 of 2 mutants killed, 1 of them by a clause of the rule that they break; "
            "1 of 2 healthy twins passed; 2 s of trials."
        )

    def test_a_race_that_was_missed_at_first_is_told(self):
        late = self.KILLED._replace(attempts=2)
        assert ", 1 not at the first attempt" in summary([self.KILLED, late])
        assert "attempt" not in summary([self.KILLED])

    def test_the_data_has_the_mistake(self):
        (entry,) = as_json([self.KILLED])
        assert ("killed", "test_msg_3_x", 7) == (entry["fate"], entry["clause"], entry["passed"])
        assert entry["mistake"].startswith("INSERT OR REPLACE")
