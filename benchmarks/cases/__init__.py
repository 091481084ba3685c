"""What is measured: one file for each subject, one row or more for each case."""

from __future__ import annotations

from typing import Final

from benchmarks.cases import (
    context,
    conversation,
    coroutines,
    durability,
    fairness,
    sessions,
    start,
    threads,
    wire,
    writes,
)
from benchmarks.cases.case import Case

__all__ = ["CASES", "Case"]

CASES: Final = (
    *start.CASES,
    *writes.CASES,
    *wire.CASES,
    *durability.CASES,
    *threads.CASES,
    *coroutines.CASES,
    *fairness.CASES,
    *conversation.CASES,
    *context.CASES,
    *sessions.CASES,
)
