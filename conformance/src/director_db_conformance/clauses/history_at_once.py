"""MSG-13 with several workers and processes."""

from __future__ import annotations

import ast
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import message, msg_ids, new_session, put
from director_db_conformance.clauses.at_once import (
    THREADS,
    TOGETHER,
    at_once,
    finish_all,
    processes,
    wait_until,
)
from director_db_conformance.expectation import expect, expect_that

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedPlace

_PROCESSES: Final = 3
_EACH: Final = 12
_POPS: Final = 25

# What a writer stores at most beside one who pops.
_MOST: Final = 2_000


class HistoryAtOnceClauses:
    """What is taken back and rewritten while others do the same, or write."""

    @clause("MSG-13", level="concurrent")
    def test_msg_13_of_pops_at_once_each_gets_another(self, place: RecordedPlace) -> None:
        """As many calls as there are messages get all of them, none twice and none too few."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        for _ in range(5):
            names = [f"m{number}" for number in range(THREADS)]
            handles[0].add_or_update_msgs_to_conv("s1", [message(name) for name in names])
            pops = [
                # With and without a conv_id it is the same message.
                partial(handles[number % 2].pop_message, "s1", conv_id=[None, "c"][number // 4])
                for number in range(THREADS)
            ]
            found = [popped and popped["msg_id"] for popped in at_once(pops)]
            expect(sorted(found, key=str), names, "what the calls got")
            expect(handles[0].get_conversations("s1"), [], "what is left")

    @clause("MSG-13", level="concurrent")
    def test_msg_13_gives_what_is_the_last_at_that_moment(self, place: RecordedPlace) -> None:
        """Beside a writer, nothing is popped while a message stands behind it, and none is lost."""
        writer, popper, watcher = place.open(), place.open(), place.open()
        new_session(writer)
        done = threading.Event()
        written: list[int] = []
        popped: list[int] = []
        seen: list[int] = []

        def write() -> None:
            for number in range(_MOST):
                put(writer, "s1", f"m{number}", number)
                written.append(number)
                if done.wait(0.002):
                    break

        def pop() -> None:
            wait_until(lambda: len(written) > len(popped), "there is something to pop")
            latest = max([number for number in [*written] if number not in popped], default=-1)
            found: Any = popper.pop_message("s1")
            got = -1 if found is None else found["content"]
            popped.append(got)
            about = "a message no earlier than the last that had been stored"
            expect_that(got >= latest, f"{about}, m{latest}", f"m{got}")

        def pop_all() -> None:
            try:
                for _ in range(_POPS):
                    pop()
            finally:
                done.set()

        def watch() -> None:
            found = [record["content"] for record in watcher.get_conversations("s1")]
            kept = [number for number in seen if number in found]
            gone = [number for number in seen if number not in found]
            if kept and gone:
                about = "nothing is popped that has a message behind it"
                expect_that(kept[-1] < gone[0], about, f"m{gone[0]} went, m{kept[-1]} stayed")
            seen[:] = found

        at_once([write, pop_all], watched_by=[watch])
        left = [record["content"] for record in writer.get_conversations("s1")]
        expect(left, [number for number in written if number not in popped], "what is left")
        expect(len(popped), len({*popped}), "no message twice")

    @clause("MSG-13", level="concurrent")
    def test_msg_13_of_pops_in_processes_each_gets_another(self, place: RecordedPlace) -> None:
        """When processes pop at one moment, each gets another message, and all get all of them."""
        db = place.open()
        names = [f"m{number:02}" for number in range(_PROCESSES * _EACH)]
        new_session(db)
        db.add_or_update_msgs_to_conv("s1", [message(name) for name in names])
        found = _ask_together(place, _POP)
        expect(sorted(name for own in found for name in own), names, "what the processes got")
        for own in found:
            expect(own, sorted(own, reverse=True), "the places of what one process got")
        expect(msg_ids(db.get_conversations("s1")), [], "what is left")


_POP: Final = f"""{TOGETHER}
found = []
for step in range({_EACH}):
    together()
    popped = db.pop_message("s1")
    found.append(popped and popped["msg_id"])
print(found)
"""


def _ask_together(place: RecordedPlace, code: str) -> list[list[Any]]:
    """Let processes do something at the same moments, and return what each has printed."""
    with processes(place, code, _PROCESSES) as workers:
        return [ast.literal_eval(output) for output in finish_all(workers)]
