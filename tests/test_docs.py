"""The documents: their examples run, and they name what the code has, neither more nor less."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

import director_db
from benchmarks.report import markdown
from benchmarks.results import Report
from director_db import BaseDB
from director_db.storage import Storage
from director_db.storage.history import HistoryStorage
from director_db_conformance import CLAUSES
from director_db_conformance.machine import compare_backends
from director_db_conformance.model import OPERATIONS
from director_db_sqlite import SQLiteDB

ROOT = Path(__file__).parents[1]
GUIDE = sorted([ROOT / "README.md", ROOT / "CONTRACT.md", *ROOT.glob("docs/*.md")])
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
DISTS = ("backends/*/*.md", "conformance/*.md", "integrations/*.md")
PAGES = sorted([*DOCUMENTS, *(page for pattern in DISTS for page in ROOT.glob(pattern))])
BACKENDS = {"sqlite": "SQLite", "postgres": "Postgres"}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
VARIABLE = re.compile(r"^(?:POSTGRES|SQLITE|DIRECTOR_DB|DATABASE)_[A-Z_]+$")
RULE = re.compile(r"\b(?:SES|MSG|CTX|DEL|VAL|LIF)-\d+\b")
KINDS_OF_MUTANTS = """
import json
from collections import Counter
from gallery.registry import whole_gallery
print(json.dumps(Counter(mutant.kind for mutant in whole_gallery()[0].values())))
"""
CLAIM = re.compile(r"^( *)(\S.*?)  # -> (.+)$", re.MULTILINE)


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def without_fences(text):
    """Blank the code, but keep the numbers of the lines."""
    return FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)


def section(text, title):
    """Return what stands under a heading, up to the next one of its level or above."""
    start = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    rest = text[start.end() :]
    end = re.search(rf"^#{{1,{len(start[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def first_cells(text):
    """Return the code in the first cell of each row of the tables."""
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


# --- Examples -----------------------------------------------------------------------------------


class Program(NamedTuple):
    """The Python blocks that belong together."""

    name: str
    code: str

    @property
    def needs_a_framework(self):
        """Whether it is of a page about one."""
        return self.name.startswith("docs/integrations/")


def checked(code):
    """Turn each line ``expression  # -> value`` into an assertion."""
    return CLAIM.sub(r"\1assert (\2) == (\3), (\2)", code)


def programs(path):
    """Yield the programs of a document, their lines where they stand in it.

    In the README everything under one heading of level 2 is a program; a page of docs/ is one.
    """
    text = path.read_text(encoding="utf-8")
    found = {}
    for match in FENCE.finditer(text):
        if match[1] != "python":
            continue
        above = text[: match.start()]
        titles = re.findall(r"^## (.+)$", without_fences(above), re.MULTILINE)
        title = (titles or ["first screen"])[-1] if path.parent == ROOT else "all of it"
        lines = found.setdefault(title, [])
        lines += [""] * (above.count("\n") + 1 - len(lines))
        lines += match[2].splitlines()
    for title, lines in found.items():
        yield Program(f"{name_of(path)}: {title}", "\n".join(lines) + "\n")


PROGRAMS = [program for path in DOCUMENTS for program in programs(path)]
# Where the frameworks are that the pages of docs/integrations/ are about.
FRAMEWORKS = ROOT / ".venv-integrations"


def as_parameter(program):
    """To import a framework takes seconds; the examples of the others never wait for their turn."""
    marks = pytest.mark.sampled if program.needs_a_framework else ()
    return pytest.param(program, id=program.name, marks=marks)


