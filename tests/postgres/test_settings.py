"""Which server the settings mean, and what is told of malformed ones."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

import director_db
from director_db import ConfigurationError, load_db
from director_db_postgres import PostgresDB
from director_db_postgres.dsn import DSN

PARTS = {
    "POSTGRES_HOST": "h",
    "POSTGRES_PORT": "1",
    "POSTGRES_DB": "d",
    "POSTGRES_USER": "u",
    "POSTGRES_PASSWORD": "p w",
}
DEFAULTS = {
    "host": "localhost",
    "port": "5432",
    "dbname": "postgres",
    "user": "postgres",
    "password": "postgres",
}


def target(environ, url=None):
    return conninfo_to_dict(PostgresDB._settings(environ, url)["dsn"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"retry_deadline": float("inf")},
        {"retry_deadline": 1e10},
        {"retry_deadline": "5"},
        {"retry_deadline": True},
        {"statement_timeout": "5"},
        {"statement_timeout": True},
        {"pooler": "0"},
        {"pool_size": "5"},
    ],
    ids=str,
)
def test_an_argument_of_the_wrong_kind_is_named(wrong):
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=name):
        PostgresDB("postgresql://u:p@h/d", **wrong)


@pytest.mark.parametrize("wrong", ["1_0", "\u0663", "0", "-1", "9" * 5000, "1.5"], ids=ascii)
def test_a_pool_size_is_plain_digits(wrong):
    with pytest.raises(ConfigurationError, match="POSTGRES_POOL_SIZE") as caught:
        PostgresDB._settings({"POSTGRES_POOL_SIZE": wrong}, None)
    assert len(str(caught.value)) < 200


def test_without_settings_the_defaults_are_meant():
    assert target({}) == DEFAULTS


def test_what_is_empty_is_not_set():
    assert target({"POSTGRES_DSN": "", "POSTGRES_HOST": "", "DATABASE_URL": ""}) == DEFAULTS


def test_the_database_url_goes_before_the_defaults():
    assert target({"DATABASE_URL": "postgres://u@h/d"}) == {"user": "u", "host": "h", "dbname": "d"}


@pytest.mark.parametrize("name", [name for name in PARTS if name != "POSTGRES_HOST"])
def test_a_part_that_names_no_server_leaves_the_database_url(name):
    """As of a container's settings, or of a password from a secret."""
    found = PostgresDB._settings({name: "7", "DATABASE_URL": "postgres://u@h/d"}, None)
    assert {"user": "u", "host": "h", "dbname": "d"} == conninfo_to_dict(found["dsn"])
    assert (
        f"Ignored, since DATABASE_URL is set and POSTGRES_HOST is not: {name}.",
    ) == found.ignored


def test_a_host_goes_before_the_database_url():
    found = PostgresDB._settings({"POSTGRES_HOST": "7", "DATABASE_URL": "postgres://u@h/d"}, None)
    assert {**DEFAULTS, "host": "7"} == conninfo_to_dict(found["dsn"])
    assert ("DATABASE_URL is ignored, since POSTGRES_HOST names the server.",) == found.ignored


@pytest.mark.parametrize("more", [{"DATABASE_URL": "postgres://u@h/d"}, {"POSTGRES_HOST": "h"}, {}])
def test_the_port_of_kubernetes_stops_nobody(more):
    environ = {"POSTGRES_PORT": "tcp://10.96.3.7:5432", **more}
    found = PostgresDB._settings(environ, None)
    assert ("h" if more else "localhost") == conninfo_to_dict(found["dsn"])["host"]
    assert conninfo_to_dict(found["dsn"]).get("port", "5432") == "5432"
    (sentence,) = found.ignored
    assert "POSTGRES_PORT" in sentence


