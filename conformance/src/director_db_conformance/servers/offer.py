"""A server that could be had, and what gives one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_conformance.servers.server import PostgresServer


class UnavailableError(Exception):
    """This source has no server here; the text says why."""


class Offer(NamedTuple):
    """A server that could be had.

    Attributes:
        source: where it comes from, for people.
        version: its version, such as ``15.18``; for an image, its tag.
        start: starts it, or connects to it. The argument says whether what it commits must survive
            a power cut: True keeps fsync on.
    """

    source: str
    version: str
    start: Callable[[bool], PostgresServer]

    def __str__(self) -> str:
        return f"{self.version} from {self.source}"


class ServerSource(Protocol):
    """One way to get a server."""

    @property
    def name(self) -> str:
        """What `find_postgres(exclude=...)` calls it."""

    @property
    def remedy(self) -> str:
        """What to install or set so that it has one, for somebody who has no server."""

    def offer(self, version: int | None) -> Offer:
        """Look, without starting anything, for a server of a major version, or of any.

        Raises:
            UnavailableError: there is none.
        """
