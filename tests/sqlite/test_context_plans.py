"""The statements of contexts find their rows by an index."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from director_db_sqlite import SQLiteDB, sql

STATEMENTS = {
    name: vars(sql)[name]
    for name in (
        "SELECT_CONTEXT",
        "SELECT_CONTEXT_LIST",
        "SELECT_ITEMS",
        "UPSERT_CONTEXT",
        "UPSERT_ITEM",
        "GROW_CONTEXT",
        "DELETE_ITEMS",
        "DELETE_CONTEXT",
        "TOUCH_SESSION",
    )
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_no_table_is_scanned_and_nothing_is_sorted(tmp_path, statement):
    path = tmp_path / "director.db"
    with SQLiteDB(path) as db:
        db.create_session("s")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN {statement}", [1] * statement.count("?")
            ).fetchall()
    steps = [detail for _, _, _, detail in plan]
    assert not [step for step in steps if "SCAN" in step or "TEMP B-TREE" in step]
    if "INSERT" not in statement:
        assert [step for step in steps if step.startswith("SEARCH")]
