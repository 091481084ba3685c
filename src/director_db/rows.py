"""What backends exchange with `BaseDB`: named tuples, checked, with payloads encoded as text.

Times are int seconds since the epoch, 64-bit. Ids and other texts hold neither U+0000 nor lone
surrogates, nor do the texts of payloads.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias

from director_db.payload import payload_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return self.value


UNSET: Final = Unset.UNSET
"""The default of an argument for which None has a meaning of its own."""


class _SessionColumns(NamedTuple):
    session_id: str
    video_id: str | None
    collection_id: str | None
    created_at: int
    updated_at: int
    metadata: str
    user_id: str | None = None


class SessionRow(_SessionColumns):
    """A row of sessions; `metadata` is a payload's text."""

    __slots__ = ()

    # Not that of NamedTuple, which takes no fewer values than there are fields: what a backend has
    # stored for an earlier version of the contract has fewer columns.
    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]
        return cls(*iterable)


class SessionChanges(NamedTuple):
    """New values for some columns of a session; what is `UNSET` stays."""

    video_id: str | Unset | None
    collection_id: str | Unset | None
    metadata: str | Unset
    updated_at: int
    user_id: str | Unset | None = UNSET


Decide: TypeAlias = "Callable[[SessionRow], SessionChanges | None]"
"""Says what to change in a session as it is stored, None for nothing; quick, and no more."""


class SessionQuery(NamedTuple):
    """A page of sessions (SES-4).

    `before` is ``(updated_at, created_at, session_id)`` of the session that the page follows.
    """

    limit: int | None
    before: tuple[int, int, str] | None
    video_id: str | None
    collection_id: str | None
    user_id: str | None = None


class SessionCopy(NamedTuple):
    """A copy of a session to make (SES-9).

    Attributes:
        session_id: the session.
        to: the id of its copy.
        until: the last message to copy; None copies all of them, and the context.
        created_at: both times of the copy.
    """

    session_id: str
    to: str
    until: str | None
    created_at: int


class CopyRefusal(Enum):
    """Why a session was not copied."""

    NO_SESSION = "no session"
    NO_MESSAGE = "no such message in the session"
    TAKEN = "the id of the copy is taken"


class MessageRow(NamedTuple):
    """A message to store; `agents`, `actions`, `content` and `metadata` are payloads' texts.

    On an update, `created_at` replaces the stored one only if `created_at_given` (MSG-2). That is
    no column, and stands last.
    """

    conv_id: str | None
    msg_id: str
    msg_type: str
    agents: str
    actions: str
    content: str
    status: str | None
    created_at: int
    updated_at: int
    metadata: str
    created_at_given: bool

    @property
    def columns(self) -> tuple[str | int | None, ...]:
        """The values that are stored: all fields but `created_at_given`."""
        return self[:-1]

    def over(self, before: MessageRow) -> MessageRow:
        """Return what both are as one, where it follows the other one of its id (MSG-2, MSG-7)."""
        if self.created_at_given:
            return self
        return self._replace(created_at=before.created_at, created_at_given=before.created_at_given)


def count_by_session(
    messages: Sequence[tuple[str, MessageRow]],
) -> tuple[dict[str, int], dict[str, int], list[int]]:
    """Count messages of many sessions, which are to be stored at once.

    Returns:
        For each session how many it gets, and their latest `updated_at`; for each message how many
        of its session come after it.
    """
    counts: dict[str, int] = {}
    latest: dict[str, int] = {}
    for session_id, row in messages:
        counts[session_id] = counts.get(session_id, 0) + 1
        latest[session_id] = max(row.updated_at, latest.get(session_id, row.updated_at))
    left, later = counts.copy(), []
    for session_id, _ in messages:
        left[session_id] -= 1
        later.append(left[session_id])
    return counts, latest, later


class GuardedMessage(NamedTuple):
    """A message that is stored only if its guards allow it (MSG-11).

    Attributes:
        row: the message.
        revision: it replaces only a message whose revision is lower, or which has none; None
            replaces any and leaves the stored revision.
        if_absent: whether it replaces none at all.
    """

    row: MessageRow
    revision: int | None
    if_absent: bool


class _StoredColumns(NamedTuple):
    session_id: str
    conv_id: str | None
    msg_id: str
    msg_type: str
    agents: str
    actions: str
    content: str
    status: str | None
    created_at: int
    updated_at: int
    metadata: str
    revision: int | None = None


class StoredMessage(_StoredColumns):
    """A message as it is stored, its columns in the order of the record's keys."""

    __slots__ = ()

    # As that of `SessionRow`.
    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]
        return cls(*iterable)


