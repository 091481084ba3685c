"""What a killed run leaves: nothing that runs, and no folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from director_db_conformance.servers.reaper import PREFIX
from tests.patience import wait_until

MARK = "DIRECTOR_DB_TEST_MARK"
PATIENCE = 120.0
SOON = 60.0
"""It takes about a second; a machine with much else to do needs more."""

WATCHED = "test_del_2_another_process_sees_no_part_of_a_delete"

FILE = """
from director_db_conformance import ConformanceSuite, Place

class TestSpinning(ConformanceSuite):
    def new_place(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("my") / "x.db"
        return Place(db_type="spinning", env={"SQLITE_DB_PATH": str(path)})
"""

pytestmark = [
    pytest.mark.sampled,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc"),
]


@pytest.fixture
def mark():
    """A setting of which all processes of a run have a copy."""
    return f"{MARK}={uuid.uuid4()}"


def marked(mark):
    """Return the commands of the processes that have it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if f"{mark}\0".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().decode().split("\0"))
        except OSError:  # It has ended, or is none.
            continue
    return found


def spin(folder):
    """Whether all of a clause's workers have come so far that they never end by themselves."""
    return len(list(folder.rglob("*.spins.*"))) == 3


def left(mark, folder=None):
    """Return what still runs after a while."""
    deadline = time.monotonic() + SOON
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    while folder is not None and any(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return marked(mark)


def test_a_killed_command_takes_its_workers_along(command, mark, tmp_path):
    name, value = mark.split("=")
    folder = tmp_path / "temporary"
    folder.mkdir()
    process = command("spinning", "-k", WATCHED, TMPDIR=str(folder), **{name: value})
    wait_until(lambda: spin(folder))
    process.kill()
    process.communicate()
    assert [] == left(mark, folder)
    assert [] == list(folder.iterdir())


def test_a_killed_command_takes_its_server_along(command, mark):
    name, value = mark.split("=")
    process = command("postgres", "-k", WATCHED, **{name: value})
    # Of the server, the folder stands in the arguments.
    wait_until(lambda: any(PREFIX in part for each in marked(mark) for part in each))
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert [] == left(mark)


def test_the_processes_that_share_the_clauses_go_with_a_killed_command(command, mark):
    name, value = mark.split("=")
    process = command("sqlite", "-k", "SES-4 or MSG-6", **{name: value})
    wait_until(lambda: sum("director_db_conformance.plugin" in each for each in marked(mark)) == 3)
    process.kill()
    process.communicate()
    assert [] == left(mark)


def test_killed_tests_take_their_workers_along(mark, tmp_path):
    """Of somebody's own file, where there is no command that could look after them."""
    (tmp_path / "test_mine.py").write_text(FILE)
    name, value = mark.split("=")
    packages = str(Path(__file__).with_name("packages"))
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", WATCHED,
            "--basetemp", str(tmp_path / "places"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": packages, name: value},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: spin(tmp_path / "places"))
    process.kill()
    process.wait()
    assert [] == left(mark)
