"""Another process that has the same place open, and makes the calls that it is sent."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Any, Final, Self

from director_db_conformance.clauses.at_once import communicate, end, last_words, wait_until
from director_db_conformance.clauses.patience import PATIENCE
from director_db_conformance.expectation import NonconformityError
from director_db_conformance.transcript import shown, transcript

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from director_db_conformance.transcript import RecordedPlace

# Everything in ASCII: the pipe's encoding is that of the system's language.
_CODE: Final = """
import ast
for line in sys.stdin:
    name, args, kwargs = ast.literal_eval(line)
    answer = getattr(db, name)(*args, **kwargs)
    print(ascii(tuple(answer) if isinstance(answer, tuple) else answer), flush=True)
"""


class SecondProcess:
    """Calls operations in another process, one after another, and returns their results."""

    def __init__(self, place: RecordedPlace) -> None:
        """Start it; it opens the place at its first call."""
        self._process = place.python(_CODE)
        self._reader = ThreadPoolExecutor(1)

    def call(self, name: str, *args: object, **kwargs: object) -> Any:
        """Call an operation there and return its result, a tuple without its names."""
        process = self._process
        assert process.stdin is not None  # noqa: S101 - Place.python makes the pipes
        assert process.stdout is not None  # noqa: S101
        with suppress(BrokenPipeError):
            process.stdin.write(ascii((name, args, kwargs)) + "\n")
            process.stdin.flush()
        answered = self._reader.submit(process.stdout.readline)
        try:
            wait_until(answered.done, "an answer")
            line = answered.result()
        except NonconformityError:
            line = ""
        text = f"(in another process) {name}{shown(args)}"
        if not line:
            said = last_words(process)
            transcript.add(f"{text}  failed")
            expected = f"an answer of the other process within {PATIENCE:g} seconds"
            raise NonconformityError(expected, said)
        answer = ast.literal_eval(line)
        transcript.add(f"{text}  -> {shown(answer)}")
        return answer

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # So that it can stand wherever a handle can.
        return partial(self.call, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                communicate(self._process)
        except TimeoutExpired:
            expected = f"the other process ends within {PATIENCE:g} seconds"
            raise NonconformityError(expected, last_words(self._process)) from None
        finally:
            end(self._process)
            self._reader.shutdown()
