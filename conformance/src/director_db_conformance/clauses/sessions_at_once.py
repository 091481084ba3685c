"""SES-2, SES-4, SES-5 and SES-6 with several workers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import (
    fields,
    message,
    new_session,
    put,
    session_ids,
)
from director_db_conformance.clauses.at_once import (
    THREADS,
    at_once,
)
from director_db_conformance.expectation import expect, expect_that

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_conformance.transcript import RecordedDB, RecordedPlace


class SessionsAtOnceClauses:
    """Sessions that several workers create, change and list."""

    @clause("SES-2", level="concurrent")
    def test_ses_2_of_first_creates_at_once_one_wins(self, place: RecordedPlace) -> None:
        """Two workers create one session at the same moment: one wins, and both find the same."""
        handles = [place.open(), place.open()]

        created: list[bool] = []

        def create(name: str, number: int) -> dict[str, Any]:
            db = handles[number % 2]
            fields = (f"v{number}", f"c{number}", number, number, {"n": number}, f"u{number}")
            created.append(db.create_session(name, *fields))
            return db.get_session(name)  # type: ignore[no-any-return]

        for attempt in range(12):
            name = f"s{attempt}"
            found = at_once([partial(create, name, number) for number in range(THREADS)])
            winner = found[0]["created_at"]
            expect(
                fields(found[0]),
                {
                    "session_id": name,
                    "video_id": f"v{winner}",
                    "collection_id": f"c{winner}",
                    "created_at": winner,
                    "updated_at": winner,
                    "metadata": {"n": winner},
                    "user_id": f"u{winner}",
                },
            )
            expect(found, [found[0]] * THREADS, "what each worker finds")
            expect(sorted(created), [*[False] * (THREADS - 1), True], "what they are told")
            created.clear()
        expect(len(handles[0].get_sessions()), 12, "sessions")

    @clause("SES-4", level="concurrent")
    def test_ses_4_pages_hold_every_quiet_session_while_others_change(
        self, place: RecordedPlace
    ) -> None:
        """Reading page by page gives each session that nobody touches exactly once."""
        handles = [place.open(), place.open()]
        quiet = [f"quiet{number:02}" for number in range(24)]
        for name in quiet:
            handles[0].create_session(name, created_at=5, updated_at=5)

        def work(number: int) -> None:
            for step in range(12):
                # Before and after the quiet ones in the order, and among them.
                name = f"{'az'[step % 2]}{number}"
                handles[0].create_session(name, created_at=5, updated_at=5)
                handles[0].update_session(name, updated_at=4 + step % 3)
                if step % 3 == 0:
                    handles[0].delete_session(name)

        def page_through() -> None:
            seen: list[str] = []
            page = handles[1].get_sessions(limit=5)
            while page:
                seen += session_ids(page)
                page = handles[1].get_sessions(limit=5, before=page[-1])
            expect([name for name in seen if name in quiet], quiet[::-1], "on all pages")

        at_once([partial(work, number) for number in range(THREADS // 2)],
                watched_by=[page_through] * 2)  # fmt: skip

    @clause("SES-5", level="concurrent")
    def test_ses_5_changes_of_different_fields_at_once_all_stay(self, place: RecordedPlace) -> None:
        """Workers that change different fields of one session never undo each other's change."""
        handles = [place.open(), place.open()]
        new_session(handles[0])

        def change(field: str, db: RecordedDB, form: Callable[[int], Any]) -> None:
            for step in range(25):
                db.update_session("s1", **{field: form(step)})
                expect(db.get_session("s1")[field], form(step), f"{field}, just written")

        def touch() -> None:
            for step in range(25):
                put(handles[0], "s1", f"m{step}", updated_at=step)

        at_once(
            [
                partial(change, "video_id", handles[0], "v{}".format),
                partial(change, "collection_id", handles[1], "c{}".format),
                partial(change, "metadata", handles[1], lambda step: {"n": step}),
                partial(change, "user_id", handles[0], "u{}".format),
                touch,
            ]
        )
        found = fields(handles[0].get_session("s1"))
        del found["session_id"], found["updated_at"]
        last = {"video_id": "v24", "collection_id": "c24", "created_at": 1000}
        expect(found, {**last, "metadata": {"n": 24}, "user_id": "u24"})

    @clause("SES-6", level="concurrent")
    def test_ses_6_last_activity_never_goes_back_under_concurrent_writes(
        self, place: RecordedPlace
    ) -> None:
        """However writes overlap, the time of a session's last activity only grows."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        steps = 20
        latest = [0, 0]

        def work(number: int) -> None:
            db = handles[number % 2]
            for step in range(steps):
                time = 2000 + THREADS * step + number
                if number % 4 == 0:
                    db.add_or_update_context_msg("s1", [step], updated_at=time)
                elif number % 4 == 1:
                    db.add_or_update_msgs_to_conv("s1", [message(str(number), updated_at=time)])
                else:
                    put(db, "s1", str(number), updated_at=time)

        def watch(number: int) -> None:
            written = [record["updated_at"] for record in handles[number].get_conversations("s1")]
            found = handles[number].get_session("s1")["updated_at"]
            least = max([latest[number], *written])
            expect_that(found >= least, f"an updated_at of at least {least}", found)
            latest[number] = found

        at_once(
            [partial(work, number) for number in range(THREADS)],
            watched_by=[partial(watch, number) for number in range(2)],
        )
        expect(handles[0].get_session("s1")["updated_at"], 2000 + THREADS * steps - 1)
