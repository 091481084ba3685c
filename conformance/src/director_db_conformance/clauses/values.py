"""VAL-4 and VAL-5; payloads are in `values_payloads`, ownership in `values_ownership`."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from hypothesis import given

from director_db import DeleteResult, InvalidRecordError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    fields,
    full_session,
    message,
    msg_ids,
    new_session,
    put,
    session_ids,
    unchanged,
)
from director_db_conformance.clauses.drawn import bounded, storable_texts
from director_db_conformance.clauses.naughty import NAUGHTY_TEXTS
from director_db_conformance.expectation import expect, expect_error
from director_db_conformance.transcript import transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director_db_conformance.transcript import RecordedDB

_LONGEST: Final = ("x" * 255, "\xe9" * 255, "\U0001f600" * 255, "e\u0301" * 127 + "e")
_BAD_TEXTS: Final[tuple[Any, ...]] = (
    *("x" * 256, "\U0001f600" * 256, "a\0", "\0", "a\0b", "\ud800", "a\udfff", "\ud83d\ude00"),
    *(0, 5, 1.5, True, b"a", bytearray(b"a"), ["a"], ("a",), {"a": 1}, object()),
)
_BAD_IDS: Final[tuple[Any, ...]] = (*_BAD_TEXTS, "", None)
_BAD_TIMES: Final[tuple[Any, ...]] = (
    *(1.0, 0.0, -1.5, float("nan"), float("inf"), True, False),
    *(2**63, -(2**63) - 1, 10**30, "1", "", b"1", [1], {}, object(), 1j),
    *(Decimal(1), dt.datetime(2001, 1, 1, tzinfo=dt.UTC), dt.date(2001, 1, 1)),
)
_TIMES: Final = (
    *(0, 1, -1, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, -(2**31) - 1, -(2**63)),
    # Seconds that look like milliseconds, microseconds and nanoseconds of the present.
    *(1_700_000_000_123, 1_700_000_000_123_456, 1_700_000_000_123_456_789),
)


class _Name(str, enum.Enum):  # noqa: UP042 - a StrEnum has another str()
    """As callers write one; its str() is not its text."""

    ONE = "one"
    TWO = "two"


class _Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class _Moment(enum.IntEnum):
    ONE = 1
    THOUSAND = 1000


class _Seconds(int):
    def __str__(self) -> str:
        return "something else"


_SESSION_TEXTS: Final = ("session_id", "video_id", "collection_id", "user_id")


class ValueClauses:
    """Ids and other texts, and times."""

    # --- VAL-4: ids and other texts -------------------------------------------------------------

    @clause("VAL-4")
    def test_val_4_255_characters_are_allowed(self, db: RecordedDB) -> None:
        """An id or another text has up to 255 characters, whatever each takes in bytes."""
        for text in _LONGEST:
            db.create_session(text, text, text, user_id=text)
            put(db, text, text, conv_id=text, msg_type=text, status=text)
            session, record = db.get_session(text), db.get_message(text, text)
            expect([session[key] for key in _SESSION_TEXTS], [text] * 4)
            keys = ("session_id", "conv_id", "msg_id", "msg_type", "status")
            expect([record[key] for key in keys], [text] * 5)
            expect(db.get_sessions(video_id=text, collection_id=text), [session])
            expect(db.get_sessions(user_id=text), [session])
            expect(db.get_conversations(text, before=text), [])

    @clause("VAL-4")
    def test_val_4_one_character_is_enough(self, db: RecordedDB) -> None:
        """An id has at least one character; a space or a control character is one."""
        for text in ("a", " ", "\n", "\x01", "\u200b", "\ufeff", "\U0010ffff", "%", "0"):
            db.create_session(text)
            put(db, text, text)
            expect(db.get_session(text)["session_id"], text)
            expect(msg_ids(db.get_conversations(text)), [text])

    @clause("VAL-4")
    def test_val_4_naughty_session_ids_are_all_different(self, db: RecordedDB) -> None:
        """No session id is taken for another, changed, cut, or read as a pattern or a statement."""
        names = list(dict.fromkeys(NAUGHTY_TEXTS))
        for number, name in enumerate(names):
            db.create_session(name, name, name, 1, 1, {"number": number}, name)
        expect(session_ids(db.get_sessions()), sorted(names, reverse=True))
        for number, name in enumerate(names):
            transcript.clear()
            expected = {
                "session_id": name,
                "video_id": name,
                "collection_id": name,
                "created_at": 1,
                "updated_at": 1,
                "metadata": {"number": number},
                "user_id": name,
            }
            found = db.get_session(name)
            expect(fields(found), expected)
            expected = found
            expect(db.get_sessions(video_id=name), [expected])
            expect(db.get_sessions(user_id=name), [expected])
            expect(db.get_sessions(collection_id=name, video_id=name), [expected])

    @clause("VAL-4")
    def test_val_4_naughty_message_ids_are_all_different(self, db: RecordedDB) -> None:
        """No message id is taken for another, as a key, as a cursor, or when it is deleted."""
        new_session(db)
        names = list(dict.fromkeys(NAUGHTY_TEXTS))
        texts = [{"conv_id": name, "msg_type": name, "status": name} for name in names]
        messages = [
            message(name, name, **fields) for name, fields in zip(names, texts, strict=True)
        ]
        db.add_or_update_msgs_to_conv("s1", messages)
        records = db.get_conversations("s1")
        expect(msg_ids(records), names)
        for number, name in enumerate(names):
            transcript.clear()
            record = db.get_message("s1", name)
            keys = ("msg_id", "content", "conv_id", "msg_type", "status")
            expect([record[key] for key in keys], [name] * 5)
            after = msg_ids(db.get_conversations("s1", after=name, limit=1))
            expect(after, names[number + 1 : number + 2])
            before = msg_ids(db.get_conversations("s1", before=name, limit=1))
            expect(before, names[max(number - 1, 0) : number])
        left = names
        for name in names[::5]:
            expect([db.delete_message("s1", name)], [True])
            left = [kept for kept in left if kept != name]
            expect(len(db.get_conversations("s1")), len(left))
        expect(msg_ids(db.get_conversations("s1")), left)

    @clause("VAL-4")
    def test_val_4_naughty_sessions_keep_to_themselves(self, db: RecordedDB) -> None:
        """What is stored under one id is never read, changed or deleted under another."""
        names = list(dict.fromkeys(NAUGHTY_TEXTS))[::3]
        for name in names:
            db.create_session(name)
            put(db, name, "m", name)
            db.add_or_update_context_msg(name, [name])
        for name in names:
            transcript.clear()
            put(db, name, "n", name)
            expect([record["content"] for record in db.get_conversations(name)], [name, name])
            expect(db.get_context_messages(name), [name])
            expect(db.delete_session(name).failed_components, [])
            expect(db.get_session(name), {})
        expect(db.get_sessions(), [])

    @clause("VAL-4")
    def test_val_4_any_text_is_an_id(self, db: RecordedDB) -> None:
        """Every text of 1 to 255 characters without U+0000 is stored and found as it is."""

        @bounded(60)
        @given(storable_texts)
        def check(name: str) -> None:
            transcript.clear()
            if not name:
                expect_error(InvalidRecordError, db.create_session, name)
                return
            db.create_session(name, name, name, user_id=name)
            put(db, name, name, conv_id=name, msg_type=name, status=name)
            session, record = db.get_session(name), db.get_message(name, name)
            expect([session[key] for key in _SESSION_TEXTS], [name] * 4)
            keys = ("session_id", "conv_id", "msg_id", "msg_type", "status")
            expect([record[key] for key in keys], [name] * 5)
            expect(session_ids(db.get_sessions(collection_id=name)), [name])
            expect(db.delete_session(name).failed_components, ["context"])

        check()

    @clause("VAL-4")
    def test_val_4_impossible_ids_are_refused_by_writes(self, db: RecordedDB) -> None:
        """An id that breaks the bounds is refused and named, never cut or made to fit."""
        full_session(db)
        with unchanged(db):
            for bad in _BAD_IDS:
                for path, write in _writes_by_id(db, bad):
                    expect(expect_error(InvalidRecordError, write).path, path)

    @clause("VAL-4")
    def test_val_4_impossible_texts_are_refused(self, db: RecordedDB) -> None:
        """Every other text keeps the same bounds, but for being empty or None."""
        full_session(db)
        with unchanged(db):
            for field, write in _writes_by_text(db):
                for bad in _BAD_TEXTS:
                    expect(expect_error(InvalidRecordError, write, bad).path, field)
            error = expect_error(InvalidRecordError, put, db, "s1", "new", msg_type=None)
            expect(error.path, "msg_type")

    @clause("VAL-4")
    def test_val_4_impossible_ids_are_not_found_by_reads(self, db: RecordedDB) -> None:
        """Reading by an id that no record can have is no error: there is nothing."""
        full_session(db)
        db.create_session("5")
        db.create_session("True")
        for bad in _BAD_IDS:
            expect(db.get_session(bad), {})
            expect(db.get_conversations(bad), [])
            expect(db.get_message(bad, "a"), {})
            expect(db.get_message("s1", bad), {})
            expect(db.get_message(bad, bad), {})
            expect(db.get_context_messages(bad), {})
            expect(db.get_context(bad), {})

    @clause("VAL-4")
    def test_val_4_impossible_ids_are_not_found_by_deletes(self, db: RecordedDB) -> None:
        """Deleting by an id that no record can have is no error: there was nothing."""
        full_session(db)
        db.create_session("5")
        nothing = DeleteResult(False, ["conversation", "context", "session"])  # noqa: FBT003
        with unchanged(db):
            for bad in _BAD_IDS:
                expect(db.delete_session(bad), nothing)
                deleted = [
                    db.delete_conversation(bad),
                    db.delete_context(bad),
                    db.delete_message(bad, "a"),
                    db.delete_message("s1", bad),
                ]
                expect(deleted, [False] * 4)

    @clause("VAL-4")
    def test_val_4_a_subclass_of_str_counts_as_its_text(self, db: RecordedDB) -> None:
        """An Enum that is a str, or any other subclass, is the plain text wherever ids stand."""
        for one, text in ((_Name.ONE, "one"), (_Text("two"), "two")):
            db.create_session(one, one, one, user_id=one)
            put(db, one, one, conv_id=one, msg_type=one, status=one)
            db.add_or_update_msgs_to_conv(one, [message(one, status=one, session_id=one)])
            db.add_or_update_context_msg(one, [])
            session, record = db.get_session(text), db.get_message(text, text)
            expect([session[key] for key in _SESSION_TEXTS], [text] * 4)
            keys = ("session_id", "msg_id", "status")
            expect([record[key] for key in keys], [text] * 3)
            expect(db.get_session(one), session)
            expect(db.get_message(one, one), record)
            expect(db.get_sessions(video_id=one, collection_id=one), [session])
            expect(db.get_sessions(user_id=one), [session])
            expect(db.get_conversations(one, after=one), [])
            expect(db.get_context(one)["session_id"], text)
            db.add_or_update_context_msg(one, {})
            for key, length in ((one, 1), (text, 2), (one, 3)):
                expect(db.append_context_messages(one, [0], key=key), length)
            expect(db.get_context_messages(one), {text: [0, 0, 0]}, "the list under the key")
            expect([db.delete_message(one, one), db.delete_context(one)], [True, True])
            expect(db.delete_session(one).failed_components, ["conversation", "context"])

    @clause("VAL-4")
    def test_val_4_texts_of_a_message_are_plain_str(self, db: RecordedDB) -> None:
        """A status that is an Enum comes back as the str that it stands for."""
        new_session(db)
        put(db, "s1", "m", conv_id=_Name.ONE, msg_type=_Name.TWO, status=_Text("done"))
        record = db.get_message("s1", "m")
        expect([record[key] for key in ("conv_id", "msg_type", "status")], ["one", "two", "done"])

    # --- VAL-5: times ---------------------------------------------------------------------------

    @clause("VAL-5")
    def test_val_5_any_64_bit_time_is_stored(self, db: RecordedDB) -> None:
        """Zero, negative and very large times are times like others, and come back exactly."""
        for number, time in enumerate(_TIMES):
            other = _TIMES[number - 1]
            name = f"s{number}"
            db.create_session(name, created_at=time, updated_at=other)
            session = db.get_session(name)
            expect((session["created_at"], session["updated_at"]), (time, other))
            put(db, name, "m", created_at=time, updated_at=other)
            db.add_or_update_msgs_to_conv(name, [message("n", created_at=other, updated_at=time)])
            db.add_or_update_context_msg(name, [], time, other)
            first, second = db.get_conversations(name)
            expect((first["created_at"], first["updated_at"]), (time, other))
            expect((second["created_at"], second["updated_at"]), (other, time))
            context = db.get_context(name)
            expect((context["created_at"], context["updated_at"]), (time, other))
            db.update_session(name, updated_at=time)
            expect(db.get_session(name)["updated_at"], time)

    @clause("VAL-5")
    def test_val_5_what_is_no_int_of_64_bits_is_refused(self, db: RecordedDB) -> None:
        """A float is not cut to seconds, a bool is no number, and nothing wraps around."""
        full_session(db)
        with unchanged(db):
            for path, write in _writes_by_time(db):
                for bad in _BAD_TIMES:
                    expect(expect_error(InvalidRecordError, write, bad).path, path)

    @clause("VAL-5")
    def test_val_5_a_subclass_of_int_comes_back_as_int(self, db: RecordedDB) -> None:
        """A time of another integer type is stored and returned as a plain int."""
        for number, time in enumerate((_Moment.ONE, _Seconds(7))):
            name = f"s{number}"
            db.create_session(name, created_at=time, updated_at=time)
            put(db, name, "m", created_at=time, updated_at=time)
            db.add_or_update_context_msg(name, [], time, time)
            records = db.get_session(name), db.get_message(name, "m"), db.get_context(name)
            for record in records:
                expect((record["created_at"], record["updated_at"]), (int(time), int(time)))
            db.update_session(name, updated_at=_Moment.THOUSAND)
            expect(db.get_session(name)["updated_at"], 1000)


def _writes_by_id(db: RecordedDB, bad: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield every write with a bad id, and the path of it in the error."""
    yield "session_id", lambda: db.create_session(bad)
    yield "session_id", lambda: db.update_session(bad)
    yield "session_id", lambda: put(db, bad, "m")
    yield "session_id", lambda: db.add_or_update_msgs_to_conv(bad, [])
    yield "session_id", lambda: db.add_or_update_msgs_to_conv(bad, [message("m")])
    yield "session_id", lambda: db.add_or_update_context_msg(bad, [])
    yield "session_id", lambda: db.append_context_messages(bad, [])
    yield "msg_id", lambda: put(db, "s1", bad)
    yield "messages[0].msg_id", lambda: db.add_or_update_msgs_to_conv("s1", [message(bad)])


