"""A context in parts: its one list item by item, and everything beside the list as one text.

A context grows at the end of a list, and is saved whole by its callers at every step. Kept in
parts, a save costs what it changed. Which parts changed is told by digests of the items, so that
neither the stored value nor the items' old texts need be at hand.

Pure functions and plain objects: no I/O, so that any front end can share them. What a process
remembers from one save to the next is in `memory`.
"""

from __future__ import annotations

import marshal
import sys
from array import array
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from director_db.errors import InvalidRecordError, SchemaError
from director_db.payload import (
    MAX_PAYLOAD_BYTES,
    check_payload,
    decode_payload,
    encode_payload,
    encode_plain,
    is_marked,
    member_path,
    payload_bytes,
    too_long,
)
from director_db.rows import NO_CONTEXT, ContextAppend, ContextChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from director_db.records import Context
    from director_db.rows import ContextRow, StoredContext

LIST_ITSELF: Final = "null"
"""The `list_key` of a value that is a list itself. The key of a dict is a JSON string instead."""

# A list of many numbers would take a row for each of them, of many times its size. A message is
# never this short: {"role":"user"} has 15 bytes.
_ALWAYS_IN_PARTS: Final = 64
_SHORTEST_MESSAGE: Final = 16
_NUMBERS: Final = (int, float, type(None))

# How deep an item stands where the value itself is the list, and where a dict holds the list.
_DEPTH_IN_LIST: Final = 2
_DEPTH_IN_DICT: Final = 3

_DIGEST_BYTES: Final = 32
_ZERO: Final = array("I", [0])
_BYTES_PER_ITEM: Final = _DIGEST_BYTES + 4

# Version 2 writes every equal value alike. Later ones also tell which strings are interned, and
# which objects are one and the same.
_MARSHAL_VERSION: Final = 2
# No image that marshal writes begins so.
_TEXT: Final = b"\0"


class EncodedItems(NamedTuple):
    """Items of a list: their texts, SHA-256 digests end to end, and lengths in bytes of UTF-8."""

    texts: list[str]
    digests: bytearray
    sizes: array[int]

    @property
    def total_bytes(self) -> int:
        """The length of all texts together, without commas."""
        return sum(self.sizes)


class RememberedContext:
    """What is known of a stored context: enough to tell what another value changes in it.

    Whoever has taken it from the memory owns it, and may change it.
    """

    __slots__ = ("digests", "list_key", "rest_digest", "sizes", "version")

    def __init__(
        self, version: int, list_key: str, rest: str, digests: bytearray, sizes: array[int]
    ) -> None:
        """Take the token of the version, and its parts; `rest` is everything beside the list."""
        self.version = version
        self.list_key = list_key
        self.rest_digest = _digest_of_text(rest)
        self.digests = digests
        self.sizes = sizes

    @property
    def cost(self) -> int:
        """How much memory it takes, in bytes; the overhead of its objects is estimated."""
        # A key may be megabytes long, and a character of it takes up to four bytes.
        return 512 + sys.getsizeof(self.list_key) + len(self.sizes) * _BYTES_PER_ITEM

    def extend(self, version: int, items: EncodedItems) -> None:
        """Follow an append that made `version` of this one."""
        # In place, as a copy of all digests would make a long list's appends dearer.
        self.digests += items.digests
        self.sizes.extend(items.sizes)
        self.version = version