@pytest.mark.parametrize("program", [as_parameter(program) for program in PROGRAMS])
def test_the_examples_run_and_say_the_truth(program, tmp_path):
    python = Path(sys.executable)
    if program.needs_a_framework:
        if not (FRAMEWORKS / ".ready").exists():
            pytest.skip(
                "The frameworks are not installed: make test-integrations runs this with them."
            )
        python = FRAMEWORKS / "bin" / "python"
    script = tmp_path / "example.py"
    script.write_text(checked(program.code), encoding="utf-8")
    folder = tmp_path / "empty"
    folder.mkdir()
    done = subprocess.run(
        [python, "-W", "error", script],
        cwd=folder,
        env=os.environ | {"OPENAI_AGENTS_DISABLE_TRACING": "1"},  # Else it tries to send them.
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (0, "") == (done.returncode, done.stderr)


def test_the_first_screen_and_the_page_on_backends_have_examples():
    names = {program.name for program in PROGRAMS}
    assert {"README.md: first screen", "docs/writing-a-backend.md: all of it"} <= names


def test_a_claim_in_an_example_becomes_an_assertion():
    with pytest.raises(AssertionError, match=r"^2$"):
        exec(checked("1 + 1  # -> 3"))  # noqa: S102 - the text is ours
    exec(checked("1 + 1  # -> 2"))  # noqa: S102


def test_no_claim_in_an_example_is_overlooked():
    for program in PROGRAMS:
        assert program.code.count("# -> ") == len(CLAIM.findall(program.code)), program.name


def test_the_backend_of_the_guide_answers_as_sqlite_does(stopped_clock):
    guide = text_of("docs/writing-a-backend.md")
    names = {}
    exec(FENCE.search(section(guide, "The class"))[2], names)  # noqa: S102 - the text is ours
    with names["ToyDB"]() as toy, SQLiteDB(db_path=":memory:") as sqlite:
        compare_backends(toy, sqlite, examples=40, steps=40)
        assert toy.health_check()


# --- The contract -------------------------------------------------------------------------------


def rules_of_the_contract():
    return set(re.findall(r"^### ([A-Z]+-\d+): ", text_of("CONTRACT.md"), re.MULTILINE))


def rules_of_the_code():
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                found |= set(RULE.findall(ast.get_docstring(node) or ""))
    return found


def test_the_contract_and_the_docstrings_name_the_same_rules():
    assert rules_of_the_contract() == rules_of_the_code()


def test_the_rules_are_numbered_without_gaps():
    expected = {"SES": 9, "MSG": 14, "CTX": 5, "DEL": 4, "VAL": 8, "LIF": 7}
    assert rules_of_the_contract() == {
        f"{group}-{number}" for group, last in expected.items() for number in range(1, last + 1)
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_rule_that_a_document_names_exists(path):
    assert set() == set(RULE.findall(path.read_text(encoding="utf-8"))) - rules_of_the_contract()


def test_the_contract_carries_its_version():
    assert f"# The contract, version {director_db.CONTRACT_VERSION}\n" in text_of("CONTRACT.md")


def public_operations():
    return {name for name in dir(BaseDB) if not name.startswith("_")} - {"incremental_contexts"}


def test_the_suite_knows_every_operation_on_what_is_stored():
    others = {"close", "closed", "db_type", "health", "health_check", "place"}
    others |= {"distribute", "migrate"}  # no rule speaks of them
    others |= {"iter_conversations", "iter_sessions"}  # pages of what the model knows
    assert {operation.name for operation in OPERATIONS} == public_operations() - others


@pytest.mark.parametrize("name", sorted({*director_db.__all__} - {"__version__"}))
def test_every_public_name_is_documented(name):
    assert any(re.search(rf"\b{name}\b", page.read_text(encoding="utf-8")) for page in GUIDE)


def test_the_table_of_operations_has_each_of_them_once():
    expected = {name for name in public_operations() if inspect.isfunction(getattr(BaseDB, name))}
    table = first_cells(text_of("docs/operations.md"))
    assert sorted(expected) == sorted(table)


@pytest.mark.parametrize("name", sorted(public_operations()))
def test_every_operation_is_in_the_contract_with_its_parameters(name):
    contract = " ".join(text_of("CONTRACT.md").split())
    assert re.search(rf"`{name}[`(]", contract)
    operation = getattr(BaseDB, name)
    if inspect.isfunction(operation):
        described = "".join(re.findall(rf"`{name}(\([^`]*\))`", contract))
        parameters = [key.removeprefix("_") for key in inspect.signature(operation).parameters][1:]
        assert [] == [key for key in parameters if not re.search(rf"\b{key}\b", described)]


def test_the_table_of_errors_has_each_of_them():
    errors = {
        name
        for name in director_db.__all__
        if name.endswith("Error") and name != director_db.DirectorDBError.__name__
    }
    assert errors == set(first_cells(section(text_of("CONTRACT.md"), "Errors")))
    assert errors == set(re.findall(r"── (\w+)", text_of("docs/errors.md")))


def test_the_guide_names_every_storage_operation():
    guide = section(text_of("docs/writing-a-backend.md"), "What to write")
    assert 19 == len(BaseDB.__abstractmethods__)
    assert "nineteen short methods" in text_of("docs/writing-a-backend.md")
    written = {**vars(HistoryStorage), **vars(Storage)}
    assert set() == {name for name in BaseDB.__abstractmethods__ if f"`{name}" not in guide}
    functions = {name: each for name, each in written.items() if inspect.isfunction(each)}
    assert set() == {name for name in functions if not re.search(rf"`{name}\b", guide)}
    added = first_cells(guide.partition("| for contract 1.1 |")[2].partition("| optional |")[0])
    assert {name.partition("(")[0] for name in added} == {
        name
        for name, each in functions.items()
        if "not_in_contract(self" in inspect.getsource(each)
    }


# --- The README: short, and its tables are those of the reports ---------------------------------


def load(path):
    """Import a program that is no module of a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


proven = load(ROOT / "docs" / "proven.py")
KEPT = json.loads(text_of("docs/proven.json"))


def test_the_readme_is_read_to_the_end():
    assert len(text_of("README.md").splitlines()) <= 180


def test_what_is_proven_is_the_table_of_what_was_kept():
    assert text_of("README.md") == proven.into(text_of("README.md"), KEPT)


@pytest.mark.parametrize("name", ["sqlite", "postgres"])
def test_what_is_proven_was_proven_with_the_clauses_of_today(name):
    """After a new clause, ``make proven`` runs everything again and fills the table."""
    assert director_db.CONTRACT_VERSION == KEPT["contract"]
    expected = Counter(clause.level.value for clause in CLAUSES.values())
    levels = KEPT["backends"][name]["levels"]
    assert expected == {level: sum(outcomes.values()) for level, outcomes in levels.items()}


def test_what_is_proven_was_proven_with_the_mutants_of_today():
    kinds = subprocess.run(
        [sys.executable, "-c", KINDS_OF_MUTANTS],
        cwd=ROOT / "tests" / "gallery",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    # Where the gallery was not tried, nothing is said of it.
    assert KEPT["mutants"] in (json.loads(kinds.stdout), {})
    assert sum(KEPT["mutants"].values()) == KEPT["kills"]


def report_of(outcome="passed", fate="killed"):
    """Return two reports with a clause and a mutant each."""
    clause = {"level": "core", "result": {"outcome": outcome}}
    backend = {
        "db_type": "sqlite",
        "verdict": "CONFORMANT",
        "conformant": outcome == "passed",
        "reached": "core",
        "server": None,
        "clauses": [clause],
    }
    conformance = {"time": "2026-01-02T03", "contract": "1.0", "python": "3", "backends": [backend]}
    return conformance, [{"rule": "MSG-3", "mutant": "M", "kind": "SQLite", "fate": fate}]


def test_nothing_is_proven_by_a_failure_or_a_survivor():
    assert "| SQLite | 1 of 1 | 0 of 0 | 0 of 0 |" in proven.table(proven.counts(*report_of()))
    for reports in (report_of(outcome="failed"), report_of(fate="survived")):
        with pytest.raises(ValueError, match=r"^(sqlite is|not killed: M$)"):
            proven.counts(*reports)


def test_the_speed_is_that_of_the_latest_run():
    latest = Report.load(ROOT / "benchmarks/results/latest.json")
    assert text_of("README.md") == markdown.into_readme(text_of("README.md"), latest)
    assert len(markdown.README_ROWS) <= 8
    assert set() == {*markdown.README_ROWS} - {row.work for row in latest.rows}
    turns = Report.load(ROOT / "benchmarks/results/integrations.json")
    page = text_of("docs/integrations/speed.md")
    assert page == markdown.into_turns(page, turns)


# --- Settings -----------------------------------------------------------------------------------


def is_environment(node):
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return "environ" in name


def variables_read(folder):
    """Return the names of the environment variables that the sources in a folder read."""
    found = set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            key = None
            if isinstance(node, ast.Subscript) and is_environment(node.value):
                key = node.slice
            elif isinstance(node, ast.Compare) and is_environment(node.comparators[-1]):
                key = node.left
            elif isinstance(node, ast.Call) and node.args:
                called = node.func
                if isinstance(called, ast.Attribute) and (
                    called.attr == "getenv" or is_environment(called.value)
                ):
                    key = node.args[0]
            elif isinstance(node, ast.keyword) and node.arg == "envvar":
                key = node.value
            else:
                key = node  # A name that reaches the environment by way of a table or a loop.
                if not VARIABLE.match(str(getattr(node, "value", ""))):
                    continue
            if isinstance(key, ast.Constant):
                found.add(key.value)
    return found


def variables_documented(text):
    return [cell for cell in first_cells(text) if re.fullmatch(r"[A-Z][A-Z0-9_]+", cell)]


def test_the_page_has_every_setting_of_the_core_and_no_other():
    settings = text_of("docs/settings.md").partition("\n## ")[0]
    expected = variables_read(ROOT / "src")
    assert "DB_TYPE" in expected
    assert sorted(expected) == sorted(variables_documented(settings))


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ROOT.glob("backends/*/src")))
def test_the_page_has_every_setting_of_a_backend_and_no_other(name):
    settings = section(text_of("docs/settings.md"), BACKENDS[name])
    expected = variables_read(ROOT / "backends" / name / "src")
    assert len(expected) > 0
    assert sorted(expected) == sorted(variables_documented(settings))


# --- The house ----------------------------------------------------------------------------------


def anchors_of(path):
    """Return the anchors of the headings, as repository pages make them."""
    return {
        re.sub(r"[^\w\- ]", "", heading[2].lower()).replace(" ", "-")
        for heading in HEADING.finditer(without_fences(path.read_text(encoding="utf-8")))
    }


def relative_links(path):
    links = re.findall(r"\]\(([^)\s]+)\)", without_fences(path.read_text(encoding="utf-8")))
    return [link for link in links if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(path):
    for link in relative_links(path):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors_of(target), link


def test_the_readme_leads_to_the_other_documents():
    linked = {
        (ROOT / link.partition("#")[0]).resolve() for link in relative_links(ROOT / "README.md")
    }
    assert set() == {name_of(path) for path in DOCUMENTS if path not in linked} - {"README.md"}


def makefile_targets():
    return set(re.findall(r"^\.PHONY: (.+)$", text_of("Makefile"), re.MULTILINE)[0].split())


def test_contributing_describes_every_target_of_the_makefile():
    rows = first_cells(section(text_of("CONTRIBUTING.md"), "Set-up"))
    assert sorted(makefile_targets()) == sorted(row.removeprefix("make ") for row in rows)


def test_contributing_installs_what_the_makefile_installs():
    dists = re.search(r"^DISTS := (.+)$", text_of("Makefile"), re.MULTILINE)[1]
    shown = text_of("CONTRIBUTING.md").replace("\\\n    ", "")
    assert f"--requirement requirements-dev.txt {dists}\n" in shown
    requirements = sorted(path.name for path in ROOT.glob("requirements-*.txt"))
    assert requirements == sorted(set(re.findall(r"--requirement (requirements-\w+\.txt)", shown)))


def test_the_sdist_has_what_the_makefile_installs_from():
    project = tomllib.loads(text_of("pyproject.toml"))
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    files = {f"/{path.name}" for path in ROOT.glob("*.txt")} | {"/Makefile"}
    assert set() == files - set(included)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_target_that_a_document_names_exists(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^)make ([a-z][a-z0-9-]*)", text, re.MULTILINE)
    assert set() == set(named) - makefile_targets()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_command_that_a_document_names_exists(path):
    from director_db.cli import command  # noqa: PLC0415 - the command needs click

    text = path.read_text(encoding="utf-8")
    code = [match[2] for match in FENCE.finditer(text) if match[1] == "sh"]
    code += re.findall(r"`([^`\n]+)`", without_fences(text))
    named = re.findall(r"(?:^|[/ ])director-db ([a-z]+)", "\n".join(code), re.MULTILINE)
    assert set() == set(named) - set(command.commands)


def test_the_table_of_commands_has_each_of_them():
    from director_db.cli import command  # noqa: PLC0415

    rows = first_cells(section(text_of("docs/operating.md"), "The command"))
    assert sorted(command.commands) == sorted(row.removeprefix("director-db ") for row in rows)


def test_every_path_of_the_layout_exists():
    paths = first_cells(section(text_of("CONTRIBUTING.md"), "The layout of the house"))
    assert "src/director_db/" in paths
    assert [] == [path for path in paths if not (ROOT / path).exists()]


def test_the_changelog_starts_with_what_is_unreleased():
    headings = [(h[1], h[2]) for h in HEADING.finditer(text_of("CHANGELOG.md"))]
    assert [("#", "Changelog"), ("##", "[Unreleased]")] == headings[:2]
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set() == {title for level, title in headings if level == "###"} - kinds
