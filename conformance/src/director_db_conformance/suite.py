"""The suite: subclass it, say where a place is, and pytest runs every clause there."""

from __future__ import annotations

import inspect
import os
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

import pytest

from director_db.testing import FAULTS, Place
from director_db_conformance.clause import clause_of, completed
from director_db_conformance.clauses import ALL_CLAUSES
from director_db_conformance.face import ASYNCIO, FACES, SYNC, Face
from director_db_conformance.levels import Clause, Level
from director_db_conformance.transcript import RecordedDB, RecordedPlace, transcript
from director_db_conformance.version import disagreement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director_db_conformance.transcript import NewPlaces

NOT_APPLICABLE: Final = pytest.StashKey[str]()
"""Why a clause says nothing of a place; set on the test that is skipped for it."""

SERVER: Final = pytest.StashKey[str]()
"""The server that a test has its place on, and where that comes from; not set if it has none."""

APART: Final = pytest.StashKey[bool]()
"""Whether what is done to the place of a test reaches no place of another process."""


class ConformanceSuite(*ALL_CLAUSES):  # type: ignore[misc]
    """All clauses of the contract.

    A subclass writes `new_place` and, if it likes, `face`. What overrides a clause or its fixtures
    is refused when the class is made: a suite that leaves something out proves nothing.

    Attributes:
        face: through which face the clauses make their calls: ``sync``, or ``asyncio``, where each
            is a coroutine of `director_db.asyncio.AsyncDB`.
    """

    face: ClassVar[Face] = SYNC

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        problem = disagreement()
        if problem is not None:
            raise TypeError(problem)
        if cls.face not in FACES:
            message = f"{cls.__qualname__}.face is {cls.face!r}, and not {' or '.join(FACES)}."
            raise TypeError(message)
        for name in (*FIXTURES, *CLAUSES):
            if replaced(cls, name):
                found = CLAUSES.get(name)
                what = f"the clause {found.title!r}" if found else f"the suite's {name!r}"
                message = f"{cls.__qualname__} overrides {what}. A suite is run as it is."
                raise TypeError(message)

    def new_place(self, tmp_path_factory: pytest.TempPathFactory) -> Place:
        """Return a new, empty place; called for each test, and for each operation in one.

        Args:
            tmp_path_factory: makes folders for files that the place needs.
        """
        message = f"{type(self).__qualname__} writes new_place(self, tmp_path_factory) -> Place."
        raise NotImplementedError(message)

    @pytest.fixture
    def place(
        self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[RecordedPlace]:
        """A new, empty place."""
        completed.clear()
        with closing(_provided(self, tmp_path_factory)) as place:
            request.node.stash[APART] = place.place.apart
            if place.place.server is not None:
                request.node.stash[SERVER] = place.place.server
            wanted = clause_of(request.function)
            reason = None if wanted is None else not_applicable(wanted, place.place, self.face)
            if reason is not None:
                request.node.stash[NOT_APPLICABLE] = reason
                pytest.skip(reason)
            yield place

    @pytest.fixture
    def more_places(
        self,
        place: RecordedPlace,  # noqa: ARG002 - it says whether the clause applies
        tmp_path_factory: pytest.TempPathFactory,
    ) -> NewPlaces:
        """Makes new, empty places one after another, for what only the first use of one shows."""
        return lambda: closing(_provided(self, tmp_path_factory))

    @pytest.fixture
    def db(self, place: RecordedPlace) -> RecordedDB:
        """A handle on the place."""
        return place.open()


def replaced(cls: type, name: str) -> bool:
    """Say whether a subclass has something else in the place of one of the suite's own."""
    own = inspect.getattr_static(cls, name)
    return own is not inspect.getattr_static(ConformanceSuite, name)


def _provided(suite: ConformanceSuite, tmp_path_factory: pytest.TempPathFactory) -> RecordedPlace:
    transcript.clear()
    place = _checked(type(suite), suite.new_place(tmp_path_factory))
    return RecordedPlace(place, partial(tmp_path_factory.mktemp, "shared"), suite.face)


_first_places: Final[dict[type, Place]] = {}


def _checked(cls: type, place: object) -> Place:
    """Refuse what would make the verdict one on something else."""
    what = f"{cls.__qualname__}.new_place"
    if not isinstance(place, Place):
        message = f"{what} returned {place!r}, which is no Place."
        raise TypeError(message)
    first = _first_places.setdefault(cls, place)
    for name in ("db_type", "shared", "durable"):
        now, then = getattr(place, name), getattr(first, name)
        if now != then:
            message = f"{what} returned a place with {name}={now!r}; the first had {then!r}."
            raise ValueError(message)
    if place is not first and place.shared and place.env == first.env:
        # The same server may be offered again, emptied; but what is left there is not ours.
        with place.open() as db:
            left = len(db.get_sessions())
        if left:
            message = (
                f"{what} returned a place that holds {left} sessions. Each test needs a new one."
            )
            raise ValueError(message)
    return place


def not_applicable(wanted: Clause, place: Place, face: Face = SYNC) -> str | None:
    """Say why a clause says nothing of a place or a face; None if it has to pass there."""
    if face == ASYNCIO and wanted.sync_only:
        return f"for coroutines: {wanted.sync_only}"
    if not place.shared and wanted.level is not Level.CORE:
        return f"the place is not shared: {place.reason}"
    if not place.durable and wanted.level is Level.DURABLE:
        return f"the place is not durable: {place.reason}"
    # Windows has neither forks nor a list of a process's descriptors, which `connections` reads.
    if wanted.needs in {"fork", "connections"} and not hasattr(os, "fork"):
        return "this system has no fork"
    if wanted.needs == "fork":
        return None
    if wanted.needs is not None and wanted.needs in FAULTS:
        can = place.fault(wanted.needs) is not None
        return None if can else f"the place cannot bring about the fault {wanted.needs!r}"
    if wanted.needs is not None and getattr(place, wanted.needs) is None:
        return f"the place offers no {wanted.needs}{'' if wanted.needs == 'url' else '()'}"
    return None


def _clauses() -> dict[str, Clause]:
    # In the order in which they run: a fault in what everything else needs is found first.
    found = [
        marked
        for family in ALL_CLAUSES
        for marked in map(clause_of, vars(family).values())
        if marked is not None
    ]
    order = list(Level)
    return {marked.name: marked for marked in sorted(found, key=lambda m: order.index(m.level))}


FIXTURES: Final = ("place", "more_places", "db")
"""What else of the suite is not to be replaced."""

CLAUSES: Final[dict[str, Clause]] = _clauses()
"""Every clause, by the name of its method; in the order in which they run."""
