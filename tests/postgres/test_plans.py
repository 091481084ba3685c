"""The statements of pages read a page, in tables of 100,000 rows."""

from __future__ import annotations

import json

import pytest
from psycopg.sql import Literal

from director_db_postgres import PostgresDB
from director_db_postgres.statements import Statements
from tests.postgres.calls import sent_statements

ROWS = 100_000
FILL = f"""
    INSERT INTO director_sessions
    SELECT 's' || n, 'v' || n % 10, 'c' || n % 10, n / 7, n / 50, 0, '{{}}',
        'u' || n % 10
    FROM generate_series(1, {ROWS}) n;
    INSERT INTO director_conversations
    SELECT CASE WHEN n <= {ROWS // 2} THEN 's1' ELSE 's' || n % 1000 + 2 END, 'c', 'm' || n, n,
        CASE n WHEN 40000 THEN 'rare' ELSE 'output' END, '[]', '[]', '[]', NULL, 0, 0, '{{}}'
    FROM generate_series(1, {ROWS}) n;
    INSERT INTO director_context_messages
    SELECT 's' || n, '[]', NULL, 0, 2, 1, 0, 0, '{{}}' FROM generate_series(1, {ROWS}) n;
    INSERT INTO director_sessions
    SELECT 'long' || n, NULL, NULL, 0, 0, 0, '{{}}' FROM generate_series(1, 100) n;
    INSERT INTO director_context_messages
    SELECT 'long' || n, '[]', 'null', 1000, 0, 1, 0, 0, '{{}}' FROM generate_series(1, 100) n;
    INSERT INTO director_context_items
    SELECT 'long' || n / 1000 + 1, n % 1000, '{{"n": 1}}' FROM generate_series(0, {ROWS - 1}) n;
    ANALYZE;
"""

STATEMENTS = Statements(None)
PAGE = 50
CURSOR = (1000, 7000, "s50000")
PLANS = {
    "session": (STATEMENTS.select_session, ("s500",), 1),
    "sessions": (
        STATEMENTS.select_sessions(before=False, user=False, video=False, collection=False),
        (PAGE,),
        PAGE,
    ),
    "sessions before": (
        STATEMENTS.select_sessions(before=True, user=False, video=False, collection=False),
        (*CURSOR, PAGE),
        PAGE,
    ),
    "sessions of a video": (
        STATEMENTS.select_sessions(before=True, user=False, video=True, collection=False),
        (*CURSOR, "v3", PAGE),
        PAGE,
    ),
    "sessions of a collection": (
        STATEMENTS.select_sessions(before=True, user=False, video=False, collection=True),
        (*CURSOR, "c3", PAGE),
        PAGE,
    ),
    "sessions of a user": (
        STATEMENTS.select_sessions(before=True, user=True, video=False, collection=False),
        (*CURSOR, "u3", PAGE),
        PAGE,
    ),
    "sessions of a user with a video": (
        STATEMENTS.select_sessions(before=True, user=True, video=True, collection=False),
        (*CURSOR, "u3", "v3", PAGE),
        PAGE,
    ),
    "message": (STATEMENTS.select_message, ("s1", "m500"), 1),
    "first messages": (STATEMENTS.select_first_messages, ("s1", PAGE), PAGE),
    "last messages": (STATEMENTS.select_last_messages, ("s1", PAGE), PAGE),
    "messages after": (STATEMENTS.select_messages_after, ("s1", "m500", PAGE), PAGE),
    "messages before": (STATEMENTS.select_messages_before, ("s1", "m500", PAGE), PAGE),
    "messages by id": (STATEMENTS.select_messages_by_id, ("s1", ["m7", "m500", "x"]), 2),
    "first of a part": (STATEMENTS.select_first_of_part, ("s1", PAGE, "c", "output"), PAGE),
    "last of a type": (STATEMENTS.select_last_of_part, ("s1", PAGE, None, "output"), PAGE),
    "part after": (STATEMENTS.select_part_after, ("s1", "m500", PAGE, "c", None), PAGE),
    "part before": (STATEMENTS.select_part_before, ("s1", "m500", PAGE, "c", "output"), PAGE),
    "context": (STATEMENTS.select_context, ("s500",), 1),
    "long context": (STATEMENTS.select_context, ("long50",), 1001),
    "context's length": (STATEMENTS.select_context_length, ("long50", 1), 1),
}


@pytest.fixture(scope="module")
def filled(server):
    name = "plans"
    with server.connect() as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    with PostgresDB(server.dsn(name)) as db:
        db.get_session("s")
        with server.connect(name) as connection:
            connection.execute(FILL)
            yield connection
    with server.connect() as admin:
        admin.execute(f"DROP DATABASE {name} (FORCE)")


def _nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def in_execute(parameters):
    return ", ".join(Literal(parameter).as_string() for parameter in parameters)


CASES = [
    pytest.param(*plan, mode, id=f"{name}-{mode}")
    for name, plan in PLANS.items()
    for mode in ("force_custom_plan", "force_generic_plan", "auto")
    # A plan for an unknown limit would scan, so the planner's own choice ("auto") is another one.
    if not (mode == "force_generic_plan" and name.startswith("sessions"))
]


