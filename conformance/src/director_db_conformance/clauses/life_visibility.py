"""LIF-1 as examples: what one has written, another handle and another process see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director_db import InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    full_session,
    message,
    msg_ids,
    new_session,
    put,
    session_ids,
    stored,
    writes_to,
)
from director_db_conformance.clauses.second_process import SecondProcess
from director_db_conformance.expectation import expect, expect_error, expect_that

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_conformance.transcript import RecordedDB, RecordedPlace


class VisibilityClauses:
    """A second handle and a second process on the same place."""

    @clause("LIF-1", level="concurrent")
    def test_lif_1_another_handle_sees_every_write(self, place: RecordedPlace) -> None:
        """What one instance has written, another instance on the same place sees at once."""
        one, other = place.open(), place.open()
        expect(stored(other), [])
        for step in _steps():
            step(one)
            expect(stored(other), stored(one), "what the other handle reads")
            _expect_same_messages(other, one)

    @clause("LIF-1", level="concurrent")
    def test_lif_1_two_handles_write_by_turns(self, place: RecordedPlace) -> None:
        """Writes of two instances follow one another as if there were one."""
        handles = place.open(), place.open()
        for number, step in enumerate(_steps()):
            step(handles[number % 2])
            expect(stored(handles[0]), stored(handles[1]), "what the two handles read")
        one, other = handles
        new_session(one, "s9")
        for number in range(6):
            put(handles[number % 2], "s9", f"m{5 - number}", number, updated_at=number)
            put(handles[number % 2], "s9", "m5", f"changed by {number}", updated_at=number)
            length = handles[number % 2].append_context_messages("s9", [number])
            expect(length, number + 1)
        expect(msg_ids(other.get_conversations("s9")), [f"m{5 - number}" for number in range(6)])
        expect(one.get_message("s9", "m5")["content"], "changed by 5")
        expect(one.get_context_messages("s9"), {"reasoning": [*range(6)]})

    @clause("LIF-1", level="concurrent")
    def test_lif_1_a_context_that_another_handle_changed(self, place: RecordedPlace) -> None:
        """A save stores its own value, whatever was stored by others since this handle's last."""
        one, other = place.open(), place.open()
        new_session(one)
        items: list[Any] = [{"n": number} for number in range(4)]
        for intruder in (
            [*items, "other's"],
            items[:2],
            ["other's", *items[1:]],
            [*items[:3], "other's"],
            [],
            {"reasoning": items},
            {"reasoning": [*items, "other's"], "k": 1},
            None,
        ):
            for mine in (items, [*items, "mine"], items[:3]):
                one.add_or_update_context_msg("s1", items)
                other.add_or_update_context_msg("s1", intruder)
                expect(one.get_context_messages("s1"), intruder)
                one.add_or_update_context_msg("s1", mine)
                expect(other.get_context_messages("s1"), mine)

    @clause("LIF-1", level="concurrent")
    def test_lif_1_a_context_that_another_handle_deleted(self, place: RecordedPlace) -> None:
        """A save after another's delete stores the whole value, with nothing of the old record."""
        one, other = place.open(), place.open()
        items: list[Any] = [{"n": number} for number in range(4)]
        for delete in (other.delete_context, other.delete_session):
            for anew in (None, [1, 2, 3, 4, 5, 6], {"reasoning": ["new"]}):
                for mine in (items, [*items, "mine"]):
                    new_session(one)
                    one.add_or_update_context_msg("s1", {"reasoning": items}, 5, 6, {"old": 1})
                    delete("s1")
                    new_session(other)
                    if anew is not None:
                        other.add_or_update_context_msg("s1", anew, created_at=7)
                    one.add_or_update_context_msg("s1", {"reasoning": mine}, updated_at=8)
                    context = other.get_context("s1")
                    expect(context["context"], {"reasoning": mine})
                    expect([context["updated_at"], context["metadata"]], [8, {}])
                    expect_that(context["created_at"] != 5, "not the time of the old", context)  # noqa: PLR2004

    @clause("LIF-1", level="concurrent")
    def test_lif_1_appends_of_two_handles(self, place: RecordedPlace) -> None:
        """An append goes on from what is stored, not from what its own handle saw last."""
        one, other = place.open(), place.open()
        new_session(one)
        one.add_or_update_context_msg("s1", {"reasoning": [1], "k": 0})
        expect(other.append_context_messages("s1", [2]), 2)
        expect(one.append_context_messages("s1", [3]), 3)
        other.add_or_update_context_msg("s1", {"reasoning": [9], "chat": [8]})
        expect(one.append_context_messages("s1", [3]), 2)
        expect(one.append_context_messages("s1", [7], key="chat"), 2)
        other.delete_context("s1")
        expect(one.append_context_messages("s1", [4]), 1)
        expect(other.get_context_messages("s1"), {"reasoning": [4]})
        other.add_or_update_context_msg("s1", [1])
        expect_error(InvalidRecordError, one.append_context_messages, "s1", [5])
        expect(one.get_context_messages("s1"), [1])

    @clause("LIF-1", level="concurrent")
    def test_lif_1_a_save_after_an_append_to_what_another_saved(self, place: RecordedPlace) -> None:
        """An append tells its handle nothing of the items that another one had put before it."""
        one, other = place.open(), place.open()
        new_session(one)
        for theirs in (["x", "y"], ["x"], ["a", "x", "y"], []):
            for mine in (["a", "b", "c"], ["a", "b", "c", "d"], ["a", "b"]):
                one.add_or_update_context_msg("s1", {"reasoning": ["a", "b"]})
                other.add_or_update_context_msg("s1", {"reasoning": theirs})
                expect(one.append_context_messages("s1", ["c"]), len(theirs) + 1)
                expect(other.get_context_messages("s1"), {"reasoning": [*theirs, "c"]})
                one.add_or_update_context_msg("s1", {"reasoning": mine})
                expect(other.get_context_messages("s1"), {"reasoning": mine})

    @clause("LIF-1", level="concurrent")
    def test_lif_1_a_cursor_that_another_handle_moved(self, place: RecordedPlace) -> None:
        """A page begins where its message stands now, not where this handle saw it last."""
        one, other = place.open(), place.open()
        new_session(one)
        for name in "abcd":
            put(one, "s1", name)
        expect(msg_ids(one.get_conversations("s1", after="b")), ["c", "d"])
        expect(msg_ids(one.get_conversations("s1", before="b")), ["a"])
        other.delete_message("s1", "b")
        for name in ("after", "before"):
            expect_error(InvalidRecordError, one.get_conversations, "s1", **{name: "b"})
        put(other, "s1", "b")
        expect(msg_ids(one.get_conversations("s1", after="b")), [])
        expect(msg_ids(one.get_conversations("s1", before="b")), ["a", "c", "d"])

    @clause("LIF-1", level="concurrent")
    def test_lif_1_a_deleted_session_is_gone_for_all(self, place: RecordedPlace) -> None:
        """Whoever held a session open is told when another handle has deleted it."""
        one, other = place.open(), place.open()
        full_session(one)
        for write in writes_to(one, "s1").values():
            write()
        other.delete_session("s1")
        expect(stored(one), [])
        for name, write in writes_to(one, "s1").items():
            expect_error(SessionNotFoundError, write)
            expect(stored(other), [], name)

    @clause("LIF-1", level="concurrent")
    def test_lif_1_another_process_sees_every_write(
        self, place: RecordedPlace, db: RecordedDB
    ) -> None:
        """What one process has written, another one that has the place open sees at once."""
        with SecondProcess(place) as process:
            expect(process.call("get_sessions"), [])
            for step in _steps():
                step(db)
                sessions = process.call("get_sessions")
                expect(sessions, db.get_sessions(), "what the other process reads")
                for name in session_ids(sessions):
                    messages = process.call("get_conversations", name)
                    expect(messages, db.get_conversations(name), "what the other process reads")
                    context = process.call("get_context", name)
                    expect(context, db.get_context(name), "what the other process reads")

    @clause("LIF-1", level="concurrent")
    def test_lif_1_another_process_writes(self, place: RecordedPlace, db: RecordedDB) -> None:
        """What another process has written is seen here at once, and writes follow one another."""
        with SecondProcess(place) as process:
            text = "h\xe9llo \U0001f600 \ud800\0"
            process.call("create_session", "s1", "v1", "c1", 1, 2, {"b": text, "a": 1.0})
            expect(db.get_session("s1")["metadata"], {"b": text, "a": 1.0})
            for number in range(3):
                content = [text, number]
                process.call(
                    "add_or_update_msgs_to_conv", "s1", [message(f"m{9 - number}", content)]
                )
                expect(db.get_conversations("s1", limit=1)[0]["content"], content)
                put(db, "s1", f"n{9 - number}")
                put(db, "s1", "m9", number)
                expect(process.call("get_message", "s1", "m9")["content"], number)
                length = process.call("append_context_messages", "s1", [number])
                expect(length, 2 * number + 1)
                expect(db.append_context_messages("s1", [text]), 2 * number + 2)
            expect(msg_ids(db.get_conversations("s1")), ["m9", "n9", "m8", "n8", "m7", "n7"])
            items = [0, text, 1, text, 2, text]
            expect(process.call("get_context_messages", "s1"), {"reasoning": items})
            db.add_or_update_context_msg("s1", {"reasoning": items})
            process.call("add_or_update_context_msg", "s1", {"reasoning": items[:5]})
            db.add_or_update_context_msg("s1", {"reasoning": [*items, "last"]})
            whole = process.call("get_context_messages", "s1")
            expect(whole, {"reasoning": [*items, "last"]})
            process.call("update_session", "s1", video_id=None, updated_at=7)
            expect([db.get_session("s1")[key] for key in ("video_id", "updated_at")], [None, 7])
            expect([process.call("delete_message", "s1", "m9")], [True])
            expect(db.get_message("s1", "m9"), {})
            expect(process.call("delete_session", "s1"), (True, []))
            expect(stored(db), [])
            expect_error(SessionNotFoundError, put, db, "s1", "late")

    @clause("LIF-1", level="concurrent")
    def test_lif_1_what_was_written_is_there_after_reopening(self, place: RecordedPlace) -> None:
        """Closing and opening again loses nothing and changes nothing."""
        one = place.open()
        for step in _steps():
            step(one)
        new_session(one, "s9")
        put(one, "s9", "b")
        before = stored(one)
        one.close()
        again = place.open()
        expect(stored(again), before)
        put(again, "s9", "a")
        put(again, "s9", "b", "changed")
        expect(msg_ids(again.get_conversations("s9")), ["b", "a"])


