"""The frame of the suite: what a subclass may do, and what pytest says of it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from director_db import ConfigurationError
from director_db.testing import FAULTS, connections_to, files_in
from director_db_conformance import CLAUSES, ConformanceSuite, Place
from director_db_conformance.clause import clause, clause_of
from director_db_conformance.clauses import ALL_CLAUSES
from director_db_conformance.levels import Level

pytestmark = pytest.mark.sampled

FILE = """
from director_db_conformance import ConformanceSuite, Place

class TestMyBackend(ConformanceSuite):
    def new_place(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("my") / "x.db"
        return Place(db_type="sqlite", env={"SQLITE_DB_PATH": str(path)})
"""
RULE = "-k=SES-1 or SES-2"


@pytest.fixture
def run(tmp_path):
    def run(text, *options):
        (tmp_path / "test_mine.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
            timeout=1100,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def of_rules(*rules):
    return [found for found in CLAUSES.values() if found.rule in rules]


@pytest.mark.timeout(1200)
def test_a_whole_file_of_tests_gets_a_verdict(run):
    """Of a place that keeps nothing, which settles the level."""
    memory = FILE.replace(
        "str(path)}", "':memory:'}, shared=False, durable=False, reason='no file'"
    )
    status, output = run(memory)
    assert status == 0, output
    core = [found for found in CLAUSES.values() if found.level is Level.CORE]
    passed = sum(found.needs in {None, "fork"} for found in core)
    verdict = f"CONFORMANT at core, {len(core) - passed} clauses not applicable"
    counts = f"{passed} passed, {len(CLAUSES) - passed} not applicable"
    assert f"::TestMyBackend  {verdict}  ({counts})" in output
    assert "    not applicable: the place is not shared: no file" in output


def test_what_was_left_out_did_not_run(run):
    status, output = run(FILE, RULE)
    assert status == 0, output
    passed = len(of_rules("SES-1", "SES-2"))
    assert f"::TestMyBackend  PARTIAL  ({passed} passed)" in output


def test_clauses_run_from_the_basic_to_the_durable(run):
    status, output = run(FILE + "    def test_mine(self):\n        pass\n", "--collect-only")
    assert status == 0, output
    names = re.findall(r"TestMyBackend::(\w+)", output)
    assert [*CLAUSES] == [name for name in names if name != "test_mine"]
    levels = [found.level.value for found in CLAUSES.values()]
    assert sorted(levels, key=["core", "concurrent", "durable"].index) == levels
    assert "SES-1" == next(iter(CLAUSES.values())).rule


def test_clauses_that_another_process_has_claimed_are_left_out(run, tmp_path):
    chosen = [found.name for found in of_rules("SES-1")]
    claims = tmp_path / "claims"
    claims.mkdir()
    (claims / chosen[0]).touch()
    _, output = run(FILE, "-k=SES-1", "--conformance-claims=claims", "-vv")
    assert chosen[1:] == re.findall(r"::(\w+) PASSED", output)
    assert sorted(chosen) == sorted(claim.name for claim in claims.iterdir())


def test_the_last_clause_can_be_the_first(run):
    chosen = [found.name for found in of_rules("SES-1")]
    _, output = run(FILE, "-k=SES-1", "--conformance-backwards", "-vv")
    assert chosen[::-1] == re.findall(r"::(\w+) PASSED", output)


def test_the_verdict_names_the_server(run):
    server = FILE.replace("str(path)}", "str(path)}, server='Postgres 99.1 from a drawer'")
    _, output = run(server, "-k=SES-2")
    assert "\n    on Postgres 99.1 from a drawer\n" in output


def test_a_subclass_may_run_through_the_asynchronous_face(run):
    face = '    face = "asyncio"\n'
    status, output = run(FILE + face, "-k=test_ses_1_stores_what_is_given")
    assert status == 0, output
    assert "::TestMyBackend, face asyncio  PARTIAL  (1 passed)" in output
    status, output = run(FILE + face.replace("asyncio", "async"), "-k=SES-1")
    assert status == 2
    assert "TestMyBackend.face is 'async', and not sync or asyncio." in output


def test_a_place_that_cannot_be_made_is_no_verdict(run):
    status, output = run(FILE.replace("path =", "path = missing ="), RULE)
    assert status == 0, output
    status, output = run(FILE.replace('/ "x.db"', "/ missing"), RULE)
    assert status == 1
    count = len(of_rules("SES-1", "SES-2"))
    assert f"::TestMyBackend  NOT RUN  ({count} not run)" in output


def test_an_empty_subclass_is_never_conformant(run):
    empty = """
from director_db_conformance import ConformanceSuite

class TestEmpty(ConformanceSuite):
    pass
"""
    status, output = run(empty, RULE)
    assert status == 1
    assert "TestEmpty  NOT RUN" in output
    assert "TestEmpty writes new_place(self, tmp_path_factory) -> Place." in output


@pytest.mark.parametrize(
    "marks",
    [
        "@pytest.mark.skip",
        "@pytest.mark.xfail(strict=False)",
        "@pytest.mark.skipif(True, reason='x')",
    ],
)
def test_marks_do_not_hide_a_clause(run, marks):
    marked = FILE.replace("class Test", f"import pytest\n\n{marks}\nclass Test")
    status, output = run(marked, RULE)
    assert status == 0
    assert "TestMyBackend  NOT RUN" in output
    assert "CONFORMANT at" not in output


def test_a_clause_that_is_put_in_the_place_of_another_does_not_count(run):
    name = of_rules("SES-1")[0].name
    status, output = run(f"{FILE}\nTestMyBackend.{name} = lambda self: None\n", f"-k={name}")
    assert status == 0
    assert "1 passed" in output  # As a test of somebody's own: it is no clause any more.
    assert "(1 passed)" not in output


def test_a_fixture_that_is_put_in_the_place_of_another_does_not_count(run):
    replacement = "TestMyBackend.db = pytest.fixture(lambda self, place: place.open())"
    replaced = f"{FILE}\nimport pytest\n{replacement}\n"
    status, output = run(replaced, "-k=ses_1")
    assert status == 0
    passed = len(of_rules("SES-1"))
    assert f"{passed} passed" in output  # As tests of somebody's own: they are no clauses any more.
    assert "TestMyBackend" not in output
    assert "CONFORMANT" not in output


def test_a_test_whose_body_did_not_run_is_no_proof(run, tmp_path):
    (tmp_path / "conftest.py").write_text("def pytest_pyfunc_call(pyfuncitem):\n    return True\n")
    status, output = run(FILE, "--conformance-level=core")
    assert status == 0
    assert "TestMyBackend  NOT RUN" in output


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("return None", "TestMyBackend.new_place returned None, which is no Place."),
        (
            (
                "return Place('sqlite', {'SQLITE_DB_PATH': tmp_path_factory.mktemp('x') / 'x'}, "
                "shared=next(NUMBERS) != 1, reason='odd')"
            ),
            "returned a place with shared=False; the first had True.",
        ),
        (
            "return Place('sqlite', {'SQLITE_DB_PATH': tmp_path_factory.getbasetemp() / 'x'})",
            "sessions. Each test needs a new one.",
        ),
    ],
)
def test_what_is_no_new_place_of_the_same_kind_is_refused(run, code, message):
    head, _, _ = FILE.partition("        path = ")
    file = f"import itertools\nNUMBERS = itertools.count()\n{head}        {code}\n"
    status, output = run(file, "-k=SES-1")
    assert status == 1
    assert message in output
    assert "CONFORMANT at" not in output


def test_a_failure_says_rule_expected_actual_and_calls(run):
    broken = (
        FILE
        + """
from director_db.operations.sessions import SessionOperations
type.__setattr__(SessionOperations, "get_session", lambda self, session_id: {"session_id": "other"})
"""
    )
    name = of_rules("SES-1")[0].name
    status, output = run(broken, f"-k={name}")
    assert status == 1
    assert "TestMyBackend  NOT CONFORMANT  (1 failed)" in output
    found = CLAUSES[name]
    assert found.title in output
    assert found.meaning in output
    assert "expected: " in output
    assert "actual:   " in output
    assert "db.create_session(" in output
    assert "db.get_session(" in output


def test_overriding_a_clause_is_refused_when_the_class_is_made():
    name, found = next(iter(CLAUSES.items()))
    mixin = type("Mixin", (), {name: lambda self: None})
    with pytest.raises(TypeError, match=f"TestMine overrides the clause '{found.title}'"):
        type("TestMine", (ConformanceSuite,), {name: lambda self: None})
    with pytest.raises(TypeError, match="TestMixed overrides the clause"):
        type("TestMixed", (mixin, ConformanceSuite), {})
    with pytest.raises(TypeError, match="TestNone overrides the clause"):
        type("TestNone", (ConformanceSuite,), {name: None})
    for fixture in ("place", "db"):
        with pytest.raises(TypeError, match=f"overrides the suite's '{fixture}'"):
            type("TestMine", (ConformanceSuite,), {fixture: None})


def test_a_suite_refuses_a_contract_that_it_does_not_check(monkeypatch):
    monkeypatch.setattr("director_db_conformance.version.CONTRACT_VERSION", "1.7")
    with pytest.raises(TypeError, match=r"checks version 1\.1 .* has version 1\.7"):
        type("TestMine", (ConformanceSuite,), {})


def test_a_clause_says_what_its_rule_means():
    with pytest.raises(TypeError, match="does not say what its rule means"):

        @clause("SES-1")
        def test_ses_1_nothing(self, db):
            pass

    for found in CLAUSES.values():
        assert found.meaning.endswith((".", "?")), found.name
        if found.rule != "ALL":
            assert found.name.startswith(f"test_{found.rule.lower().replace('-', '_')}_"), (
                found.name
            )


def test_the_readme_says_where_the_clauses_of_a_rule_are():
    readme = (Path(__file__).parents[2] / "conformance/README.md").read_text(encoding="utf-8")
    table = readme.split("## Where a clause is")[1].split("\n## ")[0]
    told = set()
    for rules, file in re.findall(r"^\| (.+?) \| `(\w+\.py)` \|", table, re.MULTILINE):
        for first, last in re.findall(r"([A-Z]+(?:-\d+)?)(?: to ([A-Z]+-\d+))?", rules):
            family, _, number = first.partition("-")
            numbers = range(int(number), int((last or first).split("-")[1]) + 1) if number else ()
            told |= {(f"{family}-{each}", file) for each in numbers} or {(first, file)}
    actual = {
        (found.rule, f"{clauses.__module__.rpartition('.')[2]}.py")
        for clauses in ALL_CLAUSES
        for found in map(clause_of, vars(clauses).values())
        if found is not None
    }
    assert actual == told


def test_a_place_says_why_it_is_not_shared_or_not_durable():
    for flag in ("shared", "durable"):
        with pytest.raises(ValueError, match="'my' gives no reason why"):
            Place("my", {}, **{flag: False})
    place = Place("my", {"MY": "1"}, shared=False, durable=False, reason="in memory")
    assert {"MY": "1", "DB_TYPE": "my"} == place.env
    offered = ("url", "restart", "cut", "stop", "start", "freeze", "thaw", "destroy")
    assert [None] * 8 == [getattr(place, name) for name in offered]
    assert (None, None, None, {}, {}) == (
        place.delete_session_row,
        place.lock_session_row,
        place.connections,
        place.impatient,
        place.faults,
    )
    assert [None] * 9 == [place.fault(name) for name in FAULTS]


def test_a_place_is_text(tmp_path):
    assert {"MY": str(tmp_path), "DB_TYPE": "my"} == Place("my", {"MY": tmp_path}).env
    with pytest.raises(TypeError, match="The variable MY of a place is a str, not int"):
        Place("my", {"MY": 5})


def test_a_place_may_have_its_actions_as_methods():
    class Mine(Place):
        def restart(self):
            return "restarted"

        def stop(self):
            told.append("stopped")

        def start(self):
            told.append("started")

    told = []
    assert "restarted" == Mine("my", {}).restart()
    with Mine("my", {}).fault("stopped")():
        assert ["stopped"] == told
    assert ["stopped", "started"] == told
    assert "cut" == Mine("my", {}, cut=lambda: "cut").cut()


def test_what_a_place_cannot_have_is_refused():
    with pytest.raises(ValueError, match=r"There is no fault 'sleepy'. There are: locked, stopped"):
        Place("my", {}, faults={"sleepy": nullcontext})
    for one, other in (("stop", "start"), ("start", "stop"), ("freeze", "thaw")):
        with pytest.raises(ValueError, match=f"'my' has only one of .*{other}"):
            Place("my", {}, **{one: print})


def test_an_instance_takes_arguments_beside_those_of_its_place(tmp_path):
    place = Place("sqlite", {"SQLITE_DB_PATH": tmp_path / "x.db"})
    with pytest.raises(ConfigurationError, match="operation_timeout"):
        place.open(operation_timeout=-1)
    with place.open(operation_timeout=1) as db:
        assert str(tmp_path / "x.db") == db.place


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there a system tells")
def test_descriptors_of_a_process_are_told(tmp_path):
    (tmp_path / "in").mkdir()
    of_files = files_in(tmp_path / "in")
    with (tmp_path / "in" / "x").open("w") as one, (tmp_path / "out").open("w"):
        assert [f"{one.fileno()} {tmp_path}/in/x"] == of_files(os.getpid())
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert [] == of_files(child.pid)
        child.communicate(b"\n")
    assert [] == of_files(os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert [] == connections_to(port)(os.getpid())
        with socket.create_connection(("127.0.0.1", port)) as client:
            inode = os.fstat(client.fileno()).st_ino
            assert [f"socket:[{inode}]"] == connections_to(port)(os.getpid())
