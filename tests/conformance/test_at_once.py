"""Threads that start at one moment, and what becomes of them."""

from __future__ import annotations

import threading

import pytest

from director_db_conformance.clauses import at_once as module
from director_db_conformance.clauses.at_once import at_once, wait_until
from director_db_conformance.expectation import NonconformityError


def test_results_come_in_order():
    barrier = threading.Barrier(3)
    assert [0, 1, 2] == at_once([lambda n=n: (barrier.wait(30), n)[1] for n in range(3)])


def test_who_watches_looks_once_more_at_the_end():
    done, seen = [], []
    at_once([lambda: done.append(1)], watched_by=[lambda: seen.append(len(done))])
    assert 1 == seen[-1]


def test_an_error_of_any_of_them_is_raised():
    def fail():
        raise KeyError(7)

    for works, watched_by in (([fail, int], []), ([int], [fail])):
        with pytest.raises(KeyError):
            at_once(works, watched_by=watched_by)


def test_what_never_ends_is_a_failure(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    never = threading.Event()
    with pytest.raises(NonconformityError, match="one had not after"):
        at_once([never.wait])
    never.set()
    with pytest.raises(NonconformityError, match="the sun rises"):
        wait_until(bool, "the sun rises")
