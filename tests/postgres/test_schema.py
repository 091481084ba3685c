"""Creating the tables, and telling those of others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from psycopg import sql

from director_db import ConfigurationError, SchemaError
from director_db_conformance.dsn import replace

pytestmark = pytest.mark.sampled

TABLES = (
    "SELECT table_schema, table_name FROM information_schema.tables"
    " WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"
)
OURS = [
    "director_context_items",
    "director_context_messages",
    "director_conversations",
    "director_meta",
    "director_sessions",
]

# As the system before director-db made them.
OLD_TABLES = """
    CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY, video_id TEXT, collection_id TEXT,
        created_at BIGINT, updated_at BIGINT, metadata JSONB
    );
    CREATE TABLE conversations (
        session_id TEXT, conv_id TEXT, msg_id TEXT PRIMARY KEY, msg_type TEXT, agents JSONB,
        actions JSONB, content JSONB, status TEXT, created_at BIGINT, updated_at BIGINT,
        metadata JSONB, FOREIGN KEY (session_id) REFERENCES sessions(session_id)
    );
    CREATE TABLE context_messages (
        session_id TEXT PRIMARY KEY, context_data JSONB, created_at BIGINT, updated_at BIGINT,
        metadata JSONB, FOREIGN KEY (session_id) REFERENCES sessions(session_id)
    );
    INSERT INTO sessions VALUES ('s', 'v', 'c', 1, 2, '{}');
