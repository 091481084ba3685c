"""Carrying the old system's tables over, whole or not at all."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc

import psycopg
import pytest
from psycopg import sql

from director_db import BackendUnavailableError, ConfigurationError, SchemaError, load_db
from director_db.records import Migration
from director_db_conformance.clauses.arrange import fields
from director_db_postgres import PostgresDB

pytestmark = pytest.mark.sampled

NOTHING = Migration(0, 0, 0, 0, [])
BUSY = Migration(3, 30, 2, 0, [])

TABLES = """
    CREATE TABLE {schema}sessions (
        session_id TEXT PRIMARY KEY, video_id TEXT, collection_id TEXT,
        created_at BIGINT, updated_at BIGINT, metadata {json}
    );
    CREATE TABLE {schema}conversations (
        session_id TEXT, conv_id TEXT, msg_id TEXT PRIMARY KEY, msg_type TEXT, agents {json},
        actions {json}, content {json}, status TEXT, created_at BIGINT, updated_at BIGINT,
        metadata {json}
    );
    CREATE TABLE {schema}context_messages (
        session_id TEXT PRIMARY KEY, context_data {json}, created_at BIGINT, updated_at BIGINT,
        metadata {json}
    );
"""
OLD = ["sessions", "conversations", "context_messages"]
OURS = [
    "director_context_items",
    "director_context_messages",
    "director_conversations",
    "director_meta",
    "director_sessions",
]
BACKUPS = ["old_context_messages", "old_conversations", "old_sessions"]


class OldApplication:
    """Writes a database as the old system did."""

    def __init__(self, place, schema=None):
        self.place = place
        self.prefix = f"{schema}." if schema else ""
        self.schema = schema or "public"

    def run(self, statement, *values):
        with self.place.connect() as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def create_tables(self, json_type="JSONB"):
        self.run(TABLES.format(schema=self.prefix, json=json_type))

    def session(self, session_id, video_id=None, collection_id=None, times=(1, 2), metadata="{}"):
        self._insert("sessions", session_id, video_id, collection_id, *times, metadata)

    def message(self, session_id, msg_id, content='["text"]', times=(3, 4), **fields):
        columns = {
            "conv_id": "c",
            "msg_type": "input",
            "agents": "[]",
            "actions": "[]",
            "status": None,
            "metadata": "{}",
        } | fields
        self._insert(
            "conversations",
            *(session_id, columns["conv_id"], msg_id, columns["msg_type"], columns["agents"]),
            *(columns["actions"], content, columns["status"], *times, columns["metadata"]),
        )

    def context(self, session_id, context_data='{"reasoning": []}', times=(5, 6), metadata="{}"):
        self._insert("context_messages", session_id, context_data, *times, metadata)

    def rows(self, prefix=""):
        return [
            self.run(f"SELECT ctid::text, * FROM {self.prefix}{prefix}{name} ORDER BY 2, 4")
            for name in OLD
        ]

    def tables(self):
        statement = (
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s ORDER BY 1"
        )
        return [name for (name,) in self.run(statement, self.schema)]

    def _insert(self, table, *values):
        marks = ", ".join(["%s"] * len(values))
        self.run(f"INSERT INTO {self.prefix}{table} VALUES ({marks})", *values)


def fill(application):
    """Write enough to be told from others: 3 sessions, 30 messages, 2 contexts."""
    application.run(f"""
        INSERT INTO {application.prefix}sessions
        SELECT 's' || n, 'v', 'c', n, n, '{{}}' FROM generate_series(0, 2) n;
        INSERT INTO {application.prefix}conversations
        SELECT 's' || n % 3, 'c', 'm' || n, 'input', '[]', '[]',
            json_build_array(n), NULL, 3, 4, '{{}}'
        FROM generate_series(0, 29) n;
        INSERT INTO {application.prefix}context_messages
        SELECT 's' || n, json_build_object('reasoning', json_build_array(n)), 5, 6, '{{}}'
        FROM generate_series(0, 1) n;
    """)


@pytest.fixture
def old(place):
    application = OldApplication(place)
    application.create_tables()
    return application


@pytest.fixture
def busy(old):
    fill(old)
    return old


# --- What is carried over -----------------------------------------------------------------------


@pytest.mark.parametrize("json_type", ["JSONB", "JSON", "TEXT"])
def test_every_record_is_the_same(place, db, json_type):
    old = OldApplication(place)
    old.create_tables(json_type)
    old.session("s1", "v1", "c1", (100, 200), json.dumps({"a": [1.0, 1, None, True]}))
    old.session("s2", None, "", (300, 150), None)
    content = [{"text": "h\u00e9 \U0001f600", "type": "text"}, {"a": 2, "b": 0.1}]
    old.message(
        "s1",
        "m1",
        json.dumps(content),
        (101, 102),
        conv_id="",
        msg_type="output",
        agents='["editor", "search"]',
        actions=json.dumps([{"id": 2**70}]),
        status="success",
        metadata='{"k": "v"}',
    )
    old.message("s1", "m2", None, (103, None), agents="null", actions=None, metadata=None)
    old.message("s2", "m3", "5", (0, -5), conv_id=None)
    old.context("s1", json.dumps({"reasoning": [{"content": "x", "role": "user"}]}), (7, 8), None)
    old.context("s2", '[{"role": "system"}, 1.0]', (9, 10), '{"m": []}')
    assert Migration(2, 3, 2, 0, []) == db.migrate()
    assert [
        {
            "session_id": "s1",
            "video_id": "v1",
            "collection_id": "c1",
            "created_at": 100,
            "updated_at": 200,
            "metadata": {"a": [1.0, 1, None, True]},
            "user_id": None,
        },
        {
            "session_id": "s2",
            "video_id": None,
            "collection_id": "",
            "created_at": 300,
            "updated_at": 150,
            "metadata": {},
            "user_id": None,
        },
    ] == [fields(session) for session in db.get_sessions()]
    assert [
        {
            "session_id": "s1",
            "conv_id": "",
            "msg_id": "m1",
            "msg_type": "output",
            "agents": ["editor", "search"],
            "actions": [{"id": 2**70}],
            "content": content,
            "status": "success",
            "created_at": 101,
            "updated_at": 102,
            "metadata": {"k": "v"},
            "revision": None,
        },
        {
            "session_id": "s1",
            "conv_id": "c",
            "msg_id": "m2",
            "msg_type": "input",
            "agents": None,
            "actions": None,
            "content": None,
            "status": None,
            "created_at": 103,
            "updated_at": 103,
            "metadata": {},
            "revision": None,
        },
    ] == db.get_conversations("s1")
    assert [("m3", None, 5, 0, -5)] == [
        tuple(m[key] for key in ("msg_id", "conv_id", "content", "created_at", "updated_at"))
        for m in db.get_conversations("s2")
    ]
    assert {
        "session_id": "s1",
        "context": {"reasoning": [{"content": "x", "role": "user"}]},
        "created_at": 7,
        "updated_at": 8,
        "metadata": {},
    } == fields(db.get_context("s1"))
    assert {
        "session_id": "s2",
        "context": [{"role": "system"}, 1.0],
        "created_at": 9,
        "updated_at": 10,
        "metadata": {"m": []},
    } == fields(db.get_context("s2"))


def test_what_is_stored_is_what_a_write_stores(place, db, new_db):
    """JSONB cannot hold these, but the old system's other column types can."""
    value = {"z": 1, "a": [-0.0, 1e300, "\0 \ud83d", 1.0]}
    old = OldApplication(place)
    old.create_tables("TEXT")
    old.message("s1", "m1", json.dumps(value), metadata=json.dumps(value))
    old.context("s1", json.dumps(value))
    db.migrate()
    written = new_db(place.dsn, schema="written")
    written.create_session("s1")
    written.add_or_update_msg_to_conv("s1", "c", "m1", "input", [], [], value, metadata=value)
    written.add_or_update_context_msg("s1", value)
    for statement in (
        "SELECT agents, actions, content, metadata FROM {}director_conversations",
        "SELECT context_data, list_key, list_len, bytes, metadata FROM {}director_context_messages",
    ):
        expected = old.run(statement.format("written."))
        assert 1 == len(expected)
        assert expected == old.run(statement.format(""))
    assert json.dumps(value) == json.dumps(db.get_context_messages("s1"))


