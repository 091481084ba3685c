"""What sharding by the session's id asks of the schema and of the statements."""

from __future__ import annotations

import importlib
import pkgutil
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from director_db import (
    InvalidRecordError,
    SchemaError,
    SessionExistsError,
    SessionNotFoundError,
)
from director_db_postgres import PostgresDB, sql
from director_db_postgres.sql import server
from director_db_postgres.statements import Statements
from tests.postgres.calls import MESSAGES, sent_statements

IDLE = TransactionStatus.IDLE

# Of every table of the schema, whatever it is called.
KEYS = """
    SELECT conrelid::regclass::text, contype::text,
        ARRAY(
            SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS key (number, place)
            JOIN pg_attribute ON attrelid = conrelid AND attnum = number ORDER BY place
        )
    FROM pg_constraint
    WHERE connamespace = current_schema()::regnamespace AND contype IN ('p', 'u', 'f')
"""
UNIQUE_INDEXES = """
    SELECT indrelid::regclass::text,
        ARRAY(
            SELECT attname::text
            FROM unnest(indkey::smallint[]) WITH ORDINALITY AS key (number, place)
            JOIN pg_attribute ON attrelid = indrelid AND attnum = number ORDER BY place
        )
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indisunique AND relnamespace = current_schema()::regnamespace
"""
UNIQUE_KEYS = [
    ("director_context_items", ["session_id", "idx"]),
    ("director_context_messages", ["session_id"]),
    ("director_conversations", ["session_id", "msg_id"]),
    ("director_conversations", ["session_id", "seq"]),
    ("director_meta", ["key"]),
    ("director_sessions", ["session_id"]),
]
COMPOSED = Statements(None)
# One transaction for several sessions, which a sharded server never gets: see test_group_commit.
OF_SEVERAL_SESSIONS = {"count_together", "upsert_together"}
STATEMENTS = {
    **{
        name: text.decode()
        for name, text in vars(COMPOSED).items()
        if isinstance(text, bytes) and name not in OF_SEVERAL_SESSIONS
    },
    **{f"page {flags}": text.decode() for flags, text in COMPOSED._select_sessions.items()},
    "SELECT_SERVER": server.SELECT_SERVER.decode(),
}
# They ask every shard, or none: pages, and what reads the one row of director_meta or no row.
OF_NO_SESSION = {name for name in STATEMENTS if name.startswith("page ")} | {
    "SELECT_SERVER",
    "select_schema_version",
    "probe_tables",
}

every_statement = pytest.mark.parametrize("text", STATEMENTS.values(), ids=STATEMENTS.keys())
every_statement_of_a_session = pytest.mark.parametrize(
    "text",
    [text for name, text in STATEMENTS.items() if name not in OF_NO_SESSION],
    ids=[name for name in STATEMENTS if name not in OF_NO_SESSION],
)


def test_no_statement_is_left_out():
    modules = [f"{sql.__name__}.{found.name}" for found in pkgutil.iter_modules(sql.__path__)]
    texts = {
        name.lower()
        for module in map(importlib.import_module, modules)
        for name, text in vars(module).items()
        if isinstance(text, str) and not name.startswith("_") and "{schema}" in text
    }
    assert texts <= STATEMENTS.keys() | OF_SEVERAL_SESSIONS
    assert 16 == sum(name.startswith("page ") for name in STATEMENTS)
    assert 20 < len(STATEMENTS.keys() - OF_NO_SESSION)


# Sent where something went wrong, to open a database, for its health, or to a cluster alone.
ON_OCCASION = {
    "claim_session",
    "release_session",
    "select_holder",
    "select_context_length",
    "select_schema_version",
    "probe_tables",
    "SELECT_SERVER",
}


def test_operations_send_these_statements_and_no_others(postgres_database):
    """So what the tests here look at is all there is."""
    names = {text: name for name, text in STATEMENTS.items()}
    with PostgresDB(postgres_database.dsn) as db:
        sent = [statement.decode() for statement in sent_statements(db)]
    assert [] == [text for text in sent if text not in names]
    assert STATEMENTS.keys() - ON_OCCASION == {names[text] for text in sent}


