"""Source 2 of servers: a container, where a Docker engine answers."""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from director_db_conformance.ports import LOOPBACK, free_port
from director_db_conformance.servers import reaper
from director_db_conformance.servers.configured_server import ConfiguredServerError
from director_db_conformance.servers.folder import ServerFolder
from director_db_conformance.servers.offer import Offer, UnavailableError
from director_db_conformance.servers.throw_away import (
    OWNER,
    SETTINGS,
    SUPERUSER,
    VOLATILE,
    ServerFailedError,
    ThrowAwayServer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGE_VARIABLE: Final = "DIRECTOR_DB_TEST_POSTGRES_IMAGE"
"""Names the image to run; without it, the official one."""

DEFAULT_VERSION: Final = 17

# An engine on this machine answers in milliseconds; without one, nobody wants to wait.
_PATIENCE: Final = 1.0  # seconds

# A first start makes the cluster, on disks that may be slow.
_READY_PATIENCE: Final = 120.0
_STOP_PATIENCE: Final = 60
_PAUSE: Final = 0.05
_START_ATTEMPTS: Final = 5
_OK: Final = 200

_DEFAULT_ENGINE: Final = (
    "npipe:////./pipe/docker_engine" if sys.platform == "win32" else "unix:///var/run/docker.sock"
)
_PORT: Final = 5432
_PORT_IS_TAKEN: Final = ("port is already allocated", "address already in use")


class DockerContainer:
    """The official image, or the one that the environment names, run by testcontainers."""

    name = "docker"
    remedy = (
        "start a Docker engine and install testcontainers: "
        'pip install "director-db-conformance[docker]"'
    )

    def offer(self, version: int | None) -> Offer:
        """Offer a container if testcontainers is installed and an engine answers in a second.

        Raises:
            ConfiguredServerError: the environment names an image, which cannot be run.
        """
        named = os.environ.get(IMAGE_VARIABLE)
        image = named or f"postgres:{version or DEFAULT_VERSION}"
        with _insisting_on(named):
            engine = _engine()
            if not _is_engine_there(engine):
                message = f"no Docker engine answers at {engine}"
                raise UnavailableError(message)

        def start(durable: bool) -> ContainerServer:  # noqa: FBT001
            with _insisting_on(named):
                server = ContainerServer(engine, image, durable=durable)
            if version is None or server.version.split(".")[0] == str(version):
                return server
            server.close()
            message = f"version {version} is needed; {image} is {server.version}"
            raise UnavailableError(message)

        return Offer(f"docker ({image})", _tag(image), start)


class ContainerServer(ThrowAwayServer):
    """A server in a container; it goes when it is closed, or its owner dies."""

    def __init__(self, engine: str, image: str, *, durable: bool = False) -> None:
        """Run an image, pulled if it is not there.

        Args:
            engine: where the engine is.
            image: one that makes its superuser as the official image does, of ``POSTGRES_USER`` and
                ``POSTGRES_PASSWORD``.
            durable: keep fsync on, so that commits survive a power cut.

        Raises:
            UnavailableError: it cannot be had or started.
        """
        super().__init__(f"docker ({image})", _tag(image))
        self._process = os.getpid()
        self._folder: ServerFolder | None = None
        self._name = f"{reaper.PREFIX}{secrets.token_hex(8)}"
        if sys.platform != "win32" and reaper.is_plain(engine):
            # Another engine is out of our reaper's reach, but not of that of testcontainers.
            self._folder = ServerFolder(None)
            self._name = self._folder.path.name
            (self._folder.path / reaper.ENGINE).write_text(engine)
        settings = {**SETTINGS, **({} if durable else VOLATILE)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        container = _container_class()(image).with_name(self._name)
        container.with_command(["postgres", *options])
        container.with_env("POSTGRES_USER", SUPERUSER).with_env("POSTGRES_PASSWORD", self._password)
        container.with_env("POSTGRES_INITDB_ARGS", "--no-sync")
        client = container.get_docker_client()
        self._api = client.client.api
        # Where this process shares a network with its containers, theirs are the ports.
        mode = client.get_connection_mode()
        self.can_restart = bool(mode.use_mapped_port)
        is_local = mode.name == "docker_host" and client.host() in {"localhost", LOOPBACK}
        try:
            self._launch(container, is_local=is_local)
            self._address = LOOPBACK if is_local else container.get_container_host_ip()
            self._port = int(container.get_exposed_port(_PORT))
            self._owner_dsn = self._url(OWNER, self._owner_password)
            self._wait_until_ready()
            self._welcome()
            with self.connect() as connection:
                major, minor = divmod(connection.info.server_version, 10_000)
        except BaseException as error:
            self.close()
            if not isinstance(error, Exception):
                raise
            # Whatever the engine says, there are more sources.
            message = f"the engine answers, but {image} did not start: {error}"
            raise UnavailableError(message) from error
        self.version = f"{major}.{minor}"

    @property
    def container(self) -> str:
        """The name of the container, as the engine knows it."""
        return self._name

    @property
    def log(self) -> str:
        """The end of what the server has logged."""
        return str(self._api.logs(self._name, tail=40).decode(errors="replace"))

    def start(self) -> None:
        """Start it again on the same port."""
        self._try_ports(lambda: self._api.start(self._name))
        self._wait_until_ready()

    def stop(self) -> None:
        """Stop it in order: sessions are ended, transactions in progress rolled back."""
        self.thaw()
        # By the signal that the image names; the official one names that of a fast shutdown.
        self._api.stop(self._name, timeout=_STOP_PATIENCE)

    def kill(self) -> None:
        """End all its processes with SIGKILL, as if the machine had crashed."""
        if self._status() in {"running", "paused"}:
            self._api.kill(self._name)
            self._api.wait(self._name, timeout=_STOP_PATIENCE)

    def freeze(self) -> None:
        """Hold all its processes as they are: it refuses nothing, and answers nothing."""
        if self._status() == "running":
            self._api.pause(self._name)

    def thaw(self) -> None:
        """Let them go on; nothing happens if they are not held."""
        if self._status() == "paused":
            self._api.unpause(self._name)

    def close(self) -> None:
        """Remove the container and its files; nothing happens in a forked child."""
        if self._process != os.getpid():
            return
        self._hang_up()
        self._remove()
        self._api.close()
        if self._folder is not None:
            (self._folder.path / reaper.ENGINE).unlink(missing_ok=True)
            self._folder.remove()

    def _launch(self, container: Any, *, is_local: bool) -> None:
        """Create the container and start it, on a port that it keeps from one start to the next.

        The engine's own choice is another at each start, and who uses the server would not know.
        """

        def launch() -> None:
            port = free_port()
            container.ports = {f"{_PORT}/tcp": (LOOPBACK, port) if is_local else port}
            self._remove()
            with _own_reaper(self._folder is not None):
                container.start()

        self._try_ports(launch)

    def _try_ports(self, start: Callable[[], object]) -> None:
        for attempt in range(_START_ATTEMPTS):
            try:
                start()
                break
            except Exception as error:
                # Somebody may have taken the port; after a restart, only for a moment.
                is_taken = any(words in str(error) for words in _PORT_IS_TAKEN)
                if attempt == _START_ATTEMPTS - 1 or not is_taken:
                    raise
                time.sleep(0.2)

    def _remove(self) -> None:
        not_found = importlib.import_module("docker.errors").NotFound
        with contextlib.suppress(not_found):
            self._api.remove_container(self._name, force=True, v=True)

    def _status(self) -> str:
        return str(self._api.inspect_container(self._name)["State"]["Status"])

    def _wait_until_ready(self) -> None:
        import psycopg  # noqa: PLC0415 - an extra

        deadline = time.monotonic() + _READY_PATIENCE
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError as error:
                if self._status() != "running" or time.monotonic() > deadline:
                    message = f"{self.source} gives no connection: {error}\n{self.log}"
                    raise ServerFailedError(message) from error
                time.sleep(_PAUSE)
            else:
                return


@contextlib.contextmanager
def _insisting_on(image: str | None) -> Iterator[None]:
    """Let nothing else take the place of an image that the environment names."""
    try:
        yield
    except UnavailableError as error:
        if image is None:
            raise
        message = f"{IMAGE_VARIABLE} names {image}, which cannot be used: {error}"
        raise ConfiguredServerError(message) from error


@contextlib.contextmanager
def _own_reaper(is_ours: bool) -> Iterator[None]:  # noqa: FBT001
    """Leave out the reaper that testcontainers brings, and the second image that it takes."""
    config = importlib.import_module("testcontainers.core.config").testcontainers_config
    before = config.ryuk_disabled
    config.ryuk_disabled = before or is_ours
    try:
        yield
    finally:
        config.ryuk_disabled = before


def _tag(image: str) -> str:
    # A registry's port stands before a slash; a digest, after an @.
    return image.rpartition("/")[2].partition("@")[0].partition(":")[2] or "latest"


def _is_engine_there(engine: str) -> bool:
    # Not docker's own client: it leaks the sockets that fail, which fails tests that allow no
    # warnings, and it waits for minutes for a host that is not there.
    try:
        if reaper.is_plain(engine):
            return reaper.ask(engine, "GET /_ping", _PATIENCE) == _OK
        if urlsplit(engine).scheme in {"tcp", "http", "https"}:
            reaper.connect(engine, _PATIENCE).close()
    except OSError:
        return False
    # Encrypted, through ssh, or a named pipe: only trying it will tell.
    return True


def _engine() -> str:
    """Return where testcontainers would look for the engine."""
    try:
        module: Any = importlib.import_module("testcontainers.core.docker_client")
    except ImportError as error:
        message = "testcontainers is not installed"
        raise UnavailableError(message) from error
    return module.get_docker_host() or _DEFAULT_ENGINE


def _container_class() -> Any:
    # Not its Postgres: that has moved, and waits for minutes for a container that has ended.
    return importlib.import_module("testcontainers.core.container").DockerContainer