def test_messages_are_where_the_old_application_showed_them(db, busy):
    # What is updated moves to the end of the table, and each has the same time.
    busy.run("UPDATE conversations SET status = 'done' WHERE msg_id IN ('m3', 'm4')")
    shown = [m for (m,) in busy.run("SELECT msg_id FROM conversations WHERE session_id = 's0'")]
    assert [*(f"m{n}" for n in range(0, 30, 3) if n != 3), "m3"] == shown
    db.migrate()
    assert shown == [m["msg_id"] for m in db.get_conversations("s0")]


def test_many_pages_of_rows_keep_their_order(db, old):
    old.run("""
        INSERT INTO conversations
        SELECT 's' || n % 4, 'c', md5(n::text), 'output', '[]', '[]',
            json_build_array(n, repeat('x', 200)), NULL, -n, n, '{}'
        FROM generate_series(1, 3000) n
    """)
    assert (0, 3000, 0, 4) == db.migrate()[:4]
    for session in range(4):
        numbers = [m["content"][0] for m in db.get_conversations(f"s{session}")]
        assert [n for n in range(1, 3001) if n % 4 == session] == numbers


def test_orphans_get_a_session_with_their_times(db, old):
    old.session("s1", times=(50, 60))
    old.message("gone", "m1", times=(30, 31))
    old.message("gone", "m2", times=(20, 21))
    old.message("s1", "m3", times=(1, 99))
    old.context("gone", "[1]", times=(25, 40))
    old.context("alone", "[2]", times=(7, 8))
    assert Migration(1, 3, 2, 2, []) == db.migrate()
    made = dict.fromkeys(["video_id", "collection_id", "user_id"]) | {"metadata": {}}
    assert [
        {"session_id": "s1", "created_at": 50, "updated_at": 60, **made},
        {"session_id": "gone", "created_at": 20, "updated_at": 40, **made},
        {"session_id": "alone", "created_at": 7, "updated_at": 8, **made},
    ] == [fields(session) for session in db.get_sessions()]
    assert ["m1", "m2"] == [m["msg_id"] for m in db.get_conversations("gone")]
    assert ([1], [2]) == (db.get_context_messages("gone"), db.get_context_messages("alone"))
    # The places of new messages come after those carried over, and start with the first.
    assert [("alone", 0), ("gone", 2), ("s1", 3)] == old.run(
        "SELECT session_id, last_seq FROM director_sessions ORDER BY 1"
    )
    db.add_or_update_msg_to_conv("alone", "c", "m4", "input", [], [], [])
    assert ["m4"] == [m["msg_id"] for m in db.get_conversations("alone")]


