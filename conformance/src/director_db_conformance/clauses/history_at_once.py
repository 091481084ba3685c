"""MSG-13, MSG-14 and DEL-4 with several workers and processes."""

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
    from collections.abc import Callable

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

    @clause("MSG-14", level="concurrent")
    def test_msg_14_of_replaces_at_once_one_is_whole(self, place: RecordedPlace) -> None:
        """Readers see one whole replacement, and behind it only what was stored after it."""
        handles = [place.open(), place.open(), place.open()]
        new_session(handles[0])
        handles[0].replace_conversation("s1", _replacement("0.0"))

        def replace(number: int) -> None:
            for step in range(1, 9):
                handles[number].replace_conversation("s1", _replacement(f"{number}.{step}"))

        def write() -> None:
            for number in range(60):
                name = f"late{number:02}"
                put(handles[number % 2], "s1", name, "late")
                # One that comes twice is an update, or new if it was replaced meanwhile.
                handles[number % 2].add_or_update_msgs_to_conv("s1", [message(name, "late")])

        def look() -> None:
            found = handles[2].get_conversations("s1")
            contents = [record["content"] for record in found]
            expect(contents[:_SIZE], contents[:1] * _SIZE, "of one replacement")
            expect_that(contents[0] != "late", "a replacement at every moment", contents[:1])
            expect({*contents[_SIZE:]} - {"late"}, set(), "of another replacement")
            expect(msg_ids(found[:_SIZE]), msg_ids(_replacement(contents[0])), "in its order")

        works: list[Callable[[], Any]] = [partial(replace, 0), partial(replace, 1), write]
        at_once(works, watched_by=[look, look])
        look()

    @clause("MSG-14", level="concurrent")
    def test_msg_14_a_page_beside_it_is_of_one_moment(self, place: RecordedPlace) -> None:
        """The cursor of a page and what stands beside it are those of one replacement."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        same = [message(f"m{number}") for number in range(6)]
        handles[0].replace_conversation("s1", same)

        def replace() -> None:
            for _ in range(150):
                handles[0].replace_conversation("s1", same)

        def look(names: list[str], **page: Any) -> None:
            found = msg_ids(handles[1].get_conversations("s1", **page))
            expect(found, names, "a page of what is the same at every moment")

        behind = partial(look, ["m3", "m4", "m5"], after="m2")
        ahead = partial(look, ["m1", "m2"], before="m3", limit=2)
        at_once([replace], watched_by=[behind, ahead])

    @clause("MSG-14", level="concurrent")
    def test_msg_14_another_process_sees_no_part(self, place: RecordedPlace) -> None:
        """Processes that replace and read at one moment see one whole replacement."""
        db = place.open()
        new_session(db)
        db.replace_conversation("s1", [message(f"m{number}", "0.0") for number in range(_SIZE)])
        for found in _ask_together(place, _REPLACE):
            expect(found, [], "what the processes saw that was no whole replacement")

    @clause("MSG-14", level="concurrent")
    def test_msg_14_what_is_stored_after_it_stays(self, place: RecordedPlace) -> None:
        """A message that was stored after a replacement had returned is not taken away by it."""
        handles = [place.open(), place.open()]
        new_session(handles[0])

        def replace(count: int) -> None:
            handles[0].replace_conversation("s1", [message(f"m{n}") for n in range(count)])

        for step in range(6):
            stop = threading.Event()

            def store(step: int = step, stop: threading.Event = stop) -> int:
                number = 0
                while not stop.is_set() and number < _MOST:
                    put(handles[1], "s1", f"{step}.{number}")
                    number += 1
                return number

            def replace_beside(step: int = step, stop: threading.Event = stop) -> None:
                try:
                    replace(step % 3)
                finally:
                    stop.set()

            count, _ = at_once([store, replace_beside])
            found = msg_ids(handles[0].get_conversations("s1"))
            kept = found[step % 3 :]
            expect(found[: step % 3], [f"m{n}" for n in range(step % 3)], "what replaced")
            # Those before it are gone, and of those after it none.
            expect(kept, [f"{step}.{n}" for n in range(count - len(kept), count)], "what stays")
            handles[0].replace_conversation("s1", [])

    @clause("DEL-4", level="concurrent")
    def test_del_4_a_write_beside_it_is_deleted_or_stays(self, place: RecordedPlace) -> None:
        """Of messages that are stored meanwhile the earlier ones go, and all later ones stay."""
        handles = [place.open(), place.open(), place.open()]
        new_session(handles[0])
        put(handles[0], "s1", "first")
        for step in range(6):
            stop = threading.Event()
            seen: list[str] = []

            def store(step: int = step, stop: threading.Event = stop) -> int:
                number = 0
                while not stop.is_set() and number < _MOST:
                    put(handles[1], "s1", f"{step}.{number}")
                    number += 1
                return number

            def go_back(stop: threading.Event = stop, seen: list[str] = seen) -> int:
                try:
                    wait_until(lambda: len(seen) > 1, "there is something to delete")
                    deleted: int = handles[0].delete_messages_after("s1", "first")
                finally:
                    stop.set()
                return deleted

            def watch(seen: list[str] = seen) -> None:
                found = msg_ids(handles[2].get_conversations("s1"))
                gone = [name for name in seen if name not in found]
                expect(gone, seen[1:][: len(gone)], "what is gone: the earlier ones")
                seen[:] = found

            count, deleted = at_once([store, go_back], watched_by=[watch])
            left = ["first", *(f"{step}.{number}" for number in range(deleted, count))]
            expect(msg_ids(handles[0].get_conversations("s1")), left, "what is left")
            expect(handles[0].delete_messages_after("s1", "first"), count - deleted)

    @clause("DEL-4", level="concurrent")
    def test_del_4_of_deletes_at_once_each_message_is_counted_once(
        self, place: RecordedPlace
    ) -> None:
        """Several workers who go back delete each message once, and none counts what is gone."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        names = [f"m{number:02}" for number in range(40)]
        for _ in range(4):
            handles[0].replace_conversation("s1", [message(name) for name in names])
            backs = [
                partial(handles[number % 2].delete_messages_after, "s1", "m00")
                for number in range(THREADS)
            ]
            expect(sorted(at_once(backs)), [0] * (THREADS - 1) + [39], "how many they deleted")
            expect(msg_ids(handles[0].get_conversations("s1")), ["m00"], "what is left")


_SIZE: Final = 40


def _replacement(content: str) -> list[dict[str, Any]]:
    """Return messages for a replacement, some with ids that all have, in an order of its own."""
    turn = sum(map(int, content.split(".")))
    names = [f"m{(7 * number + turn) % _SIZE}" for number in range(_SIZE)]
    return [
        message(f"{content}.{name}" if number % 5 == 0 else name, content)
        for number, name in enumerate(names)
    ]


_REPLACE: Final = f"""{TOGETHER}
wrong = []
for step in range(1, 9):
    together()
    new = f"{{args[0]}}.{{step}}"
    fields = dict(conv_id="c", msg_type="t", agents=[], actions=[], content=new)
    messages = [dict(fields, msg_id=f"m{{number}}") for number in range({_SIZE})]
    if args[0] == "0":
        for _ in range(20):
            contents = [record["content"] for record in db.get_conversations("s1")]
            if len(contents) != {_SIZE} or len(set(contents)) != 1:
                wrong.append([len(contents), sorted(set(contents))])
    else:
        db.replace_conversation("s1", messages)
print(wrong[:3])
"""

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
