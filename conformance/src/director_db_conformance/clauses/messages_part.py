"""MSG-6, MSG-10: reading a part of a conversation. MSG-12: messages by their ids."""

from __future__ import annotations

from functools import partial
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Final

from director_db import InvalidRecordError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import full_session, message, msg_ids, new_session, put
from director_db_conformance.clauses.at_once import at_once
from director_db_conformance.expectation import expect, expect_error
from director_db_conformance.strategies import Word

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB, RecordedPlace

_ALIKE: Final = ("c", "C", "c ", " c", "%", "_", "\xe9", "e\u0301", "\u0451", "'", "null", "0", "")
_IMPOSSIBLE: Final[tuple[Any, ...]] = (
    "x" * 256, "a\0", "\ud800", 5, 1.0, True, False, b"c", ["c"], {}, object(),
)  # fmt: skip
_KINDS: Final = ("input", "output", "tool")
_MANY: Final = 100_000
_WRITES: Final = 50
_LOOKS: Final = 5


class MessagePartClauses:
    """One conversation of a session, one type of its messages, or those with some ids."""

    @clause("MSG-6")
    def test_msg_6_every_page_of_every_part(self, db: RecordedDB) -> None:
        """A page of a part is that of the messages which belong to it; any message is a cursor."""
        new_session(db)
        fields = [
            {"conv_id": conv_id, "msg_type": msg_type}
            for conv_id, msg_type in zip("ccdcdcdd", [*"abaabba", "c"], strict=True)
        ]
        fields[3]["conv_id"] = None
        for number, given in enumerate(fields):
            put(db, "s1", str(number), **given)
        whole = db.get_conversations("s1")
        convs, types, limits = (None, "c", "e"), (None, "a", "e"), (None, 1, 2)
        for conv_id, msg_type, limit in product(convs, types, limits):
            part: dict[str, Any] = {"conv_id": conv_id, "msg_type": msg_type}
            belongs = [
                all(wanted in {None, record[name]} for name, wanted in part.items())
                for record in whole
            ]
            last = slice(None if limit is None else -limit, None)
            page = part | {"limit": limit}
            found = [record for record, is_in in zip(whole, belongs, strict=True) if is_in]
            expect(db.get_conversations("s1", **page), found[last], f"{page}")
            for place in range(len(whole)):
                after = [whole[n] for n in range(place + 1, len(whole)) if belongs[n]][:limit]
                expect(db.get_conversations("s1", after=str(place), **page), after)
                before = [whole[n] for n in range(place) if belongs[n]][last]
                expect(db.get_conversations("s1", before=str(place), **page), before)

    @clause("MSG-6")
    def test_msg_6_a_part_has_exactly_that_value(self, db: RecordedDB) -> None:
        """Values that look alike are different parts, and an empty one is not none."""
        new_session(db)
        for number, text in enumerate(_ALIKE):
            put(db, "s1", f"{number}", conv_id=text, msg_type=_ALIKE[number - 1])
        put(db, "s1", "none", conv_id=None, msg_type="none")
        for number, text in enumerate(_ALIKE):
            expect(msg_ids(db.get_conversations("s1", conv_id=text)), [f"{number}"], repr(text))
            found = db.get_conversations("s1", msg_type=_ALIKE[number - 1], limit=5)
            expect(msg_ids(found), [f"{number}"], repr(text))
        put(db, "s1", "word", conv_id=Word.SUCCESS, msg_type=Word.SUCCESS)
        for word in (Word.SUCCESS, Word.SUCCESS.value):
            expect(msg_ids(db.get_conversations("s1", conv_id=word, msg_type=word)), ["word"])

    @clause("MSG-6")
    def test_msg_6_a_value_that_no_message_can_have(self, db: RecordedDB) -> None:
        """It matches no message, and bad arguments beside it are refused all the same."""
        full_session(db)
        for value, name in product(_IMPOSSIBLE, ("conv_id", "msg_type")):
            part = {name: value}
            for page in ({}, {"limit": 1}, {"after": "a"}, {"before": "b", "limit": 2}):
                expect(db.get_conversations("s1", **part, **page), [], f"{name}={value!r}")
            for wrong, path in (
                ({"limit": 0}, "limit"),
                ({"after": "x"}, "after"),
                ({"before": "", "limit": 1}, "before"),
                ({"before": "a", "after": "b"}, "before"),
            ):
                call = partial(db.get_conversations, "s1", **part, **wrong)
                expect(expect_error(InvalidRecordError, call).path, path)
                expect(db.get_conversations("nobody", **part, **wrong), [])

    @clause("MSG-6")
    def test_msg_6_a_page_of_a_part_is_refused_as_one_of_all(self, db: RecordedDB) -> None:
        """A cursor has to be there, be it of the part or not, and a missing session is empty."""
        full_session(db)
        new_session(db, "s2")
        put(db, "s2", "elsewhere")
        for part in ({"conv_id": "c"}, {"msg_type": "none"}, {"conv_id": "x", "msg_type": "y"}):
            for name, cursor in product(("before", "after"), ("x", "elsewhere", "A", "", 5)):
                call = partial(db.get_conversations, "s1", **part, **{name: cursor})
                expect(expect_error(InvalidRecordError, call).path, name)
                expect(db.get_conversations("nobody", **part, **{name: cursor}), [])
            call = partial(db.get_conversations, "s1", **part, limit=True)
            expect(expect_error(InvalidRecordError, call).path, "limit")

    @clause("MSG-6")
    def test_msg_6_a_message_belongs_where_it_was_last_stored(self, db: RecordedDB) -> None:
        """An update that changes conversation or type moves it to another part, in its place."""
        new_session(db)
        for name in "abcd":
            put(db, "s1", name, conv_id="one", msg_type="first")
        put(db, "s1", "b", conv_id="two", msg_type="first")
        put(db, "s1", "c", conv_id="one", msg_type="second")
        db.add_or_update_msgs_to_conv("s1", [message("a", conv_id="two", msg_type="second")])
        for part, expected in (
            ({"conv_id": "one"}, [*"cd"]),
            ({"conv_id": "two"}, [*"ab"]),
            ({"msg_type": "first"}, [*"bd"]),
            ({"msg_type": "second"}, [*"ac"]),
            ({"conv_id": "two", "msg_type": "second"}, ["a"]),
            ({"conv_id": "one", "msg_type": "first", "after": "a"}, ["d"]),
        ):
            expect(msg_ids(db.get_conversations("s1", **part)), expected, f"{part}")
        db.delete_message("s1", "d")
        expect(msg_ids(db.get_conversations("s1", conv_id="one")), ["c"])

    @clause("MSG-6")
    def test_msg_6_the_latest_of_a_kind(self, db: RecordedDB) -> None:
        """However far back it stands and whatever lies between, the limit counts the kind alone."""
        new_session(db)
        new_session(db, "s2")
        names = [f"m{number:04}" for number in range(3000)]
        rare = {2: "plan", 5: "plan", 1200: "plan", 1201: "note"}
        db.add_or_update_msgs_to_conv(
            "s1",
            [message(name, msg_type=rare.get(at, "output")) for at, name in enumerate(names)],
        )
        db.add_or_update_msgs_to_conv("s2", [message(name, msg_type="plan") for name in names[:9]])
        for limit, places in ((1, [1200]), (2, [5, 1200]), (3, [2, 5, 1200]), (50, [2, 5, 1200])):
            found = db.get_conversations("s1", msg_type="plan", limit=limit)
            expect(msg_ids(found), [names[place] for place in places])
        found = db.get_conversations("s1", msg_type="plan", limit=1, before=names[1200])
        expect(msg_ids(found), [names[5]])
        found = db.get_conversations("s1", msg_type="output", limit=1200, after=names[1100])
        expected = [name for at, name in enumerate(names) if at not in rare][1099:]
        expect(msg_ids(found), expected[:1200])
        expect(db.get_conversations("s1", msg_type="none", limit=1), [])

    @clause("MSG-10")
    def test_msg_10_gives_a_part(self, db: RecordedDB) -> None:
        """With a conversation or a type, the records that MSG-6 gives, whatever the page."""
        new_session(db)
        for number in range(23):
            fields = {"conv_id": "cd"[number % 2], "msg_type": _KINDS[number % 3]}
            put(db, "s1", f"m{number}", **fields)
        parts: list[dict[str, Any]] = [{"conv_id": "c"}, {"msg_type": "tool"}]
        parts += [parts[0] | parts[1], {"conv_id": "none"}, {"conv_id": None, "msg_type": None}]
        for part, page in product(parts, (1, 2, 3, 7, 12, 10**30)):
            whole = db.get_conversations("s1", **part)
            expect(list(db.iter_conversations("s1", page=page, **part)), whole, f"{part}, {page}")
        for value, name in product(_IMPOSSIBLE, ("conv_id", "msg_type")):
            expect(list(db.iter_conversations("s1", **{name: value})), [], f"{name}={value!r}")
            found = db.iter_conversations("s1", page=0, **{name: value})
            expect(expect_error(InvalidRecordError, next, found).path, "page")
        expect(list(db.iter_conversations("nobody", page=0, conv_id="c")), [])

    @clause("MSG-10")
    def test_msg_10_a_part_goes_on_where_the_last_message_was_deleted(self, db: RecordedDB) -> None:
        """What has come does not come again, though others have come into the part meanwhile."""
        new_session(db)
        for number in range(12):
            put(db, "s1", f"m{number:02}", msg_type=_KINDS[number % 2])
        found = iter(db.iter_conversations("s1", page=3, msg_type="output"))
        expect(msg_ids(list(islice(found, 3))), ["m01", "m03", "m05"])
        db.delete_message("s1", "m05")
        put(db, "s1", "m00", msg_type="output")
        put(db, "s1", "m02", msg_type="output")
        put(db, "s1", "m12", msg_type="output")
        rest = msg_ids(list(found))
        came = {"m01", "m03", "m05"} & {*rest}
        expect([sorted(came), sorted({*rest}), len({*rest})], [[], sorted(rest), len(rest)], "once")
        expect([name for name in rest if name > "m05"], ["m07", "m09", "m11", "m12"])
        found = iter(db.iter_conversations("s1", page=2, msg_type="tool"))
        expect(list(found), [])

    @clause("MSG-12")
    def test_msg_12_in_the_order_of_the_conversation(self, db: RecordedDB) -> None:
        """Whatever the order of the ids, and however often one comes, each message comes once."""
        new_session(db)
        new_session(db, "s2")
        for name in "dbeca":
            put(db, "s1", name, {"of": name}, conv_id=name)
        put(db, "s2", "x")
        put(db, "s2", "a", "another's")
        put(db, "s1", "e", "changed", created_at=1, revision=3)
        db.delete_message("s1", "c")
        known = {record["msg_id"]: record for record in db.get_conversations("s1")}
        for ids, expected in (
            ([*"abcde"], "dbea"),
            ([*"edcba"], "dbea"),
            (["a", "d", "a", "d", "a"], "da"),
            ((*"xe",), "e"),
            (["c", "x", "s1", "A", "a "], ""),
            ([], ""),
        ):
            expect(db.get_messages("s1", ids), [known[name] for name in expected], f"{ids}")
        expect(list(db.get_messages("s1", ["a"])[0]), list(known["a"]), "the keys")
        expect([record["content"] for record in db.get_messages("s2", [*"abx"])],
               ["text", "another's"])  # fmt: skip

    @clause("MSG-12")
    def test_msg_12_an_id_is_exactly_that(self, db: RecordedDB) -> None:
        """Ids that look alike are different, and one that no message can have is left out."""
        new_session(db)
        names = [text or "empty" for text in _ALIKE] + ['"', "\\", "\t", "\u2028", "\U0001f600"]
        names += ["x" * 255, "\U0001f600" * 255, "a,b", '","', "{}", "NULL", "\\u0041", "A"]
        for number, name in enumerate(names):
            put(db, "s1", name, number)
        for number, name in enumerate(names):
            found = db.get_messages("s1", [*_IMPOSSIBLE, "", name, None, "nothing"])
            expect([record["content"] for record in found], [number], repr(name))
        found = db.get_messages("s1", names[::-1])
        expect([record["content"] for record in found], [*range(len(names))])
        put(db, "s1", Word.SUCCESS)
        expect(msg_ids(db.get_messages("s1", [Word.SUCCESS])), [Word.SUCCESS.value])

    @clause("MSG-12")
    def test_msg_12_refuses_what_is_no_list(self, db: RecordedDB) -> None:
        """A text is no list of its characters; in a missing session there is nothing to refuse."""
        full_session(db)
        wrong: list[Any] = [None, "a", "ab", b"ab", {"a"}, {"a": 1}, 5, iter(["a"])]
        wrong.append([""] * (_MANY + 1))
        for ids in wrong:
            expect(expect_error(InvalidRecordError, db.get_messages, "s1", ids).path, "ids")
            for nobody in ("nobody", "", 5, None):
                expect(db.get_messages(nobody, ids), [])
        expect(db.get_messages("nobody", ["a"]), [])
        expect(msg_ids(db.get_messages("s1", ("b", "a"))), ["a", "b"])

    @clause("MSG-12")
    def test_msg_12_very_many_at_once(self, db: RecordedDB) -> None:
        """100,000 ids are looked for at once, more than a statement has parameters."""
        new_session(db)
        names = [f"m{number}" for number in range(700)]
        db.add_or_update_msgs_to_conv("s1", [message(name) for name in names])
        ids = [f"m{number}" for number in range(_MANY)][::-1]
        expect(msg_ids(db.get_messages("s1", ids)), names)
        expect(msg_ids(db.get_messages("s1", [*names[:5], *ids[:9], *names[690:]] * 40)),
               [*names[:5], *names[690:]])  # fmt: skip

    @clause("MSG-12", level="concurrent")
    def test_msg_12_messages_are_of_one_moment(self, place: RecordedPlace) -> None:
        """What was stored in one transaction is found together, or not at all."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        names = [f"m{number}" for number in range(40)]
        looks = [0, 0]

        def write(step: int) -> None:
            bulk = [message(name, step, metadata=step) for name in names]
            handles[0].add_or_update_msgs_to_conv("s1", bulk)

        def work() -> None:
            # As long as somebody looks.
            for step in range(2_000):
                write(step)
                if step >= _WRITES and min(looks) >= _LOOKS:
                    break

        def look(number: int) -> None:
            found = handles[number].get_messages("s1", names[::-1])
            expect(msg_ids(found), names)
            expect(len({record["content"] for record in found}), 1, "all of one write")
            looks[number] += 1

        write(-1)
        at_once([work], watched_by=[partial(look, number) for number in range(2)])
