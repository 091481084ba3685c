"""MSG-1 to MSG-5, MSG-8 and MSG-9; pages are in `messages_paging`, bulks in `messages_bulk`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from director_db import InvalidRecordError, SessionNotFoundError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    clock,
    expect_now,
    full_session,
    message,
    msg_ids,
    new_session,
    put,
    stored,
    unchanged,
    writes_to,
)
from director_db_conformance.expectation import expect, expect_error

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB

_KEYS: Final = [
    "session_id",
    "conv_id",
    "msg_id",
    "msg_type",
    "agents",
    "actions",
    "content",
    "status",
    "created_at",
    "updated_at",
    "metadata",
    "revision",
]


class MessageClauses:
    """Storing, changing and deleting messages one by one."""

    # --- MSG-1: inserting and replacing ---------------------------------------------------------

    @clause("MSG-1")
    def test_msg_1_stores_what_is_given(self, db: RecordedDB) -> None:
        """A message is stored with every field that was given, and reads back the same."""
        new_session(db)
        returned = db.add_or_update_msg_to_conv(
            "s1", "c1", "m1", "output", ["a"], [{"b": 1}], [{"type": "text"}], "x", 5, 6, {"k": 0}
        )
        expect(returned, True)
        expected = {
            "session_id": "s1",
            "conv_id": "c1",
            "msg_id": "m1",
            "msg_type": "output",
            "agents": ["a"],
            "actions": [{"b": 1}],
            "content": [{"type": "text"}],
            "status": "x",
            "created_at": 5,
            "updated_at": 6,
            "metadata": {"k": 0},
            "revision": None,
        }
        expect(db.get_conversations("s1"), [expected])
        expect(db.get_message("s1", "m1"), expected)

    @clause("MSG-1")
    def test_msg_1_takes_every_field_by_its_name(self, db: RecordedDB) -> None:
        """The fields may be given by name, so what was read can be passed on with **."""
        new_session(db)
        db.add_or_update_msg_to_conv(
            metadata={"k": 0},
            updated_at=6,
            created_at=5,
            status="x",
            content="content",
            actions="actions",
            agents="agents",
            msg_type="output",
            msg_id="m1",
            conv_id="c1",
            session_id="s1",
        )
        record = db.get_message("s1", "m1")
        values = ["s1", "c1", "m1", "output", "agents", "actions", "content", "x", 5, 6, {"k": 0}]
        expect([record[key] for key in _KEYS], [*values, None])
        db.add_or_update_msg_to_conv(**record)
        expect(db.get_conversations("s1"), [record])

    @clause("MSG-1")
    def test_msg_1_fills_the_defaults(self, db: RecordedDB) -> None:
        """What is not given is None, now, or an empty dict."""
        new_session(db)
        since = clock()
        db.add_or_update_msg_to_conv("s1", None, "m1", "", None, 0, "")
        record = db.get_message("s1", "m1")
        expect_now(record["created_at"], since, "created_at")
        expect(record["updated_at"], record["created_at"], "updated_at, from the same clock")
        expect([record[key] for key in ("status", "metadata")], [None, {}])

    @clause("MSG-1")
    def test_msg_1_an_update_replaces_every_other_field(self, db: RecordedDB) -> None:
        """A message that is written again becomes what the last call says, its conv_id too."""
        new_session(db)
        db.add_or_update_msg_to_conv("s1", "c1", "m1", "input", [1], [2], [3], "x", 5, 6, {"k": 0})
        db.add_or_update_msg_to_conv("s1", "c2", "m1", "output", 4, 5, 6, "y", 7, 8, {"l": 1})
        (record,) = db.get_conversations("s1")
        values = ["s1", "c2", "m1", "output", 4, 5, 6, "y", 7, 8, {"l": 1}]
        expect([record[key] for key in _KEYS], [*values, None])

    @clause("MSG-1")
    def test_msg_1_an_update_resets_what_is_left_out(self, db: RecordedDB) -> None:
        """A field that an update leaves out takes its default, not its old value."""
        new_session(db)
        put(db, "s1", "m1", conv_id="c1", status="x", metadata={"k": 0})
        put(db, "s1", "m1", conv_id=None, agents={}, actions=None)
        record = db.get_message("s1", "m1")
        keys = ("conv_id", "agents", "actions", "status", "metadata")
        expect([record[key] for key in keys], [None, {}, None, None, {}])

    @clause("MSG-1")
    def test_msg_1_a_streamed_answer_is_one_message(self, db: RecordedDB) -> None:
        """A message that is written again and again while it grows is there once, whole."""
        new_session(db)
        put(db, "s1", "question")
        for length in range(1, 30):
            put(db, "s1", "answer", ["word"] * length, status="progress")
        put(db, "s1", "answer", ["short"], status="success")
        question, answer = db.get_conversations("s1")
        expect([question["msg_id"], question["content"]], ["question", "text"])
        keys = ("msg_id", "content", "status")
        expect([answer[key] for key in keys], ["answer", ["short"], "success"])

    @clause("MSG-1")
    def test_msg_1_an_update_changes_no_other_message(self, db: RecordedDB) -> None:
        """An update reaches the message that is named and no other."""
        full_session(db)
        for name in ("A", "a ", "aa", "%", "_"):
            put(db, "s1", name, name, status=name)
        others = [record for record in db.get_conversations("s1") if record["msg_id"] != "a"]
        put(db, "s1", "a", "new", conv_id="new", status="new", created_at=1)
        expect([record for record in db.get_conversations("s1") if record["msg_id"] != "a"], others)

    @clause("MSG-1")
    def test_msg_1_drops_other_keywords_unchecked(self, db: RecordedDB) -> None:
        """A caller can pass all its attributes; those that are no fields are ignored."""
        new_session(db)
        others = {"video_id": 5, "db": object(), "score": float("nan"), "limit": 0, "seq": 1}
        put(db, "s1", "m1", **others)
        expect(list(db.get_message("s1", "m1")), _KEYS)

    # --- MSG-2: times ---------------------------------------------------------------------------

    @clause("MSG-2")
    def test_msg_2_created_at_survives_an_update(self, db: RecordedDB) -> None:
        """A message keeps the time of its creation through updates that do not give one."""
        new_session(db)
        for name, time in (("a", 5), ("zero", 0), ("b", -7), ("c", 2**40)):
            put(db, "s1", name, created_at=time, updated_at=5)
            put(db, "s1", name, "new", updated_at=9)
            expect(db.get_message("s1", name)["created_at"], time)
            put(db, "s1", name, "new", created_at=None)
            expect(db.get_message("s1", name)["created_at"], time)

    @clause("MSG-2")
    def test_msg_2_created_at_is_stored_if_it_is_given(self, db: RecordedDB) -> None:
        """An update that gives created_at corrects it, to an earlier or a later time."""
        new_session(db)
        put(db, "s1", "m", updated_at=5)
        for time in (50, 7, 0, -3, 2**40):
            put(db, "s1", "m", created_at=time, updated_at=5)
            record = db.get_message("s1", "m")
            expect((record["created_at"], record["updated_at"]), (time, 5))

    @clause("MSG-2")
    def test_msg_2_updated_at_is_stored_if_it_is_given(self, db: RecordedDB) -> None:
        """A message's updated_at is what the call says, also if that is earlier than before."""
        new_session(db)
        for time in (50, 70, 7, 0, -3, 2**40, 1):
            put(db, "s1", "m", updated_at=time)
            expect(db.get_message("s1", "m")["updated_at"], time)

    @clause("MSG-2")
    def test_msg_2_what_is_not_given_is_now(self, db: RecordedDB) -> None:
        """A time that nobody gave is read from the clock, each time by itself."""
        new_session(db)
        since = clock()
        put(db, "s1", "a", updated_at=5)
        put(db, "s1", "b", created_at=5)
        first, second = db.get_conversations("s1")
        expect_now(first["created_at"], since, "created_at")
        expect(first["updated_at"], 5)
        expect(second["created_at"], 5)
        expect_now(second["updated_at"], since, "updated_at")
        for time in (5, 2**40):
            put(db, "s1", "a", updated_at=time)
            since = clock()
            put(db, "s1", "a")
            expect_now(db.get_message("s1", "a")["updated_at"], since, "updated_at of an update")

    @clause("MSG-2")
    def test_msg_2_created_at_of_a_message_stored_anew(self, db: RecordedDB) -> None:
        """A message that was deleted and is stored again is new: nothing of its times is left."""
        new_session(db)
        put(db, "s1", "m", created_at=5, updated_at=5)
        db.delete_message("s1", "m")
        since = clock()
        put(db, "s1", "m")
        expect_now(db.get_message("s1", "m")["created_at"], since, "created_at")

    # --- MSG-3: place ---------------------------------------------------------------------------

    @clause("MSG-3")
    def test_msg_3_an_update_keeps_the_place(self, db: RecordedDB) -> None:
        """A message that is updated stays where it is in the conversation."""
        new_session(db)
        for name in "cab":
            put(db, "s1", name)
        for name in "bcaac":
            put(db, "s1", name, "new")
        put(db, "s1", "d")
        put(db, "s1", "a", "newer")
        expect(msg_ids(db.get_conversations("s1")), [*"cabd"])

    @clause("MSG-3")
    def test_msg_3_places_stay_however_often_messages_are_written(self, db: RecordedDB) -> None:
        """Thousands of updates, as of an answer that streams, neither move nor mix messages."""
        new_session(db)
        names = [f"m{number}" for number in range(100)]
        for _ in range(41):
            db.add_or_update_msgs_to_conv("s1", [message(name) for name in names])
        put(db, "s1", "next")
        db.add_or_update_msgs_to_conv("s1", [message("next", step) for step in range(4100)])
        put(db, "s1", "last")
        expect(msg_ids(db.get_conversations("s1")), [*names, "next", "last"])
        expect(db.get_message("s1", "next")["content"], 4099)

    @clause("MSG-3")
    def test_msg_3_ids_and_times_do_not_order(self, db: RecordedDB) -> None:
        """The order is that of the first insertion, whatever ids and times are."""
        new_session(db)
        names = ["9", "10", "b", "B", "a", "_", "1", "0", "aa", "~", "e", "d"]
        for number, name in enumerate(names):
            put(db, "s1", name, created_at=50 - number, updated_at=-number)
        expect(msg_ids(db.get_conversations("s1")), names)
        put(db, "s1", "10", created_at=-1000, updated_at=2**40)
        put(db, "s1", "a", created_at=2**40, updated_at=-1000, conv_id="other", status="x")
        expect(msg_ids(db.get_conversations("s1")), names)

    @clause("MSG-3")
    def test_msg_3_a_message_that_was_deleted_comes_back_at_the_end(self, db: RecordedDB) -> None:
        """A message that is deleted and stored again is a new one."""
        new_session(db)
        for name in "abc":
            put(db, "s1", name, created_at=5)
        db.delete_message("s1", "a")
        put(db, "s1", "a", created_at=5)
        expect(msg_ids(db.get_conversations("s1")), [*"bca"])

    @clause("MSG-3")
    def test_msg_3_deleting_does_not_disturb_what_comes_later(self, db: RecordedDB) -> None:
        """New messages go to the end, also after others at the start or the end were deleted."""
        new_session(db)
        for name in "fed":
            put(db, "s1", name)
        db.delete_message("s1", "f")
        put(db, "s1", "c")
        put(db, "s1", "b")
        db.delete_message("s1", "b")
        put(db, "s1", "a")
        put(db, "s1", "e", "new")
        expect(msg_ids(db.get_conversations("s1")), [*"edca"])
        db.delete_conversation("s1")
        for name in "zyx":
            put(db, "s1", name)
        expect(msg_ids(db.get_conversations("s1")), [*"zyx"])

    # --- MSG-4: ids are per session -------------------------------------------------------------

    @clause("MSG-4")
    def test_msg_4_one_id_in_two_sessions_is_two_messages(self, db: RecordedDB) -> None:
        """Two sessions may use the same message ids and never see each other's."""
        for name in ("s1", "s2"):
            new_session(db, name)
            put(db, name, "m", f"of {name}", created_at=5)
        put(db, "s1", "m", "again", created_at=7)
        expect(db.get_message("s2", "m")["content"], "of s2")
        expect(db.get_message("s2", "m")["created_at"], 5)
        expect(db.get_message("s1", "m")["content"], "again")
        expect([db.delete_message("s1", "m")], [True])
        expect(msg_ids(db.get_conversations("s1")), [])
        expect(msg_ids(db.get_conversations("s2")), ["m"])

    @clause("MSG-4")
    def test_msg_4_each_session_has_its_own_order(self, db: RecordedDB) -> None:
        """Messages that were stored by turns in two sessions have their order in each."""
        for name in ("s1", "s2"):
            new_session(db, name)
        for first, second in zip("badc", "dcab", strict=True):
            put(db, "s1", first)
            put(db, "s2", second)
        put(db, "s1", "d", "new")
        expect(msg_ids(db.get_conversations("s1")), [*"badc"])
        expect(msg_ids(db.get_conversations("s2")), [*"dcab"])

    @clause("MSG-4")
    def test_msg_4_no_write_reaches_another_session(self, db: RecordedDB) -> None:
        """Whatever is done to one session leaves those beside it as they are."""
        for name in ("s2", "S1", "s", "s1 ", "%"):
            full_session(db, name)
        with unchanged(db):
            full_session(db, "s1")
            for write in writes_to(db, "s1").values():
                write()
            db.delete_message("s1", "a")
            db.delete_context("s1")
            db.delete_conversation("s1")
            db.delete_session("s1")

    # --- MSG-5: no session, no message ----------------------------------------------------------

    @clause("MSG-5")
    def test_msg_5_a_message_needs_its_session(self, db: RecordedDB) -> None:
        """A message for a session that does not exist is an error that names the session."""
        new_session(db)
        with unchanged(db):
            error = expect_error(SessionNotFoundError, put, db, "nobody", "m1")
            expect(error.session_id, "nobody")
            expect(db.get_conversations("nobody"), [])
            expect(db.get_message("nobody", "m1"), {})

    @clause("MSG-5")
    def test_msg_5_a_refused_message_does_not_wait_for_its_session(self, db: RecordedDB) -> None:
        """What was refused for want of a session is not there when the session is created."""
        for write in writes_to(db, "nobody").values():
            expect_error(SessionNotFoundError, write)
        new_session(db, "nobody")
        expect(db.get_conversations("nobody"), [])
        expect(db.get_context("nobody"), {})

    @clause("MSG-5")
    def test_msg_5_no_late_write_revives_a_session(self, db: RecordedDB) -> None:
        """A worker that goes on writing to a deleted session is told, and changes nothing."""
        full_session(db, "s2")
        full_session(db)
        db.delete_session("s1")
        with unchanged(db):
            for name, write in writes_to(db, "s1").items():
                error = expect_error(SessionNotFoundError, write)
                expect(error.session_id, "s1", name)
                expect(db.get_session("s1"), {}, name)

    @clause("MSG-5")
    def test_msg_5_refuses_before_it_looks(self, db: RecordedDB) -> None:
        """A bad value is refused as such also where the session is missing."""
        for field, bad in (("msg_type", None), ("content", {1: 2}), ("created_at", 1.0)):
            error = expect_error(InvalidRecordError, put, db, "nobody", "m", **{field: bad})
            expect(error.path, field)

    # --- MSG-8: the form ------------------------------------------------------------------------

    @clause("MSG-8")
    def test_msg_8_has_these_keys_in_this_order(self, db: RecordedDB) -> None:
        """A message is a plain dict with eleven keys, always the same and in the same order."""
        full_session(db)
        pages = (
            db.get_conversations("s1"),
            db.get_conversations("s1", limit=1),
            db.get_conversations("s1", after="a"),
            db.get_conversations("s1", before="b"),
            [db.get_message("s1", "a")],
        )
        for record in itertools.chain(*pages):
            expect(type(record).__name__, "dict")
            expect(list(record), _KEYS)

    @clause("MSG-8")
    def test_msg_8_payloads_are_any_json(self, db: RecordedDB) -> None:
        """agents, actions, content and metadata hold any JSON value, empty ones as they are."""
        new_session(db)
        values: list[Any] = [None, 0, 1, False, True, 0.0, 1.5, "", "x", [], {}, [None], {"": None}]
        fields = ("agents", "actions", "content", "metadata")
        for number, value in enumerate(values):
            put(db, "s1", f"m{number}", **dict.fromkeys(fields, value))
        for record, value in zip(db.get_conversations("s1"), values, strict=True):
            expect([record[key] for key in fields[:3]], [value] * 3)
            # None means {} for metadata alone (VAL-8).
            expect(record["metadata"], {} if value is None else value)

    @clause("MSG-8")
    def test_msg_8_each_payload_has_its_own_place(self, db: RecordedDB) -> None:
        """What one payload holds never ends up in another."""
        new_session(db)
        put(db, "s1", "m", [{"c": 3}], agents=["a"], actions={"b": 2}, metadata="d")
        for record in (db.get_message("s1", "m"), *db.get_conversations("s1")):
            payloads = [record[key] for key in ("agents", "actions", "content", "metadata")]
            expect(payloads, [["a"], {"b": 2}, [{"c": 3}], "d"])

    @clause("MSG-8")
    def test_msg_8_tells_an_empty_text_from_none(self, db: RecordedDB) -> None:
        """An empty conv_id, status or msg_type is a value of its own."""
        new_session(db)
        put(db, "s1", "a", conv_id="", status="", msg_type="")
        put(db, "s1", "b", conv_id=None, status=None)
        first, second = db.get_conversations("s1")
        expect([first[key] for key in ("conv_id", "status", "msg_type")], ["", "", ""])
        expect([second[key] for key in ("conv_id", "status")], [None, None])

    @clause("MSG-8")
    def test_msg_8_words_are_the_applications(self, db: RecordedDB) -> None:
        """No list of known words restricts msg_type and status."""
        new_session(db)
        for number, word in enumerate(
            ("input", "OUTPUT", "tool call", "é", "None", "0", "x" * 255)
        ):
            put(db, "s1", f"m{number}", msg_type=word, status=word)
            record = db.get_message("s1", f"m{number}")
            expect([record["msg_type"], record["status"]], [word, word])

    # --- MSG-9: one message ---------------------------------------------------------------------

    @clause("MSG-9")
    def test_msg_9_reads_the_same_as_the_conversation(self, db: RecordedDB) -> None:
        """Reading one message gives the same record as reading all."""
        full_session(db)
        expect([db.get_message("s1", name) for name in "ab"], db.get_conversations("s1"))

    @clause("MSG-9")
    def test_msg_9_a_missing_message_is_an_empty_dict(self, db: RecordedDB) -> None:
        """A message that is not in the session is {}, one of another session too."""
        full_session(db)
        new_session(db, "s2")
        put(db, "s2", "c")
        for name in ("c", "A", "a ", "%", "_", "", "aa"):
            expect(db.get_message("s1", name), {}, f"{name!r}")
        expect(db.get_message("nobody", "a"), {})

    @clause("MSG-9")
    def test_msg_9_delete_says_whether_it_was_there(self, db: RecordedDB) -> None:
        """Deleting a message returns True once and False from then on."""
        full_session(db)
        expect([db.delete_message("s1", "a") for _ in range(3)], [True, False, False])
        expect([db.delete_message("nobody", "b")], [False])
        expect(msg_ids(db.get_conversations("s1")), ["b"])
        expect(db.get_message("s1", "a"), {})

    @clause("MSG-9")
    def test_msg_9_delete_takes_one_message_only(self, db: RecordedDB) -> None:
        """The other messages stay, in their places; the context and other sessions too."""
        full_session(db, "s2")
        full_session(db)
        for name in ("A", "a ", "aa", "%", "_"):
            put(db, "s1", name)
        put(db, "s1", "m", "new")
        before = stored(db)
        expect([db.delete_message("s1", "m")], [True])
        after = stored(db)
        expect(msg_ids(after[0][1]), ["a", "b", "A", "a ", "aa", "%", "_"])
        expect(
            [after[0][1], *after[0][2:], *after[1:]],
            [before[0][1][:-1], *before[0][2:], *before[1:]],
        )
        expect([db.delete_message("s1", "%")], [True])
        expect(msg_ids(db.get_conversations("s1")), ["a", "b", "A", "a ", "aa", "_"])