@pytest.mark.parametrize("schema", [None, "agents"])
def test_the_old_tables_are_a_backup_in_the_same_schema(place, new_db, schema):
    old = OldApplication(place, schema)
    old.run("CREATE SCHEMA agents")
    old.create_tables()
    fill(old)
    before = old.rows()
    db = new_db(place.dsn, schema=schema)
    assert BUSY == db.migrate()
    assert sorted(OURS + BACKUPS) == old.tables()
    assert before == old.rows("old_")
    assert 3 == len(db.get_sessions())


def test_life_goes_on_after_it(db, busy):
    db.migrate()
    db.add_or_update_msg_to_conv("s0", "c", "new", "input", [], [], [])
    db.add_or_update_msg_to_conv("s0", "c", "m3", "input", [], [], ["changed"])
    ids = [message["msg_id"] for message in db.get_conversations("s0")]
    assert [*(f"m{number}" for number in range(0, 30, 3)), "new"] == ids
    message = db.get_message("s0", "m3")
    assert (["changed"], 3) == (message["content"], message["created_at"])
    assert 2 == db.append_context_messages("s0", [1])
    assert (True, []) == db.delete_session("s0")
    assert {} == db.get_context("s0")
    with pytest.raises(psycopg.errors.UndefinedTable):
        busy.message("s0", "late")