def test_what_is_ignored_is_logged_once_and_without_passwords(monkeypatch, caplog):
    monkeypatch.setenv("POSTGRES_PASSWORD", "s3cret")
    monkeypatch.setenv("DATABASE_URL", "postgres://u:t0psecret@h/ignored-once")
    for _ in range(3):
        load_db("postgres")
    assert ["director_db.postgres"] == [record.name for record in caplog.records]
    assert "POSTGRES_PASSWORD" in caplog.text
    assert "secret" not in caplog.text.replace("POSTGRES_PASSWORD", "")
    with PostgresDB():
        assert 2 == len(caplog.records)
    director_db.close_all()


def test_each_setting_has_its_origin():
    environ = {"POSTGRES_HOST": "h", "POSTGRES_USER": "u", "POSTGRES_POOL_SIZE": "3"}
    options = (
        *("schema", "pool_size", "statement_timeout"),
        *("pooler", "retry_deadline", "operation_timeout"),
    )
    defaults = dict.fromkeys(options, "default")
    assert {
        **defaults,
        "host": "POSTGRES_HOST",
        "port": "default",
        "dbname": "default",
        "user": "POSTGRES_USER",
        "password": "default",
        "pool_size": "POSTGRES_POOL_SIZE",
    } == PostgresDB._settings(environ, None).origins
    environ = {"DATABASE_URL": "postgres://h/d?schema=s&pgbouncer=true", "POSTGRES_SCHEMA": "t"}
    assert {
        **defaults,
        "dsn": "DATABASE_URL",
        "schema": "POSTGRES_SCHEMA",
        "pooler": "DATABASE_URL",
    } == PostgresDB._settings(environ, None).origins
    assert {**defaults, "dsn": "the URL"} == PostgresDB._settings({}, "postgres://h").origins


def test_a_url_means_all_that_it_says():
    environ = {"POSTGRES_SCHEMA": "t", "POSTGRES_POOLER": "0", "POSTGRES_POOL_SIZE": "3"}
    url = "postgres://h/d?schema=s&pgbouncer=true"
    found = PostgresDB._settings(environ, url)
    assert ("The URL", "The URL") == (found.origins["schema"], found.origins["pooler"])
    chosen = PostgresDB(**found)._settings_in_use
    assert ("s", True, 3) == (chosen.schema, chosen.pooler, chosen.pool_size)
    assert "t" == PostgresDB._settings(environ, "postgres://h/d")["schema"]


