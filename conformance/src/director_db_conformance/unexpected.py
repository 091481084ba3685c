"""What an exception that no clause expected says of the backend."""

from __future__ import annotations

import linecache
import traceback
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from director_db_conformance.expectation import NonconformityError
from director_db_conformance.transcript import shown_error, transcript

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_CLAUSES: Final = Path(__file__).with_name("clauses")
_LAST_FRAMES: Final = 8


def nonconformity(error: BaseException) -> NonconformityError:
    """Return what failed: the fault itself, not what followed from it.

    Cleaning up after a failure may fail, too, and then its exception arrives instead of the first
    one. And a clause that looks for a key in a result that has none raises an exception of its own,
    which says nothing of that result.

    Called in the thread that caught the exception.
    """
    faults = [each for each in _with_contexts(error) if isinstance(each, NonconformityError)]
    if faults:
        return faults[-1]
    looked_at = _looked_at(error)
    if looked_at is None:
        found = NonconformityError("no error", f"raised {shown_error(error, causes=True)}")
    else:
        after = transcript.latest
        found = NonconformityError(
            f"a result to go on with: {looked_at}",
            f"{f'{after}; so ' if after else ''}{shown_error(error)}",
        )
    found.__cause__ = error
    return found


def stack(error: BaseException | None) -> str:
    """Return the end of the traceback of an exception and its causes; nothing for None."""
    if error is None:
        return ""
    return "".join(traceback.format_exception(error, limit=-_LAST_FRAMES))


def _with_contexts(error: BaseException | None) -> Iterator[BaseException]:
    """Give an exception, and those during whose handling it was raised."""
    while error is not None:
        yield error
        error = None if error.__suppress_context__ else error.__context__


def _looked_at(error: BaseException) -> str | None:
    """Return the part of a clause that raised an exception by itself; None if something else did.

    A backend raises it in its own files, or in the call of a recorded handle.
    """
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None or Path(step.tb_frame.f_code.co_filename).parent != _CLAUSES:
        return None
    return _source(step)


def _source(step: TracebackType) -> str:
    """Return the expression that a traceback ends in, or its line if it spans several."""
    code = step.tb_frame.f_code
    first, last, start, end = next(islice(code.co_positions(), step.tb_lasti // 2, None))
    line = linecache.getline(code.co_filename, step.tb_lineno)
    if first == last == step.tb_lineno and start is not None:
        # Positions are counted in bytes.
        return line.encode()[start:end].decode()
    return line.strip()
