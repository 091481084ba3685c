"""``director-db-conformance``, run as its users run it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from director_db_conformance import CLAUSES, __version__
from director_db_conformance.servers.configured_server import VARIABLE
from director_db_conformance.servers.ladder import VERSION_VARIABLE

COMMAND = Path(sys.executable).with_name("director-db-conformance")

# Backends as a package of somebody's would bring them, each broken in its own way.
BROKEN = '''
"""Backends that nobody should use."""

import os
import time

from director_db.hookspecs import BackendSpec, hookimpl
from director_db.testing import Place
from director_db_sqlite import SQLiteDB
from director_db import BaseDB


class RaisingDB(SQLiteDB, db_type="raising"):
    """Raises everywhere."""


def refuse(self, *args, **kwargs):
    raise RuntimeError("no")


for name in dir(BaseDB):
    if not name.startswith("_") and name not in {"close", "db_type", "place"}:
        type.__setattr__(RaisingDB, name, refuse)


class DyingDB(SQLiteDB, db_type="dying"):
    """Takes the process with it."""

    def _select_session(self, session_id):
        os._exit(3)


class HangingDB(SQLiteDB, db_type="hanging"):
    """Never answers."""

    def _select_session(self, session_id):
        time.sleep(1000)


class MemoryDB(SQLiteDB, db_type="memory"):
    """Is fine, and keeps nothing."""


class Plugin:
    def __init__(self, name, env, **flags):
        self.name, self.env, self.flags = name, env, flags

    @hookimpl
    def director_db_backend(self):
        return BackendSpec(self.name, f"broken:{self.name.title()}DB", "broken")

    @hookimpl
    def director_db_provision(self, directory):
        return Place(
            self.name, {"SQLITE_DB_PATH": self.env.format(directory=directory)}, **self.flags
        )


class UnprovidedDB(SQLiteDB, db_type="unprovided"):
    """Is fine, and offers no places."""


class EmptyDB(BaseDB, db_type="empty"):
    """Writes no operation."""


class Unprovided:
    @hookimpl
    def director_db_backend(self):
        return BackendSpec("unprovided", "broken:UnprovidedDB", "no places")


class LyingDB(SQLiteDB, db_type="lying"):
    """Lets another backend be tested for it."""


class Lying(Plugin):
    @hookimpl
    def director_db_provision(self, directory):
        return Place("sqlite", {"SQLITE_DB_PATH": f"{directory}/x.db"})


FILE = "{directory}/x.db"
lying = Lying("lying", FILE)
empty, raising, dying, hanging = (
    Plugin(name, FILE) for name in ("empty", "raising", "dying", "hanging")
)
unopenable = Plugin("unopenable", "{directory}/no/such/folder/x.db")
UnopenableDB = type("UnopenableDB", (SQLiteDB,), {}, db_type="unopenable")
memory = Plugin("memory", ":memory:", shared=False, durable=False, reason="it is in memory")
unprovided = Unprovided()
'''
TYPES = ("empty", "raising", "dying", "hanging", "unopenable", "memory", "unprovided", "lying")

CHEATING_PLUGIN = """
def pytest_pyfunc_call(pyfuncitem):
    return True
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder of installed packages."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "broken.py").write_text(BROKEN)
    info = folder / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    points = "".join(f"{name} = broken:{name}\n" for name in TYPES)
    points += "leaving = leaving\nstuck = stuck\n"
    (folder / "leaving.py").write_text("import os\nos._exit(0)\n")
    (folder / "stuck.py").write_text("import time\ntime.sleep(1000)\n")
    (folder / "cheating.py").write_text(CHEATING_PLUGIN)
    (info / "entry_points.txt").write_text(f"[director_db]\n{points}")
    return folder


