"""The names of databases, and which of them are installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from director_db.discovery import installed_types, normalized, type_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class _DBTypeMeta(type):
    def __iter__(cls) -> Iterator[DBType]:
        return (DBType.of(name) for name in installed_types())

    def __len__(cls) -> int:
        return len(installed_types())

    def __contains__(cls, item: object) -> bool:
        return isinstance(item, str) and item.lower() in installed_types()


class DBType(str, metaclass=_DBTypeMeta):
    """The name of a database: a `str` that is equal to its value, as ``DBType.SQLITE == "sqlite"``.

    ``DBType("duck")`` is any installed type, whatever the case; iterating over the class and ``in``
    tell of what is installed. ``DBType.POSTGRES`` is there also where its package is not.

    Raises:
        UnknownDBTypeError: no installed backend has that name; a `ValueError`.
    """

    __slots__ = ()

    SQLITE: ClassVar[DBType]
    POSTGRES: ClassVar[DBType]

    def __new__(cls, value: str) -> Self:
        """Return the type of an installed backend."""
        if isinstance(value, cls):
            return value
        name = normalized(value)
        return super().__new__(cls, name if name in installed_types() else type_of(name))

    @classmethod
    def of(cls, name: str) -> Self:
        """Return the type of this name without asking whether it is installed."""
        return super().__new__(cls, name)

    @property
    def value(self) -> str:
        """The name as a plain `str`."""
        return str.__str__(self)

    @property
    def name(self) -> str:
        """The name in capitals, as an Enum has it."""
        return self.upper()

    def __repr__(self) -> str:
        return f"DBType({self.value!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (DBType.of, (self.value,))


DBType.SQLITE = DBType.of("sqlite")
DBType.POSTGRES = DBType.of("postgres")
