"""The conversations that a driver can be brought to hold are in test_proxy.py."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director_db_conformance.round_trips import Conversation


def message(kind, body=b""):
    return kind + struct.pack("!I", len(body) + 4) + body


def opening(code, body=b""):
    return struct.pack("!II", len(body) + 8, code) + body


def authentication(kind, body=b""):
    return message(b"R", struct.pack("!I", kind) + body)


STARTUP = opening(196608, b"user\0me\0\0")
READY = message(b"Z", b"I")
ROW = message(b"D", b"x" * 300)
DONE = message(b"C", b"SELECT 1\0")
STEP = message(b"P", b"\0SELECT 1\0\0\0") + message(b"B", b"\0" * 8) + message(b"E", b"\0" * 5)
SYNC = message(b"S")
FLUSH = message(b"H")
QUERY = message(b"Q", b"SELECT 1\0")
SSL = opening(80877103)

LOGIN = [
    ("client", STARTUP),
    ("server", authentication(10, b"SCRAM-SHA-256\0\0")),
    ("client", message(b"p", b"first")),
    ("server", authentication(11, b"challenge")),
    ("client", message(b"p", b"second")),
    ("server", authentication(12, b"proof") + authentication(0) + message(b"S", b"a\0b\0") + READY),
]

CONVERSATIONS = {
    "login with a password": (LOGIN, 3),
    "login without one": ([("client", STARTUP), ("server", authentication(0) + READY)], 1),
    "encryption refused": ([("client", SSL), ("server", b"N"), *LOGIN], 4),
    "one query": ([*LOGIN, ("client", QUERY), ("server", ROW + DONE + READY)], 4),
    "two queries": ([*LOGIN, *[("client", QUERY), ("server", DONE + READY)] * 2], 5),
    "an answer that is read in two goes": (
        [*LOGIN, ("client", QUERY), ("server", ROW), ("server", DONE + READY)],
        4,
    ),
    "a pipeline whose answer begins before its end": (
        [
            *LOGIN,
            ("client", STEP * 3 + SYNC + STEP),
            ("server", ROW * 50),
            ("client", STEP + SYNC),
            ("server", DONE + READY + ROW + DONE + READY),
        ],
        4,
    ),
    "waiting for a flush": (
        [*LOGIN, ("client", STEP + FLUSH), ("server", ROW), ("client", SYNC), ("server", READY)],
        5,
    ),
    "a flush with nothing before it": (
        [*LOGIN, ("client", QUERY), ("server", DONE + READY), ("client", FLUSH)],
        4,
    ),
    "a notice that nobody asked for": (
        [*LOGIN, ("server", message(b"N", b"note\0")), ("client", QUERY), ("server", READY)],
        4,
    ),
    "a notice in the middle": (
        [*LOGIN, ("client", STEP + FLUSH), ("server", message(b"N", b"n\0")), ("client", SYNC)],
        4,
    ),
    "copying in": (
        [
            *LOGIN,
            ("client", QUERY),
            ("server", message(b"G", b"\0\0\0")),
            ("client", message(b"d", b"row") * 9 + message(b"c")),
            ("server", DONE + READY),
            ("client", QUERY),
            ("server", DONE + READY),
        ],
        6,
    ),
    "farewell": ([*LOGIN, ("client", message(b"X"))], 3),
    "a request to cancel": ([("client", opening(80877102, b"\0" * 8))], 0),
}


def count(events):
    conversation = Conversation()
    for side, data in events:
        if side == "client":
            conversation.client_sent(data)
        else:
            conversation.server_sent(data)
    return conversation.round_trips


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_count(name):
    events, expected = CONVERSATIONS[name]
    assert count(events) == expected


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_count_byte_by_byte(name):
    events, expected = CONVERSATIONS[name]
    single = [(side, bytes([byte])) for side, data in events for byte in data]
    assert count(single) == expected


@given(st.sampled_from(sorted(CONVERSATIONS)), st.data())
def test_count_however_the_bytes_are_cut(name, data):
    events, expected = CONVERSATIONS[name]
    pieces = []
    for side, whole in events:
        cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=5)))
        bounds = [0, *cuts, len(whole)]
        pieces += [(side, whole[start:end]) for start, end in pairwise(bounds)]
    assert count(pieces) == expected


def test_encrypted_conversations_are_counted_by_changes_of_direction():
    events = [
        ("client", SSL),
        ("server", b"S"),
        *[("client", b"??"), ("client", b"?"), ("server", b"!!"), ("server", b"!")] * 3,
    ]
    assert count(events) == 4