def test_it_streams(db, old):
    text_bytes = 40_000
    old.run(
        "INSERT INTO conversations SELECT 's', 'c', 'm' || n, 't', '[]', '[]',"
        " json_build_array(repeat('x', %s)), NULL, 1, 1, '{}' FROM generate_series(1, 500) n",
        text_bytes,
    )
    tracemalloc.start()
    try:
        assert 500 == db.migrate().messages
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500 * text_bytes / 4


def test_a_database_of_another_encoding(new_place, new_db):
    place = new_place("LATIN1")
    old = OldApplication(place)
    old.create_tables("TEXT")
    old.session("s1", "h\u00e9", metadata='{"k": "\\u20ac"}')
    old.message("s1", "m1", '["\\ud83d\\ude00 h\u00e9"]')
    old.context("s1", '["\\u20ac"]')
    db = new_db(place.dsn)
    assert Migration(1, 1, 1, 0, []) == db.migrate()
    session = db.get_session("s1")
    assert ("h\u00e9", {"k": "\u20ac"}) == (session["video_id"], session["metadata"])
    assert ["\U0001f600 h\u00e9"] == db.get_message("s1", "m1")["content"]
    assert ["\u20ac"] == db.get_context_messages("s1")


# --- Where there is nothing to do ---------------------------------------------------------------


def test_again_is_nothing(place, db, new_db, busy):
    assert [BUSY, NOTHING] == [db.migrate(), db.migrate()]
    assert 3 == len(db.get_sessions())
    assert NOTHING == new_db(place.dsn).migrate()


@pytest.mark.parametrize("there", ["nothing", "ours"])
def test_a_database_without_old_tables_is_as_any_other(place, db, there):
    if there == "ours":
        db.create_session("s1")
    assert NOTHING == db.migrate()
    assert OURS == OldApplication(place).tables()
    assert (there == "ours") == bool(db.get_session("s1"))


def test_tables_of_other_frameworks_stay(db, busy):
    busy.run("""
        DROP TABLE sessions; CREATE TABLE sessions (id TEXT, app_name TEXT);
        INSERT INTO sessions VALUES ('1', 'x');
        DROP TABLE context_messages;
    """)
    assert Migration(0, 30, 0, 3, []) == db.migrate()
    assert [("1", "x")] == busy.run("SELECT * FROM sessions")
    assert sorted([*OURS, "old_conversations", "sessions"]) == busy.tables()


# --- What cannot be carried over ----------------------------------------------------------------


DEEP = "[" * 201 + "]" * 201


def spoil(old):
    """Add rows that break a rule, and a good one that names the session of one of them."""
    old.session("", times=(1, 1))
    old.session("bad-metadata", metadata=DEEP)
    old.message("bad-metadata", "follows", times=(11, 12))
    old.message("", "nobody")
    old.message("s0", "")
    old.message("s0", "deep", DEEP)
    old.context("", "[]")
    old.context("s2", DEEP)


SPOILED = [
    "sessions, ctid (0,4), session_id: an id has at least 1 character",
    f"sessions, ctid (0,5), metadata{'[0]' * 200}: nests more than 200 deep",
    "conversations, ctid (0,32), session_id: an id has at least 1 character",
    "conversations, ctid (0,33), msg_id: an id has at least 1 character",
    f"conversations, ctid (0,34), content{'[0]' * 200}: nests more than 200 deep",
    "context_messages, ctid (0,3), session_id: an id has at least 1 character",
    f"context_messages, ctid (0,4), context_data{'[0]' * 200}: nests more than 200 deep",
]


