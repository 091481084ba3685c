"""The version of a session, and merge patches, as pure functions."""

from __future__ import annotations

import inspect
import itertools
import pickle
import sys

import pytest

from director_db import ConflictError
from director_db.rows import SessionRow
from director_db.session_change import merge_patch, session_version

TEXTS = (None, "", "None", "0", "1", "\x01", "a")


def test_no_two_states_have_one_version():
    states = [
        SessionRow("s", video, collection, 1, 2, metadata, user)
        for video, collection, user in itertools.product(TEXTS, repeat=3)
        for metadata in ("{}", '""')
    ]
    assert len(states) == len({session_version(state) for state in states})


def test_the_id_and_the_times_have_no_part_in_it():
    row = SessionRow("s", "v", None, 1, 2, '{"a":1}', "u")
    others = [row._replace(session_id="t"), row._replace(created_at=3), row._replace(updated_at=3)]
    assert {session_version(row)} == {session_version(other) for other in others}


def test_the_version_is_the_same_in_every_process_and_release():
    """A caller may keep it for as long as he likes."""
    row = SessionRow("s", "v", None, 1, 2, '{"a":"\u00e9"}', "u")
    assert "3838892e053f989925d65d97a2ce5f68" == session_version(row)


def test_a_deep_patch_takes_no_deep_stack():
    target, patch = {"b": 1}, {"c": 2}
    for _ in range(200):
        target, patch = {"a": target}, {"a": patch}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 40)
    try:
        merged = merge_patch(target, patch)
    finally:
        sys.setrecursionlimit(limit)
    for _ in range(200):
        (merged,) = merged.values()
    assert {"b": 1, "c": 2} == merged


@pytest.mark.parametrize("version", ["v1", None])
def test_a_conflict_crosses_processes(version):
    error = pickle.loads(pickle.dumps(ConflictError("s", "context", version)))  # noqa: S301
    assert ("s", version) == (error.session_id, error.version)
    assert "session 's'" in str(error)
    assert "get_context()" in str(error)
