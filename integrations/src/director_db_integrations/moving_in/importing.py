"""Storing what was read, counting it, and naming what is refused."""

from __future__ import annotations

import json
import pickle
import re
from contextlib import contextmanager, suppress
from functools import partial
from itertools import groupby
from operator import itemgetter
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, Final

from director_db import ConfigurationError, InvalidRecordError
from director_db.checks import message_rows, session_row
from director_db.records import Imported
from director_db_integrations.moving_in.old_tables import old_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from director_db import BaseDB, Message
    from director_db_integrations.moving_in.old_tables import OldTables

_MESSAGES: Final = 500  # The most that are stored at once,
_CHARACTERS: Final = 8 * 1024 * 1024  # and about how many of them.

_INDEX: Final = re.compile(r"messages\[(\d+)\]\.?")

_TOO_LATE: Final = (
    "messages that come after it are there already, and it would stand behind them; to have it in "
    "its place, delete the session in director-db and import again"
)


_Waiting = tuple[str, dict[str, Any]]  # Where a message is in the old tables, and itself.


class Importing:
    """The database that messages come into; without one they are only checked and counted.

    Each message is stored only where none of its id is (MSG-11), so that what is there stays, and
    several may import the same at once. The messages of a session follow one another.
    """

    def __init__(self, db: BaseDB | None, refuse: Callable[[str], None]) -> None:
        """Begin to count; `refuse` is called with a line for each row that is refused."""
        self._db = db
        self._refuse = refuse
        self._sessions = self._read = self._stored = self._there = self._refused = 0
        self._session = ""
        self._is_new = True
        self._fault: InvalidRecordError | None = None
        self._waiting: list[_Waiting] = []
        self._characters = 0
        # Messages of a session that was there, none of which is: the next that is tells whether
        # they come too late. There may be more than the memory holds.
        self._held: SpooledTemporaryFile[bytes] | None = None

    def begin(self, session_id: Any, place: str, **fields: Any) -> None:
        """Begin a session; it is created if it is not there.

        Args:
            session_id: its id, and one that is none is refused with all its messages.
            place: where it is in the old tables.
            fields: what `create_session` takes.
        """
        self.flush()
        self._sessions += 1
        self._is_new = self._enter(session_id, place, **fields)

    def enter(self, session_id: Any, place: str, **fields: Any) -> None:
        """Begin a session that is none of the framework, not counted, and without an order."""
        self.flush()
        self._enter(session_id, place, **fields)
        self._is_new = True

    def _enter(self, session_id: Any, place: str, **fields: Any) -> bool:
        self._session, self._fault = session_id, None
        names = ("video_id", "collection_id", "created_at", "updated_at", "metadata", "user_id")
        try:
            if self._db is not None:
                return self._db.create_session(session_id, **fields)
            session_row(session_id, *[fields.get(name) for name in names])
        except InvalidRecordError as error:
            self.give_up(place, error.path, error.reason)
        return True

    def skip(self, place: str, reason: str) -> None:
        """Refuse a session that nothing is read of."""
        self.flush()
        self._sessions += 1
        self._note(place, reason)

    def give_up(self, place: str, path: str, reason: str) -> None:
        """Refuse the session that has begun, and whatever comes of it."""
        self._fault = InvalidRecordError(path, reason)
        self._note(place, self._fault)

    @property
    def refused_session(self) -> bool:
        """Whether the session that has begun is refused."""
        return self._fault is not None

    def add(self, place: str, make: Callable[[], dict[str, Any]], text: object = None) -> None:
        """Store a message in the session that has begun, unless it is there.

        Args:
            place: where it is in the old tables.
            make: makes the message, or raises InvalidRecordError.
            text: what it is made of, which says about how long it is.
        """
        self._read += 1
        try:
            if self._fault is not None:
                raise self._fault
            message = make()
        except InvalidRecordError as error:
            self._note(place, error)
            return
        self._waiting.append((place, message | {"if_absent": True}))
        self._characters += len(text) if isinstance(text, str | bytes) else 0
        if len(self._waiting) >= _MESSAGES or self._characters >= _CHARACTERS:
            self._store(self._take())

    def count(self, place: str, fault: InvalidRecordError | None) -> None:
        """Count a message that is there already, or is refused for that reason."""
        self._read += 1
        if fault is None:
            self._there += 1
        else:
            self._note(place, fault)

    def flush(self) -> None:
        """Store what waits of the session that has begun: there is no more of it."""
        self._store(self._take())
        for waiting in self._take_held():
            self._put(waiting)

    def _take(self) -> list[_Waiting]:
        waiting, self._waiting, self._characters = self._waiting, [], 0
        return waiting

    def _store(self, waiting: list[_Waiting]) -> None:
        """Store messages, but hold back what may stand before messages that are there already."""
        if self._is_new or not waiting:
            self._put(waiting)
            return
        waiting = [(place, row) for place, row in waiting if self._may_be_stored(place, row)]
        is_there = self._are_there(waiting)
        last = max((n for n, there in enumerate(is_there, 1) if there), default=0)
        if last:
            for late in self._take_held():
                self._refuse_late(late)
            unknown = [waiting[n] for n in range(last) if not is_there[n]]
            self._there += last - len(unknown)
            if unknown:
                self._refuse_late(unknown)
        behind = waiting[last:]
        if behind:
            self._hold(behind)

    def _hold(self, waiting: list[_Waiting]) -> None:
        try:
            if self._held is None:
                self._held = SpooledTemporaryFile(_CHARACTERS)  # noqa: SIM115 - see _take_held
            pickle.dump(waiting, self._held)
            self._held.flush()
        except OSError as error:
            message = (
                f"What waits of session {self._session!r} cannot be kept in the temporary folder: "
                f"{error.strerror}. Make room there, or set TMPDIR, and run it again; it goes on."
            )
            raise ConfigurationError(message) from error

    def _take_held(self) -> Iterator[list[_Waiting]]:
        held, self._held = self._held, None
        if held is None:
            return
        with held, suppress(EOFError):
            held.seek(0)
            while True:
                yield pickle.load(held)  # noqa: S301 - what we have just written

    def _may_be_stored(self, place: str, row: dict[str, Any]) -> bool:
        try:
            message_rows(self._session, [row])
        except InvalidRecordError as error:
            self._note(place, _without_index(error))
            return False
        return True

    def _are_there(self, waiting: list[_Waiting]) -> list[bool]:
        ids = [row["msg_id"] for _, row in waiting]
        found = {row["msg_id"] for row in self.find(*ids)}
        return [msg_id in found for msg_id in ids]

    def _refuse_late(self, waiting: list[_Waiting]) -> None:
        """Refuse messages that were not there: behind them is one that is."""
        # Looked at anew: somebody who imports the same may have stored them by now.
        for (place, _), there in zip(waiting, self._are_there(waiting), strict=True):
            if there:
                self._there += 1
            else:
                self._note(place, InvalidRecordError("message", _TOO_LATE))

    def _put(self, waiting: list[_Waiting]) -> None:
        """Store messages, all but what breaks a rule."""
        while waiting:
            try:
                stored = self.put([message for _, message in waiting])
            except InvalidRecordError as error:
                index = _INDEX.match(error.path)
                if index is None:
                    raise
                place, _ = waiting.pop(int(index[1]))
                self._note(place, _without_index(error))
            else:
                self._stored += sum(stored)
                self._there += len(stored) - sum(stored)
                return

    def put(self, messages: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Store messages in the session that has begun, and say which; they are not counted."""
        if self._db is not None:
            return self._db.add_or_update_msgs_to_conv(self._session, messages)
        message_rows(self._session, messages)
        return [True] * len(messages)

    def find(self, *ids: str) -> list[Message]:
        """Return those messages of the session that has begun that are there."""
        return [] if self._db is None else self._db.get_messages(self._session, ids)

    def done(self) -> Imported:
        """Store what waits, and return the counts."""
        self.flush()
        return Imported(self._sessions, self._read, self._stored, self._there, self._refused)

    def _note(self, place: str, error: InvalidRecordError | str) -> None:
        self._refused += 1
        self._refuse(f"{place}: {error}")


class Source:
    """A framework's own store, as an entry point of the group ``director_db_import`` names it."""

    def __init__(
        self,
        tables: Mapping[str, Sequence[str]],
        move: Callable[[OldTables, Importing], None],
    ) -> None:
        """Name what has to be there, and what reads it.

        Args:
            tables: the columns that each table of the store must have.
            move: reads the tables in their order.
        """
        self.tables = tables
        self._move = move

    def __call__(
        self,
        url: str,
        names: Mapping[str, str],
        db: BaseDB | None,
        refuse: Callable[[str], None],
    ) -> Imported:
        """Import what the tables of a database hold, as `director_db.cli.importing.Source` says.

        Raises:
            ConfigurationError: the tables are not there; nothing is written.
            BackendUnavailableError: one of the databases cannot be used; to import again goes on.
        """
        for name in names:
            if name not in self.tables:
                message = f"There is no table {name} to rename; there are {', '.join(self.tables)}."
                raise ConfigurationError(message)
        with old_tables(url, names) as old:
            for name, columns in self.tables.items():
                old.need(name, *columns)
            if db is not None:
                db.health()  # Before the old tables are held: they may be in the same file.
            importing = Importing(db, refuse)
            self._move(old, importing)
            return importing.done()


def _without_index(error: InvalidRecordError) -> InvalidRecordError:
    """Return the error of a message of a list as one of that message."""
    return InvalidRecordError(_INDEX.sub("", error.path, count=1) or "message", error.reason)


def move_messages(
    to: Importing,
    rows: Iterable[tuple[Any, ...]],
    session: str,
    messages: str,
    metadata: Mapping[str, Any],
    make: Callable[..., dict[str, Any]],
) -> None:
    """Import messages that have a row each.

    Args:
        to: where they go.
        rows: the id of the session, when it was created and updated, the number of the message, its
            text, and whatever else `make` takes; those of a session follow one another. One that
            ends before the number is a session without messages.
        session: the table and the column of the ids of sessions, for the places of what is refused.
        messages: the table of the messages.
        metadata: of the sessions.
        make: makes a message of what a row has from the number on.
    """
    for (session_id, created, updated), found in groupby(rows, itemgetter(0, 1, 2)):
        to.begin(
            session_id,
            f"{session}={session_id!r}",
            created_at=seconds(created),
            updated_at=seconds(updated if updated is not None else created),
            metadata=metadata,
        )
        for _, _, _, *row in found:
            if row:
                place = f"{messages} id={row[0]} of session {session_id!r}"
                to.add(place, partial(make, *row), row[1])


@contextmanager
def reading(framework: str, column: str) -> Iterator[None]:
    """Refuse what a framework cannot read, whichever of these errors it raises for it."""
    try:
        yield
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        reason = " ".join(f"{framework} cannot read it: {error!r}".split())
        raise InvalidRecordError(column, reason) from error


def decoded(text: object, column: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        InvalidRecordError: it is none; NaN is found later.
    """
    if isinstance(text, bytes):
        raise InvalidRecordError(column, "not UTF-8")
    try:
        return json.loads(text)  # type: ignore[arg-type]
    except TypeError:
        reason = f"a text of JSON, not {'NULL' if text is None else type(text).__name__}"
        raise InvalidRecordError(column, reason) from None
    except (ValueError, RecursionError) as error:
        raise InvalidRecordError(column, f"not JSON ({error})") from None


def seconds(microseconds: int | None) -> int | None:
    """Return a time of the old tables as director-db has them (VAL-5)."""
    return None if microseconds is None else microseconds // 1_000_000