def test_by_default_one_bad_row_stops_it_and_nothing_is_changed(db, busy):
    spoil(busy)
    before = busy.rows()
    with pytest.raises(SchemaError, match="7 rows of the old tables cannot be") as caught:
        db.migrate()
    assert all(text in str(caught.value) for text in SPOILED[:5])
    assert "; and 2 more. Correct them" in str(caught.value)
    assert (sorted(OLD), before) == (busy.tables(), busy.rows())
    with pytest.raises(SchemaError, match=r"director-db migrate$"):
        db.get_sessions()


def test_bad_rows_can_be_left_behind(db, busy):
    spoil(busy)
    before = busy.rows()
    found = db.migrate(skip_invalid=True)
    assert SPOILED == found.skipped
    assert (3, 31, 2, 1) == found[:4]
    assert before == busy.rows("old_")
    # Its own row could not be carried over, but what it held is not lost.
    made = db.get_session("bad-metadata")
    assert (11, 12, {}) == (made["created_at"], made["updated_at"], made["metadata"])
    assert ["follows"] == [m["msg_id"] for m in db.get_conversations("bad-metadata")]
    assert {"s0", "s1", "s2", "bad-metadata"} == {s["session_id"] for s in db.get_sessions()}


def test_text_that_is_not_json_is_named(place, db):
    old = OldApplication(place)
    old.create_tables("TEXT")
    old.message("s1", "m1", "{oops")
    old.message("s1", "m2", '[{"score": NaN}]')
    found = db.migrate(skip_invalid=True)
    assert [
        (
            "conversations, ctid (0,1), content: not JSON: Expecting property name enclosed in "
            "double quotes: line 1 column 2 (char 1)"
        ),
        "conversations, ctid (0,2), content[0].score: nan has no form in JSON",
    ] == found.skipped


def test_text_that_is_not_utf_8_is_named(new_place, new_db):
    place = new_place("SQL_ASCII")
    old = OldApplication(place)
    old.create_tables("TEXT")
    old.run("INSERT INTO sessions VALUES ('s1', E'\\xff', NULL, 1, 2, '{}')")
    old.run("INSERT INTO conversations VALUES ('s1', 'c', 'm1', 't', '[]', '[]', E'[\"\\xff\"]')")
    old.message("s1", "m2", '["h\u00e9"]')
    db = new_db(place.dsn)
    found = db.migrate(skip_invalid=True)
    assert [
        "sessions, ctid (0,1), video_id: a str, not bytes",
        (
            "conversations, ctid (0,1), content: not JSON: 'utf-8' codec can't decode byte 0xff in "
            "position 2: invalid start byte"
        ),
    ] == found.skipped
    assert (0, 1, 0, 1) == found[:4]
    assert ["h\u00e9"] == db.get_message("s1", "m2")["content"]


def test_the_second_row_of_one_key_does_not_replace_the_first(db, old):
    old.run("""
        DROP TABLE conversations;
        CREATE TABLE conversations
            (session_id TEXT, conv_id TEXT, msg_id TEXT, msg_type TEXT, content TEXT);
        INSERT INTO conversations VALUES ('s1', 'c', 'm1', 'input', '"first"'),
            ('s1', 'c', 'm1', 'input', '"second"'), ('s2', 'c', 'm1', 'input', '"third"');
    """)
    found = db.migrate(skip_invalid=True)
    assert ["conversations, ctid (0,2), msg_id: an earlier row has the same one"] == found.skipped
    assert (0, 2, 0, 2) == found[:4]
    # A column that is not there counts as NULL, and a time that nobody knows is 0.
    message = db.get_message("s1", "m1")
    assert ("first", None, {}, 0) == tuple(
        message[key] for key in ("content", "agents", "metadata", "updated_at")
    )


