"""Runs the command as its user does: a process of its own, in an empty folder, on a new file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest

COMMAND = Path(sys.executable).with_name("director-db")
# What the tests' own surroundings would bring in.
FOREIGN = re.compile(
    "DB_TYPE|DIRECTOR_DB_.*|SQLITE_.*|POSTGRES_.*|DATABASE_URL|NO_COLOR|FORCE_COLOR|COLUMNS|PYTHONIOENCODING"
)


@pytest.fixture
def environment(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not FOREIGN.fullmatch(name)}
    return {**kept, "SQLITE_DB_PATH": str(tmp_path / "app.db"), "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def director_db(tmp_path, environment):
    def run(*arguments, **settings):
        changed = {name: value for name, value in settings.items() if value is not None}
        unset = {name for name, value in settings.items() if value is None}
        env = {k: v for k, v in {**environment, **changed}.items() if k not in unset}
        return subprocess.run(
            [COMMAND, *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            encoding="utf-8",
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture
def in_terminal(tmp_path, environment):
    """Run the command in a terminal of a given width; give the status and what it showed."""
    pty = pytest.importorskip("pty")
    termios = pytest.importorskip("termios")

    def run(*arguments, columns=80, **settings):
        controller, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (50, columns))
        process = subprocess.Popen(
            [COMMAND, *arguments],
            cwd=tmp_path,
            env={**environment, "TERM": "xterm-256color", **settings},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(controller, 65536):
                shown += chunk
        except OSError:
            pass  # Linux says so when the last process has left the terminal.
        os.close(controller)
        return process.wait(240), shown.decode().replace("\r\n", "\n")

    return run


@pytest.fixture
def plugin(tmp_path, environment):
    """Install a package that offers a DB type, by its source."""

    def install(name, source):
        folder = tmp_path / "site"
        info = folder / f"acme_{name}-1.5.dist-info"
        info.mkdir(parents=True)
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 1.5\n"
        )
        info.joinpath("entry_points.txt").write_text(f"[director_db]\n{name} = acme_{name}\n")
        folder.joinpath(f"acme_{name}.py").write_text(dedent(source))
        environment["PYTHONPATH"] = str(folder)

    return install


@pytest.fixture
def backend(plugin):
    """Install a package whose backend is SQLite's with the given members instead of its own."""

    def install(name, members):
        source = f"""
            import time
            from pathlib import Path

            from director_db import BackendSpec, ConfigurationError, DirectorDBError, hookimpl
            from director_db.rows import StoredMessage
            from director_db_sqlite import SQLiteDB

            class DB(SQLiteDB, db_type="{name}"):
            MEMBERS

            @hookimpl
            def director_db_backend():
                return BackendSpec("{name}", DB, "For a test", ("{name}",))
        """
        plugin(name, dedent(source).replace("MEMBERS", indent(dedent(members), "    ")))

    return install
