"""The mutants, one file for each family of rules."""

from __future__ import annotations

import importlib
import pkgutil

from gallery.broken import GALLERY, BrokenDB

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


class Healthy(BrokenDB):
    """Breaks nothing: the machinery alone must kill nobody."""


class HealthyWhole(BrokenDB):
    """Breaks nothing, and saves contexts whole, as the mutants of contexts do."""

    incremental_contexts = False


HEALTHY = {"Healthy": Healthy, "HealthyWhole": HealthyWhole}
"""What has to survive, by name."""


def mutant_named(name):
    """Return a mutant, or a healthy twin."""
    found = GALLERY.get(name) or HEALTHY.get(name)
    if found is None:
        message = f"There is no mutant {name!r}; run.py --list names them."
        raise LookupError(message)
    return found