@pytest.mark.parametrize(
    ("statements", "match"),
    [
        ("CREATE TABLE old_conversations (x int)", "has a table old_conversations already"),
        (
            "DROP TABLE sessions; CREATE TABLE sessions (session_id text, title text)",
            "the table sessions lacks collection_id, video_id",
        ),
        # Found only at the very end.
        ("CREATE SEQUENCE old_context_messages", 'relation "old_context_messages" already exists'),
    ],
)
def test_what_is_in_the_way_stops_it_and_nothing_is_changed(db, busy, statements, match):
    busy.run(statements)
    before = busy.tables()
    with pytest.raises(SchemaError, match=match):
        db.migrate()
    assert before == busy.tables()
    assert 30 == len(busy.run("SELECT 1 FROM conversations"))


# --- Faults in the middle -----------------------------------------------------------------------


WAITING = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def wait_for_waiting(connection):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = connection.execute(WAITING).fetchall()
        if found:
            return found[0][0]
        time.sleep(0.01)
    pytest.fail("nobody waits for a lock")


def test_what_the_old_application_still_writes_is_waited_for(place, db, new_db, busy):
    # However little patience calls have: a migration takes its time.
    migrating = new_db(place.dsn, retry_deadline=0.3, operation_timeout=0.6)
    found = []
    with place.connect() as writer, place.connect() as observer:
        with writer.transaction():
            writer.execute("INSERT INTO sessions VALUES ('late', NULL, NULL, 1, 2, '{}')")
            thread = threading.Thread(target=lambda: found.append(migrating.migrate()))
            thread.start()
            wait_for_waiting(observer)
            time.sleep(1.5)
        thread.join()
    assert [Migration(4, 30, 2, 0, [])] == found
    assert "late" == db.get_session("late")["session_id"]


def test_a_connection_lost_in_the_middle_leaves_everything_as_it_was(place, db, busy):
    # A later table waits for the writer, when an earlier one is locked already.
    before = busy.rows()
    errors = []

    def migrate():
        with pytest.raises(BackendUnavailableError) as caught:
            db.migrate()
        errors.append(caught.value)

    with place.connect() as writer, place.connect() as observer, writer.transaction():
        writer.execute("SELECT 1 FROM context_messages")
        thread = threading.Thread(target=migrate)
        thread.start()
        process_id = wait_for_waiting(observer)
        observer.execute("SELECT pg_terminate_backend(%s, 10000)", (process_id,))
        thread.join()
    assert [(True, True)] == [(error.retryable, error.maybe_applied) for error in errors]
    assert (sorted(OLD), before) == (busy.tables(), busy.rows())
    assert BUSY == db.migrate()


FAIL_AT_LAST = """
    CREATE FUNCTION fail() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF to_regclass('old_conversations') IS NOT NULL THEN
                PERFORM pg_terminate_backend(pg_backend_pid());
            END IF;
        END
    $$;
    CREATE EVENT TRIGGER fail ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
        EXECUTE FUNCTION fail();
"""


def test_a_connection_lost_after_the_last_row_leaves_everything_as_it_was(db, busy):
    before = busy.rows()
    busy.run(FAIL_AT_LAST)
    with pytest.raises(BackendUnavailableError):
        db.migrate()
    assert (sorted(OLD), before) == (busy.tables(), busy.rows())
    busy.run("DROP EVENT TRIGGER fail")
    assert BUSY == db.migrate()


def test_a_statement_timeout_is_none_for_a_migration(place, new_db, old):
    old.run("""
        INSERT INTO sessions SELECT 's' || n, 'v', 'c', n, n, '{}' FROM generate_series(0, 9) n;
        CREATE FUNCTION slow(x jsonb) RETURNS text LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.1); RETURN x::text; END $$;
        ALTER TABLE sessions RENAME TO stored;
        CREATE VIEW sessions AS
            SELECT ctid, session_id, video_id, collection_id, created_at, updated_at,
                slow(metadata) AS metadata
            FROM stored;
    """)
    db = new_db(place.dsn, statement_timeout=0.5)
    assert Migration(10, 0, 0, 0, []) == db.migrate()
    assert 10 == len(db.get_sessions())


# --- Without being asked ------------------------------------------------------------------------


