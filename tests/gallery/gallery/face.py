"""LIF-7: an asynchronous face of one's own. The clauses run through it, as with ``--face asyncio``.

What they break is in the core, in one place for all backends, so they are of SQLite alone.
"""

from __future__ import annotations

import asyncio as aio
import contextvars
import functools

from director_db import awaited, executor
from director_db.asyncio import AsyncDB
from director_db.executor import Executor
from director_db.job import Job
from gallery.broken import ROUND_TRIP, BrokenDB, replace
from gallery.mutants.concurrency import travel


class BrokenFace(BrokenDB):
    """The healthy face."""

    face = "asyncio"

    @classmethod
    def break_code(cls):
        """Put the mutant's own in the place of what runs a call."""
        if "outcome" in vars(cls):
            replace(awaited.outcome, cls.outcome)


class CancelledCallRunsLater(BrokenFace, rule="LIF-7", level="concurrent"):
    """Whoever waits is told at once, and nobody takes the call out of the queue."""

    @classmethod
    def break_code(cls):
        Executor.withdraw = lambda _self, job: not job.has_begun


class CancelledCallIsLeftToItself(BrokenFace, rule="LIF-7", level="concurrent"):
    """As with `asyncio.to_thread`: the await ends, and the call goes on in its thread."""

    @staticmethod
    async def outcome(executor, call, *, apart=False, **how):
        done = aio.get_running_loop().create_future()
        loop = aio.get_running_loop()

        def run():
            try:
                found = functools.partial(_settle, done, call(), None)
            except Exception as error:  # noqa: BLE001 - it is the caller's
                found = functools.partial(_settle, done, None, error)
            loop.call_soon_threadsafe(found)

        _start(executor, run, apart=apart)
        return await done


class CancelledCallTellsNothing(BrokenFace, rule="LIF-7", level="concurrent"):
    """CancelledError is raised after the call, and what has become of that is dropped."""

    @classmethod
    def break_code(cls):
        outcome = awaited.outcome

        async def broken(executor, call, *, apart=False, **how):
            try:
                return await outcome(executor, call, apart=apart, **how)
            except aio.CancelledError:
                raise aio.CancelledError from None

        replace(outcome, broken)


class ReturnsWhenQueued(BrokenFace, rule="LIF-7"):
    """A write to a session that is there is as good as done: the next one may overtake it."""

    @classmethod
    def break_code(cls):
        outcome = awaited.outcome

        async def broken(executor, call, *, apart=False, **how):
            if call.func.__name__ != "add_or_update_msg_to_conv":
                return await outcome(executor, call, apart=apart, **how)
            look = functools.partial(call.args[0].get_session, *call.args[1:2])
            if call.keywords or not await outcome(executor, look):
                return await outcome(executor, call, apart=apart, **how)

            def later():
                travel()
                call()

            return _start(executor, later)

        replace(outcome, broken)


class SwallowedErrors(BrokenFace, rule="LIF-7"):
    """The thread logs what was raised, and the coroutine returns None."""

    @classmethod
    def break_code(cls):
        def run(self):
            try:
                self.result = self.context.run(self.call)
            except BaseException:  # noqa: BLE001
                self.result = None
            self.done()

        Job.run = run


class SharedExecutor(BrokenFace, rule="LIF-7", level="concurrent"):
    """`asyncio.to_thread`: the few threads that the loop has for the whole application."""

    @staticmethod
    async def outcome(_executor, call, **_how):
        return await aio.to_thread(call)


class ThirtyTwoAtMost(BrokenFace, rule="LIF-7", level="concurrent"):
    """A pool of a fixed size: calls that wait for one session fill it, and all others wait, too."""

    @classmethod
    def break_code(cls):
        Executor._watch = lambda _self: None


class NoneIsHeldBack(BrokenFace, rule="LIF-7", level="concurrent"):
    """A pool that grows, up to some limit: enough calls that wait for one session fill it, too."""

    @classmethod
    def break_code(cls):
        executor.MOST_OF_A_SESSION = float("inf")


class RunsOnTheLoop(BrokenFace, rule="LIF-7", level="concurrent"):
    """`async def` in front of a call that blocks."""

    @staticmethod
    async def outcome(_executor, call, **_how):
        await aio.sleep(0)
        return call()


class ContextOfTheThread(BrokenFace, rule="LIF-7"):
    """A call runs in the context of the thread that it got, and no trace knows its request."""

    @classmethod
    def break_code(cls):
        init = Job.__init__

        def broken(self, call, done, context=None, session=None):
            init(self, call, done, context, session)
            self.context = contextvars.Context()

        Job.__init__ = broken


class OneFailsForAll(BrokenFace, rule="LIF-7", level="concurrent"):
    """Messages are stored together, and where one is not, all of their callers hear why."""

    def _upsert_together(self, messages):
        answers = super()._upsert_together(messages)
        failed = [answer for answer in answers if answer not in (True, False)]
        return failed[:1] * len(answers) or answers


class AnswersAreMixedUp(BrokenFace, rule="LIF-7", level="concurrent"):
    """Messages are stored together, and their callers told in another order."""

    def _upsert_together(self, messages):
        return super()._upsert_together(messages)[::-1]


class AllAreTakenForStored(BrokenFace, rule="LIF-7", level="concurrent"):
    """Messages are stored together, and one that is not is forgotten."""

    def _upsert_together(self, messages):
        return [True for _ in super()._upsert_together(messages)]


class AllInTheSessionOfTheFirst(BrokenFace, rule="LIF-7", level="concurrent"):
    """Messages are stored together, all of them in the session of the first."""

    def _upsert_together(self, messages):
        return super()._upsert_together([(messages[0][0], row) for _, row in messages])


class CloseDoesNotWait(BrokenFace, rule="LIF-7", level="concurrent"):
    """`aclose` lets a thread do it, and returns."""

    @classmethod
    def break_code(cls):
        async def aclose(self):
            _start(self._executor, self.sync_db.close, apart=True)
            await aio.sleep(ROUND_TRIP)

        AsyncDB.aclose = aclose


class CancelledCloseIsGivenUp(BrokenFace, rule="LIF-7", level="concurrent"):
    """A closing that is cancelled ends at once, and calls that have begun are still under way."""

    @classmethod
    def break_code(cls):
        aclose = AsyncDB.aclose

        async def broken(self):
            await aio.shield(aclose(self))

        AsyncDB.aclose = broken


def _settle(future, result, error):
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _start(executor, run, *, apart=False):
    job = Job(run, lambda: None)
    (executor.run_apart if apart else executor.submit)(job)
