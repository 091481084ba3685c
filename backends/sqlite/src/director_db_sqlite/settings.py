"""Which file, and how durable: from the environment, a URL or arguments. No I/O."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Final

from director_db.errors import ConfigurationError
from director_db.legacy.old_layout import SETTING as MIGRATE
from director_db.legacy.old_layout import migrates_on_first_use
from director_db.settings import DEFAULT, Settings, number_of, operation_timeout_of, value_of
from director_db_sqlite.connections import MEMORY
from director_db_sqlite.file import absolute

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

DEFAULT_PATH: Final = "director.db"

FULL: Final = "full"
NORMAL: Final = "normal"

DEFAULT_OPERATION_TIMEOUT: Final = 30.0
"""The longest that a call waits for the locks of others, in seconds."""

_PATH: Final = "SQLITE_DB_PATH"
_SYNCHRONOUS: Final = "SQLITE_SYNCHRONOUS"
_OPERATION_TIMEOUT: Final = "SQLITE_OPERATION_TIMEOUT"
_VARIABLES: Final = (_PATH, _SYNCHRONOUS, _OPERATION_TIMEOUT, MIGRATE)


def read(environ: Mapping[str, str], url: str | None) -> Settings:
    """Return the arguments of `SQLiteDB` that the environment, or a URL, asks for.

    Raises:
        ConfigurationError: one of them is malformed.
    """
    texts = tuple([environ.get(name) for name in _VARIABLES])
    try:
        folder = os.getcwd()  # noqa: PTH109 - at every load_db()
    except OSError:
        folder = None  # Who needs it is told.
    return _read(url, texts, folder, os.path.expanduser("~"))  # noqa: PTH111 - as getcwd


@functools.lru_cache(64)
def _read(
    url: str | None, texts: tuple[str | None, ...], folder: str | None, _home: str | None
) -> Settings:
    """Do the work of `read`; the same for the same texts, so that `load_db` costs little."""
    environ = {name: text for name, text in zip(_VARIABLES, texts, strict=True) if text}
    given = value_of(environ, _PATH)
    path = _path_of_url(url) if url is not None else given or DEFAULT_PATH
    arguments: dict[str, Hashable] = {"db_path": path}
    place = path
    if path != MEMORY:
        check_path(path, _PATH if url is None and given else "the path")
        place = absolute(path, folder)  # However it is spelled.
        if not os.path.isabs(path):  # noqa: PTH117
            arguments["directory"] = folder or absolute(".", None)
    synchronous = value_of(environ, _SYNCHRONOUS)
    if synchronous and check_synchronous(synchronous, _SYNCHRONOUS) != FULL:
        arguments["synchronous"] = NORMAL
    timeout = value_of(environ, _OPERATION_TIMEOUT)
    if timeout:
        arguments["operation_timeout"] = number_of(timeout)
        operation_timeout_of(arguments["operation_timeout"], _OPERATION_TIMEOUT)
    migrates = migrates_on_first_use(environ)
    if migrates and path != MEMORY:
        arguments["migrate"] = True
    origins = {
        "db_path": "the URL" if url is not None else _PATH if given else DEFAULT,
        "synchronous": _SYNCHRONOUS if synchronous else DEFAULT,
        "operation_timeout": _OPERATION_TIMEOUT if timeout else DEFAULT,
        "migrate": MIGRATE if migrates else DEFAULT,
    }
    options = ("synchronous", "operation_timeout", "migrate")
    identity = (place, *map(arguments.get, options))
    return Settings(arguments, origins, identity=identity)


def check_path(path: object, name: str) -> str:
    """Return the path of a file, or ``":memory:"``.

    Raises:
        ConfigurationError: it can be neither.
    """
    if not isinstance(path, str) or not path or "\0" in path or not _can_be_a_name(path):
        message = f"{name} is the path of a file, or ':memory:', not {path!a}."
        raise ConfigurationError(message)
    if path[:5].lower() == "file:":
        file = path[5:].partition("?")[0]
        message = (
            f"{name} is the path of a file, and not a URI of SQLite's own, as {path!a} is: give "
            f"{file!a} alone. To open a file for reading only, take the right to write it away."
        )
        raise ConfigurationError(message)
    return path


def check_synchronous(value: object, name: str) -> str:
    """Return one of the two words, in whatever case it was written.

    Raises:
        ConfigurationError: it is another.
    """
    word = value.lower() if isinstance(value, str) else None
    if word not in {FULL, NORMAL}:
        message = f"{name} is {FULL!r} or {NORMAL!r}, not {value!a}."
        raise ConfigurationError(message)
    return word


def _can_be_a_name(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _path_of_url(url: str) -> str:
    """Return the path in a URL, by the rules that SQLAlchemy made common.

    Three slashes and a relative path, four and an absolute one; ``sqlite://`` alone and
    ``sqlite:///:memory:`` are in memory. Nothing is percent-decoded.
    """
    rest = url.partition("://")[2]
    if not rest or rest == "/":
        return MEMORY
    if not rest.startswith("/"):
        message = (
            "A SQLite URL has no host: sqlite:///relative/path.db or sqlite:////absolute/path.db."
        )
        raise ConfigurationError(message)
    if "?" in rest or "#" in rest:
        message = "A SQLite URL takes no parameters; pass a path with ? or # as SQLITE_DB_PATH."
        raise ConfigurationError(message)
    return rest[1:]
