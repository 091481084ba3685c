"""The contract: what every database does for an application.

`BaseDB` holds the meaning once. Each public method checks its arguments, fills defaults, encodes,
calls one storage operation and decodes; they are in `operations/`, by subject. A backend writes the
storage operations of `storage`: they get clean rows and know nothing of JSON, time or defaults.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from director_db import earlier
from director_db.db_type import DBType
from director_db.operations.contexts import ContextOperations
from director_db.operations.history import HistoryOperations
from director_db.operations.messages import MessageOperations
from director_db.operations.sessions import SessionOperations

CONTRACT_VERSION: Final = "1.1"
"""The version of the contract that this release keeps; CONTRACT.md carries its text."""

_STORES: Final = ("_upsert_messages", "_upsert_together")


class BaseDB(SessionOperations, MessageOperations, HistoryOperations, ContextOperations):
    """Stores sessions, their conversations and their context messages.

    Thread safety: one instance serves any number of threads at once (LIF-1). After a fork it
    works in the parent and in the child. ``close()`` ends it; an instance built directly also ends
    with its ``with`` block, one from `load_db` does not, as other threads may be using it (LIF-5).

    Durability: a write that has returned survives crashes and power cuts (LIF-2). A session's row
    that is deleted by other means takes its messages and its context with it (DEL-3).

    Ownership: arguments are neither changed nor kept, and what is returned is the caller's own
    (VAL-7).

    Errors: everything raised is a `DirectorDBError`; a failed call leaves the instance usable, and
    the data as it was, unless the error says `maybe_applied` (LIF-3, LIF-6). Every operation raises
    `ClosedError` after ``close()``, `BackendUnavailableError` if the database cannot be used, and
    `SchemaError` if what is stored in it is not ours or of another release.
    """

    db_type: ClassVar[DBType]

    # ABC would let a subclass replace a public operation, and with it the meaning that all
    # backends share; `final` alone is seen by type checkers only.
    def __init_subclass__(
        cls, *, db_type: str | None = None, contract: str | None = None, **kwargs: Any
    ) -> None:
        """Set the DB type and the contract, and refuse whoever overrides a public operation."""
        super().__init_subclass__(**kwargs)
        if db_type is not None:
            cls.db_type = DBType.of(db_type)
        if contract is not None:
            if contract not in earlier.KNOWN:
                message = (
                    f"{cls.__qualname__} is written for version {contract} of the contract, and "
                    f"this release of director-db knows {', '.join(earlier.KNOWN)}."
                )
                raise TypeError(message)
            cls._contract = contract
        stores = next(each for each in cls.__mro__ if vars(each).keys() & _STORES)
        if _STORES[1] not in vars(stores):
            # What an override of the operation for one message does, it does for all of them.
            cls._upsert_together = BaseDB._upsert_together  # type: ignore[method-assign]
        if cls._contract != CONTRACT_VERSION:
            earlier.adapt(cls)
        for name, public in [item for parent in BaseDB.__mro__ for item in vars(parent).items()]:
            is_final = getattr(getattr(public, "fget", public), "__final__", False)
            # Looked up by hand, as a mixin may override it too, and getattr would bind it.
            found = next(vars(parent)[name] for parent in cls.__mro__ if name in vars(parent))
            if is_final and found is not public:
                message = (
                    f"{cls.__qualname__}.{name} overrides a final operation of BaseDB. A backend "
                    "writes the storage operations, whose names start with one underscore."
                )
                raise TypeError(message)
