"""Many messages in one statement: each id once, and a column of all rows as one array."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director_db_postgres.arrays import BigintArray, TextArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from director_db.rows import MessageRow


def merge(rows: Sequence[MessageRow]) -> list[MessageRow]:
    """Leave each id once, as if the rows had been stored one after another (MSG-7).

    One statement cannot change a row twice. A row keeps the place of the first of its id and takes
    the fields of the last; `created_at` is the last one given, else the first one's.
    """
    merged: dict[str, MessageRow] = {}
    for row in rows:
        before = merged.get(row.msg_id)
        if before is not None and not row.created_at_given:
            created_at, given = before.created_at, before.created_at_given
            merged[row.msg_id] = row._replace(created_at=created_at, created_at_given=given)
        else:
            merged[row.msg_id] = row
    return list(merged.values())


def columns(rows: Sequence[MessageRow]) -> Iterator[tuple[bool, tuple[object, ...]]]:
    """Yield those that give `created_at`, and those that do not, as the arrays of their columns.

    The first column is the place in all of the rows, from 1.
    """
    for given in (True, False):
        places = [place for place, row in enumerate(rows, 1) if row.created_at_given is given]
        if not places:
            continue
        (
            conv_ids,
            msg_ids,
            msg_types,
            agents,
            actions,
            contents,
            statuses,
            created_at,
            updated_at,
            metadata,
            _,
        ) = zip(*(rows[place - 1] for place in places), strict=True)
        arrays = (
            BigintArray(places),
            *map(TextArray, (conv_ids, msg_ids, msg_types, agents, actions, contents, statuses)),
            BigintArray(created_at),
            BigintArray(updated_at),
            TextArray(metadata),
        )
        yield given, arrays
