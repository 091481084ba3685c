"""What a clause did to the backend, call by call, for the report of a failure."""

from __future__ import annotations

import inspect
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from director_db.asyncio import AsyncDB
from director_db.testing import CHILD_PRELUDE, FAULTS, Place, start_python
from director_db_conformance import warm
from director_db_conformance.face import ASYNCIO, IN_ANOTHER_PROCESS, SYNC, AwaitedDB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from subprocess import Popen
    from types import TracebackType

    from director_db import BaseDB
    from director_db_conformance.face import Face

_FIRST: Final = 30
_LAST: Final = 50
_LONGEST_TEXT: Final = 120
_LONGEST_MESSAGE: Final = 600
_LAST_LINES: Final = 40
_MOST_ITEMS: Final = 8
_DEEPEST: Final = 4

OF_ALL_PYTHON: Final = ("PYTHONOPTIMIZE", "PYTHONHASHSEED")
"""Variables that no process of a clause gets: they leave out its assertions, or let two hash alike
that should not."""

# A worker ends itself when the tests are gone: who kills them does not see it. The code is in no
# file, so its lines are put where tracebacks look for them.
_WORKER: Final = """
if not __debug__:
    raise SystemExit("Python leaves out the assertions of this clause; start it without -O")
import linecache, os, threading, time, traceback
linecache.cache["<string>"] = 0, None, sys.orig_argv[2].splitlines(True), "<string>"
sys.excepthook = traceback.print_exception
def end_with(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
"""


