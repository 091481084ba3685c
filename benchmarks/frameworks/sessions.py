"""Sessions of a framework in one store, and how they are made long without waiting long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, MetaData, insert, literal, select

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Connection, Table
    from sqlalchemy.ext.asyncio import AsyncEngine

    from director_db import BaseDB

    Copy = Callable[[str, Sequence[str]], Awaitable[None]]


class Sessions:
    """What a framework does with its sessions, in one store.

    A subclass for each framework says how it adds and reads; what the store is, only its arguments
    say.
    """

    def __init__(self, new: Callable[[str], Any], copy: Copy) -> None:
        """Take a store.

        Args:
            new: returns the framework's object for the session of a name.
            copy: copies all of a session into new ones.
        """
        self._new = new
        self._copy = copy

    async def fill(self, names: Sequence[str], count: int) -> None:
        """Make new sessions with so many items each."""
        first, *others = names
        session = await self.open(first)
        await self.add_many(session, range(count))
        await self.close(session)
        await self._copy(first, others)

    async def open(self, name: str) -> Any:
        """Return what the framework has of a session before a turn; untimed."""
        return self._new(name)

    async def add(self, session: Any, numbers: Sequence[int]) -> None:
        """Add items that differ by their numbers, durably and as the framework does in a turn."""
        raise NotImplementedError

    async def add_many(self, session: Any, numbers: Sequence[int]) -> None:
        """Do the same in the quickest way; untimed."""
        await self.add(session, numbers)

    async def read(self, session: Any) -> Sequence[Any]:
        """Return all items, as objects of the framework."""
        raise NotImplementedError

    async def close(self, session: Any) -> None:
        """Close what `open` has opened; untimed."""


def copy_in(db: BaseDB) -> Copy:
    """Return what copies sessions of ours."""

    async def copy(name: str, others: Sequence[str]) -> None:
        for other in others:
            db.copy_session(name, other)

    return copy


def copy_rows(engine: AsyncEngine, column: str) -> Copy:
    """Return what copies sessions in the tables of a framework, whichever have that column."""

    def copy_all(connection: Connection, name: str, others: Sequence[str]) -> None:
        tables = MetaData()
        tables.reflect(connection)
        for table in tables.sorted_tables:
            if column in table.c:
                for other in others:
                    connection.execute(_copied(table, column, name, other))

    async def copy(name: str, others: Sequence[str]) -> None:
        async with engine.begin() as connection:
            await connection.run_sync(copy_all, name, others)

    return copy


def _copied(table: Table, column: str, name: str, other: str) -> Any:
    # The numbers of the rows are the table's to give, in their order.
    kept = [each for each in table.c if each.name != "id" or not isinstance(each.type, Integer)]
    values = [literal(other) if each.name == column else each for each in kept]
    rows = select(*values).where(table.c[column] == name).order_by(*table.primary_key)
    return insert(table).from_select([each.name for each in kept], rows)
