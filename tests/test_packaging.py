"""The built wheels, in an environment that has never seen this repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import director_db

pytestmark = pytest.mark.sampled

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = folder.glob("director_db-*.whl")
    return built


@pytest.fixture(scope="session")
def clean_python(tmp_path_factory, wheel):
    """A Python with the wheel and what it asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    install = [*pip, "--constraint", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True, capture_output=True)
    return python


def run(command, folder, **env):
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        command, cwd=folder, env=plain | env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("folder", [".", "backends/postgres", "conformance", "integrations"])
def test_every_dist_says_where_it_comes_from_and_bounds_its_driver(folder):
    text = (ROOT / folder / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    assert {"Source", "Issues", "Changelog"} == set(project["urls"])
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"repository-code: {project['urls']['Source']}\n" in citation
    extras = project.get("optional-dependencies", {}).values()
    asked = [each for some in (project["dependencies"], *extras) for each in some]
    assert [] == [each for each in asked if each.startswith("psycopg") and "<" not in each]


def test_the_citation_names_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {director_db.__version__}\n" in citation


def test_the_wheel_holds_both_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    info = f"director_db-{director_db.__version__}.dist-info"
    assert {"director_db", "director_db_sqlite", info} == tops
    assert {"director_db/py.typed", "director_db_sqlite/py.typed"} <= set(names)
    assert f"{info}/licenses/LICENSE" in names


def test_the_demo_runs_from_the_wheel(clean_python, tmp_path):
    command = clean_python.parent / "director-db"
    result = run([command, "demo"], tmp_path)
    assert ("", 0) == (result.stderr, result.returncode)
    assert (tmp_path / "director.db").exists()


def test_the_wheel_needs_no_test_framework(clean_python, tmp_path):
    pip = [sys.executable, "-m", "pip", "--python", clean_python]
    result = run([*pip, "list", "--format=freeze"], tmp_path)
    installed = {line.split("==")[0].lower() for line in result.stdout.splitlines()}
    assert "director-db" in installed
    assert not installed & {"pytest", "hypothesis", "testcontainers", "psycopg"}


def test_the_ten_lines_work_from_the_wheel(clean_python, tmp_path):
    code = (
        "from director_db import load_db\n"
        "db = load_db()\n"
        "db.create_session('s1', video_id='m-1', collection_id='c-1')\n"
        "db.add_or_update_msg_to_conv('s1', 'conv1', 'msg1', 'input', [], [],"
        " [{'type': 'text', 'text': 'hi'}])\n"
        "print(db.get_conversations('s1')[0]['content'])"
    )
    result = run([clean_python, "-c", code], tmp_path)
    assert ("[{'type': 'text', 'text': 'hi'}]\n", "") == (result.stdout, result.stderr)
