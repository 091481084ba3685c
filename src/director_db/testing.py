"""Help for the tests of backends and of applications. Imports no test framework."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from director_db.loading import load_backend, register_plugin
from director_db.registry import unregister_plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from director_db.base import BaseDB
    from director_db.hookspecs import BackendSpec

    Fault = Callable[[], AbstractContextManager[object]]
    Descriptors = Callable[[int], Collection[str]]

FAULTS: Final[Mapping[str, str]] = {
    "locked": "somebody else holds what every write needs, and writes wait for it in vain",
    "stopped": "there is no server that answers",
    "refused": "the server lets nobody in, and has ended the connections that there were",
    "forbidden": "the user may not use the tables, and is still let in",
    "read-only": "nothing can be written, and this is no standby that may become the primary",
    "frozen": "the server answers nothing, and refuses nothing",
    "full": "a message of 8 MiB finds no room any more",
    "damaged": "what is stored cannot be read",
    "gone": "what holds the data, its folder or its database, is not there",
}
"""What a place may bring about, by the names in `Place.faults`.

During ``locked``, ``read-only`` and ``full`` every such write has to fail, and a read may; during
the others every operation has to fail. Only ``locked``, ``stopped`` and ``frozen`` may end without
anybody mending anything, so that an error is `retryable`.
"""

CHILD_PRELUDE: Final = """
import sys
from director_db import load_db
db, args = load_db(), sys.argv[1:]
"""
"""What the code of `Place.python` begins with, for the suite, which may fork what runs it."""


class Place:
    """Where one test keeps its data. It is data: whoever has the environment can open it.

    All but the first five may be left out. What needs something that a place does not offer is then
    not applicable there, and the report says so. A subclass may have methods of the same names.

    Attributes:
        db_type: the DB type of the backend.
        env: the environment variables that open the place, ``DB_TYPE`` among them.
        shared: whether several handles and processes can open it at once.
        durable: whether it keeps what was written when the process dies.
        reason: why it is not shared or not durable.
        apart: whether `restart`, `stop`, `freeze` and `faults` reach no place of another process,
            as with a file, or where each process starts a server of its own. The suite's command
            then runs clauses in several processes.
        server: for people: the server that keeps it, its version and where it comes from.
        url: a URL with which `load_db` opens the place.
        impatient: arguments of the backend's class with which calls give up within about a second
            what they wait for otherwise, such as ``{"operation_timeout": 0.5}``.
        restart: kills the server and starts it again.
        cut: breaks the connections of everybody who uses the place.
        stop: stops the server: nobody is let in, and whoever is in is cut off.
        start: starts it again, with its data.
        freeze: holds all processes of the server as they are, as SIGSTOP does: nothing is refused,
            and nothing is answered.
        thaw: lets them go on.
        destroy: removes the place; None where it goes with the folder of its test.
        delete_session_row: given a session's id, deletes its row and no other by means of the
            database, as an operator would with SQL.
        lock_session_row: given a session's id, returns a context manager in whose block somebody
            else holds that row's lock and no other.
        connections: given a process's id, returns its open descriptors that belong to the place,
            each as a text that no other has; see `files_in` and `connections_to`.
        faults: what can be made to go wrong, by the names of `FAULTS`: functions that return a
            context manager, in whose block it goes wrong.
    """

    server: str | None = None
    url: str | None = None
    restart: Callable[[], object] | None = None
    cut: Callable[[], object] | None = None
    stop: Callable[[], object] | None = None
    start: Callable[[], object] | None = None
    freeze: Callable[[], object] | None = None
    thaw: Callable[[], object] | None = None
    destroy: Callable[[], object] | None = None
    delete_session_row: Callable[[str], object] | None = None
    lock_session_row: Callable[[str], AbstractContextManager[object]] | None = None
    connections: Descriptors | None = None

    def __init__(
        self,
        db_type: str,
        env: Mapping[str, str | os.PathLike[str]],
        *,
        shared: bool = True,
        durable: bool = True,
        reason: str = "",
        server: str | None = None,
        url: str | None = None,
        impatient: Mapping[str, object] | None = None,
        restart: Callable[[], object] | None = None,
        cut: Callable[[], object] | None = None,
        stop: Callable[[], object] | None = None,
        start: Callable[[], object] | None = None,
        freeze: Callable[[], object] | None = None,
        thaw: Callable[[], object] | None = None,
        destroy: Callable[[], object] | None = None,
        delete_session_row: Callable[[str], object] | None = None,
        lock_session_row: Callable[[str], AbstractContextManager[object]] | None = None,
        connections: Descriptors | None = None,
        faults: Mapping[str, Fault] | None = None,
        apart: bool = False,
    ) -> None:
        """Take the data; nothing is opened.

        Raises:
            ValueError: the place is not shared or not durable, and no reason says why; a fault has
                no name of `FAULTS`; or one of a pair is missing, such as `start` beside `stop`.
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
        self.impatient = dict(impatient or {})
        self.faults = dict(faults or {})
        self.apart = apart
        given = {
            "server": server,
            "url": url,
            "restart": restart,
            "cut": cut,
            "stop": stop,
            "start": start,
            "freeze": freeze,
            "thaw": thaw,
            "destroy": destroy,
            "delete_session_row": delete_session_row,
            "lock_session_row": lock_session_row,
            "connections": connections,
        }
        # Only what is given: a subclass may have methods of these names instead.
        for name, value in given.items():
            if value is not None:
                setattr(self, name, value)
        for one, other in (("stop", "start"), ("freeze", "thaw")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                message = f"The place of {db_type!r} has only one of {one}() and {other}()."
                raise ValueError(message)
        for name in self.faults:
            if name not in FAULTS:
                message = f"There is no fault {name!r}. There are: {', '.join(FAULTS)}."
                raise ValueError(message)

    def __repr__(self) -> str:
        # The environment may hold a password.
        return f"<Place of type {self.db_type}>"

    def fault(self, name: str) -> Fault | None:
        """Return what brings a fault of `FAULTS` about, None if the place cannot.

        ``stopped`` is had from `stop` and `start`, and ``frozen`` from `freeze` and `thaw`, where
        they are not in `faults`.
        """
        if name in self.faults:
            return self.faults[name]
        pairs = {"stopped": (self.stop, self.start), "frozen": (self.freeze, self.thaw)}
        begin, end = pairs.get(name, (None, None))
        if begin is None or end is None:
            return None
        return lambda: _between(begin, end)

    def open(self, **arguments: object) -> BaseDB:
        """Return a new instance of the backend: a handle of its own, not shared as `load_db`'s.

        Args:
            arguments: of the backend's class, besides those that the environment says.
        """
        cls = load_backend(self.db_type).cls
        settings: dict[str, Any] = cls._settings({**os.environ, **self.env}, None)
        return cls(**{**settings, **arguments})

    def python(self, code: str, *args: str) -> subprocess.Popen[str]:
        """Run Python code in a process of its own, with pipes for all three streams.

        In the code, ``db`` is this place as `load_db` opens it, and ``args`` is the list of `args`.
        """
        return start_python(CHILD_PRELUDE + code, args, {**os.environ, **self.env})


def start_python(code: str, args: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start Python code in a process of its own, with pipes for all three streams."""
    return subprocess.Popen(  # noqa: S603 - the interpreter that runs us
        [sys.executable, "-c", code, *args],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def _between(begin: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    begin()
    try:
        yield
    finally:
        end()


def _text(value: str | os.PathLike[str], name: str) -> str:
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    message = f"The variable {name} of a place is a str, not {type(value).__name__}."
    raise TypeError(message)


def files_in(folder: str | os.PathLike[str]) -> Descriptors | None:
    """Return what tells the open files of a process in a folder and below, for `Place.connections`.

    None on systems other than Linux, where nothing does.
    """
    inside = f"{os.path.realpath(folder)}{os.sep}"

    def find(pid: int) -> list[str]:
        return [
            f"{number} {target}"
            for number, target in _descriptors(pid).items()
            if target.startswith(inside)
        ]

    return find if Path("/proc/self/fd").exists() else None


def connections_to(port: int) -> Descriptors | None:
    """Return what tells the TCP connections of a process to a port, for `Place.connections`.

    None on systems other than Linux, where nothing does.
    """

    def find(pid: int) -> list[str]:
        inodes = set()
        for table in ("tcp", "tcp6"):
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                    fields = line.split()
                    if int(fields[2].rpartition(":")[2], 16) == port:
                        inodes.add(f"socket:[{fields[9]}]")
        return [target for target in _descriptors(pid).values() if target in inodes]

    return find if Path("/proc/self/fd").exists() else None


def _descriptors(pid: int) -> dict[str, str]:
    """Return what each open descriptor of a process leads to, by its number."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # It may be closed while we look.
            found[entry.name] = str(entry.readlink())
    return found


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
