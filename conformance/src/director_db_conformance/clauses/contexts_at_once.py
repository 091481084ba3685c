"""Contexts that several workers save and append to, with what each remembers of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from director_db_conformance.clause import clause
from director_db_conformance.clauses.arrange import new_session
from director_db_conformance.clauses.at_once import THREADS, at_once
from director_db_conformance.clauses.second_process import SecondProcess
from director_db_conformance.expectation import expect, expect_that

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db_conformance.transcript import RecordedPlace

_ITEMS: Final[list[Any]] = [["item", number] for number in range(6)]
# What is saved first and last, on one handle; in between another one does something.
_FORMS: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "a list": lambda items: items,
    "a dict with a list": lambda items: {"first": 1, "reasoning": items, "last": {"a": []}},
}
_SECOND_SAVES: Final[dict[str, list[Any]]] = {
    "the same": _ITEMS,
    "longer": [*_ITEMS, "more"],
    "shorter": _ITEMS[:3],
    "the last one changed": [*_ITEMS[:-1], "changed"],
    "the first one changed": ["changed", *_ITEMS[1:]],
    "empty": [],
}


class ContextsAtOnceClauses:
    """CTX-1 to CTX-4 with several workers."""

    @clause("CTX-3", level="concurrent")
    def test_ctx_3_a_save_is_whole_whatever_others_did_since_the_last_one(
        self, place: RecordedPlace
    ) -> None:
        """What was saved is what is read, also if another handle changed the context meanwhile."""
        _save_change_save(place.open(), place.open())

    @clause("CTX-3", level="concurrent")
    def test_ctx_3_a_save_is_whole_whatever_another_process_did(self, place: RecordedPlace) -> None:
        """What was saved is what is read, also if another process changed the context meanwhile."""
        with SecondProcess(place) as other:
            _save_change_save(place.open(), other)

    @clause("CTX-3", level="concurrent")
    def test_ctx_3_a_save_is_whole_though_another_process_does_the_same(
        self, place: RecordedPlace
    ) -> None:
        """Two new processes that make the same calls never take one's save for another's."""
        new_session(place.open())
        with SecondProcess(place) as one, SecondProcess(place) as other:
            for turn, form in enumerate(_FORMS.values()):
                mine, theirs = ([[name, turn], *_ITEMS] for name in ("mine", "theirs"))
                one.add_or_update_context_msg("s1", form(mine))
                other.add_or_update_context_msg("s1", form(theirs))
                one.add_or_update_context_msg("s1", form([*mine, "more"]))
                expect(one.get_context_messages("s1"), form([*mine, "more"]))

    @clause("CTX-4", level="concurrent")
    def test_ctx_4_an_append_adds_to_what_others_have_stored(self, place: RecordedPlace) -> None:
        """An append goes to the end of what is stored now, not of what its handle remembers."""
        db, other = place.open(), place.open()
        for number, (what, change) in enumerate(_CHANGES.items()):
            name = new_session(db, f"s{number}")
            db.add_or_update_context_msg(name, {"reasoning": [1, 2], "rest": 0}, metadata=["m"])
            expect(db.append_context_messages(name, [3]), 3)
            change(other, name)
            before = other.get_context(name)
            known = before["context"]["reasoning"] if before else []
            length = db.append_context_messages(name, ["x", "y"])
            expect(length, len(known) + 2, f"the length after {what}")
            context = {**(before["context"] if before else {}), "reasoning": [*known, "x", "y"]}
            for handle in (db, other):
                expect(handle.get_context_messages(name), context, f"after {what}")
            metadata = before["metadata"] if before else {}
            expect(db.get_context(name)["metadata"], metadata, f"the metadata after {what}")

    @clause("CTX-3", level="concurrent")
    def test_ctx_3_of_saves_at_once_one_is_stored_whole(self, place: RecordedPlace) -> None:
        """A reader sees one save or another, with its metadata and times, and never a mixture."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        steps = 14

        def value(number: int, step: int) -> Any:
            # Long enough to be worth an incremental save, the beginning common to all steps.
            items = [[number, index] for index in range(60 + step)] + [[number, step]]
            return {"reasoning": items, "by": [number, step]} if number % 4 else items

        def save(number: int) -> None:
            for step in range(steps):
                handles[number % 2].add_or_update_context_msg(
                    "s1", value(number, step), step, number, [number, step]
                )

        def look(number: int) -> None:
            found = handles[number].get_context("s1")
            expect_that(found, "a context at every moment", found)
            writer, step = found["metadata"]
            expect(found["context"], value(writer, step), f"the save of {writer}, {step}")
            expect([found["created_at"], found["updated_at"]], [step, writer], "its times")

        save(0)
        at_once(
            [partial(save, number) for number in range(6)],
            watched_by=[partial(look, number) for number in range(2)],
        )
        last = handles[0].get_context("s1")["metadata"][1]
        expect(last, steps - 1, "the step of the save that was stored last")

    @clause("CTX-4", level="concurrent")
    def test_ctx_4_appends_at_once_lose_nothing(self, place: RecordedPlace) -> None:
        """Every append takes effect as one block, and is told where that block ends."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        handles[0].add_or_update_context_msg("s1", {"a": 1, "k": ["first"], "b": 2}, 5, 5, ["m"])

        def append(number: int) -> list[tuple[int, list[str]]]:
            appended = []
            for step in range(10):
                block = [f"{number}.{step}.{part}" for part in range(1 + step % 3)]
                length = handles[number % 2].append_context_messages("s1", block, key="k")
                found = handles[(number + step) % 2].get_context_messages("s1")["k"]
                expect(found[length - len(block) : length], block, f"up to {length}")
                appended.append((length, block))
            return appended

        def look() -> None:
            found = handles[1].get_context("s1")
            expect(list(found["context"]), ["a", "k", "b"], "the keys")
            expect([found["created_at"], found["metadata"]], [5, ["m"]], "what stays")

        by_worker = at_once(
            [partial(append, number) for number in range(THREADS)], watched_by=[look]
        )
        blocks = sorted(pair for own in by_worker for pair in own)
        stored = handles[0].get_context_messages("s1")
        items = [item for _, block in blocks for item in block]
        expect(stored, {"a": 1, "k": ["first", *items], "b": 2}, "all blocks, by their ends")

    @clause("CTX-4", level="concurrent")
    def test_ctx_4_appends_to_a_list_at_once_lose_nothing(self, place: RecordedPlace) -> None:
        """Without a key as well every append is one block, also those that begin the list."""
        handles = [place.open(), place.open()]

        def append(name: str, number: int) -> list[tuple[int, list[str]]]:
            appended = []
            for step in range(6):
                block = [f"{number}.{step}.{part}" for part in range(1 + step % 3)]
                length = handles[number % 2].append_context_messages(name, block, key=None)
                appended.append((length, block))
            return appended

        for start in (None, [], ["first"], ["\ud800"]):
            name = new_session(handles[0], f"s{start}")
            if start is not None:
                handles[0].add_or_update_context_msg(name, start)
            by_worker = at_once([partial(append, name, number) for number in range(THREADS)])
            blocks = sorted(pair for own in by_worker for pair in own)
            items = [item for _, block in blocks for item in block]
            for handle in handles:
                expect(handle.get_context_messages(name), [*(start or []), *items])

    @clause("CTX-4", level="concurrent")
    def test_ctx_4_first_appends_at_once_lose_nothing(self, place: RecordedPlace) -> None:
        """Workers that append to a context that does not exist yet make one context of it."""
        handles = [place.open(), place.open()]

        def append(name: str, number: int) -> int:
            return handles[number % 2].append_context_messages(name, [number])  # type: ignore[no-any-return]

        for attempt in range(10):
            name = new_session(handles[0], f"s{attempt}")
            lengths = at_once([partial(append, name, number) for number in range(6)])
            items = handles[0].get_context_messages(name)["reasoning"]
            expect(sorted(items), [0, 1, 2, 3, 4, 5], "what was appended")
            expect([items[length - 1] for length in lengths], [0, 1, 2, 3, 4, 5], "at the ends")

    @clause("CTX-4", level="concurrent")
    def test_ctx_4_appends_and_saves_at_once_do_not_mix(self, place: RecordedPlace) -> None:
        """An append stands after the save that it met; a save removes what was appended before."""
        handles = [place.open(), place.open()]
        new_session(handles[0])
        handles[0].add_or_update_context_msg("s1", {"reasoning": [["save", -1]]})

        def save() -> None:
            for step in range(25):
                start = [["save", step]] + [["filler", step]] * (step % 7)
                handles[0].add_or_update_context_msg("s1", {"reasoning": start, "by": step})

        def append(number: int) -> None:
            for step in range(20):
                handles[number % 2].append_context_messages("s1", [[number, step], [number, step]])

        def look() -> None:
            context = handles[1].get_context_messages("s1")
            items = context["reasoning"]
            step = items[0][1]
            expect(context.get("by", -1), step, "the save beside the list")
            filler = 1 + max(step, 0) % 7
            expect(items[1:filler], [["filler", step]] * (filler - 1), "the rest of the save")
            expect(items[filler::2], items[filler + 1 :: 2], "each append as a block")
            for number in range(4):
                own = [item[1] for item in items[filler::2] if item[0] == number]
                expect(own, list(range(20))[slice(own[0], own[-1] + 1) if own else slice(0)],
                       f"appends of {number} since the save, without a gap")  # fmt: skip

        at_once([save, *(partial(append, number) for number in range(4))], watched_by=[look])
        look()
        left = handles[0].get_context_messages("s1")["reasoning"]
        expect_that(left[0] == ["save", 24], "the last save is there", left)


_CHANGES: Final[dict[str, Callable[[Any, str], object]]] = {
    "nothing": lambda _db, _name: None,
    "another save": lambda db, name: db.add_or_update_context_msg(
        name, {"reasoning": [["theirs", 1]], "x": 1}, metadata={"theirs": 1}
    ),
    "a longer save": lambda db, name: db.add_or_update_context_msg(
        name, {"first": 1, "reasoning": [*_ITEMS, "theirs"], "last": {"a": []}}
    ),
    "a save with other items": lambda db, name: db.add_or_update_context_msg(
        name, {"reasoning": [["theirs", number] for number in range(len(_ITEMS))]}
    ),
    "a delete": lambda db, name: db.delete_context(name),
    "a delete and a save": lambda db, name: (
        db.delete_context(name),
        db.add_or_update_context_msg(name, {"reasoning": [], "x": 1}),
    ),
    "a delete of the session": lambda db, name: (
        db.delete_session(name),
        db.create_session(name, updated_at=1),
    ),
    "the same again": lambda db, name: db.add_or_update_context_msg(
        name, {"reasoning": [1, 2, 3], "rest": 0}, metadata=["again"]
    ),
}


def _save_change_save(db: Any, other: Any) -> None:
    number = 0
    changes: dict[str, Callable[[Any, str], object]] = {
        **_CHANGES,
        "an append": lambda other, name: other.append_context_messages(name, ["theirs"]),
    }
    for form in _FORMS.values():
        for what, change in changes.items():
            for how, items in _SECOND_SAVES.items():
                name = f"s{number}"
                number += 1
                new_session(db, name)
                db.add_or_update_context_msg(name, form(_ITEMS), 5, 5, {"mine": 1})
                expect(db.get_context_messages(name), form(_ITEMS), "the first save")
                if what != "an append" or isinstance(form([]), dict):
                    change(other, name)
                db.add_or_update_context_msg(name, form(items), updated_at=6)
                for handle in (other, db):
                    about = f"a save after {what}; its list is {how}"
                    found = handle.get_context(name)
                    expect(found["context"], form(items), about)
                    expect([found["updated_at"], found["metadata"]], [6, {}], about)
