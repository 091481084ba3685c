"""MSG-7: many messages at once."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
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
    unchanged,
)
from director_db_conformance.expectation import expect, expect_error

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB

_BULK_BYTES: Final = 256 * 1024 * 1024
_BAD_FIELDS: Final[dict[str, Any]] = {
    "conv_id": 5,
    "msg_id": "",
    "msg_type": None,
    "agents": {1: 2},
    "actions": object(),
    "content": float("nan"),
    "status": "x" * 256,
    "created_at": 1.0,
    "updated_at": True,
    "metadata": b"",
}


class MessageBulkClauses:
    """Storing many messages in one call."""

    @clause("MSG-7")
    def test_msg_7_stores_what_is_given(self, db: RecordedDB) -> None:
        """Each message of a bulk is stored with every field that it gives."""
        new_session(db)
        one: dict[str, Any] = {
            "conv_id": "c1",
            "msg_id": "m1",
            "msg_type": "output",
            "agents": ["a"],
            "actions": [{"b": 1}],
            "content": {"c": None},
            "status": "x",
            "created_at": 5,
            "updated_at": 6,
            "metadata": [0],
        }
        two = dict.fromkeys(one) | {
            "msg_id": "m2",
            "msg_type": "",
            "created_at": 0,
            "updated_at": 0,
        }
        expect(db.add_or_update_msgs_to_conv("s1", [one, two]), [True, True])
        rest = {"revision": None}
        expected = [{"session_id": "s1", **one}, {"session_id": "s1", **two, "metadata": {}}]
        expect(db.get_conversations("s1"), [record | rest for record in expected])

    @clause("MSG-7")
    def test_msg_7_fills_the_defaults(self, db: RecordedDB) -> None:
        """What a message of a bulk leaves out takes the default of a single call."""
        new_session(db)
        put(db, "s1", "known", status="x", metadata={"k": 1}, created_at=5, updated_at=5)
        since = clock()
        db.add_or_update_msgs_to_conv("s1", [message("known"), message("new")])
        known, new = db.get_conversations("s1")
        for record in (known, new):
            expect([record["status"], record["metadata"]], [None, {}])
            expect_now(record["updated_at"], since, "updated_at")
        expect(known["created_at"], 5)
        expect_now(new["created_at"], since, "created_at")

    @clause("MSG-7")
    def test_msg_7_is_as_one_call_after_another(self, db: RecordedDB) -> None:
        """A bulk of new and known messages, some of them twice, is what single calls would be."""
        messages = [
            message("new", 1, created_at=10, updated_at=10),
            message("old", 2, updated_at=11, conv_id="c2"),
            message("later", 3, created_at=3, updated_at=12, metadata=[1]),
            message("new", 4, updated_at=9, status="done"),
            message("older", 5, created_at=4, updated_at=-13),
            message("later", 6, created_at=0, updated_at=12, agents="x"),
            message("old", 7, created_at=8, updated_at=1, msg_type="z"),
            message("old", 8, updated_at=2, actions={}),
        ]
        for name in ("s1", "s2"):
            new_session(db, name)
            put(db, name, "older", created_at=1, updated_at=1, status="x")
            put(db, name, "old", created_at=2, updated_at=2, metadata=5)
        db.add_or_update_msgs_to_conv("s1", messages)
        for fields in messages:
            db.add_or_update_msg_to_conv("s2", **fields)
        one_by_one = db.get_conversations("s2")
        expect(db.get_conversations("s1"), [record | {"session_id": "s1"} for record in one_by_one])
        expect(msg_ids(one_by_one), ["older", "old", "new", "later"])
        times = [db.get_session(name)["updated_at"] for name in ("s1", "s2")]
        expect(times, [1000, 1000])

    @clause("MSG-7")
    def test_msg_7_an_id_may_come_twice(self, db: RecordedDB) -> None:
        """Of two messages with one id the first gives the place and the last the fields."""
        new_session(db)
        db.add_or_update_msgs_to_conv(
            "s1",
            [
                message("a", "first", status="x", metadata={"k": 1}, updated_at=9),
                message("b"),
                message("a", "second", conv_id="other", updated_at=8),
                message("a", "last", updated_at=7),
                message("c"),
            ],
        )
        records = db.get_conversations("s1")
        expect(msg_ids(records), ["a", "b", "c"])
        keys = ("content", "status", "metadata", "conv_id", "updated_at")
        expect([records[0][key] for key in keys], ["last", None, {}, "c", 7])
        put(db, "s1", "d")
        put(db, "s1", "a", "newer")
        expect(msg_ids(db.get_conversations("s1")), [*"abcd"])

    @clause("MSG-7")
    def test_msg_7_created_at_of_an_id_that_comes_twice(self, db: RecordedDB) -> None:
        """The last created_at that is given counts; where none is given the stored one stays."""
        given: tuple[tuple[int | None, ...], ...] = (
            (10, None),
            (None, 10, None),
            (7, 10),
            (10, 0),
            (None, 10),
            (10, None, 5, None, None),
        )
        for number, times in enumerate(given):
            name = f"s{number}"
            new_session(db, name)
            put(db, name, "known", created_at=77)
            expected = [time for time in times if time is not None][-1]
            for msg_id in ("known", "new"):
                messages = [message(msg_id, created_at=time) for time in times]
                db.add_or_update_msgs_to_conv(name, [message("other"), *messages])
                expect(db.get_message(name, msg_id)["created_at"], expected, f"{msg_id}, {times}")
            db.add_or_update_msgs_to_conv(name, [message("known"), message("known")])
            expect(db.get_message(name, "known")["created_at"], expected, "none is given")

    @clause("MSG-7")
    def test_msg_7_takes_lists_and_tuples(self, db: RecordedDB) -> None:
        """The messages are a list or a tuple; anything else is refused as a whole."""
        new_session(db)
        db.add_or_update_msgs_to_conv("s1", (message("a"), message("b")))
        with unchanged(db):
            for wrong in (
                None,
                "ab",
                5,
                message("c"),
                {"c": message("c")},
                iter([message("c")]),
                {"c"},
                {},
            ):
                error = expect_error(InvalidRecordError, db.add_or_update_msgs_to_conv, "s1", wrong)
                expect(error.path, "messages")
        expect(msg_ids(db.get_conversations("s1")), ["a", "b"])

    @clause("MSG-7")
    def test_msg_7_takes_subclasses_of_dict(self, db: RecordedDB) -> None:
        """A message may be any kind of dict; a default that it makes up is no field."""
        new_session(db)
        messages = [OrderedDict(message("a")), defaultdict(list, message("b"))]
        db.add_or_update_msgs_to_conv("s1", messages)
        found = [(record["msg_id"], record["status"]) for record in db.get_conversations("s1")]
        expect(found, [("a", None), ("b", None)])
        with unchanged(db):
            for lacking in messages:
                del lacking["content"]
                error = expect_error(
                    InvalidRecordError, db.add_or_update_msgs_to_conv, "s1", [lacking]
                )
                expect(error.path, "messages[0]")

    @clause("MSG-7")
    def test_msg_7_a_message_is_a_dict_with_six_keys_at_least(self, db: RecordedDB) -> None:
        """A message that is no dict, or lacks a field without a default, is refused and named."""
        new_session(db)
        required = ("conv_id", "msg_id", "msg_type", "agents", "actions", "content")
        lacking = [
            {key: value for key, value in message("m").items() if key != left_out}
            for left_out in required
        ]
        with unchanged(db):
            for wrong in (None, "m", 5, ["m"], [("msg_id", "m")], {}, *lacking):
                error = expect_error(
                    InvalidRecordError,
                    db.add_or_update_msgs_to_conv,
                    "s1",
                    [message("good"), wrong],
                )
                expect(error.path, "messages[1]")

    @clause("MSG-7")
    def test_msg_7_ignores_other_keys(self, db: RecordedDB) -> None:
        """What is no field of a message is neither stored nor checked."""
        new_session(db)
        others: dict[Any, Any] = {"score": float("nan"), "seq": -1, "video_id": 5, 7: object()}
        db.add_or_update_msgs_to_conv("s1", [{**others, **message("m")}])
        expect(len(db.get_message("s1", "m")), 12)

    @clause("MSG-7")
    def test_msg_7_what_was_read_can_be_written_back(self, db: RecordedDB) -> None:
        """The records of a session are a bulk that changes nothing; of another one, a copy."""
        full_session(db)
        put(db, "s1", "c", None, status="x", metadata=[1])
        records = db.get_conversations("s1")
        with unchanged(db):
            db.add_or_update_msgs_to_conv("s1", records)
        new_session(db, "s2")
        moved = [{**record, "session_id": "s2"} for record in records]
        db.add_or_update_msgs_to_conv("s2", moved)
        expect(db.get_conversations("s2"), moved)

    @clause("MSG-7")
    def test_msg_7_refuses_messages_of_another_session(self, db: RecordedDB) -> None:
        """A message that says it belongs elsewhere is not stored here by mistake."""
        for name in ("s1", "s2", "S1"):
            new_session(db, name)
        with unchanged(db):
            for other in ("s2", "S1", "s1 ", "nobody", "", None, 5, b"s1"):
                messages = [message("a", session_id="s1"), message("b", session_id=other)]
                error = expect_error(
                    InvalidRecordError, db.add_or_update_msgs_to_conv, "s1", messages
                )
                expect(error.path, "messages[1].session_id")

    @clause("MSG-7")
    def test_msg_7_is_all_or_none(self, db: RecordedDB) -> None:
        """If one message is refused, wherever it stands, none is stored and none is changed."""
        full_session(db)
        messages = [message("a", "new"), message("c"), message("b", "new")]
        with unchanged(db):
            for place in (0, 1, 3):
                bad = [*messages[:place], message("bad", {"x": [object()]}), *messages[place:]]
                error = expect_error(InvalidRecordError, db.add_or_update_msgs_to_conv, "s1", bad)
                expect(error.path, f"messages[{place}].content.x[0]")

    @clause("MSG-7")
    def test_msg_7_checks_every_field_of_every_message(self, db: RecordedDB) -> None:
        """A bad value is refused in a bulk as in a single call, with the message's number."""
        new_session(db)
        with unchanged(db):
            for field, bad in _BAD_FIELDS.items():
                error = expect_error(
                    InvalidRecordError,
                    db.add_or_update_msgs_to_conv,
                    "s1",
                    [message("a"), message("b"), message("c") | {field: bad}],
                )
                expect(error.path, f"messages[2].{field}")

    @clause("MSG-7")
    def test_msg_7_needs_the_session(self, db: RecordedDB) -> None:
        """A bulk for a session that does not exist raises and stores nothing, an empty one too."""
        for messages in ([message("a"), message("b")], [], ()):
            error = expect_error(
                SessionNotFoundError, db.add_or_update_msgs_to_conv, "nobody", messages
            )
            expect(error.session_id, "nobody")
        expect(db.get_sessions(), [])
        new_session(db, "nobody")
        expect(db.get_conversations("nobody"), [])

    @clause("MSG-7")
    def test_msg_7_refuses_before_it_looks(self, db: RecordedDB) -> None:
        """A bad message is refused as such also where the session is missing."""
        call = db.add_or_update_msgs_to_conv
        bad = message("b", content={1: 2})
        error = expect_error(InvalidRecordError, call, "nobody", [message("a"), bad])
        expect(error.path, "messages[1].content")
        expect(expect_error(InvalidRecordError, call, "nobody", None).path, "messages")
        expect(expect_error(InvalidRecordError, call, "", []).path, "session_id")

    @clause("MSG-7")
    def test_msg_7_an_empty_list_stores_nothing(self, db: RecordedDB) -> None:
        """A bulk without messages is no error, and no activity of the session."""
        full_session(db)
        with unchanged(db):
            expect(db.add_or_update_msgs_to_conv("s1", []), [])
            expect(db.add_or_update_msgs_to_conv("s1", ()), [])

    @clause("MSG-7")
    def test_msg_7_a_big_bulk_keeps_its_order(self, db: RecordedDB) -> None:
        """Thousands of messages come back complete and in the order of the list."""
        new_session(db)
        # With ten fields each, more parameters than the 65,535 that servers take in one statement.
        names = [f"m{number * 7919 % 6600}" for number in range(6600)]
        db.add_or_update_msgs_to_conv("s1", [message(name, name) for name in names])
        records = db.get_conversations("s1")
        expect(msg_ids(records), names)
        expect([record["content"] for record in records], names)
        expect(msg_ids(db.get_conversations("s1", limit=6550)), names[50:], "limit=6550")
        again = [message(name, "new") for name in names[::-1]]
        db.add_or_update_msgs_to_conv("s1", [*again, message("last")])
        records = db.get_conversations("s1")
        expect(msg_ids(records), [*names, "last"])
        expect({record["content"] for record in records[:-1]}, {"new"})

    @clause("MSG-7")
    def test_msg_7_payloads_together_have_a_bound(self, db: RecordedDB) -> None:
        """All payloads of a bulk together come to at most 256 MiB, and just that is allowed."""
        # Four messages of nearly 64 MiB, one of them of letters of two bytes each, and a small one
        # that brings the whole to the bound.
        length = _BULK_BYTES // 4 - 100
        # An encoder is quicker with fewer characters, of which each takes six bytes.
        whole = "\0" * (length // 6) + "x" * (length % 6)
        rest = "y" * (4 * 100 - 5 * len('[][]{}""'))
        texts = ["\xe9" * (length // 2), whole, whole, whole, rest]
        messages = [message(f"m{number}", text) for number, text in enumerate(texts)]
        call = db.add_or_update_msgs_to_conv
        # What is just allowed is not stored, which takes long, but refused for what comes after it.
        error = expect_error(InvalidRecordError, call, "s1", [*messages, None])
        expect(error.path, "messages[5]")
        messages[4]["content"] += "y"
        error = expect_error(InvalidRecordError, call, "s1", messages)
        expect(error.path, "messages[4]")
