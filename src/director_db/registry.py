"""One shared instance of each database that is used.

A backend is found by its entry point and loaded when it is first asked for, and none but that one.
What is wrong with one backend is an error only for who asks for it.
"""

from __future__ import annotations

import atexit
import os
import re
from typing import TYPE_CHECKING, Final, SupportsIndex

from director_db.discovery import shown
from director_db.errors import ConfigurationError, DirectorDBError, PluginError
from director_db.loading import forget_plugin, load_backend, lock
from director_db.logs import WARNING, log
from director_db.settings import Settings, environment, value_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from director_db.base import BaseDB
    from director_db.loading import Backend

DEFAULT_DB_TYPE: Final = "sqlite"

_EXIT_PATIENCE: Final = 5.0
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)://")

_shared: dict[tuple[str, Hashable], BaseDB] = {}


class _Url(str):
    """A URL whose repr is empty: tracebacks that show locals would show a password in it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<URL>"

    def __getitem__(self, key: SupportsIndex | slice) -> _Url:
        return _Url(super().__getitem__(key))


def load_db(db_type_or_url: str | None = None) -> BaseDB:
    """Return the database that the environment, or the argument, asks for.

    In one process there is one instance for each type and settings; it is thread-safe, works after
    a fork (LIF-1), and is opened by its first operation. The environment is read at every call, so
    that a changed setting takes effect. After the instance's ``close()`` the next call gives a new
    one (LIF-5).

    Args:
        db_type_or_url: a DB type as ``"sqlite"``, or a URL as ``"sqlite:///path/to/file.db"``; None
            means the environment variable ``DB_TYPE``, and without it ``"sqlite"``.

    Raises:
        UnknownDBTypeError: no installed backend has that type or URL scheme.
        PluginError: the backend's package is broken, or two packages claim the type.
        ConfigurationError: a setting of the backend is malformed.
    """
    defaulted = False
    if db_type_or_url is None:
        db_type_or_url = value_of(os.environ, "DB_TYPE").strip()
        defaulted = not db_type_or_url
        db_type_or_url = db_type_or_url or DEFAULT_DB_TYPE
    elif not isinstance(db_type_or_url, str):
        kind = type(db_type_or_url).__name__
        message = f"load_db() takes a DB type or a URL as str, not {kind}."
        raise ConfigurationError(message)
    url = None
    if "://" in db_type_or_url:
        url = db_type_or_url = _Url(db_type_or_url)
    if url is not None:
        backend, url = _backend_of_url(url)
    else:
        backend = load_backend(db_type_or_url)
    try:
        settings = backend.cls._settings(environment, url)  # noqa: SLF001 - the core's own protocol
        key = (
            backend.spec.name,
            getattr(settings, "identity", None) or frozenset(settings.items()),
        )
    except DirectorDBError:
        raise
    except Exception as error:
        message = f"The backend {backend.spec.name} of {backend.origin} gave no settings: "
        raise PluginError(message + shown(error)) from error
    instance = _shared.get(key)
    if instance is not None and not instance.closed:
        return instance
    with lock():
        instance = _shared.get(key)
        if instance is None or instance.closed:
            _drop_closed()
            instance = backend.cls(**settings)
            instance._shared = True  # noqa: SLF001
            if defaulted and os.environ.get("DATABASE_URL"):
                settings = _without_database_url(backend, settings)
            instance._remember(settings)  # noqa: SLF001
            _shared[key] = instance
        return instance


def _drop_closed() -> None:
    """Let go of instances that are closed, also those that nobody asks for again."""
    # A signal's handler may do the same in the middle.
    for key, instance in list(_shared.items()):
        if instance.closed and _shared.get(key) is instance:
            _shared.pop(key, None)


def _without_database_url(backend: Backend, settings: Mapping[str, Hashable]) -> Settings:
    """Return settings that also say that ``DATABASE_URL`` is ignored."""
    found = settings if isinstance(settings, Settings) else Settings(settings, {})
    sentence = (
        f"DATABASE_URL is ignored, as DB_TYPE is not set: the database is of the default type, "
        f"{backend.spec.name}. To use the URL, set DB_TYPE to it, or to the type that it is of."
    )
    return Settings(found, found.origins, (*found.ignored, sentence), identity=found.identity)


def close_all() -> None:
    """Close every instance that `load_db` gave; the next `load_db` opens anew."""
    with lock():
        instances = list(_shared.values())
        _shared.clear()
    errors = []
    for instance in instances:
        try:
            instance.close()
        except Exception as error:  # noqa: BLE001 - the others are to be closed first
            errors.append(error)
    if errors:
        raise errors[0]


def unregister_plugin(name: str) -> None:
    """Close and forget the backend of a plugin that `register_plugin` made known."""
    with lock():
        forget_plugin(name)
        instances = [_shared.pop(key) for key in list(_shared) if key[0] == name]
    for instance in instances:
        instance.close()


def _backend_of_url(url: _Url) -> tuple[Backend, _Url]:
    """Return the backend of a URL, and the URL with a scheme that the backend knows."""
    match = _URL.match(url)
    if match is None:
        message = (
            "A database URL starts with a scheme, as in sqlite:///path or postgresql://host/db."
        )
        raise ConfigurationError(message)
    scheme = match[1].lower()
    known = load_backend(scheme)
    if "+" in scheme and scheme not in {known.spec.name, *known.spec.url_schemes}:
        # As SQLAlchemy writes it: dialect+driver. The database is the same whatever the driver.
        url = _Url(scheme.partition("+")[0] + url[len(scheme) :])
    return known, url


@atexit.register
def _rest_at_exit() -> None:
    # Their connections only: what else runs at the end of the process may still store something.
    # And a daemon thread may hang in an operation for good, and must not keep the process alive.
    for instance in list(_shared.values()):
        try:
            instance._rest(_EXIT_PATIENCE)  # noqa: SLF001
        except Exception as error:  # noqa: BLE001 - the others are to rest, too
            log(instance.db_type, WARNING, "%r did not close at exit", instance, cause=error)
