"""The demo: it proves what it says, fails when a promise is broken, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from director_db_sqlite import SQLiteDB

pytestmark = pytest.mark.sampled

COMMAND = Path(sys.executable).with_name("director-db")
CHECKS = 14


def stored_sessions(path):
    with SQLiteDB(path) as db:
        return db.get_sessions()


def results(shown):
    """Return the checks by how they ended, as rule ids in their order."""
    found = {"✓": [], "✗": [], "○": []}
    for mark, rule in re.findall(r"^│ ([✓✗○]) .* ([A-Z]{3}-\d) *│$", shown, re.MULTILINE):
        found[mark].append(rule)
    return found


def test_every_check_passes_and_nothing_stays(director_db, tmp_path):
    done = director_db("demo")
    assert (done.returncode, done.stderr) == (0, "")
    shown = results(done.stdout)
    assert [len(rules) for rules in shown.values()] == [CHECKS, 0, 0]
    assert f" {CHECKS} checks passed " in done.stdout
    assert stored_sessions(tmp_path / "app.db") == []


def test_it_fits_a_screen_of_80_columns(director_db):
    lines = director_db("demo", SQLITE_DB_PATH="a.db").stdout.splitlines()
    # The first line tells the place, which is as long as it is.
    assert max(map(len, lines[1:])) == 80
    assert len(lines) <= 72


def test_the_conversation_is_read_by_another_process(director_db):
    done = director_db("demo")
    (processes,) = re.findall(r"written by process (\d+), read back by process (\d+)", done.stdout)
    assert len(set(processes)) == 2
    for said in ("What did we decide in this meeting?", "Zoe does. She says so at 31:07."):
        assert done.stdout.count(said) == 1


def test_it_leaves_what_was_there_as_it_was(director_db, tmp_path):
    with SQLiteDB(tmp_path / "app.db") as db:
        db.create_session("demo-mine", "video", created_at=1, updated_at=2, metadata={"a": 1})
        db.add_or_update_msg_to_conv(
            "demo-mine", None, "answer-1", "input", [], [], "hi", None, 3, 4
        )
        db.append_context_messages("demo-mine", [1, 2])
        before = (db.get_sessions(), db.get_conversations("demo-mine"), db.get_context("demo-mine"))
    assert director_db("demo").returncode == 0
    with SQLiteDB(tmp_path / "app.db") as db:
        after = (db.get_sessions(), db.get_conversations("demo-mine"), db.get_context("demo-mine"))
    assert after == before


def test_without_settings_it_makes_a_file_in_the_working_folder(director_db, tmp_path):
    done = director_db("demo", SQLITE_DB_PATH=None)
    assert done.returncode == 0
    assert f"sqlite at {tmp_path / 'director.db'}\n" in done.stdout
    assert stored_sessions(tmp_path / "director.db") == []


@pytest.mark.parametrize(
    ("option", "setting"),
    [(["--db", "sqlite:///there.db"], "nope"), ([], "sqlite:///there.db")],
)
def test_the_second_process_opens_the_same_database(director_db, tmp_path, option, setting):
    done = director_db("demo", *option, DB_TYPE=setting)
    assert (done.returncode, done.stderr) == (0, "")
    assert "LIF-1" in results(done.stdout)["✓"]
    assert stored_sessions(tmp_path / "there.db") == []
    assert not (tmp_path / "app.db").exists()


def test_the_second_process_imports_nothing_from_the_working_folder(director_db, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('This is not the module you look for.')")
    assert director_db("demo").returncode == 0


def test_a_database_in_memory_has_no_second_process(director_db):
    done = director_db("demo", "--db", "sqlite:///:memory:")
    assert (done.returncode, done.stderr) == (0, "")
    shown = results(done.stdout)
    assert (len(shown["✓"]), shown["✗"]) == (CHECKS - 1, [])
    assert "no second process can see it" in done.stdout
    assert f" {CHECKS - 1} checks passed, 1 not shown " in done.stdout


# --- Broken promises ----------------------------------------------------------------------------

# Each takes away one promise of SQLite's backend; the rules are those whose checks must fail.
BROKEN = {
    "created_at is reset": (
        """
        def _upsert_messages(self, session_id, rows):
            given = [row._replace(created_at_given=True) for row in rows]
            return super()._upsert_messages(session_id, given)
        """,
        ["MSG-1", "MSG-3", "MSG-4", "LIF-1"],
    ),
    "an updated message moves to the end": (
        """
        def _upsert_messages(self, session_id, rows):
            for row in rows:
                known = self._select_message(session_id, row.msg_id)
                if known is not None and not row.created_at_given:
                    row = row._replace(created_at=StoredMessage._make(known).created_at)
                self._delete_message(session_id, row.msg_id)
                found = super()._upsert_messages(session_id, [row])
            return found
        """,
        ["MSG-1", "MSG-3", "MSG-4", "LIF-1", "MSG-6"],
    ),
    "a second create updates": (
        """
        def _insert_session(self, row):
            self._delete_session(row.session_id)
            super()._insert_session(row)
        """,
        ["SES-2", "VAL-1", "SES-6", "SES-4"],
    ),
    "the context stays": (
        """
        kept = None

        def _delete_session(self, session_id):
            self.kept = self._select_context(session_id) or self.kept
            return super()._delete_session(session_id)

        def _select_context(self, session_id):
            return super()._select_context(session_id) or self.kept
        """,
        ["DEL-2"],
    ),
    "a late write revives the session": (
        """
        def _upsert_messages(self, session_id, rows):
            if self._select_session(session_id) is None:
                self.create_session(session_id)
            return super()._upsert_messages(session_id, rows)
        """,
        ["MSG-5", "DEL-2"],
    ),
    "a page is one short": (
        """
        def _select_messages(self, query):
            if query.limit is not None:
                query = query._replace(limit=query.limit - 1)
            return super()._select_messages(query)
        """,
        ["MSG-6"],
    ),
    "nothing reaches the disk": (
        """
        def __init__(self, db_path, **_settings):
            super().__init__(":memory:")

        @property
        def place(self):
            return "somewhere"
        """,
        ["LIF-1"],
    ),
    "sessions are listed by creation": (
        """
        def _select_sessions(self, query):
            return sorted(super()._select_sessions(query), key=lambda row: -row.created_at)
        """,
        ["SES-4"],
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_promise_fails_its_check(director_db, backend, fault):
    members, rules = BROKEN[fault]
    backend("broken", members)
    done = director_db("demo", "--db", "broken")
    assert (done.returncode, done.stderr) == (1, "")
    shown = results(done.stdout)
    assert shown["✗"] == rules
    assert f" {len(rules)} of {CHECKS} checks FAILED " in done.stdout
    assert done.stdout.count("expected ") == len(rules)


# --- Errors and interrupts ----------------------------------------------------------------------


def test_an_error_in_the_midst_leaves_nothing_behind(director_db, backend, tmp_path):
    failing = """
        incremental_contexts = False

        def _save_context(self, row, *, if_version):
            raise DirectorDBError("The cable is cut.")
    """
    backend("failing", failing)
    done = director_db("demo", "--db", "failing")
    assert (done.returncode, done.stderr) == (2, "Error: The cable is cut.\n")
    assert "An answer streams" in done.stdout
    assert stored_sessions(tmp_path / "app.db") == []


def test_sessions_that_cannot_be_removed_are_named(director_db, backend, tmp_path):
    stuck = """
        def _delete_session(self, session_id):
            raise DirectorDBError("The cable is cut.")
    """
    backend("stuck", stuck)
    done = director_db("demo", "--db", "stuck")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    left = [session["session_id"] for session in stored_sessions(tmp_path / "app.db")]
    assert sorted(re.findall(r"demo-[0-9a-f]{16}", done.stderr)) == sorted(left)
    assert done.stderr.endswith("The cable is cut.\n")


@pytest.mark.skipif(os.name == "nt", reason="needs signals that a process can catch")
@pytest.mark.parametrize(
    ("number", "status", "message"),
    [
        (signal.SIGINT, 130, "Interrupted.\n"),
        (signal.SIGTERM, 143, ""),
        (signal.SIGHUP, 129, ""),
    ],
)
def test_an_interrupt_leaves_nothing_behind(
    backend, tmp_path, environment, number, status, message
):
    waiting = """
        incremental_contexts = False

        def _save_context(self, row, *, if_version):
            Path("waiting").touch()
            time.sleep(60)
    """
    backend("waiting", waiting)
    process = subprocess.Popen(
        [COMMAND, "demo", "--db", "waiting"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(stored_sessions(tmp_path / "app.db")) == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (status, message)
    assert stored_sessions(tmp_path / "app.db") == []


def test_a_reader_that_leaves_in_the_midst_leaves_nothing_behind(tmp_path, environment):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [COMMAND, "demo"],
        cwd=tmp_path,
        env=environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=240,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
    assert stored_sessions(tmp_path / "app.db") == []
