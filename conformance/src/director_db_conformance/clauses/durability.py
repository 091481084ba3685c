"""Processes killed, connections cut and servers restarted in the middle of writes."""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from director_db import BackendUnavailableError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import msg_ids, put
from director_db_conformance.clauses.at_once import (
    THREADS,
    at_once,
    finish,
    let_go,
    processes,
    wait_until,
)
from director_db_conformance.clauses.patience import PATIENCE, Patience
from director_db_conformance.clauses.plans import SHARED, Progress, expect_shared, is_shared
from director_db_conformance.expectation import expect, expect_that

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from subprocess import Popen

    from director_db_conformance.transcript import NewPlaces, RecordedDB, RecordedPlace


class DurabilityClauses:
    """LIF-2 and LIF-3 under kills and faults."""

    @clause("LIF-2", level="durable")
    def test_lif_2_what_was_written_outlives_the_process(self, place: RecordedPlace) -> None:
        """A write that has returned is stored, also if the process ends without closing."""
        db = place.open()
        with processes(place, _WRITE_AND_END, 1) as writers:
            expect(finish(writers[0]), "", "what the process printed")
        expect(db.get_session("s1")["video_id"], "changed", "after update_session")
        expect(msg_ids(db.get_conversations("s1")), ["a", "b", "d"], "the messages")
        expect(db.get_message("s1", "a")["content"], "final", "the updated message")
        expect(db.get_context_messages("s1"), {"reasoning": [1, 2]}, "the context")
        expect(db.get_session("s2"), {}, "the deleted session")
        expect(db.get_conversations("s3"), [], "the deleted conversation")
        expect(db.get_context("s3"), {}, "the deleted context")

    @clause("LIF-2", level="durable")
    def test_lif_2_no_acknowledged_write_is_lost_when_its_process_is_killed(
        self, place: RecordedPlace
    ) -> None:
        """A write that has returned survives its process's death; one in flight is whole or not."""
        _kill_writers(place, rounds=4, workers=8, length=400)

    @clause("LIF-2", level="durable")
    def test_lif_2_no_write_of_many_threads_is_lost_when_their_process_is_killed(
        self, place: RecordedPlace
    ) -> None:
        """The same under so many threads that a backend may want to store several writes as one."""
        _kill_writers(place, rounds=3, workers=32, length=150)

    @clause("LIF-4", level="durable")
    def test_lif_4_a_process_killed_in_its_first_use_leaves_the_place_usable(
        self, place: RecordedPlace, more_places: NewPlaces
    ) -> None:
        """If a worker dies while it sets the database up, the next one finishes that."""
        seconds = _first_use(place)
        with ExitStack() as stack:
            places = [stack.enter_context(more_places()) for _ in range(_KILLS)]
            workers = [stack.enter_context(processes(each, _FIRST_USE, 1))[0] for each in places]
            for number, (each, worker) in enumerate(zip(places, workers, strict=True)):
                # Spread over the whole of it: what is made one after another is killed in between.
                let_go(worker)
                time.sleep(seconds * (number + 0.5) / _KILLS)
                worker.kill()
                worker.wait(PATIENCE)
                _expect_usable(each)

    @clause("LIF-3", level="durable", needs="cut")
    def test_lif_3_cut_connections_lose_and_double_nothing(self, place: RecordedPlace) -> None:
        """A lost connection costs at most an error that says so, and the same handle works on."""
        _disturb(place, place.cut, times=8, pause=0.05)

    @clause("LIF-2", level="durable", needs="restart")
    def test_lif_2_no_acknowledged_write_is_lost_when_the_server_is_killed(
        self, place: RecordedPlace
    ) -> None:
        """A write that has returned survives the kill of the server, and the handle works on."""
        _disturb(place, place.restart, times=2, pause=0.1)


_WRITE_AND_END: Final = """
import os
print("ready", flush=True)
sys.stdin.readline()
def put(session, msg_id, content="text"):
    db.add_or_update_msg_to_conv(session, "c", msg_id, "t", [], [], content)
for name in ("s1", "s2", "s3"):
    db.create_session(name)
    put(name, "a", "draft")
    db.add_or_update_context_msg(name, {"reasoning": [1]})
put("s1", "a", "final")
db.add_or_update_msgs_to_conv("s1", [
    {"conv_id": "c", "msg_id": msg_id, "msg_type": "t", "agents": [], "actions": [], "content": 1}
    for msg_id in "bcd"])
db.delete_message("s1", "c")
db.delete_session("s2")
db.delete_conversation("s3")
db.delete_context("s3")
db.update_session("s1", video_id="changed")
db.append_context_messages("s1", [2])
# Without the end that the interpreter makes: nothing is flushed, no handler runs.
os._exit(0)
"""

_FIRST_USE: Final = """
import time
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
db.create_session("s1")
db.add_or_update_msg_to_conv("s1", "c", "m", "t", [], [], 1)
db.append_context_messages("s1", [1])
print(time.monotonic() - began)
"""

# How many first uses are killed, each a bit later than the one before.
_KILLS: Final = 6

# Each line that it prints is one write of one worker that has returned.
_PLAY_PLANS: Final = """
import json, os, threading
print("ready", flush=True)
plans = json.loads(sys.stdin.readline())
def play(number):
    for name, call_args, kwargs in plans[number]:
        getattr(db, name)(*call_args, **kwargs)
        os.write(1, b"%d\\n" % number)
def guarded(number):
    try:
        play(number)
    except BaseException as error:
        os.write(2, repr(error).encode())
        os._exit(1)
threads = [threading.Thread(target=guarded, args=(number,)) for number in range(len(plans))]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
"""


