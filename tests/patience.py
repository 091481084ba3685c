"""Waiting for what others are about to do, with the suite's patience: a limit for what hangs."""

from __future__ import annotations

from director_db_conformance.clauses import at_once


def wait_until(condition):
    at_once.wait_until(condition, "what this test waits for")
