"""Loading the backend that is asked for, and no other."""

from __future__ import annotations

import importlib
import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from director_db import discovery
from director_db.base import BaseDB
from director_db.discovery import hooks_of, normalized, plugin_of, shown, spec_of, type_of
from director_db.errors import PluginError
from director_db.lifecycle import FORK_PATIENCE, call_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    import pluggy

    from director_db.hookspecs import BackendSpec


class Backend(NamedTuple):
    """A backend that is loaded."""

    spec: BackendSpec
    cls: type[BaseDB]
    origin: str
    hooks: pluggy.PluginManager


# One lock for loading and for the shared instances: a plugin may call load_db() at its import, and
# a constructor may load another backend.
_lock = threading.RLock()
_loaded: dict[str, Backend] = {}


def lock() -> threading.RLock:
    """Return the lock of whoever changes what is loaded or shared."""
    return _lock


def load_backend(name: str) -> Backend:
    """Load the backend of a DB type, or of one of its URL schemes, and no other.

    Raises:
        UnknownDBTypeError: none has that name.
        PluginError: its package is broken, or two packages claim the name.
    """
    found = _loaded.get(name)
    if found is not None:
        return found
    name = normalized(name)
    with _lock:
        if name not in _loaded:
            db_type = type_of(name)
            if db_type not in _loaded:
                plugin, origin = plugin_of(db_type)
                _loaded[db_type] = _load(db_type, plugin, origin)
            _loaded[name] = _loaded[db_type]
        return _loaded[name]


def register_plugin(plugin: object, origin: str) -> BackendSpec:
    """Make a plugin known that no distribution offers; `director_db.testing` is its public face."""
    with _lock:
        spec = discovery.register(plugin, origin)
        _forget(lambda name, backend: name != backend.spec.name)  # It may claim a URL scheme, too.
    return spec


def forget_plugin(name: str) -> None:
    """Forget what `register_plugin` made known; `lock` is held."""
    discovery.unregister(name)
    _forget(lambda _name, backend: backend.spec.name == name)


def _forget(is_meant: Callable[[str, Backend], bool]) -> None:
    for name, backend in list(_loaded.items()):
        if is_meant(name, backend):
            del _loaded[name]


def _load(name: str, plugin: object, origin: str) -> Backend:
    hooks = hooks_of(plugin, name, origin)
    spec = spec_of(hooks, origin)
    if spec.name != name:
        message = f"{origin} offers the DB type {name!r}, but its plugin says {spec.name!r}."
        raise PluginError(message)
    return Backend(spec, _class_of(spec, origin), origin, hooks)


def _class_of(spec: BackendSpec, origin: str) -> type[BaseDB]:
    cls: object = spec.target
    if isinstance(cls, str):
        module, _, attribute = cls.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:
            message = f"The backend {spec.target} of {origin} cannot be imported: {shown(error)}"
            raise PluginError(message) from error
    if not (isinstance(cls, type) and issubclass(cls, BaseDB)):
        message = f"The backend {spec.target} of {origin} is no subclass of BaseDB."
        raise PluginError(message)
    missing = sorted(cls.__abstractmethods__)
    if missing:
        message = f"The backend {spec.target} of {origin} lacks {', '.join(missing)}."
        raise PluginError(message)
    db_type = getattr(cls, "db_type", None)
    if db_type != spec.name:
        message = f"The class {spec.target} of {origin} has the db_type {db_type}, not {spec.name}."
        raise PluginError(message)
    return cls


# The threads that hold the lock for a fork.
_forking: list[int] = []


def _before_fork() -> None:
    # Whoever imports a backend holds Python's own lock of that module, too, which nobody would ever
    # release in a child. Asked before the locks of `lifecycle`, which a constructor takes.
    if _lock.acquire(timeout=FORK_PATIENCE):
        _forking.append(threading.get_ident())


def _after_fork_in_parent() -> None:
    me = threading.get_ident()
    if me in _forking:
        _forking.remove(me)
        _lock.release()


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the old lock's holder may not exist here
    _lock = threading.RLock()
    _forking.clear()


call_in_child(_after_fork_in_child)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