@pytest.mark.parametrize(("statement", "parameters", "rows", "mode"), CASES)
def test_a_page_is_read_by_an_index(filled, statement, parameters, rows, mode):
    values = in_execute(parameters)
    filled.execute(f"SET plan_cache_mode = {mode}")
    filled.execute(b"PREPARE page AS " + statement)
    try:
        for _ in range(7):
            found = filled.execute(f"EXECUTE page ({values})").fetchall()
        (explained,) = filled.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE page ({values})"
        ).fetchone()
    finally:
        filled.execute("DEALLOCATE page")
    plan = (
        explained[0]["Plan"] if not isinstance(explained, str) else json.loads(explained)[0]["Plan"]
    )
    scans = [node["Node Type"] for node in _nodes(plan)]
    assert len(found) == rows
    assert "Seq Scan" not in scans
    assert "Sort" not in scans
    read = [
        node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
        for node in _nodes(plan)
    ]
    assert max(read) <= rows


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan", "auto"])
@pytest.mark.parametrize("back", [9_999, 45_000])
def test_the_latest_of_a_kind_is_sought_from_the_end(filled, mode, back):
    """However rare the planner knows it to be, no more is read than lies behind it."""
    filled.execute(f"SET plan_cache_mode = {mode}")
    values = "'s1', 1, NULL, 'rare'"
    filled.execute("BEGIN")
    try:
        filled.execute("UPDATE director_conversations SET msg_type = 'output' WHERE seq = 40000")
        filled.execute(
            "UPDATE director_conversations SET msg_type = 'rare' WHERE session_id = 's1' AND seq ="
            f" {ROWS // 2 - back}"
        )
        name = f"latest_{back}_{mode}"
        filled.execute(f"PREPARE {name} AS ".encode() + STATEMENTS.select_last_of_part)
        for _ in range(7):
            (explained,) = filled.execute(
                f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE {name} ({values})"
            ).fetchone()
    finally:
        filled.execute("ROLLBACK")
    nodes = list(_nodes(explained[0]["Plan"]))
    assert ["Limit", "Index Scan"] == [node["Node Type"] for node in nodes]
    assert [1, back] == [nodes[-1]["Actual Rows"], nodes[-1]["Rows Removed by Filter"]]


def test_the_last_of_a_rare_conversation_is_popped_from_the_end(filled):
    filled.execute("SET plan_cache_mode = force_custom_plan")
    filled.execute("BEGIN")
    try:
        filled.execute(
            "UPDATE director_conversations SET conv_id = 'rare' WHERE session_id = 's1' AND seq = "
            "(SELECT max(seq) FROM director_conversations WHERE session_id = 's1')"
        )
        filled.execute("ANALYZE director_conversations")
        filled.execute(b"PREPARE locking AS " + STATEMENTS.lock_session)
        filled.execute("EXECUTE locking ('s1')")
        statement = STATEMENTS.pop_message_of_conversation
        filled.execute(b"PREPARE popped AS " + statement)
        (explained,) = filled.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE popped ('s1', 'rare')"
        ).fetchone()
    finally:
        filled.execute("ROLLBACK")
    (limit,) = [node for node in _nodes(explained[0]["Plan"]) if node["Node Type"] == "Limit"]
    sought = [node for node in _nodes(limit) if node["Node Type"] == "Index Scan"]
    assert [(1, 0)] == [
        (node["Actual Rows"], node.get("Rows Removed by Filter", 0))
        for node in sought
        if node["Relation Name"] == "director_conversations"
    ]


