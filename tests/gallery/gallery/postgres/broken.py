"""What the mutants of Postgres have in common: their places, and ways to change the backend."""

from __future__ import annotations

from typing import Final

import psycopg

from director_db_conformance.postgres_place import place_on
from director_db_conformance.servers import find_cluster
from director_db_conformance.servers.server_sources import asked_version
from director_db_postgres import PostgresDB, schema
from director_db_postgres.connections import Connection
from director_db_postgres.sql import contexts, history, messages, server, sessions
from gallery.broken import Mutant

POSTGRES: Final = "Postgres"
POOLED: Final = "Postgres behind a pooler"


class Servers:
    """The servers of this process: the one of the whole run, and one that may be stopped."""

    def __init__(self):
        self.shared = None
        self._own = None

    def own(self):
        """Start a server that only this process uses."""
        if self._own is None:
            self._own = find_cluster(version=asked_version())
        return self._own

    def close(self):
        """Stop what was started here."""
        if self._own is not None:
            self._own.close()


SERVERS: Final = Servers()


class BrokenPostgresDB(Mutant, PostgresDB):
    """Postgres, healthy; a subclass that names a rule is a mutant.

    A mutant may have:

    * `by`: a part of the name of the clause that it is tried with; without it, all of its rule are;
    * `pooled`: PgBouncer stands before the server;
    * `encoding`: that of the database;
    * `own_server`: no other trial uses the server, so it can be killed, stopped and frozen.
    """

    kind = POSTGRES
    by = ""
    pooled = False
    encoding = None
    own_server = False

    @classmethod
    def wants(cls, clause):
        """Say whether it is tried with a clause: one of its own rule, as servers are slow."""
        return cls.by in clause.name if cls.by else clause.rule == cls.rule

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._dsn = kwargs["dsn"]

    def _connect(self):
        """Return a connection of its own, a transaction in whose block it is.

        Not one of the backend's: how it keeps them may change without the mutants.
        """
        super()._select_session("")  # It creates what is missing.
        return psycopg.connect(self._dsn)

    @classmethod
    def provide(cls, directory):
        """Return a new database."""
        server = SERVERS.own() if cls.own_server else SERVERS.shared
        place = place_on(server, pooled=cls.pooled, encoding=cls.encoding)
        place.url = None  # It would lead to the healthy backend.
        return place


class Pooled(BrokenPostgresDB):
    """Behind PgBouncer in transaction mode."""

    kind = POOLED
    pooled = True


def connect_with(**options):
    """Let every connection of the pool be made with other options of the driver."""
    healthy = Connection.connect.__func__

    def connect(cls, conninfo="", **kwargs):
        return healthy(cls, conninfo, **kwargs | options)

    Connection.connect = classmethod(connect)


def edit(module, name, *changes):
    """Change a text of a module, such as a statement; what is to be changed must be there.

    Args:
        module: the module.
        name: what it calls the text, or the tuple of texts.
        changes: pairs of what is there and what comes instead.
    """
    text = getattr(module, name)
    for old, new in changes:
        if not any(old in part for part in ([text] if isinstance(text, str) else text)):
            message = f"{module.__name__}.{name} has no {old!r} any more."
            raise LookupError(message)
        if isinstance(text, str):
            text = text.replace(old, new)
        else:
            text = tuple(part.replace(old, new) for part in text)
    setattr(module, name, text)


def edit_tables(*changes):
    """Change the statements that create the tables."""
    edit(schema, "CREATE", *changes)


def edit_sql(name, *changes):
    """Change a statement."""
    for module in (server, sessions, messages, history, contexts):
        if name in vars(module):
            edit(module, name, *changes)
            return
    message = f"There is no statement {name} any more."
    raise LookupError(message)
