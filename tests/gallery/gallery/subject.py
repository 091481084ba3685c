"""The conformance suite on the mutant that the environment names."""

from __future__ import annotations

import os

from director_db.loading import load_backend
from director_db_conformance import ConformanceSuite
from gallery.broken import DB_TYPE, VARIABLE
from gallery.registry import mutant_named


class TestMutant(ConformanceSuite):
    """All clauses, on the places that the mutant's plugin provides, through the face it is of."""

    face = mutant_named(os.environ.get(VARIABLE, "Healthy")).face

    def new_place(self, tmp_path_factory):
        """Return a place of the mutant."""
        hook = load_backend(DB_TYPE).hooks.hook
        return hook.director_db_provision(directory=tmp_path_factory.mktemp("place"))
