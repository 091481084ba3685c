"""A context that grows by one message at each turn of the model."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from benchmarks import large
from benchmarks.bench import DURABILITY, LABELS, SESSION, open_ours
from benchmarks.cases.case import OURS, RAW, Case, compared, counted, kibibytes, note, ours
from benchmarks.counters import bytes_for_each
from benchmarks.payloads import context_message
from benchmarks.peers import installed_peers
from benchmarks.raw.store import CONTEXT_KEY
from benchmarks.results import Curve, Figure, Goal, Row
from benchmarks.statistics import Spread, paired_ratios
from benchmarks.timing import Contender, FailedError, interleave
from director_db.payload import encode_payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench, Pair
    from benchmarks.timing import Timings
    from director_db import BaseDB

_APPEND: Final = "ours: append one message"
_SAVE: Final = "ours: save it whole, grown by one"
_READ: Final = "ours: read it"
_ENCODE: Final = "check and encode it once"
_LIMIT: Final = "encode once + raw append"
_ONE_TEXT: Final = "in one text"

# Each call makes the context longer, so there are few of them, one in a turn.
_MOST_CALLS: Final = 40


def grow(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Let a context grow to 10,000 messages of 1 KB: append one, and save it whole, grown by one.

    *Append* is compared with an append to the shortest one, of 100 messages: it is to cost the
    same. *Save* is compared with its limit: checking and encoding the whole value once
    (``encode_payload``), then the bare driver adding one item to a list that is kept as rows, with
    one commit. The bytes written show whether only the change was stored.

    *Save after another writer's save* finds that what this process remembers is out of date, and
    stores the whole value. It is compared with a backend that keeps every context as one text.

    Peers: LangGraph stores a checkpoint whose state is the whole list.
    """
    sizes = bench.scale.context
    points: dict[str, list[tuple[float, float]]] = {}
    with bench.pair(backend) as pair:
        large.add_context(backend, pair.raw_place, SESSION, sizes[-1])
        at_shortest = _Context(pair.ours, "shortest", sizes[0])
        written = []
        for size in sizes:
            saved = _Context(pair.ours, f"saved-{size}", size)
            appended = _Context(pair.ours, f"appended-{size}", size)
            timings = interleave(
                [
                    Contender(_APPEND, appended.append),
                    Contender(_SAVE, saved.save),
                    Contender(_READ, saved.read),
                    Contender(_ENCODE, saved.encode),
                    Contender(RAW, lambda: pair.raw.append_context(SESSION, context_message(1))),
                ],
                seconds=bench.scale.seconds,
                max_rounds=_MOST_CALLS,
                turn=0,
            )
            for name in (_APPEND, _SAVE, _READ, _ENCODE):
                points.setdefault(name, []).append((size, Spread.of(timings[name]).median))
            written.append(bytes_for_each(saved.save, pair.written))
        yield _save_row(pair, sizes, timings, written)
        yield from (_cold_save_row(bench, pair, size) for size in sizes)
        yield from _bytes_row(pair, sizes, written)
        yield _append_row(bench, pair, sizes, appended, at_shortest)
    for name, along in points.items():
        yield Curve("context", backend, name, along)
    yield from _peers_growing(bench, backend)


class _Context:
    """A context of ours, ``{"reasoning": [...]}``, and the value that an application holds."""

    def __init__(self, db: BaseDB, session_id: str, size: int) -> None:
        self._db = db
        self._session_id = session_id
        self._messages = [context_message(number) for number in range(size)]
        self._value = {CONTEXT_KEY: self._messages}
        self._item = [context_message(1)]
        db.create_session(session_id)
        db.add_or_update_context_msg(session_id, self._value)

    def append(self) -> None:
        self._db.append_context_messages(self._session_id, self._item, key=CONTEXT_KEY)

    def save(self) -> None:
        self._messages.append(self._item[0])
        self._db.add_or_update_context_msg(self._session_id, self._value)

    def read(self) -> Any:
        return self._db.get_context_messages(self._session_id)

    def encode(self) -> str:
        return encode_payload(self._value, "context_messages")


