"""SES-9: copying sessions, also while others write."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db import InvalidRecordError, SessionExistsError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    ANY_JSON,
    clock,
    expect_now,
    full_session,
    message,
    msg_ids,
    new_session,
    put,
    stored,
    unchanged,
)
from director_db_conformance.clauses.at_once import THREADS, at_once, wait_until
from director_db_conformance.expectation import expect, expect_error

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB, RecordedPlace

_ROUNDS: Final = 12

# What a writer stores at most beside one who copies.
_MOST: Final = 2_000


class CopyingClauses:
    """Sessions made of others, whole or up to a message."""

    @clause("SES-9")
    def test_ses_9_a_copy_has_all_that_is_in_the_session(self, db: RecordedDB) -> None:
        """Fields, messages in their places with their times, context; it is created now itself."""
        names = _long_session(db)
        before = stored(db)
        since = clock()
        expect(db.copy_session("s1", "s2"), 5)
        expect(_of(db, "s2"), _of(db, "s1"), "what the copy holds")
        for part in (*db.get_conversations("s2"), db.get_context("s2"), db.get_session("s2")):
            expect(part["session_id"], "s2")
        for key in ("created_at", "updated_at"):
            expect_now(db.get_session("s2")[key], since, f"the {key} of the copy")
        expect(msg_ids(db.get_conversations("s2", after="b")), names[2:], "a page of the copy")
        expect([each for each in stored(db) if each[0]["session_id"] == "s1"], before)
        new_session(db, "empty")
        expect(db.copy_session("empty", "too"), 0, "of no message")
        expect(db.get_conversations("too"), [])
        expect(db.get_context("too"), {})

    @clause("SES-9")
    def test_ses_9_the_two_do_not_know_of_each_other(self, db: RecordedDB) -> None:
        """What is done to one is not done to the other; the copy goes on at its own end."""
        _long_session(db)
        db.copy_session("s1", "s2")
        put(db, "s2", "new")
        put(db, "s2", "d", "changed")
        expect(msg_ids(db.get_conversations("s2")), [*"dbeac", "new"], "the places of the copy")
        held = db.add_or_update_msg_to_conv("s2", **message("c", "late", revision=3))
        expect(held, False, "of a late write to the copy")
        expect(db.append_context_messages("s2", [3]), 3)
        expect(db.append_context_messages("s1", [4, 5]), 4)
        expect(db.get_context_messages("s1"), {"reasoning": [1, [2], 4, 5], "b": "x"})
        expect(db.get_context_messages("s2"), {"reasoning": [1, [2], 3], "b": "x"})
        expect(db.get_message("s1", "d")["content"], {"again": "d"})
        expect(db.get_message("s1", "new"), {})
        db.update_session("s1", video_id="other")
        expect(db.get_session("s2")["video_id"], "v1")
        second = [each for each in stored(db) if each[0]["session_id"] == "s2"]
        db.delete_session("s1")
        expect(stored(db), second, "the copy, once the session is gone")
        db.copy_session("s2", "s1")
        expect(_of(db, "s1"), _of(db, "s2"), "a copy of the copy")
        expect(db.pop_message("s1")["msg_id"], "new")

    @clause("SES-9")
    def test_ses_9_until_a_message_and_without_the_context(self, db: RecordedDB) -> None:
        """Places count, not times; the message is the last one, and nothing tells of later ones."""
        names = _long_session(db)
        records = db.get_conversations("s1")
        for number, name in enumerate(names, 1):
            copied = f"until {name}"
            expect(db.copy_session("s1", copied, until=name), number)
            found = db.get_conversations(copied)
            expect(found, [{**r, "session_id": copied} for r in records[:number]], copied)
            expect([db.get_context(copied), db.get_context_messages(copied)], [{}, {}])
            expect(db.get_session(copied)["metadata"], {"k": [1.0, -0.0]})
            put(db, copied, "next")
            expect(msg_ids(db.get_conversations(copied)), [*names[:number], "next"])

    @clause("SES-9")
    def test_ses_9_a_context_of_any_kind_is_copied(self, db: RecordedDB) -> None:
        """Whatever is in a context, the copy has the same, and appends to it as to the first."""
        for number, value in enumerate(ANY_JSON):
            name, copied = f"s{number}", f"copy {number}"
            new_session(db, name)
            db.add_or_update_context_msg(name, value, 1, 2, {"of": number})
            expect(db.copy_session(name, copied), 0)
            expect(db.get_context(copied), {**db.get_context(name), "session_id": copied})
            if isinstance(value, dict) and isinstance(value.get("reasoning", []), list):
                length = db.append_context_messages(copied, ["more"])
                expect(length, len(value.get("reasoning", [])) + 1)
                expect(db.get_context_messages(name), value, "of the first")

    @clause("SES-9")
    def test_ses_9_an_id_that_is_taken_is_an_error(self, db: RecordedDB) -> None:
        """A session that is there stays as it is, also if it is the session itself."""
        full_session(db)
        new_session(db, "s2")
        put(db, "s2", "x")
        with unchanged(db):
            for to in ("s2", "s1"):
                for until in (None, "a"):
                    call = partial(db.copy_session, "s1", to, until=until)
                    error = expect_error(SessionExistsError, call)
                    expect(error.session_id, to)
        db.delete_session("s2")
        expect(db.copy_session("s1", "s2"), 2, "once it is gone")

    @clause("SES-9")
    def test_ses_9_what_is_missing_or_impossible_is_refused(self, db: RecordedDB) -> None:
        """First the arguments, then the session, then the message, then the new id."""
        full_session(db)
        new_session(db, "s2")
        impossible: tuple[Any, ...] = ("", "a\0", "\ud800", "x" * 256, 5, b"s9")
        with unchanged(db):
            for bad in impossible:
                for name, call in (
                    ("session_id", partial(db.copy_session, bad, "s9")),
                    ("to", partial(db.copy_session, "s1", bad)),
                    ("until", partial(db.copy_session, "nobody", "s9", until=bad)),
                ):
                    expect(expect_error(InvalidRecordError, call).path, name)
            expect(expect_error(InvalidRecordError, db.copy_session, "s1", None).path, "to")
            for to in ("s9", "s2", "nobody"):
                for until in (None, "a"):
                    call = partial(db.copy_session, "nobody", to, until=until)
                    expect(expect_error(SessionNotFoundError, call).session_id, "nobody")
            for to in ("s9", "s2", "s1"):
                for unknown in ("nobody", "A"):
                    call = partial(db.copy_session, "s1", to, until=unknown)
                    refused = expect_error(InvalidRecordError, call)
                    expect([refused.path, unknown in refused.reason], ["until", True])

    @clause("SES-9", level="concurrent")
    def test_ses_9_a_copy_is_of_one_moment(self, place: RecordedPlace) -> None:
        """Messages and context of a copy go together, however its session changes meanwhile."""
        writer, copier = place.open(), place.open()
        done = threading.Event()
        new_session(writer)
        names = [f"m{number}" for number in range(20)]
        steps: list[int] = []

        def write_step(step: int) -> None:
            # The context first, so that it is never behind the messages.
            writer.add_or_update_context_msg("s1", {"reasoning": [step] * 30, "of": step})
            writer.add_or_update_msgs_to_conv("s1", [message(name, step) for name in names])
            steps.append(step)

        def write() -> None:
            for step in range(1, _MOST):
                write_step(step)
                if done.is_set():
                    break

        def goes_on(least: int) -> bool:
            return len(steps) > least

        def copy() -> None:
            try:
                for number in range(_ROUNDS):
                    reached = len(steps) + 1
                    copier.copy_session("s1", f"copy {number}")
                    wait_until(partial(goes_on, reached), "the writer writes")
            finally:
                done.set()

        write_step(0)
        at_once([write, copy])
        for number in range(_ROUNDS):
            records = copier.get_conversations(f"copy {number}")
            expect(msg_ids(records), names, "all messages")
            step = records[0]["content"]
            expect({record["content"] for record in records}, {step}, "the step of all messages")
            context = copier.get_context_messages(f"copy {number}")
            of = context["of"]
            expect(context, {"reasoning": [of] * 30, "of": of}, "the context of one step")
            expect(of in {step, step + 1}, True, f"whether context {of} goes with step {step}")

    @clause("SES-9", level="concurrent")
    def test_ses_9_a_copy_is_there_at_one_moment(self, place: RecordedPlace) -> None:
        """Once a part of a copy can be read, all of it can."""
        copier, watcher = place.open(), place.open()
        new_session(copier)
        copier.add_or_update_msgs_to_conv("s1", [message(str(number)) for number in range(200)])
        copier.add_or_update_context_msg("s1", [1, 2])
        reads = {"get_session": 8, "get_conversations": 200, "get_context_messages": 2}

        def copy() -> None:
            for number in range(_ROUNDS):
                copier.copy_session("s1", f"copy {number}")

        def watch() -> None:
            for number in range(_ROUNDS):
                name = f"copy {number}"
                for first in reads:
                    if getattr(watcher, first)(name):
                        found = {read: len(getattr(watcher, read)(name)) for read in reads}
                        expect(found, reads, f"the lengths of all, after {first}")

        at_once([copy], watched_by=[watch])

    @clause("SES-9", level="concurrent")
    def test_ses_9_of_copies_at_once_to_one_id_one_is_made(self, place: RecordedPlace) -> None:
        """One copy is whole, all others are told that the id is taken, and create_session too."""
        handles = [place.open(), place.open()]
        for number in range(THREADS):
            new_session(handles[0], f"s{number}")
            bulk = [message(f"m{n}", number) for n in range(number + 1)]
            handles[0].add_or_update_msgs_to_conv(f"s{number}", bulk)

        def copy(number: int, to: str) -> int | None:
            try:
                copied: int = handles[number % 2].copy_session(f"s{number}", to)
            except SessionExistsError as error:
                expect(error.session_id, to)
                return None
            return copied

        for attempt in range(6):
            to = f"copy {attempt}"
            create = partial(handles[1].create_session, to)
            *copied, created = at_once([*(partial(copy, n, to) for n in range(THREADS)), create])
            made = [(number, count) for number, count in enumerate(copied) if count is not None]
            expect(len(made) + created, 1, "how many have made it")
            found = [record["content"] for record in handles[0].get_conversations(to)]
            expect(found, [number for number, count in made for _ in range(count)], "of one copy")

    @clause("SES-9", level="concurrent")
    def test_ses_9_a_copy_beside_a_delete_is_whole_or_none(self, place: RecordedPlace) -> None:
        """A session that goes while it is copied leaves a whole copy, or an error and nothing."""
        handles = [place.open(), place.open()]
        bulk = [message(str(number), "text" * 25) for number in range(300)]

        def copy(name: str) -> int | None:
            try:
                copied: int = handles[0].copy_session(name, f"copy of {name}")
            except SessionNotFoundError as error:
                expect(error.session_id, name)
                return None
            return copied

        for attempt in range(8):
            name = new_session(handles[0], f"s{attempt}")
            handles[0].add_or_update_msgs_to_conv(name, bulk)
            handles[0].add_or_update_context_msg(name, [1, 2])
            copied, _ = at_once([partial(copy, name), partial(handles[1].delete_session, name)])
            found = handles[1].get_conversations(f"copy of {name}")
            context = handles[1].get_context_messages(f"copy of {name}")
            expect(bool(handles[1].get_session(f"copy of {name}")), copied is not None)
            whole = (300, 300, [1, 2]) if copied is not None else (None, 0, {})
            expect((copied, len(found), context), whole, "the copy")


def _of(db: RecordedDB, session_id: str) -> list[dict[str, Any]]:
    """Return all of a session but its id and its own times."""
    session = {**db.get_session(session_id), "created_at": 0, "updated_at": 0}
    parts = (session, *db.get_conversations(session_id), db.get_context(session_id))
    return [{**part, "session_id": ""} for part in parts]


def _long_session(db: RecordedDB, session_id: str = "s1") -> list[str]:
    """Make a session in which no field is as another one's, and return the ids of its messages."""
    db.create_session(session_id, "v1", "c1", 5, 6, {"k": [1.0, -0.0]}, user_id="u1")
    for number, name in enumerate("dbeac"):
        fields = {"conv_id": f"c{number % 2}", "status": f"status {number}", "metadata": [number]}
        times = {"created_at": 7 - number, "updated_at": 3}
        put(db, session_id, name, {"of": name}, revision=number, agents=[name], **fields, **times)
    put(db, session_id, "d", {"again": "d"}, updated_at=3)
    db.add_or_update_context_msg(session_id, {"reasoning": [1, [2]], "b": "x"}, 8, 9, {"m": 1})
    return [*"dbeac"]