@every_statement
def test_each_parameter_has_its_type_in_its_place(text):
    """A shard gets the statement put together anew, and would have to guess."""
    parameters = re.findall(r"\$(\d+)(?!\d)(?:::(bigint|text|boolean)(\[\])?)?", text)
    assert text.count("$") == len(parameters)
    assert [] == [number for number, kind, _ in parameters if not kind]
    numbers = {int(number) for number, *_ in parameters}
    assert set(range(1, len(numbers) + 1)) == numbers
    # And everywhere the same one.
    assert len(numbers) == len(set(parameters))


def _changes(text):
    """Each UPDATE and DELETE, up to where the parenthesis around it closes."""
    for start in re.finditer(r"(?<!DO )(?<!FOR )\b(UPDATE|DELETE FROM)\b", text):
        depth = 0
        for end, character in enumerate(text[start.start() :], start.start()):
            depth += {"(": 1, ")": -1}.get(character, 0)
            if depth < 0:
                yield text[start.start() : end]
                break
        else:
            yield text[start.start() :]


def test_no_change_calls_a_function_that_is_not_immutable(tables):
    """A sharded server refuses one over a column in the condition: it would have to call it."""
    volatility = dict(
        tables.execute("SELECT proname, max(provolatile::text) FROM pg_proc GROUP BY 1").fetchall()
    )
    changes = [change for text in STATEMENTS.values() for change in _changes(text)]
    assert 15 == len(changes)
    called = {name for change in changes for name in re.findall(r"(\w+)\s*\(", change)}
    assert {"greatest"} <= called
    assert {} == {name: volatility[name] for name in called if volatility.get(name, "i") != "i"}


@every_statement
def test_no_insert_takes_its_rows_from_another_write(text):
    """It would be planned by the coordinator and sent to the shard in pieces, without types."""
    if "INSERT INTO" in text:
        assert text.split()[0] == "INSERT"
        assert 1 == len(re.findall(r"\b(?:INSERT INTO|DELETE FROM|(?<!DO )UPDATE)\b", text))


@every_statement_of_a_session
def test_every_table_is_read_for_the_session(text):
    """Each by the parameter, or joined by it: no product of two tables, no shard but one."""
    assert "director_" in text
    read = re.findall(r"(?<!INTO )director_(?!meta)\w+", text)
    named = re.findall(r"session_id = \$1::text", text)
    joined = re.findall(r"ON (\w+)\.session_id = (\w+)\.session_id", text)
    assert len(read) == len(named) + len(joined)
    if not read:
        assert "session_id" in text.split("VALUES")[0]
    products = re.findall(r"CROSS JOIN\s+(\w+)", text)
    assert {"unnest"} >= set(products)
    assert not re.search(r"FROM\s+director_\w+(\s+AS \w+)?\s*,", text)


@pytest.fixture
def tables(postgres_database):
    with PostgresDB(postgres_database.dsn) as db:
        assert db.health_check()
    with psycopg.connect(postgres_database.dsn) as connection:
        yield connection


def test_every_key_contains_the_session(tables):
    """All there are: a shard can see to no other that it is unique."""
    keys = tables.execute(KEYS).fetchall()
    assert UNIQUE_KEYS == sorted((table, columns) for table, kind, columns in keys if kind in "pu")
    foreign = {table: columns for table, kind, columns in keys if kind == "f"}
    assert {} == {table: columns for table, columns in foreign.items() if columns != ["session_id"]}
    others = {"director_meta", "director_sessions"}
    assert {table for table, _ in UNIQUE_KEYS} - others == foreign.keys()
    # No index is unique without a key.
    assert UNIQUE_KEYS == sorted(tables.execute(UNIQUE_INDEXES).fetchall())


