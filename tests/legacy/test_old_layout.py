"""Telling the old system's tables from others, and converting their rows."""

from __future__ import annotations

import json
import sys

import pytest

from director_db import ConfigurationError, InvalidRecordError, SchemaError
from director_db.legacy.old_layout import (
    CONTEXT_MESSAGES,
    CONVERSATIONS,
    OLD_TABLES,
    SESSIONS,
    context_from_old,
    is_old_layout,
    message_from_old,
    migrates_on_first_use,
    migration_plan,
    old_tables,
    orphan_session,
    refusal,
    rows_refused,
    session_from_old,
)
from director_db.rows import ContextRow, MessageRow, SessionRow

WHOLE = {table.name: table.columns for table in OLD_TABLES}
OTHERS = {"sessions": ["id", "app_name"], "users": ["id"]}

# An old message's values by column, all of them as the old system would have stored them.
MESSAGE = {
    "session_id": "s1",
    "conv_id": "",
    "msg_id": "m1",
    "msg_type": "output",
    "agents": '["editor"]',
    "actions": "[]",
    "content": '[{"type": "text", "text": "h\\u00e9"}]',
    "status": "success",
    "created_at": 10,
    "updated_at": 20,
    "metadata": "{}",
}


def message(**values):
    return tuple((MESSAGE | values).values())


# --- Recognising --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ({}, []),
        (OTHERS, []),
        (WHOLE, ["sessions", "conversations", "context_messages"]),
        (WHOLE | {"users": ["id"]}, ["sessions", "conversations", "context_messages"]),
        ({"conversations": CONVERSATIONS.columns} | OTHERS, ["conversations"]),
        ({"context_messages": ["session_id", "context_data"]}, ["context_messages"]),
        ({"sessions": ["session_id", "video_id"]}, []),
    ],
)
def test_tables_are_told_by_their_columns(found, names):
    assert names == [table.name for table in old_tables(found)]
    assert names == [table.name for table in migration_plan(found, "here")]
    assert bool(names) == is_old_layout(found)


def test_all_three_names_are_the_old_layout_but_are_not_migrated_with_other_columns():
    found = WHOLE | {"sessions": ["session_id", "user"]}
    assert is_old_layout(found)
    with pytest.raises(SchemaError, match="here: the table sessions lacks collection_id, video_id"):
        migration_plan(found, "here")


@pytest.mark.parametrize("table", OLD_TABLES, ids=lambda table: table.name)
def test_a_backups_name_may_not_be_taken(table):
    assert f"old_{table.name}" == table.backup
    with pytest.raises(SchemaError, match=f"here has a table {table.backup} already"):
        migration_plan(WHOLE | {table.backup: ()}, "here")


def test_the_setting():
    assert [False, False, False, True] == [
        migrates_on_first_use(environ)
        for environ in (
            {},
            {"DIRECTOR_DB_MIGRATE": ""},
            {"DIRECTOR_DB_MIGRATE": "never"},
            {"DIRECTOR_DB_MIGRATE": "auto"},
        )
    ]
    with pytest.raises(ConfigurationError, match=r"DIRECTOR_DB_MIGRATE is 'auto' or .* not 'yes'"):
        migrates_on_first_use({"DIRECTOR_DB_MIGRATE": "yes"})


# --- Converting ---------------------------------------------------------------------------------


def test_a_session():
    row = session_from_old(("s1", "v", None, 1, 2, '{"b": 1, "a": [1.0, -0.0, 1e16]}'))
    expected = SessionRow("s1", "v", None, 1, 2, '{"b":1,"a":[1.0,-0.0,1e+16]}')
    assert expected == row


def test_a_message():
    content = '[{"type":"text","text":"hé"}]'
    expected = MessageRow(
        "",
        "m1",
        "output",
        '["editor"]',
        "[]",
        content,
        "success",
        10,
        20,
        "{}",
        created_at_given=True,
    )
    assert ("s1", expected) == message_from_old(message())


def test_a_context():
    row = context_from_old(("s1", '{"reasoning": [{"role": "user"}]}', 1, 2, '{"k": null}'))
    expected = ContextRow(
        "s1",
        '{"reasoning":[{"role":"user"}]}',
        row.version,
        1,
        2,
        '{"k":null}',
        created_at_given=True,
    )
    assert expected == row
    assert 1 <= row.version < 2**63


def test_the_version_of_a_context_is_never_the_same():
    values = ("s1", "[]", 1, 2, "{}")
    assert context_from_old(values).version != context_from_old(values).version


def test_a_session_for_orphans():
    assert SessionRow("s1", None, None, 1, 2, "{}") == orphan_session("s1", 1, 2)


