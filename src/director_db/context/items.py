"""The items of a list: digests tell which changed, and those are encoded."""

from __future__ import annotations

import marshal
from array import array
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from director_db.payload import encode_payload, encode_plain, fast_codec, is_marked, payload_bytes
from director_db.payload_rules import MAX_DEPTH, check_payload

if TYPE_CHECKING:
    from collections.abc import Sequence

DIGEST_BYTES: Final = 32

# Version 2 writes every equal value alike. Later ones also tell which strings are interned, and
# which objects are one and the same.
_MARSHAL_VERSION: Final = 2
# What a snapshot begins with that holds an item's text. Nothing that marshal writes begins so.
_TEXT: Final = b"\0"
# Items that are encoded together: enough to call little, few enough to stay in the CPU's cache.
_BLOCK: Final = 64


class SurrogateError(Exception):
    """A lone surrogate makes the whole value take the marked form, which has no parts."""


class ListItems:
    """The items of a list, with their digests; an item that has to be stored is encoded.

    An item's digest and its text come from one snapshot. Another thread may change the item at any
    time, and the digest of one state must not stand for the text of another.
    """

    def __init__(self, items: Sequence[Any], path: str, depth: int) -> None:
        """Take a snapshot of each item.

        Args:
            items: checked items.
            path: where the list stands, for errors.
            depth: how deep the items stand.
        """
        self._items = items
        self._path = path
        self._depth = depth
        try:
            self._snapshots = [marshal.dumps(item, _MARSHAL_VERSION) for item in items]
        except ValueError:
            self._snapshots = [self._snapshot(index) for index in range(len(items))]
        # SHA-256, end to end: one comparison tells whether two lists begin alike.
        self.digests = bytearray(b"".join([sha256(item).digest() for item in self._snapshots]))
        # Of the texts, in bytes of UTF-8; zero before the item is encoded.
        self.sizes = array("I", [0]) * len(items)
        self.texts: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._items)

    @property
    def total_bytes(self) -> int:
        """The length of all texts together and of the commas between them."""
        return sum(self.sizes) + max(len(self) - 1, 0)

    def differing(self, digests: bytearray) -> Sequence[int]:
        """Return the indexes of the items that another list's digests do not have there."""
        ours, size = self.digests, DIGEST_BYTES
        common = min(len(ours), len(digests))
        # Nearly always the list has grown at its end, and one comparison of bytes tells.
        if ours[:common] == digests[:common]:
            return range(common // size, len(self))
        places = range(0, len(ours), size)
        return [at // size for at in places if ours[at : at + size] != digests[at : at + size]]

    def encode(self, indexes: Sequence[int], *, stored: bool = False) -> None:
        """Encode some items into `texts`.

        Args:
            indexes: the places of items that are not encoded yet.
            stored: whether the same items were stored before, so that they need no check.

        Raises:
            InvalidRecordError: an item breaks a rule.
            SurrogateError: an item holds a lone surrogate.
        """
        for start in range(0, len(indexes), _BLOCK):
            block = indexes[start : start + _BLOCK]
            if not self._encode_plain(block, stored=stored):
                for index in block:
                    if not self._encode_plain([index], stored=stored):
                        self._encode_other(index)

    def _encode_plain(self, indexes: Sequence[int], *, stored: bool) -> bool:
        """Encode items of plain types; False, and nothing is done, if one is not of plain types.

        An item may have changed since its snapshot. Where the text does not stand for the snapshot,
        a copy from it is encoded; and checked again, as the encoder takes any key and any depth.
        """
        snapshots = [self._snapshots[index] for index in indexes]
        try:
            items = [self._items[index] for index in indexes]
            texts = _texts_of(items, snapshots, MAX_DEPTH + 1 - self._depth)
            if texts is None:
                copies = list(map(marshal.loads, snapshots))
                if not stored:
                    check_payload(copies, self._path, depth=self._depth - 1)
                texts = [encode_plain(copy).encode() for copy in copies]
        except (ValueError, TypeError):
            return False
        for index, text in zip(indexes, texts, strict=True):
            self.texts[index] = text.decode()
            self.sizes[index] = len(text)
        return True

    def _encode_other(self, index: int) -> None:
        """Encode an item that has no snapshot of plain types, or refuse it with its path."""
        snapshot = self._snapshots[index]
        if not snapshot.startswith(_TEXT):
            # For example a number of numpy's, of which marshal writes the memory.
            snapshot = self._snapshots[index] = self._snapshot_of_text(index)
            start = index * DIGEST_BYTES
            self.digests[start : start + DIGEST_BYTES] = sha256(snapshot).digest()
        text = snapshot.removeprefix(_TEXT).decode()
        if is_marked(text):
            raise SurrogateError
        self.texts[index] = text
        self.sizes[index] = payload_bytes(text)

    def _snapshot(self, index: int) -> bytes:
        try:
            return marshal.dumps(self._items[index], _MARSHAL_VERSION)
        except ValueError:  # for a subclass of a plain type
            return self._snapshot_of_text(index)

    def _snapshot_of_text(self, index: int) -> bytes:
        path = f"{self._path}[{index}]"
        check_payload(self._items[index], path, depth=self._depth)
        return _TEXT + encode_payload(self._items[index], path).encode()


def _texts_of(items: list[Any], snapshots: list[bytes], deepest: int) -> list[bytes] | None:
    """Return the texts of items; None unless they stand for just what is in the snapshots.

    To see that from the texts costs a third of what making copies and checking them costs.
    """
    encode, decode = fast_codec()
    try:
        texts = list(map(encode, items))
        # Whatever nests too deep is longer, and has at least as many brackets.
        for text in texts:
            if len(text) > 2 * deepest and text.count(b"[") + text.count(b"{") > deepest:
                return None
        found = [marshal.dumps(decode(text), _MARSHAL_VERSION) for text in texts]
    except Exception:  # noqa: BLE001 - the copies tell; another thread may have put anything there
        return None
    return texts if found == snapshots else None