"""


def tables(place):
    with place.connect() as connection:
        return connection.execute(TABLES).fetchall()


def test_the_first_operation_creates_the_tables(place, db):
    assert tables(place) == []
    assert db.get_session("s") == {}
    assert tables(place) == [("public", name) for name in OURS]


@pytest.mark.parametrize("schema", [None, "agents"])
def test_many_processes_may_create_them_at_once(place, schema, in_processes):
    create = f"""
        with PostgresDB(dsn, schema={schema!r}) as db:
            wait_for_the_others()
            db.create_session("s")
    """
    in_processes(8, create)
    assert tables(place) == [(schema or "public", name) for name in OURS]


def test_many_threads_may_create_them_at_once(place, new_db):
    instances = [new_db(place.dsn) for _ in range(4)]
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda n: instances[n % 4].create_session(f"s{n}"), range(8)))
    assert len(instances[0].get_sessions()) == 8


def test_two_applications_in_two_schemas_do_not_see_each_other(place, new_db):
    one, two = new_db(place.dsn, schema="one"), new_db(place.dsn, schema='Two "x" %s {}')
    plain = new_db(place.dsn)
    one.create_session("s", video_id="one")
    one.add_or_update_msg_to_conv("s", "c", "m", "input", [], [], "one")
    assert two.get_sessions() == []
    assert two.get_conversations("s") == []
    two.create_session("s", video_id="two")
    two.add_or_update_context_msg("s", [2])
    assert plain.get_session("s") == {}
    two.delete_session("s")
    assert one.get_session("s")["video_id"] == "one"
    assert [m["content"] for m in one.get_conversations("s")] == ["one"]


def test_tables_of_another_framework_do_not_disturb(place, db):
    theirs = """
        CREATE TABLE sessions (id TEXT PRIMARY KEY, data BYTEA, expires TIMESTAMP);
        CREATE TABLE conversations (id BIGINT PRIMARY KEY, title TEXT);
        INSERT INTO sessions (id) VALUES ('theirs');
    """
    with place.connect() as connection:
        connection.execute(theirs)
        db.create_session("ours")
        assert connection.execute("SELECT id FROM sessions").fetchall() == [("theirs",)]
    assert [s["session_id"] for s in db.get_sessions()] == ["ours"]


def test_the_old_layout_is_refused_and_left_alone(place, db):
    with place.connect() as connection:
        connection.execute(OLD_TABLES)
    before = tables(place)
    with pytest.raises(SchemaError, match="director-db migrate"):
        db.get_session("s")
    assert db.health_check() is False
    assert tables(place) == before


def test_the_old_layout_in_another_schema_is_none_of_ours(place, new_db):
    with place.connect() as connection:
        connection.execute(OLD_TABLES)
    db = new_db(place.dsn, schema="agents")
    db.create_session("s")
    assert db.get_session("s")["video_id"] is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE director_meta SET value = '4'", "Upgrade director-db-postgres"),
        ("UPDATE director_meta SET value = 'x'", "not director-db's"),
        ("DELETE FROM director_meta", "not director-db's"),
        ("DROP TABLE director_meta", "no director_meta"),
        ("ALTER TABLE director_meta RENAME value TO x", "other columns"),
        ("DROP TABLE director_meta; CREATE TABLE director_meta (key INT)", "other columns"),
    ],
)
def test_a_schema_that_is_not_ours_is_refused_and_left_alone(place, new_db, change, told):
    new_db(place.dsn).create_session("s")
    with place.connect() as connection:
        connection.execute(change)
    before = tables(place)
    db = new_db(place.dsn)
    with pytest.raises(SchemaError, match=told):
        db.get_session("s")
    assert db.health_check() is False
    assert tables(place) == before


def test_health_sees_a_table_that_is_gone(place, db):
    db.create_session("s")
    with place.connect() as connection:
        connection.execute("DROP TABLE director_context_items")
    with pytest.raises(SchemaError, match="director_context_items"):
        db.health()


def test_health_creates_what_somebody_dropped(place, db):
    db.create_session("s")
    with place.connect() as connection:
        names = sql.SQL(", ").join(map(sql.Identifier, OURS))
        connection.execute(sql.SQL("DROP TABLE {}").format(names))
    assert db.health_check() is True
    assert db.get_sessions() == []


def test_no_schema_in_the_search_path_is_told(place, new_db):
    db = new_db(f"{place.dsn}?options=-c%20search_path%3Dnowhere")
    with pytest.raises(ConfigurationError, match="POSTGRES_SCHEMA"):
        db.get_session("s")


def test_a_repeatable_read_by_default_changes_nothing(place, new_db):
    isolated = f"{place.dsn}?options=-c%20default_transaction_isolation%3Drepeatable%5C%20read"
    instances = [new_db(isolated) for _ in range(4)]
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda n: instances[n % 4].create_session("s"), range(8)))
        lengths = list(
            executor.map(lambda n: instances[n % 4].append_context_messages("s", [n]), range(16))
        )
    assert sorted(lengths) == list(range(1, 17))


def test_deleting_the_row_by_other_means_leaves_no_orphans(place, db):
    db.create_session("s")
    db.add_or_update_msg_to_conv("s", "c", "m", "input", [], [], [])
    db.add_or_update_context_msg("s", [])
    with place.connect() as connection:
        connection.execute("DELETE FROM director_sessions")
        left = connection.execute(
            "SELECT count(*) FROM director_conversations, director_context_messages"
        ).fetchone()
    assert left == (0,)
    assert db.get_conversations("s") == []


@pytest.mark.parametrize("first", ["public", "own"])
def test_without_a_schemas_name_only_the_first_of_the_search_path_counts(place, new_db, first):
    """Two users of one database do not meet, whoever comes first."""
    with place.connect() as admin:
        admin.execute(
            "CREATE ROLE app LOGIN PASSWORD 'x'; CREATE SCHEMA app AUTHORIZATION app;"
            "GRANT CREATE ON SCHEMA public TO public"
        )
    try:
        own = replace(place.dsn, user="app", password="x")  # noqa: S106 - a throw-away role
        for dsn in (place.dsn, own) if first == "public" else (own, place.dsn):
            db = new_db(dsn)
            assert db.get_sessions() == []
            db.create_session(dsn[-5:])
            assert len(db.get_sessions()) == 1
        with place.connect() as admin:
            tables = admin.execute(
                "SELECT schemaname FROM pg_tables WHERE tablename = 'director_meta' ORDER BY 1"
            ).fetchall()
            assert tables == [("app",), ("public",)]
    finally:
        with place.connect() as admin:
            admin.execute("DROP SCHEMA app CASCADE; DROP OWNED BY app; DROP ROLE app")


def test_a_schema_whose_name_is_reserved(place, new_db):
    with pytest.raises(ConfigurationError, match="reserved"):
        new_db(place.dsn, schema="pg_foo").get_sessions()


def test_who_must_not_alter_old_tables_is_told_who_has_to(place, new_db):
    folder = Path(__file__).parents[1] / "upgrades"
    with place.connect() as admin:
        admin.execute((folder / "version_1.postgres.sql").read_text(encoding="utf-8"))
        admin.execute(
            "CREATE ROLE app LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA public TO app;"
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app"
        )
    try:
        db = new_db(replace(place.dsn, user="app", password="x"))  # noqa: S106 - a throw-away role
        with pytest.raises(
            SchemaError, match=r"owner of table.*As their owner, run: director-db migrate"
        ):
            db.get_sessions()
        assert new_db(place.dsn).migrate() == (0, 0, 0, 0, [])
        assert db.get_sessions() == []
    finally:
        with place.connect() as admin:
            admin.execute("DROP OWNED BY app; DROP ROLE app")


def test_an_owner_who_lacks_a_right_on_the_schema_is_told_which(place, new_db):
    folder = Path(__file__).parents[1] / "upgrades"
    script = (folder / "version_1.postgres.sql").read_text(encoding="utf-8")
    with place.connect() as admin:
        admin.execute(
            "CREATE ROLE app LOGIN PASSWORD 'x'; GRANT USAGE, CREATE ON SCHEMA public TO app"
        )
        admin.execute(
            f"SET ROLE app; {script}; RESET ROLE; REVOKE CREATE ON SCHEMA public FROM app"
        )
    try:
        db = new_db(replace(place.dsn, user="app", password="x"))  # noqa: S106 - a throw-away role
        grant = "GRANT CREATE ON SCHEMA public TO app"
        for use in (db.get_sessions, db.migrate):
            with pytest.raises(SchemaError, match=f"run in SQL: {grant}"):
                use()
        with place.connect() as admin:
            admin.execute(grant)
        assert db.get_sessions() == []
    finally:
        with place.connect() as admin:
            admin.execute("DROP OWNED BY app; DROP ROLE app")
