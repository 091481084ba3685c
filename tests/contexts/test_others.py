"""What other handles did meanwhile is replaced whole by a save, and kept by an append."""

from __future__ import annotations

import threading

import pytest

from director_db import InvalidRecordError
from director_db.context import appending
from director_db.payload_rules import MAX_PAYLOAD_BYTES
from director_db.rows import SaveOutcome

VALUE = {"system": "be kind", "reasoning": [{"n": number} for number in range(5)]}


def grown(*more):
    return {**VALUE, "reasoning": [*VALUE["reasoning"], *more]}


MEANWHILE = {
    "a save": lambda other: other.add_or_update_context_msg("s", grown({"theirs": 1}, 2, 3)),
    "the same save": lambda other: other.add_or_update_context_msg("s", VALUE),
    "a shorter save": lambda other: other.add_or_update_context_msg("s", {"reasoning": [1]}),
    "another list": lambda other: other.add_or_update_context_msg("s", {"chat": [1, 2]}),
    "a list itself": lambda other: other.add_or_update_context_msg("s", VALUE["reasoning"]),
    "no list": lambda other: other.add_or_update_context_msg("s", 5),
    "one text": lambda other: other.add_or_update_context_msg("s", {"reasoning": ["\ud800"]}),
    "an append": lambda other: other.append_context_messages("s", ["theirs"]),
    "an append elsewhere": lambda other: other.append_context_messages("s", [1], key="chat"),
    "a delete": lambda other: other.delete_context("s"),
    "a new session": lambda other: (other.delete_session("s"), other.create_session("s")),
    "a new context": lambda other: (
        other.delete_session("s"),
        other.create_session("s"),
        other.add_or_update_context_msg("s", grown("theirs")),
    ),
}
cases = pytest.mark.parametrize("meanwhile", MEANWHILE.values(), ids=MEANWHILE.keys())


@cases
def test_a_save_replaces_it_whole(site, db, other, session, meanwhile):
    db.add_or_update_context_msg(session, VALUE)
    for value in (grown("mine"), grown("mine", "too"), VALUE, {"reasoning": []}, VALUE):
        meanwhile(other)
        db.add_or_update_context_msg(session, value)
        assert value == other.get_context_messages(session)
        assert list(value) == list(db.get_context_messages(session))
        site.check(session, value)


@cases
def test_an_append_keeps_it(site, db, other, session, meanwhile):
    db.append_context_messages(session, [0])
    meanwhile(other)
    theirs = other.get_context_messages(session)
    if isinstance(theirs, dict):
        expected = {**theirs, "reasoning": [*theirs.get("reasoning", []), "mine", {}]}
        length = len(expected["reasoning"])
        assert length == db.append_context_messages(session, ["mine", {}])
    else:
        expected = theirs
        with pytest.raises(InvalidRecordError, match="context"):
            db.append_context_messages(session, ["mine", {}])
    assert expected == other.get_context_messages(session)
    site.check(session, expected)
    expected = {"reasoning": [0, "mine", {}]}
    db.add_or_update_context_msg(session, expected)
    assert expected == other.get_context_messages(session)


@cases
def test_an_append_to_a_list_keeps_it(site, db, other, session, meanwhile):
    db.append_context_messages(session, [0], key=None)
    if meanwhile in (MEANWHILE["an append"], MEANWHILE["an append elsewhere"]):
        with pytest.raises(InvalidRecordError, match="key=None"):
            meanwhile(other)
    else:
        meanwhile(other)
    theirs = other.get_context(session).get("context", [])
    if isinstance(theirs, list):
        expected = [*theirs, "mine", {}]
        assert len(expected) == db.append_context_messages(session, ["mine", {}], key=None)
    else:
        expected = theirs
        with pytest.raises(InvalidRecordError, match="not a list"):
            db.append_context_messages(session, ["mine", {}], key=None)
    assert expected == other.get_context_messages(session)
    site.check(session, expected)
    db.add_or_update_context_msg(session, [0, "mine"])
    assert [0, "mine"] == other.get_context_messages(session)
    assert 3 == db.append_context_messages(session, [1], key=None)


def test_a_conflict_is_met_by_one_save_of_the_whole(db, other, session, monkeypatch):
    outcomes = []
    save = db._save_context_change

    def watched(change):
        outcomes.append((change.if_version is None, save(change)))
        return outcomes[-1][1]

    monkeypatch.setattr(db, "_save_context_change", watched)
    db.add_or_update_context_msg(session, VALUE)
    other.append_context_messages(session, ["theirs"])
    db.add_or_update_context_msg(session, grown("mine"))
    db.add_or_update_context_msg(session, grown("mine", "too"))
    assert [
        (True, SaveOutcome.SAVED),
        (False, SaveOutcome.CONFLICT),
        (True, SaveOutcome.SAVED),
        (False, SaveOutcome.SAVED),
    ] == outcomes


def test_a_save_that_loses_stores_nothing_of_the_session(db, other, session):
    """The times of a context that exists stay, and those of the session go on (SES-6, MSG-2)."""
    db.add_or_update_context_msg(session, VALUE, 5, 2000, {"k": 1})
    other.add_or_update_context_msg(session, VALUE, updated_at=1500)
    version = db.add_or_update_context_msg(session, grown(1), updated_at=1600)
    expected = {
        "session_id": session,
        "context": grown(1),
        "created_at": 5,
        "updated_at": 1600,
        "metadata": {},
        "version": version,
    }
    assert expected == db.get_context(session)
    assert 2000 == db.get_session(session)["updated_at"]


