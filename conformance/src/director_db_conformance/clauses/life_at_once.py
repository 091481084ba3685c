"""LIF-1, LIF-3, LIF-4 and LIF-5 with many threads, several handles and processes."""

from __future__ import annotations

import ast
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db import ClosedError, DirectorDBError, InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    message,
    msg_ids,
    new_session,
    put,
    session_ids,
)
from director_db_conformance.clauses.at_once import (
    THREADS,
    TOGETHER,
    at_once,
    finish,
    finish_all,
    processes,
    wait_until,
)
from director_db_conformance.clauses.second_process import SecondProcess
from director_db_conformance.expectation import expect, expect_error, expect_that

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB, RecordedPlace


class LifeAtOnceClauses:
    """What one caller may rely on while others are at work."""

    @clause("LIF-1", level="concurrent")
    def test_lif_1_threads_share_one_instance(self, db: RecordedDB) -> None:
        """Any number of threads can use one instance; each finds what it wrote, in its order."""
        new_session(db, "shared")

        def work(number: int) -> None:
            own = f"own{number}"
            db.create_session(own)
            for step in range(12):
                put(db, own, f"m{step}", [number, step])
                put(db, "shared", f"{number}.{step}")
                contents = [record["content"] for record in db.get_conversations(own)]
                expect(contents, [[number, earlier] for earlier in range(step + 1)])
            db.add_or_update_context_msg(own, {"n": number})
            expect(db.get_context_messages(own), {"n": number})

        at_once([partial(work, number) for number in range(THREADS)])
        shared = msg_ids(db.get_conversations("shared"))
        for number in range(THREADS):
            own = [name for name in shared if name.startswith(f"{number}.")]
            expect(own, [f"{number}.{step}" for step in range(12)], f"of thread {number}")
        expect(len(shared), THREADS * 12, "messages of all threads")

    @clause("LIF-1", level="concurrent")
    def test_lif_1_any_number_of_calls_may_be_in_flight(self, db: RecordedDB) -> None:
        """Forty threads that write and read one session at one moment are all served."""
        new_session(db)

        def work(number: int) -> None:
            for step in range(4):
                put(db, "s1", str(number), step)
                expect(db.get_message("s1", str(number))["content"], step)
                expect_that(len(db.get_conversations("s1")) <= _MANY, "one message each", number)

        at_once([partial(work, number) for number in range(_MANY)])
        found = sorted(msg_ids(db.get_conversations("s1")), key=int)
        expect(found, [str(number) for number in range(_MANY)], "a message of each thread")

    @clause("LIF-1", level="concurrent")
    def test_lif_1_a_second_handle_sees_every_write_at_once(self, place: RecordedPlace) -> None:
        """When a call has returned, every handle sees what it wrote, however busy the place is."""
        handles = [place.open(), place.open()]

        def work(number: int) -> None:
            for step in range(2):
                writer, reader = handles if (number + step) % 2 else handles[::-1]
                _see_each_write(writer, reader, f"s{number}")

        at_once([partial(work, number) for number in range(THREADS)])

    @clause("LIF-1", level="concurrent")
    def test_lif_1_a_second_process_sees_every_write_at_once(self, place: RecordedPlace) -> None:
        """When a call has returned, every process sees what it wrote."""
        db = place.open()
        with SecondProcess(place) as other:
            for _ in range(2):
                _see_each_write(db, other, "s1")
                _see_each_write(other, db, "s1")

    @clause("LIF-1", level="concurrent")
    def test_lif_1_threads_of_several_processes_lose_nothing(self, place: RecordedPlace) -> None:
        """Threads of several processes write the same records at once, and nothing is lost."""
        db = place.open()
        new_session(db)
        with processes(place, _LOSE_NOTHING, 3) as workers:
            finish_all(workers)
        found = msg_ids(db.get_conversations("s1"))
        expect(len(found), len(set(found)), "how many ids there are")
        writers = [f"{number}.{thread}" for number in range(3) for thread in range(3)]
        own = {f"{writer}.{step}" for writer in writers for step in range(8)}
        expect(sorted(found), sorted(own | {f"shared.{step}" for step in range(8)}))
        items = db.get_context_messages("s1")["reasoning"]
        expect(len(items), 2 * len(own), "how many items were appended")
        for writer in writers:
            names = [f"{writer}.{step}" for step in range(8)]
            expect([name for name in found if name in names], names, f"the order of {writer}")
            blocks = [part for name in names for part in (f"{name}a", f"{name}b")]
            expect([item for item in items if item in blocks], blocks, f"appended by {writer}")
        expect([item[:-1] for item in items[::2]], [item[:-1] for item in items[1::2]], "blocks")
        found = db.get_session("s1")
        last = {"video_id": "39", "collection_id": "39", "metadata": "39"}
        expect({key: found[key] for key in last}, last, "what each process changed last")

    @clause("LIF-1", level="concurrent")
    def test_lif_1_processes_at_once_agree_on_who_was_first(self, place: RecordedPlace) -> None:
        """Of workers in several processes that do the same at one moment, one does it."""
        db = place.open()
        new_session(db)
        steps = 10
        for step in range(steps):
            put(db, "s1", f"m{step}")
        with processes(place, _BE_FIRST, 3) as workers:
            results = [ast.literal_eval(output) for output in finish_all(workers)]
        deleted = sorted(step for own, _ in results for step in own)
        expect(deleted, list(range(steps)), "the messages that somebody was told to have deleted")
        expect(db.get_conversations("s1"), [], "messages that are left")
        for step in range(steps):
            session = db.get_session(f"new{step}")
            winner = session["metadata"]
            expect([session["video_id"], session["collection_id"]], [winner, winner], "one create")
            expect([seen[step] for _, seen in results], [winner] * 3, "what each process has seen")
            expect(msg_ids(db.get_conversations(f"new{step}")), ["m"], "one message")
            items = db.get_context_messages(f"new{step}")["reasoning"]
            expect(sorted(items), ["0", "1", "2"], "what was appended first, by each process")

    @clause("LIF-3", level="concurrent")
    def test_lif_3_calls_that_fail_do_no_harm_to_others_at_the_same_time(
        self, db: RecordedDB
    ) -> None:
        """A call that fails neither undoes nor fails what other threads do at that moment."""
        new_session(db)
        db.add_or_update_context_msg("s1", {"list": [], "number": 1})

        def succeed(number: int) -> None:
            for step in range(15):
                put(db, "s1", f"{number}.{step}")
                db.append_context_messages("s1", [f"{number}.{step}"], key="list")

        def fail() -> None:
            for _ in range(15):
                expect_error(SessionNotFoundError, put, db, "none", "m")
                expect_error(SessionNotFoundError, db.update_session, "none")
                expect_error(SessionNotFoundError, db.append_context_messages, "none", [1])
                expect_error(InvalidRecordError, put, db, "s1", "m", float("nan"))
                expect_error(
                    InvalidRecordError, db.append_context_messages, "s1", [1], key="number"
                )

        at_once([*(partial(succeed, number) for number in range(4)), fail, fail, fail])
        names = sorted(f"{number}.{step}" for number in range(4) for step in range(15))
        expect(sorted(msg_ids(db.get_conversations("s1"))), names, "the messages")
        context = db.get_context_messages("s1")
        expect([sorted(context["list"]), context["number"]], [names, 1], "the context")

    @clause("LIF-3", level="concurrent")
    def test_lif_3_each_of_many_calls_has_an_outcome_of_its_own(self, db: RecordedDB) -> None:
        """Of forty threads that write to many sessions at one moment, each gets its own result."""
        for number in range(_SESSIONS):
            if number % _MISSING:
                new_session(db, f"s{number}")

        def work(number: int) -> None:
            name = f"s{number % _SESSIONS}"
            for step in range(3):
                for msg_id, gives in ((f"{number}.early", 0), (f"{number}.late", 2)):
                    given = {"created_at": number} if step == gives else {}
                    if not number % _SESSIONS % _MISSING:
                        expect_error(SessionNotFoundError, put, db, name, msg_id, **given)
                        continue
                    put(db, name, msg_id, step, **given)
                    expect(db.get_message(name, msg_id)["content"], step, msg_id)

        # First without those that fail: what a backend then writes at once, it may write otherwise
        # beside them.
        stored = [number for number in range(_MANY) if number % _SESSIONS % _MISSING]
        for numbers in (stored, range(_MANY)):
            at_once([partial(work, number) for number in numbers])
        for number in range(_MANY):
            found = db.get_conversations(f"s{number % _SESSIONS}")
            own = [one for one in found if one["msg_id"].startswith(f"{number}.")]
            wanted = [f"{number}.early", f"{number}.late"] if number % _SESSIONS % _MISSING else []
            expect(msg_ids(own), wanted, f"the messages of thread {number}, in its order")
            expect([one["created_at"] for one in own], [number] * len(own), "their created_at")

    @clause("LIF-4", level="concurrent")
    def test_lif_4_threads_and_processes_open_a_new_place_at_once(
        self, place: RecordedPlace
    ) -> None:
        """Workers that start at the same moment on an empty database all find it usable."""
        code = (
            "import threading\n"
            "print('ready', flush=True); sys.stdin.readline()\n"
            "def work(thread):\n"
            "    db.create_session(f's{args[0]}.{thread}'); db.create_session('shared')\n"
            "    db.add_or_update_msg_to_conv('shared', 'c', f'{args[0]}.{thread}',\n"
            "                                 't', [], [], 1)\n"
            "threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]\n"
            "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        )
        handles = [place.open() for _ in range(4)]

        def use(number: int) -> None:
            db = handles[number % 4]
            if number % 2:
                expect(db.health_check(), True, "health_check")
            db.create_session(f"s3.{number}")
            db.create_session("shared")
            put(db, "shared", f"3.{number}")

        with processes(place, code, 3) as others:
            works = [partial(use, number) for number in range(THREADS)]
            at_once([*(partial(finish, other) for other in others), *works])
        workers = [f"{n}.{thread}" for n in range(3) for thread in range(4)]
        workers += [f"3.{number}" for number in range(THREADS)]
        found = session_ids(handles[0].get_sessions())
        expect(sorted(found), sorted(["shared", *(f"s{worker}" for worker in workers)]))
        expect(sorted(msg_ids(handles[1].get_conversations("shared"))), workers, "messages")

    @clause("LIF-5", level="concurrent")
    def test_lif_5_close_waits_for_the_operations_in_flight(self, place: RecordedPlace) -> None:
        """close() cuts nobody off: what is under way ends well, and what comes later is refused."""
        other = place.open()

        def work(db: RecordedDB, name: str, written: list[str]) -> None:
            for step in range(5000):
                try:
                    put(db, name, f"{name}.{threading.get_ident()}.{step}")
                except ClosedError:
                    return
                written.append(f"{name}.{threading.get_ident()}.{step}")

        def close(db: RecordedDB, name: str, written: list[str]) -> list[str]:
            wait_until(lambda: len(written) >= THREADS, "the writers write")
            db.close()
            return msg_ids(other.get_conversations(name))

        for attempt in range(8):
            name = new_session(other, f"s{attempt}")
            db = place.open()
            written: list[str] = []
            writers = [partial(work, db, name, written) for _ in range(THREADS)]
            found = at_once([partial(close, db, name, written), *writers])[0]
            later = msg_ids(other.get_conversations(name))
            expect(later, found, "what is stored long after close() returned, and just then")
            expect(sorted(later), sorted(written), "what is stored, and what was told so")
            error = expect_error(ClosedError, db.get_session, name)
            expect_that(isinstance(error, DirectorDBError), "an error of the tree", error)


# More calls in flight than any backend has connections by default.
_MANY: Final = 40

# For two threads each; every fifth is missing.
_SESSIONS: Final = 20
_MISSING: Final = 5

_LOSE_NOTHING: Final = """
import threading
print("ready", flush=True)
sys.stdin.readline()
field = ["video_id", "collection_id", "metadata"][int(args[0])]
def work(thread):
    writer = f"{args[0]}.{thread}"
    for step in range(8):
        # All of them write this one, at about the same moment.
        db.add_or_update_msg_to_conv("s1", "c", f"shared.{step}", "t", [], [], writer)
        db.add_or_update_msg_to_conv("s1", "c", f"{writer}.{step}", "t", [], [], writer)
        length = db.append_context_messages("s1", [f"{writer}.{step}a", f"{writer}.{step}b"])
        found = db.get_context_messages("s1")["reasoning"][length - 2:length]
        assert found == [f"{writer}.{step}a", f"{writer}.{step}b"], (length, found)
        assert db.get_message("s1", f"{writer}.{step}")["content"] == writer
def change():
    # A field that the other processes leave alone.
    for step in range(40):
        db.update_session("s1", **{field: str(step)})
        db.get_session("s1")
        found = db.get_session("s1")[field]
        assert found == str(step), (field, step, found)
failures = []
threading.excepthook = lambda hook: failures.append(hook.exc_value)
threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
threads.append(threading.Thread(target=change))
[thread.start() for thread in threads]; [thread.join() for thread in threads]
if failures:
    raise failures[0]
"""

_BE_FIRST: Final = f"""{TOGETHER}
name, deleted, seen = args[0], [], []
for step in range(10):
    together()
    if db.delete_message("s1", f"m{{step}}"):
        deleted.append(step)
    together()
    db.create_session(f"new{{step}}", name, name, metadata=name)
    seen.append(db.get_session(f"new{{step}}")["metadata"])
    together()
    db.append_context_messages(f"new{{step}}", [name])
    together()
    db.add_or_update_msg_to_conv(f"new{{step}}", "c", "m", "t", [], [], name)
print((deleted, seen))
"""


def _see_each_write(writer: Any, reader: Any, name: str) -> None:
    """Write everything there is on one handle, and read each on the other at once."""
    writer.create_session(name, updated_at=1)
    expect(reader.get_session(name).get("session_id"), name, "the session created")
    expect(session_ids(reader.get_sessions(video_id=None)).count(name), 1, "the session in lists")
    writer.update_session(name, video_id=name, updated_at=2)
    expect(reader.get_session(name)["video_id"], name, "the session changed")
    expect(session_ids(reader.get_sessions(video_id=name)), [name], "the session in lists")
    for content in ("draft", "final"):
        put(writer, name, "a", content, updated_at=3)
        expect(reader.get_message(name, "a").get("content"), content, "the message")
    writer.add_or_update_msgs_to_conv(name, [message("b"), message("a", "bulk")])
    found = reader.get_conversations(name)
    expect([(record["msg_id"], record["content"]) for record in found],
           [("a", "bulk"), ("b", "text")], "the bulk")  # fmt: skip
    writer.add_or_update_context_msg(name, {"reasoning": [1]})
    expect(reader.get_context_messages(name), {"reasoning": [1]}, "the context")
    expect(writer.append_context_messages(name, [2, 3]), 3, "the length")
    expect(reader.get_context_messages(name), {"reasoning": [1, 2, 3]}, "the append")
    expect(writer.delete_message(name, "a"), True)
    expect(msg_ids(reader.get_conversations(name)), ["b"], "after delete_message")
    expect(writer.delete_conversation(name), True)
    expect(reader.get_conversations(name), [], "after delete_conversation")
    expect(writer.delete_context(name), True)
    expect(reader.get_context(name), {}, "after delete_context")
    writer.delete_session(name)
    expect(reader.get_session(name), {}, "after delete_session")
