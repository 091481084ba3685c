"""``director-db-conformance``, run as its users run it."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from director_db_conformance import CLAUSES, Level, __version__
from director_db_conformance.provision import why_unusable
from director_db_conformance.servers.configured_server import VARIABLE
from director_db_conformance.servers.server_sources import VERSION_VARIABLE

pytestmark = pytest.mark.sampled


def row(done, db_type):
    """Return the cells of a backend's row in the table of verdicts."""
    found = re.search(rf"^ *{db_type}  .*$", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return re.split(r"  +", found[0].strip())


@pytest.mark.sampled(always=True)
@pytest.mark.timeout(1200)
def test_sqlite_and_postgres_are_conformant(conformance, tmp_path, pytestconfig):
    """The proof of the two backends of this repository, and of all that the command writes.

    `make test` has no time for the levels above the first one; `make test-all` runs them.
    """
    asked = Level.CORE if pytestconfig.getoption("--sample") else Level.DURABLE
    chosen = {name for name, clause in CLAUSES.items() if asked.includes(clause.level)}
    kept = {name: os.environ[name] for name in (VARIABLE, VERSION_VARIABLE) if name in os.environ}
    done = conformance(
        "sqlite", "postgres", "--level", asked.value, "--json", "o.json", "--junit", "o.xml",
        timeout=1100, **kept,
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
    for db_type in ("sqlite", "postgres"):
        verdict, level = row(done, db_type)[1:3]
        # Beside the level stands what a place does not bring about, as the lines below say.
        assert ("✓ CONFORMANT", asked.value) == (verdict, level.partition(",")[0])
    if asked is Level.DURABLE:
        assert "sqlite: " in done.stdout
        assert "not applicable: the place offers no restart()" in done.stdout

    document = json.loads((tmp_path / "o.json").read_text())
    assert ("1.1", __version__) == (document["contract"], document["suite"])
    for backend in document["backends"]:
        assert ("CONFORMANT", asked.value) == (backend["verdict"], backend["reached"])
        assert chosen == {entry["clause"] for entry in backend["clauses"]}
        outcomes = {entry["result"]["outcome"] for entry in backend["clauses"]}
        assert {"passed"} == outcomes - {"not applicable"}
    root = ET.parse(tmp_path / "o.xml").getroot()  # noqa: S314 - our own
    suites = {suite.get("name"): suite for suite in root}
    assert {"sqlite", "postgres"} == set(suites)
    for suite in suites.values():
        counts = [suite.get(name) for name in ("tests", "failures", "errors")]
        assert [str(len(chosen)), "0", "0"] == counts


def results(path):
    """Return what became of each clause of the only backend, and the backend itself."""
    (backend,) = json.loads(path.read_text())["backends"]
    return {entry["clause"]: entry["result"] for entry in backend["clauses"]}, backend


@pytest.mark.parametrize("db_type", ["raising", "unopenable"])
def test_a_broken_backend_is_never_conformant(conformance, db_type):
    done = conformance(db_type, "--level=core", "-k=SES-1 or SES-3 or LIF-5")
    assert 1 == done.returncode
    assert ["✗ NOT CONFORMANT", "core"] == row(done, db_type)[1:3]


def test_a_clause_that_takes_its_process_along_costs_that_clause(conformance, tmp_path):
    """What exits, crashes and never returns is told, each for itself; the rest runs on."""
    exits, crashes = (
        "test_del_1_deletes_all_messages",
        "test_msg_9_delete_says_whether_it_was_there",
    )
    hangs, passes = "test_del_1_deletes_the_context", "test_ses_1_fills_the_defaults"
    keyword = f"{exits} or {crashes} or {hangs} or {passes}"
    done = conformance("dying", "--time-limit=10", "-k", keyword, "--json=o.json", "--junit=o.xml")
    assert 1 == done.returncode, done.stderr
    assert "✗ NOT CONFORMANT" == row(done, "dying")[1]
    found, _ = results(tmp_path / "o.json")
    ran = {name: result for name, result in found.items() if result["reason"] != "left out"}
    assert {passes: "passed"} | dict.fromkeys([exits, crashes, hangs], "failed") == {
        name: result["outcome"] for name, result in ran.items()
    }
    assert "the process ended in it, with status 3" == found[exits]["actual"]
    assert "db.get_message('s1', 'a')" == found[exits]["calls"][-1]
    assert "the process ended in it, killed by SIGSEGV" == found[crashes]["actual"]
    assert "in _delete_message" in found[crashes]["traceback"]
    assert "it did not end within 10 s" == found[hangs]["actual"]
    assert "db.delete_context('s1')" == found[hangs]["calls"][-1]
    assert "in _delete_context" in found[hangs]["traceback"]
    for text in ("dying DEL-1: deletes the context", "actual:   it did not end within 10 s"):
        assert text in done.stdout
    (suite,) = ET.parse(tmp_path / "o.xml").getroot()  # noqa: S314 - our own
    counts = [int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")]
    assert [len(CLAUSES), 3, 0, len(CLAUSES) - 4] == counts


def test_an_interrupt_costs_the_clause_that_it_strikes(conformance, tmp_path):
    """pytest ends with it, and the rest runs on in another process."""
    struck, *others = [name for name, clause in CLAUSES.items()
                       if name == "test_msg_9_delete_says_whether_it_was_there"
                       or (clause.rule == "DEL-1" and clause.level is Level.CORE)]  # fmt: skip
    done = conformance("interrupted", "--json=o.json", "-k", " or ".join([struck, *others]))
    assert 1 == done.returncode, done.stderr
    found, _ = results(tmp_path / "o.json")
    assert "failed" == found[struck]["outcome"]
    assert "the process ended in it, with status 2" in found[struck]["actual"]
    assert others
    assert ["passed"] * len(others) == [found[name]["outcome"] for name in others]


def test_a_process_that_ends_by_itself_was_not_killed(conformance, tmp_path):
    name = "test_lif_2_no_acknowledged_write_is_lost_when_its_process_is_killed"
    done = conformance("fleeting", "--json=o.json", "-k", name)
    assert 1 == done.returncode, done.stdout
    found, _ = results(tmp_path / "o.json")
    assert found[name]["actual"].endswith("before it was killed: [0]")


@pytest.mark.parametrize(
    ("looks", "expected"),
    [("0", "another process looks before anything happens"), ("2", r"\['over\\n'")],
)
def test_a_process_that_ends_while_it_looks_shows_nothing(conformance, tmp_path, looks, expected):
    name = "test_msg_7_another_process_sees_no_part_of_a_bulk"
    done = conformance("fugitive", "--json=o.json", "-k", name, LOOKS=looks)
    assert 1 == done.returncode, done.stdout
    found, _ = results(tmp_path / "o.json")
    assert re.search(expected, found[name]["expected"])


def test_processes_that_die_beside_one_another_cost_each_its_clause(conformance, tmp_path):
    """Many clauses, so that several processes share them: each ends one way or the other, once."""
    names = [name for name, clause in CLAUSES.items() if clause.rule in {"MSG-9", "SES-2", "MSG-4"}]
    core = [name for name in names if CLAUSES[name].level is Level.CORE]
    done = conformance(
        "dying", "--level=core", "--time-limit=20", "-k", " or ".join(core), "--json=o.json"
    )
    assert 1 == done.returncode, done.stderr
    found, _ = results(tmp_path / "o.json")
    outcomes = {name: found[name]["outcome"] for name in core}
    assert {"passed", "failed"} == {*outcomes.values()}
    assert {"passed"} == {outcomes[name] for name in core if CLAUSES[name].rule == "SES-2"}
    dead = [found[name]["actual"] for name in core if outcomes[name] == "failed"]
    ends = {"the process ended in it, with status 3", "the process ended in it, killed by SIGSEGV"}
    assert ends == {*dead}
    # How they ended is of each its own.
    assert all(found[name]["calls"] for name in core if outcomes[name] == "failed")


def test_a_process_without_a_place_leaves_its_clauses_to_those_that_have_one(conformance, tmp_path):
    keyword = "SES-1 or SES-2 or SES-3 or SES-4"
    done = conformance(
        "lonely", "--level=core", "-k", keyword, "--json=o.json", LONELY=str(tmp_path / "owner")
    )
    assert 0 == done.returncode, done.stdout
    found, _ = results(tmp_path / "o.json")
    rules = {"SES-1", "SES-2", "SES-3", "SES-4"}
    ran = [found[name]["outcome"] for name, clause in CLAUSES.items()
           if clause.rule in rules and clause.level is Level.CORE]  # fmt: skip
    # Enough of them for three processes.
    assert len(ran) > 18
    assert {"passed"} == {*ran}


def test_a_place_that_hangs_costs_its_clause_and_the_phase_is_told(conformance, tmp_path):
    names = [name for name, clause in CLAUSES.items() if clause.rule == "SES-1"][:4]
    done = conformance("slow", "--time-limit=10", "-k", " or ".join(names), "--json=o.json")
    assert 1 == done.returncode, done.stderr
    found, backend = results(tmp_path / "o.json")
    assert ["passed", "not run", "failed", "passed"] == [found[name]["outcome"] for name in names]
    making = "no place: making its place did not end within 10 s"
    assert making == found[names[1]]["reason"]
    assert "destroying its place did not end within 10 s" == found[names[2]]["actual"]
    assert f"slow: 1 clause not run: {making} (in {names[1]})" in done.stdout
    assert "slow: on Slow 4.0 from a drawer" in done.stdout
    assert "Slow 4.0 from a drawer" == backend["server"]


def test_a_clause_whose_calls_go_on_may_take_longer(conformance):
    """It creates five sessions, each of which takes two seconds."""
    name = "test_ses_4_returns_at_most_limit_sessions"
    done = conformance("sluggish", "--time-limit=6", "-k", name)
    assert 0 == done.returncode, done.stdout
    assert "○ PARTIAL" == row(done, "sluggish")[1]


def test_a_backend_that_always_hangs_does_not_hold_the_command_for_ever(conformance, tmp_path):
    done = conformance("hanging", "--level=core", "--time-limit=1", "--json=o.json")
    assert 1 == done.returncode, done.stderr
    found, _ = results(tmp_path / "o.json")
    hung = [result for result in found.values() if "did not end within 1 s" in
            result["actual"] + result["reason"]]  # fmt: skip
    assert 5 >= len(hung) > 0
    assert re.search(r"hanging: \d+ clauses not run: others had hung for \d+ s before", done.stdout)
    assert "✗ NOT CONFORMANT" == row(done, "hanging")[1]


def test_a_broken_backend_does_not_spoil_the_verdict_of_another(conformance):
    done = conformance("dying", "sqlite", "-k=test_msg_9_delete_says_whether_it_was_there")
    assert 1 == done.returncode
    assert "✗ NOT CONFORMANT" == row(done, "dying")[1]
    assert "○ PARTIAL" == row(done, "sqlite")[1]


def test_what_does_not_apply_is_told_with_its_reason(conformance):
    done = conformance("memory", "-k", "SES-2")
    assert 0 == done.returncode, done.stdout
    assert ["○ PARTIAL", "not judged"] == row(done, "memory")[1:3]
    assert "not applicable: the place is not shared: it is in memory" in done.stdout


def test_a_choice_of_clauses_is_partial(conformance, tmp_path):
    done = conformance("sqlite", "--level=core", "-k", "MSG-3", "--json=o.json")
    assert 0 == done.returncode, done.stdout
    assert "○ PARTIAL" == row(done, "sqlite")[1]
    core = [clause for clause in CLAUSES.values() if clause.level.value == "core"]
    chosen = sum(clause.rule == "MSG-3" for clause in core)
    assert f"{chosen}/{chosen}" == row(done, "sqlite")[3]
    assert f"sqlite: {len(core) - chosen} clauses not run: left out" in done.stdout
    _, backend = results(tmp_path / "o.json")
    assert ("PARTIAL", False) == (backend["verdict"], backend["conformant"])


def test_the_asynchronous_face_is_named_with_what_says_nothing_of_it(conformance, tmp_path):
    stored, interrupted = (
        "test_ses_1_stores_what_is_given",
        "test_lif_3_an_interrupted_call_that_waited_is_not_applied_later",
    )
    done = conformance(
        "sqlite", "--face=asyncio", "-k", f"{stored} or {interrupted}", "--json=o.json"
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "\nface: asyncio\n" in done.stdout
    reason = "for coroutines: nothing breaks off a call that has begun, see LIF-7"
    assert f"sqlite: 1 clause not applicable: {reason}" in done.stdout
    found, backend = results(tmp_path / "o.json")
    assert ("asyncio", "passed") == (backend["face"], found[stored]["outcome"])
    assert reason == found[interrupted]["reason"]


def test_fail_fast_stops_at_the_first_failure_of_all(conformance, tmp_path):
    done = conformance("raising", "sqlite", "--fail-fast", "--json=o.json")
    assert 1 == done.returncode, done.stdout
    backends = json.loads((tmp_path / "o.json").read_text())["backends"]
    broken, healthy = ([entry["result"] for entry in each["clauses"]] for each in backends)
    assert "failed" == broken[0]["outcome"]
    assert {"stopped at the first failure"} == {result["reason"] for result in broken[1:]}
    assert "stopped at the first failure" == healthy[-1]["reason"]
    assert "NOT CONFORMANT" == backends[0]["verdict"]
    # By then it may not have begun.
    assert backends[1]["verdict"] in {"INCOMPLETE", "NOT RUN"}
    assert next(iter(CLAUSES)) == backends[0]["clauses"][0]["clause"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["sqlite", "empty"], "EmptyDB of broken 1.0"),
        (["sqlite", "unprovided"], "The package of 'unprovided' offers no places for tests."),
        (["sqlite", "leaving"], "The package of 'leaving' ended the process at its import"),
        (["sqlite", "-k", "SES-1 or"], "Wrong expression passed to '-k'"),
        (["sqlite", "--json", "no/such/folder/o.json"], "There is no folder no/such/folder"),
        (["sqlite", "--time-limit=0"], "0.0 is not in the range x>0"),
        (["sqlite", "-k", "MGS-3"], "matches no clause up to the level durable. Near: MSG-3, "),
        (["--list", "-k", "deleet"], "Near: delete, deletes, deleted. "),
        (
            ["sqlite", "-k", "LIF-2", "--level=core"],
            "Those that it names are of the level durable.",
        ),
        ([], "Name one DB type or more"),
        (
            ["sqlite", "--level", "perfect"],
            "'perfect' is not one of 'core', 'concurrent', 'durable'",
        ),
    ],
)
def test_what_cannot_be_run_is_one_clear_line(conformance, args, message):
    done = conformance(*args)
    assert (2, "") == (done.returncode, done.stdout)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_type_is_one_clear_line(conformance):
    # Who has this name for a URL's scheme is looked for in all packages; these would end that.
    done = conformance("nope", PYTHONPATH="")
    assert (2, "") == (done.returncode, done.stdout)
    assert "Unknown DB type 'nope'. Installed: postgres, sqlite." in done.stderr


def test_a_package_whose_import_does_not_end_is_unusable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).with_name("packages")))
    assert "The package of 'stuck' was not imported within 2 s." == why_unusable("stuck", 2)