def test_there_are_no_triggers_and_no_sequences(tables):
    count = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"
    assert (0,) == tables.execute(count).fetchone()
    assert (0,) == tables.execute("SELECT count(*) FROM pg_sequences").fetchone()


@pytest.mark.parametrize("is_sharded", [False, True])
def test_a_transaction_has_its_begin_where_a_shard_needs_it(postgres_database, is_sharded):
    def run(connection, *steps):
        connection.is_sharded = is_sharded
        try:
            return [answer.count for answer in connection.run_together(*steps)]
        finally:
            assert connection.info.transaction_status == IDLE

    insert, undone = (
        (b"INSERT INTO director_meta VALUES ($1::text, '')", (key,)) for key in ("stored", "undone")
    )
    savepoint = (b"SAVEPOINT s", ())
    with PostgresDB(postgres_database.dsn, pool_size=1) as db:
        if is_sharded:
            db._database.write(lambda c: run(c, insert, savepoint), "s")
        else:
            with pytest.raises(SchemaError, match="SAVEPOINT can only be used in transaction"):
                db._database.write(lambda c: run(c, insert, savepoint), "s")
        with pytest.raises(SchemaError, match="division by zero"):
            db._database.write(lambda c: run(c, undone, (b"SELECT 1/0", ())), "s")
        stored = (b"SELECT FROM director_meta WHERE value = ''", ())
        assert [int(is_sharded)] == db._database.read(lambda c: run(c, stored))


def shard(place):
    """Let a server pass for one with Citus, as far as our first look goes."""
    with place.connect() as admin:
        admin.execute("UPDATE pg_extension SET extname = 'citus' WHERE extname = 'plpgsql'")


@pytest.mark.parametrize("pooler", [False, True])
@pytest.mark.parametrize("first", [False, True], ids=["opens", "creates"])
def test_every_connection_knows_that_the_server_is_sharded(place, new_db, first, pooler):
    if not first:
        with PostgresDB(place.dsn) as db:
            db.get_session("s")
    shard(place)
    db = new_db(place.dsn, pool_size=3, pooler=pooler)
    all_three = threading.Barrier(3)

    def look(connection):
        all_three.wait(20)
        return connection.is_sharded

    with ThreadPoolExecutor(3) as pool:
        seen = [pool.submit(db._database.read, look) for _ in range(3)]
    assert [True] * 3 == [future.result() for future in seen]


def test_a_copy_on_a_cluster_is_refused_for_what_comes_first(place, new_db):
    """Its id is claimed before the rest is looked at: see CLAIM_SESSION."""
    shard(place)
    db = new_db(place.dsn, pool_size=1)
    db.create_session("s", created_at=5)
    db.add_or_update_msgs_to_conv("s", MESSAGES[:2])
    taken = db.create_session("taken", created_at=5, updated_at=5) and db.get_session("taken")
    for new in ("taken", "new"):
        with pytest.raises(SessionNotFoundError):
            db.copy_session("missing", new)
        with pytest.raises(InvalidRecordError, match="until"):
            db.copy_session("s", new, until="none")
    for until in (None, "a"):
        with pytest.raises(SessionExistsError):
            db.copy_session("s", "taken", until=until)
    assert taken == db.get_session("taken")
    assert {} == db.get_session("new")
    assert (2, 1) == (db.copy_session("s", "new"), db.copy_session("s", "part", until="a"))
    assert ["a", "m"] == [message["msg_id"] for message in db.get_conversations("new")]
    assert db.get_session("new")["created_at"] > 5


def test_no_statement_needs_a_session_of_the_server():
    for name, text in STATEMENTS.items():
        words = set(re.findall(r"\w+", text.upper()))
        assert not words & {"LISTEN", "TEMP", "TEMPORARY", "NEXTVAL", "PG_ADVISORY_LOCK"}, name
        assert not re.search(r"^\s*SET\b", text, re.MULTILINE) or "UPDATE" in words, name
