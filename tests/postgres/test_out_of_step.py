"""Answers that are not those of what was asked, as a pooler gives when its server is ended.

A proxy answers in place of the server: too much, too little, errors twice, the end too early, half
a message, nothing. Whatever it is, callers get errors of ours, the instance works afterwards, and
what was acknowledged is there, once. ``DIRECTOR_DB_TEST_OUT_OF_STEP_SECONDS=600`` makes it run for
ten minutes.
"""

from __future__ import annotations

import os
import random
import struct
import time
from functools import partial
from typing import NamedTuple

import psycopg
import pytest

from director_db import BackendUnavailableError, DirectorDBError, SchemaError
from director_db_conformance.proxy import Lie
from director_db_postgres.connections import Connection
from director_db_postgres.errors import OutOfStepError

pytestmark = pytest.mark.sampled

SECONDS = float(os.environ.get("DIRECTOR_DB_TEST_OUT_OF_STEP_SECONDS", "0"))
ROUNDS = 120
# An instance that met a missing statement prepares nothing any more.
ROUNDS_OF_AN_INSTANCE = 10
LONGEST = 20.0


def reply(kind, body=b""):
    return kind + struct.pack("!i", len(body) + 4) + body


def error(severity, code, kind=b"E", *, old=False):
    """An error or notice; an old pooler's has no severity but the one for people."""
    fields = {b"S": severity, b"V": severity, b"C": code, b"M": "sent by a proxy"}
    if old:
        del fields[b"V"]
    body = b"".join(name + text.encode() + b"\0" for name, text in fields.items())
    return reply(kind, body + b"\0")


READY = reply(b"Z", b"I")
PARSED, BOUND, NO_DATA = reply(b"1"), reply(b"2"), reply(b"n")
DONE = reply(b"C", b"INSERT 0 1\0")
NOTICE = error("WARNING", "01000", kind=b"N")
SHUTDOWN = error("FATAL", "57P01")
LOST = error("FATAL", "08P01")
OLD_LOST = error("FATAL", "08P01", old=True)
OLD_SHUTDOWN = error("FATAL", "57P01", old=True)
LOST_AND_ON = error("ERROR", "08P01", old=True)
CONFLICT = error("ERROR", "40001")
HALF = reply(b"C", b"INSERT 0 1\0")[:7]
MORE = [BOUND, NO_DATA, DONE]


def messages(data):
    """Return the types of a client's messages; empty if that is no whole question."""
    kinds = b""
    while len(data) >= 5:
        (length,) = struct.unpack("!i", data[1:5])
        if length < 4 or len(data) < length + 1:
            return b""
        kinds += data[:1]
        data = data[length + 1 :]
    return kinds if not data and kinds.endswith(b"S") and b"E" in kinds else b""


def honest(kinds):
    answers = {b"P": PARSED, b"B": BOUND, b"D": NO_DATA, b"E": DONE}
    return [answers[kinds[n : n + 1]] for n in range(len(kinds)) if kinds[n : n + 1] in answers]


class Kind(NamedTuple):
    """A kind of lie: what is answered to a question that `answers` would answer."""

    data: object
    may_be_forwarded: bool = True
    stays: bool = True


KINDS = {
    "nothing": Kind(lambda answers, chance: b"", stays=False),
    "too few": Kind(lambda answers, chance: b"".join(answers[: -chance.choice([1, 3])]) + READY),
    "too many": Kind(lambda answers, chance: b"".join([*answers, *MORE]) + READY),
    "the end too early": Kind(lambda answers, chance: READY + b"".join(answers) + READY),
    "only the end": Kind(lambda answers, chance: READY),
    "shutdown twice": Kind(lambda answers, chance: SHUTDOWN + LOST + READY),
    "shutdown": Kind(lambda answers, chance: SHUTDOWN, stays=False),
    "shutdown at the end": Kind(lambda answers, chance: b"".join(answers) + SHUTDOWN, stays=False),
    "errors twice": Kind(
        lambda answers, chance: CONFLICT + CONFLICT + READY, may_be_forwarded=False
    ),
    "an error": Kind(lambda answers, chance: CONFLICT + READY, may_be_forwarded=False),
    "an old pooler's farewell": Kind(
        lambda answers, chance: chance.choice([OLD_LOST, OLD_SHUTDOWN]) + READY
    ),
    "a pooler that goes on": Kind(lambda answers, chance: LOST_AND_ON + READY),
    "too many errors": Kind(lambda answers, chance: LOST * chance.randint(2, 5) + READY),
    "notices": Kind(
        lambda answers, chance: NOTICE * chance.randint(1, 3) + b"".join(answers[:-1]) + READY
    ),
    "half a message": Kind(lambda answers, chance: b"".join(answers[:-1]) + HALF, stays=False),
    "noise": Kind(lambda answers, chance: chance.randbytes(40), stays=False),
    "more after the end": Kind(
        lambda answers, chance: b"".join(answers) + READY + b"".join(MORE) + READY
    ),
    "the end twice": Kind(lambda answers, chance: b"".join(answers) + READY + READY),
}