CONTEXT_WRITES = {
    "save": [
        (
            "save_context",
            "'long50', 1, '[]', true, 'null', 900, 9000, 7, 1, false, 1, '{}'",
        ),
        ("touch_session", "'long50', 7, 1"),
        ("cut_items", "'long50', 7, 900"),
        ("write_items", """'long50', 7, '{4,5,899}', ARRAY['{"n": 1}', 'a', 'b']"""),
    ],
    "append": [
        ("select_context_version", "'long50'"),
        ("append_to_context", "'long50', 'null', '[]', 2, 9, 9, 7, 1, 67108864"),
        ("touch_session", "'long50', 7, 1"),
        ("append_items", "'long50', 7, 2, '{a,b}'"),
    ],
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", CONTEXT_WRITES)
def test_a_write_of_a_context_reads_only_what_it_changes(filled, name, mode):
    filled.execute(f"SET plan_cache_mode = {mode}")
    nodes = []
    filled.execute("BEGIN")
    try:
        filled.execute("SELECT FROM director_sessions WHERE session_id = 'long50' FOR UPDATE")
        for step, values in CONTEXT_WRITES[name]:
            # Not deallocated: psycopg does that with all of them after a ROLLBACK.
            prepare = f"PREPARE {name}_{step}_{mode} AS ".encode()
            filled.execute(prepare + getattr(STATEMENTS, step))
            (explained,) = filled.execute(
                f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE {name}_{step}_{mode} ({values})"
            ).fetchone()
            nodes += _nodes(explained[0]["Plan"])
        written = filled.execute(
            "SELECT item FROM director_context_items WHERE session_id = 'long50' ORDER BY idx"
        ).fetchall()
    finally:
        filled.execute("ROLLBACK")
    assert [("a",), ("b",)] == [row for row in written if len(row[0]) == 1]
    assert "Seq Scan" not in [node["Node Type"] for node in nodes]
    # 100 items go, and no other one is read but those that are replaced.
    assert 100 >= max(
        node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
        for node in nodes
        if node.get("Relation Name", "").startswith("director_")
    )


# Few sessions, each long: what is sought in a session's rows is soon found by reading them all, or
# so the planner thinks.
FILL_LONG = f"""
    INSERT INTO director_sessions
    SELECT 's' || n, 'v', 'c', n, n, 0, '{{}}' FROM generate_series(0, 9) n;
    INSERT INTO director_conversations
    SELECT 's' || n % 10, 'c', 'm' || n, n, 'output', '[]', '[]', '[]', NULL, 0, 0, '{{}}'
    FROM generate_series(1, {ROWS}) n;
    INSERT INTO director_context_messages
    SELECT 's' || n, '[]', 'null', {ROWS // 10}, 0, 1, 0, 0, '{{}}' FROM generate_series(0, 9) n;
    INSERT INTO director_context_items
    SELECT 's' || n % 10, n / 10, '{{"n": 1}}' FROM generate_series(0, {ROWS - 1}) n;
    ANALYZE;
"""
LARGE = {
    "plans": {
        "director_sessions",
        "director_conversations",
        "director_context_messages",
        "director_context_items",
    },
    "long": {"director_conversations", "director_context_items"},
}
BULK = ", ".join(f"'{{{one},{one}}}'" for one in (1, "c", "m", "t", *["[]"] * 3, "x", 1, 1, "7"))
# For what no call of calls.py sends, or where other values are harder on the planner.
PARAMETERS = {
    "count_together": "'{s1,s2}', '{1,1}', '{1,1}'",
    "upsert_together": f"'{{s1,s2}}', {BULK}, '{{s2}}', '{{m}}'",
    "select_first_of_part": "'s1', 50, 'c', 'rare'",
    "select_last_of_part": "'s1', 1, NULL, 'rare'",
    "select_messages_after": "'s1', 'm501', 50",
    "select_messages_before": "'s1', 'm501', 50",
    "select_messages_by_id": "'s1', '{m1,m501,x}'",
    "select_part_after": "'s1', 'm501', 50, 'x', NULL",
    "select_part_before": "'s1', 'm501', 1, 'c', 'rare'",
    "claim_session": "'copy'",
    "release_session": "'s1'",
    "select_context_length": "'s1', 1",
    "select_holder": "'s1'",
}
# They read a table of one row, and no row at all.
WITHOUT_TABLES = {"select_schema_version", "probe_tables"}


NAMES = {
    name for name, value in vars(STATEMENTS).items() if isinstance(value, bytes)
} - WITHOUT_TABLES


@pytest.fixture(scope="module")
def parameters(server):
    """For each statement the parameters of a call, as they stand in an EXECUTE."""
    with server.connect() as admin:
        admin.execute("CREATE DATABASE called TEMPLATE template0")
    with PostgresDB(server.dsn("called")) as db:
        sent = {
            statement: in_execute(parameters)
            for statement, parameters in sent_statements(db).items()
        }
    assert PARAMETERS.keys() <= NAMES
    of_calls = {name: sent.get(getattr(STATEMENTS, name)) for name in NAMES}
    return {**of_calls, **PARAMETERS}


@pytest.fixture(scope="module")
def long_sessions(server):
    name = "long"
    with server.connect() as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    with PostgresDB(server.dsn(name)) as db:
        db.get_session("s")
        with server.connect(name) as connection:
            connection.execute(FILL_LONG)
            yield connection
    with server.connect() as admin:
        admin.execute(f"DROP DATABASE {name} (FORCE)")


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan", "auto"])
@pytest.mark.parametrize("tables", ["plans", "long"])
@pytest.mark.parametrize("name", sorted(NAMES))
def test_no_large_table_is_scanned(filled, long_sessions, parameters, name, tables, mode):
    values = parameters[name]
    assert values is not None, "calls.py has no call that sends it"
    if tables == "plans":
        connection, values = filled, values.replace("'s1'", "'s50'")
    else:
        connection = long_sessions
    connection.execute(f"SET plan_cache_mode = {mode}")
    connection.execute(b"PREPARE looked_at AS " + getattr(STATEMENTS, name))
    try:
        # Of the first five the server plans each; then it may choose a plan for all.
        for _ in range(7):
            (explained,) = connection.execute(
                f"EXPLAIN (FORMAT JSON) EXECUTE looked_at ({values})"
            ).fetchone()
            scanned = {
                node["Relation Name"]
                for node in _nodes(explained[0]["Plan"])
                if node["Node Type"] == "Seq Scan"
            }
            assert set() == scanned & LARGE[tables]
    finally:
        connection.execute("DEALLOCATE looked_at")