class ContextDraft:
    """A context on its way to storage: checked, split, and encoded as far as it has to be."""

    def __init__(self, parts: _Parts, digests: bytearray, sizes: array[int]) -> None:
        """Take the parts; what is said of an item that is not stored yet, `encode` replaces."""
        self._parts = parts
        self._digests = digests
        self._sizes = sizes
        self._texts: dict[int, str] = {}

    @property
    def list_key(self) -> str:
        """Where the list stands."""
        return self._parts.list_key

    @property
    def rest(self) -> str:
        """The text of everything beside the list, with an empty list in its place."""
        return self._parts.rest

    @property
    def pays(self) -> bool:
        """Whether items of their own are better than one text, where neither is stored yet."""
        count = len(self._sizes)
        return count <= _ALWAYS_IN_PARTS or sum(self._sizes) >= count * _SHORTEST_MESSAGE

    def encode(self, indexes: Iterable[int]) -> None:
        """Encode some items, and check the length of the whole."""
        for index in indexes:
            item = self._parts.items[index]
            text, digest = _encode_item(item, self._parts.path, index, self._parts.depth)
            start = index * _DIGEST_BYTES
            self._digests[start : start + _DIGEST_BYTES] = digest
            self._sizes[index] = payload_bytes(text)
            self._texts[index] = text
        if self._total_bytes > MAX_PAYLOAD_BYTES:
            raise too_long(self._parts.root)

    def change(self, row: ContextRow, known: RememberedContext) -> ContextChange:
        """Return what differs from a version that is known, to be saved on top of it only."""
        rest_changed = _digest_of_text(self.rest) != known.rest_digest
        change = self._change(row, known.version, sorted(self._texts), rest_changed=rest_changed)
        # Nobody reads it there, and it may be long.
        return change if rest_changed else change._replace(row=row._replace(context=""))

    def whole(self, row: ContextRow, if_version: int | None) -> ContextChange:
        """Return the whole value, to be saved whatever is stored, or on top of `if_version`.

        Raises:
            InvalidRecordError: the caller changed the value meanwhile, and broke a rule.
        """
        everything = range(len(self._parts.items))
        try:
            self.encode(index for index in everything if index not in self._texts)
        except SurrogateError as error:
            raise InvalidRecordError(self._parts.path, "it changed while it was stored") from error
        return self._change(row, if_version, everything, rest_changed=True)

    def remember(self, version: int) -> RememberedContext:
        """Return what to remember once it is stored."""
        return RememberedContext(version, self.list_key, self.rest, self._digests, self._sizes)

    @property
    def _total_bytes(self) -> int:
        return payload_bytes(self.rest) + sum(self._sizes) + max(len(self._sizes) - 1, 0)

    def _change(
        self,
        row: ContextRow,
        if_version: int | None,
        indexes: Sequence[int],
        *,
        rest_changed: bool,
    ) -> ContextChange:
        return ContextChange(
            row._replace(context=self.rest),
            if_version,
            rest_changed,
            self.list_key,
            len(self._sizes),
            indexes,
            [self._texts[index] for index in indexes],
            self._total_bytes,
        )


class _Parts(NamedTuple):
    """A value taken apart; `path` is that of the list, `root` that of the whole.

    `depth` is how deep the items stand.
    """

    root: str
    path: str
    depth: int
    list_key: str
    items: list[Any]
    rest: str


class SurrogateError(Exception):
    """A lone surrogate makes the whole value take the marked form, which has no parts."""


def draft_context(
    value: object, path: str, known: RememberedContext | None, preferred: str | None = None
) -> ContextDraft | None:
    """Check a context and take it apart; None if it is to be stored as one text.

    Only what is not known to be stored is encoded. That is one text: a value without a list, one
    with a lone surrogate, and a long list of numbers or the like.

    Args:
        value: any JSON value.
        path: the root of the path in an error.
        known: what is remembered of the stored context, which is compared with the value.
        preferred: the `list_key` to take where a dict has several lists, unless another one is
            longer by far; that of `known` if given.

    Raises:
        InvalidRecordError: the value breaks a rule (VAL-3, VAL-6). A value that is stored as one
            text may raise it later, from `encode_payload`.
    """
    check_payload(value, path)
    try:
        stored = None if known is None else known.list_key
        parts = _split(value, path, stored, stored or preferred)
        if parts is None:
            return None
        count = len(parts.items)
        if known is None or known.list_key != parts.list_key:
            draft = ContextDraft(parts, bytearray(_DIGEST_BYTES * count), _ZERO * count)
            draft.encode(range(count))
            return draft if draft.pays else None
        digests = _digests(parts.items, parts.path)
        sizes = known.sizes[:count] + _ZERO * (count - len(known.sizes))
        draft = ContextDraft(parts, digests, sizes)
        draft.encode(_differing(known.digests, digests))
    except SurrogateError:
        return None
    return draft


