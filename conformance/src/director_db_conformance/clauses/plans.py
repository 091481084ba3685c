"""Long sequences of known writes, for workers that are killed or cut off in them.

The number of calls that returned says what must be stored afterwards: what the model holds after
that many calls, or after one more, which was in flight.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from director_db_conformance.clauses.arrange import FAR_FUTURE, message
from director_db_conformance.expectation import NonconformityError, expect, same
from director_db_conformance.model import Model
from director_db_conformance.transcript import shown, transcript

if TYPE_CHECKING:
    from collections.abc import Iterable

SHARED: Final = "shared"
"""The session that all workers write to."""


class Call(NamedTuple):
    """One write."""

    name: str
    args: list[Any]
    kwargs: dict[str, Any]

    def __str__(self) -> str:
        given = [*map(shown, self.args), *(f"{k}={shown(v)}" for k, v in self.kwargs.items())]
        return f"{self.name}({', '.join(given)})"


def plan(worker: str, length: int) -> list[Call]:
    """Return the writes of one worker: to a session of its own, and to the one that all share.

    All times are given, so that it is known what has to be there. An append alone reads the clock;
    the session's last activity is later than that from the beginning.
    """
    session = {"session_id": worker, "created_at": 1, "updated_at": FAR_FUTURE}
    calls = [Call("create_session", [], session)]
    for step in range(length):
        kind = step % 9
        if kind == 0:
            calls.append(_put(worker, f"m{step}", ["draft", step]))
        elif kind == 1:
            bulk = [_timed(f"b{step}.{part}", [step] * 30) for part in range(3)]
            bulk.append(_timed(f"m{step - 1}", ["bulk", step]))
            calls.append(Call("add_or_update_msgs_to_conv", [worker, bulk], {}))
        elif kind == 2:  # noqa: PLR2004 - one kind after another
            value = {"reasoning": [*range(step, step + 40)], "by": step}
            times = {"created_at": step, "updated_at": step, "metadata": {"by": step}}
            calls.append(Call("add_or_update_context_msg", [worker, value], times))
        elif kind == 3:  # noqa: PLR2004
            calls.append(_append(worker, [[step, "x"], [step, "y"]]))
        elif kind == 4:  # noqa: PLR2004
            calls.append(_put(worker, f"m{step - 4}", ["final", step]))
        elif kind == 5:  # noqa: PLR2004
            calls.append(Call("delete_message", [worker, f"b{step - 4}.1"], {}))
        elif kind == 6:  # noqa: PLR2004
            changes = {"metadata": {"n": step}, "updated_at": FAR_FUTURE + step}
            calls.append(Call("update_session", [worker], changes))
        elif kind == 7:  # noqa: PLR2004
            calls.append(_put(SHARED, f"{worker}.{step}", [worker, step]))
        elif step % 27 == kind:
            calls.append(Call("delete_session", [worker], {}))
            calls.append(calls[0])
        else:
            calls.append(_append(SHARED, [f"{worker}.{step}.x", f"{worker}.{step}.y"]))
    return calls


def _put(session_id: str, msg_id: str, content: object) -> Call:
    fields = _timed(msg_id, content)
    return Call("add_or_update_msg_to_conv", [session_id], fields)


def _timed(msg_id: str, content: object) -> dict[str, Any]:
    return message(msg_id, content, created_at=1, updated_at=1)


def _append(session_id: str, items: list[Any]) -> Call:
    return Call("append_context_messages", [session_id, items], {})


class Progress:
    """How far a worker has come with its plan, and what must be there because of that."""

    def __init__(self, worker: str, length: int) -> None:
        """Begin a plan of so many steps."""
        self.worker = worker
        self.calls = plan(worker, length)
        self.done = 0
        self._doubtful: set[int] = set()
        self._model = Model()

    @property
    def next(self) -> Call | None:
        """The call that is in flight, or will be; None after the last one."""
        return self.calls[self.done] if self.done < len(self.calls) else None

    def advance(self, returned: object = None) -> None:
        """The next call has taken effect.

        Args:
            returned: what it returned, where it did; to be what the model returns.
        """
        call = self.calls[self.done]
        if not is_shared(call):
            expected = getattr(self._model, call.name)(*call.args, **call.kwargs)
            if returned is not None:
                what = f"what {call} of {self.worker} returned"
                if (
                    call.name == "add_or_update_context_msg"
                ):  # a version, which is of its own (CTX-5)
                    what, returned, expected = f"the type of {what}", type(returned), type(expected)
                expect(returned, expected, what)
        self.done += 1

    def leave_in_doubt(self) -> None:
        """The next call, a shared one, may have taken effect; nobody will know."""
        self._doubtful.add(self.done)
        self.done += 1

    def expect_in(self, db: Any, *, maybe_one_more: bool) -> None:
        """Fail unless the worker's own session is as it must be.

        With `maybe_one_more`, the next call may have taken effect as well; if so, it is done.
        """
        seen = _look(db, self.worker)
        before = _look(self._model, self.worker)
        if same(seen, before):
            return
        transcript.add(f"(worker {self.worker} had done {self.done} calls of its plan; the last:)")
        for call in self.calls[max(0, self.done - _LAST_CALLS) : self.done]:
            transcript.add(f"db.{call}")
        if not maybe_one_more or self.next is None or is_shared(self.next):
            expect(seen, before, f"the session {self.worker}")
        transcript.add(f"(and this was in flight:) db.{self.next}")
        self.advance()
        expected = _look(self._model, self.worker)
        if not same(seen, expected):
            wanted = f"{self.worker}: {shown(before)} or {shown(expected)}"
            raise NonconformityError(wanted, shown(seen))

    def expect_shared(self, messages: dict[str, Any], items: list[str], *, one_more: bool) -> None:
        """Fail unless what this worker has stored in the shared session is there, in its order.

        Args:
            messages: the content of each shared message, in their order.
            items: what was appended.
            one_more: whether the next call may have taken effect as well.
        """
        sure = [
            call
            for index, call in enumerate(self.calls[: self.done])
            if is_shared(call) and index not in self._doubtful
        ]
        maybe = [self.calls[index] for index in self._doubtful]
        if one_more and self.next is not None and is_shared(self.next):
            maybe.append(self.next)
        wanted = {name: content for call in sure for name, content in _stored(call)}
        perhaps = {name for call in maybe for name, _ in _stored(call)}
        own = {name: messages[name] for name in messages
               if name.startswith(f"{self.worker}.") and name not in perhaps}  # fmt: skip
        expect(own, wanted, f"what {self.worker} has put into the shared session")
        blocks = [item for call in sure for item in _appended(call)]
        others = {item for call in maybe for item in _appended(call)}
        found = [item for item in items
                 if item.startswith(f"{self.worker}.") and item not in others]  # fmt: skip
        expect(found, blocks, f"what {self.worker} has appended")


_LAST_CALLS: Final = 5


def expect_shared(db: Any, workers: Iterable[Progress], *, one_more: bool) -> None:
    """Fail unless the session that all workers share holds what they were told is stored, once.

    What was in flight, or left in doubt, may be there too, as a whole.
    """
    messages = {record["msg_id"]: record["content"] for record in db.get_conversations(SHARED)}
    items = db.get_context_messages(SHARED).get("reasoning", [])
    expect([item for item, count in Counter(items).items() if count > 1], [], "appended twice")
    firsts, seconds = items[::2], items[1::2]
    expect([item[:-1] for item in firsts], [item[:-1] for item in seconds], "blocks of two")
    for worker in workers:
        worker.expect_shared(messages, items, one_more=one_more)


def is_shared(call: Call) -> bool:
    """Whether a call writes to the session that all workers share."""
    return call.args[:1] == [SHARED]


def _stored(call: Call) -> list[tuple[str, Any]]:
    return [(call.kwargs["msg_id"], call.kwargs["content"])] if "msg_id" in call.kwargs else []


def _appended(call: Call) -> list[str]:
    return list(call.args[1]) if call.name == "append_context_messages" else []


def _look(db: Any, session_id: str) -> list[Any]:
    # An append reads the clock: the context's times are not known. And versions are any texts.
    context, session = db.get_context(session_id), db.get_session(session_id)
    session.pop("version", None)
    return [
        session,
        db.get_conversations(session_id),
        {key: context[key] for key in ("context", "metadata") if key in context},
    ]
