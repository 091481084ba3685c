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
    """Breaks nothing: the machinery must kill nobody.

    A few clauses are enough here, as the suite's own run on Postgres passes all of them.
    """

    @classmethod
    def wants(cls, clause):
        """Say whether it is one that mutants are tried with and that looks around a place."""
        return clause.rule in {"LIF-5", "LIF-6", "DEL-3"} and _is_wanted(clause, cls)


class HealthyPooled(Pooled):
    """Breaks nothing, behind a pooler."""

    level = "concurrent"

    @classmethod
    def wants(cls, clause):
        """Say whether a mutant behind a pooler is tried with a clause."""
        return _is_wanted(clause, cls)


class HealthyLatin1(BrokenPostgresDB):
    """Breaks nothing, in a database that has no form for most characters."""

    encoding = "LATIN1"

    @classmethod
    def wants(cls, clause):
        """Say whether a mutant in such a database is tried with a clause."""
        return _is_wanted(clause, cls)


def _is_wanted(clause, twin):
    return any(
        mutant.wants(clause)
        for mutant in GALLERY.values()
        if issubclass(mutant, BrokenPostgresDB)
        and (mutant.pooled, mutant.encoding) == (twin.pooled, twin.encoding)
    )


HEALTHY = {
    "HealthyPostgres": HealthyPostgres,
    "HealthyPooled": HealthyPooled,
    "HealthyLatin1": HealthyLatin1,
}
"""What has to survive, by name."""
