"""What one process may rely on while others write: MSG-2, MSG-6, MSG-7, SES-6, CTX-3, DEL-1, DEL-2.

A lock in a process, or a queue of its writes, keeps its own threads apart and nobody else's.
"""

from __future__ import annotations

import ast
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import full_session, message, msg_ids, new_session, put
from director_db_conformance.clauses.at_once import (
    TOGETHER,
    at_once,
    finish_all,
    hear,
    let_go,
    processes,
)
from director_db_conformance.expectation import expect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director_db_conformance.transcript import RecordedDB, RecordedPlace


class ProcessesAtOnceClauses:
    """Processes that write beside each other, and those that watch them."""

    @clause("MSG-2", level="concurrent")
    def test_msg_2_times_survive_updates_of_other_processes(self, place: RecordedPlace) -> None:
        """An update that gives no created_at brings no older one back, whoever makes it."""
        db = place.open()
        new_session(db)
        put(db, "s1", "m", created_at=0)
        db.add_or_update_context_msg("s1", [], created_at=0)
        with processes(place, _KEEP_TIMES, 3) as workers:
            finish_all(workers)
        expect(db.get_message("s1", "m")["created_at"], _STEPS, "of the message")
        expect(db.get_context("s1")["created_at"], _STEPS, "of the context")

    @clause("SES-6", level="concurrent")
    def test_ses_6_last_activity_never_goes_back_under_writes_of_processes(
        self, place: RecordedPlace
    ) -> None:
        """The time of a session's last activity only grows, whichever process writes."""
        db = place.open()
        db.create_session("s1", updated_at=0)
        with processes(place, _MOVE_FORWARD, 3) as workers:
            finish_all(workers)
        expect(db.get_session("s1")["updated_at"], 3 * _STEPS + 2, "the latest of all")

    @clause("MSG-6", level="concurrent")
    def test_msg_6_reading_on_misses_nothing_that_processes_store(
        self, place: RecordedPlace
    ) -> None:
        """What becomes visible stands after all that was, also if several processes write."""
        db = place.open()
        new_session(db)
        put(db, "s1", "first")
        read = ["first"]

        def read_on() -> None:
            read.extend(msg_ids(db.get_conversations("s1", after=read[-1])))

        with processes(place, _PUT_MANY, 3) as writers:
            at_once([partial(finish_all, writers)], watched_by=[read_on])
        expect(read, msg_ids(db.get_conversations("s1")), "what was read page by page")
        expect(len(read), 1 + 3 * _STEPS, "messages")

    @clause("MSG-7", level="concurrent")
    def test_msg_7_another_process_sees_no_part_of_a_bulk(self, place: RecordedPlace) -> None:
        """However long a bulk is, all of it appears and changes at one moment for everybody."""
        db = place.open()
        new_session(db)
        with _watched(place, db, _WATCH_BULKS):
            for step in range(7):
                bulk = [message(str(number), step) for number in range(1500)]
                db.add_or_update_msgs_to_conv("s1", bulk)

    @clause("CTX-3", level="concurrent")
    def test_ctx_3_another_process_sees_no_part_of_a_save(self, place: RecordedPlace) -> None:
        """A process that reads sees one save or another, never a mixture and never nothing."""
        db = place.open()
        new_session(db)
        with _watched(place, db, _WATCH_SAVES):
            for step in range(60):
                items: list[Any] = [[step, number] for number in range(20 + step)]
                value = {"reasoning": items, "by": step} if step % 3 else items
                db.add_or_update_context_msg("s1", value, metadata=step)

    @clause("DEL-2", level="concurrent")
    def test_del_2_another_process_sees_no_part_of_a_delete(self, place: RecordedPlace) -> None:
        """Once a part of a session is gone because it was deleted, everything of it is gone."""
        db = place.open()
        names = [full_session(db, f"s{number}") for number in range(30)]
        with _watched(place, db, _WATCH_DELETES):
            for name in names:
                expect(tuple(db.delete_session(name)), (True, []))
                time.sleep(0.001)

    @clause("DEL-1", level="concurrent")
    def test_del_1_of_deletes_in_processes_one_finds_the_part(self, place: RecordedPlace) -> None:
        """When processes delete the same thing at one moment, one of them is told True."""
        found = _delete_together(place, ["delete_conversation", "delete_context"])
        expect(found, [[False, False, True]] * len(found), "what the processes were told")

    @clause("DEL-2", level="concurrent")
    def test_del_2_of_deletes_in_processes_one_finds_the_session(
        self, place: RecordedPlace
    ) -> None:
        """When processes delete a session at one moment, one finds it and the others nothing."""
        found = _delete_together(place, ["delete_session"])
        nothing = (False, ["conversation", "context", "session"])
        expect(found, [[nothing, nothing, (True, [])]] * len(found), "what they were told")


