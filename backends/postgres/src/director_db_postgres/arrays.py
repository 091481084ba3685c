"""Arrays as parameters, in binary form and always of one type.

psycopg would choose a type by what a list holds, such as only None, and each choice makes another
prepared statement. In text form, every quote of a payload would need an escape.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, ClassVar, Final

from psycopg import postgres, pq
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.types.numeric import Int8Dumper

if TYPE_CHECKING:
    from collections.abc import Iterable

# Dimensions, whether there are nulls, the type of the elements, their number, the first index.
_HEAD: Final = struct.Struct("!iiIii")
_LENGTH: Final = struct.Struct("!i")
_BIGINT: Final = struct.Struct("!iq")
_NULL: Final = _LENGTH.pack(-1)


class TextArray(list[str | None]):
    """A parameter of type ``text[]``."""


class BigintArray(list[int | None]):
    """A parameter of type ``bigint[]``."""


class _ArrayDumper(Dumper):
    format = pq.Format.BINARY
    element: ClassVar[int]

    def __init_subclass__(cls, *, element: str) -> None:
        cls.element = postgres.types[element].oid
        cls.oid = postgres.types[element].array_oid

    def _join(self, length: int, parts: Iterable[bytes]) -> bytes:
        return _HEAD.pack(1, 1, self.element, length, 1) + b"".join(parts)


class _TextArrayDumper(_ArrayDumper, element="text"):
    def dump(self, obj: TextArray) -> bytes:
        parts: list[bytes] = []
        for text in obj:
            if text is None:
                parts.append(_NULL)
            else:
                data = text.encode()
                parts += (_LENGTH.pack(len(data)), data)
        return self._join(len(obj), parts)


class _BigintArrayDumper(_ArrayDumper, element="int8"):
    def dump(self, obj: BigintArray) -> bytes:
        parts = [_NULL if number is None else _BIGINT.pack(8, number) for number in obj]
        return self._join(len(obj), parts)


def _adapters() -> AdaptersMap:
    adapters = AdaptersMap(postgres.adapters)
    # psycopg would choose among four types by the size of each int.
    adapters.register_dumper(int, Int8Dumper)
    adapters.register_dumper(TextArray, _TextArrayDumper)
    adapters.register_dumper(BigintArray, _BigintArrayDumper)
    return adapters


ADAPTERS: Final[Any] = _adapters()
"""How our connections turn parameters into what they send."""