def _expect_same_messages(one: RecordedDB, other: RecordedDB) -> None:
    """Fail unless two handles read the same messages one by one."""
    for name in ("s1", "s2"):
        for msg_id in ("a", "b", "m"):
            expect(one.get_message(name, msg_id), other.get_message(name, msg_id))


def _steps() -> tuple[Callable[[RecordedDB], object], ...]:
    """Return one write of each kind, to be done in this order on a new place."""
    return (
        lambda db: db.create_session("s1", "v1", "c1", 1, 2, {"k": [1]}),
        lambda db: db.create_session("s2"),
        lambda db: db.update_session("s1", video_id="v2", metadata=[2], updated_at=3),
        lambda db: put(db, "s1", "m", ["first"], updated_at=4),
        lambda db: put(db, "s1", "a", "second", updated_at=5),
        lambda db: put(db, "s1", "m", ["changed"], status="done", updated_at=6),
        lambda db: db.add_or_update_msgs_to_conv(
            "s1", [message("b", updated_at=7), message("a", "changed", updated_at=7)]
        ),
        lambda db: db.add_or_update_context_msg("s1", {"reasoning": [1]}, updated_at=8),
        lambda db: db.append_context_messages("s1", [2, {"three": 3}]),
        lambda db: db.add_or_update_context_msg("s1", {"reasoning": [1, 2], "k": None}),
        lambda db: db.append_context_messages("s1", [0], key="chat"),
        lambda db: db.add_or_update_context_msg("s2", [1, 2, 3]),
        lambda db: db.add_or_update_context_msg("s2", [1, 2, 3, 4]),
        lambda db: db.add_or_update_context_msg("s2", [1]),
        lambda db: db.delete_message("s1", "a"),
        lambda db: put(db, "s1", "a", "again"),
        lambda db: db.delete_context("s1"),
        lambda db: db.append_context_messages("s1", ["anew"]),
        lambda db: db.delete_conversation("s1"),
        lambda db: put(db, "s1", "m", "anew"),
        lambda db: db.delete_session("s1"),
        lambda db: db.create_session("s1", None, None, 9, 9),
        lambda db: db.delete_session("s2"),
    )
