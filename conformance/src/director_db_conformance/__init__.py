"""Proves that a backend of director-db behaves as the contract says.

A backend's whole file of tests is a subclass of `ConformanceSuite` that says where a `Place` is;
``director-db-conformance`` needs not even that where the backend's package offers places itself.
"""

from __future__ import annotations

from director_db.testing import Place
from director_db_conformance.clause import clause
from director_db_conformance.levels import Clause, Level
from director_db_conformance.suite import CLAUSES, ConformanceSuite
from director_db_conformance.version import __version__

__all__ = ["CLAUSES", "Clause", "ConformanceSuite", "Level", "Place", "__version__", "clause"]
