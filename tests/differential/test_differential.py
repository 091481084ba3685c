"""The same calls on SQLite and on Postgres, with the same results, errors and stored text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis.stateful import invariant

from director_db.loading import load_backend
from director_db.rows import MessageQuery
from director_db_conformance.machine import OperationsMachine, compare_backends
from director_db_conformance.model import BY_NAME
from director_db_conformance.strategies import LOOK_ALIKES, MESSAGE

pytestmark = pytest.mark.sampled


class StoredAlike(OperationsMachine):
    """Looks at the rows, too."""

    @invariant()
    def the_stored_text_is_the_same(self):
        one, two = self.handles[0], self.reference
        sessions = one.get_sessions()
        assert sessions == two.get_sessions()
        for session in sessions:
            name = session["session_id"]
            query = MessageQuery(name, None, None, None)
            assert one._select_session(name) == two._select_session(name)
            assert one._select_messages(query) == two._select_messages(query)
            stored = [db._select_context(name) for db in (one, two)]
            if None in stored:
                assert [None, None] == stored
            else:
                # The version is a token of each save's own.
                assert stored[0]._replace(version=0) == stored[1]._replace(version=0)


@pytest.fixture
def pair(tmp_path, postgres_environment):
    places = ({"DB_TYPE": "sqlite", "SQLITE_DB_PATH": str(tmp_path / "x.db")}, postgres_environment)
    classes = [load_backend(env["DB_TYPE"]).cls for env in places]
    one, two = (cls(**cls._settings(env, None)) for cls, env in zip(classes, places, strict=True))
    with one, two:
        yield SimpleNamespace(one=one, two=two)


def test_the_two_cannot_be_told_apart(pair, stopped_clock):
    compare_backends(pair.one, pair.two, examples=80, steps=30, machine=StoredAlike)


def test_text_that_only_the_rows_show_is_a_difference(pair, stopped_clock, monkeypatch):
    upsert = pair.two._upsert_messages

    def spaced(session_id, rows):
        return upsert(session_id, [row._replace(metadata=f" {row.metadata}") for row in rows])

    monkeypatch.setattr(pair.two, "_upsert_messages", spaced)
    machine = type("Pair", (StoredAlike,), {"handles": [pair.one], "reference": pair.two})()
    machine.create_sessions((LOOK_ALIKES[0], LOOK_ALIKES[0]), 1)
    machine.call(0, BY_NAME["add_or_update_msg_to_conv"], 0, MESSAGE)
    (session,) = [record["session_id"] for record in pair.one.get_sessions()]
    assert pair.one.get_message(session, "m") == pair.two.get_message(session, "m")
    with pytest.raises(AssertionError, match=r"' \{}'"):
        machine.the_stored_text_is_the_same()
