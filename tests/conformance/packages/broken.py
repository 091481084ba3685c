"""Backends as a package of somebody's would bring them, each broken in its own way."""

import fcntl
import itertools
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

from director_db import BackendUnavailableError, BaseDB
from director_db.hookspecs import BackendSpec, hookimpl
from director_db.testing import Place
from director_db_sqlite import SQLiteDB

IN_A_WORKER = sys.argv[0] == "-c"
"""Whether this is another process that a clause has started."""


MALFORMED = "database disk image is malformed"


class RaisingDB(SQLiteDB, db_type="raising"):
    """Raises everywhere."""


def refuse(self, *args, **kwargs):
    """Raise what is in no tree."""
    raise RuntimeError


for name in dir(BaseDB):
    if not name.startswith("_") and name not in {"close", "db_type", "place"}:
        type.__setattr__(RaisingDB, name, refuse)


class DyingDB(SQLiteDB, db_type="dying"):
    """Takes the process with it in some operations, and never comes back from another."""

    def _select_message(self, session_id, msg_id):
        os._exit(3)

    def _delete_message(self, session_id, msg_id):
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(1000)

    def _delete_context(self, session_id):
        time.sleep(1000)


class InterruptedDB(SQLiteDB, db_type="interrupted"):
    """Interrupts whoever deletes a message, as a driver with a watchdog might."""

    def _delete_message(self, session_id, msg_id):
        raise KeyboardInterrupt


class FleetingDB(SQLiteDB, db_type="fleeting"):
    """Ends another process after some writes, without a word."""

    writes = itertools.count()

    def _upsert_messages(self, session_id, rows):
        stored = super()._upsert_messages(session_id, rows)
        if IN_A_WORKER and next(self.writes) == 30:
            os._exit(0)
        return stored


class FugitiveDB(SQLiteDB, db_type="fugitive"):
    """Ends another process that has looked at messages so often, without a word."""

    looks = itertools.count()

    def _select_messages(self, query):
        if IN_A_WORKER and next(self.looks) == int(os.environ["LOOKS"]):
            os._exit(0)
        return super()._select_messages(query)


class HangingDB(SQLiteDB, db_type="hanging"):
    """Never answers."""

    def _select_session(self, session_id):
        time.sleep(1000)


class MemoryDB(SQLiteDB, db_type="memory"):
    """Is fine, and keeps nothing."""


class StrangerDB(SQLiteDB, db_type="stranger"):
    """Works only in the process that made the place; says so at length, and at the end why."""

    def _select_session(self, session_id):
        self._refuse()
        return super()._select_session(session_id)

    def _insert_session(self, row):
        self._refuse()
        super()._insert_session(row)

    def _refuse(self):
        if IN_A_WORKER:
            raise sqlite3.OperationalError(MALFORMED)

    def _translate(self, error):
        if str(error) == MALFORMED:
            return BackendUnavailableError(f"It is damaged. {'Mend it. ' * 200}(code 11)")
        return super()._translate(error)


class SpinningDB(SQLiteDB, db_type="spinning"):
    """Never comes back in another process, and keeps that busy."""

    def _select_session(self, session_id):
        if IN_A_WORKER:
            Path(f"{self.db_path}.spins.{os.getpid()}").touch()
        while IN_A_WORKER:
            pass
        return super()._select_session(session_id)


class StaleDB(SQLiteDB, db_type="stale"):
    """Finds no message that was stored a moment ago."""

    def _select_message(self, session_id, msg_id):
        return None


class DamagedDB(SQLiteDB, db_type="damaged"):
    """Fails in one operation with what its driver said."""

    def _delete_messages(self, session_id):
        raise sqlite3.OperationalError(MALFORMED)

    _translate = StrangerDB._translate


class SlowDB(SQLiteDB, db_type="slow"):
    """Is fine; its places are slow."""


class SluggishDB(SQLiteDB, db_type="sluggish"):
    """Is fine; it takes its time for a session."""

    def _insert_session(self, row):
        time.sleep(2)
        super()._insert_session(row)


class LonelyDB(SQLiteDB, db_type="lonely"):
    """Is fine; one process has a place for it."""


class UnprovidedDB(SQLiteDB, db_type="unprovided"):
    """Is fine, and offers no places."""


class EmptyDB(BaseDB, db_type="empty"):
    """Writes no operation."""


class LyingDB(SQLiteDB, db_type="lying"):
    """Lets another backend be tested for it."""


class UnopenableDB(SQLiteDB, db_type="unopenable"):
    """Is fine; its files are where there is no folder."""


class Plugin:
    """Offers a backend, and places for it."""

    def __init__(self, name, path="{directory}/x.db", **flags):
        self.name, self.path, self.flags = name, path, flags

    @hookimpl
    def director_db_backend(self):
        """Offer the backend."""
        return BackendSpec(self.name, f"broken:{self.name.title()}DB", "broken")

    @hookimpl
    def director_db_provision(self, directory):
        """Provide a file."""
        path = self.path.format(directory=directory)
        return Place(self.name, {"SQLITE_DB_PATH": path}, **self.flags)


class Lying(Plugin):
    """Provides another backend's place."""

    @hookimpl
    def director_db_provision(self, directory):
        """Provide a file of SQLite."""
        return Place("sqlite", {"SQLITE_DB_PATH": f"{directory}/x.db"})


class Slow(Plugin):
    """Needs for ever to make the second place of a run, or to destroy the third."""

    @hookimpl
    def director_db_provision(self, directory):
        """Provide a file, after a while."""
        number = self._count(directory)
        if number == 2:
            time.sleep(1000)
        path = f"{directory}/x.db"
        destroy = (lambda: time.sleep(1000)) if number == 3 else None
        server = f"Slow {number}.0 from a drawer"
        return Place(self.name, {"SQLITE_DB_PATH": path}, destroy=destroy, server=server)

    @staticmethod
    def _count(directory):
        """Return which place of the run it is, whatever process makes it."""
        with (directory.parents[1] / "count").open("a+") as file:
            file.write("x")
            return file.tell()


class Lonely(Plugin):
    """Has room for the places of one process at a time."""

    @hookimpl
    def director_db_provision(self, directory):
        """Provide a file, if no other process has one."""
        owner = Path(os.environ["LONELY"])
        with owner.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            pids = {int(line) for line in file} - {os.getpid()}
            if any(Path(f"/proc/{pid}").exists() for pid in pids):
                message = "There is no room for the places of another process."
                raise RuntimeError(message)
            file.write(f"{os.getpid()}\n")
        return super().director_db_provision(directory)


class Unprovided:
    """Offers a backend and no places."""

    @hookimpl
    def director_db_backend(self):
        """Offer the backend."""
        return BackendSpec("unprovided", "broken:UnprovidedDB", "no places")


empty, raising, sluggish, stranger, spinning, stale, damaged, fleeting = map(
    Plugin, ("empty", "raising", "sluggish", "stranger", "spinning", "stale", "damaged", "fleeting")
)
interrupted, fugitive = Plugin("interrupted"), Plugin("fugitive")
dying, hanging = Plugin("dying", apart=True), Plugin("hanging", apart=True)
lying = Lying("lying")
slow = Slow("slow")
lonely = Lonely("lonely", apart=True)
unopenable = Plugin("unopenable", "{directory}/no/such/folder/x.db")
memory = Plugin("memory", ":memory:", shared=False, durable=False, reason="it is in memory")
unprovided = Unprovided()
