"""A list of sessions that grows."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Final

from benchmarks import large
from benchmarks.bench import LABELS, open_ours
from benchmarks.cases.case import Case, compared, ours
from benchmarks.payloads import PAGE
from benchmarks.results import Curve
from benchmarks.statistics import Spread
from benchmarks.timing import Contender, interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench
    from benchmarks.results import Row
    from director_db import BaseDB

_SMALL: Final = "small table"
_SMALL_SESSIONS: Final = large.VIDEOS * 2 * PAGE
"""Enough for two pages of each video."""

_MIDDLE: Final = ", middle"


def grow(bench: Bench, backend: str) -> Iterator[Row | Curve]:
    """Let the list grow to 1,000,000 sessions, and read pages of 50 by last activity.

    All sessions, those of one video and those of one collection; of each list the first page, and
    the one from a cursor in its middle, with as many sessions before it as after. Each is compared
    with the same page of a table of 1,000 sessions. The picture shows the pages in the middle.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    with (
        bench.place(backend) as place,
        bench.place(backend) as small_place,
        contextlib.closing(open_ours(backend, place)) as db,
        contextlib.closing(open_ours(backend, small_place)) as small,
    ):
        db.health()
        small.health()
        large.add_sessions(backend, small_place, 0, _SMALL_SESSIONS)
        in_small = pages(small, _SMALL_SESSIONS)
        done = 0
        for size in bench.scale.sessions:
            large.add_sessions(backend, place, done, size)
            done = size
            large.settle(backend, (place, small_place), bench.server)
            contenders = [
                Contender(f"ours: page {name}", call)
                for name, call in pages(db, size).items()
                if name.endswith(_MIDDLE)
            ]
            timings = interleave(contenders, seconds=bench.scale.seconds / 4, turn=bench.scale.turn)
            for name, values in timings.items():
                points.setdefault(name, []).append((size, Spread.of(values).median))
        for name, call in pages(db, done).items():
            yield compared(
                f"sessions-{backend}",
                f"{LABELS[backend]}: page of {PAGE} in {done:,} sessions, {name}",
                [ours(call), Contender(_SMALL, in_small[name])],
                bench,
                bound=1.5,
                against=_SMALL,
            )
    for name, along in points.items():
        yield Curve("sessions", backend, name, along)


def pages(db: BaseDB, size: int) -> dict[str, Callable[[], object]]:
    """Return what reads pages of a table of so many sessions, by name."""
    found: dict[str, Callable[[], object]] = {}
    for name, get, numbers in (
        ("of all", db.get_sessions, range(size)),
        (
            "of one video",
            functools.partial(db.get_sessions, video_id="v7"),
            range(7, size, large.VIDEOS),
        ),
        (
            "of one collection",
            functools.partial(db.get_sessions, collection_id="c3"),
            range(3, size, large.COLLECTIONS),
        ),
    ):
        middle = db.get_session(large.middle_session(numbers))
        found[f"{name}, first"] = functools.partial(get, limit=PAGE)
        found[f"{name}{_MIDDLE}"] = functools.partial(get, limit=PAGE, before=middle)
    return found


CASES: Final = tuple(Case(f"sessions-{backend}", grow, backend) for backend in LABELS)