class Transcript:
    """The calls since it was last cleared: the first and the last ones, if there are many.

    A call stands here from its beginning on, so that one that never returns is seen, too.

    Attributes:
        stream: a file descriptor to which each call is also written as it begins, for whoever
            has to tell afterwards what a process was doing; None for no such file.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.stream: int | None = None
        self._first: list[_Line] = []
        self._last: deque[_Line] = deque(maxlen=_LAST)
        self._count = 0
        self._own = threading.local()
        self._counts: Counter[int | None] = Counter()

    def clear(self) -> None:
        """Begin anew: whatever came before has no part in a failure from here on."""
        self._first, self._last, self._count = [], deque(maxlen=_LAST), 0
        self._own = threading.local()
        self._counts.clear()
        if self.stream is not None:
            os.ftruncate(self.stream, 0)

    def add(self, text: str) -> _Line:
        """Add a call; from any thread, so the order among threads is only roughly right."""
        line = self._own.latest = _Line(text)
        self._count += 1
        self._counts[threading.get_ident()] += 1
        (self._first if len(self._first) < _FIRST else self._last).append(line)
        if self.stream is not None:
            os.write(self.stream, f"{text}\n".encode(errors="replace"))
        return line

    def calls_of(self, thread: threading.Thread) -> int:
        """Return how many calls a thread has begun, so that somebody can tell that it goes on."""
        return self._counts[thread.ident]

    @property
    def latest(self) -> str:
        """The last call of this thread, and what came of it; nothing if it has made none."""
        return str(getattr(self._own, "latest", ""))

    @property
    def lines(self) -> list[str]:
        """The calls, one a line."""
        first, last = list(self._first), list(self._last)
        hidden = self._count - len(first) - len(last)
        more = [f"... {hidden} more calls ..."] if hidden > 0 else []
        return [*map(str, first), *more, *map(str, last)]


class _Line:
    """A call, and what came of it so far."""

    __slots__ = ("outcome", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.outcome = ""

    def __str__(self) -> str:
        return self.text + self.outcome

    def note(self, result: object) -> None:
        """Keep what a call has returned."""
        self.outcome = "" if result is None else f"  -> {shown(result)}"


transcript: Final = Transcript()
"""Of the clause that runs now; clauses run one at a time."""


class RecordedDB:
    """A handle on a place that writes down every call. Otherwise it is the instance itself."""

    def __init__(self, db: BaseDB | AwaitedDB | AsyncDB, name: str) -> None:
        """Take the instance, and what it is called in the transcript."""
        self._db: Any = db
        self._name = name

    @property
    def instance(self) -> Any:
        """The instance behind it, or that instance's asynchronous face."""
        return self._db

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._db, name)
        return self._recorded(name, found) if callable(found) else found

    def __repr__(self) -> str:
        return repr(self._db)

    def __enter__(self) -> Self:
        self._recorded("__enter__", self._db.__enter__)()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._db.__exit__(kind, error, traceback)

    def _recorded(self, name: str, method: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            with self._noting(name, args, kwargs) as line:
                result = method(*args, **kwargs)
                line.note(result)
            return result

        return call

    @contextmanager
    def _noting(
        self, name: str, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> Iterator[_Line]:
        line = transcript.add(f"{self._name}.{name}({_arguments(args, kwargs)})")
        line.outcome = "  has not returned"
        try:
            yield line
        except BaseException as error:
            line.outcome = f"  raised {shown_error(error)}"
            raise


class RecordedAsyncDB(RecordedDB):
    """The same of an `AsyncDB`, whose calls are to be awaited.

    Attributes:
        beside: a handle on the instance behind it, for what needs no coroutine.
    """

    def __init__(self, instance: BaseDB, name: str) -> None:
        """Take that instance, and what it is called in the transcript."""
        super().__init__(AsyncDB(instance), f"await {name}")
        self.beside = RecordedDB(instance, name)

    def _recorded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.iscoroutinefunction(method):
            return super()._recorded(name, method)

        async def call(*args: object, **kwargs: object) -> Any:
            with self._noting(name, args, kwargs) as line:
                result = await method(*args, **kwargs)
                line.note(result)
            return result

        return call


class RecordedPlace:
    """A place whose handles write down their calls, and are closed when the clause ends."""

    def __init__(self, place: Place, new_folder: Callable[[], Path], face: Face = SYNC) -> None:
        """Take the place.

        Args:
            place: it.
            new_folder: makes a folder for what processes share that is not in the place.
            face: through which face the calls go, here and in other processes.
        """
        self.place = place
        self.new_folder = new_folder
        self.face = face
        self._instances: list[BaseDB] = []

    @property
    def db_type(self) -> str:
        """The DB type of the backend."""
        return self.place.db_type

    def open(self, *, impatient: bool = False) -> RecordedDB:
        """Return a handle of its own; the first is ``db`` in the transcript, then ``db2``.

        Args:
            impatient: its calls give up soon what they wait for; see `Place.impatient`.
        """
        instance = self._opened(**(self.place.impatient if impatient else {}))
        called = AwaitedDB(AsyncDB(instance)) if self.face == ASYNCIO else instance
        return RecordedDB(called, self._latest_name)

    def open_async(self) -> RecordedAsyncDB:
        """Return a handle of its own, whose calls are coroutines, whatever the face is."""
        return RecordedAsyncDB(self._opened(), self._latest_name)

    def _opened(self, **arguments: object) -> BaseDB:
        self._instances.append(self.place.open(**arguments))
        return self._instances[-1]

    @property
    def _latest_name(self) -> str:
        return "db" if len(self._instances) == 1 else f"db{len(self._instances)}"

    def python(self, code: str, *args: str) -> Popen[str]:
        """Run code in another process; see `Place.python`."""
        transcript.add(f"(in another process, {list(args)!r}) {code.strip()}")
        prelude = _WORKER + (IN_ANOTHER_PROCESS if self.face == ASYNCIO else "")
        place = self.place
        if type(place).python is Place.python and "python" not in vars(place):
            ours = {key: value for key, value in os.environ.items() if key not in OF_ALL_PYTHON}
            env = {**ours, **place.env}
            code = CHILD_PRELUDE + prelude + code
            return warm.python(code, args, env) or start_python(code, args, env)
        return place.python(prelude + code, *args)

    def restart(self) -> None:
        """Kill the server and start it again."""
        assert self.place.restart is not None  # noqa: S101 - such a clause does not run without
        transcript.add("(the server is killed and started again)")
        self.place.restart()

    def cut(self) -> None:
        """Break every connection."""
        assert self.place.cut is not None  # noqa: S101 - such a clause does not run without
        transcript.add("(every connection is cut)")
        self.place.cut()

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Bring a fault about for the length of a block."""
        fault = self.place.fault(name)
        assert fault is not None  # noqa: S101 - such a clause does not run without
        transcript.add(f"(from here on: {FAULTS[name]})")
        with fault():
            yield
        transcript.add("(that is over)")

    @contextmanager
    def lock_session_row(self, session_id: str) -> Iterator[None]:
        """Let somebody else hold the lock of a session's row for the length of a block."""
        assert self.place.lock_session_row is not None  # noqa: S101 - as above
        transcript.add(f"(from here on, somebody else has locked the session {shown(session_id)})")
        with self.place.lock_session_row(session_id):
            yield
        transcript.add("(that is over)")

    def delete_session_row(self, session_id: str) -> None:
        """Delete a session's row by means of the database itself."""
        assert self.place.delete_session_row is not None  # noqa: S101 - as above
        transcript.add(f"(the row of the session {shown(session_id)} is deleted)")
        self.place.delete_session_row(session_id)

    def close(self) -> None:
        """Close the handles and destroy the place."""
        with ExitStack() as stack:
            if self.place.destroy is not None:
                stack.callback(self.place.destroy)
            for instance in self._instances:
                stack.callback(instance.close)


NewPlaces = Callable[[], AbstractContextManager[RecordedPlace]]
"""What makes new places for a clause that needs more than one."""


def shown(value: object, depth: int = 0) -> str:
    """Return a text of a value that fits into a report, whatever its size."""
    if isinstance(value, (str, bytes)):
        if len(value) <= _LONGEST_TEXT:
            return ascii(value)
        return f"{value[: _LONGEST_TEXT // 2]!a}... ({len(value)} in all)"
    if isinstance(value, int) and not isinstance(value, bool):
        return _shown_int(value)
    if type(value) in {list, tuple, dict, set} and depth == _DEEPEST:
        return "..."
    if type(value) is dict:
        pairs = [
            f"{shown(key, depth + 1)}: {shown(item, depth + 1)}"
            for key, item in _some(value.items())
        ]
        return "{" + ", ".join(_with_rest(pairs, len(value))) + "}"
    if type(value) in {list, tuple}:
        items = [shown(item, depth + 1) for item in _some(value)]
        inner = ", ".join(_with_rest(items, len(value)))  # type: ignore[arg-type]
        return f"[{inner}]" if type(value) is list else f"({inner})"
    return _without_middle(repr(value))


def shown_error(error: BaseException, *, causes: bool = False) -> str:
    """Return the type and the message of an error; with `causes`, also of what it came from."""
    text = f"{type(error).__name__}: {_without_middle(str(error))}"
    if not causes or error.__cause__ is None:
        return text
    return f"{text} (from {shown_error(error.__cause__, causes=True)})"


def shown_output(text: str) -> str:
    """Return the end of what a process has written, which is where it says why it ended."""
    return "\n".join(map(_without_middle, text.strip().splitlines()[-_LAST_LINES:]))


def _without_middle(text: str) -> str:
    # Not the end: that is where a message has its code.
    if len(text) <= _LONGEST_MESSAGE:
        return text
    half = _LONGEST_MESSAGE // 2
    return f"{text[:half]} ... {text[-half:]}"


def _shown_int(value: int) -> str:
    if value.bit_length() <= 4 * _LONGEST_TEXT:
        return repr(value)
    return f"<an int of {value.bit_length()} bits>"


def _some(items: Any) -> list[Any]:
    return [item for item, _ in zip(items, range(_MOST_ITEMS), strict=False)]


def _with_rest(texts: list[str], count: int) -> list[str]:
    return texts if count <= _MOST_ITEMS else [*texts, f"... ({count} in all)"]


def _arguments(args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    return ", ".join([*map(shown, args), *(f"{key}={shown(kwargs[key])}" for key in kwargs)])
