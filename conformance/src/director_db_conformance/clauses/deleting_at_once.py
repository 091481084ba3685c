"""DEL-1 and DEL-2 with several workers."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db import SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    full_session,
    message,
    msg_ids,
    new_session,
    put,
)
from director_db_conformance.clauses.at_once import (
    at_once,
    wait_until,
)
from director_db_conformance.clauses.second_process import SecondProcess
from director_db_conformance.expectation import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_conformance.transcript import RecordedDB, RecordedPlace


class DeletingAtOnceClauses:
    """Deletes beside other deletes, and beside writes."""

    @clause("DEL-1", level="concurrent")
    def test_del_1_of_deletes_at_once_one_finds_the_part(self, place: RecordedPlace) -> None:
        """When several workers delete the same thing, exactly one of them is told True."""
        handles = [place.open(), place.open()]
        db = handles[0]
        new_session(db)
        for _ in range(6):
            for name, args in (
                ("delete_message", ("s1", "m")),
                ("delete_conversation", ("s1",)),
                ("delete_context", ("s1",)),
            ):
                put(db, "s1", "m")
                db.add_or_update_context_msg("s1", [1])
                deletes = [getattr(handles[number % 2], name) for number in range(4)]
                found = at_once([partial(delete, *args) for delete in deletes])
                expect(sorted(found), [False, False, False, True], f"what {name} returned")

    @clause("DEL-2", level="concurrent")
    def test_del_2_of_deletes_at_once_one_finds_the_session(self, place: RecordedPlace) -> None:
        """When several workers delete a session, one finds its parts and the others nothing."""
        handles = [place.open(), place.open()]
        nothing = (False, ["conversation", "context", "session"])
        for attempt in range(12):
            name = new_session(handles[0], f"s{attempt}")
            put(handles[0], name, "m")
            handles[0].add_or_update_context_msg(name, [])
            deletes = [partial(handles[number % 2].delete_session, name) for number in range(4)]
            found = sorted(map(tuple, at_once(deletes)))
            expect(found, [nothing, nothing, nothing, (True, [])], "what the deletes returned")

    @clause("DEL-2", level="concurrent")
    def test_del_2_a_session_and_its_parts_go_at_one_moment(self, place: RecordedPlace) -> None:
        """Once a part of a session is gone because it was deleted, everything of it is gone."""
        handles = [place.open(), place.open(), place.open()]
        names = [f"s{number}" for number in range(30)]
        for name in names:
            new_session(handles[0], name)
            handles[0].add_or_update_msgs_to_conv(name, [message(str(n)) for n in range(3)])
            handles[0].add_or_update_context_msg(name, [1])

        def delete() -> None:
            for name in names:
                expect(tuple(handles[0].delete_session(name)), (True, []))

        def look(db: RecordedDB, reads: list[str]) -> None:
            name = next((name for name in names if getattr(db, reads[0])(name)), names[-1])
            # Until the first part is gone; then the others must be, too.
            for _ in range(200):
                if not getattr(db, reads[0])(name):
                    left = [getattr(db, read)(name) for read in reads[1:]]
                    expect([bool(part) for part in left], [False, False], f"beside {reads[0]}")
                    break

        reads = ["get_conversations", "get_context", "get_session"]
        at_once(
            [delete],
            watched_by=[partial(look, handles[1 + shift % 2], reads[shift:] + reads[:shift])
                        for shift in range(3)],
        )  # fmt: skip

    @clause("DEL-2", level="concurrent")
    def test_del_2_a_session_that_is_made_anew_keeps_what_it_gets(
        self, place: RecordedPlace
    ) -> None:
        """Once a session is gone, one of its id is new, and no delete of the old one takes it."""
        db, other = place.open(), place.open()

        def make_anew(name: str) -> None:
            wait_until(lambda: not other.get_session(name), "the session is gone")
            new_session(other, name)
            put(other, name, "new")
            other.add_or_update_context_msg(name, ["new"])

        for attempt in range(12):
            name = full_session(db, f"s{attempt}")
            at_once([partial(db.delete_session, name), partial(make_anew, name)])
            expect(msg_ids(db.get_conversations(name)), ["new"], "its messages")
            expect(db.get_context_messages(name), ["new"], "its context")

    @clause("DEL-2", level="concurrent")
    def test_del_2_a_delete_among_writes_leaves_nothing_behind(self, place: RecordedPlace) -> None:
        """A write that races with a delete is deleted too or raises; it revives nothing."""
        handles = [place.open(), place.open()]
        db = handles[0]

        def write(name: str, number: int, begun: list[int]) -> None:
            own = handles[number % 2]
            for step in range(200):
                try:
                    put(own, name, f"{number}.{step}")
                    own.add_or_update_context_msg(name, {"k": [step]})
                    own.add_or_update_msgs_to_conv(name, [message("x"), message(f"{number}b")])
                    own.append_context_messages(name, [step], key="k")
                    own.update_session(name, video_id=str(step))
                except SessionNotFoundError as error:
                    expect(error.session_id, name, "the session that was not found")
                    return
                begun.append(step)

        def delete(name: str, begun: list[int], other: Any) -> None:
            wait_until(lambda: len(begun) > attempt % 4, "the writers write")
            expect(other.delete_session(name)[0], True, "success of the delete")
            expect(other.get_session(name), {}, "just after the delete")

        with SecondProcess(place) as other:
            for attempt in range(8):
                name = new_session(db, f"s{attempt}")
                begun: list[int] = []
                by = other if attempt % 2 else handles[1]
                at_once(
                    [
                        partial(delete, name, begun, by),
                        *(partial(write, name, number, begun) for number in range(4)),
                    ]
                )
                left = [db.get_session(name), db.get_conversations(name), db.get_context(name)]
                expect(left, [{}, [], {}], "what is left when all have ended")
                db.create_session(name)
                expect([db.get_conversations(name), db.get_context(name)], [[], {}], "created anew")

    @clause("DEL-2", level="concurrent")
    def test_del_2_a_delete_tells_of_what_was_stored_before_it(self, place: RecordedPlace) -> None:
        """A write beside a delete is refused, or the delete says that what it stored was there."""
        handles = [place.open(), place.open()]
        # Long, so that a delete can begin in the middle of it.
        bulk = [message(str(number), "text" * 25) for number in range(500)]
        writes: dict[str, Callable[[str], None]] = {
            "conversation": lambda name: handles[0].add_or_update_msgs_to_conv(name, bulk),
            "context": lambda name: handles[0].add_or_update_context_msg(name, bulk),
        }

        def is_stored(write: Callable[[str], None], name: str) -> bool:
            try:
                write(name)
            except SessionNotFoundError:
                return False
            return True

        def delete(name: str, pause: float) -> Any:
            time.sleep(pause)
            return handles[1].delete_session(name)

        for part, write in writes.items():
            took = []
            for attempt in range(2):
                began = time.monotonic()
                write(full_session(handles[attempt], f"{part} {attempt}"))
                took.append(time.monotonic() - began)
            for step in range(_MOMENTS):
                name = new_session(handles[0], f"{part} at {step}")
                pause = took[-1] * step / _MOMENTS
                stored, deleted = at_once(
                    [partial(is_stored, write, name), partial(delete, name, pause)]
                )
                found = (deleted.success, part not in deleted.failed_components)
                expect(found, (True, stored), f"success, and whether the {part} was found")


_MOMENTS: Final = 12
"""At how many moments of a long write another one begins."""
