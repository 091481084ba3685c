"""What the mutants have in common: the way past the guards, their registry, and those of SQLite."""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing
from typing import Final

from director_db import BaseDB, DBType
from director_db.rows import StoredMessage
from director_db_sqlite import SQLiteDB
from director_db_sqlite.provision import provision

VARIABLE: Final = "DIRECTOR_DB_MUTANT"
"""The environment variable that names the mutant."""

DB_TYPE: Final = "mutant"

PASSWORD: Final = "correct-horse-battery-staple"  # noqa: S105 - it opens nothing
"""What the environment of each place holds, and nobody may tell."""

ROUND_TRIP: Final = 0.001
"""Seconds between two statements that should have been one, as to a server close by."""

_OURS: Final = ("director_db.", "director_db_sqlite.", "director_db_postgres.")

SQLITE: Final = "SQLite"
"""The kind of backend that the mutants of this module's `BrokenDB` are of."""

GALLERY: Final[dict[str, type[Mutant]]] = {}
"""The mutants by name; `gallery.mutants`, `gallery.face` and `gallery.postgres` fill it."""


class Mutant:
    """What a mutant of any backend has; stands before the backend among a class's parents."""

    db_type = DBType.of(DB_TYPE)
    kind = ""
    rule = ""
    level = "core"
    face = "sync"

    def __init_subclass__(cls, *, rule="", level="core", **kwargs):
        """Put a mutant into the gallery.

        BaseDB's own hook is passed over: it refuses to replace a public operation, and to do the
        work of the core anew, and worse, is what many of these mistakes are.

        Args:
            rule: the id of the rule that it breaks; without one it is only a base of mutants.
            level: the level of conformance at which it has to be caught.
            kwargs: none; for other classes.
        """
        super(BaseDB, cls).__init_subclass__(**kwargs)
        if not rule:
            return
        cls.rule, cls.level = rule, level
        if cls.__name__ in GALLERY:
            message = f"Two mutants are called {cls.__name__}."
            raise TypeError(message)
        GALLERY[cls.__name__] = cls

    @classmethod
    def mistake(cls):
        """Say how people come to do it: the docstring in one line."""
        return " ".join((cls.__doc__ or "").split())

    @classmethod
    def break_code(cls):
        """Change the core or the backend in this process, for mistakes in no operation's place."""

    @classmethod
    def wants(cls, clause):
        """Say whether it is tried with a clause."""
        return True

    @classmethod
    def provide(cls, directory):
        """Return a new, empty place."""
        raise NotImplementedError


class BrokenDB(Mutant, SQLiteDB):
    """SQLite, healthy; a subclass that names a rule is a mutant."""

    kind = SQLITE

    @classmethod
    def provide(cls, directory):
        """Return a file that does not exist yet."""
        return provision(directory, DB_TYPE)

    def _select_messages(self, query):
        """Return the messages as named tuples, so that mutants can use `_replace`."""
        rows = super()._select_messages(query)
        return None if rows is None else list(map(StoredMessage._make, rows))

    def _run(self, work, *, foreign_keys=True):
        """Run ``work(connection)`` in a transaction, on a connection of its own.

        Not on the backend's connections: how it keeps them may change without the mutants.
        """
        self._select_session("")  # It creates what is missing.
        with closing(sqlite3.connect(self.db_path, timeout=30, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA foreign_keys = {foreign_keys}")
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
            return result

    def _execute(self, statement, *parameters, foreign_keys=True):
        """Run one statement in a transaction of its own, and return its rows."""
        return self._run(
            lambda connection: connection.execute(statement, parameters).fetchall(),
            foreign_keys=foreign_keys,
        )


def read_until_changed(read, known, seconds):
    """Read again and again until something else than `known` comes, or so many seconds are over.

    So who reads twice loses the race whenever others write at all, however busy the machine is.
    """
    until = time.monotonic() + seconds
    while (found := read()) == known and time.monotonic() < until:
        time.sleep(ROUND_TRIP)
    return found


def replace(original, broken):
    """Put a function in the place of one of ours, in every module that holds it."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith(_OURS):
            for name, value in list(vars(module).items()):
                if value is original:
                    setattr(module, name, broken)
