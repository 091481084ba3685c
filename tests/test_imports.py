import ast
import importlib
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE, SQLITE, POSTGRES, SUITE, INTEGRATIONS = (
    "director_db",
    "director_db_sqlite",
    "director_db_postgres",
    "director_db_conformance",
    "director_db_integrations",
)
# What a module of the integrations may import besides: its framework.
FRAMEWORKS = {
    "agent_framework": {"agent_framework"},
    "claude_agent": {"claude_agent_sdk"},
    "google_adk": {"google"},
    "langchain": {"langchain_core"},
    "langgraph": {"langchain_core", "langgraph"},
    "llama_index": {"llama_index"},
    "openai_agents": {"agents"},
    "pydantic_ai": {"pydantic", "pydantic_ai"},
}
PARTS = {"checkpoint_operations": "langgraph"}  # A module that is a part of another.
DRIVERS = {"old_tables": {"psycopg"}}  # What needs a driver, where it reads tables of others.
FOLDERS = {
    CORE: ROOT / "src",
    SQLITE: ROOT / "backends/sqlite/src",
    POSTGRES: ROOT / "backends/postgres/src",
    SUITE: ROOT / "conformance/src",
    INTEGRATIONS: ROOT / "integrations/src",
}
FILES = {
    ".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): file
    for folder in FOLDERS.values()
    for file in folder.rglob("*.py")
}


def imported(module):
    """The modules that a module imports anywhere: at its top, in functions, for type checkers."""
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else node.module


def test_the_files_of_the_core_are_short():
    lines = {name: file.read_text().count("\n") for name, file in FILES.items()}
    long = {name: count for name, count in lines.items() if count > 400}
    assert {} == {name: count for name, count in long.items() if name.partition(".")[0] == CORE}


def test_the_layout_of_the_house_names_each_file_of_the_core():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    layout = text.partition("\n## The layout of the house\n")[2].partition("\n## ")[0]
    here = [path.name for path in (FOLDERS[CORE] / CORE).iterdir() if path.name[0] not in "_."]
    assert len(here) > 20
    named = set(re.findall(r"`(?:src/director_db/)?(\w+(?:\.py|/))`", layout))
    assert set() == {name for name in here if not named & {name, f"{name}/"}} - {"py.typed"}


@pytest.fixture(scope="module")
def imports():
    """What each module imports. Not at import: every process of a run imports this file."""
    return {module: {*imported(module)} for module in FILES}


def test_no_imports_stand_in_a_circle(imports):
    assert 100 < len(FILES)
    ours = {module: names & FILES.keys() for module, names in imports.items()}
    assert 100 < len(ours)
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as error:
        raise AssertionError(" is imported by ".join(error.args[1])) from None


@pytest.mark.parametrize("package", FOLDERS)
def test_packages_import_one_way(imports, package):
    mine = [names for module, names in imports.items() if module.partition(".")[0] == package]
    packages = {name.partition(".")[0] for name in set().union(*mine)}
    assert (packages & FOLDERS.keys()) - {package} == (set() if package == CORE else {CORE})
    if package == CORE:
        assert packages - sys.stdlib_module_names - {CORE} == {"click", "msgspec", "pluggy", "rich"}
        assert "sqlite3" not in packages


def test_an_integration_needs_its_own_framework_and_no_other(imports):
    ours = {f"{INTEGRATIONS}.{name}" for name in FRAMEWORKS}
    assert ours <= FILES.keys()
    for module in FILES:
        if module.partition(".")[0] == INTEGRATIONS:
            packages = {name.partition(".")[0] for name in imports[module]}
            others = packages - sys.stdlib_module_names - {CORE, INTEGRATIONS}
            name = module.rpartition(".")[2]
            needed = DRIVERS | FRAMEWORKS
            # What is moved in is made by the integration that reads it, or without its framework.
            source = name.removeprefix("from_")
            of_source = imports[module] & ours - {module}
            assert of_source <= {f"{INTEGRATIONS}.{source}"}, module
            name = source if of_source else PARTS.get(name, name)
            assert others == needed.get(name, set()), module


@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
def test_an_integration_without_its_framework_says_how_to_get_it(name, monkeypatch):
    for package in FRAMEWORKS[name]:
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"{INTEGRATIONS}.{name}", raising=False)
    remedy = re.escape(f'pip install "director-db-integrations[{name.replace("_", "-")}]"')
    with pytest.raises(ModuleNotFoundError, match=rf"{remedy}$"):
        importlib.import_module(f"{INTEGRATIONS}.{name}")
