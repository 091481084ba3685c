"""The soak of `soak.py`, for seconds; its docstring says how to run it for a minute."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from director_db.asyncio import AsyncDB
from director_db_postgres import PostgresDB
from director_db_sqlite import SQLiteDB

_SPEC = importlib.util.spec_from_file_location("soak", Path(__file__).with_name("soak.py"))
soak = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(soak)

FEW = {"coroutines": 100, "seconds": 2.0}


def expect_good(report, record_property):
    record_property("soak", str(report))
    assert report.is_good, report
    assert 10 == report.cancelled
    assert report.acknowledged >= 100


def test_on_sqlite_and_the_judgement_sees_what_is_wrong(tmp_path, record_property):
    with SQLiteDB(tmp_path / "soak.db") as sync_db:
        db = AsyncDB(sync_db)
        report, streams = asyncio.run(soak.soak(db, **FEW))
        expect_good(report, record_property)
        stream = next(each for each in streams if each.at_its_end is None and each.acknowledged)
        sync_db.delete_message(stream.session, "m0")
        sync_db.append_context_messages(stream.session, ["nobody's", "nobody's"])
        other = next(each for each in streams if each.at_its_end)
        sync_db.add_or_update_msg_to_conv(other.session, "c", "m0", "t", [], [], {"step": 99})
        found = asyncio.run(soak.judge(db, streams))
    assert {"lost": 1, "doubled": 1, "late": 1} == {
        name: found[name] for name in ("lost", "doubled", "late")
    }
    assert found["wrong"] >= 2


@pytest.mark.timeout(600)
def test_on_a_server_that_is_killed_twice(postgres_cluster, record_property):
    database = postgres_cluster.create_database()
    with PostgresDB(database.dsn) as sync_db:
        report, _ = asyncio.run(
            soak.soak(AsyncDB(sync_db), **FEW, disturbances=soak.killing(postgres_cluster))
        )
    expect_good(report, record_property)