def encode_items(items: list[Any], path: str) -> EncodedItems | None:
    """Encode the items of an append (CTX-4); None where one holds a lone surrogate.

    Raises:
        InvalidRecordError: an item breaks a rule, or all together are too long.
    """
    texts, digests = [], bytearray()
    try:
        for index, item in enumerate(items):
            text, digest = _encode_item(item, path, index, _DEPTH_IN_DICT)
            texts.append(text)
            digests += digest
    except SurrogateError:
        return None
    encoded = EncodedItems(texts, digests, array("I", map(payload_bytes, texts)))
    if encoded.total_bytes > MAX_PAYLOAD_BYTES:
        raise too_long(path)
    return encoded


def context_append(
    session_id: str, key: str, items: EncodedItems, version: int, updated_at: int
) -> ContextAppend | None:
    """Return an append that need not read the context; None if the key holds a lone surrogate.

    Raises:
        InvalidRecordError: a context of these items alone would be too long.
    """
    list_key = encode_payload(key, "key")
    if is_marked(list_key):
        return None
    rest = f"{{{list_key}:[]}}"
    count = len(items.texts)
    alone = payload_bytes(rest) + items.total_bytes + max(count - 1, 0)
    if alone > MAX_PAYLOAD_BYTES:
        raise too_long("context")
    return ContextAppend(
        session_id,
        version,
        list_key,
        rest,
        items.texts,
        alone,
        items.total_bytes + count,
        updated_at,
    )


def remember_append(
    known: RememberedContext | None,
    replaced: int | None,
    append: ContextAppend,
    items: EncodedItems,
) -> RememberedContext | None:
    """Return what is known of a context after an append, None if that is not enough.

    Args:
        known: what was known before; it is used up.
        replaced: the version that was appended to, `NO_CONTEXT` if there was none.
        append: what was stored.
        items: its items.
    """
    if replaced == NO_CONTEXT:
        return RememberedContext(
            append.version, append.list_key, append.rest, items.digests, items.sizes
        )
    if known is None or known.version != replaced or known.list_key != append.list_key:
        return None
    known.extend(append.version, items)
    return known


def context_value(row: StoredContext) -> Any:
    """Return the value that a stored context stands for: equal, and the caller's own.

    One decoding call for all items: calling costs more than decoding a short one.
    """
    if row.list_key is None:
        return decode_payload(row.context)
    items = decode_payload(f"[{','.join(row.items)}]")
    if len(items) != len(row.items):
        message = (
            f"The context of session {row.session_id!r} has {len(row.items):,} stored items that "
            f"stand for {len(items):,} values. Something else wrote them."
        )
        raise SchemaError(message)
    key = decode_payload(row.list_key)
    if key is None:
        return items
    value = decode_payload(row.context)
    value[key] = items  # It takes the place of the empty list there, so the order of keys stays.
    return value


def context_record(row: StoredContext) -> Context:
    """Return the record of a stored context."""
    return {
        "session_id": row.session_id,
        "context": context_value(row),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "metadata": decode_payload(row.metadata),
    }


def appended(
    stored: StoredContext | None, items: list[Any], key: str
) -> tuple[dict[str, Any], int]:
    """Return a context with `items` added under `key`, and the new length of that list (CTX-4).

    Raises:
        InvalidRecordError: the context is not a dict, or what stands under `key` is not a list.
    """
    context = {} if stored is None else context_value(stored)
    if not isinstance(context, dict):
        reason = f"the stored context is of type {type(context).__name__}, not a dict"
        raise InvalidRecordError("context", reason)
    known = context.setdefault(key, [])
    if not isinstance(known, list):
        reason = f"holds what is of type {type(known).__name__}, not a list to append to"
        raise InvalidRecordError(member_path("context", key), reason)
    known.extend(items)
    return context, len(known)