def test_health_tells_the_origins(place, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", place.dsn)
    monkeypatch.setenv("POSTGRES_PORT", "tcp://10.96.3.7:5432")
    health = load_db("postgres").health()
    assert "DATABASE_URL" == health.settings["dsn"]
    assert any("POSTGRES_PORT" in warning for warning in health.warnings)
    director_db.close_all()


def test_without_a_dsn_the_server_is_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://u@h/d")
    monkeypatch.setenv("POSTGRES_SCHEMA", "s")
    assert "postgresql://u@h/d?schema=s" == PostgresDB().place
    assert "postgresql://u@h/d?schema=t" == PostgresDB(schema="t").place
    assert "postgresql://u@h/d" == PostgresDB(pool_size=3).place


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg", "psycopg_async"])
def test_a_url_of_sqlalchemy(driver, monkeypatch):
    url = f"postgresql+{driver}://u:p@h:1/d"
    expected = {"user": "u", "password": "p", "host": "h", "port": "1", "dbname": "d"}
    assert "postgresql://u:***@h:1/d" == PostgresDB(url).place
    assert "postgresql://u:***@h:1/d" == load_db(url).place
    for name in ("DATABASE_URL", "POSTGRES_DSN", "DB_TYPE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, url)
            db = load_db() if name == "DB_TYPE" else load_db("postgresql")
            assert expected == {key: db._settings_in_use.parameters[key] for key in expected}
    director_db.close_all()


@pytest.mark.parametrize(
    ("query", "schema", "pooler", "options"),
    [
        ("schema=a%20b", "a b", None, None),
        ("pgbouncer=true", None, True, None),
        ("sslmode=require&schema=s&pgbouncer=false", "s", False, "require"),
    ],
)
def test_parameters_of_prisma_are_understood(query, schema, pooler, options):
    url = f"postgresql://u:p@h/d?{query}"
    for db in (PostgresDB(url), load_db(url), PostgresDB(**PostgresDB._settings({}, url))):
        found = db._settings_in_use
        assert (schema, pooler) == (found.schema, found.pooler)
        assert options == found.parameters.get("sslmode")
    chosen = PostgresDB(url, schema="mine", pooler=True)._settings_in_use
    assert ("mine", True) == (chosen.schema, chosen.pooler)
    director_db.close_all()


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        (
            {"DATABASE_URL": "postgres://h/d?connection_limit=5"},
            r"connection_limit= \(use POSTGRES_",
        ),
        ({"DATABASE_URL": "postgres://h/d?ssl=require"}, r"ssl= \(use sslmode\)"),
        ({"DATABASE_URL": "postgres://h/d?schema="}, "DATABASE_URL: schema"),
        ({"DATABASE_URL": "postgres://h/d?pgbouncer=maybe"}, "DATABASE_URL: pgbouncer"),
        ({"DATABASE_URL": "'postgres://h/d'"}, "docker --env-file"),
        ({"POSTGRES_DSN": '"host=h"'}, "docker --env-file"),
        ({"POSTGRES_HOST": '"h"'}, "POSTGRES_HOST.*docker --env-file"),
        ({"POSTGRES_PORT": "'5432'"}, "POSTGRES_PORT.*docker --env-file"),
        ({"POSTGRES_POOL_SIZE": "'5'"}, "POSTGRES_POOL_SIZE.*docker --env-file"),
        ({"POSTGRES_POOLER": "'1'"}, "POSTGRES_POOLER.*docker --env-file"),
        ({"POSTGRES_RETRY_DEADLINE": "'1'"}, "POSTGRES_RETRY_DEADLINE.*docker --env-file"),
    ],
)
def test_an_error_says_what_to_do(environ, told):
    with pytest.raises(ConfigurationError, match=told):
        PostgresDB._settings(environ, None)


def test_an_unknown_parameter_is_not_told_as_it_may_be_of_the_password():
    with pytest.raises(ConfigurationError) as caught:
        PostgresDB("postgresql://h/d?s3cret=x")
    assert "cret" not in str(caught.value)


def test_a_question_mark_of_the_password_is_left_alone():
    for query, schema in (("", None), ("?schema=s", "s")):
        found = PostgresDB(f"postgresql://u:a?schema=b@h/d{query}")._settings_in_use
        assert (schema, "a?schema=b") == (found.schema, found.parameters["password"])


def test_the_newline_at_the_end_of_a_file_is_left_out():
    found = target({"POSTGRES_HOST": "h\n", "POSTGRES_PASSWORD": " se cret \r\n"})
    assert {**DEFAULTS, "host": "h", "password": " se cret "} == found
    assert {"host": "h"} == target({"POSTGRES_DSN": "host=h\n"})
    assert "s" == PostgresDB._settings({"POSTGRES_SCHEMA": "s\n"}, None)["schema"]


def test_all_parts():
    expected = {"host": "h", "port": "1", "dbname": "d", "user": "u", "password": "p w"}
    assert target(PARTS) == expected


def test_a_part_is_taken_literally():
    literal = "it's a \\ 'secret' = x"
    assert target({"POSTGRES_PASSWORD": literal})["password"] == literal


def test_the_dsn_goes_before_all_others():
    environ = {**PARTS, "DATABASE_URL": "postgres://x", "POSTGRES_DSN": "host=z sslmode=require"}
    assert target(environ) == {"host": "z", "sslmode": "require"}


def test_a_url_goes_before_the_environment():
    environ = {**PARTS, "POSTGRES_DSN": "host=z"}
    assert target(environ, "postgresql://u@h/d") == {"user": "u", "host": "h", "dbname": "d"}