def _writes_by_text(db: RecordedDB) -> Iterator[tuple[str, Callable[[Any], object]]]:
    """Yield the writes of every other text, and its path."""
    yield "video_id", lambda text: db.create_session("new", text)
    yield "collection_id", lambda text: db.create_session("new", None, text)
    yield "user_id", lambda text: db.create_session("new", user_id=text)
    yield "user_id", lambda text: db.update_session("s1", user_id=text)
    yield "video_id", lambda text: db.update_session("s1", video_id=text)
    yield "collection_id", lambda text: db.update_session("s1", collection_id=text)
    yield "conv_id", lambda text: put(db, "s1", "new", conv_id=text)
    yield "msg_type", lambda text: put(db, "s1", "new", msg_type=text)
    yield "status", lambda text: put(db, "s1", "a", status=text)
    for field in ("conv_id", "msg_type", "status"):
        yield (
            f"messages[0].{field}",
            lambda text, field=field: db.add_or_update_msgs_to_conv(  # type: ignore[misc]
                "s1", [message("new", **{field: text})]
            ),
        )


def _writes_by_time(db: RecordedDB) -> Iterator[tuple[str, Callable[[Any], object]]]:
    """Yield the writes of every time, and its path."""
    yield "updated_at", lambda time: db.update_session("s1", updated_at=time)
    for field in ("created_at", "updated_at"):
        writes: tuple[tuple[str, Callable[[dict[str, Any]], object]], ...] = (
            ("", lambda given: db.create_session("new", **given)),
            ("", lambda given: put(db, "s1", "a", **given)),
            ("", lambda given: put(db, "s1", "new", **given)),
            ("", lambda given: db.add_or_update_context_msg("s1", [], **given)),
            (
                "messages[0].",
                lambda given: db.add_or_update_msgs_to_conv("s1", [message("a", **given)]),
            ),
        )
        for path, write in writes:
            yield path + field, lambda time, w=write, f=field: w({f: time})  # type: ignore[misc]
