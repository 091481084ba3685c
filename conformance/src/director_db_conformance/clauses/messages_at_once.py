"""MSG-1, MSG-2, MSG-3, MSG-6 and MSG-7 with several workers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    message,
    msg_ids,
    new_session,
    put,
)
from director_db_conformance.clauses.at_once import (
    THREADS,
    at_once,
)
from director_db_conformance.expectation import expect, expect_that

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedPlace


class MessagesAtOnceClauses:
    """Messages that several workers store and read."""

    @clause("MSG-1", level="concurrent")
    def test_msg_1_of_first_writes_of_one_id_at_once_one_inserts(
        self, place: RecordedPlace
    ) -> None:
        """Workers that store the same new message at the same moment make one message of it."""
        handles = [place.open(), place.open()]

        def write(name: str, number: int) -> None:
            db = handles[number % 2]
            if number % 4 == 3:  # noqa: PLR2004 - a quarter
                db.add_or_update_msgs_to_conv(name, [message("m", number), message(str(number))])
            else:
                put(db, name, "m", number)
                put(db, name, str(number))
            names = msg_ids(db.get_conversations(name))
            expect(names.count("m"), 1, "how often the message is there")

        for attempt in range(10):
            name = new_session(handles[0], f"s{attempt}")
            put(handles[0], name, "first")
            at_once([partial(write, name, number) for number in range(THREADS)])
            found = msg_ids(handles[1].get_conversations(name))
            expect(found[:2], ["first", "m"], "the first two places")
            expect(sorted(found[2:]), [str(number) for number in range(THREADS)], "the others")

    @clause("MSG-2", level="concurrent")
    def test_msg_2_created_at_survives_updates_at_once(self, place: RecordedPlace) -> None:
        """An update that gives no created_at never brings an older one back."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        put(handles[0], "s1", "m", created_at=5)
        handles[0].add_or_update_context_msg("s1", [], created_at=5)

        given = threading.Event()

        def give() -> None:
            try:
                for step in range(6, 26):
                    put(handles[0], "s1", "m", created_at=step)
                    handles[0].add_or_update_context_msg("s1", [], created_at=step)
                    for _ in range(3):
                        time.sleep(0.002)
                        expect(handles[0].get_message("s1", "m")["created_at"], step, "as given")
                        expect(handles[0].get_context("s1")["created_at"], step, "as given")
            finally:
                given.set()

        def leave_out(number: int) -> None:
            for step in range(3000):
                if given.is_set():
                    break
                if number % 2:
                    put(handles[number // 2], "s1", "m", step)
                else:
                    handles[number // 2].add_or_update_context_msg("s1", [step])

        at_once([give, *(partial(leave_out, number) for number in range(4))])

    @clause("MSG-3", level="concurrent")
    def test_msg_3_places_stay_while_others_insert_and_update(self, place: RecordedPlace) -> None:
        """A conversation that is read again begins with what was read before, in that order."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        seen: list[list[str]] = [[], []]

        def work(number: int) -> None:
            db = handles[number % 2]
            for step in range(14):
                put(db, "s1", f"{number}.{step}", updated_at=1000 - step)
                bulk = [message(f"{number}.{step // 2}"), message(f"{number}.{step}b")]
                db.add_or_update_msgs_to_conv("s1", bulk)

        def look(number: int) -> None:
            found = msg_ids(handles[number].get_conversations("s1"))
            expect(found[: len(seen[number])], seen[number], "what was read before")
            expect(len(set(found)), len(found), "how many ids there are")
            seen[number] = found

        at_once(
            [partial(work, number) for number in range(THREADS)],
            watched_by=[partial(look, number) for number in range(2)],
        )
        expect(len(seen[0]), THREADS * 28, "messages at the end")

    @clause("MSG-6", level="concurrent")
    def test_msg_6_a_reader_that_pages_on_misses_nothing(self, place: RecordedPlace) -> None:
        """Who asks again and again for what comes after the last message gets every message."""
        writers = [place.open() for _ in range(3)]
        db = place.open()
        new_session(db)
        put(db, "s1", "first")
        read = ["first"]

        def work(number: int) -> None:
            own = writers[number % 3]
            for step in range(20):
                put(own, "s1", f"{number}.{step}")
                put(own, "s1", f"{number}.{step // 2}", "again")

        def read_on() -> None:
            read.extend(msg_ids(db.get_conversations("s1", after=read[-1], limit=50)))

        at_once([partial(work, number) for number in range(6)], watched_by=[read_on])
        while page := msg_ids(db.get_conversations("s1", after=read[-1], limit=50)):
            read.extend(page)
        expect(read, msg_ids(db.get_conversations("s1")), "what was read page by page")
        expect(len(read), 121, "messages")

    @clause("MSG-7", level="concurrent")
    def test_msg_7_no_reader_sees_a_part_of_a_bulk(self, place: RecordedPlace) -> None:
        """Messages that were stored in one call appear, and change, all at one moment."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        known = [f"known{number}" for number in range(4)]

        def work(number: int) -> None:
            db = handles[number % 2]
            # From both ends: who locks one message after another stops the others for good.
            order = known if number % 2 else known[::-1]
            for step in range(12):
                stamp = f"{number}.{step}"
                new = [message(f"{stamp}.{part}", stamp) for part in range(4)]
                db.add_or_update_msgs_to_conv("s1", [*(message(m, stamp) for m in order), *new])

        def look(number: int) -> None:
            found = handles[number].get_conversations("s1")
            stamps = {record["content"] for record in found if record["msg_id"] in known}
            expect_that(len(stamps) <= 1, "the known messages all of one bulk", sorted(stamps))
            parts = Counter(record["content"] for record in found if record["msg_id"] not in known)
            expect(set(parts.values()) - {4}, set(), "how many of a bulk's 4 new messages, else")

        at_once(
            [partial(work, number) for number in range(4)],
            watched_by=[partial(look, number) for number in range(2)],
        )
        expect(len(handles[0].get_conversations("s1")), 4 + 4 * 12 * 4, "messages at the end")