def liar(chance, kind, times=1):
    """Answer so many questions with lies of a kind, and then let the server answer."""
    left = [times]

    def answer(data):
        kinds = messages(data)
        if not kinds or not left[0]:
            return None
        left[0] -= 1
        data = kind.data(honest(kinds), chance)
        forward = kind.may_be_forwarded and chance.random() < 0.5
        ends_after = None
        if not kind.stays or forward or chance.random() < 0.3:
            ends_after = chance.choice([0.0, 0.05, 0.2])
        return Lie(data, forward, ends_after, reset=chance.random() < 0.5)

    return answer


class Acknowledged:
    """The outcomes that the caller was given, to be compared with what is stored."""

    def __init__(self):
        self.stored, self.gone, self.appended = set(), set(), set()
        self.not_stored, self.not_appended = set(), set()

    def upsert(self, db, number):
        try:
            db.add_or_update_msg_to_conv("s", "c", f"m{number}", "output", [], [], [number])
        except BackendUnavailableError as error:
            if not error.maybe_applied:
                self.not_stored.add(f"m{number}")
            raise
        self.stored.add(f"m{number}")

    def bulk(self, db, number):
        ids = [f"b{number}", f"c{number}"]
        fields = {"conv_id": "c", "msg_type": "output", "agents": [], "actions": []}
        try:
            db.add_or_update_msgs_to_conv(
                "s", [{**fields, "msg_id": msg_id, "content": number} for msg_id in ids]
            )
        except BackendUnavailableError as error:
            if not error.maybe_applied:
                self.not_stored.update(ids)
            raise
        self.stored.update(ids)

    def append(self, db, number):
        try:
            db.append_context_messages("s", [number])
        except BackendUnavailableError as error:
            if not error.maybe_applied:
                self.not_appended.add(number)
            raise
        self.appended.add(number)

    def delete(self, db, _number):
        msg_id = min(self.stored, default="none")
        self.stored.discard(msg_id)
        if db.delete_message("s", msg_id):
            self.gone.add(msg_id)

    def create_and_delete(self, db, number):
        db.create_session(f"t{number}")
        self.other = f"t{number}"
        db.add_or_update_context_msg(self.other, {"reasoning": [number]})
        db.update_session(self.other, video_id="v")
        db.delete_context(self.other)
        db.delete_conversation(self.other)
        db.delete_session(self.other)

    def read(self, db, _number):
        assert "s" == db.get_session("s")["session_id"]
        assert {"s"} <= {session["session_id"] for session in db.get_sessions()}
        assert self.stored <= {found["msg_id"] for found in db.get_conversations("s")}
        assert [] == [msg_id for msg_id in list(self.gone)[:3] if db.get_message("s", msg_id)]
        found = db.get_context_messages("s")["reasoning"]
        assert self.appended <= set(found)

    def check(self, db):
        ids = {found["msg_id"] for found in db.get_conversations("s")}
        items = db.get_context_messages("s")["reasoning"]
        assert self.stored - ids == set()
        assert self.gone & ids == set()
        assert self.not_stored & ids == set()
        assert self.appended - set(items) == set()
        assert self.not_appended & set(items) == set()
        assert len(items) == len(set(items))

    operations = (upsert, bulk, append, delete, create_and_delete, read)


@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.parametrize("pooler", [None, True], ids=["prepared", "pooler"])
def test_random_answers(place, proxy, new_db, pooler):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    direct = new_db(place.dsn)
    direct.create_session("s")
    direct.add_or_update_context_msg("s", {"reasoning": []})
    acknowledged, db, number, lied = Acknowledged(), None, 0, dict.fromkeys(KINDS, 0)
    completed = dict.fromkeys(Acknowledged.operations, 0)
    stop = time.monotonic() + SECONDS
    while number < ROUNDS or time.monotonic() < stop:
        if number % ROUNDS_OF_AN_INSTANCE == 0:
            if db is not None:
                db.close()
            db = new_db(place.dsn_by(proxy.port), pool_size=2, pooler=pooler, retry_deadline=3)
        name = list(KINDS)[number % len(KINDS)]
        operation = chance.choice(Acknowledged.operations)
        lie = liar(chance, KINDS[name], chance.choice([1, 1, 2, 5]))

        def lie_once(data, lie=lie, name=name):
            answer = lie(data)
            lied[name] += answer is not None
            return answer

        proxy.lie(lie_once)
        where = f"seed {seed}, round {number}: {operation.__name__}, {name}"
        start = time.monotonic()
        try:
            operation(acknowledged, db, number)
            completed[operation] += 1
        except DirectorDBError:
            pass
        except Exception as error:
            raise AssertionError(where) from error
        assert time.monotonic() - start < LONGEST, where
        proxy.lie(None)
        try:
            assert "s" == db.get_session("s")["session_id"]
            acknowledged.check(direct)
        except Exception as error:
            raise AssertionError(where) from error
        number += 1
    assert [name for name, times in lied.items() if not times] == []
    # Some of each got through all the same, by trying again.
    assert [operation for operation, times in completed.items() if not times] == []


