"""A TCP proxy that breaks connections on purpose and counts what goes over them."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import threading
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from director_db_conformance.dsn import replace
from director_db_conformance.ports import LOOPBACK, free_port
from director_db_conformance.round_trips import Conversation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

_CHUNK: Final = 64 * 1024

# A side that does not read gets this much kept for it, in bytes; then the other side has to wait.
_BACKLOG: Final = 1024 * 1024

_CONNECT_PATIENCE: Final = 10.0
_LISTEN_ATTEMPTS: Final = 20

# With this, closing a socket sends RST: its peer learns that the connection broke, not that it
# ended.
_RESET: Final = struct.pack("ii", 1, 0)


class Counts(NamedTuple):
    """What went through.

    Attributes:
        round_trips: how many times the client had to wait for the server.
        bytes_sent: from client to server.
        bytes_received: from server to client.
        connections: how many were accepted.
    """

    round_trips: int
    bytes_sent: int
    bytes_received: int
    connections: int


class Lie(NamedTuple):
    """What a proxy answers in place of the server.

    Attributes:
        data: what the client gets.
        forward: whether the server gets the question all the same; its answer is lost.
        ends_after: seconds until the connection ends; None leaves it open.
        reset: whether it then breaks, instead of ending in order.
    """

    data: bytes
    forward: bool = False
    ends_after: float | None = None
    reset: bool = False


class Counter:
    """What has gone through a proxy since some moment, until the end of its `with` block."""

    def __init__(self, proxy: Proxy) -> None:
        """Start at the proxy's present counts."""
        self._proxy = proxy
        self._start = proxy.counts()
        self._end: Counts | None = None

    @property
    def round_trips(self) -> int:
        """How many times the client had to wait for the server."""
        return self._since().round_trips

    @property
    def bytes_sent(self) -> int:
        """Bytes from client to server."""
        return self._since().bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes from server to client."""
        return self._since().bytes_received

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return self._since().connections

    def finish(self) -> None:
        """Count no further."""
        self._end = self._proxy.counts()

    def _since(self) -> Counts:
        end = self._end or self._proxy.counts()
        return Counts(*(b - a for a, b in zip(self._start, end, strict=True)))


class Proxy:
    """Listens on the loopback interface and passes connections on to a server.

    Everything is counted before it is passed on: a client that has its answer finds it counted. One
    thread moves all bytes; the methods may be called from any other.

    In a forked child the proxy is dead, and the parent's goes on.
    """

    def __init__(self, host: str, port: int) -> None:
        """Start listening, on a port of its own, for a server at `host` and `port`."""
        self._target = (host, port)
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.settimeout(0)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self._links: set[_Link] = set()
        self._totals = Counts(0, 0, 0, 0)
        self._paused = False
        self._closed = False
        self._cut: _Cut | None = None
        self._lie: Callable[[bytes], Lie | None] | None = None
        self.port = 0
        self.start()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        _open_proxies.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def host(self) -> str:
        """The address that it listens on."""
        return LOOPBACK

    def reroute(self, dsn: str) -> str:
        """Return a Postgres connection string that goes through this proxy instead."""
        return replace(dsn, host=self.host, port=str(self.port))

    def start(self) -> None:
        """Accept connections, after `stop` on the same port as before."""
        with self._lock:
            if self._listener is None:
                self._listener = self._listen()
                self.port = self._listener.getsockname()[1]
                self._selector.register(self._listener, selectors.EVENT_READ)
                self._wake()

    def stop(self) -> None:
        """Refuse new connections and reset those there are, as if the server's machine were off."""
        with self._lock:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            self.cut()

    def cut(self) -> int:
        """Reset every connection, whatever is under way; new ones are accepted.

        Returns:
            How many there were.
        """
        with self._lock:
            links = list(self._links)
            for link in links:
                self._drop(link, reset=True)
            return len(links)

    def cut_after(self, reply_bytes: int) -> threading.Event:
        """Reset a connection in the middle of an answer.

        Counting starts now, over all connections; the one that would bring the client more than
        that many bytes from the server is reset after them. With 0, the server has done what it was
        asked, and the client never hears of it. It happens once.

        Returns:
            An event that is set when it has happened.
        """
        with self._lock:
            self._cut = _Cut(reply_bytes)
            return self._cut.happened

    def lie(self, answer: Callable[[bytes], Lie | None] | None) -> None:
        """Answer in place of the server, until this is called with None.

        Args:
            answer: gets what a client sends, as it comes in, and returns what it shall hear
                instead; None asks the server. It is called in the proxy's thread.
        """
        with self._lock:
            self._lie = answer

    def pause(self) -> None:
        """Pass nothing on, in either direction, and keep the connections: a black hole."""
        with self._lock:
            self._paused = True
            self._watch_all()

    def resume(self) -> None:
        """Pass on again, beginning with what came in meanwhile."""
        with self._lock:
            self._paused = False
            self._watch_all()
            self._wake()

    def counts(self) -> Counts:
        """Return all that has gone through."""
        with self._lock:
            return self._totals

    def round_trips(self) -> int:
        """Return how many times a client had to wait for the server."""
        return self.counts().round_trips

    @contextlib.contextmanager
    def count(self) -> Iterator[Counter]:
        """Count what goes through while the block runs."""
        counter = Counter(self)
        try:
            yield counter
        finally:
            counter.finish()

    def close(self) -> None:
        """End all connections and stop listening for good."""
        with self._lock:
            if self._closed:
                return
            self.stop()
            self._closed = True
            self._wake()
        self._thread.join()
        self._release()

    def _release(self) -> None:
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _listen(self) -> socket.socket:
        for attempt in range(_LISTEN_ATTEMPTS):
            try:
                # Python sets SO_REUSEADDR, so that connections just cut do not keep the port.
                listener = socket.create_server((LOOPBACK, self.port or free_port()))
            except OSError:
                if self.port or attempt == _LISTEN_ATTEMPTS - 1:
                    raise
            else:
                listener.settimeout(0)
                return listener
        message = "No port to listen on."  # pragma: no cover - the loop returns or raises
        raise OSError(message)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_write.send(b"\0")

    def _run(self) -> None:
        while True:
            # Only waiting happens without the lock; whatever changed meanwhile is checked below.
            events = self._selector.select()
            with self._lock:
                if self._closed:
                    return
                for key, mask in events:
                    self._handle(key, mask)

    def _handle(self, key: selectors.SelectorKey, mask: int) -> None:
        if key.fileobj is self._wake_read:
            with contextlib.suppress(BlockingIOError):
                self._wake_read.recv(_CHUNK)
        elif key.fileobj is self._listener:
            self._accept(self._listener)
        elif isinstance(key.data, _End) and key.data.link in self._links:
            self._move(key.data, mask)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # it is gone already
            return
        try:
            server = socket.create_connection(self._target, timeout=_CONNECT_PATIENCE)
        except OSError:
            _reset(client)
            return
        self._add(round_trips=0, sent=0, received=0, connections=1)
        link = _Link(client, server)
        self._links.add(link)
        for end in link.ends:
            self._watch(end)

    def _move(self, end: _End, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                end.flush()
            if mask & selectors.EVENT_READ and not self._paused:
                self._receive(end)
        except BlockingIOError:
            pass
        except OSError:
            # One side broke; the other shall see it broken, not ended.
            self._drop(end.link, reset=True)
            return
        if end.link not in self._links:
            return
        if end.link.is_finished:
            self._drop(end.link, reset=False)
            return
        for each in end.link.ends:
            self._watch(each)

    def _receive(self, end: _End) -> None:
        data = end.socket.recv(_CHUNK)
        link = end.link
        if not data:
            end.has_ended = True
            return
        if end is link.client:
            before = link.conversation.round_trips
            link.conversation.client_sent(data)
            trips = link.conversation.round_trips - before
            self._add(round_trips=trips, sent=len(data), received=0, connections=0)
            lie = None if self._lie is None else self._lie(data)
            if lie is None or lie.forward:
                link.server.send(data)
            if lie is not None:
                self._send_lie(link, lie)
            return
        if link.is_lied_to:
            return
        link.conversation.server_sent(data)
        if self._cut is not None and len(data) > self._cut.bytes_left:
            self._finish_cut(link, self._cut, data)
            return
        if self._cut is not None:
            self._cut.bytes_left -= len(data)
        self._add(round_trips=0, sent=0, received=len(data), connections=0)
        link.client.send(data)

    def _send_lie(self, link: _Link, lie: Lie) -> None:
        link.is_lied_to = lie.forward
        link.client.send(lie.data)
        if lie.ends_after is not None:
            timer = threading.Timer(lie.ends_after, self._end_link, (link, lie.reset))
            timer.daemon = True
            timer.start()

    def _end_link(self, link: _Link, reset: bool) -> None:  # noqa: FBT001 - a timer's
        with self._lock:
            if link in self._links and not self._closed:
                self._drop(link, reset=reset)
                self._wake()

    def _finish_cut(self, link: _Link, cut: _Cut, data: bytes) -> None:
        last = data[: cut.bytes_left]
        self._cut = None
        self._add(round_trips=0, sent=0, received=len(last), connections=0)
        with contextlib.suppress(OSError):
            link.client.send(last)
        # First, so that a client that has seen the reset finds it set.
        cut.happened.set()
        self._drop(link, reset=True)

    def _add(self, *, round_trips: int, sent: int, received: int, connections: int) -> None:
        more = (round_trips, sent, received, connections)
        self._totals = Counts(*(a + b for a, b in zip(self._totals, more, strict=True)))

    def _watch_all(self) -> None:
        for link in self._links:
            for end in link.ends:
                self._watch(end)

    def _watch(self, end: _End) -> None:
        events = 0
        if not self._paused:
            if not end.has_ended and len(end.other.pending) < _BACKLOG:
                events |= selectors.EVENT_READ
            if end.pending:
                events |= selectors.EVENT_WRITE
        if events == end.watched:
            return
        if end.watched and events:
            self._selector.modify(end.socket, events, end)
        elif events:
            self._selector.register(end.socket, events, end)
        else:
            self._selector.unregister(end.socket)
        end.watched = events

    def _drop(self, link: _Link, *, reset: bool) -> None:
        self._links.discard(link)
        for end in link.ends:
            if end.watched:
                self._selector.unregister(end.socket)
                end.watched = 0
            if reset:
                _reset(end.socket)
            else:
                end.socket.close()

    def _abandon(self) -> None:
        """Close this forked child's copies; an open copy would keep a dead connection alive."""
        if self._closed:
            return
        self._closed = True
        if self._listener is not None:
            self._listener.close()
        for link in self._links:
            for end in link.ends:
                end.socket.close()
        self._release()


class _Cut:
    def __init__(self, bytes_left: int) -> None:
        self.bytes_left = bytes_left
        self.happened = threading.Event()


class _End:
    """One end of a connection: its socket, and what waits to be sent there."""

    def __init__(self, link: _Link, connection: socket.socket) -> None:
        connection.settimeout(0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.link = link
        self.socket = connection
        self.pending = bytearray()
        self.has_ended = False
        self.watched = 0

    @property
    def other(self) -> _End:
        return self.link.server if self is self.link.client else self.link.client

    def send(self, data: bytes) -> None:
        self.pending += data
        with contextlib.suppress(BlockingIOError):
            self.flush()

    def flush(self) -> None:
        while self.pending:
            sent = self.socket.send(self.pending)
            del self.pending[:sent]


class _Link:
    """A client's connection and the one to the server that goes with it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.conversation = Conversation()
        self.client = _End(self, client)
        self.server = _End(self, server)
        self.ends = (self.client, self.server)
        self.is_lied_to = False

    @property
    def is_finished(self) -> bool:
        """Whether one side ended and the other has got all that it said."""
        return any(end.has_ended and not end.other.pending for end in self.ends)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


_open_proxies: weakref.WeakSet[Proxy] = weakref.WeakSet()


def _abandon_in_child() -> None:
    for proxy in list(_open_proxies):
        proxy._abandon()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_in_child)