def test_places_of_another_backend_prove_nothing(conformance):
    done = conformance("lying", "--level=core", "-k", "SES-1")
    assert 1 == done.returncode
    assert "✗ NOT RUN" == row(done, "lying")[1]
    assert "The hook of 'lying' returned <Place of type sqlite>" in done.stdout


def test_plugins_and_options_of_other_tests_have_no_part_in_it(conformance):
    cheated = conformance(
        "raising", "--level=core", "-k", "SES-1",
        PYTEST_PLUGINS="cheating", PYTEST_ADDOPTS="-p cheating",
    )  # fmt: skip
    assert 1 == cheated.returncode
    assert "✗ NOT CONFORMANT" == row(cheated, "raising")[1]


def test_a_conftest_of_other_tests_has_no_part_in_it(conformance, tmp_path):
    """Where temporary folders are, or above the packages, anybody may have put one."""
    places = tmp_path / "places"
    places.mkdir()
    (places / "conftest.py").write_text("def pytest_collection_modifyitems(items): items.clear()")
    done = conformance("raising", "--level=core", "-k", "SES-1", TMPDIR=str(places))
    assert 1 == done.returncode
    assert "✗ NOT CONFORMANT" == row(done, "raising")[1]


def test_a_relative_path_of_packages_is_that_of_the_command(conformance, tmp_path):
    packages = os.path.relpath(Path(__file__).with_name("packages"), tmp_path)
    done = conformance("memory", "--level=core", "-k", "SES-2", PYTHONPATH=packages)
    assert 0 == done.returncode, done.stdout + done.stderr
    # Without any, the folder of the command is no place of packages either.
    (tmp_path / "random.py").write_text("raise SystemExit(1)")
    done = conformance("sqlite", "--level=core", "-k", "SES-2", PYTHONPATH="")
    assert 0 == done.returncode, done.stdout + done.stderr


