"""Changing a session on top of what is stored: its version, and merge patches (SES-8)."""

from __future__ import annotations

from hashlib import blake2s
from typing import TYPE_CHECKING, Any, Final

from director_db.errors import ConflictError, DirectorDBError
from director_db.payload import decode_payload, encode_payload
from director_db.rows import UNSET

if TYPE_CHECKING:
    from director_db.rows import SessionChanges, SessionRow, Unset

_NONES: Final = "01234567"
"""Which of three texts are None, as one character."""

_DIGITS: Final = 32


def session_version(row: SessionRow) -> str:
    """Return the version of a session: a digest of all that `update_session` changes but its time.

    Not a counter, which would be one more column that every backend has to move. Where the texts
    are the same again, so is the version, and to change those is what the caller meant.
    """
    _, video, collection, _, _, metadata, user = row
    nones = _NONES[(video is None) + 2 * (collection is None) + 4 * (user is None)]
    # No text holds U+0000. A list of sessions makes one of each, so this is the fastest way.
    texts = "\0".join((nones, video or "", collection or "", user or "", metadata))
    return blake2s(texts.encode()).hexdigest()[:_DIGITS]


def merge_patch(target: Any, patch: Any) -> Any:
    """Return what a JSON merge patch makes of a value (RFC 7396); the target may be changed.

    Keys stay where they are, and new ones come last. Iterative, as the caller may already be deep
    in recursion.
    """
    if not isinstance(patch, dict):
        return patch
    merged = target if isinstance(target, dict) else {}
    pairs = [(merged, patch)]
    while pairs:
        into, changes = pairs.pop()
        for key, value in changes.items():
            if value is None:
                into.pop(key, None)
            elif isinstance(value, dict):
                if not isinstance(into.get(key), dict):
                    into[key] = {}
                pairs.append((into[key], value))
            else:
                into[key] = value
    return merged


class SessionChange:
    """Decides, from a session as it is stored, what a call changes in it.

    Attributes:
        refusal: why the latest decision was to change nothing.
    """

    def __init__(
        self, changes: SessionChanges, if_version: str | Unset | None, *, merge: bool
    ) -> None:
        """Take checked changes; with `merge`, their metadata is a patch."""
        self._changes = changes
        self._if_version = if_version
        self._merges = merge
        self.refusal: DirectorDBError | None = None

    def __call__(self, row: SessionRow) -> SessionChanges | None:
        """Return what to change in this row, None for nothing."""
        self.refusal = None
        version = session_version(row)
        if self._if_version not in {UNSET, version}:
            self.refusal = ConflictError(row.session_id, "session", version)
            return None
        metadata = self._changes.metadata
        if not self._merges or metadata is UNSET:
            return self._changes
        try:
            merged = merge_patch(decode_payload(row.metadata), decode_payload(metadata))
            return self._changes._replace(metadata=encode_payload(merged, "metadata"))
        except DirectorDBError as error:
            self.refusal = error
            return None