MessageColumns: TypeAlias = tuple[
    str, str | None, str, str, str, str, str, str | None, int, int, str, int | None
]
"""A `StoredMessage`, or a plain tuple as drivers give it: a page need not be made into others."""


class MessageQuery(NamedTuple):
    """A page of the messages of a session, oldest first (MSG-6).

    With `after`: the first `limit` after that message. With `before`, or with neither: the last
    `limit` before it, or at all. Never both. With `conv_id` or `msg_type`, only messages with
    exactly that value count; the cursor may be any message of the session. New in contract 1.1.
    """

    session_id: str
    limit: int | None
    before: str | None
    after: str | None
    conv_id: str | None = None
    msg_type: str | None = None


class ContextRow(NamedTuple):
    """A context to store; `context` and `metadata` are payloads' texts, `metadata` may stay.

    `version` is a token drawn for this save; it is stored, and `StoredContext` gives it back.
    `created_at_given` is as in `MessageRow`.
    """

    session_id: str
    context: str
    version: int
    created_at: int
    updated_at: int
    metadata: str
    created_at_given: bool


class StoredContext(NamedTuple):
    """A context as it is stored.

    A backend that keeps it in parts gives the parts: `context` is then everything beside the list,
    `list_key` and `items` are as in `ContextChange`, and the texts of all items are in order.
    """

    session_id: str
    context: str
    version: int
    created_at: int
    updated_at: int
    metadata: str
    list_key: str | None = None
    items: tuple[str, ...] = ()


class ContextChange(NamedTuple):
    """A save of what changed in a context, for backends that keep its list item by item.

    Attributes:
        row: what is stored beside the items; its `context` is the text of everything beside the
            list, with an empty list in the list's place.
        if_version: as for `BaseDB._save_context`.
        rest_changed: whether `row.context` has to be stored; if not, it is empty, and the
            stored text stays. False only where `if_version` names a stored version.
        list_key: where the list stands, as JSON text: the key of a dict, or ``null`` if the value
            itself is the list. None for a context without a list: then there are no items.
        list_len: how many items the list has; those that are stored beyond it are deleted.
        indexes: the places of `items` in the list, ascending. All, unless `if_version` is given:
            then the items between them stay as they are in that version.
        items: the texts of items to store.
        total_bytes: the length of the whole as one payload.
    """

    row: ContextRow
    if_version: int | None
    rest_changed: bool
    list_key: str | None
    list_len: int
    indexes: Sequence[int]
    items: Sequence[str]
    total_bytes: int


class ContextAppend(NamedTuple):
    """New items for the end of a context's list, added without reading the list (CTX-4).

    Attributes:
        session_id: the session.
        version: a token, as in `ContextRow`.
        list_key: the key of the list, as in `ContextChange`.
        rest: what to store beside the items where there is no context yet.
        items: the texts of the new items, perhaps none.
        alone_bytes: the length of the whole where there is no context yet.
        added_bytes: by how much the whole grows where the list has items; where it is stored empty,
            a new first item needs no comma, so that it grows by one less.
        updated_at: also the `created_at` of a new context.
    """

    session_id: str
    version: int
    list_key: str
    rest: str
    items: Sequence[str]
    alone_bytes: int
    added_bytes: int
    updated_at: int


class Appended(NamedTuple):
    """What became of an append.

    Attributes:
        outcome: `CONFLICT` if the stored context has no such list in parts, or is too long.
        list_len: the new length of the list.
        replaced: the version that was stored before, `NO_CONTEXT` if none was, None if not known.
    """

    outcome: SaveOutcome
    list_len: int = 0
    replaced: int | None = None


NO_CONTEXT: Final = 0
"""The version to expect where no context is stored yet; real tokens are above it."""


class SaveOutcome(Enum):
    """What became of a context's save."""

    SAVED = "saved"
    NO_SESSION = "no session"
    CONFLICT = "another version is stored"
    IN_DOUBT = "stored or not, and replaced by another save since"


class DeletedComponents(NamedTuple):
    """Which parts of a session were there to delete."""

    conversation: bool
    context: bool
    session: bool


def whole_context(row: ContextRow, if_version: int | None) -> ContextChange:
    """Return the save of a context that is stored as one text, for backends that know parts."""
    return ContextChange(
        row,
        if_version,
        rest_changed=True,
        list_key=None,
        list_len=0,
        indexes=(),
        items=(),
        total_bytes=payload_bytes(row.context),
    )
