"""Many messages in one statement: each id once, and a column of all rows as one array."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director_db.rows import count_by_session
from director_db_postgres.arrays import BigintArray, TextArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from director_db.rows import MessageRow


def merge(rows: Sequence[MessageRow]) -> list[MessageRow]:
    """Leave each id once, as if the rows had been stored one after another (MSG-7).

    One statement cannot change a row twice. A row keeps the place of the first of its id and takes
    the fields of the last; `created_at` is the last one given, else the first one's.
    """
    merged: dict[str, MessageRow] = {}
    for row in rows:
        before = merged.get(row.msg_id)
        merged[row.msg_id] = row if before is None else row.over(before)
    return list(merged.values())


def columns(rows: Sequence[MessageRow]) -> Iterator[tuple[bool, tuple[object, ...]]]:
    """Yield those that give `created_at`, and those that do not, as the arrays of their columns.

    The first column is the place in all of the rows, from 1.
    """
    for given in (True, False):
        places = [place for place, row in enumerate(rows, 1) if row.created_at_given is given]
        if not places:
            continue
        arrays = (BigintArray(places), *_arrays(rows[place - 1] for place in places))
        yield given, arrays


def together(
    messages: Mapping[tuple[str, str], MessageRow],
) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Return messages of many sessions, by session and id, as the arrays of two statements.

    The first one counts the messages of each session; the second one stores them, each with the
    number of those that come after it in its session.
    """
    counts, latest, later = count_by_session(
        [(session_id, row) for (session_id, _), row in messages.items()]
    )
    given = [key for key, row in messages.items() if row.created_at_given]
    sessions = (TextArray(counts), BigintArray(counts.values()), BigintArray(latest.values()))
    return sessions, (
        TextArray(session_id for session_id, _ in messages),
        BigintArray(later),
        *_arrays(messages.values()),
        TextArray(session_id for session_id, _ in given),
        TextArray(msg_id for _, msg_id in given),
    )


def _arrays(rows: Iterable[MessageRow]) -> tuple[object, ...]:
    """Return all columns but created_at_given, each as an array."""
    *texts, created_at, updated_at, metadata, _ = zip(*rows, strict=True)
    return (
        *map(TextArray, texts),
        BigintArray(created_at),
        BigintArray(updated_at),
        TextArray(metadata),
    )
