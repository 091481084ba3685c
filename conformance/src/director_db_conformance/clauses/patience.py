"""How long a clause waits for what may never come: for what hangs, and not for what is slow."""

from __future__ import annotations

import os
import time
from typing import Final

PATIENCE: Final = 60.0
"""How long anything may take that takes well under a second, in seconds of an idle machine."""


def crowd() -> float:
    """Return how many want each processor, or the disk, by the load of the last minute; 1 if idle.

    Whatever is under way takes about so many times as long as on an idle machine.
    """
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Not on every system.
        return 1.0
    return max(1.0, load / (os.cpu_count() or 1))


class Patience:
    """A limit of time, which runs the slower the busier the machine is."""

    def __init__(self, seconds: float) -> None:
        """Let it run from now on.

        Args:
            seconds: the limit, on an idle machine.
        """
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Let it run from now on again, since something has advanced."""
        self._left = self._seconds
        self._seen = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether it has run out; to be asked again and again."""
        now = time.monotonic()
        self._left -= (now - self._seen) / crowd()
        self._seen = now
        return self._left < 0
