"""What the command runs: the suite on places that the backend's package provides."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, cast

from director_db_conformance.face import SYNC, Face
from director_db_conformance.provision import provisioner
from director_db_conformance.suite import ConformanceSuite

if TYPE_CHECKING:
    import pytest

    from director_db.testing import Place

TYPE_VARIABLE: Final = "DIRECTOR_DB_CONFORMANCE_TYPE"
"""Names the DB type, from the command to the process that runs the clauses."""

FACE_VARIABLE: Final = "DIRECTOR_DB_CONFORMANCE_FACE"
"""Names the face."""


class TestBackend(ConformanceSuite):
    """The clauses, on places by hook."""

    face = cast("Face", os.environ.get(FACE_VARIABLE, SYNC))

    def new_place(self, tmp_path_factory: pytest.TempPathFactory) -> Place:
        """Ask the backend's package."""
        return provisioner(os.environ[TYPE_VARIABLE])(tmp_path_factory.mktemp("place"))
