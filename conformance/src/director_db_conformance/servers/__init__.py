"""A real Postgres for the tests, wherever they run."""

from __future__ import annotations

from director_db_conformance.servers.cluster import Cluster
from director_db_conformance.servers.configured_server import ConfiguredServerError
from director_db_conformance.servers.offer import Offer
from director_db_conformance.servers.server import Database, PostgresServer
from director_db_conformance.servers.server_sources import (
    NoServerError,
    find_cluster,
    find_postgres,
    offered_postgres,
)
from director_db_conformance.servers.standby import Standby

__all__ = [
    "Cluster",
    "ConfiguredServerError",
    "Database",
    "NoServerError",
    "Offer",
    "PostgresServer",
    "Standby",
    "find_cluster",
    "find_postgres",
    "offered_postgres",
]
