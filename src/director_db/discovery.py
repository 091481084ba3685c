"""Which plugins are installed, by the metadata of their distributions, and what they say.

pluggy's own loader of entry points stops at the first plugin that is broken and silently drops the
second of two that have one name. Here every fault stays with the plugin that has it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from director_db.errors import ConfigurationError, PluginError, UnknownDBTypeError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import pluggy

    from director_db.hookspecs import BackendSpec

ENTRY_POINT_GROUP: Final = "director_db"
"""The entry-point group of backends; an entry point's name is its DB type."""


NAME: Final = re.compile(r"[a-z][a-z0-9+._-]*")
"""What a DB type and a URL scheme look like."""


class Plugin(NamedTuple):
    """A backend that a distribution offers."""

    name: str
    entry_point: EntryPoint
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


class Installed(NamedTuple):
    """What discovery found: plugins by DB type, and what is wrong with other distributions."""

    plugins: dict[str, list[Plugin]]
    faults: list[str]


def find_plugins() -> Installed:
    """Read the entry points of every distribution on ``sys.path``; some milliseconds."""
    from importlib import metadata  # noqa: PLC0415 - a third of the time of importing director_db

    plugins: dict[str, list[Plugin]] = {}
    faults: list[str] = []
    seen: set[str] = set()
    for distribution in metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt")
        except (OSError, UnicodeDecodeError):
            continue  # Whosever it is, it cannot tell us that it is ours.
        if text is None or f"[{ENTRY_POINT_GROUP}]" not in text:
            continue
        label = "an unnamed distribution"
        try:
            name = distribution.metadata["Name"]
            if name:
                # One distribution is found twice where two folders of sys.path carry its metadata
                # (an editable install beside its source, say); the first is what gets imported.
                label = name
                canonical = re.sub(r"[-_.]+", "-", name).lower()
                if canonical in seen:
                    continue
                seen.add(canonical)
            for entry_point in distribution.entry_points:
                if entry_point.group == ENTRY_POINT_GROUP:
                    db_type = entry_point.name.lower()
                    if NAME.fullmatch(db_type) is None:
                        faults.append(f"{label}: {entry_point.name!r} is no name of a DB type")
                        continue
                    found = Plugin(db_type, entry_point, label, distribution.version or "?")
                    plugins.setdefault(db_type, []).append(found)
        except Exception as error:  # noqa: BLE001 - malformed metadata raises anything
            faults.append(f"{label}: its entry points cannot be read ({error})")
    return Installed(plugins, faults)


# What to install for a DB type that is asked for and not there, by its name and its URL schemes.
_REQUIREMENTS: Final = {"postgres": "director-db[postgres]"}
_SCHEMES_OF_REQUIREMENTS: Final = {"postgresql": "postgres"}

_installed: Installed | None = None
_registered: dict[str, tuple[object, str]] = {}


def installed_types() -> list[str]:
    """Return the names of the installed backends, sorted; none is loaded."""
    return sorted({*_discovered().plugins, *_registered})


def register(plugin: object, origin: str) -> BackendSpec:
    """Make a plugin known that no distribution offers; whoever calls it holds the lock."""
    spec = spec_of(hooks_of(plugin, "?", origin), origin)
    if spec.name in installed_types():
        message = f"{origin} claims the DB type {spec.name!r}, which is installed already."
        raise PluginError(message)
    _registered[spec.name] = (plugin, origin)
    return spec


def unregister(name: str) -> None:
    """Forget what `register` made known."""
    _registered.pop(name, None)


def normalized(value: str) -> str:
    """Return the name of a DB type as it is compared.

    Raises:
        ConfigurationError: it is no `str`.
    """
    if not isinstance(value, str):
        message = f"A DB type is a str, not {type(value).__name__}."
        raise ConfigurationError(message)
    return value.strip().lower()


def type_of(name: str) -> str:
    """Return the DB type that a name or a URL scheme means.

    Raises:
        UnknownDBTypeError: none has that name or scheme.
        PluginError: several claim the scheme.
    """
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
                plugin, origin = plugin_of(db_type)
                spec = spec_of(hooks_of(plugin, db_type, origin), origin)
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


def plugin_of(name: str) -> tuple[object, str]:
    """Return the plugin of a DB type and the text that names its distribution.

    Raises:
        PluginError: it cannot be imported, or two distributions claim the type.
    """
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
    name, *rest = re.split(r"([:@/=\s])" if "=" in name else "([:@/])", name, maxsplit=1)
    parts = [f"Unknown DB type {name!r}.", f"Installed: {', '.join(installed) or 'none'}."]
    dialect = name.partition("+")[0]
    wanted = _SCHEMES_OF_REQUIREMENTS.get(dialect, dialect)
    if rest and rest[0] == ":" and wanted in {*installed, *_REQUIREMENTS}:
        parts[0] = f"What begins with '{name}:' is no DB type, and a URL begins with '{name}://'."
    elif rest and rest[0] == "=":
        parts[0] = f"What begins with '{name}=' is no DB type: it belongs in a backend's settings."
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


def _discovered(*, anew: bool = False) -> Installed:
    global _installed  # noqa: PLW0603 - a cache of what takes milliseconds to read
    if _installed is None or anew:
        _installed = find_plugins()
    return _installed


# --- The hooks of a plugin ----------------------------------------------------------------------


def _import_plugin(plugin: Plugin) -> object:
    try:
        return plugin.entry_point.load()
    except (Exception, SystemExit) as error:
        message = f"The plugin of DB type {plugin.name!r} in {plugin} cannot be imported: "
        raise PluginError(message + shown(error)) from error


def hooks_of(plugin: object, name: str, origin: str) -> pluggy.PluginManager:
    """Return the hooks of one plugin, in a manager of its own: a broken one leaves no trace.

    Raises:
        PluginError: it implements a hook that there is not, or takes other arguments.
    """
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


def spec_of(hooks: pluggy.PluginManager, origin: str) -> BackendSpec:
    """Return what a plugin says of its backend.

    Raises:
        PluginError: it says nothing, or nothing valid.
    """
    from director_db.hookspecs import BackendSpec  # noqa: PLC0415

    try:
        specs = hooks.hook.director_db_backend()
    except (Exception, SystemExit) as error:
        message = f"The hook director_db_backend of {origin} failed: {shown(error)}"
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
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def shown(error: BaseException) -> str:
    """Return the repr of a plugin's exception, its type where that fails."""
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - a plugin's own exception may not even have a repr
        return type(error).__name__
