"""What a backend has that can carry the old system's tables over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from director_db.records import Migration


@runtime_checkable
class Migrates(Protocol):
    """A backend of a database that the old system used."""

    def _migrate(self, *, skip_invalid: bool) -> Migration:
        """Carry the old tables over in one transaction; `old_layout` converts and checks the rows.

        Raises:
            SchemaError: a row breaks a rule; nothing was changed. With `skip_invalid` such rows
                stay behind instead.
        """
