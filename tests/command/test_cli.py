"""The command: what it prints, where, and its exit status."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from operator import itemgetter
from pathlib import Path

import pytest

from director_db import CONTRACT_VERSION, __version__

COMMAND = Path(sys.executable).with_name("director-db")
PASSWORD = "s3cr3t-pa55"  # noqa: S105 - it opens nothing
ESCAPE = "\x1b"


KEYS = ["healthy", "db_type", "place", "versions", "warnings", "settings", "error"]


def one_line(text):
    """Return the only line of a text."""
    assert "Traceback" not in text
    (line,) = text.splitlines()
    return line


# --- Help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["-h"], ["demo", "--help"], ["init", "--help"], ["health", "-h"]]
)
def test_help_imports_neither_a_driver_nor_what_draws_tables(arguments, environment):
    script = (
        "import sys; from director_db.cli import main; status = main(sys.argv[1:]);"
        "print(status, [m for m in sys.modules if m in"
        " {'sqlite3', '_sqlite3', 'psycopg', 'rich', 'pluggy', 'director_db.cli.demo.run'}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("Usage: director-db")
    assert done.stdout.splitlines()[-1] == "0 []"


def test_help_names_the_settings_and_the_commands(director_db):
    done = director_db("--help")
    assert done.returncode == 0
    for word in (
        "DB_TYPE",
        "SQLITE_DB_PATH",
        "POSTGRES_",
        "DATABASE_URL",
        "demo",
        "init",
        "health",
    ):
        assert word in done.stdout


def test_version(director_db):
    done = director_db("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"director-db {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--nope"], "--nope"),
        (["nope"], "nope"),
        (["health", "--jsn"], "--jsn"),
        (["health", "--db"], "--db"),
        (["init", "sqlite"], "sqlite"),
    ],
)
def test_a_wrong_usage_is_one_line(director_db, arguments, wrong):
    done = director_db(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    line = one_line(done.stderr)
    assert line.startswith("Error: ")
    assert wrong in line
    assert re.search(r"[.?] See: director-db( health| init)? --help$", line)


# --- init and health ----------------------------------------------------------------------------


def test_init_creates_the_tables_and_again_changes_nothing(director_db, tmp_path):
    first = director_db("init")
    assert (first.returncode, first.stderr) == (0, "")
    assert str(tmp_path / "app.db") in first.stdout
    assert re.search(r"schema\W+3\b", first.stdout)
    connection = sqlite3.connect(tmp_path / "app.db")
    schema = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    assert "director_sessions" in dict(schema)
    connection.close()

    second = director_db("init")
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    connection = sqlite3.connect(tmp_path / "app.db")
    assert (
        connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall() == schema
    )
    connection.close()


def test_health_shows_type_place_and_versions(director_db, tmp_path):
    done = director_db("health")
    assert (done.returncode, done.stderr) == (0, "")
    assert ESCAPE not in done.stdout
    rows = dict(re.findall(r"│ (\S+(?: type)?) +│ (\S+) +│", done.stdout))
    assert rows == {
        "DB type": "sqlite",
        "place": str(tmp_path / "app.db"),
        "director-db": __version__,
        "contract": CONTRACT_VERSION,
        "schema": "3",
        "SQLite": sqlite3.sqlite_version,
        "Python": platform.python_version(),
    }


def test_health_as_json_is_one_object(director_db, tmp_path):
    done = director_db("health", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(one_line(done.stdout))
    assert list(found) == KEYS
    assert found["healthy"] is True
    assert (found["db_type"], found["place"]) == ("sqlite", str(tmp_path / "app.db"))
    assert found["versions"]["schema"] == "3"
    assert found["error"] is None


def test_health_warns_of_a_file_that_others_may_read(director_db, tmp_path):
    director_db("init")
    (tmp_path / "app.db").chmod(0o644)
    done = director_db("health")
    assert done.returncode == 0
    warnings = [line for line in done.stdout.splitlines() if line.startswith("Warning: ")]
    assert any("mode 0644" in line and "chmod 600" in line for line in warnings)


@pytest.mark.parametrize(
    ("option", "setting"),
    [
        (["--db", "sqlite:///there.db"], None),
        ([], "sqlite:///there.db"),
        (["--db", "SQLite"], None),
        (["--db", "sqlite:///there.db"], "nope"),
    ],
)
def test_the_database_is_an_option_or_a_setting(director_db, tmp_path, option, setting):
    done = director_db("health", "--json", *option, DB_TYPE=setting)
    name = "app.db" if option == ["--db", "SQLite"] else "there.db"
    assert json.loads(done.stdout)["place"] == str(tmp_path / name)


def test_without_settings_the_file_is_in_the_working_folder(director_db, tmp_path):
    assert director_db("init", SQLITE_DB_PATH=None).returncode == 0
    assert (tmp_path / "director.db").is_file()


# --- Errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["health", "init", "demo"])
def test_an_unknown_type_names_the_installed_ones_and_the_way_to_more(director_db, command):
    done = director_db(command, DB_TYPE="nope")
    assert (done.returncode, done.stdout) == (2, "")
    line = one_line(done.stderr)
    assert line.startswith("Error: Unknown DB type 'nope'. Installed: ")
    assert "sqlite" in line
    assert "pip install" in line


def damage(path):
    path.write_bytes(b"This is a letter, and no database at all.\n" * 100)
    return "is not a SQLite database"


def leave_to_the_future(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE director_meta (key TEXT PRIMARY KEY, value TEXT)")
    connection.execute("INSERT INTO director_meta VALUES ('schema_version', '999')")
    connection.commit()
    connection.close()
    return "has schema version 999"


def make_a_folder(path):
    path.mkdir()
    return "cannot be opened"


@pytest.mark.parametrize("spoil", [damage, leave_to_the_future, make_a_folder])
def test_a_database_that_cannot_be_used_is_unhealthy(director_db, tmp_path, spoil):
    path = tmp_path / "app.db"
    reason = spoil(path)
    content = path.read_bytes() if path.is_file() else None

    done = director_db("health")
    assert (done.returncode, done.stdout) == (1, "")
    line = one_line(done.stderr)
    assert line.startswith(f"Unhealthy: {path} ")
    assert reason in line

    done = director_db("health", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(one_line(done.stdout))
    assert list(found) == KEYS
    assert (found["healthy"], found["place"]) == (False, str(path))
    assert f"Unhealthy: {found['error']}" == line

    for command in ("init", "demo"):
        done = director_db(command)
        assert (done.returncode, done.stdout) == (2, "")
        assert one_line(done.stderr) == f"Error: {found['error']}"
    assert (path.read_bytes() if path.is_file() else None) == content


HANGS = """
    def _check(self):
        import logging
        logging.getLogger("director_db.hang").warning("waiting for %s", "s3cret-host")
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass
"""


@pytest.mark.parametrize("as_json", [False, True])
def test_health_ends_in_time_whatever_the_backend_does(director_db, backend, tmp_path, as_json):
    backend("hang", HANGS)
    start = time.monotonic()
    arguments = ["--json"] if as_json else []
    done = director_db("health", "--db", "hang", "--timeout", "0.5", *arguments)
    # Not the 5 s that the end of a process waits for operations in flight.
    assert time.monotonic() - start < 25
    assert done.returncode == 1
    told = (
        f"{tmp_path}/app.db gave no answer within 0.5 s (waiting for s3cret-host). See --timeout."
    )
    if as_json:
        assert (told, False) == itemgetter("error", "healthy")(json.loads(done.stdout))
        assert "" == done.stderr
    else:
        assert ("", f"Unhealthy: {told}\n") == (done.stdout, done.stderr)


def test_health_does_not_wait_for_a_lock_as_an_application_does(director_db, tmp_path):
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        done = director_db("health", "--timeout", "0.5")
    assert done.returncode == 1
    assert "app.db gave no answer within 0.5 s" in done.stderr
    assert director_db("health", "--timeout", "30").returncode == 0


@pytest.mark.parametrize("timeout", ["0", "nan", "inf", "1e11"])
def test_a_timeout_is_above_zero_and_a_number_of_seconds(director_db, timeout):
    done = director_db("health", "--timeout", timeout)
    assert done.returncode == 2
    assert "--timeout" in done.stderr


@pytest.mark.parametrize("command", ["health", "init", "demo"])
def test_a_missing_folder_is_an_error_of_the_settings(director_db, tmp_path, command):
    missing = tmp_path / "no" / "app.db"
    done = director_db(command, SQLITE_DB_PATH=str(missing))
    assert (done.returncode, done.stdout) == (2, "")
    line = one_line(done.stderr)
    assert line.startswith("Error: There is no folder ")
    assert str(missing) in line


def test_a_package_that_cannot_be_imported_is_an_error_for_its_users_alone(director_db, plugin):
    plugin("torn", "import a_module_that_nobody_has")
    done = director_db("health", "--db", "torn")
    assert (done.returncode, done.stdout) == (2, "")
    assert "acme-torn 1.5" in one_line(done.stderr)
    assert "a_module_that_nobody_has" in done.stderr
    assert director_db("health").returncode == 0


def test_an_error_that_nobody_foresaw_is_one_line_too(director_db, backend):
    backend("odd", "def _check(self): raise KeyError('left\\nright')")
    done = director_db("health", "--db", "odd")
    assert (done.returncode, done.stdout) == (1, "")
    line = one_line(done.stderr)
    assert re.fullmatch(r"Unhealthy: unexpected KeyError at site/acme_odd\.py:\d+: .*", line)
    done = director_db("init", "--db", "odd")
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr) == line.replace("Unhealthy", "Error", 1)


# --- Passwords ----------------------------------------------------------------------------------

TALKATIVE = """
@classmethod
def _settings(cls, environ, url):
    raise ConfigurationError(f"Cannot make sense of {url!r}:\\n{url.split(':')[2]}")