def test_null_is_null_and_null_metadata_is_empty():
    _, row = message_from_old(
        message(conv_id=None, agents=None, actions=None, content=None, status=None, metadata=None)
    )
    expected = MessageRow(
        None,
        "m1",
        "output",
        "null",
        "null",
        "null",
        None,
        10,
        20,
        "{}",
        created_at_given=True,
    )
    assert expected == row
    assert "{}" == session_from_old(("s1", None, None, 1, 2, None)).metadata
    context = context_from_old(("s1", None, 1, 2, None))
    assert ("null", "{}") == (context.context, context.metadata)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [((5, None), (5, 5)), ((None, 6), (6, 6)), ((None, None), (0, 0)), ((0, None), (0, 0))],
)
def test_a_missing_time_is_the_other_one(stored, expected):
    session = session_from_old(("s1", None, None, *stored, "{}"))
    _, row = message_from_old(message(created_at=stored[0], updated_at=stored[1]))
    context = context_from_old(("s1", "[]", *stored, "{}"))
    assert [expected] * 3 == [
        (found.created_at, found.updated_at) for found in (session, row, context)
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (1.5, "1.5"),
        ("null", "null"),
        (' \t["x"]\n', '["x"]'),
        (b'["bytes"]', '["bytes"]'),
        ('{"b":1,"a":2,"b":3}', '{"b":3,"a":2}'),
        ('"\\ud83d\\ude00"', '"😀"'),
        ('"\\ud83d"', '\t"\\uD83D"'),
        ('"\\u0000"', '"\\u0000"'),
    ],
)
def test_payloads_as_the_old_system_would_read_them(value, text):
    assert text == context_from_old(("s1", value, 1, 2, "{}")).context


def test_a_long_integer_whatever_the_limit_of_this_process():
    digits = "7" * 4300
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert f"[{digits}]" == context_from_old(("s1", f"[{digits}]", 1, 2, "{}")).context
    finally:
        sys.set_int_max_str_digits(limit)


@pytest.mark.parametrize(
    ("values", "path", "reason"),
    [
        ({"session_id": ""}, "session_id", "at least 1 character"),
        ({"session_id": None}, "session_id", "a str, not NoneType"),
        ({"session_id": b"\xff"}, "session_id", "a str, not bytes"),
        ({"msg_id": "x" * 256}, "msg_id", "at most 255 characters; this one has 256"),
        ({"msg_id": "a\0b"}, "msg_id", r"U\+0000"),
        ({"msg_type": None}, "msg_type", "a str, not NoneType"),
        ({"status": "x" * 256}, "status", "at most 255"),
        ({"created_at": 1.5}, "created_at", "not float"),
        ({"updated_at": "2024-01-01"}, "updated_at", "not str"),
        ({"agents": "editor"}, "agents", "not JSON: Expecting value"),
        ({"actions": ""}, "actions", "not JSON"),
        ({"content": "[1,"}, "content", "not JSON"),
        ({"content": b"[\xff]"}, "content", "not JSON: 'utf-8' codec"),
        ({"content": '[{"score": NaN}]'}, r"content[0].score", "nan has no form in JSON"),
        ({"content": "[1e999]"}, "content[0]", "inf has no form in JSON"),
        ({"content": "[" * 201 + "]" * 201}, "content" + "[0]" * 200, "nests more than 200 deep"),
        ({"content": "[" * 99_999}, "content", "nests more than 200 deep"),
        ({"content": "1" * 4301}, "content", "at most 4,300 digits"),
        ({"metadata": "{'a': 1}"}, "metadata", "not JSON"),
        ({"metadata": object()}, "metadata", "JSON text, not object"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_column(values, path, reason):
    with pytest.raises(InvalidRecordError, match=reason) as caught:
        message_from_old(message(**values))
    assert path == caught.value.path


@pytest.mark.parametrize(
    ("convert", "values", "path"),
    [
        (session_from_old, ("", None, None, 1, 2, "{}"), "session_id"),
        (session_from_old, ("s", "x" * 256, None, 1, 2, "{}"), "video_id"),
        (session_from_old, ("s", None, 5, 1, 2, "{}"), "collection_id"),
        (session_from_old, ("s", None, None, 1, 2, "{"), "metadata"),
        (context_from_old, ("", "[]", 1, 2, "{}"), "session_id"),
        (context_from_old, ("s", "[NaN]", 1, 2, "{}"), "context_data[0]"),
        (context_from_old, ("s", "[]", 1.5, 2, "{}"), "created_at"),
        (context_from_old, ("s", "[]", 1, 2**63, "{}"), "updated_at"),
        (context_from_old, ("s", "[]", 1, 2, "x"), "metadata"),
    ],
)
def test_sessions_and_contexts_are_checked_too(convert, values, path):
    with pytest.raises(InvalidRecordError) as caught:
        convert(values)
    assert path == caught.value.path


# --- Telling of what was refused ----------------------------------------------------------------


def test_the_text_of_a_refused_row():
    error = InvalidRecordError("content[0]", "nan has no form in JSON")
    expected = "conversations, rowid 7, content[0]: nan has no form in JSON"
    assert expected == refusal(CONVERSATIONS, "rowid 7", error)


def test_the_error_tells_the_first_few_and_how_many():
    assert (
        "here: 1 row of the old tables cannot be carried over, so nothing was changed: A. Correct "
        "them, or leave them behind in the renamed tables: director-db migrate --skip-invalid"
    ) == str(rows_refused("here", ["A"]))
    message = str(rows_refused("here", [f"row {n}" for n in range(1205)]))
    assert "here: 1,205 rows of the old tables" in message
    assert "row 0; row 1; row 2; row 3; row 4; and 1,200 more. Correct" in message


def test_the_columns_that_the_converters_take():
    assert tuple(MESSAGE) == CONVERSATIONS.columns
    assert SessionRow._fields == (*SESSIONS.columns, "user_id")
    assert ("session_id", "context_data") == CONTEXT_MESSAGES.columns[:2]
    assert {"reasoning": [1]} == json.loads(
        context_from_old(("s1", '{"reasoning": [1]}', 1, 2, "{}")).context
    )
