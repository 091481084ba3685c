"""Storing messages, one and fifty at a time, and deleting a session."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Final

from benchmarks.bench import LABELS, SESSION, open_ours
from benchmarks.cases.case import Case, compared, kibibytes, ours, peers_with, raw
from benchmarks.counters import bytes_for_each
from benchmarks.payloads import PAGE, Stream, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.results import Curve, Row
    from director_db import BaseDB

CONVERSATION: Final = 100
"""Messages that are there already."""


def upsert(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Store 1 KB messages in a conversation of 100, one caller, one in ten new and nine updated.

    Raw: one warm connection, the same SQL (on Postgres in one statement), pragmas and prepared
    statements, JSON by the C encoder of ``json``, made once, one commit for each message. It checks
    nothing and tries nothing again.

    Peers: they cannot update a message, so they add one; LangGraph stores its state, 100 messages.
    """
    with (
        bench.pair(backend) as pair,
        peers_with(bench, backend, CONVERSATION, lambda store: store.write) as peers,
    ):
        start = [message(number) for number in range(CONVERSATION)]
        pair.ours.add_or_update_msgs_to_conv(SESSION, start)
        pair.raw.bulk(SESSION, start)
        our_stream, raw_stream = Stream(), Stream()

        def store() -> None:
            pair.ours.add_or_update_msg_to_conv(SESSION, **our_stream())

        def store_raw() -> None:
            pair.raw.upsert(SESSION, raw_stream())

        name, label = f"upsert-{backend}", LABELS[backend]
        facts = {
            "written": kibibytes(bytes_for_each(store, pair.written)),
            "written, raw": kibibytes(bytes_for_each(store_raw, pair.written)),
        }
        yield compared(
            name,
            f"{label}: upsert, 1 thread",
            [ours(store, backend), raw(store_raw, backend), *peers],
            bench,
            bound=1.15,
            facts=facts,
        )


def bulk(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Store 50 messages of 1 KB in one call and one transaction, the same 50 again and again.

    Raw: SQLite one ``executemany``; Postgres one statement with arrays. Otherwise as upsert-*.
    Peers add 50 new messages in their one call; LangGraph is left out, whose state would grow.
    """
    messages = [message(number) for number in range(PAGE)]
    with (
        bench.pair(backend) as pair,
        peers_with(
            bench,
            backend,
            1,
            lambda store: functools.partial(store.write_many, PAGE),
            keeping_all=False,
        ) as peers,
    ):

        def store() -> None:
            pair.ours.add_or_update_msgs_to_conv(SESSION, messages)

        def store_raw() -> None:
            pair.raw.bulk(SESSION, messages)

        yield compared(
            f"bulk-{backend}",
            f"{LABELS[backend]}: bulk of {PAGE}",
            [ours(store, backend), raw(store_raw, backend), *peers],
            bench,
            bound=None,
        )


def delete(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Delete a session that has 20 messages and a context; making it is not timed.

    Raw: SQLite deletes the session's row, and the cascade the rest; it does not learn what was
    there. Postgres locks the row and deletes in one pipeline, with our statements.
    """
    messages = [message(number) for number in range(20)]

    def fill(db: BaseDB, session_id: str) -> None:
        db.create_session(session_id)
        db.add_or_update_msgs_to_conv(session_id, messages)
        db.add_or_update_context_msg(session_id, {"reasoning": [1]})

    with (
        bench.pair(backend) as pair,
        contextlib.closing(open_ours(backend, pair.raw_place)) as filler,
    ):
        name, label = f"delete-{backend}", LABELS[backend]
        yield compared(
            name,
            f"{label}: delete a session",
            [
                ours(
                    lambda: pair.ours.delete_session("gone"),
                    backend,
                    before=lambda: fill(pair.ours, "gone"),
                ),
                raw(
                    lambda: pair.raw.delete_session("gone"),
                    backend,
                    before=lambda: fill(filler, "gone"),
                ),
            ],
            bench,
            bound=1.15 if backend == "postgres" else None,
        )


CASES: Final = (
    *(Case(f"upsert-{backend}", upsert, backend) for backend in LABELS),
    *(Case(f"bulk-{backend}", bulk, backend) for backend in LABELS),
    *(Case(f"delete-{backend}", delete, backend) for backend in LABELS),
)