_STEPS: Final = 30
_ROUNDS: Final = 20

# One gives the time, and looks whether it stays; the others leave it out.
_KEEP_TIMES: Final = f"""{TOGETHER}
def put(**times):
    db.add_or_update_msg_to_conv("s1", "c", "m", "t", [], [], args[0], **times)
def save(**times):
    db.add_or_update_context_msg("s1", [args[0]], **times)
for step in range(1, {_STEPS} + 1):
    together()
    if args[0] == "0":
        put(created_at=step)
        save(created_at=step)
        time.sleep(0.004)
        found = [db.get_message("s1", "m")["created_at"], db.get_context("s1")["created_at"]]
        assert found == [step, step], ("the created_at of message and context", found, step)
    else:
        for _ in range(2):
            put()
            save()
"""

_MOVE_FORWARD: Final = f"""{TOGETHER}
for step in range({_STEPS} + 1):
    latest = 3 * step + int(args[0])
    together()
    if step % 3:
        db.add_or_update_msg_to_conv("s1", "c", args[0], "t", [], [], 1, updated_at=latest)
    else:
        db.add_or_update_context_msg("s1", [step], updated_at=latest)
    together()
    found = db.get_session("s1")["updated_at"]
    assert found >= latest, ("an updated_at of at least", latest, found)
"""

_PUT_MANY: Final = f"""{TOGETHER}
for step in range({_STEPS}):
    if step % 4 == 0:
        together()
    db.add_or_update_msg_to_conv("s1", "c", f"{{args[0]}}.{{step}}", "t", [], [], step)
"""

# A session of this name tells the watchers that it is over.
_END: Final = "end"

_WATCH: Final = f"""
db.get_sessions()
print("ready", flush=True)
sys.stdin.readline()
last, looks = False, 0
def goes_on():
    global last, looks
    if looks == 1:
        print("looking", flush=True)
    looks += 1
    ended, last = last, bool(db.get_session("{_END}"))
    return not ended
"""

_WATCH_BULKS: Final = f"""{_WATCH}
while goes_on():
    found = db.get_conversations("s1")
    assert len(found) in (0, 1500), ("all messages of a bulk, or none", len(found))
    steps = sorted({{record["content"] for record in found}})
    assert len(steps) < 2, ("the messages of one bulk", steps)
print("over")
"""

_WATCH_SAVES: Final = f"""{_WATCH}
seen = False
while goes_on():
    found = db.get_context("s1")
    assert found or not seen, "a context at every moment"
    if found:
        seen, step = True, found["metadata"]
        items = [[step, number] for number in range(20 + step)]
        value = {{"reasoning": items, "by": step}} if step % 3 else items
        assert found["context"] == value, ("the save of", step, found["context"])
print("over")
"""

_WATCH_DELETES: Final = f"""{_WATCH}
first = int(args[0])
reads = [db.get_conversations, db.get_context, db.get_session]
reads = reads[first:] + reads[:first]
assert all(read("s0") for read in reads), "all of it before it is deleted"
print("looking", flush=True)
for number in range(30):
    while reads[0](f"s{{number}}"):
        pass
    left = [bool(read(f"s{{number}}")) for read in reads[1:]]
    assert left == [False, False], (number, [read.__name__ for read in reads], left)
print("over")
"""

_DELETE_TOGETHER: Final = f"""{TOGETHER}
results = []
for name, session in DELETES:
    together()
    answer = getattr(db, name)(session)
    results.append(tuple(answer) if isinstance(answer, tuple) else answer)
print(results)
"""


@contextmanager
def _watched(place: RecordedPlace, db: RecordedDB, code: str) -> Iterator[None]:
    """Let three processes watch while the block runs, and once more after it."""
    with processes(place, code, 3) as watchers:
        for watcher in watchers:
            let_go(watcher)
        for watcher in watchers:
            hear(watcher, "another process looks before anything happens")
        yield
        db.create_session(_END)
        expect(finish_all(watchers), ["over\n"] * 3, "what the watchers print at their end")


def _delete_together(place: RecordedPlace, operations: list[str]) -> list[list[Any]]:
    """Let three processes delete the same at the same moments; return what they were told."""
    db = place.open()
    deletes = [
        (operation, full_session(db, f"s{number}{operation}"))
        for number in range(_ROUNDS)
        for operation in operations
    ]
    code = _DELETE_TOGETHER.replace("DELETES", repr(deletes))
    with processes(place, code, 3) as workers:
        results = [ast.literal_eval(output) for output in finish_all(workers)]
    return [sorted(answers) for answers in zip(*results, strict=True)]