def lies(proxy, kind, **ending):
    proxy.lie(
        lambda data: (
            Lie(kind.data(honest(messages(data)), random.Random(1)), **ending)
            if messages(data)
            else None
        )
    )


@pytest.mark.parametrize("name", [name for name in KINDS if name != "nothing"])
def test_each_is_in_doubt_or_tried_again(place, proxy, new_db, again, name):
    direct = new_db(place.dsn)
    direct.create_session("s")
    direct.add_or_update_msg_to_conv("s", "c", "m", "output", [], [], [])
    db = new_db(place.dsn_by(proxy.port), pool_size=1, retry_deadline=0.5)
    again(db.get_message, "s", "m")
    is_known = name in {"errors twice", "an error"}
    # An end that comes before an error was read puts the call in doubt.
    lies(proxy, KINDS[name], ends_after=5 if is_known else 0.1)
    with pytest.raises(BackendUnavailableError) as caught:
        db.delete_message("s", "m")
    assert (True, not is_known) == (caught.value.retryable, caught.value.maybe_applied)
    with pytest.raises(BackendUnavailableError):
        db.get_message("s", "m")
    proxy.lie(None)
    assert "m" == again(db.get_message, "s", "m")["msg_id"]


@pytest.mark.parametrize("ready", [False, True], ids=["first", "later"])
def test_silence_right_after_connecting_ends(place, proxy, new_db, again, ready):
    """Nothing was sent that a caller waits for, but the caller waits for the connection."""
    dsn = place.dsn_by(proxy.port) + "?connect_timeout=2"
    db = new_db(dsn, pool_size=1, retry_deadline=1)
    if ready:
        assert {} == again(db.get_session, "s")
        proxy.cut()
    lies(proxy, KINDS["nothing"])
    start = time.monotonic()
    with pytest.raises(BackendUnavailableError) as caught:
        db.create_session("t")
    assert time.monotonic() - start < LONGEST
    assert caught.value.retryable is True
    proxy.lie(None)
    new_db(place.dsn).create_session("t")
    again(lambda: db.update_session("t", video_id="v"))
    assert "v" == again(db.get_session, "t")["video_id"]


def test_the_drivers_exception_is_the_cause(place, proxy, new_db, again):
    db = new_db(place.dsn_by(proxy.port), pool_size=1, retry_deadline=0.3)
    assert {} == again(db.get_session, "s")
    lies(proxy, KINDS["too many"], ends_after=0.1)
    with pytest.raises(BackendUnavailableError, match="did not fit what was asked") as caught:
        db.delete_session("s")
    assert isinstance(caught.value.__cause__, OutOfStepError)


def test_an_exception_of_pythons_out_of_the_driver_is_a_lost_connection(place, db, monkeypatch):
    """As psycopg's own pipelines give an IndexError; it has to come out of a call of psycopg's."""
    db.create_session("s")
    namespace = {"__name__": "psycopg.of_a_test"}
    exec("def fail():\n    raise IndexError('pop from an empty deque')", namespace)  # noqa: S102
    receive, failures = Connection._receive, [1]

    def fail_once(self):
        results = yield from receive(self)
        if failures:
            failures.pop()
            namespace["fail"]()
        return results

    monkeypatch.setattr(Connection, "_receive", fail_once)
    with pytest.raises(BackendUnavailableError) as caught:
        db.delete_session("s")
    assert (True, True) == (caught.value.retryable, caught.value.maybe_applied)
    assert IndexError is type(caught.value.__cause__.__cause__)
    failures.append(1)
    assert {} == db.get_session("s")
    failures.append(1)
    db.create_session("s")
    assert "s" == db.get_session("s")["session_id"]


class InterruptionError(Exception):
    """What a signal's handler may raise."""


def test_what_a_handler_raises_stays_what_it_is(db, monkeypatch):
    db.create_session("s")
    receive = Connection._receive

    def strike(self):
        yield from receive(self)
        raise InterruptionError

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_receive", strike)
        with pytest.raises(InterruptionError):
            db.delete_session("s")
    assert {} == db.get_session("s")


@pytest.mark.parametrize("value", [object(), "\ud800", {1: 2}], ids=["object", "text", "dict"])
def test_a_mistake_in_our_own_parameters_stays_what_it_is(db, value, caplog):
    """Whatever psycopg says of a value that it cannot send, it is not tried again."""
    db.create_session("s")

    def send(method, connection):
        return getattr(connection, method)(b"SELECT $1::text", (value,))

    for method in ("run", "execute"):
        with pytest.raises((SchemaError, UnicodeEncodeError)) as caught:
            db._database.read(partial(send, method))
        error = caught.value
        assert isinstance(error.__cause__ or error, (psycopg.ProgrammingError, UnicodeEncodeError))
    assert "trying again" not in caplog.text
    assert "s" == db.get_session("s")["session_id"]
