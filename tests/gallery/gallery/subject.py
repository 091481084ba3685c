"""The conformance suite on the mutant that the environment names."""

from __future__ import annotations

from director_db.loading import load_backend
from director_db_conformance import ConformanceSuite
from gallery.broken import DB_TYPE


class TestMutant(ConformanceSuite):
    """All clauses, on the places that the mutant's plugin provides."""

    def new_place(self, tmp_path_factory):
        """Return a place of the mutant."""
        hook = load_backend(DB_TYPE).hooks.hook
        return hook.director_db_provision(directory=tmp_path_factory.mktemp("place"))