def _split(value: object, path: str, stored: str | None, preferred: str | None) -> _Parts | None:
    """Take a value apart; None if no list of it is kept in parts.

    That is also so where its other parts hold a lone surrogate.

    Subclasses of list and dict are not looked into: they may answer the encoder in their own way.
    The copies are taken at once, as another thread may be changing the caller's objects.
    """
    if type(value) is list or type(value) is tuple:
        items = list(value)
        if stored != LIST_ITSELF and _are_many_numbers(items):
            return None
        return _Parts(path, path, _DEPTH_IN_LIST, LIST_ITSELF, items, "[]")
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
    return _Parts(
        path,
        member_path(path, key),
        _DEPTH_IN_DICT,
        list_key,
        items,
        rest,
    )


def _key_of_list(value: dict[Any, Any], stored: str | None, preferred: str | None) -> str | None:
    """Return the key of the list to keep in parts: the preferred one, or one longer by far."""
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
        # Which of two is longer may change at every step, and a change of lists writes both whole.
        # The margin makes it rare; without any, a list that grows beside a short one that came
        # first would be written whole at every save for ever.
        if kept in found and found[longest] <= 2 * found[kept] + _ALWAYS_IN_PARTS:
            return str(kept)
    return longest


def _are_many_numbers(items: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a sample says that a list is long and of numbers, whose texts need not be tried."""
    step = len(items) // _ALWAYS_IN_PARTS
    return len(items) > _ALWAYS_IN_PARTS and all(
        isinstance(item, _NUMBERS) for item in items[::step]
    )


def _digests(items: list[Any], path: str) -> bytearray:
    """Return the digests that `_encode_item` gives, and encode no more than it needs."""
    try:
        images = (marshal.dumps(item, _MARSHAL_VERSION) for item in items)
        return bytearray(b"".join([sha256(image).digest() for image in images]))
    except ValueError:
        return bytearray(b"".join([_digest(item, path, index) for index, item in enumerate(items)]))


def _digest(item: Any, path: str, index: int) -> bytes:
    try:
        return sha256(marshal.dumps(item, _MARSHAL_VERSION)).digest()
    except ValueError:
        return _digest_of_text(encode_payload(item, f"{path}[{index}]"))


def _encode_item(item: Any, path: str, index: int, depth: int) -> tuple[str, bytes]:
    """Return an item's text and digest.

    Both are made of one image of the item: another thread may change it in between, and then the
    digest of one state would stand for the text of the other for as long as it is remembered. So
    it is the image that is checked, too: the encoder takes any key and any depth.
    """
    here = f"{path}[{index}]"
    try:
        image = marshal.dumps(item, _MARSHAL_VERSION)
        value = marshal.loads(image)  # noqa: S302 - written in the line above
        check_payload(value, here, depth=depth)
        text = encode_plain(value)
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        raise SurrogateError from None
    except (ValueError, TypeError):
        # A subclass of a plain type, which has no image or that of its bytes (a number of numpy's),
        # a very long integer, or what breaks a rule, which this refuses with its path.
        check_payload(item, here, depth=depth)
        text = encode_payload(item, here)
        if is_marked(text):
            raise SurrogateError from None
        return text, _digest_of_text(text)
    return text, sha256(image).digest()


def _digest_of_text(text: str) -> bytes:
    return sha256(_TEXT + text.encode()).digest()


def _differing(old: bytearray, new: bytearray) -> Sequence[int]:
    """Return the indexes of items that are not as they were."""
    common, count = min(len(old), len(new)), len(new) // _DIGEST_BYTES
    # Nearly always the list has grown at its end, and one comparison of bytes tells.
    if old[:common] == new[:common]:
        return range(common // _DIGEST_BYTES, count)
    places = ((index, index * _DIGEST_BYTES) for index in range(count))
    size = _DIGEST_BYTES
    return [index for index, at in places if old[at : at + size] != new[at : at + size]]