def test_the_other_settings_hold_for_a_url_too():
    environ = {
        "POSTGRES_SCHEMA": "s",
        "POSTGRES_POOL_SIZE": "3",
        "POSTGRES_STATEMENT_TIMEOUT": "1.5",
        "POSTGRES_POOLER": "off",
        "POSTGRES_RETRY_DEADLINE": "7",
        "POSTGRES_OPERATION_TIMEOUT": "0",
    }
    assert PostgresDB._settings(environ, "postgres://h") == {
        "dsn": "postgres://h",
        "schema": "s",
        "pool_size": 3,
        "statement_timeout": 1.5,
        "pooler": False,
        "retry_deadline": 7.0,
        "operation_timeout": 0.0,
    }


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"POSTGRES_DSN": "nonsense"}, "POSTGRES_DSN"),
        ({"POSTGRES_DSN": "host=h colour=blue"}, "POSTGRES_DSN"),
        ({"POSTGRES_DSN": "postgresql://u:a%zz@h/d"}, "POSTGRES_DSN"),
        ({"POSTGRES_DSN": "postgresql://u@h:port/d"}, "POSTGRES_DSN: port"),
        ({"POSTGRES_DSN": "host=h sslmode=maybe"}, "sslmode is one of"),
        ({"POSTGRES_DSN": "host=h connect_timeout=soon"}, "connect_timeout"),
        ({"POSTGRES_DSN": "host=h target_session_attrs=both"}, "target_session_attrs is one of"),
        ({"DATABASE_URL": "mysql://h/d"}, "DATABASE_URL"),
        ({"POSTGRES_PORT": "0x1"}, "POSTGRES_PORT"),
        ({"POSTGRES_PORT": "65536"}, "POSTGRES_PORT"),
        ({"POSTGRES_USER": "a\udcffb"}, "POSTGRES_USER"),
        ({"POSTGRES_SCHEMA": "x" * 64}, "POSTGRES_SCHEMA"),
        ({"POSTGRES_SCHEMA": "é" * 32}, "POSTGRES_SCHEMA"),
        ({"POSTGRES_POOL_SIZE": "0"}, "POSTGRES_POOL_SIZE"),
        ({"POSTGRES_POOL_SIZE": "many"}, "POSTGRES_POOL_SIZE"),
        ({"POSTGRES_STATEMENT_TIMEOUT": "0"}, "POSTGRES_STATEMENT_TIMEOUT"),
        ({"POSTGRES_STATEMENT_TIMEOUT": "nan"}, "POSTGRES_STATEMENT_TIMEOUT"),
        ({"POSTGRES_STATEMENT_TIMEOUT": "5s"}, "POSTGRES_STATEMENT_TIMEOUT"),
        ({"POSTGRES_POOLER": "maybe"}, "POSTGRES_POOLER"),
        ({"POSTGRES_RETRY_DEADLINE": "-1"}, "POSTGRES_RETRY_DEADLINE"),
        ({"POSTGRES_OPERATION_TIMEOUT": "-1"}, "POSTGRES_OPERATION_TIMEOUT"),
        ({"POSTGRES_OPERATION_TIMEOUT": "never"}, "POSTGRES_OPERATION_TIMEOUT"),
    ],
)
def test_a_malformed_setting_is_named(environ, told):
    with pytest.raises(ConfigurationError, match=told):
        PostgresDB._settings(environ, None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"dsn": "nonsense"}, "dsn"),
        ({"schema": ""}, "schema"),
        ({"schema": 7}, "schema"),
        ({"schema": "a\0b"}, "schema"),
        ({"pool_size": 0}, "pool_size"),
        ({"pool_size": True}, "pool_size"),
        ({"pool_size": 1.5}, "pool_size"),
        ({"statement_timeout": 0}, "statement_timeout"),
        ({"statement_timeout": 1e9}, "statement_timeout"),
        ({"retry_deadline": 0}, "retry_deadline"),
        ({"operation_timeout": -1}, "operation_timeout"),
        ({"operation_timeout": "5"}, "operation_timeout"),
        ({"operation_timeout": False}, "operation_timeout"),
        ({"retry_deadline": float("nan")}, "retry_deadline"),
    ],
)
def test_a_malformed_argument_is_named(arguments, told):
    with pytest.raises(ConfigurationError, match=told):
        PostgresDB(**arguments)


