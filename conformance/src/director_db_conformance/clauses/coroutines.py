"""LIF-7: the operations as coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from director_db import ClosedError, InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import full_session, msg_ids, new_session, put
from director_db_conformance.clauses.patience import Patience
from director_db_conformance.expectation import NonconformityError, expect, expect_that
from director_db_conformance.model import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from director_db_conformance.transcript import RecordedAsyncDB, RecordedPlace

_PATIENCE: Final = 10.0
"""How long a coroutine waits for what takes some thousandths of a second, on an idle machine."""

_LATER: Final = 0.05
"""Seconds after which something would have happened that must not."""

_MANY: Final = 100
"""More than any face runs at once as a rule."""

_MORE_THAN_THREADS: Final = 600
"""More than any face has threads for."""

_request: Final = contextvars.ContextVar("request", default="none")


class CoroutineClauses:
    """What a coroutine may rely on, whoever else is at work, and where it is cancelled."""

    @clause("LIF-7")
    def test_lif_7_gives_and_raises_what_the_synchronous_face_does(
        self, place: RecordedPlace
    ) -> None:
        """Each operation has the arguments, the results and the errors that it has elsewhere."""
        db = place.open_async()
        full_session(db.beside)

        async def main() -> None:
            for operation in OPERATIONS:
                for session_id in ("s1", "nobody", "") if operation.changes == "nothing" else ("",):
                    example = operation.example
                    if "session_id" in operation.arguments:
                        example = example | {"session_id": session_id}
                    expected = _outcome(getattr(db.beside, operation.name), example)
                    found = await _awaited_outcome(getattr(db, operation.name), example)
                    expect(found, expected, f"{operation.name} as a coroutine")
            found = [record async for record in db.iter_conversations("s1", page=1)]
            expect(found, db.beside.get_conversations("s1"), "async for, over the messages")
            found = [record async for record in db.iter_sessions(page=1)]
            expect(found, db.beside.get_sessions(), "async for, over the sessions")

        asyncio.run(main())

    @clause("LIF-7")
    def test_lif_7_what_was_awaited_is_stored(self, place: RecordedPlace) -> None:
        """What a task awaits one after another takes effect in that order, each when it returns."""
        db = place.open_async()
        new_session(db.beside)

        async def write(name: str) -> None:
            for step in range(10):
                await db.add_or_update_msg_to_conv("s1", "c", name, "t", [], [], step)
                content = db.beside.get_message("s1", name).get("content")
                expect(content, step, f"what is stored after {name} was awaited, step {step}")

        async def main() -> None:
            await write("alone")
            await asyncio.gather(*(write(f"task {number}") for number in range(5)))

        asyncio.run(main())

    @clause("LIF-7")
    def test_lif_7_hooks_see_the_context_of_who_called(self, place: RecordedPlace) -> None:
        """A call runs with the context variables of its task, as a trace of a request needs."""
        db = place.open_async()
        new_session(db.beside)
        seen: dict[str, str] = {}
        with _held(db, "_delete_message") as held:
            held.look = lambda _, msg_id: seen.__setitem__(msg_id, _request.get())
            held.let_go()

            async def call(name: str) -> None:
                _request.set(name)
                await db.delete_message("s1", name)

            async def main() -> None:
                await asyncio.gather(*map(call, "abc"))

            asyncio.run(main())
        expect(seen, {name: name for name in "abc"}, "the variable of each call")

    @clause("LIF-7", level="concurrent")
    def test_lif_7_the_loop_runs_on_during_a_call(self, place: RecordedPlace) -> None:
        """A database that does not answer holds up its callers, and nothing else of the loop."""
        db = place.open_async()
        full_session(db.beside)

        async def main() -> None:
            with _held(db, "_delete_message") as held:
                waiting = asyncio.create_task(db.delete_message("s1", "a"))
                await _eventually(lambda: held.begun, "the call begins")
                expect(held.in_the_loop, 0, "calls that were made in the thread of the loop")
                for _ in range(100):
                    await asyncio.sleep(0)
                expect([waiting.done()], [False], "whether it has ended, while the loop ran on")
                held.let_go()
                expect(await waiting, True)

        asyncio.run(main())

    @clause("LIF-7", level="concurrent")
    def test_lif_7_takes_no_threads_of_the_application(self, place: RecordedPlace) -> None:
        """The threads of the loop's own executor are the application's, and may all be busy."""
        db = place.open_async()
        new_session(db.beside)
        works: list[object] = []

        class Counted(ThreadPoolExecutor):
            def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
                works.append(work)
                return super().submit(work, *args, **kwargs)

        async def main() -> None:
            asyncio.get_running_loop().set_default_executor(Counted(1))
            await asyncio.to_thread(int)
            await asyncio.gather(*(db.get_session("s1") for _ in range(8)))
            await db.add_or_update_msg_to_conv("s1", "c", "m", "t", [], [], 1)
            expect([record["msg_id"] async for record in db.iter_conversations("s1")], ["m"])
            expect(len(works), 1, "what the loop's executor was given, one by the application")

        asyncio.run(main())

    @clause("LIF-7", level="concurrent")
    def test_lif_7_calls_that_wait_do_not_starve_the_rest(self, place: RecordedPlace) -> None:
        """However many calls wait for somebody's lock, the others are answered."""
        db = place.open_async()
        full_session(db.beside)
        new_session(db.beside, "s2")

        async def main() -> None:
            with _held(db, "_delete_message") as held:
                many = _MORE_THAN_THREADS
                stuck = [asyncio.create_task(db.delete_message("s1", "a")) for _ in range(many)]
                await _eventually(lambda: held.begun, "the first begins")
                for call in (db.get_session("s1"), db.update_session("s2", video_id="v")):
                    answer = asyncio.create_task(call)
                    await _eventually(answer.done, f"an answer, beside {many} calls that wait")
                    await answer
                expect(sum(task.done() for task in stuck), 0, "those that have ended")
                held.let_go()
                expect(sum(await asyncio.gather(*stuck)), 1, "those that have deleted the message")

        asyncio.run(main())

    @clause("LIF-7", level="concurrent")
    def test_lif_7_messages_at_once_are_stored_each_for_itself(self, place: RecordedPlace) -> None:
        """A backend may store them together; each has its own answer, and keeps its own values."""
        db = place.open_async()
        for number in range(4):
            new_session(db.beside, f"s{number}")
        numbers = range(_MANY)

        def session_of(number: int) -> str:
            return f"s{number % 4}" if number % 5 else "nobody"

        def content_of(number: int, times: int) -> object:
            return [number, times] if number % 7 else float("nan")

        def answer_of(number: int) -> object:
            if not number % 7:
                return InvalidRecordError
            return True if number % 5 else SessionNotFoundError

        async def store(number: int, times: int) -> object:
            store = db.add_or_update_msg_to_conv
            arguments: tuple[Any, ...] = (session_of(number), "c", f"m{number}", "t", [], [])
            try:
                return await store(*arguments, content_of(number, times), created_at=times)
            except Exception as error:  # noqa: BLE001 - what it is, is the answer
                return type(error)

        async def main(times: int) -> list[object]:
            return await asyncio.gather(*(store(number, times) for number in numbers))

        for times in range(3):
            found = asyncio.run(main(times))
            expect(found, list(map(answer_of, numbers)), "what each of the calls answers")
            for session_id in ("s0", "s1", "s2", "s3"):
                stored = [  # In whatever order they came.
                    (message["msg_id"], message["content"], message["created_at"])
                    for message in db.beside.get_conversations(session_id)
                ]
                wanted = [
                    (f"m{number}", content_of(number, times), times)
                    for number in numbers
                    if number % 5 and number % 7 and session_of(number) == session_id
                ]
                expect(sorted(stored), sorted(wanted), f"what is stored in {session_id}")

    @clause("LIF-7", level="concurrent")
    def test_lif_7_a_cancelled_call_takes_effect_before_its_end_or_never(
        self, place: RecordedPlace
    ) -> None:
        """When `CancelledError` is raised nothing of the call is to come: it is known what is."""
        db = place.open_async()
        names = [f"m{number}" for number in range(_MANY)]
        new_session(db.beside)
        for name in names:
            put(db.beside, "s1", name)

        async def main() -> tuple[list[str], list[str]]:
            with _held(db, "_delete_message") as held:
                tasks = [asyncio.create_task(db.delete_message("s1", name)) for name in names]
                await _eventually(lambda: held.begun, "the first begins")
                for task in tasks:
                    task.cancel()
                await asyncio.sleep(_LATER)
                # None has been let go on, so what has ended has not deleted anything.
                early = [name for name, task in zip(names, tasks, strict=True) if task.done()]
                held.let_go()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            kinds = {type(end).__name__ for end in ends}
            expect(kinds, {"CancelledError"}, "what the cancelled calls have raised")
            left = msg_ids(db.beside.get_conversations("s1"))
            # Behind all that may still come.
            await asyncio.gather(*(db.get_session("s1") for _ in range(_MANY)))
            await asyncio.sleep(_LATER)
            return early, left

        early, left = asyncio.run(main())
        later = msg_ids(db.beside.get_conversations("s1"))
        expect(later, left, "what is stored later, and when the last of them had ended")
        expect(later, early, "what is left, and whose calls had ended before any went on")
        put(db.beside, "s1", "after")
        expect(db.beside.get_message("s1", "after").get("content"), "text", "a later write")

    @clause("LIF-7", level="concurrent")
    def test_lif_7_a_cancelled_call_tells_its_outcome(self, place: RecordedPlace) -> None:
        """The cause of `CancelledError` is the error of the call, and None if it has succeeded."""
        db = place.open_async()
        new_session(db.beside)

        async def cancelled(session_id: str) -> BaseException | None:
            with _held(db, "_update_session") as held:
                task = asyncio.create_task(db.update_session(session_id, video_id="new"))
                await _eventually(lambda: held.begun, "the call begins")
                task.cancel()
                await asyncio.sleep(_LATER)
                expect([task.done()], [False], "whether it has ended, while it is held")
                held.let_go()
                try:  # `gather` would make an error of its own.
                    await task
                except asyncio.CancelledError as error:
                    return error.__cause__
            raise NonconformityError("CancelledError", "the await returned")

        async def main() -> list[BaseException | None]:
            return [await cancelled(name) for name in ("s1", "nobody")]

        stored, failed = asyncio.run(main())
        expect(stored, None, "the cause, where the call has succeeded")
        expect_that(isinstance(failed, SessionNotFoundError), "its error as cause", repr(failed))
        expect(db.beside.get_session("s1")["video_id"], "new", "what it has stored")

    @clause("LIF-7", level="concurrent")
    def test_lif_7_closing_waits_for_the_calls_that_have_begun(self, place: RecordedPlace) -> None:
        """After `await db.aclose()` nothing is under way, also where that was cancelled."""
        full_session(place.open())

        async def main(name: str, *, is_cancelled: bool) -> None:
            db = place.open_async()
            with _held(db, "_delete_message") as held:
                begun = asyncio.create_task(db.delete_message("s1", name))
                await _eventually(lambda: held.begun, "the call begins")
                closing = asyncio.create_task(db.aclose())
                await _eventually(lambda: db.closed, "the instance is closed to new calls")
                if is_cancelled:
                    closing.cancel()
                await asyncio.sleep(_LATER)
                expect([begun.done(), closing.done()], [False, False], "ends, of call and closing")
                held.let_go()
                end: object = (await asyncio.gather(closing, return_exceptions=True))[0]
                expect(held.ended, 1, "calls that have ended before the closing has")
                wanted = "CancelledError" if is_cancelled else "NoneType"
                expect(type(end).__name__, wanted, "how the closing has ended")
                expect(await begun, True)
            found = await _awaited_outcome(db.get_session, {"session_id": "s1"})
            expect(found, ClosedError, "a later call")

        asyncio.run(main("a", is_cancelled=False))
        asyncio.run(main("b", is_cancelled=True))
        expect(place.open().get_conversations("s1"), [], "the messages")