def test_the_report_of_an_earlier_run_is_not_left(conformance, tmp_path):
    (tmp_path / "o.json").write_text("CONFORMANT")
    assert 2 == conformance("unprovided", "--json=o.json").returncode
    assert "" == (tmp_path / "o.json").read_text()


def test_clauses_can_be_listed(conformance):
    everything = conformance("--list").stdout.splitlines()
    assert len(CLAUSES) == len(everything)
    of_one = conformance("--list", "-k", "MSG-3").stdout.splitlines()
    assert of_one == [line for line in everything if " MSG-3: " in line]
    assert of_one
    some = conformance("--list", "-k", "(DEL-1 or msg-3) and not once").stdout.splitlines()
    named = [line for line in everything if " MSG-3: " in line or " DEL-1: " in line]
    assert some == [line for line in named if "once" not in line]
    assert 0 < len(some) < len(named)
    for wrong in ("MSG-3 or", "MSG-3 (x)"):
        refused = conformance("--list", "-k", wrong)
        assert refused.stderr.startswith(f"director-db-conformance: -k {wrong!r} matches no clause")


def test_the_clauses_of_a_release_are_those_that_it_was_released_with():
    """New required clauses only in a minor release: a patch must not fail who passed before."""
    recorded = Path(__file__).parents[2] / "conformance" / "released_clauses.json"
    released = json.loads(recorded.read_text())
    minor = __version__.rpartition(".")[0]
    now = {name: [found.rule, found.level.value, found.needs] for name, found in CLAUSES.items()}
    if minor not in released:  # Under way: it adds to the last one, and is recorded when released.
        assert [*released.values()][-1].items() <= now.items()
        return
    assert released[minor] == now, (
        "A clause is new, renamed or gone. In a patch release that may not be; for a new minor "
        "release, raise the versions of contract and suite and record its clauses."
    )
