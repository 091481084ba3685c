"""The longest time that a call waits: for an answer of the server, and for its session's turn."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, TypeVar

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from director_db.logs import LongWait

T = TypeVar("T")

NO_LIMIT: Final = float("inf")

LOCK_WAIT: Final = 1.0
"""The longest that a statement waits for a lock on the server, in seconds; then we ask again.

Meanwhile others can use its connection. It is shorter than a server's ``deadlock_timeout`` only
where that was raised.
"""

# How long a server that heard of the cancelling may take to say so, in seconds.
_CANCELLED_WAIT: Final = 0.5

_LOOK_AGAIN: Final = 0.5


class NoAnswerError(psycopg.OperationalError):
    """The server did not answer in time: it is frozen, or what lies between swallows all."""


def too_late() -> NoAnswerError:
    """Return the error of an answer that came when the server had been told to cancel."""
    return NoAnswerError("the answer came too late to be relied on")


def watched(
    waiting: Generator[int, int, T], patience: float, end: float, cancel: Callable[[], None]
) -> Generator[int, int, T]:
    """Pass a generator of psycopg's on, until nothing has moved for too long.

    psycopg's own loop hands control back several times a second. Its `timeout`, which only newer
    versions have, counts from the start, and would cut a large payload on a slow line.

    Args:
        waiting: what `psycopg.Connection.wait` takes.
        patience: how long nothing may move once something has, in seconds.
        end: when to give up if nothing moves at all, on the monotonic clock.
        cancel: called once when the time is up; the server then has a moment to answer that it
            gave up too, from which the caller knows that nothing was applied.

    Raises:
        NoAnswerError: in place of waiting on.
    """
    is_cancelled = False
    try:
        state = next(waiting)
        while True:
            ready = yield state
            if ready:
                end = max(end, time.monotonic() + patience)
            elif time.monotonic() > end:
                if is_cancelled:
                    message = "no answer came in time"
                    raise NoAnswerError(message)
                is_cancelled = True
                cancel()
                end, patience = time.monotonic() + _CANCELLED_WAIT, _CANCELLED_WAIT
            state = waiting.send(ready)
    except StopIteration as stop:
        result: T = stop.value
        return result


class _Line(dict["weakref.ref[Turn]", None]):
    """The turns of one name, in the order in which they came."""

    __slots__ = ()

    def leave(self, place: weakref.ref[Turn]) -> None:
        """Take a turn out, if it is still in."""
        self.pop(place, None)


class Turn:
    """One call's place in the line of a name, a session's for one; `leave` it in any case.

    Attributes:
        line: the turns of that name.
        place: its own there.
        wake: what it sleeps on; None until it has to.
    """

    __slots__ = ("__weakref__", "_session_id", "_turns", "line", "place", "wake")

    def __init__(self, turns: Turns, session_id: str) -> None:
        """Stand at the end of the line."""
        self._turns = turns
        self._session_id = session_id
        self.line = turns.lines.setdefault(session_id, _Line())
        self.place = weakref.ref(self, self.line.leave)
        self.wake: threading.Lock | None = None
        self.line[self.place] = None

    def wait(self, deadline: float) -> bool:
        """Wait until it is this call's turn; False if that did not come before the deadline."""
        long_wait: LongWait | None = None
        while len(self.line) > self._turns.at_once and not self._is_next():
            if self.wake is None:
                self.wake = threading.Lock()
                self.wake.acquire()
                continue  # Whoever left before could not wake us.
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if long_wait is None:
                long_wait = self._turns.long_wait()
            self.wake.acquire(timeout=min(left, _LOOK_AGAIN))
            long_wait.look()
        self.wake = None  # Nobody need wake it any more.
        return True

    def leave(self) -> None:
        """Let the next one go on."""
        line = self.line
        line.leave(self.place)
        if not line:
            if self._turns.lines.get(self._session_id) is line:  # And not one that began since.
                self._turns.lines.pop(self._session_id, None)
            return
        for place in list(line)[: self._turns.at_once]:
            turn = place()
            wake = None if turn is None else turn.wake
            if wake is not None:
                with contextlib.suppress(RuntimeError):
                    wake.release()

    def _is_next(self) -> bool:
        return self.place in list(self.line)[: self._turns.at_once]


class Turns:
    """Lets only some calls of this process go on at once, of each name; the others wait here.

    Those of one session would wait for its row's lock on the server, each with a connection that
    calls for other sessions need.

    It is no lock and may err by one: nothing depends on it but who waits where. So it needs none
    itself; and a call that an exception of a signal's handler struck at any line leaves it with its
    frame at the latest, as nothing else keeps its `Turn` alive.
    """

    def __init__(self, at_once: int, long_wait: Callable[[], LongWait]) -> None:
        """Take how many may go on at once, and what tells of those who wait for long."""
        self.at_once = at_once
        self.long_wait = long_wait
        self.lines: dict[str, _Line] = {}

    def has_place(self, session_id: str) -> bool:
        """Whether a call that comes now need not wait."""
        return len(self.lines.get(session_id, ())) < self.at_once