@pytest.fixture
def conformance(tmp_path, packages):
    def run(*args, timeout=240, **environment):
        ours = {"CI", VARIABLE, VERSION_VARIABLE, "COLUMNS"}
        inherited = {key: value for key, value in os.environ.items() if key not in ours}
        return subprocess.run(
            [COMMAND, *args],
            cwd=tmp_path,
            env={**inherited, "COLUMNS": "120", "PYTHONPATH": str(packages), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    return run


def row(done, db_type):
    """Return the cells of a backend's row in the table of verdicts."""
    found = re.search(rf"^ *{db_type}  .*$", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return re.split(r"  +", found[0].strip())


@pytest.mark.timeout(1200)
def test_sqlite_and_postgres_are_conformant_at_durable(conformance, tmp_path):
    """The proof of the two backends of this repository, and of all that the command writes."""
    kept = {name: os.environ[name] for name in (VARIABLE, VERSION_VARIABLE) if name in os.environ}
    done = conformance(
        "sqlite", "postgres", "--level", "durable", "--json", "o.json", "--junit", "o.xml",
        timeout=1100, **kept,
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
    for db_type in ("sqlite", "postgres"):
        assert ["✓ CONFORMANT", "durable"] == row(done, db_type)[1:3]
    assert "sqlite: " in done.stdout
    assert "not applicable: the place offers no restart()" in done.stdout

    document = json.loads((tmp_path / "o.json").read_text())
    assert ("1.0", __version__) == (document["contract"], document["suite"])
    for backend in document["backends"]:
        assert ("CONFORMANT", "durable") == (backend["verdict"], backend["reached"])
        assert set(CLAUSES) == {entry["clause"] for entry in backend["clauses"]}
        outcomes = {entry["result"]["outcome"] for entry in backend["clauses"]}
        assert {"passed"} == outcomes - {"not applicable"}
    root = ET.parse(tmp_path / "o.xml").getroot()  # noqa: S314 - our own
    suites = {suite.get("name"): suite for suite in root}
    assert {"sqlite", "postgres"} == set(suites)
    for suite in suites.values():
        counts = [suite.get(name) for name in ("tests", "failures", "errors")]
        assert [str(len(CLAUSES)), "0", "0"] == counts


@pytest.mark.parametrize(
    ("db_type", "verdict"),
    [
        ("raising", "NOT CONFORMANT"),
        ("dying", "NOT CONFORMANT"),
        ("hanging", "NOT CONFORMANT"),
        ("unopenable", "NOT CONFORMANT"),
    ],
)
def test_a_broken_backend_is_never_conformant(conformance, db_type, verdict):
    done = conformance(db_type, "--level=core", "--time-limit=5", "-k=SES-1 or SES-3 or LIF-5")
    assert 1 == done.returncode
    assert [f"✗ {verdict}", "core"] == row(done, db_type)[1:3]


def test_what_ends_the_process_or_hangs_is_named(conformance):
    dying = conformance("dying", "--level=core", "-k=SES-1")
    assert "dying SES-1" in dying.stdout
    assert "actual:   the process ended in it, with status 3" in dying.stdout
    assert "    db.get_session('s1')" in dying.stdout
    hanging = conformance("hanging", "--level=core", "--time-limit=3", "-k=SES-1")
    assert "hanging SES-1" in hanging.stdout
    assert "actual:   it did not end within 3 s" in hanging.stdout
    assert "    db.get_session('s1')" in hanging.stdout


def test_a_broken_backend_does_not_spoil_the_verdict_of_another(conformance):
    done = conformance("dying", "memory", "--level=core")
    assert 1 == done.returncode
    assert "✗ NOT CONFORMANT" == row(done, "dying")[1]
    assert ["✓ CONFORMANT", "core"] == row(done, "memory")[1:3]


def test_a_place_that_keeps_nothing_is_judged_by_what_applies(conformance):
    done = conformance("memory")
    assert 0 == done.returncode, done.stdout
    assert ["✓ CONFORMANT", "core"] == row(done, "memory")[1:3]
    assert "not applicable: the place is not shared: it is in memory" in done.stdout
    # A level that was asked for by name and does not apply was not shown.
    asked = conformance("memory", "--level=durable")
    assert 1 == asked.returncode
    assert ["✓ CONFORMANT", "core"] == row(asked, "memory")[1:3]
    assert "memory: durable was asked for, and was not shown." in asked.stdout
    assert "was not shown" not in done.stdout


def test_a_choice_of_clauses_is_never_conformant(conformance):
    done = conformance("sqlite", "--level=core", "-k", "MSG-3")
    assert 1 == done.returncode
    assert "✗ INCOMPLETE" == row(done, "sqlite")[1]
    left_out = sum(clause.level.value == "core" for clause in CLAUSES.values()) - sum(
        (clause.rule, clause.level.value) == ("MSG-3", "core") for clause in CLAUSES.values()
    )
    assert f"sqlite: {left_out} clauses not run: left out" in done.stdout
    nothing = conformance("sqlite", "-k", "no_such_clause")
    assert 1 == nothing.returncode
    assert "✗ NOT RUN" == row(nothing, "sqlite")[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nope"], "Unknown DB type 'nope'. Installed: "),
        (["sqlite", "empty"], "EmptyDB of broken 1.0"),
        (["sqlite", "unprovided"], "The package of 'unprovided' offers no places for tests."),
        (["sqlite", "leaving"], "The package of 'leaving' ended the process at its import"),
        (["stuck", "--time-limit=2"], "The package of 'stuck' was not imported within 2 s."),
        (["sqlite", "-k", "SES-1 or"], "Wrong expression passed to '-k'"),
        (["sqlite", "--json", "no/such/folder/o.json"], "There is no folder no/such/folder"),
        (["sqlite", "--time-limit=0"], "0.0 is not in the range x>0"),
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


def test_clauses_can_be_listed(conformance):
    everything = conformance("--list").stdout.splitlines()
    assert len(CLAUSES) == len(everything)
    of_one = conformance("--list", "-k", "MSG-3").stdout.splitlines()
    assert of_one == [line for line in everything if " MSG-3: " in line]
    assert of_one


def test_the_clauses_of_a_release_are_those_that_it_was_released_with():
    """New required clauses only in a minor release: a patch must not fail who passed before."""
    recorded = Path(__file__).parents[2] / "conformance" / "released_clauses.json"
    released = json.loads(recorded.read_text())
    minor = __version__.rpartition(".")[0]
    now = {name: [found.rule, found.level.value, found.needs] for name, found in CLAUSES.items()}
    assert released[minor] == now, (
        "A clause is new, renamed or gone. In a patch release that may not be; for a new minor "
        "release, raise the versions of contract and suite and record its clauses."
    )
