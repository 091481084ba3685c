"""Many coroutines that stream at once into one process, a tenth of them cancelled; then a count.

::

    python tests/face/soak.py sqlite postgres                       1,000 coroutines, for a minute
    python tests/face/soak.py postgres --seconds 5 --coroutines 50

The server of Postgres, a throw-away one that syncs its disk, is killed twice meanwhile. Exit status
0 only if no write that was acknowledged is missing, none is stored twice, and nothing is stored
after the cancelled call that it was of had ended.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from director_db import BackendUnavailableError
from director_db.asyncio import AsyncDB
from director_db_conformance.servers import find_cluster
from director_db_postgres import PostgresDB
from director_db_sqlite import SQLiteDB

COROUTINES = 1000
SECONDS = 60.0
KILLS = 2

STEPS = 20
"""So many times a message is stored while it streams."""

TOKEN = "fifty characters of an answer that is streamed... "  # noqa: S105
TICK = 0.005


class Report(NamedTuple):
    """What a soak found.

    Attributes:
        acknowledged: how many writes had returned.
        cancelled: how many coroutines were cancelled.
        in_doubt: how many appends may have been applied or not, as the server was killed or the
            coroutine cancelled in them.
        lost: how many acknowledged writes are missing.
        doubled: how many messages or items are stored more than once.
        late: how many cancelled coroutines have stored something after their end.
        wrong: how much is stored that nobody has written, or in another order.
        seconds: how long they have streamed.
        longest_gap: the most seconds that the loop did not get round to a coroutine that ticks.
    """

    acknowledged: int
    cancelled: int
    in_doubt: int
    lost: int
    doubled: int
    late: int
    wrong: int
    seconds: float
    longest_gap: float

    @property
    def is_good(self) -> bool:
        """Whether it is as it has to be."""
        return not self.lost + self.doubled + self.late + self.wrong


class Stream:
    """A coroutine that stores one answer after another in its session, and keeps what it knows."""

    def __init__(self, number):
        self.session = f"s{number}"
        self.writes = 0
        self.begun = {}
        self.acknowledged = {}
        self.items = []
        self.doubtful = set()
        self.at_its_end = None

    async def run(self, db, until):
        for answer in itertools.count():
            name = f"m{answer}"
            for step in range(STEPS):
                self.begun[name] = step
                await self._store(db, name, step)
                self.acknowledged[name] = step
                self.writes += 1
                if time.monotonic() > until:
                    return
            self.doubtful.add(name)
            try:
                await db.append_context_messages(self.session, [name])
            except BackendUnavailableError as error:
                if not error.maybe_applied:
                    self.doubtful.remove(name)
            else:
                self.doubtful.remove(name)
                self.items.append(name)
                self.writes += 1

    async def _store(self, db, name, step):
        while True:
            try:
                await db.add_or_update_msg_to_conv(
                    self.session, "c", name, "output", [], [], {"step": step, "text": TOKEN * step}
                )
            except BackendUnavailableError:  # The server was away for longer than a call waits.
                continue
            return

    async def stored(self, db):
        """Return what is stored of it: the step of each message, and the items."""
        messages = await db.get_conversations(self.session)
        context = await db.get_context_messages(self.session)
        steps = [(message["msg_id"], message["content"]["step"]) for message in messages]
        return steps, context.get("reasoning", [])


async def judge(db, streams):
    """Count what is lost, doubled, late and wrong."""
    found = Counter()
    for stream in streams:
        stored = await stream.stored(db)
        steps, items = dict(stored[0]), Counter(stored[1])
        found["doubled"] += len(stored[0]) - len(steps) + items.total() - len(items)
        found["lost"] += sum(
            steps.get(name, -1) < step for name, step in stream.acknowledged.items()
        )
        found["lost"] += len({*stream.items} - {*items})
        found["late"] += stream.at_its_end not in (None, stored)
        found["wrong"] += len({*items} - {*stream.items} - stream.doubtful)
        found["wrong"] += sum(step > stream.begun.get(name, -1) for name, step in steps.items())
        found["wrong"] += list(steps) != list(stream.begun)[: len(steps)]
    return found


async def soak(db, *, coroutines, seconds, disturbances=()):
    """Let so many stream for so long; each disturbance is made in a thread, evenly spread.

    Returns:
        The report, and the streams for whoever judges again.
    """
    streams = [Stream(number) for number in range(coroutines)]
    for stream in streams:
        await db.create_session(stream.session)
    chance = random.Random(20)
    gaps = [0.0]

    async def tick():
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK)
            gaps.append(time.monotonic() - before - TICK)

    async def cancel(stream, task):
        await asyncio.sleep(seconds * chance.uniform(0.1, 0.9))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            stream.at_its_end = await stream.stored(db)

    async def disturb():
        for disturbance in disturbances:
            await asyncio.sleep(seconds / (len(disturbances) + 1))
            await asyncio.to_thread(disturbance)

    began = time.monotonic()
    ticking = asyncio.create_task(tick())
    victims = chance.sample(range(coroutines), coroutines // 10)
    # On a busy machine a victim's own end might come before it is cancelled.
    untils = [math.inf if n in victims else began + seconds for n in range(coroutines)]
    tasks = [
        asyncio.create_task(stream.run(db, until))
        for stream, until in zip(streams, untils, strict=True)
    ]
    await asyncio.gather(disturb(), *(cancel(streams[n], tasks[n]) for n in victims))
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    took = time.monotonic() - began
    ticking.cancel()
    cancelled = sum(isinstance(end, asyncio.CancelledError) for end in ends)
    for end in ends:
        if isinstance(end, Exception):
            raise end
    found = await judge(db, streams)
    report = Report(
        sum(stream.writes for stream in streams),
        cancelled,
        sum(len(stream.doubtful) for stream in streams),
        *(found[name] for name in ("lost", "doubled", "late", "wrong")),
        took,
        max(gaps),
    )
    return report, streams


def killing(cluster):
    """Return the disturbances of a soak on a cluster."""

    def kill():
        cluster.kill()
        cluster.start()

    return [kill] * KILLS


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("db_types", nargs="+", choices=["sqlite", "postgres"])
    parser.add_argument("--coroutines", type=int, default=COROUTINES)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    good = True
    for db_type in options.db_types:
        with ExitStack() as stack:
            disturbances = []
            if db_type == "sqlite":
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                db = stack.enter_context(SQLiteDB(Path(folder, "soak.db")))
            else:
                cluster = stack.enter_context(find_cluster(durable=True))
                disturbances = killing(cluster)
                db = stack.enter_context(PostgresDB(cluster.create_database().dsn))
            report, _ = asyncio.run(
                soak(
                    AsyncDB(db),
                    coroutines=options.coroutines,
                    seconds=options.seconds,
                    disturbances=disturbances,
                )
            )
        good = good and report.is_good
        sys.stdout.write(f"{db_type}, {options.coroutines} coroutines: {report}\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
