"""One call of an operation with all its tries: how long it may take, and what is known of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from director_db.errors import BackendUnavailableError
from director_db.logs import WARNING, log
from director_db_postgres.driver_log import LOGGER
from director_db_postgres.waiting import NO_LIMIT

if TYPE_CHECKING:
    from director_db.errors import DirectorDBError
    from director_db_postgres.settings import Settings


class Call:
    """One call of an operation, with all its tries.

    Attributes:
        session_id: whose row it locks; None for a call that locks none.
        once: whether it may not be applied twice.
        in_doubt: whether a try that failed may have been applied.
        is_held_up: whether a try waited in vain for a lock.
        is_late: whether the server was told to cancel it, as the time was up.
        holder: who holds the lock of the session's row, for people.
        patience: the longest that it waits for an answer, in seconds.
        end: until when it waits for anything at all, on the monotonic clock.
        deadline: until when it waits for a connection and is tried again.
    """

    __slots__ = (
        "_settings",
        "deadline",
        "end",
        "holder",
        "in_doubt",
        "is_held_up",
        "is_late",
        "once",
        "patience",
        "session_id",
    )

    def __init__(
        self,
        settings: Settings,
        session_id: str | None = None,
        *,
        once: bool = False,
        patience: float = NO_LIMIT,
    ) -> None:
        """Start the clock."""
        now = time.monotonic()
        self._settings = settings
        self.session_id = session_id
        self.once = once
        self.in_doubt = False
        self.is_late = False
        self.is_held_up = False
        self.holder = "another transaction"
        self.patience = min(patience, settings.operation_timeout)
        self.end = now + self.patience
        self.deadline = min(self.end, now + settings.retry_deadline)

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.session_id is not None

    # --- What it is told when its time is up ----------------------------------------------------

    def busy(self) -> DirectorDBError:
        """Return the error of a call that got no connection."""
        waited, setting = min(
            (self._settings.retry_deadline, "POSTGRES_RETRY_DEADLINE"),
            (self.patience, "POSTGRES_OPERATION_TIMEOUT"),
        )
        return self._given_up(
            f"The connections to {self._settings.place} ({self._settings.pool_size}) stayed busy "
            f"for {waited:g} s. Try again, or raise POSTGRES_POOL_SIZE, or {setting}."
        )

    def no_answer(self) -> DirectorDBError:
        """Return the error of a call that the server did not answer."""
        return self._given_up(
            f"{self._settings.place} did not answer for {self.patience:g} s. The server, or what "
            "lies between, may be frozen or very busy. Try again, or raise "
            "POSTGRES_OPERATION_TIMEOUT."
        )

    def interrupted(self) -> DirectorDBError:
        """Return the error of a message that others sent, who got no answer to rely on."""
        return self._given_up(
            f"There is no answer of {self._settings.place} to rely on: the thread that sent this "
            "message together with its own was interrupted, or the answer cannot be read. Read, "
            "or try again."
        )

    def locked(self) -> DirectorDBError:
        """Return the error of a call whose session stayed locked."""
        what = "A table" if self.session_id is None else f"The session {self.session_id!r}"
        return self._given_up(
            f"{what} in {self._settings.place} stayed locked for {self.patience:g} s, by "
            f"{self.holder}. Try again, end that transaction, or raise POSTGRES_OPERATION_TIMEOUT."
        )

    def _given_up(self, message: str) -> DirectorDBError:
        log(LOGGER, WARNING, "%s", message)
        return BackendUnavailableError(message, retryable=True, maybe_applied=self.in_doubt)
