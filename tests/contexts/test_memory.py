"""What is remembered of contexts has bounds, ends with its instance, and stays in its process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from array import array

import pytest

from director_db import ConflictError
from director_db.context.memory import (
    MAX_BYTES,
    MAX_SESSIONS,
    ContextMemory,
    RememberedContext,
    memory,
)
from director_db.context.version import version_text


def remembered(version, items=0):
    return RememberedContext(version, '"k"', "{}", bytearray(32 * items), array("I", [0]) * items)


def versions(limited, owner):
    """Take out what is remembered of sessions 0 to 9."""
    found = [limited.take(owner, str(number)) for number in range(10)]
    return [context.version for context in found if context is not None]


def test_the_bounds_of_a_process():
    assert (1_000, 64 * 1024 * 1024) == (MAX_SESSIONS, MAX_BYTES)


def test_what_was_not_used_for_longest_makes_room():
    limited, owner = ContextMemory(max_sessions=3), object()
    for number in range(3):
        limited.put(owner, str(number), remembered(number))
    limited.put(owner, "0", limited.take(owner, "0"))
    limited.put(owner, "3", remembered(3))
    assert 3 == len(limited)
    assert [0, 2, 3] == versions(limited, owner)
    assert 0 == len(limited)


def test_the_digests_of_large_contexts_make_room():
    cost = remembered(0, 1000).cost
    assert cost > 36 * 1000
    limited, owner = ContextMemory(max_bytes=3 * cost), object()
    for number in range(5):
        limited.put(owner, str(number), remembered(number, 1000))
    limited.put(owner, "9", remembered(9, 4000))
    assert [2, 3, 4] == versions(limited, owner)


def test_a_long_key_makes_room():
    key = '"' + "\N{GRINNING FACE}" * 10_000 + '"'
    long = RememberedContext(1, key, "{}", bytearray(), array("I"))
    assert long.cost >= sys.getsizeof(key) > 40_000
    limited, owner = ContextMemory(max_bytes=40_000), object()
    limited.put(owner, "0", remembered(0))
    limited.put(owner, "1", long)
    assert [0] == versions(limited, owner)


def test_a_context_that_grew_in_the_memory_counts_as_it_is():
    limited, owner = ContextMemory(max_bytes=2 * remembered(0, 100).cost), object()
    for number in range(2):
        limited.put(owner, str(number), remembered(number, 100))
    grown = limited.take(owner, "1")
    grown.sizes.extend([0] * 50)
    limited.put(owner, "1", grown)
    assert [1] == versions(limited, owner)


def test_owners_do_not_share(site, db, other, session):
    db.add_or_update_context_msg(session, [1])
    assert memory.take(other._owner, session) is None
    assert memory.take(db._owner, session) is not None
    assert memory.take(db._owner, session) is None


def test_nothing_is_kept_of_a_closed_instance(site, db, other, session):
    for handle in (db, other):
        handle.add_or_update_context_msg(session, [1])
    assert 2 == len(memory)
    db.close()
    assert 1 == len(memory)
    other.delete_context(session)
    assert 0 == len(memory)


def test_threads_keep_the_bounds():
    limited, owner = ContextMemory(max_sessions=10, max_bytes=10_000), object()

    def use(seed):
        for step in range(2_000):
            name = str((seed * 7 + step) % 25)
            found = limited.take(owner, name) or remembered(step, step % 20)
            limited.put(owner, name, found)
            assert len(limited) <= 11

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < len(limited) <= 10
    limited.forget(owner)
    assert (0, 0) == (len(limited), limited._bytes)


class _Timeout(BaseException):
    """As gevent's, which is no Exception."""


def test_an_interruption_leaves_it_usable():
    limited, owner = ContextMemory(max_sessions=3, max_bytes=10_000), object()
    interrupted = 0

    def interrupt(_number, _frame):
        raise _Timeout

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for attempt in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + attempt % 7 * 0.00005)
                while True:
                    limited.put(owner, str(attempt % 10), remembered(attempt, 50))
                    limited.take(owner, str(attempt % 4))
            except _Timeout:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 200 == interrupted
    done = threading.Thread(target=limited.put, args=(owner, "x", remembered(1)))
    done.start()
    done.join(30)
    assert not done.is_alive()
    assert len(limited) <= 3
    assert 1 == limited.take(owner, "x").version
    # Never too low, so that the bound holds.
    assert limited._bytes >= sum(cost for cost, _ in limited._entries.values())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_harms_no_memory(site, db, other, session):
    db.add_or_update_context_msg(session, {"k": [1, 2]})
    child = os.fork()
    if child == 0:
        status = 1
        try:
            forgotten = len(memory) == 0
            db.append_context_messages(session, ["child"], key="k")
            db.add_or_update_context_msg(session, {"k": [1, 2, "child", "again"]})
            status = 0 if forgotten else 2
        finally:
            os._exit(status)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert {"k": [1, 2, "child", "again"]} == db.get_context_messages(session)
    db.add_or_update_context_msg(session, {"k": [1, 2, 3]})
    assert {"k": [1, 2, 3]} == other.get_context_messages(session)
    site.check(session, {"k": [1, 2, 3]})


@pytest.mark.parametrize("form", [list, lambda items: {"reasoning": items}])
def test_a_refused_save_leaves_what_is_remembered_of_the_stored_one(db, session, form):
    """The stale one of two threads must not cost the other one a whole save."""
    stale = db.add_or_update_context_msg(session, form([1]))
    stored = db.add_or_update_context_msg(session, form([1, 2]))
    with pytest.raises(ConflictError):
        db.add_or_update_context_msg(session, form([1, "late"]), if_version=stale)
    known = memory.take(db._owner, session)
    assert (version_text(known.version), len(known.sizes)) == (stored, 2)
