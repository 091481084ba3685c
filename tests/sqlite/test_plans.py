"""Every statement finds its rows by an index, and reads them in the order of one."""

from __future__ import annotations

import inspect
import itertools
import re
import sqlite3
from contextlib import closing

import pytest

from director_db_sqlite import schema, sql

# All sessions are asked for, so all are read; in the order of an index, so that a page ends early.
ALL_SESSIONS = "select_sessions()"
SCANS = {ALL_SESSIONS: "SCAN director_sessions USING INDEX director_sessions_by_activity"}

PAGES = {
    "select_sessions(before)": "(updated_at,created_at,session_id)<(?,?,?)",
    "select_sessions(before, video)": "video_id=? AND (updated_at,created_at,session_id)<(?,?,?)",
    "select_sessions(before, collection)": (
        "collection_id=? AND (updated_at,created_at,session_id)<(?,?,?)"
    ),
    "select_sessions(before, user)": "user_id=? AND (updated_at,created_at,session_id)<(?,?,?)",
    # Any of them will do.
    "select_sessions(before, video, user)": "_id=? AND (updated_at,created_at,session_id)<(?,?,?)",
    "select_sessions(before, video, collection)": (
        "_id=? AND (updated_at,created_at,session_id)<(?,?,?)"
    ),
    **{
        f"select_messages({', '.join([*way, *begin, *part])})": f"session_id=? AND seq{comparison}?"
        for way, comparison in (((), ">"), (("backward",), "<"))
        for begin in ((), ("cursor",))
        for part in ((), ("conv",), ("kind",), ("conv", "kind"))
    },
}


def statements():
    """Find every statement of sql.py, those that a function puts together in all their forms."""
    found = {
        name: value
        for name, value in vars(sql).items()
        if isinstance(value, str) and name.isupper() and not name.startswith("_")
    }
    # A function that is cached is a routine.
    for name, function in inspect.getmembers(sql, inspect.isroutine):
        if name.startswith("_"):
            continue
        switches = list(inspect.signature(function).parameters)
        if switches == ["size"]:
            found[f"{name}(size)"] = function(4)
            continue
        for chosen in itertools.product((True, False), repeat=len(switches)):
            wanted = dict(zip(switches, chosen, strict=True))
            on = ", ".join(switch for switch in switches if wanted[switch])
            found[f"{name}({on})"] = function(**wanted)
    return found


STATEMENTS = statements()


@pytest.fixture(scope="module", params=["new", "analyzed"])
def database(request):
    """Our tables: as they are made, and with statistics, which may lead the planner elsewhere."""
    with closing(sqlite3.connect(":memory:")) as connection:
        schema.create(connection)
        if request.param == "analyzed":
            connection.executemany(
                "INSERT INTO director_sessions VALUES (?, ?, ?, ?, ?, 0, '{}', ?)",
                [
                    (f"s{n}", f"v{n % 3}", f"c{n % 5}", n // 7, n // 50, f"u{n % 7}")
                    for n in range(2000)
                ],
            )
            connection.executemany(
                "INSERT INTO director_conversations VALUES"
                " (?, 'c', ?, ?, 't', '[]', '[]', '[]', NULL, 0, 0, '{}', NULL)",
                [(f"s{n % 4}", f"m{n}", n) for n in range(2000)],
            )
            connection.execute("ANALYZE")
        yield connection


def plan_of(connection, statement):
    nothing = [None] * statement.count("?")
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", nothing)]


def test_the_statements_are_found():
    assert {"UPSERT_MESSAGE", "DELETE_SESSION", ALL_SESSIONS, *PAGES} <= set(STATEMENTS)


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_scans_or_sorts(database, name):
    plan = plan_of(database, STATEMENTS[name])
    scans = [step for step in plan if re.match(r"SCAN (?!new$|.*(CONSTANT|VIRTUAL TABLE))", step)]
    assert ([SCANS[name]] if name in SCANS else []) == scans
    assert [] == [step for step in plan if "TEMP B-TREE" in step or "AUTOMATIC" in step]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_begins_at_its_cursor(database, name):
    step, *others = plan_of(database, STATEMENTS[name])
    assert step.endswith(f"{PAGES[name]})")
    if "cursor" in name:
        subquery, cursor = others
        assert subquery.startswith("SCALAR SUBQUERY")
        assert cursor.endswith("(session_id=? AND msg_id=?)")
    else:
        assert [] == others


def test_messages_are_found_by_their_ids(database):
    first, *others = plan_of(database, STATEMENTS["SELECT_MESSAGES_BY_ID"])
    assert first.endswith("(session_id=? AND msg_id=?)")
    assert [] == [step for step in others if step.startswith("SEARCH")]


def test_a_cascade_finds_its_rows_by_an_index(database):
    """Foreign keys do not show in a plan: each needs an index that begins with its column."""
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema")]
    keys = [
        (table, key[3])
        for table in tables
        for key in database.execute(f"PRAGMA foreign_key_list({table})").fetchall()
    ]
    assert 3 == len(keys)
    for table, column in keys:
        indexes = database.execute(f"PRAGMA index_list({table})").fetchall()
        firsts = {
            database.execute(f"PRAGMA index_info({index[1]})").fetchall()[0][2] for index in indexes
        }
        assert column in firsts
