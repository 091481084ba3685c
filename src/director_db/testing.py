"""Help for the tests of backends and of applications. Imports no test framework."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from director_db.registry import load_backend, register_plugin, unregister_plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from director_db.base import BaseDB
    from director_db.hookspecs import BackendSpec

_CHILD_PRELUDE: Final = """
import sys
from director_db import load_db
db, args = load_db(), sys.argv[1:]
"""


class Place:
    """Where one test keeps its data. It is data: whoever has the environment can open it.

    Attributes:
        db_type: the DB type of the backend.
        env: the environment variables that open the place, ``DB_TYPE`` among them.
        shared: whether several handles and processes can open it at once.
        durable: whether it keeps what was written when the process dies.
        reason: why it is not shared or not durable.
        restart: kills the server and starts it again; None where there is none to kill.
        cut: breaks the connections of everybody who uses the place; None where there are none.
        destroy: removes the place; None where it goes with the folder of its test.
    """

    restart: Callable[[], object] | None = None
    cut: Callable[[], object] | None = None
    destroy: Callable[[], object] | None = None

    def __init__(
        self,
        db_type: str,
        env: Mapping[str, str | os.PathLike[str]],
        *,
        shared: bool = True,
        durable: bool = True,
        reason: str = "",
        restart: Callable[[], object] | None = None,
        cut: Callable[[], object] | None = None,
        destroy: Callable[[], object] | None = None,
    ) -> None:
        """Take the data; nothing is opened.

        Raises:
            ValueError: the place is not shared or not durable, and no reason says why.
            TypeError: a variable of the environment is neither a str nor a path.
        """
        if not (shared and durable) and not reason:
            message = f"The place of {db_type!r} gives no reason why it is not shared or durable."
            raise ValueError(message)
        self.db_type = db_type
        self.env = {**{name: _text(value, name) for name, value in env.items()}, "DB_TYPE": db_type}
        self.shared = shared
        self.durable = durable
        self.reason = reason
        # Only what is given: a subclass may have methods of these names instead.
        for name, action in (("restart", restart), ("cut", cut), ("destroy", destroy)):
            if action is not None:
                setattr(self, name, action)

    def __repr__(self) -> str:
        # The environment may hold a password.
        return f"<Place of type {self.db_type}>"

    def open(self) -> BaseDB:
        """Return a new instance of the backend: a handle of its own, not shared as `load_db`'s."""
        cls = load_backend(self.db_type).cls
        return cls(**cls._settings({**os.environ, **self.env}, None))

    def python(self, code: str, *args: str) -> subprocess.Popen[str]:
        """Run Python code in a process of its own, with pipes for all three streams.

        In the code, ``db`` is this place as `load_db` opens it, and ``args`` is the list of `args`.
        """
        return subprocess.Popen(  # noqa: S603 - the interpreter that runs us
            [sys.executable, "-c", _CHILD_PRELUDE + code, *args],
            env={**os.environ, **self.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def _text(value: str | os.PathLike[str], name: str) -> str:
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    message = f"The variable {name} of a place is a str, not {type(value).__name__}."
    raise TypeError(message)


@contextmanager
def register(plugin: object) -> Iterator[BackendSpec]:
    """Make a backend known to this process while the block runs, as if it were installed.

    Args:
        plugin: what the entry point would name: a module, or any object with the hook
            ``director_db_backend``.

    Yields:
        The plugin's `BackendSpec`.

    Raises:
        PluginError: the plugin is not valid, or its DB type is taken.
    """
    spec = register_plugin(plugin, f"the registered plugin {getattr(plugin, '__name__', plugin)!r}")
    try:
        yield spec
    finally:
        unregister_plugin(spec.name)