def test_the_first_use_may_do_it(place, new_db, busy):
    db = new_db(place.dsn, migrate=True)
    db.create_session("new")
    assert {"s0", "s1", "s2", "new"} == {session["session_id"] for session in db.get_sessions()}
    assert 10 == len(db.get_conversations("s1"))
    assert NOTHING == db.migrate()


def test_the_first_use_stops_at_a_bad_row(place, new_db, busy):
    spoil(busy)
    db = new_db(place.dsn, migrate=True)
    with pytest.raises(SchemaError, match="7 rows"):
        db.get_sessions()
    assert not db.health_check()
    assert (3, 31, 2, 1) == db.migrate(skip_invalid=True)[:4]
    assert 4 == len(db.get_sessions())


def test_the_environment_may_allow_it(place, busy, monkeypatch):
    monkeypatch.setenv("POSTGRES_DSN", place.dsn)
    monkeypatch.setenv("DB_TYPE", "postgres")
    for value in ("never", ""):
        monkeypatch.setenv("DIRECTOR_DB_MIGRATE", value)
        with load_db() as db, pytest.raises(SchemaError, match="director-db migrate"):
            db.get_sessions()
    monkeypatch.setenv("DIRECTOR_DB_MIGRATE", "yes")
    with pytest.raises(ConfigurationError, match="DIRECTOR_DB_MIGRATE"):
        load_db()
    monkeypatch.setenv("DIRECTOR_DB_MIGRATE", "auto")
    with load_db() as db:
        assert 3 == len(db.get_sessions())
    with load_db(place.dsn) as db:
        assert 3 == len(db.get_sessions())
    monkeypatch.delenv("DIRECTOR_DB_MIGRATE")
    with load_db() as db:
        assert 3 == len(db.get_sessions())


def test_many_processes_that_start_at_once_find_it_migrated_once(db, busy, in_processes):
    use = """
        with PostgresDB(dsn, migrate=True) as db:
            wait_for_the_others()
            db.create_session("p" + number)
            db.add_or_update_msg_to_conv("p" + number, "c", "m", "input", [], [], [])
            print(len(db.get_conversations("s0")), db.migrate().messages)
    """
    assert ["10 0\n"] * 6 == in_processes(6, use)
    assert 9 == len(db.get_sessions())
    assert 30 == sum(len(db.get_conversations(f"s{number}")) for number in range(3))


def test_of_many_threads_that_migrate_at_once_one_does(db, busy):
    found = []
    threads = [threading.Thread(target=lambda: found.append(db.migrate())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [NOTHING] * 7 + [BUSY] == sorted(found)


# --- An old application that goes on ------------------------------------------------------------


def test_old_tables_that_are_there_again_are_a_warning(place, new_db, busy):
    def warnings():
        with PostgresDB(place.dsn) as db:
            return [text for text in db.health().warnings if "old application" in text]

    new_db(place.dsn).migrate()
    assert [] == warnings()
    busy.create_tables()
    assert [] == warnings()
    busy.session("late")
    busy.message("late", "m1")
    expected = (
        "The old application writes to this database: sessions, conversations hold rows, which "
        "director-db does not see. Stop it."
    )
    assert [expected] == warnings()
    before = busy.rows()
    db = new_db(place.dsn, migrate=True)
    assert NOTHING == db.migrate()
    assert {"s0", "s1", "s2"} == {session["session_id"] for session in db.get_sessions()}
    assert before == busy.rows()


def test_old_tables_that_this_user_may_not_read_do_not_disturb(server, place, new_db, busy):
    new_db(place.dsn).migrate()
    busy.create_tables()
    busy.session("late")
    user = sql.Identifier(f"reader_{place.name}")
    with place.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'reader'").format(user))
        for table in OURS:
            connection.execute(sql.SQL("GRANT ALL ON {} TO {}").format(sql.Identifier(table), user))
        try:
            dsn = server.dsn(place.name, user=f"reader_{place.name}", password="reader")  # noqa: S106 - made above
            assert [] == [
                text for text in new_db(dsn).health().warnings if "old application" in text
            ]
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(user))
