"""A conversation that grows: storing one more message, pages, and reads beside much else."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Final

from benchmarks import large
from benchmarks.bench import LABELS, SESSION, open_ours
from benchmarks.cases.case import Case, compared, note, ours, peers_with, raw
from benchmarks.payloads import PAGE, Stream
from benchmarks.results import Curve
from benchmarks.statistics import Spread
from benchmarks.timing import Contender, FailedError, interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench, Pair
    from benchmarks.results import Row
    from director_db import BaseDB

THOUSAND: Final = 1_000
"""Messages of the session that is read whole, if the scale is large enough."""

_READ_SESSION: Final = "read"
_SMALL: Final = "small table"

Points = dict[str, list[tuple[float, float]]]


def read(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Read a whole conversation of 1,000 messages of 1 KB, alone in its table.

    Raw: the same SELECT, its rows iterated over (SQLite) or fetched by ``fetchall`` (Postgres),
    msgspec's decoder on each of the four payloads, one dict literal for each message. Peers: their
    own way to get all messages.
    """
    count = min(THOUSAND, bench.scale.conversation[-1])
    with (
        bench.pair(backend) as pair,
        peers_with(bench, backend, count, lambda store: store.read) as peers,
    ):
        for place in pair.both_places:
            large.add_messages(backend, place, [(SESSION, number) for number in range(count)])
        large.settle(backend, pair.both_places, bench.server)
        yield compared(
            f"read-{backend}",
            f"{LABELS[backend]}: read {count:,} messages",
            [
                ours(lambda: pair.ours.get_conversations(SESSION)),
                raw(lambda: pair.raw.read(SESSION)),
                *peers,
            ],
            bench,
            bound=1.25,
        )


def grow(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Let a conversation grow to 100,000 messages of 1 KB, and measure along the way.

    The pages of 50 are compared with the same call in a table of 100 messages. Among the messages
    lies a session of 1,000, one of them in each hundred: reading it shows whether a big table slows
    a read down. Raw reads the same session in a table that was built in the same way.
    """
    sizes = bench.scale.conversation
    points: Points = {}
    with (
        bench.pair(backend) as pair,
        bench.place(backend) as small_place,
        contextlib.closing(open_ours(backend, small_place)) as small,
    ):
        small.create_session(SESSION)
        large.add_messages(backend, small_place, [(SESSION, n) for n in range(sizes[0])])
        pair.ours.create_session(_READ_SESSION)
        with contextlib.closing(open_ours(backend, pair.raw_place)) as db:
            db.create_session(_READ_SESSION)
        done = 0
        for size in sizes:
            for place in pair.both_places:
                large.add_messages(backend, place, _mixed(done, size, sizes[-1]))
            done = size
            large.settle(backend, (*pair.both_places, small_place), bench.server)
            _measure_at(bench, pair.ours, size, points)
        in_small = _pages(small, sizes[0])
        for where, call in _pages(pair.ours, sizes[-1]).items():
            yield compared(
                f"conversation-{backend}",
                f"{LABELS[backend]}: page of {PAGE}, {where} of {sizes[-1]:,} messages",
                [ours(call), Contender(_SMALL, in_small[where])],
                bench,
                bound=1.5,
                against=_SMALL,
            )
        yield from _read_in_a_big_table(bench, pair, sizes[-1])
    for name, along in points.items():
        yield Curve("conversation", backend, name, along)
    yield from _peers_growing(bench, backend)


def _mixed(start: int, stop: int, total: int) -> list[tuple[str, int]]:
    """Return the messages of the long session, with those of the other one spread among them."""
    step = max(1, total // THOUSAND)
    found = []
    for number in range(start, stop):
        found.append((SESSION, number))
        if number % step == 0:
            found.append((_READ_SESSION, number // step))
    return found


def _measure_at(bench: Bench, db: BaseDB, size: int, points: Points) -> None:
    stream = Stream(f"at-{size}")
    contenders = [
        Contender(
            "ours: store a message",
            lambda: db.add_or_update_msg_to_conv(SESSION, **stream()),
        ),
        Contender(f"ours: last page of {PAGE}", lambda: db.get_conversations(SESSION, limit=PAGE)),
    ]
    timings = interleave(contenders, seconds=bench.scale.seconds / 4, turn=bench.scale.turn)
    for name, values in timings.items():
        points.setdefault(name, []).append((size, Spread.of(values).median))


def _pages(db: BaseDB, size: int) -> dict[str, Callable[[], object]]:
    get = functools.partial(db.get_conversations, SESSION, limit=PAGE)
    return {
        "first": functools.partial(get, after="m0"),
        "middle": functools.partial(get, before=f"m{size // 2}"),
        "last": get,
    }


def _read_in_a_big_table(bench: Bench, pair: Pair, size: int) -> Iterator[Row]:
    count = len(pair.ours.get_conversations(_READ_SESSION))
    yield compared(
        f"conversation-{pair.backend}",
        f"{LABELS[pair.backend]}: read {count:,} messages among {size + count:,}",
        [
            ours(lambda: pair.ours.get_conversations(_READ_SESSION)),
            raw(lambda: pair.raw.read(_READ_SESSION)),
        ],
        bench,
        bound=1.25,
    )


def _peers_growing(bench: Bench, backend: str) -> Iterator[Curve]:
    points: Points = {}
    for size in bench.scale.conversation:
        if size > bench.scale.longest_for_peers:
            break
        with peers_with(bench, backend, size, lambda store: store.write) as peers:
            for peer in peers:
                try:
                    timings = interleave(
                        [peer], seconds=bench.scale.seconds / 5, turn=bench.scale.turn
                    )
                except FailedError as error:
                    note(bench, peer.name, error)
                    continue
                spread = Spread.of(timings[peer.name])
                points.setdefault(peer.name, []).append((size, spread.median))
    for name, along in points.items():
        yield Curve("conversation", backend, name, along, is_peer=True)


CASES: Final = (
    *(Case(f"read-{backend}", read, backend) for backend in LABELS),
    *(Case(f"conversation-{backend}", grow, backend) for backend in LABELS),
)
