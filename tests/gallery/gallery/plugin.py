"""What the entry point ``mutant`` names: the mutant that is meant, and places for it."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from director_db.hookspecs import BackendSpec, hookimpl
from gallery.broken import DB_TYPE, PASSWORD, VARIABLE
from gallery.registry import mutant_named

FOLDER = Path(__file__).parents[1]
SEARCH_PATH = os.pathsep.join([str(FOLDER), str(FOLDER / "site")])
"""What ``PYTHONPATH`` has to hold: this package, and the metadata that makes it known."""


@cache
def chosen():
    """Return the mutant's class, the core broken as it wants it, once in a process."""
    mutant = mutant_named(os.environ[VARIABLE])
    mutant.break_code()
    return mutant


@hookimpl
def director_db_backend():
    """Offer the mutant."""
    mutant = chosen()
    return BackendSpec(DB_TYPE, mutant, mutant.mistake())


@hookimpl
def director_db_provision(directory):
    """Provide a place of the mutant's backend, and the mutant to whoever opens it."""
    place = chosen().provide(directory)
    place.db_type = DB_TYPE
    place.env |= {
        "DB_TYPE": DB_TYPE,
        VARIABLE: os.environ[VARIABLE],
        "PYTHONPATH": SEARCH_PATH,
        "GALLERY_PASSWORD": PASSWORD,
    }
    return place
