"""Counting round trips in a conversation between a Postgres client and its server.

A round trip begins when the client asks for an answer while it is waiting for none, and ends when
it has nothing left to wait for. So any number of statements that are sent before the first answer
is read are one. The messages themselves tell: bursts of bytes would not, since a long answer begins
to arrive while a pipeline is still being sent.

The count is never too low. It is too high only for a client that asks for several answers without
waiting, when an answer comes before the next question has left.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_LENGTH: Final = struct.Struct("!I")
_CODE: Final = struct.Struct("!I")

# Codes that stand in the place of a protocol version in a client's first messages.
_CANCEL: Final = 80877102
_ENCRYPTION: Final = {80877103, 80877104}  # SSL, GSS

# From the client. Each of the first is answered by one ReadyForQuery.
_ASKS_UNTIL_READY: Final = {b"Q", b"S", b"F"}  # Query, Sync, FunctionCall
_FLUSH: Final = b"H"  # asks for the answers to what came before it, if they are still to come
_COPY_ENDS: Final = {b"c", b"f"}  # CopyDone, CopyFail
_STEPS: Final = {b"P", b"B", b"D", b"E", b"C"}  # Parse, Bind, Describe, Execute, Close
_LOGIN: Final = b"p"  # every kind of password message

# From the server.
_READY: Final = b"Z"
_AUTHENTICATION: Final = b"R"
_COPY_IN: Final = {b"G", b"W"}  # from here on, it is the client's turn
_UNASKED: Final = {b"N", b"S", b"A"}  # NoticeResponse, ParameterStatus, NotificationResponse

# Of the kinds of authentication message: those that ask nothing of the client.
_AUTHENTICATION_DONE: Final = {0, 12}  # Ok, SASLFinal


class _Message(NamedTuple):
    kind: bytes
    head: bytes  # the first four bytes of the body, or fewer


class _Reader:
    """Cuts a stream of bytes into messages, without keeping their bodies."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._body_left = 0

    def feed(self, data: bytes) -> list[_Message]:
        """Take the next bytes and return the messages whose head is now complete."""
        found = []
        view = memoryview(data)
        while view:
            if self._body_left:
                skipped = min(self._body_left, len(view))
                self._body_left -= skipped
                view = view[skipped:]
                continue
            taken = min(self._wanted() - len(self._head), len(view))
            self._head += view[:taken]
            view = view[taken:]
            if len(self._head) == self._wanted():
                length = _LENGTH.unpack_from(self._head, 1)[0]
                found.append(_Message(bytes(self._head[:1]), bytes(self._head[5:])))
                self._body_left = length + 1 - len(self._head)
                self._head.clear()
        return found

    def _wanted(self) -> int:
        # A kind, the length (which counts itself, but not the kind), and what fits of four more.
        prefix = 5
        if len(self._head) < prefix:
            return prefix
        length: int = _LENGTH.unpack_from(self._head, 1)[0]
        return prefix + min(4, length - 4)


class Conversation:
    """One connection, as seen by somebody between client and server.

    Attributes:
        round_trips: how many have begun.
    """

    def __init__(self) -> None:
        """Begin with a client that is about to introduce itself."""
        self.round_trips = 0
        self._from_client = _Reader()
        self._from_server = _Reader()
        self._introduction: bytearray | None = bytearray()
        self._expects_single_byte = False
        self._is_opaque = False
        self._ready_owed = 0
        self._answer_owed = False
        self._has_steps = False

    def client_sent(self, data: bytes) -> None:
        """Take the next bytes from the client, before the server gets them."""
        if self._is_opaque:
            self._ask()
            self._answer_owed = True
            return
        if self._introduction is not None:
            self._introduction += data
            data = self._read_introduction()
        for message in self._from_client.feed(data):
            if message.kind in _ASKS_UNTIL_READY or message.kind == _LOGIN:
                self._ask()
                self._ready_owed += 1
                self._has_steps = False
            elif message.kind in _COPY_ENDS or (message.kind == _FLUSH and self._has_steps):
                self._ask()
                self._answer_owed = True
                self._has_steps = False
            elif message.kind in _STEPS:
                self._has_steps = True

    def server_sent(self, data: bytes) -> None:
        """Take the next bytes from the server, before the client gets them."""
        if self._is_opaque:
            self._answer_owed = False
            return
        if self._expects_single_byte and data:
            # Whether it agrees to encryption; if so, nothing can be read from here on.
            self._expects_single_byte = False
            self._answer_owed = False
            self._is_opaque = data[:1] != b"N"
            data = data[1:]
        for message in self._from_server.feed(data):
            if message.kind == _READY:
                self._ready_owed = max(0, self._ready_owed - 1)
            elif message.kind in _COPY_IN or self._asks_for_login(message):
                self._ready_owed = 0
            if message.kind not in _UNASKED:
                self._answer_owed = False

    def _ask(self) -> None:
        if not self._ready_owed and not self._answer_owed:
            self.round_trips += 1

    def _read_introduction(self) -> bytes:
        """Read the client's first messages, which have no kind; return what follows them."""
        size = _LENGTH.size + _CODE.size
        while self._introduction is not None and len(self._introduction) >= size:
            length = _LENGTH.unpack_from(self._introduction)[0]
            if len(self._introduction) < length:
                break
            code = _CODE.unpack_from(self._introduction, _LENGTH.size)[0]
            rest = self._introduction[length:]
            if code in _ENCRYPTION:
                self._ask()
                self._answer_owed = self._expects_single_byte = True
                self._introduction = rest
                continue
            self._introduction = None
            if code != _CANCEL:
                self._ask()
                self._ready_owed += 1
            return bytes(rest)
        return b""

    @staticmethod
    def _asks_for_login(message: _Message) -> bool:
        if message.kind != _AUTHENTICATION or len(message.head) < _CODE.size:
            return False
        return _CODE.unpack(message.head)[0] not in _AUTHENTICATION_DONE
