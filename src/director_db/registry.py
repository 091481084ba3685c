"""Which backends there are, and one shared instance of each that is used.

A backend is found by its entry point and loaded when it is first asked for, and none but that one.
What is wrong with one backend is an error only for who asks for it.
"""

from __future__ import annotations

import atexit
import importlib
import os
import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self, SupportsIndex

from director_db import discovery
from director_db.errors import (
    ConfigurationError,
    DirectorDBError,
    PluginError,
    UnknownDBTypeError,
)
from director_db.settings import Settings, value_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    import pluggy

    from director_db.base import BaseDB
    from director_db.discovery import Plugin
    from director_db.hookspecs import BackendSpec

DEFAULT_DB_TYPE: Final = "sqlite"

# What to install for a DB type that is asked for and not there, by its name and its URL schemes.
_REQUIREMENTS: Final = {"postgres": "director-db[postgres]"}
_SCHEMES_OF_REQUIREMENTS: Final = {"postgresql": "postgres"}

_EXIT_PATIENCE: Final = 5.0
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)://")


class Backend(NamedTuple):
    """A backend that is loaded."""

    spec: BackendSpec
    cls: type[BaseDB]
    origin: str
    hooks: pluggy.PluginManager


class _Url(str):
    """A URL whose repr is empty: tracebacks that show locals would show a password in it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<URL>"

    def __getitem__(self, key: SupportsIndex | slice) -> _Url:
        return _Url(super().__getitem__(key))


class _Environment(Mapping[str, str]):
    """The environment, with a repr that shows no password, for the same reason."""

    __slots__ = ()

    def __getitem__(self, name: str) -> str:
        return os.environ[name]

    def get(self, name: str, default: Any = None) -> Any:  # Twice as fast as Mapping's own.
        return os.environ.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(os.environ)

    def __len__(self) -> int:
        return len(os.environ)

    def __repr__(self) -> str:
        return "<environment>"


environment: Final = _Environment()
"""The environment as backends get it."""


class _DBTypeMeta(type):
    def __iter__(cls) -> Iterator[DBType]:
        return (DBType.of(name) for name in installed_types())

    def __len__(cls) -> int:
        return len(installed_types())

    def __contains__(cls, item: object) -> bool:
        return isinstance(item, str) and item.lower() in installed_types()


class DBType(str, metaclass=_DBTypeMeta):
    """The name of a database: a `str` that is equal to its value, as ``DBType.SQLITE == "sqlite"``.

    ``DBType("duck")`` is any installed type, whatever the case; iterating over the class and ``in``
    tell of what is installed. ``DBType.POSTGRES`` is there also where its package is not.

    Raises:
        UnknownDBTypeError: no installed backend has that name; a `ValueError`.
    """

    __slots__ = ()

    SQLITE: ClassVar[DBType]
    POSTGRES: ClassVar[DBType]

    def __new__(cls, value: str) -> Self:
        """Return the type of an installed backend."""
        if isinstance(value, cls):
            return value
        name = _name(value)
        return super().__new__(cls, name if name in installed_types() else _type_of(name))

    @classmethod
    def of(cls, name: str) -> Self:
        """Return the type of this name without asking whether it is installed."""
        return super().__new__(cls, name)

    @property
    def value(self) -> str:
        """The name as a plain `str`."""
        return str.__str__(self)

    @property
    def name(self) -> str:
        """The name in capitals, as an Enum has it."""
        return self.upper()

    def __repr__(self) -> str:
        return f"DBType({self.value!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (DBType.of, (self.value,))


DBType.SQLITE = DBType.of("sqlite")
DBType.POSTGRES = DBType.of("postgres")

_lock = threading.RLock()
_installed: discovery.Installed | None = None
_registered: dict[str, tuple[object, str]] = {}
_loaded: dict[str, Backend] = {}
_schemes: dict[str, Backend] = {}
_shared: dict[tuple[str, Hashable], BaseDB] = {}


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
        raise PluginError(message + _shown(error)) from error
    instance = _shared.get(key)
    if instance is not None and not instance.closed:
        return instance
    with _lock:
        instance = _shared.get(key)
        if instance is None or instance.closed:
            instance = backend.cls(**settings)
            instance._shared = True  # noqa: SLF001
            if defaulted and os.environ.get("DATABASE_URL"):
                settings = _without_database_url(backend, settings)
            instance._remember(settings)  # noqa: SLF001
            _shared[key] = instance
        return instance


def _without_database_url(backend: Backend, settings: Mapping[str, Hashable]) -> Settings:
    """Return settings that tell of a URL that nobody looks at."""
    told = settings if isinstance(settings, Settings) else Settings(settings, {})
    sentence = (
        f"DATABASE_URL is ignored, as DB_TYPE is not set: the database is of the default type, "
        f"{backend.spec.name}. To use the URL, set DB_TYPE to it, or to the type that it is of."
    )
    return Settings(told, told.origins, (*told.ignored, sentence), identity=told.identity)


def close_all() -> None:
    """Close every instance that `load_db` gave; the next `load_db` opens anew."""
    with _lock:
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


def installed_types() -> list[str]:
    """Return the names of the installed backends, sorted; none is loaded."""
    return sorted({*_discovered().plugins, *_registered})


def load_backend(name: str) -> Backend:
    """Load the backend of a DB type, or of one of its URL schemes, and no other.

    Raises:
        UnknownDBTypeError: none has that name.
        PluginError: its package is broken, or two packages claim the name.
    """
    found = _loaded.get(name)
    if found is not None:
        return found
    name = _name(name)
    with _lock:
        if name not in _loaded:
            db_type = _type_of(name)
            if db_type not in _loaded:
                plugin, origin = _find(db_type)
                _loaded[db_type] = _load(db_type, plugin, origin)
            _loaded[name] = _loaded[db_type]
        return _loaded[name]


def register_plugin(plugin: object, origin: str) -> BackendSpec:
    """Make a plugin known that no distribution offers; `director_db.testing` is its public face."""
    hooks = _hooks_of(plugin, "?", origin)
    spec = _spec_of(hooks, origin)
    with _lock:
        if spec.name in installed_types():
            message = f"{origin} claims the DB type {spec.name!r}, which is installed already."
            raise PluginError(message)
        _registered[spec.name] = (plugin, origin)
        _schemes.clear()
    return spec


def unregister_plugin(name: str) -> None:
    """Close and forget what `register_plugin` made known."""
    with _lock:
        _registered.pop(name, None)
        for known in [known for known in _loaded if _loaded[known].spec.name == name]:
            del _loaded[known]
        _schemes.clear()
        instances = [_shared.pop(key) for key in list(_shared) if key[0] == name]
    for instance in instances:
        instance.close()


# --- Finding ------------------------------------------------------------------------------------


def _name(value: str) -> str:
    if not isinstance(value, str):
        message = f"A DB type is a str, not {type(value).__name__}."
        raise ConfigurationError(message)
    return value.strip().lower()


def _discovered(*, anew: bool = False) -> discovery.Installed:
    global _installed  # noqa: PLW0603 - a cache of what takes milliseconds to read
    if _installed is None or anew:
        _installed = discovery.find_plugins()
    return _installed


def _find(name: str) -> tuple[object, str]:
    """Return the plugin of a DB type and the text that names its distribution."""
    if name in _registered:
        return _registered[name]
    candidates = _discovered().plugins[name]
    if len(candidates) > 1:
        claimants = " and ".join(map(str, candidates))
        message = f"The DB type {name!r} is claimed by {claimants}. Uninstall all but one of them."
        raise PluginError(message)
    return _import_plugin(candidates[0]), str(candidates[0])


def _unknown(name: str) -> UnknownDBTypeError:
    installed = installed_types()
    # What was taken for a name may be a connection string with a password in it.
    name, *rest = re.split("([:@/])", name, maxsplit=1)
    parts = [f"Unknown DB type {name!r}.", f"Installed: {', '.join(installed) or 'none'}."]
    dialect = name.partition("+")[0]
    wanted = _SCHEMES_OF_REQUIREMENTS.get(dialect, dialect)
    if rest and rest[0] == ":" and wanted in {*installed, *_REQUIREMENTS}:
        parts[0] = f"What begins with '{name}:' is no DB type, and a URL begins with '{name}://'."
    elif wanted not in _REQUIREMENTS:
        import difflib  # noqa: PLC0415 - as rarely needed as it is slow to import

        close = difflib.get_close_matches(name, [*installed, *_REQUIREMENTS], n=1)
        if close:
            wanted = close[0]
            parts.append(f"Did you mean {wanted!r}?")
    if wanted not in installed:
        missing = _REQUIREMENTS.get(wanted)
        if missing is not None:
            parts.append(f'Install it with: pip install "{missing}"')
        else:
            more = " or ".join(
                f'pip install "{requirement}"'
                for known, requirement in _REQUIREMENTS.items()
                if known not in installed
            )
            parts.append("Install more with: " + (more or "pip install <a backend's package>"))
    parts.extend(f"Ignored: {fault}." for fault in _discovered().faults)
    return UnknownDBTypeError(" ".join(parts))


def _backend_of_url(url: _Url) -> tuple[Backend, _Url]:
    """Return the backend of a URL, and the URL with a scheme that the backend knows."""
    match = _URL.match(url)
    if match is None:
        message = (
            "A database URL starts with a scheme, as in sqlite:///path or postgresql://host/db."
        )
        raise ConfigurationError(message)
    scheme = match[1].lower()
    known = _schemes.get(scheme)
    if known is None:
        known = load_backend(_type_of(scheme))
        _schemes[scheme] = known
    if "+" in scheme and scheme not in {known.spec.name, *known.spec.url_schemes}:
        # As SQLAlchemy writes it: dialect+driver. The database is the same whatever the driver.
        url = _Url(scheme.partition("+")[0] + url[len(scheme) :])
    return known, url


def _type_of(name: str) -> str:
    """Return the DB type that a name or a URL scheme means."""
    dialect, plus, _ = name.partition("+")
    for wanted in [name, dialect] if plus else [name]:
        # A package may have been installed since; a name that is found costs nothing here.
        if wanted in installed_types() or wanted in _discovered(anew=True).plugins:
            return wanted
        known = _SCHEMES_OF_REQUIREMENTS.get(wanted)
        if known in installed_types():
            # Nobody has to be asked. To ask is to import, and a stranger may hang or end us there.
            return known
        found = []
        for db_type in installed_types():
            try:
                plugin, origin = _find(db_type)
                spec = _spec_of(_hooks_of(plugin, db_type, origin), origin)
            except PluginError:
                continue  # Its own users will see what is wrong with it.
            if wanted in spec.url_schemes:
                found.append((db_type, origin))
        if len(found) == 1:
            return found[0][0]
        if found:
            claimants = " and ".join(f"{db_type} ({origin})" for db_type, origin in found)
            message = (
                f"The URL scheme {wanted!r} is claimed by {claimants}. Ask for a DB type by name."
            )
            raise PluginError(message)
    raise _unknown(name)


# --- Loading ------------------------------------------------------------------------------------


def _import_plugin(plugin: Plugin) -> object:
    try:
        return plugin.entry_point.load()
    except (Exception, SystemExit) as error:
        message = f"The plugin of DB type {plugin.name!r} in {plugin} cannot be imported: "
        raise PluginError(message + _shown(error)) from error


def _load(name: str, plugin: object, origin: str) -> Backend:
    hooks = _hooks_of(plugin, name, origin)
    spec = _spec_of(hooks, origin)
    if spec.name != name:
        message = f"{origin} offers the DB type {name!r}, but its plugin says {spec.name!r}."
        raise PluginError(message)
    return Backend(spec, _class_of(spec, origin), origin, hooks)


def _hooks_of(plugin: object, name: str, origin: str) -> pluggy.PluginManager:
    """Return the hooks of one plugin, in a manager of its own: a broken one leaves no trace."""
    import pluggy  # noqa: PLC0415 - not needed to import director_db, and it has its price

    from director_db import hookspecs  # noqa: PLC0415

    hooks = pluggy.PluginManager(hookspecs.PROJECT)
    hooks.add_hookspecs(hookspecs)
    try:
        hooks.register(plugin, name)
        hooks.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        message = f"The plugin of DB type {name!r} in {origin} is not a valid plugin: {error}"
        raise PluginError(message) from error
    return hooks


def _spec_of(hooks: pluggy.PluginManager, origin: str) -> BackendSpec:
    from director_db.hookspecs import BackendSpec  # noqa: PLC0415

    try:
        specs = hooks.hook.director_db_backend()
    except (Exception, SystemExit) as error:
        message = f"The hook director_db_backend of {origin} failed: {_shown(error)}"
        raise PluginError(message) from error
    if len(specs) != 1 or not isinstance(specs[0], BackendSpec):
        message = f"The hook director_db_backend of {origin} gave {specs!r}, not one BackendSpec."
        raise PluginError(message)
    spec: BackendSpec = specs[0]
    name: object = spec.name
    schemes: object = spec.url_schemes
    if not _is_name(name) or not isinstance(schemes, tuple) or not all(map(_is_name, schemes)):
        message = (
            f"The hook director_db_backend of {origin} gave the name {name!r} and the URL schemes "
            f"{schemes!r}; a name is lower-case letters, digits, + . _ and -, the schemes are a "
            "tuple of such names."
        )
        raise PluginError(message)
    return spec


def _is_name(value: object) -> bool:
    return isinstance(value, str) and discovery.NAME.fullmatch(value) is not None


def _shown(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - a plugin's own exception may not even have a repr
        return type(error).__name__


def _class_of(spec: BackendSpec, origin: str) -> type[BaseDB]:
    from director_db.base import BaseDB  # noqa: PLC0415 - base.py needs DBType from here

    cls: object = spec.target
    if isinstance(cls, str):
        module, _, attribute = cls.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:
            message = f"The backend {spec.target} of {origin} cannot be imported: {_shown(error)}"
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


# --- The process's end and its forks ------------------------------------------------------------


@atexit.register
def _rest_at_exit() -> None:
    # Their connections only: what else runs at the end of the process may still store something.
    # And a daemon thread may hang in an operation for good, and must not keep the process alive.
    for instance in list(_shared.values()):
        instance._rest(_EXIT_PATIENCE)  # noqa: SLF001


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the old lock's holder may not exist here
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