def _first_use(place: RecordedPlace) -> float:
    """Let a process use a new place for the first time, and return how long that took."""
    with processes(place, _FIRST_USE, 1) as workers:
        return float(finish(workers[0]))


def _expect_usable(place: RecordedPlace) -> None:
    db = place.open()
    expect(db.health_check(), True, "health_check")
    db.create_session("s2")
    put(db, "s2", "m")
    expect(msg_ids(db.get_conversations("s2")), ["m"], "the messages")
    expect(db.append_context_messages("s2", [1, 2]), 2, "the length")
    expect(tuple(db.delete_session("s2")), (True, []), "a delete")


def _kill_writers(place: RecordedPlace, *, rounds: int, workers: int, length: int) -> None:
    """Kill a process full of writers at a random moment, and look what is there; several times."""
    chance = random.Random(20)  # noqa: S311 - the same moments in every run
    db = place.open()
    db.create_session(SHARED)
    with processes(place, _PLAY_PLANS, rounds) as players:
        for number, player in enumerate(players):
            names = [f"r{number}w{worker}" for worker in range(workers)]
            progress = [Progress(name, length) for name in names]
            _play_and_kill(db, player, progress, chance.randint(50, 600), chance.uniform(0, 0.005))
            for worker in progress:
                worker.expect_in(db, maybe_one_more=True)
            expect_shared(db, progress, one_more=True)
            put(db, SHARED, f"after{number}")
            expect(db.get_message(SHARED, f"after{number}")["content"], "text", "a later write")
            db.create_session("later")
            expect(tuple(db.delete_session("later")), (True, ["conversation", "context"]), "later")


def _play_and_kill(
    db: RecordedDB, player: Popen[str], workers: Sequence[Progress], writes: int, pause: float
) -> None:
    """Let a process play the plans, and kill it a moment after so many writes have returned."""
    told: list[str] = []
    ended: list[int | None] = []

    def listen() -> None:
        assert player.stdout is not None  # noqa: S101 - for type checkers
        for line in player.stdout:
            told.append(line)  # noqa: PERF402 - others look at it meanwhile

    def kill() -> None:
        try:
            let_go(player, json.dumps([worker.calls for worker in workers]))
            wait_until(lambda: len(told) >= writes or player.poll() is not None, "writes return")
            time.sleep(pause)
            ended.append(player.poll())
        finally:
            player.kill()

    def write_beside() -> None:
        # On a handle that lives on.
        while player.poll() is None:
            put(db, SHARED, "beside")
            time.sleep(0.005)

    at_once([listen, kill, write_beside])
    assert player.stderr is not None  # noqa: S101 - for type checkers
    errors = player.stderr.read()
    expect(errors, "", "what went wrong in the process before it was killed")
    has_done_all = len(told) == sum(len(worker.calls) for worker in workers)
    if not (has_done_all and ended == [0]):
        expect(ended, [None], "the status with which the process had ended before it was killed")
    for line in told:
        if line.endswith("\n"):
            workers[int(line)].advance()


def _disturb(
    place: RecordedPlace, disturbance: Callable[[], None], *, times: int, pause: float
) -> None:
    """Write from many threads while something breaks their connections; then look at it all."""
    chance = random.Random(20)  # noqa: S311
    db = place.open()
    db.create_session(SHARED)
    workers = [Progress(f"w{number}", 2500) for number in range(THREADS)]
    stop = threading.Event()

    def disturb() -> None:
        try:
            wait_until(lambda: all(worker.done > 1 for worker in workers), "all workers write")
            for _ in range(times):
                time.sleep(chance.uniform(0, 2 * pause))
                disturbance()
                reached = [worker.done for worker in workers]
                wait_until(
                    lambda: all(
                        worker.next is None or worker.done > done
                        for worker, done in zip(workers, reached, strict=True)  # noqa: B023
                    ),
                    "all workers write again",
                )
        finally:
            stop.set()

    def work(worker: Progress) -> None:
        while not stop.is_set() and worker.next is not None:
            _make_next_call(db, worker)

    at_once([disturb, *(partial(work, worker) for worker in workers)])
    other = place.open()
    for handle in (db, other):
        for worker in workers:
            worker.expect_in(handle, maybe_one_more=False)
        expect_shared(handle, workers, one_more=False)


def _make_next_call(db: RecordedDB, worker: Progress) -> None:
    call = worker.calls[worker.done]
    try:
        told = getattr(db, call.name)(*call.args, **call.kwargs)
    except BackendUnavailableError as error:
        # What is known not to be stored is simply the next call again.
        if not is_shared(call):
            _patiently(partial(worker.expect_in, db, maybe_one_more=error.maybe_applied))
        elif error.maybe_applied:
            worker.leave_in_doubt()
    else:
        worker.advance(told)


def _patiently(look: Callable[[], None]) -> None:
    """Look at what is stored, as soon as that is possible again."""
    limit = Patience(PATIENCE)
    while True:
        try:
            look()
        except BackendUnavailableError as error:
            expect_that(not error.maybe_applied, "maybe_applied False: reads apply nothing", error)
            if limit.is_over:
                raise
            time.sleep(0.01)
        else:
            return
