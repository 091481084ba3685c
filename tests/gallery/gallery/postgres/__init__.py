"""The mutants of Postgres: what is done wrong with a server, a pool, a pooler or a lock.

A file for each part of the backend. What every backend can do wrong is in `gallery.mutants`.
"""

from __future__ import annotations

import importlib
import pkgutil

from gallery.broken import GALLERY
from gallery.postgres.broken import BrokenPostgresDB, Pooled

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


class HealthyPostgres(BrokenPostgresDB):
    """Breaks nothing: neither the machinery nor the place must kill anybody."""

    @classmethod
    def wants(cls, clause):
        """Say whether a mutant with such a place is tried with a clause."""
        return any(
            mutant.wants(clause)
            for mutant in GALLERY.values()
            if issubclass(mutant, BrokenPostgresDB)
            and (mutant.pooled, mutant.encoding) == (cls.pooled, cls.encoding)
        )


class HealthyPooled(HealthyPostgres, Pooled):
    """The same behind a pooler."""

    level = "concurrent"


class HealthyLatin1(HealthyPostgres):
    """The same in a database that has no form for most characters."""

    encoding = "LATIN1"


HEALTHY = {
    "HealthyPostgres": HealthyPostgres,
    "HealthyPooled": HealthyPooled,
    "HealthyLatin1": HealthyLatin1,
}
"""What has to survive, by name."""