class _Held:
    """Stands in the place of a storage operation, whose calls wait until they are let go on.

    Attributes:
        begun: how many calls have begun.
        ended: how many have ended.
        in_the_loop: how many of them in the thread of an event loop, where none may be made.
        look: called with the arguments of each.
    """

    def __init__(self, operation: Callable[..., Any]) -> None:
        self._operation = operation
        self._go_on = threading.Event()
        self.begun = self.ended = self.in_the_loop = 0
        self.look: Callable[..., object] = lambda *_: None

    def __call__(self, *args: Any) -> Any:
        self.look(*args)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.begun += 1
            self._go_on.wait()
        else:  # To wait here would be for ever.
            self.in_the_loop += 1
            self.begun += 1
        try:
            return self._operation(*args)
        finally:
            self.ended += 1

    def let_go(self) -> None:
        self._go_on.set()


@contextmanager
def _held(db: RecordedAsyncDB, operation: str) -> Iterator[_Held]:
    """Hold the calls of a storage operation, and let them go on at the end in any case."""
    instance = db.instance.sync_db
    held = _Held(getattr(instance, operation))
    setattr(instance, operation, held)
    try:
        yield held
    finally:
        held.let_go()
        delattr(instance, operation)


async def _eventually(condition: Callable[[], object], what: str) -> None:
    limit, pause = Patience(_PATIENCE), 0.001
    while not condition():
        if limit.is_over:
            raise NonconformityError(what, f"not after {_PATIENCE:g} s")
        await asyncio.sleep(pause)
        pause = min(1.01 * pause, 0.01)


def _outcome(call: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    """Return what a call returns, or the type of its error."""
    try:
        return call(**kwargs)
    except Exception as error:  # noqa: BLE001 - it is compared
        return type(error)


async def _awaited_outcome(
    call: Callable[..., Coroutine[Any, Any, Any]], kwargs: dict[str, Any]
) -> Any:
    try:
        return await call(**kwargs)
    except Exception as error:  # noqa: BLE001 - it is compared
        return type(error)
