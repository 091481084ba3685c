"""One row of calls, played on a backend and on the model, and compared call by call."""

from __future__ import annotations

import copy
import itertools
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from director_db import DirectorDBError, InvalidRecordError, SessionNotFoundError
from director_db_conformance.expectation import NonconformityError, expect, same
from director_db_conformance.model import ANY_PATH, Model, Moment
from director_db_conformance.strategies import CURSOR, LOOK_ALIKES, PAGE_THROUGH, SAVE_AGAIN
from director_db_conformance.transcript import shown, shown_error, transcript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director_db_conformance.transcript import RecordedDB

_READS: Final = {
    "get_session": "SES-3",
    "get_sessions": "SES-4",
    "get_conversations": "MSG-6",
    "get_message": "MSG-9",
    "get_context": "CTX-2",
    "get_context_messages": "CTX-2",
}
# The rules that a write has broken if afterwards the session, its messages or its context are not
# as they should be.
_PARTS: Final = ("get_session", "get_conversations", "get_context")
_WRITES: Final = {
    "create_session": ("SES-1", "SES-2", "SES-2"),
    "update_session": ("SES-5", "SES-5", "SES-5"),
    "delete_session": ("DEL-2", "DEL-2", "DEL-2"),
    "add_or_update_msg_to_conv": ("SES-6", "MSG-1", "MSG-1"),
    "add_or_update_msgs_to_conv": ("SES-6", "MSG-7", "MSG-7"),
    "delete_message": ("SES-6", "MSG-9", "MSG-9"),
    "delete_conversation": ("SES-6", "DEL-1", "DEL-1"),
    "add_or_update_context_msg": ("SES-6", "CTX-1", "CTX-1"),
    "append_context_messages": ("SES-6", "CTX-4", "CTX-4"),
    "delete_context": ("SES-6", "DEL-1", "DEL-1"),
}
_AFTER_AN_ERROR: Final = ("LIF-3", "LIF-3", "LIF-3")
_OTHER_SESSIONS: Final = ("MSG-4", "MSG-4", "MSG-4")

_PLAIN: Final = (("s{}a", "s{}b", "s{}c", "s{}d"), ("m{}a", "m{}b", "m{}c", "m{}d"))


class Move(NamedTuple):
    """A call as it was drawn: ids are their numbers among the look-alikes of the game."""

    handle: int
    name: str
    session: Any
    arguments: dict[str, Any]


