"""Source 3 of servers: the Postgres that the system has installed."""

from __future__ import annotations

import glob
import shutil
from pathlib import Path
from typing import Final

from director_db_conformance.servers.account import server_account
from director_db_conformance.servers.cluster import Cluster
from director_db_conformance.servers.installation import Installation, choose, inspect
from director_db_conformance.servers.offer import Offer

# Debian keeps its server programs off PATH, so that several versions can live together.
_USUAL_PLACES: Final = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/lib/postgresql*/bin",  # openSUSE
    "/usr/libexec/postgresql*",  # Alpine
    "/usr/pgsql-*/bin",  # the PostgreSQL project's packages for Red Hat
    "/usr/local/pgsql/bin",  # from source
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/opt/local/lib/postgresql*/bin",  # MacPorts
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


class SystemBinaries:
    """A throw-away cluster from the newest installation, or from that of a version."""

    name = "system binaries"
    remedy = "install Postgres 15 or newer, such as: apt-get install postgresql"

    def offer(self, version: int | None) -> Offer:
        """Offer a cluster if there are programs that the server's account can run."""
        account = server_account()
        found = [inspect(place, account) for place in _places()]
        chosen = choose([one for one in found if one is not None], version)
        source = f"{self.name} ({chosen.programs})"
        return Offer(source, chosen.version, lambda durable: _start(source, chosen, durable))


def _start(source: str, installation: Installation, durable: bool) -> Cluster:  # noqa: FBT001
    return Cluster(source, installation, durable=durable)


def _places() -> list[Path]:
    places = [Path(place) for pattern in _USUAL_PLACES for place in sorted(glob.glob(pattern))]  # noqa: PTH207
    for program in ("postgres", "initdb", "pg_ctl"):
        on_path = shutil.which(program)
        if on_path is not None:
            # A link on PATH leads to its siblings; a wrapper script stands beside no initdb, or
            # beside one that works.
            places += [Path(on_path).resolve().parent, Path(on_path).parent]
    return list(dict.fromkeys(places))
