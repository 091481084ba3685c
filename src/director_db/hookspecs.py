"""The hooks by which a package offers a backend.

A backend's package names a tiny module in the entry-point group ``director_db``; the entry point's
name is the DB type::

    [project.entry-points.director_db]
    duck = "my_duck.plugin"

The module imports no driver, since it is also loaded only to be asked for its URL schemes:

    >>> from director_db import BackendSpec, hookimpl
    >>> class plugin:  # stands for the module my_duck/plugin.py
    ...     @staticmethod
    ...     @hookimpl
    ...     def director_db_backend():
    ...         return BackendSpec("duck", "my_duck.db:DuckDB", "DuckDB, in one file", ("duck",))
    >>> from director_db.testing import register
    >>> with register(plugin) as spec:
    ...     spec.name
    'duck'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from director_db.storage import Storage

PROJECT: Final = "director_db"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class BackendSpec(NamedTuple):
    """What a package says of its backend without importing it.

    Attributes:
        name: the DB type, the same as the entry point's name.
        target: where the class is, as ``"package.module:Class"``; or, in tests, the class
            itself. It is a subclass of `BaseDB`.
        summary: one line for people.
        url_schemes: the URL schemes that `load_db` takes for it, besides its name.
    """

    name: str
    target: str | type[Storage]
    summary: str
    url_schemes: tuple[str, ...] = ()


@hookspec
def director_db_backend() -> BackendSpec:
    """Return the backend that this package offers: exactly one, named as its entry point."""
    raise NotImplementedError


@hookspec(firstresult=True)
def director_db_provision(directory: Path) -> object:
    """Provide a new, empty place for a test.

    Args:
        directory: an empty folder for files that the place needs; whoever made it removes it.

    Returns:
        A `director_db.testing.Place`, with ``destroy`` if more than the folder has to go. With this
        hook, ``director-db-conformance`` needs no file of tests.
    """
    raise NotImplementedError(directory)
