"""Which mutants there are, and which healthy twins have to survive."""

from __future__ import annotations

from gallery.broken import GALLERY
from gallery.mutants import HEALTHY


def whole_gallery():
    """Return all mutants, and all healthy twins, by name."""
    # Here, and not above: a child process of a mutant of SQLite starts without Postgres's driver,
    # and without asyncio.
    import gallery.face  # noqa: F401, PLC0415
    from gallery.postgres import HEALTHY as HEALTHY_POSTGRES  # noqa: PLC0415

    return GALLERY, HEALTHY | HEALTHY_POSTGRES


def mutant_named(name):
    """Return a mutant, or a healthy twin."""
    found = GALLERY.get(name) or HEALTHY.get(name)
    if found is None:
        mutants, healthy = whole_gallery()
        found = mutants.get(name) or healthy.get(name)
    if found is None:
        message = f"There is no mutant {name!r}; run.py --list names them."
        raise LookupError(message)
    return found
