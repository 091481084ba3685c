"""The mutants of SQLite, one file for each family of rules."""

from __future__ import annotations

import importlib
import pkgutil

from gallery.broken import BrokenDB

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


class Healthy(BrokenDB):
    """Breaks nothing: the machinery alone must kill nobody."""


class HealthyWhole(BrokenDB):
    """Breaks nothing, and saves contexts whole, as the mutants of contexts do."""

    incremental_contexts = False


HEALTHY = {"Healthy": Healthy, "HealthyWhole": HealthyWhole}
"""What has to survive, by name."""