def test_readers_never_see_two_saves_mixed(site, db, other, session):
    """Lists of other lengths and other items, saved by both handles and read all the while."""

    def value(name, length):
        return {"name": name, "reasoning": [{"by": name, "of": length} for _ in range(length)]}

    def write(handle, name):
        for step in range(40):
            handle.add_or_update_context_msg(session, value(name, 1 + step * 7 % 30))

    db.add_or_update_context_msg(session, value("first", 3))
    writers = [
        threading.Thread(target=write, args=(handle, name))
        for handle, name in ((db, "a"), (other, "b"), (db, "c"))
    ]
    for writer in writers:
        writer.start()
    seen = [db.get_context_messages(session)]
    while any(writer.is_alive() for writer in writers):
        seen.append(other.get_context_messages(session))
    for writer in writers:
        writer.join()
    seen.append(db.get_context_messages(session))
    for found in seen:
        assert value(found["name"], len(found["reasoning"])) == found
    site.check(session, seen[-1])


def test_appends_and_saves_of_both_handles_at_once(site, db, other, session):
    """An append that returned stays until the next save, and comes once."""
    base = {"reasoning": [["base", number] for number in range(100)]}
    db.add_or_update_context_msg(session, base)

    def append(handle, name):
        for step in range(30):
            handle.append_context_messages(session, [[name, step], [name, step]])

    workers = [
        threading.Thread(target=append, args=(handle, number))
        for number, handle in enumerate((db, other, db, other))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    items = db.get_context_messages(session)["reasoning"]
    assert base["reasoning"] == items[:100]
    assert 100 + 4 * 30 * 2 == len(items)
    # Each append is a block.
    assert items[100::2] == items[101::2]
    for worker in range(4):
        assert list(range(30)) == [step for name, step in items[100::2] if name == worker]
    site.check(session, {"reasoning": items})
    db.add_or_update_context_msg(session, base)
    assert base == other.get_context_messages(session)


def test_an_append_that_others_come_before_waits_longer_each_time(db, session, monkeypatch):
    """With no pause, all who lost would read the whole again at once, and lose again."""
    db.add_or_update_context_msg(session, {"reasoning": ["\ud800"]})
    save, left, most, pauses = db._save_context, [SaveOutcome.CONFLICT] * 12, [], []
    monkeypatch.setattr(
        db, "_save_context", lambda row, **rest: left.pop() if left else save(row, **rest)
    )
    monkeypatch.setattr(
        appending.random, "uniform", lambda least, longest: most.append(longest) or least
    )
    monkeypatch.setattr(appending.time, "sleep", pauses.append)
    assert 2 == db.append_context_messages(session, ["\ud800"])
    assert 12 == len(pauses)
    assert sorted(most) == most
    assert 0 < most[0] < most[1] < most[-2] == most[-1] <= 1


def test_an_append_fills_a_context_to_the_last_byte(site, db, session):
    half = "x" * (MAX_PAYLOAD_BYTES // 2)
    db.add_or_update_context_msg(session, {"k": [half]}, updated_at=5)
    room = MAX_PAYLOAD_BYTES - len(half) - len('{"k":["",""]}')
    with pytest.raises(InvalidRecordError, match="64 MiB"):
        db.append_context_messages(session, ["x" * (room + 1)], key="k")
    assert 5 == db.get_context(session)["updated_at"]
    assert 2 == db.append_context_messages(session, ["x" * room], key="k")
    assert MAX_PAYLOAD_BYTES == site.stored(session).bytes
    with pytest.raises(InvalidRecordError, match="64 MiB"):
        db.append_context_messages(session, [1], key="k")
    assert 2 == db.append_context_messages(session, [], key="k")
    assert [half, "x" * room] == db.get_context_messages(session)["k"]


@pytest.mark.parametrize("start", [None, {"k": []}, {"k": [[]]}, {"other": 1}])
def test_an_append_nests_as_deep_as_a_payload(db, session, start):
    def nested(depth):
        value = []
        for _ in range(depth - 1):
            value = [value]
        return value

    if start is not None:
        db.add_or_update_context_msg(session, start)
    with pytest.raises(InvalidRecordError, match="200 deep") as caught:
        db.append_context_messages(session, [1, nested(199)], key="k")
    assert caught.value.path.startswith("messages[1][0]")
    length = 0 if start is None else len(start.get("k", ()))
    assert length + 1 == db.append_context_messages(session, [nested(198)], key="k")
    assert nested(198) == db.get_context_messages(session)["k"][-1]


def test_a_refused_save_changes_nothing(site, db, session):
    db.add_or_update_context_msg(session, VALUE)
    for bad, path in (
        (float("nan"), "context_messages.reasoning[5].score"),
        ({1: 2}, "context_messages.reasoning[5].score"),
        (b"x", "context_messages.reasoning[5].score"),
    ):
        with pytest.raises(InvalidRecordError) as caught:
            db.add_or_update_context_msg(session, grown({"score": bad}))
        assert path == caught.value.path
        assert VALUE == db.get_context_messages(session)
    with pytest.raises(InvalidRecordError) as caught:
        db.add_or_update_context_msg(session, {"a b": [float("inf")]})
    assert 'context_messages["a b"][0]' == caught.value.path
    site.check(session, VALUE)