def test_a_statement_timeout_through_a_pooler_is_refused():
    with pytest.raises(ConfigurationError, match="POSTGRES_STATEMENT_TIMEOUT"):
        PostgresDB("host=h", pooler=True, statement_timeout=1)


def test_a_statement_timeout_is_a_startup_option_beside_others(place, new_db):
    dsn = f"{place.dsn}?options=-c%20work_mem%3D7MB"
    db = new_db(dsn, statement_timeout=1.5)
    shown = db._database.read(
        lambda connection: connection.execute(
            b"SELECT current_setting('statement_timeout'), current_setting('work_mem')"
        ).fetchone()
    )
    assert shown == ("1500ms", "7MB")


def test_parameters_of_libpq_pass_through(place, new_db):
    db = new_db(f"{place.dsn}?application_name=mine&connect_timeout=4")
    name = db._database.read(
        lambda connection: connection.execute(
            b"SELECT current_setting('application_name')"
        ).fetchone()
    )
    assert name == ("mine",)
    assert db._settings_in_use.parameters["connect_timeout"] == "4"
    # An empty one says nothing.
    db = new_db(f"{place.dsn}?connect_timeout=")
    assert db._settings_in_use.parameters["connect_timeout"] == "10"
    assert db.health_check()


def test_several_hosts_mean_the_one_that_takes_writes():
    several = PostgresDB("postgresql://a,b/d")._settings_in_use.parameters
    assert several["target_session_attrs"] == "read-write"
    chosen = PostgresDB("postgresql://a,b/d?target_session_attrs=any")._settings_in_use.parameters
    assert chosen["target_session_attrs"] == "any"
    assert "target_session_attrs" not in PostgresDB("postgresql://a/d")._settings_in_use.parameters


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:secret@h:1/d", "postgresql://u:***@h:1/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("host=h user=u password=secret", "postgresql://u:***@h/"),
        ("postgresql://u:secret@a:1,b:2/d", "postgresql://u:***@a:1,b:2/d"),
        ("postgresql://a,b:2/d", "postgresql://a,b:2/d"),
        ("postgresql://u@[::1]:1/d", "postgresql://u@[::1]:1/d"),
        ("host=/run/pg dbname=d user=u", "postgresql://u@/d?host=%2Frun%2Fpg"),
        ("postgresql://h/d?sslpassword=secret&passfile=x", "postgresql://h/d"),
        ("dbname='d/é?' user='u@x'", "postgresql://u%40x@/d%2F%C3%A9%3F"),
    ],
)
def test_the_place_is_a_url_without_secrets(dsn, shown):
    assert PostgresDB(dsn).place == shown


def test_the_place_names_the_schema():
    assert PostgresDB("postgresql://h/d", schema="a b").place == "postgresql://h/d?schema=a+b"


def test_the_dsn_of_the_settings_shows_nothing():
    settings = PostgresDB._settings({"POSTGRES_PASSWORD": "secret"}, None)
    assert repr(settings) == "{'dsn': <DSN>}"
    assert settings["dsn"] == DSN(str(settings["dsn"]))


def test_equal_settings_share_an_instance(monkeypatch):
    monkeypatch.setenv("DB_TYPE", "postgres")
    monkeypatch.setenv("POSTGRES_HOST", "h")
    first = load_db()
    assert load_db() is first
    assert first.db_type == "postgres"
    monkeypatch.setenv("POSTGRES_SCHEMA", "other")
    assert load_db() is not first
    director_db.close_all()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "POSTGRESQL"])
def test_load_db_takes_its_urls(scheme):
    db = load_db(f"{scheme}://u:secret@h/d")
    assert db.place == "postgresql://u:***@h/d"
    db.close()
