"""What the mutants have in common: the way past the guards, SQL of their own, their registry."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from typing import Final

from director_db import BaseDB
from director_db.records import StoredMessage
from director_db_sqlite import SQLiteDB

VARIABLE: Final = "DIRECTOR_DB_MUTANT"
"""The environment variable that names the mutant."""

DB_TYPE: Final = "mutant"

ROUND_TRIP: Final = 0.001
"""Seconds between two statements that should have been one, as to a server close by."""

GALLERY: Final[dict[str, type[BrokenDB]]] = {}
"""The mutants by name; `gallery.mutants` fills it."""


class BrokenDB(SQLiteDB, db_type=DB_TYPE):
    """SQLite, healthy; a subclass that names a rule is a mutant."""

    rule = ""
    level = "core"

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

    def _select_messages(self, query):
        """Return the messages by name, as those like it who tamper with them."""
        rows = super()._select_messages(query)
        return None if rows is None else list(map(StoredMessage._make, rows))

    @classmethod
    def mistake(cls):
        """Say how people come to do it: the docstring in one line."""
        return " ".join((cls.__doc__ or "").split())

    @classmethod
    def break_core(cls):
        """Change the core in this process, for mistakes that storage has no part in."""

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


def replace(original, broken):
    """Put a function in the place of one of the core's, in every module that holds it."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith(("director_db.", "director_db_sqlite.")):
            for name, value in list(vars(module).items()):
                if value is original:
                    setattr(module, name, broken)
