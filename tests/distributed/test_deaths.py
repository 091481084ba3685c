"""Nodes that are killed under load: what was acknowledged is there, once."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from director_db import BackendUnavailableError
from director_db_postgres import PostgresDB

THREADS = 8
KILLS = 6
SHARDS = 4
PATIENCE = 60


class Writer:
    """Writes messages, appends and deletes in a session of its own, one after another."""

    def __init__(self, db, session_id):
        self._db = db
        self._session_id = session_id
        self.messages = []
        self.items = []
        self.in_doubt = 0
        db.create_session(session_id)

    def run(self, stop):
        number = 0
        while not stop.is_set():
            number += 1
            self._upsert(f"m{number}", number)
            self._append(number)
            if number % 5 == 0:
                self._delete(f"m{number}")

    def expect_what_was_told(self):
        stored = self._db.get_conversations(self._session_id)
        assert self.messages == [message["msg_id"] for message in stored]
        assert self.items == self._read_items()

    def _upsert(self, msg_id, number):
        # It is tried again by itself, so that it fails only if a node is away for long.
        self._db.add_or_update_msg_to_conv(
            self._session_id, "c", msg_id, "output", [], [], [number]
        )
        self.messages.append(msg_id)

    def _append(self, number):
        try:
            length = self._db.append_context_messages(self._session_id, [number])
        except BackendUnavailableError as error:
            self.in_doubt += error.maybe_applied
            if number not in patiently(self._read_items):
                return
        else:
            assert len(self.items) + 1 == length
        self.items.append(number)

    def _delete(self, msg_id):
        try:
            assert self._db.delete_message(self._session_id, msg_id) is True
        except BackendUnavailableError as error:
            self.in_doubt += error.maybe_applied
            if patiently(lambda: self._db.get_message(self._session_id, msg_id)):
                return
        self.messages.remove(msg_id)

    def _read_items(self):
        return self._db.get_context_messages(self._session_id).get("reasoning", [])


def patiently(look):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return look()
        except BackendUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("who", ["a worker", "the coordinator", "all"])
def test_killed_nodes_lose_and_double_nothing(db, nodes, who):
    db.distribute(shards=SHARDS)
    writers = [Writer(db, f"s{number}") for number in range(THREADS)]
    stop = threading.Event()
    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(writer.run, stop) for writer in writers]
        try:
            for kill in range(KILLS):
                time.sleep(random.uniform(0.3, 2))
                coordinator, *workers = nodes
                worker = workers[kill % len(workers)]
                killed = {"a worker": [worker], "the coordinator": [coordinator]}.get(who, nodes)
                for node in killed:
                    node.kill()
                time.sleep(random.uniform(0, 1))
                for node in killed:
                    node.start()
        finally:
            stop.set()
        for future in running:
            future.result()
    for writer in writers:
        patiently(writer.expect_what_was_told)
        assert len(writer.messages) > 10


def test_a_worker_that_is_away_stops_only_its_own_sessions(dsn, db, nodes):
    """A call for a session on the other one is answered as ever."""
    db.distribute(shards=SHARDS)
    sessions = [f"s{number}" for number in range(20)]
    for session in sessions:
        db.create_session(session)
    nodes[1].kill()
    found, lost = [], []
    with PostgresDB(dsn, schema=db.schema, retry_deadline=0.5) as impatient:
        for session in sessions:
            try:
                found.append(impatient.get_session(session)["session_id"])
            except BackendUnavailableError as error:
                lost.append((error.retryable, error.maybe_applied))
    assert found
    assert {(True, False)} == set(lost)
    assert len(sessions) == len(found) + len(lost)
