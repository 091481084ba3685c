"""Round trips between us and a Postgres server, as a proxy in between counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.bench import LABELS, SESSION
from benchmarks.cases.case import Case, counted, kibibytes
from benchmarks.payloads import PAGE, Stream, context_message, message
from benchmarks.results import Goal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench
    from benchmarks.results import Curve, Row
    from director_db import BaseDB
    from director_db_conformance.proxy import Proxy

_ONE_ROUND_TRIP: Final = Goal(1, "round trip")

_GONE: Final = "gone"

_CALLS: Final = 10


def round_trips(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Count the round trips of each operation on a warm connection, the mean of ten calls.

    A context is saved whole, grown by one message, when nobody else has written since; the deleted
    session has 20 messages and a context.
    """
    label = LABELS[backend]
    with bench.place(backend) as dsn, bench.counted_on_the_wire(dsn) as (db, proxy):
        db.create_session(SESSION)
        for work, operation, prepare in _operations(db):
            for _ in range(2):
                prepare()
                operation()
            yield _count(f"{label}: {work}, on the wire", proxy, operation, prepare)


def _operations(db: BaseDB) -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """Give each operation with its name, and what makes ready for it."""
    stream = Stream()
    bulk = [message(number) for number in range(PAGE)]
    messages = [context_message(number) for number in range(PAGE)]

    def save() -> None:
        messages.append(context_message(1))
        db.add_or_update_context_msg(SESSION, {"reasoning": messages})

    def fill() -> None:
        db.create_session(_GONE)
        db.add_or_update_msgs_to_conv(_GONE, bulk[:20])
        db.append_context_messages(_GONE, messages[:1])

    def nothing() -> None:
        pass

    yield "upsert", lambda: db.add_or_update_msg_to_conv(SESSION, **stream()), nothing
    yield f"bulk of {PAGE}", lambda: db.add_or_update_msgs_to_conv(SESSION, bulk), nothing
    yield f"a page of {PAGE}", lambda: db.get_conversations(SESSION, limit=PAGE), nothing
    yield "save a context, grown by one", save, nothing
    yield "append to a context", lambda: db.append_context_messages(SESSION, messages[:1]), nothing
    yield "read a context", lambda: db.get_context_messages(SESSION), nothing
    yield "delete a session", lambda: db.delete_session(_GONE), fill


def _count(
    work: str, proxy: Proxy, operation: Callable[[], object], prepare: Callable[[], object]
) -> Row:
    trips = sent = received = 0
    for _ in range(_CALLS):
        prepare()
        with proxy.count() as count:
            operation()
        if not count.round_trips:
            message = f"{work}: nothing was sent"
            raise AssertionError(message)
        trips += count.round_trips
        sent += count.bytes_sent
        received += count.bytes_received
    facts = {"sent": kibibytes(sent / _CALLS), "received": kibibytes(received / _CALLS)}
    return counted("wire-postgres", work, trips / _CALLS, _ONE_ROUND_TRIP, facts)


CASES: Final = (Case("wire-postgres", round_trips, "postgres"),)
