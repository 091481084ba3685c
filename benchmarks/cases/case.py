"""What a case is, and how a comparison becomes a row."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.bench import DURABILITY, open_ours
from benchmarks.peers import installed_peers
from benchmarks.results import Curve, Figure, Goal, Row
from benchmarks.statistics import Spread, paired_ratios, quantile
from benchmarks.timing import Contender, interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.bench import Bench
    from benchmarks.peers import PeerStore
    from benchmarks.timing import Coroutines, Crowd, Passes, Timings
    from director_db import BaseDB

OURS: Final = "ours"
RAW: Final = "raw"


class Case(NamedTuple):
    """Something to measure.

    Attributes:
        name: for ``--only``.
        run: does it for a backend, and yields what came out as soon as it is there.
        backend: ``sqlite``, ``postgres``, or empty where no database is needed.
    """

    name: str
    run: Callable[[Bench, str], Iterator[Row | Curve]]
    backend: str = ""

    @property
    def about(self) -> str:
        """What exactly is compared with what: the docstring."""
        return (self.run.__doc__ or "").strip()


def ours(call: Callable[[], object], backend: str = "", **options: object) -> Contender:
    """Name our own code, which writes if a backend is given."""
    return Contender(OURS, call, durability=DURABILITY.get(backend, ""), **options)  # type: ignore[arg-type]


def raw(call: Callable[[], object], backend: str = "", **options: object) -> Contender:
    """Name the bare driver."""
    return Contender(RAW, call, durability=DURABILITY.get(backend, ""), **options)  # type: ignore[arg-type]


def compared(
    case: str,
    work: str,
    contenders: Sequence[Contender],
    bench: Bench,
    *,
    bound: float | None,
    against: str = RAW,
    facts: dict[str, str] | None = None,
    **how: float,
) -> Row:
    """Run contenders in turns; the first one's ratio to `against` is what the goal is about.

    A bound of None makes a row without a goal; the ratio is in it all the same. `how` goes to
    `interleave`.
    """
    patience = {"seconds": bench.scale.seconds, "turn": bench.scale.turn, **how}
    timings = interleave(contenders, **patience)  # type: ignore[arg-type]
    measured = paired_ratios(timings[contenders[0].name], timings[against])
    return Row(
        case,
        work,
        "s",
        figures(contenders, timings),
        measured,
        None if bound is None else Goal(bound, f"x {against}"),
        facts or {},
    )


def figures(
    contenders: Sequence[Contender | Crowd | Coroutines | Passes], timings: Timings
) -> list[Figure]:
    """Summarise what each contender took."""
    return [
        Figure(each.name, Spread.of(timings[each.name]), each.durability, each.is_peer)
        for each in contenders
    ]


def quantiles_of(crowds: Sequence[Crowd | Coroutines], waits: Timings) -> dict[str, str]:
    """Say how long the calls of each crowd took, as facts of a row."""

    def shown(waited: list[float]) -> str:
        ordered = sorted(waited)
        return " and ".join(f"{1000 * quantile(ordered, part):,.1f} ms" for part in (0.5, 0.99))

    return {f"p50 and p99 of {crowd.name}": shown(waits[crowd.name]) for crowd in crowds}


def counted(case: str, work: str, count: float, goal: Goal, facts: dict[str, str]) -> Row:
    """Make a row of something that was counted, not timed."""
    return Row(case, work, "", [], Spread.exactly(count), goal, facts)


@contextlib.contextmanager
def peers_with(
    bench: Bench,
    backend: str,
    messages: int,
    use: Callable[[PeerStore], Callable[[], object]],
    *,
    keeping_all: bool = True,
) -> Iterator[list[Contender]]:
    """Give the installed peers as contenders, each with a conversation of so many messages.

    Without `keeping_all`, those that store the whole conversation at each write are left out.
    A peer that fails is left out and noted; it may be installed in a version that we do not know.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for peer in installed_peers(backend) if bench.use_peers else ():
            if peer.keeps_all and not keeping_all:
                continue
            place = stack.enter_context(bench.place(backend))
            try:
                store = stack.enter_context(contextlib.closing(peer.open(place)))
                store.fill(messages)
                call = use(store)
                call()
            except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
                note(bench, f"{peer.name} ({backend})", error)
                continue
            found.append(Contender(peer.name, call, durability=peer.durability, is_peer=True))
        yield found


@contextlib.contextmanager
def place_with_sessions(bench: Bench, backend: str, sessions: int) -> Iterator[str]:
    """Give a place with our tables and so many sessions, from ``s0`` on: one for each caller."""
    with bench.place(backend) as place:
        with contextlib.closing(open_ours(backend, place)) as db:
            for number in range(sessions):
                db.create_session(f"s{number}")
        yield place


@contextlib.contextmanager
def db_with_sessions(bench: Bench, backend: str, sessions: int) -> Iterator[BaseDB]:
    """Give an instance of ours on such a place."""
    with (
        place_with_sessions(bench, backend, sessions) as place,
        contextlib.closing(open_ours(backend, place)) as db,
    ):
        yield db


def note(bench: Bench, name: str, error: BaseException) -> None:
    """Remember what could not be measured, once."""
    reason = f"{name} was not measured: {type(error).__name__}: {error}".splitlines()[0][:300]
    if reason not in bench.notes:
        bench.notes.append(reason)


def kibibytes(count: float | None) -> str:
    """Write a number of bytes for people."""
    return "unknown" if count is None else f"{count / 1024:,.1f} KiB"
