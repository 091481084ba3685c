"""Bytes written for each call."""

from __future__ import annotations

from benchmarks.counters import bytes_for_each


def test_the_least_of_the_batches_counts():
    written = [0]
    calls = []

    def call():
        calls.append(1)
        # Once, somebody else writes as well.
        written[0] += 100 if len(calls) != 5 else 1_000_000

    assert 100 == bytes_for_each(call, lambda: written[0])


def test_what_nobody_counts_is_not_known():
    assert None is bytes_for_each(lambda: None, lambda: None)
