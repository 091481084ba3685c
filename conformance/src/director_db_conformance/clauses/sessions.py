"""SES-1 to SES-3, SES-5 and SES-6; the list of SES-4 is in `sessions_listing`."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from director_db import UNSET, InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    FAR_FUTURE,
    clock,
    expect_now,
    fields,
    full_session,
    message,
    msg_ids,
    new_session,
    put,
    session_ids,
    stored,
    unchanged,
)
from director_db_conformance.expectation import expect, expect_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_conformance.transcript import RecordedDB

_FIELDS: Final = [
    "session_id",
    "video_id",
    "collection_id",
    "created_at",
    "updated_at",
    "metadata",
    "user_id",
]
_KEYS: Final = [*_FIELDS, "version"]


class SessionClauses:
    """Creating, reading and changing sessions."""

    # --- SES-1: creating ------------------------------------------------------------------------

    @clause("SES-1")
    def test_ses_1_stores_what_is_given(self, db: RecordedDB) -> None:
        """A session is stored with every field that was given, and reads back the same."""
        expect(db.create_session("s1", "v1", "c1", 3, 5, {"b": 1, "a": [None]}, "u1"), True)
        expect(
            fields(db.get_session("s1")),
            {
                "session_id": "s1",
                "video_id": "v1",
                "collection_id": "c1",
                "created_at": 3,
                "updated_at": 5,
                "metadata": {"b": 1, "a": [None]},
                "user_id": "u1",
            },
        )

    @clause("SES-1")
    def test_ses_1_takes_every_field_by_its_name(self, db: RecordedDB) -> None:
        """The fields may be given by name, in any order."""
        db.create_session(
            user_id="u1",
            metadata={"k": 1},
            updated_at=5,
            created_at=3,
            collection_id="c1",
            video_id="v1",
            session_id="s1",
        )
        session = db.get_session("s1")
        expect([session[key] for key in _FIELDS], ["s1", "v1", "c1", 3, 5, {"k": 1}, "u1"])

    @clause("SES-1")
    def test_ses_1_fills_the_defaults(self, db: RecordedDB) -> None:
        """What is not given is None, now, or an empty dict."""
        since = clock()
        db.create_session("s1")
        session = db.get_session("s1")
        expect_now(session["created_at"], since, "created_at")
        expect(session["updated_at"], session["created_at"], "updated_at, from the same clock")
        keys = ("video_id", "collection_id", "user_id")
        expect([session[key] for key in keys], [None] * 3)
        expect(session["metadata"], {})

    @clause("SES-1")
    def test_ses_1_fills_one_time_without_the_other(self, db: RecordedDB) -> None:
        """A time that is not given is now, whatever the other one is."""
        since = clock()
        db.create_session("s1", created_at=5)
        db.create_session("s2", updated_at=7)
        created, updated = db.get_session("s1"), db.get_session("s2")
        expect(created["created_at"], 5)
        expect_now(created["updated_at"], since, "updated_at")
        expect(updated["updated_at"], 7)
        expect_now(updated["created_at"], since, "created_at")

    @clause("SES-1")
    def test_ses_1_stores_both_times_as_given(self, db: RecordedDB) -> None:
        """Nothing makes updated_at later than created_at; zero and negative times are times."""
        for number, times in enumerate(
            [(9, 3), (0, 0), (-3, -9), (0, -1), (5, 0), (FAR_FUTURE, 1)]
        ):
            db.create_session(f"s{number}", created_at=times[0], updated_at=times[1])
            session = db.get_session(f"s{number}")
            expect((session["created_at"], session["updated_at"]), times)

    @clause("SES-1")
    def test_ses_1_tells_an_empty_text_from_none(self, db: RecordedDB) -> None:
        """An empty video, collection or user is a value of its own, not the lack of one."""
        db.create_session("s1", "", None)
        db.create_session("s2", None, "")
        db.create_session("s3", user_id="")
        keys = ("video_id", "collection_id", "user_id")
        for name, expected in (
            ("s1", ["", None, None]),
            ("s2", [None, "", None]),
            ("s3", [None, None, ""]),
        ):
            session = db.get_session(name)
            expect([session[key] for key in keys], expected)

    @clause("SES-1")
    def test_ses_1_drops_other_keywords_unchecked(self, db: RecordedDB) -> None:
        """A caller can pass all its attributes; those that are no fields are ignored."""
        others = {"conv_id": "", "db": object(), "score": float("nan"), "status": b"", "limit": 0}
        expect(db.create_session(session_id="s1", video_id="v1", **others), True)
        expect(list(db.get_session("s1")), _KEYS)
        expect(db.get_session("s1")["video_id"], "v1")

    # --- SES-2: creating again ------------------------------------------------------------------

    @clause("SES-2")
    def test_ses_2_a_second_create_changes_no_field(self, db: RecordedDB) -> None:
        """Creating a session that is there already has no effect and raises nothing."""
        db.create_session("s1", "v1", "c1", 10, 20, {"a": 1})
        db.create_session("s2", None, None, 10, 20)
        with unchanged(db):
            for name in ("s1", "s2"):
                expect(db.create_session(name, "v2", "c2", 30, 40, {"b": 2}, "u2"), False)
                expect(db.create_session(name, "v2", None, 1, 2), False)

    @clause("SES-2")
    def test_ses_2_a_second_create_with_defaults_changes_no_field(self, db: RecordedDB) -> None:
        """The usual call at every start of an application leaves times and metadata alone."""
        db.create_session("s1", "v1", "c1", 10, 20, {"a": 1})
        with unchanged(db):
            expect(db.create_session("s1"), False)

    @clause("SES-2")
    def test_ses_2_says_whether_it_created(self, db: RecordedDB) -> None:
        """The first create is told that the session is new, every later one that it was there."""
        for _ in range(2):
            expect(db.create_session("s1", "v1"), True, "a session that is not there")
            for _ in range(2):
                expect(db.create_session("s1", "v1"), False, "one that is there")
            db.delete_session("s1")

    @clause("SES-2")
    def test_ses_2_a_second_create_keeps_messages_and_context(self, db: RecordedDB) -> None:
        """Nothing that belongs to the session is lost when it is created again."""
        full_session(db)
        with unchanged(db):
            db.create_session("s1", "v2")

    @clause("SES-2")
    def test_ses_2_a_second_create_keeps_the_order_of_messages(self, db: RecordedDB) -> None:
        """A message that comes after the second create still goes to the end."""
        new_session(db)
        for name in "zyx":
            put(db, "s1", name)
        db.create_session("s1")
        for name in "cab":
            put(db, "s1", name)
        expect(msg_ids(db.get_conversations("s1")), [*"zyxcab"])

    @clause("SES-2")
    def test_ses_2_a_second_create_is_checked_all_the_same(self, db: RecordedDB) -> None:
        """A value that breaks a rule is refused also where it would not be stored."""
        new_session(db)
        with unchanged(db):
            expect_error(InvalidRecordError, db.create_session, "s1", metadata={1: 2})
            expect_error(InvalidRecordError, db.create_session, "s1", "x" * 256)
            expect_error(InvalidRecordError, db.create_session, "s1", created_at=1.0)

    # --- SES-3: reading -------------------------------------------------------------------------

    @clause("SES-3")
    def test_ses_3_has_these_keys_in_this_order(self, db: RecordedDB) -> None:
        """A session is a plain dict with eight keys, always the same and in the same order."""
        db.create_session("s1")
        for session in (db.get_session("s1"), *db.get_sessions()):
            expect(type(session).__name__, "dict")
            expect(list(session), _KEYS)

    @clause("SES-3")
    def test_ses_3_a_missing_session_is_an_empty_dict(self, db: RecordedDB) -> None:
        """Reading a session that does not exist gives {} and brings nothing into being."""
        expect(db.get_session("nobody"), {})
        new_session(db)
        expect(db.get_session("nobody"), {})
        expect(session_ids(db.get_sessions()), ["s1"])

    # --- SES-5: changing ------------------------------------------------------------------------

    @clause("SES-5")
    def test_ses_5_changes_only_what_is_given(self, db: RecordedDB) -> None:
        """Every field that is not named keeps its value."""
        db.create_session("s1", "v1", "c1", 10, 20, {"a": 1}, "u1")
        expected = fields(db.get_session("s1"))
        changes: tuple[dict[str, Any], ...] = (
            {"video_id": "v2"},
            {"collection_id": "c2"},
            {"user_id": "u2"},
            {"metadata": [1]},
            {"video_id": None},
            {"collection_id": None},
            {"user_id": None},
            {"video_id": "", "collection_id": "", "user_id": "", "metadata": {"z": {}, "a": None}},
            {"metadata": 0},
            {},
        )
        for change in changes:
            expect(db.update_session("s1", updated_at=5, **change), None)
            expected |= {**change, "updated_at": 5}
            expect(fields(db.get_session("s1")), expected)

    @clause("SES-5")
    def test_ses_5_none_is_a_value(self, db: RecordedDB) -> None:
        """None clears a field; for metadata that means an empty dict."""
        db.create_session("s1", "v1", "c1", 10, 20, {"a": 1}, "u1")
        nothing = dict.fromkeys(["video_id", "collection_id", "metadata", "user_id"])
        db.update_session("s1", **nothing, updated_at=20)
        session = db.get_session("s1")
        expect([session[key] for key in _FIELDS], ["s1", None, None, 10, 20, {}, None])

    @clause("SES-5")
    def test_ses_5_unset_is_as_left_out(self, db: RecordedDB) -> None:
        """UNSET says in so many words that a field stays."""
        db.create_session("s1", "v1", "c1", 10, 20, {"a": 1}, "u1")
        session = db.get_session("s1")
        unset = dict.fromkeys(["video_id", "collection_id", "metadata", "user_id"], UNSET)
        db.update_session("s1", **unset, updated_at=7)
        expect(db.get_session("s1"), session | {"updated_at": 7})

    @clause("SES-5")
    def test_ses_5_sets_the_time_exactly(self, db: RecordedDB) -> None:
        """A given time is stored, also if it is earlier than the one before."""
        new_session(db)
        for time in (2000, 5, 0, -7, 2**63 - 1, -(2**63)):
            db.update_session("s1", updated_at=time)
            expect(db.get_session("s1")["updated_at"], time)

    @clause("SES-5")
    def test_ses_5_without_a_time_it_is_now(self, db: RecordedDB) -> None:
        """Whatever else is given, updated_at becomes now; also if only the id is given."""
        new_session(db)
        changes: tuple[dict[str, Any], ...] = ({}, {"video_id": "v2"}, {"metadata": [2]})
        for change, time in itertools.product(changes, (1000, FAR_FUTURE)):
            db.update_session("s1", updated_at=time)
            before, since = db.get_session("s1"), clock()
            db.update_session("s1", **change)
            session = db.get_session("s1")
            expect_now(session["updated_at"], since, "updated_at")
            changed = change | {"updated_at": session["updated_at"]}
            expect(fields(session), fields(before) | changed)

    @clause("SES-5")
    def test_ses_5_created_at_cannot_be_changed(self, db: RecordedDB) -> None:
        """When a session began is settled by its creation."""
        new_session(db)
        with suppress(TypeError):
            db.update_session("s1", created_at=5)
        expect(db.get_session("s1")["created_at"], 1000)

    @clause("SES-5")
    def test_ses_5_keeps_messages_and_context(self, db: RecordedDB) -> None:
        """Changing a session loses nothing that belongs to it, and no message's place."""
        full_session(db)
        parts = stored(db)[0][1:]
        db.update_session("s1", video_id="v2", collection_id=None, metadata=[])
        expect(stored(db)[0][1:], parts)
        for name in ("c", "A"):
            put(db, "s1", name)
        expect(msg_ids(db.get_conversations("s1")), ["a", "b", "c", "A"])

    @clause("SES-5")
    def test_ses_5_changes_no_other_session(self, db: RecordedDB) -> None:
        """A change reaches the session that is named and no other."""
        for name in ("s1", "s2", "S1", "s", "s1 "):
            full_session(db, name)
        db.delete_session("s1")
        with unchanged(db):
            new_session(db)
            db.update_session("s1", video_id="v2", collection_id=None, metadata=[], updated_at=1)
            db.delete_session("s1")

    @clause("SES-5")
    def test_ses_5_a_missing_session_is_an_error(self, db: RecordedDB) -> None:
        """Changing a session that does not exist raises and creates nothing."""
        new_session(db)
        with unchanged(db):
            error = expect_error(
                SessionNotFoundError, db.update_session, "nobody", video_id="v2", updated_at=5
            )
            expect(error.session_id, "nobody")
            expect_error(SessionNotFoundError, db.update_session, "nobody")

    @clause("SES-5")
    def test_ses_5_refuses_before_it_looks(self, db: RecordedDB) -> None:
        """A bad value is refused, and named, whether the session exists or not."""
        new_session(db)
        changes: tuple[tuple[str, Any], ...] = (
            ("video_id", 5),
            ("collection_id", "x" * 256),
            ("user_id", "a\0"),
            ("metadata", object()),
            ("updated_at", 1.0),
            ("updated_at", True),
        )
        with unchanged(db):
            for name, (field, bad) in itertools.product(("s1", "nobody"), changes):
                error = expect_error(InvalidRecordError, db.update_session, name, **{field: bad})
                expect(error.path, field)

    # --- SES-6: last activity -------------------------------------------------------------------

    @clause("SES-6")
    def test_ses_6_a_message_moves_the_session_forward(self, db: RecordedDB) -> None:
        """Storing a message, new or known, makes its session as recent as the message."""
        new_session(db)
        for time in (1001, 2000, 2001):
            put(db, "s1", "m", created_at=9000, updated_at=time)
            expect(db.get_session("s1")["updated_at"], time)

    @clause("SES-6")
    def test_ses_6_a_bulk_moves_it_to_the_latest(self, db: RecordedDB) -> None:
        """Of many messages the one with the latest updated_at counts, wherever it stands."""
        new_session(db)
        for shift, times in enumerate([(7, 90, 8), (90, 7, 8), (7, 8, 90)]):
            latest = 2000 * (shift + 1) + 90
            messages = [message(f"m{time}", updated_at=latest - 90 + time) for time in times]
            db.add_or_update_msgs_to_conv("s1", messages)
            expect(db.get_session("s1")["updated_at"], latest)
        db.add_or_update_msgs_to_conv(
            "s1", [message("m", updated_at=9500), message("m", updated_at=9000)]
        )
        expect(db.get_session("s1")["updated_at"], 9500, "an id twice, the first time later")

    @clause("SES-6")
    def test_ses_6_a_context_moves_the_session_forward(self, db: RecordedDB) -> None:
        """Storing a context, new or known, makes its session as recent as the context."""
        new_session(db)
        for time, context in ((2000, []), (2001, [1]), (2002, [1]), (2003, {})):
            db.add_or_update_context_msg("s1", context, created_at=9000, updated_at=time)
            expect(db.get_session("s1")["updated_at"], time)

    @clause("SES-6")
    def test_ses_6_a_write_of_now_moves_it_to_now(self, db: RecordedDB) -> None:
        """A write without a time makes the session active now, an append too, an empty one too."""
        for write in (
            lambda: put(db, "s1", "m"),
            lambda: db.add_or_update_msgs_to_conv("s1", [message("m", updated_at=1), message("n")]),
            lambda: db.add_or_update_context_msg("s1", []),
            lambda: db.append_context_messages("s1", [1], key="k"),
            lambda: db.append_context_messages("s1", [], key="k"),
        ):
            db.delete_session("s1")
            new_session(db)
            db.add_or_update_context_msg("s1", {}, updated_at=1000)
            since = clock()
            write()
            expect_now(db.get_session("s1")["updated_at"], since, "the session's updated_at")

    @clause("SES-6")
    def test_ses_6_any_append_moves_it_to_now(self, db: RecordedDB) -> None:
        """An append is activity whatever there was before: no context, no such list, or a list."""
        beginnings: tuple[Any, ...] = (None, {}, {"k": []}, {"k": [1]})
        for before, key, items in itertools.product(beginnings, ("k", "other"), ([], [2])):
            db.delete_session("s1")
            new_session(db)
            if before is not None:
                db.add_or_update_context_msg("s1", before, updated_at=1000)
            since = clock()
            db.append_context_messages("s1", items, key=key)
            about = f"the session's updated_at after an append to {before} under {key!r}"
            expect_now(db.get_session("s1")["updated_at"], since, about)

    @clause("SES-6")
    def test_ses_6_never_goes_back(self, db: RecordedDB) -> None:
        """A late write of an earlier time does not make a session look older than it is."""
        new_session(db)
        db.update_session("s1", updated_at=FAR_FUTURE)
        put(db, "s1", "m", updated_at=5)
        put(db, "s1", "m", updated_at=0)
        put(db, "s1", "m")
        db.add_or_update_msgs_to_conv("s1", [message("m", updated_at=1), message("n")])
        db.add_or_update_context_msg("s1", {}, updated_at=5)
        db.add_or_update_context_msg("s1", {}, updated_at=-1)
        db.append_context_messages("s1", [1])
        db.append_context_messages("s1", [])
        expect(db.get_session("s1")["updated_at"], FAR_FUTURE)

    @clause("SES-6")
    def test_ses_6_compares_negative_times_too(self, db: RecordedDB) -> None:
        """The larger of two times before 1970 is the one nearer to it."""
        db.create_session("s1", created_at=-300, updated_at=-200)
        put(db, "s1", "m", updated_at=-250)
        db.add_or_update_context_msg("s1", [], updated_at=-250)
        expect(db.get_session("s1")["updated_at"], -200)
        put(db, "s1", "m", updated_at=-150)
        expect(db.get_session("s1")["updated_at"], -150)
        db.add_or_update_context_msg("s1", [], updated_at=-100)
        expect(db.get_session("s1")["updated_at"], -100)
        db.add_or_update_msgs_to_conv("s1", [message("m", updated_at=-50)])
        expect(db.get_session("s1")["updated_at"], -50)

    @clause("SES-6")
    def test_ses_6_the_same_again_is_activity_too(self, db: RecordedDB) -> None:
        """A write that stores what is stored already moves its session forward all the same."""
        full_session(db)
        record, context = db.get_message("s1", "a"), db.get_context("s1")
        writes: dict[str, Callable[[], object]] = {
            "message": lambda: db.add_or_update_msg_to_conv(**record),
            "bulk": lambda: db.add_or_update_msgs_to_conv("s1", [record]),
            "context": lambda: db.add_or_update_context_msg(
                "s1", context["context"], updated_at=1000, metadata=context["metadata"]
            ),
        }
        for name, write in writes.items():
            db.update_session("s1", updated_at=5)
            write()
            expect(db.get_session("s1")["updated_at"], 1000, f"after the same {name}")

    @clause("SES-6")
    def test_ses_6_a_write_changes_nothing_else_of_the_session(self, db: RecordedDB) -> None:
        """Messages and contexts leave the other fields of their session alone."""
        session = db.get_session(new_session(db))
        put(db, "s1", "m", created_at=5, updated_at=2000, metadata={"m": 1})
        db.add_or_update_msgs_to_conv("s1", [message("n", created_at=5, updated_at=2000)])
        db.add_or_update_context_msg("s1", {}, 5, 2000, {"c": 1})
        expect(db.get_session("s1"), session | {"updated_at": 2000})

    @clause("SES-6")
    def test_ses_6_deleting_and_reading_are_no_activity(self, db: RecordedDB) -> None:
        """Deleting parts, reading, and an empty bulk leave the session's time alone."""
        session = db.get_session(full_session(db))
        db.get_conversations("s1", limit=1)
        db.get_message("s1", "a")
        db.get_context("s1")
        db.add_or_update_msgs_to_conv("s1", [])
        expect(db.get_session("s1"), session, "after reads and an empty bulk")
        db.delete_message("s1", "a")
        db.delete_conversation("s1")
        db.delete_context("s1")
        expect(db.get_session("s1"), session, "after deletes")

    @clause("SES-6")
    def test_ses_6_the_list_is_by_last_activity(self, db: RecordedDB) -> None:
        """The session that was written to last comes first in the list."""
        for number in range(3):
            db.create_session(f"s{number}", created_at=number, updated_at=number)
        put(db, "s0", "m", updated_at=10)
        expect(session_ids(db.get_sessions()), ["s0", "s2", "s1"])
        db.add_or_update_context_msg("s1", [], updated_at=11)
        expect(session_ids(db.get_sessions()), ["s1", "s0", "s2"])
