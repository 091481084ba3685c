"""SES-4: the list of sessions."""

from __future__ import annotations

import enum
import itertools
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any, Final

from director_db import InvalidRecordError
from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import FAR_FUTURE, new_session, session_ids
from director_db_conformance.expectation import expect, expect_error

if TYPE_CHECKING:
    from director_db_conformance.transcript import RecordedDB

_WRONG_LIMITS: Final = (0, -1, -(10**30), True, False, 1.0, "1", float("nan"), [1])


class _Two(enum.IntEnum):
    TWO = 2


class SessionListingClauses:
    """Listing sessions: in order, by pages, of one video or collection."""

    @clause("SES-4")
    def test_ses_4_an_empty_place_has_no_sessions(self, db: RecordedDB) -> None:
        """Where nothing is stored, the list is empty."""
        expect(db.get_sessions(), [])

    @clause("SES-4")
    def test_ses_4_lists_the_records_of_ses_3(self, db: RecordedDB) -> None:
        """The list holds the same dicts as reading each session by itself."""
        new_session(db, "s1")
        db.create_session("s2", None, "", -5, 2000, [None])
        expect(db.get_sessions(), [db.get_session("s2"), db.get_session("s1")])

    @clause("SES-4")
    def test_ses_4_orders_by_activity_then_creation_then_id(self, db: RecordedDB) -> None:
        """The latest activity comes first; then the latest creation; then the highest id."""
        _create_with_ties(db)
        actual = [
            (session["updated_at"], session["created_at"], session["session_id"])
            for session in db.get_sessions()
        ]
        expect(actual, sorted(actual, reverse=True))

    @clause("SES-4")
    def test_ses_4_orders_times_as_numbers(self, db: RecordedDB) -> None:
        """Times are compared as 64-bit numbers, negative and very large ones too."""
        times = [0, -1, -(2**63), 2**63 - 1, 9, 10, 100, 2**31, 2**32, -10]
        for number, time in enumerate(times):
            db.create_session(f"s{number}", created_at=0, updated_at=time)
            db.create_session(f"t{number}", created_at=time, updated_at=50)
        actual = [(session["updated_at"], session["created_at"]) for session in db.get_sessions()]
        pairs = [(time, 0) for time in times] + [(50, time) for time in times]
        expect(actual, sorted(pairs, reverse=True))

    @clause("SES-4")
    def test_ses_4_orders_ids_by_code_point(self, db: RecordedDB) -> None:
        """Ids are ordered by code point; no language, case or encoding has a say in it."""
        names = [*"abAB19~_%", "aa", "a b", "10", "\x01", "\xe9", "e\u0301", "\uffff", "\U0001f600"]
        for name in names:
            db.create_session(name, created_at=1, updated_at=1)
        expect(session_ids(db.get_sessions()), sorted(names, reverse=True))

    @clause("SES-4")
    def test_ses_4_returns_at_most_limit_sessions(self, db: RecordedDB) -> None:
        """A limit gives just that many sessions, the first of the list."""
        for number in range(5):
            db.create_session(f"s{number}", created_at=1, updated_at=number)
        whole = ["s4", "s3", "s2", "s1", "s0"]
        for limit in (1, 2, 4, 5, 6, 2**31, 2**63 - 1, 2**63, 10**30, _Two.TWO, None):
            expect(session_ids(db.get_sessions(limit=limit)), whole[:limit], f"limit={limit}")

    @clause("SES-4")
    def test_ses_4_returns_all_without_a_limit(self, db: RecordedDB) -> None:
        """Without a limit nothing is left out, however long the list is."""
        names = [f"s{number:04}" for number in range(1010)]
        for name in names:
            db.create_session(name, created_at=1, updated_at=1)
        expect(session_ids(db.get_sessions()), names[::-1])
        expect(session_ids(db.get_sessions(limit=1005)), names[:4:-1], "limit=1005")

    @clause("SES-4")
    def test_ses_4_refuses_what_is_no_limit(self, db: RecordedDB) -> None:
        """A limit is an int of at least 1; anything else is refused and named."""
        new_session(db)
        for limit in _WRONG_LIMITS:
            expect(expect_error(InvalidRecordError, db.get_sessions, limit=limit).path, "limit")

    @clause("SES-4")
    def test_ses_4_goes_on_after_any_session(self, db: RecordedDB) -> None:
        """What follows a session is the rest of the list, whatever its ties are."""
        _create_with_ties(db)
        whole = db.get_sessions()
        for number, session in enumerate(whole):
            expect(db.get_sessions(before=session), whole[number + 1 :])

    @clause("SES-4")
    def test_ses_4_pages_neither_repeat_nor_skip(self, db: RecordedDB) -> None:
        """Reading page by page gives every session once, at every size of a page."""
        _create_with_ties(db)
        whole = session_ids(db.get_sessions())
        for size in (1, 2, 3, 5, len(whole), len(whole) + 1):
            expect(_read_by_pages(db, limit=size), whole, f"pages of {size}")

    @clause("SES-4")
    def test_ses_4_before_takes_a_session_that_is_gone(self, db: RecordedDB) -> None:
        """A page can be followed also when its last session was deleted meanwhile."""
        for number in range(4):
            db.create_session(f"s{number}", created_at=1, updated_at=1)
        last = db.get_sessions(limit=2)[-1]
        db.delete_session(last["session_id"])
        expect(session_ids(db.get_sessions(before=last)), ["s1", "s0"])

    @clause("SES-4")
    def test_ses_4_before_is_a_place_in_the_order(self, db: RecordedDB) -> None:
        """Only the three values of the dict count, not where its session stands by now."""
        for number in range(4):
            db.create_session(f"s{number}", created_at=1, updated_at=number)
        last = db.get_sessions(limit=2)[-1]
        db.update_session("s2", updated_at=FAR_FUTURE)
        expect(session_ids(db.get_sessions(before=last)), ["s1", "s0"])
        db.update_session("s2", updated_at=-5)
        expect(session_ids(db.get_sessions(before=last)), ["s1", "s0", "s2"])

    @clause("SES-4")
    def test_ses_4_before_needs_three_keys_only(self, db: RecordedDB) -> None:
        """A cursor may be kept as its three keys; what else the dict holds is not looked at."""
        for name in ("a", "b", "c"):
            db.create_session(name, created_at=5, updated_at=9)
        cursor: dict[str, Any] = {"session_id": "c", "created_at": 5, "updated_at": 9}
        expect(session_ids(db.get_sessions(before=cursor)), ["b", "a"])
        cursor |= {"session_id": "bb", "video_id": 5, "metadata": object()}
        expect(session_ids(db.get_sessions(before=cursor)), ["b", "a"])
        expect(session_ids(db.get_sessions(before=OrderedDict(cursor))), ["b", "a"])
        expect(session_ids(db.get_sessions(before=defaultdict(str, cursor))), ["b", "a"])
        for wrong in ({"created_at": 6, "session_id": "A"}, {"updated_at": 10, "session_id": "A"}):
            expect(session_ids(db.get_sessions(before=cursor | wrong)), ["c", "b", "a"])

    @clause("SES-4")
    def test_ses_4_refuses_what_is_no_session(self, db: RecordedDB) -> None:
        """A cursor that is not a whole session is refused, never taken for the end or the start."""
        session = db.get_session(new_session(db))
        no_sessions: tuple[Any, ...] = ("s1", 5, [session], (1000, 1000, "s1"), {})
        for wrong in no_sessions:
            error = expect_error(InvalidRecordError, db.get_sessions, before=wrong)
            expect(error.path, "before")
        for key in ("updated_at", "created_at", "session_id"):
            lacking = {name: value for name, value in session.items() if name != key}
            error = expect_error(InvalidRecordError, db.get_sessions, before=lacking)
            expect(error.path, "before")
            for bad in (None, 1.5, True, b"s1", 2**63, "", "x" * 256, "a\0"):
                error = expect_error(
                    InvalidRecordError, db.get_sessions, before=session | {key: bad}
                )
                expect(error.path, f"before.{key}")

    @clause("SES-4")
    def test_ses_4_keeps_the_sessions_of_a_video_and_a_collection(self, db: RecordedDB) -> None:
        """A filter keeps those with exactly that value; two filters must both match."""
        _create_by_filters(db)
        for wanted, expected in (
            ({"video_id": "v1"}, ["v1/c2", "v1/c1", "v1/None"]),
            ({"collection_id": "c2"}, ["v2/c2", "v1/c2", "None/c2", "/c2"]),
            ({"video_id": "v2", "collection_id": "c1"}, ["v2/c1"]),
            ({"video_id": ""}, ["/c2", "/c1", "/None"]),
            ({"video_id": "", "collection_id": "c1"}, ["/c1"]),
            ({"video_id": "v1", "collection_id": None}, ["v1/c2", "v1/c1", "v1/None"]),
            ({"video_id": None, "collection_id": "c1"}, ["v2/c1", "v1/c1", "None/c1", "/c1"]),
        ):
            expect(session_ids(db.get_sessions(**wanted)), expected, str(wanted))
        expect(len(db.get_sessions(video_id=None, collection_id=None)), 12)

    @clause("SES-4")
    def test_ses_4_keeps_the_sessions_of_a_user(self, db: RecordedDB) -> None:
        """The filter of users is one as the others, and goes together with them."""
        for number in range(12):
            user, video = ("u1", "u2", "", None)[number % 4], ("v1", None, "u1")[number % 3]
            times = {"created_at": -(number % 5), "updated_at": number // 4}
            db.create_session(f"s{number:02}", video, user_id=user, **times)
        every = db.get_sessions()
        for wanted in (
            {"user_id": "u1"},
            {"user_id": ""},
            {"user_id": "u1", "video_id": "v1"},
            {"user_id": "u2", "video_id": "u1"},
        ):
            kept = [session for session in every if wanted.items() <= session.items()]
            whole = session_ids(kept)
            expect(len(whole), 12 // 4 if len(wanted) == 1 else 1, f"as many as match {wanted}")
            expect(session_ids(db.get_sessions(**wanted)), whole, f"{wanted}")
            for size in (1, 2):
                expect(_read_by_pages(db, limit=size, **wanted), whole, f"{wanted} by {size}")
        expect(len(db.get_sessions(user_id=None)), 12)
        for alike in ("U1", "u%", "u_", "u1 ", "u", "u10", "v1", "None"):
            expect(db.get_sessions(user_id=alike), [], f"user_id={alike!r}")
        for value in ("x" * 256, "a\0", "\ud800", 1, True, b"u1", ["u1"], {}, object()):
            expect(db.get_sessions(user_id=value), [], f"user_id={type(value)}")

    @clause("SES-4")
    def test_ses_4_a_filter_looks_at_what_is_stored_now(self, db: RecordedDB) -> None:
        """A session that is moved to another video, collection or user is found only there."""
        for number in range(3):
            db.create_session(f"s{number}", "v1", "c1", 1, 1, user_id="u1")
        for field, old, new in (
            ("video_id", "v1", "v2"),
            ("collection_id", "c1", "c2"),
            ("user_id", "u1", "u2"),
        ):
            for value in (new, None, "", old, new):
                db.update_session("s1", **{field: value}, updated_at=1)
                kept = {
                    wanted: session_ids(db.get_sessions(**{field: wanted}))
                    for wanted in (old, new, "")
                }
                found = {old: ["s2", "s0"], new: [], "": []}
                if value is not None:
                    found[value] = sorted([*found[value], "s1"], reverse=True)
                expect(kept, found, f"by {field}, once it is {value!r}")
        expect(session_ids(db.get_sessions(video_id="v2", collection_id="c2")), ["s1"])
        db.delete_session("s1")
        db.create_session("s1", "v1")
        expect(db.get_sessions(video_id="v2"), [], "of a session that was deleted")

    @clause("SES-4")
    def test_ses_4_a_filter_is_compared_code_point_by_code_point(self, db: RecordedDB) -> None:
        """A filter is no pattern and ignores no difference."""
        db.create_session("s1", "v1", "c1")
        for alike in ("V1", "v%", "v_", "v1 ", " v1", "v", "v10", "v*", "None", "c1"):
            expect(db.get_sessions(video_id=alike), [], f"video_id={alike!r}")
        for alike in ("C1", "c%", "c_", "c1 ", " c1", "c", "c10", "v1", ""):
            expect(db.get_sessions(collection_id=alike), [], f"collection_id={alike!r}")

    @clause("SES-4")
    def test_ses_4_an_impossible_filter_finds_nothing(self, db: RecordedDB) -> None:
        """A value that no session can have is not an error but matches none."""
        db.create_session("s1", "1", "1")
        for value in ("x" * 256, "a\0", "\0", "\ud800", 1, 1.0, True, b"1", ["1"], {}, object()):
            expect(db.get_sessions(video_id=value), [])
            expect(db.get_sessions(collection_id=value), [])

    @clause("SES-4")
    def test_ses_4_pages_of_what_is_filtered(self, db: RecordedDB) -> None:
        """Filters, limits and cursors work together, with ties too."""
        _create_by_filters(db)
        other = db.get_session("v2/c1")
        expect(
            session_ids(db.get_sessions(video_id="v1", before=other)), ["v1/c2", "v1/c1", "v1/None"]
        )
        # The same again with times that do not go with the ids, some of them ties.
        for number, session in enumerate(db.get_sessions()):
            db.create_session(
                f"{number:02}",
                session["video_id"],
                session["collection_id"],
                number % 3,
                -(number % 5),
            )
        every = db.get_sessions()
        for wanted in (
            {"video_id": "v1"},
            {"collection_id": "c2"},
            {"video_id": ""},
            {"video_id": "v2", "collection_id": "c1"},
        ):
            kept = [session for session in every if wanted.items() <= session.items()]
            whole = session_ids(kept)
            expect(session_ids(db.get_sessions(**wanted)), whole, f"{wanted}")
            for size in (1, 2, 3):
                expect(_read_by_pages(db, limit=size, **wanted), whole, f"{wanted} by {size}")


def _create_with_ties(db: RecordedDB) -> None:
    """Create 18 sessions, each with ties in one, two or none of the keys of the order."""
    keys = [*itertools.product((-1, 2, 10), (5, 6), ("a", "b", "Z"))]
    for number, (updated_at, created_at, name) in enumerate(keys[7:] + keys[:7]):
        db.create_session(
            f"{name}{number % 2}{updated_at}{created_at}",
            created_at=created_at,
            updated_at=updated_at,
        )


def _create_by_filters(db: RecordedDB) -> None:
    for video, collection in itertools.product(("v1", "v2", "", None), ("c1", "c2", None)):
        db.create_session(f"{video}/{collection}", video, collection, 1, 1)


def _read_by_pages(db: RecordedDB, **wanted: Any) -> list[str]:
    names: list[str] = []
    page = db.get_sessions(**wanted)
    # A backend that gives the same page again and again must not keep the suite for ever.
    while page and len(names) < 200:  # noqa: PLR2004
        names += session_ids(page)
        page = db.get_sessions(before=page[-1], **wanted)
    return names
