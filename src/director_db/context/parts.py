"""A context taken apart: one list of it, and the text of everything beside that list."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from director_db.payload import decode_payload, encode_payload, is_marked
from director_db.payload_rules import member_path

LIST_ITSELF: Final = "null"
"""The `list_key` of a value that is a list itself. The key of a dict is a JSON string instead."""

# A list of many numbers would take a row for each of them, many times its size. A message is never
# this short: {"role":"user"} has 15 bytes.
_ALWAYS_IN_PARTS: Final = 64
_SHORTEST_MESSAGE: Final = 16
_NUMBERS: Final = (int, float, type(None))

DEPTH_IN_DICT: Final = 3
"""How deep the items stand in a list that a dict holds; in a list alone, one less."""


class Parts(NamedTuple):
    """A value taken apart.

    Fields:
        list_key: the JSON text of the list's key, or `LIST_ITSELF`.
        items: the list.
        rest: the text of everything beside the list, with an empty list in its place.
        path: where the list stands, for errors.
        depth: how deep the items stand.
    """

    list_key: str
    items: list[Any]
    rest: str
    path: str
    depth: int


def split(value: object, path: str, stored: str | None, preferred: str | None) -> Parts | None:
    """Take a checked value apart; None if no list of it can be kept in parts.

    That is so where the text beside the list holds a lone surrogate. Subclasses of list and dict
    are not looked into: they may answer the encoder in their own way. The copies are taken at once,
    as another thread may be changing the caller's objects.

    Args:
        value: any JSON value.
        path: its path in an error.
        stored: the `list_key` of the parts that are stored, if known.
        preferred: the `list_key` to take unless another list is much longer.
    """
    if type(value) is list or type(value) is tuple:
        items = list(value)
        if stored != LIST_ITSELF and _are_many_numbers(items):
            return None
        return Parts(LIST_ITSELF, items, "[]", path, DEPTH_IN_DICT - 1)
    if type(value) is not dict:
        return None
    beside = dict(value)
    key = _key_of_list(beside, stored, preferred)
    if key is None:
        return None
    items = list(beside[key])
    beside[key] = []
    list_key, rest = encode_payload(key, path), encode_payload(beside, path)
    if is_marked(list_key) or is_marked(rest):
        return None
    return Parts(list_key, items, rest, member_path(path, key), DEPTH_IN_DICT)


def are_worth_rows(count: int, total_bytes: int) -> bool:
    """Whether so many new items, together so long, are better kept as rows than as one text."""
    return count <= _ALWAYS_IN_PARTS or total_bytes >= count * _SHORTEST_MESSAGE


def _key_of_list(value: dict[Any, Any], stored: str | None, preferred: str | None) -> str | None:
    """Return the key of the list to keep in parts: the preferred one, or one much longer."""
    in_parts = None if stored is None else decode_payload(stored)
    found = {
        key: len(item)
        for key, item in value.items()
        if type(key) is str
        and (type(item) is list or type(item) is tuple)
        and (key == in_parts or not _are_many_numbers(item))
    }
    longest = max(found, key=found.__getitem__, default=None)
    if preferred is not None and longest is not None:
        kept = decode_payload(preferred)
        # A change of the list that is kept as rows writes both lists whole. The margin keeps two of
        # about one length from taking turns at each save. It has a limit, or a list that grows
        # beside a short preferred one would be written whole at every save.
        if kept in found and found[longest] <= 2 * found[kept] + _ALWAYS_IN_PARTS:
            return str(kept)
    return longest


def _are_many_numbers(items: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a sample says that a list is long and of numbers, so that none need be encoded."""
    step = len(items) // _ALWAYS_IN_PARTS
    return len(items) > _ALWAYS_IN_PARTS and all(
        isinstance(item, _NUMBERS) for item in items[::step]
    )