"""


@pytest.mark.parametrize("command", ["health", "init", "demo"])
@pytest.mark.parametrize(
    "given",
    [
        f"talkative://ann:{PASSWORD}@host/name",
        f"talkative://ann:{PASSWORD}@b@host/name?mail=x@y",
        f"unheard-of://ann:{PASSWORD}@host/name",
        f"sqlite://ann:{PASSWORD}@host/name",
        f"sqlite:///app.db?password={PASSWORD}",
        f"postgres:ann:{PASSWORD}@host/name",
        f"host=h password={PASSWORD}",
        f"host=h password = '{PASSWORD} '",
    ],
)
def test_a_password_in_a_url_is_never_printed(director_db, backend, command, given):
    backend("talkative", TALKATIVE)
    for done in (director_db(command, "--db", given), director_db(command, DB_TYPE=given)):
        assert (done.returncode, done.stdout) == (2, "")
        assert PASSWORD not in one_line(done.stderr)


def test_a_url_in_the_wrong_place_is_masked(director_db):
    done = director_db("health", f"postgresql://ann:{PASSWORD}@host/name")
    assert done.returncode == 2
    assert "(postgresql://ann:***@host/name)" in one_line(done.stderr)


def test_what_is_no_secret_is_not_masked(director_db):
    done = director_db("health", "--db", "nope", DATABASE_URL="postgres://postgres:postgres@h/d")
    assert done.returncode == 2
    assert "nope" in one_line(done.stderr)
    assert "***" not in one_line(done.stderr)


# --- Where it is printed ------------------------------------------------------------------------


def long_path(tmp_path):
    folder = tmp_path.joinpath("a rather long folder", "x" * 90, "y" * 90)
    folder.mkdir(parents=True)
    return str(folder / "app.db")


@pytest.mark.parametrize("command", ["health", "init", "demo"])
def test_a_long_path_stays_whole_in_a_pipe(director_db, tmp_path, command):
    path = long_path(tmp_path)
    done = director_db(command, SQLITE_DB_PATH=path, COLUMNS="40")
    assert done.returncode == 0
    assert [path in line for line in done.stdout.splitlines()].count(True) == 1


@pytest.mark.parametrize("command", ["health", "init", "demo"])
def test_a_long_path_stays_whole_on_a_terminal(in_terminal, tmp_path, command):
    path = long_path(tmp_path)
    status, shown = in_terminal(command, SQLITE_DB_PATH=path)
    assert status == 0
    assert path in shown


@pytest.mark.parametrize("command", ["health", "init", "demo"])
def test_colours_are_for_terminals_that_want_them(in_terminal, director_db, command):
    assert ESCAPE in in_terminal(command)[1]
    piped = director_db(command)
    for status, shown in (
        in_terminal(command, NO_COLOR="1"),
        in_terminal(command, TERM="dumb"),
        (piped.returncode, piped.stdout),
    ):
        assert status == 0
        assert "sqlite" in shown.lower()
        assert ESCAPE not in shown


@pytest.mark.parametrize("columns", [0, 30, 300])
@pytest.mark.parametrize("command", ["health", "demo"])
def test_any_width_will_do(in_terminal, command, columns):
    status, shown = in_terminal(command, columns=columns, NO_COLOR="1")
    assert status == 0
    assert "✓" in shown


@pytest.mark.parametrize("command", ["health", "init", "demo"])
def test_a_terminal_of_plain_ascii(director_db, tmp_path, command):
    folder = tmp_path / "Zoë"
    folder.mkdir()
    done = director_db(
        command, PYTHONIOENCODING="ascii", SQLITE_DB_PATH=str(folder / "app.db"), LANG="C"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "Zo\\xeb" in done.stdout
    assert "ok" in done.stdout
    assert "+--" in done.stdout


def test_a_name_cannot_command_the_terminal(in_terminal, tmp_path):
    status, shown = in_terminal("health", SQLITE_DB_PATH=str(tmp_path / "a\x1b[2Jb"), NO_COLOR="1")
    assert status == 0
    assert "a\\x1b[2Jb" in shown
    assert ESCAPE not in shown


@pytest.mark.parametrize("arguments", [["--help"], ["health"], ["health", "--json"], ["init"]])
def test_a_reader_that_has_left_is_no_fault(tmp_path, environment, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=tmp_path,
        env=environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=240,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, as on Linux")
@pytest.mark.parametrize("arguments", [["--help"], ["health"], ["demo"]])
def test_an_output_that_cannot_be_written_is_an_error(tmp_path, environment, arguments):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=240,
            check=False,
        )
    assert (done.returncode, one_line(done.stderr)) == (2, "Error: No space left on device")
