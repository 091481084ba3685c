"""One caller's part of a transaction that many share; see `director_db.queue`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable


class Outcome:
    """What became of something that a thread has run for another one, or for a coroutine.

    Attributes:
        result: what it returned.
        error: what it raised; None if it returned.
    """

    __slots__ = ("error", "result")

    result: Any
    error: BaseException | None

    def outcome(self) -> Any:
        """Return its result, or raise its error; once."""
        error, self.error = self.error, None
        if error is None:
            return self.result
        try:
            raise error
        finally:
            del error  # A cycle: the error's traceback holds this frame, and that of who ran it.


class Call(Outcome):
    """One caller's operation, and what became of it.

    Attributes:
        operation: what to run; what it is given is the transaction's to say.
        size: about how much it writes, in bytes of payloads.
        result: what it returned.
        error: what it raised, or why it came to nothing; None if it is stored.
        settled: whether `result` or `error` is final.
        abandoned: whether nobody waits for it: it must not begin any more.
        wake: what its caller sleeps on; None until it does.
    """

    __slots__ = ("abandoned", "operation", "settled", "size", "wake")

    def __init__(self, operation: Callable[..., Any], size: int) -> None:
        """Take an operation that has not begun."""
        self.operation = operation
        self.size = size
        self.result = None
        self.error = None
        self.settled = False
        self.abandoned = False
        self.wake: threading.Lock | None = None

    def awaken(self) -> None:
        """Let its caller look what has happened."""
        wake = self.wake
        if wake is not None:
            try:  # noqa: SIM105 - for each call of a batch, and suppress() takes longer
                wake.release()
            except RuntimeError:
                pass  # It is awake.
