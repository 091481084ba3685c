"""The conformance suite catches a plugin that handles lost connections carelessly."""

from __future__ import annotations

from functools import partial

import pytest

from director_db.testing import Place
from director_db_conformance import ConformanceSuite
from director_db_conformance.expectation import NonconformityError
from director_db_conformance.transcript import RecordedPlace
from director_db_postgres import database
from director_db_postgres.database import Database

pytestmark = pytest.mark.sampled


@pytest.fixture
def place(postgres_cluster, tmp_path):
    database = postgres_cluster.create_database()
    place = RecordedPlace(
        Place(
            "postgres",
            database.environment,
            cut=partial(postgres_cluster.cut, database),
            destroy=partial(postgres_cluster.drop_database, database),
        ),
        lambda: tmp_path,
    )
    yield place
    place.close()


def run_cut(place):
    ConformanceSuite().test_lif_3_cut_connections_lose_and_double_nothing(place)


def test_a_healthy_plugin_passes(place):
    run_cut(place)


def test_what_may_have_been_stored_is_sent_again(place, monkeypatch):
    monkeypatch.setattr(Database, "write_once", Database.write)
    with pytest.raises(NonconformityError):
        run_cut(place)


def test_a_lost_answer_is_taken_for_a_failure(place, monkeypatch):
    explain = database.explain
    monkeypatch.setattr(database, "explain", lambda error, place, **_doubt: explain(error, place))
    with pytest.raises(NonconformityError):
        run_cut(place)
