"""Rung 2: a container, where a Docker engine answers."""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import socket
import sys
from typing import Any, Final
from urllib.parse import urlsplit

from director_db_conformance.servers.rung import Offer, UnavailableError
from director_db_conformance.servers.server import PostgresServer

DEFAULT_VERSION: Final = 17

# An engine on this machine answers in milliseconds; without one, nobody wants to wait.
_PATIENCE: Final = 1.0  # seconds

_DEFAULT_ENGINE: Final = (
    "npipe:////./pipe/docker_engine" if sys.platform == "win32" else "unix:///var/run/docker.sock"
)
_PING_BYTES: Final = 1024


class DockerContainer:
    """The official image, run by testcontainers, whose own helper removes it if we are killed."""

    name = "docker"
    remedy = (
        "start a Docker engine and install testcontainers: "
        'pip install "director-db-conformance[docker]"'
    )

    def offer(self, version: int | None) -> Offer:
        """Offer a container if testcontainers is installed and an engine answers in a second."""
        engine = _engine()
        if not _is_engine_there(engine):
            message = f"no Docker engine answers at {engine}"
            raise UnavailableError(message)
        _container_class()
        tag = str(version or DEFAULT_VERSION)
        return Offer(f"docker (postgres:{tag})", tag, lambda durable: ContainerServer(tag, durable))


class ContainerServer(PostgresServer):
    """A server in a container."""

    def __init__(self, tag: str, durable: bool) -> None:  # noqa: FBT001
        """Run the image of a tag.

        Raises:
            UnavailableError: it cannot be had or started.
        """
        password = secrets.token_urlsafe(16)
        container = _container_class()(
            f"postgres:{tag}", username="postgres", password=password, driver=None
        )
        if not durable:
            container.with_command("postgres -c fsync=off -c full_page_writes=off")
        self._container = container
        try:
            container.start()
            dsn = container.get_connection_url()
        except Exception as error:
            with contextlib.suppress(Exception):
                container.stop()
            # Whatever the engine says, there are more rungs.
            message = f"the engine answers, but postgres:{tag} did not start: {error}"
            raise UnavailableError(message) from error
        super().__init__(f"docker (postgres:{tag})", tag, dsn)
        with self.connect() as connection:
            major, minor = divmod(connection.info.server_version, 10_000)
        self.version = f"{major}.{minor}"

    def close(self) -> None:
        """Remove the container."""
        self._container.stop()


def _is_engine_there(host: str) -> bool:
    # Not docker's own client: it leaks the sockets that fail, which fails tests that allow no
    # warnings, and it waits for minutes for a host that is not there.
    place = urlsplit(host)
    try:
        if place.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_PATIENCE)
                connection.connect(place.path)
                return _answers(connection)
        if place.scheme in {"tcp", "http", "https"}:
            address = (place.hostname or "localhost", place.port or 2375)
            with socket.create_connection(address, timeout=_PATIENCE) as connection:
                is_encrypted = place.scheme == "https" or os.environ.get("DOCKER_TLS_VERIFY")
                return bool(is_encrypted) or _answers(connection)
    except OSError:
        return False
    # Through ssh, or a named pipe: only trying it will tell.
    return True


def _answers(connection: socket.socket) -> bool:
    connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
    return connection.recv(_PING_BYTES).startswith(b"HTTP/1.")


def _engine() -> str:
    """Return where testcontainers would look for the engine."""
    try:
        module: Any = importlib.import_module("testcontainers.core.docker_client")
    except ImportError as error:
        message = "testcontainers is not installed"
        raise UnavailableError(message) from error
    return module.get_docker_host() or _DEFAULT_ENGINE


def _container_class() -> Any:
    # It moved; the old place warns in new releases.
    for module in ("testcontainers.community.postgres", "testcontainers.postgres"):
        try:
            return importlib.import_module(module).PostgresContainer
        except ImportError:
            continue
    message = "this testcontainers has no Postgres"
    raise UnavailableError(message)