class Game:
    """Plays one row of calls.

    The place is one for many games. Each deletes what the one before has left, and has ids of its
    own, since what a broken backend did not delete would else come and go.
    """

    def __init__(self, handles: Sequence[RecordedDB], number: int, kind: int | None) -> None:
        """Begin.

        Args:
            handles: the handles on the place; each call names one of them.
            number: of this game; it is in its ids.
            kind: which look-alikes its ids are; None for ids that nobody takes for each other.
        """
        self._handles = handles
        self._lookers = itertools.cycle(handles)
        db = handles[0].instance
        for session in db.get_sessions():
            db.delete_session(session["session_id"])
        transcript.clear()
        sessions, ids = _PLAIN
        if kind is not None:
            sessions = LOOK_ALIKES[kind % len(LOOK_ALIKES)]
            ids = LOOK_ALIKES[kind * 3 // len(LOOK_ALIKES) % len(LOOK_ALIKES)]
        self._sessions = [text.format(f"{number:03}1") for text in sessions]
        self._ids = [text.format(f"{number:03}1") for text in ids]
        self._model = Model()
        self._cursor: dict[str, Any] | None = None
        self._saved: dict[tuple[RecordedDB, Any], Any] = {}

    def play(self, move: Move) -> None:
        """Make a call on both sides; compare what it returned and what it left behind.

        Raises:
            NonconformityError: they differ.
        """
        handle, name, session, arguments = move
        db = self._handles[handle % len(self._handles)]
        args = [_id(session, self._sessions)]
        if name == PAGE_THROUGH:
            self._page_through(db, args[0], **arguments)
            return
        if name == SAVE_AGAIN:
            name = "add_or_update_context_msg"
            arguments = {"context_messages": self._changed(db, args[0], **arguments)}
        kwargs = self._with_ids(arguments)
        if name == "add_or_update_msgs_to_conv":
            kwargs["messages"] = [self._with_ids(message) for message in kwargs["messages"]]
        if kwargs.get("before") is CURSOR:
            kwargs["before"] = self._cursor
        if name == "add_or_update_context_msg":
            self._saved[db, args[0]] = copy.deepcopy(kwargs["context_messages"])
        result = self._compare(db, name, [] if name == "get_sessions" else args, kwargs)
        if name == "get_sessions" and result:
            self._cursor = result[-1]

    def end(self) -> None:
        """See that no session was touched by what was done to others."""
        for session in self._sessions:
            self._expect_parts(session, _OTHER_SESSIONS)

    def _changed(
        self, db: RecordedDB, name: Any, *, own: bool, keep: int, skip: int, items: list[Any]
    ) -> Any:
        """Return a context that was stored, its list longer, shorter, changed or as it was.

        Args:
            db: the handle.
            name: of the session.
            own: what this handle saved last, also if others have changed it since.
            keep: how many items of the list stay.
            skip: how many after them go, if any are left.
            items: what is added.
        """
        context = copy.deepcopy(self._saved.get((db, name))) if own else None
        if context is None:
            context = self._model.get_context_messages(name)
        parts = [*context.values()] if isinstance(context, dict) else [context]
        lists = [part for part in parts if isinstance(part, list)]
        if lists:
            lists[0][keep:] = [*lists[0][keep + skip :], *items]
        return context

    def _page_through(self, db: RecordedDB, name: Any, *, what: str, limit: int) -> None:
        operation, args = (
            ("get_sessions", []) if what == "sessions" else ("get_conversations", [name])
        )
        page = self._compare(db, operation, args, {"limit": limit})
        while isinstance(page, list) and page:
            if what == "sessions":
                cursor = {"before": page[-1]}
            else:
                cursor = {what: page[-1 if what == "after" else 0]["msg_id"]}
            page = self._compare(db, operation, args, {"limit": limit, **cursor})

    def _with_ids(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            key: _id(value, self._ids) if key in _IDS else value for key, value in arguments.items()
        }

    def _compare(self, db: RecordedDB, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        created_again = name == "create_session" and self._model.get_session(args[0]) != {}
        first = int(time.time())
        actual = _outcome(db, name, args, kwargs)
        last = int(time.time())
        self._model.now = first if first == last else Moment(first, last)
        expected = _outcome(self._model, name, args, kwargs)
        _expect_outcome(actual, expected, name)
        if name in _WRITES:
            rules = ("SES-2", "SES-2", "SES-2") if created_again else _WRITES[name]
            failed = isinstance(actual, Exception)
            self._expect_parts(args[0], _AFTER_AN_ERROR if failed else rules)
        return actual

    def _expect_parts(self, session_id: Any, rules: tuple[str, str, str]) -> None:
        # On the handles in turn: each has its own idea of what is stored.
        db = next(self._lookers)
        # Written down only where they show something, so that the transcript stays short.
        actual = [getattr(db.instance, part)(session_id) for part in _PARTS]
        self._settle([actual[0], *actual[1], actual[2]], session_id)
        for part, seen, broken in zip(_PARTS, actual, rules, strict=True):
            expected = getattr(self._model, part)(session_id)
            if not same(seen, expected):
                getattr(db, part)(session_id)
                _expect(seen, expected, _finer(broken, seen, expected))

    def _settle(self, seen: list[dict[str, Any]], session_id: Any) -> None:
        """Take over the times that the model knows only roughly."""
        for known, found in zip(self._model.records(session_id), seen, strict=False):
            for key in ("created_at", "updated_at"):
                moment, exact = known[key], found.get(key)
                if (
                    isinstance(moment, Moment)
                    and type(exact) is int
                    and moment.first <= exact <= moment.last
                ):
                    known[key] = exact


_IDS: Final = ("msg_id", "conv_id", "video_id", "collection_id", "before", "after")


def _id(value: Any, names: list[str]) -> Any:
    return names[value] if type(value) is int else value


def _outcome(side: Any, name: str, args: list[Any], kwargs: dict[str, Any]) -> object:
    try:
        return getattr(side, name)(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - both must raise the same
        return error


def _expect_outcome(actual: object, expected: object, name: str) -> None:
    raised = isinstance(actual, Exception)
    did = f"{'raised' if raised else 'returned'} {_shown(actual)}"
    if not isinstance(expected, Exception):
        if raised:
            rule = _rule(name) if isinstance(actual, DirectorDBError) else "LIF-6"
            should = f"returned {_shown(expected)}"
            raise NonconformityError(should, did, rule)
        _expect(actual, expected, _rule(name))
    elif not isinstance(actual, type(expected)):
        rule = _rule_of_error(expected, name)
        should = f"raised {_shown(expected)}"
        raise NonconformityError(should, did, rule)
    elif isinstance(expected, InvalidRecordError) and expected.path != ANY_PATH:
        _expect(actual.path, expected.path, _rule_of_error(expected, name))  # type: ignore[attr-defined]
    elif isinstance(expected, SessionNotFoundError):
        _expect(actual.session_id, expected.session_id, _rule_of_error(expected, name))  # type: ignore[attr-defined]


def _expect(actual: object, expected: object, broken: str) -> None:
    try:
        expect(actual, expected)
    except NonconformityError as error:
        error.rule = broken
        raise


def _shown(outcome: object) -> str:
    return shown_error(outcome) if isinstance(outcome, Exception) else shown(outcome)


def _rule(name: str) -> str:
    """Return the rule of what an operation returns."""
    return _READS.get(name) or _WRITES[name][0 if name == "create_session" else 1]


def _rule_of_error(error: Exception, name: str) -> str:
    if isinstance(error, SessionNotFoundError):
        return {"update_session": "SES-5", "add_or_update_context_msg": "CTX-1",
                "append_context_messages": "CTX-4"}.get(name, "MSG-5")  # fmt: skip
    if not isinstance(error, InvalidRecordError) or name in _READS or error.path == ANY_PATH:
        return _rule(name)
    field = error.path.rpartition("]." if name == "add_or_update_msgs_to_conv" else "\0")[2]
    if field in {"created_at", "updated_at"}:
        return "VAL-5"
    return "VAL-4" if field.endswith("_id") or field in {"msg_type", "status"} else "VAL-3"


def _finer(broken: str, seen: object, expected: object) -> str:
    """Return the rule of the places where only the order of the messages is wrong."""
    if broken != "MSG-1":
        return broken
    ids, wanted = ([message["msg_id"] for message in side] for side in (seen, expected))  # type: ignore[attr-defined]
    return "MSG-3" if ids != wanted and sorted(ids) == sorted(wanted) else broken