def _save_row(
    pair: Pair, sizes: tuple[int, ...], timings: Timings, written: list[float | None]
) -> Row:
    limit = [sum(both) for both in zip(timings[_ENCODE], timings[RAW], strict=True)]
    raw_bytes = bytes_for_each(_raw_append(pair), pair.written)
    return Row(
        f"context-{pair.backend}",
        f"{LABELS[pair.backend]}: save a context of {sizes[-1]:,} messages, grown by one",
        "s",
        [
            Figure(OURS, Spread.of(timings[_SAVE]), DURABILITY[pair.backend]),
            Figure(_LIMIT, Spread.of(limit), DURABILITY[pair.backend]),
        ],
        paired_ratios(timings[_SAVE], limit),
        Goal(1.25, f"x {_LIMIT}"),
        {"written": kibibytes(written[-1]), "written, raw append": kibibytes(raw_bytes)},
    )


def _cold_save_row(bench: Bench, pair: Pair, size: int) -> Row:
    cls = type(pair.ours)
    in_one_text = type(cls.__name__, (cls,), {"incremental_contexts": False})
    with (
        contextlib.closing(open_ours(pair.backend, pair.ours_place)) as other,
        # In a database of its own: what one has written is not to be moved in the turn of another.
        bench.place(pair.backend) as own_place,
        contextlib.closing(in_one_text(own_place)) as plain,
    ):
        name = f"cold-{size}"
        cold, whole = _Context(pair.ours, name, size), _Context(plain, name, size)

        def write_meanwhile() -> None:
            other.append_context_messages(name, [context_message(2)], key=CONTEXT_KEY)

        def write_both() -> None:
            write_meanwhile()
            cold.save()

        return compared(
            f"context-{pair.backend}",
            f"{LABELS[pair.backend]}: save a context of {size:,} messages after another writer",
            [
                ours(cold.save, pair.backend, before=write_meanwhile),
                Contender(_ONE_TEXT, whole.save, durability=DURABILITY[pair.backend]),
            ],
            bench,
            bound=1.1,
            against=_ONE_TEXT,
            facts={
                "written by both": kibibytes(bytes_for_each(write_both, pair.written)),
                f"written, {_ONE_TEXT}": kibibytes(bytes_for_each(whole.save, pair.written)),
            },
            max_rounds=_MOST_CALLS,
            turn=0,
        )


def _bytes_row(pair: Pair, sizes: tuple[int, ...], written: list[float | None]) -> Iterator[Row]:
    first, last = written[0], written[-1]
    if first and last:
        yield counted(
            f"context-{pair.backend}",
            f"{LABELS[pair.backend]}: bytes written by that save",
            last / first,
            Goal(2, f"x a save at {sizes[0]}"),
            {"written": kibibytes(last), f"written at {sizes[0]}": kibibytes(first)},
        )


def _append_row(
    bench: Bench, pair: Pair, sizes: tuple[int, ...], longest: _Context, shortest: _Context
) -> Row:
    at_shortest = f"at {sizes[0]}"
    raw_append = _raw_append(pair)
    return compared(
        f"context-{pair.backend}",
        f"{LABELS[pair.backend]}: append to a context of {sizes[-1]:,} messages",
        [
            Contender(OURS, longest.append, durability=DURABILITY[pair.backend]),
            Contender(at_shortest, shortest.append, durability=DURABILITY[pair.backend]),
            Contender(RAW, raw_append, durability=DURABILITY[pair.backend]),
        ],
        bench,
        bound=1.5,
        against=at_shortest,
        facts={
            "written": kibibytes(bytes_for_each(longest.append, pair.written)),
            "written, raw": kibibytes(bytes_for_each(raw_append, pair.written)),
        },
        max_rounds=2 * _MOST_CALLS,
        turn=0,
    )


def _raw_append(pair: Pair) -> Callable[[], None]:
    item = context_message(1)
    return lambda: pair.raw.append_context(SESSION, item)


def _peers_growing(bench: Bench, backend: str) -> Iterator[Curve]:
    for peer in installed_peers(backend) if bench.use_peers else ():
        if not peer.keeps_all:
            continue
        along = []
        try:
            for size in bench.scale.context:
                with bench.place(backend) as place:
                    store = peer.open(place)
                    try:
                        store.fill(size)
                        write = Contender(peer.name, store.write)
                        timings = interleave(
                            [write],
                            seconds=bench.scale.seconds / 2,
                            max_rounds=_MOST_CALLS,
                            turn=0,
                        )
                    finally:
                        store.close()
                along.append((float(size), Spread.of(timings[peer.name]).median))
        except FailedError as error:
            note(bench, peer.name, error)
        yield Curve("context", backend, peer.name, along, is_peer=True)


CASES: Final = tuple(Case(f"context-{backend}", grow, backend) for backend in LABELS)
