"""A save costs what it changed, and an append its new items."""

from __future__ import annotations

import copy
import json

import pytest

from director_db import InvalidRecordError
from director_db.context import appending, saving
from director_db.context import items as context_items
from director_db.context.memory import memory
from director_db.payload import encode_payload, payload_bytes
from director_db.rows import SaveOutcome

COUNT = 2_000


def message(number):
    return {"role": "user", "content": f"{number}: {'x' * 300}"}


@pytest.fixture
def value():
    return {"reasoning": [message(number) for number in range(COUNT)], "chat": []}


@pytest.fixture
def changes(db, monkeypatch):
    """The changes that reach storage, with their outcomes; reading a context is not allowed."""
    seen = []
    save = db._save_context_change

    def watched(change):
        seen.append((change, save(change)))
        return seen[-1][1]

    def refused(_session_id):
        pytest.fail("a context was read")

    monkeypatch.setattr(db, "_save_context_change", watched)
    monkeypatch.setattr(db, "_select_context", refused)
    return seen


def written_by(site, write):
    """Return how many bytes a write takes: the least of some, as a server also writes its own."""
    amounts = []
    for _ in range(4):
        before = site.written()
        write()
        amounts.append(site.written() - before)
    return min(amounts)


def test_a_save_grown_by_one_and_an_append_write_little(site, db, session, value):
    whole = payload_bytes(encode_payload(value, "value"))
    first = site.written()
    db.add_or_update_context_msg(session, value)
    assert site.written() - first > whole

    def grow():
        value["reasoning"].append(message(len(value["reasoning"])))
        db.add_or_update_context_msg(session, value)

    def append():
        value["reasoning"].append(message(0))
        db.append_context_messages(session, [message(0)])

    for write in (grow, append, grow):
        assert 0 < written_by(site, write) < whole / 10
    assert value == db.get_context_messages(session)
    site.check(session, value)


def test_an_append_to_a_context_that_is_a_list_writes_little(site, db, session, monkeypatch):
    value = [message(number) for number in range(COUNT)]
    whole = payload_bytes(encode_payload(value, "value"))
    db.add_or_update_context_msg(session, value)
    monkeypatch.setattr(db, "_select_context", lambda _: pytest.fail("a context was read"))

    def append():
        value.append(message(0))
        assert len(value) == db.append_context_messages(session, [message(0)], key=None)

    assert 0 < written_by(site, append) < whole / 10
    monkeypatch.undo()
    assert value == db.get_context_messages(session)
    assert "null" == site.check(session, value).list_key


def test_a_save_that_is_not_remembered_writes_only_what_differs(site, db, other, session, value):
    db.add_or_update_context_msg(session, value)
    whole = payload_bytes(encode_payload(value, "value"))

    def change_one():
        value["reasoning"][COUNT // 2]["content"] += "!"
        memory.clear()
        other.add_or_update_context_msg(session, value)

    assert 0 < written_by(site, change_one) < whole / 10
    assert value == db.get_context_messages(session)
    site.check(session, value)


def differing(changes):
    """Return the last change in short, which must be the only one since it was last asked."""
    ((change, outcome),) = changes
    changes.clear()
    assert SaveOutcome.SAVED is outcome
    return list(change.indexes), change.list_len, change.rest_changed


def test_only_what_changed_is_sent(site, db, session, changes):
    value = {"reasoning": [message(number) for number in range(10)], "chat": []}
    steps = [
        (lambda items: None, (list(range(10)), 10, True)),
        (lambda items: None, ([], 10, False)),
        (lambda items: items.extend([message(10), message(11)]), ([10, 11], 12, False)),
        (lambda items: items.pop(), ([], 11, False)),
        (lambda items: items[-1].update(more=1), ([10], 11, False)),
        (lambda items: items[3].update(content=1.0), ([3], 11, False)),
        # The same JSON, and other objects.
        (lambda items: items.__setitem__(0, copy.deepcopy(items[0])), ([], 11, False)),
        (lambda items: items[1].update(json.loads(json.dumps(items[1]))), ([], 11, False)),
        # Equal in Python, and not the same JSON.
        (lambda items: items[3].update(content=1), ([3], 11, False)),
        (lambda items: items[3].update(content=True), ([3], 11, False)),
        (lambda items: items[4].update(role=items[4].pop("role")), ([4], 11, False)),
        (lambda items: items.insert(9, message("new")), ([9, 10, 11], 12, False)),
        (lambda items: value["chat"].append(1), ([], 12, True)),
        (lambda items: value.update(other=2), ([], 12, True)),
        (lambda items: items.clear(), ([], 0, False)),
        (lambda items: items.append(message(0)), ([0], 1, False)),
    ]
    for change, expected in steps:
        change(value["reasoning"])
        db.add_or_update_context_msg(session, value)
        assert expected == differing(changes)
        site.check(session, value)


def test_a_save_after_appends_sends_only_what_is_new(site, db, session, changes):
    for number in range(5):
        assert number + 1 == db.append_context_messages(session, [message(number)])
    value = {"reasoning": [message(number) for number in range(6)]}
    db.add_or_update_context_msg(session, value)
    assert ([5], 6, False) == differing(changes)
    assert 7 == db.append_context_messages(session, [[]])
    assert 7 == db.append_context_messages(session, [])
    value["reasoning"] += [[], "last"]
    db.add_or_update_context_msg(session, value, metadata={"k": 1})
    assert ([7], 8, False) == differing(changes)
    site.check(session, value)


def test_a_save_after_appends_to_a_list_sends_only_what_is_new(site, db, session, changes):
    value = []
    for number in range(5):
        value.append(message(number))
        assert number + 1 == db.append_context_messages(session, value[-1:], key=None)
    value.append(message(5))
    db.add_or_update_context_msg(session, value)
    assert ([5], 6, False) == differing(changes)
    assert 7 == db.append_context_messages(session, [[]], key=None)
    assert 7 == db.append_context_messages(session, (), key=None)
    value += [[], "last"]
    db.add_or_update_context_msg(session, value)
    assert ([7], 8, False) == differing(changes)
    site.check(session, value)


@pytest.mark.parametrize("start", [None, [], [1], ["é", {}]])
@pytest.mark.parametrize("new", [[], [1], ["é", "\0"]])
def test_an_append_to_a_list_counts_the_bytes_of_the_whole(site, db, session, changes, start, new):
    value = start or []
    if start is not None:
        db.add_or_update_context_msg(session, start)
    for _ in range(3):
        value = [*value, *new]
        assert len(value) == db.append_context_messages(session, new, key=None)
        assert "null" == site.check(session, value).list_key


@pytest.mark.parametrize("start", [None, {"k": []}, {"k": [1]}, {"a": 1, "k": [], "é": "ü"}])
@pytest.mark.parametrize("new", [[], [1], ["é", "\0"]])
def test_an_append_counts_the_bytes_of_the_whole(site, db, session, changes, start, new):
    """Between two items stands a comma, and none before the first."""
    value = {"k": []} if start is None else start
    if start is not None:
        db.add_or_update_context_msg(session, start)
    for _ in range(3):
        value = {**value, "k": [*value["k"], *new]}
        assert len(value["k"]) == db.append_context_messages(session, new, key="k")
        assert '"k"' == site.check(session, value).list_key


def test_a_list_of_two_keeps_the_place_that_it_has(db, session, changes):
    """Which of two lists is longer may change at every step."""
    value = {"a": [1, 2], "b": [1]}
    db.add_or_update_context_msg(session, value)
    value["b"] += [2, 3]
    changes.clear()
    db.add_or_update_context_msg(session, value)
    assert ([], 2, True) == differing(changes)
    # Until the other one is longer by far: then it is stored whole once, and only what is new of it
    # from then on.
    value["b"] += [message(number) for number in range(66)]
    db.add_or_update_context_msg(session, value)
    assert (list(range(69)), 69, True) == differing(changes)
    value["b"].append(4)
    db.add_or_update_context_msg(session, value)
    assert ([69], 70, False) == differing(changes)


both_orders = pytest.mark.parametrize("keys", [("tools", "reasoning"), ("reasoning", "tools")])


@both_orders
def test_the_list_that_grows_by_saves_comes_in_parts(site, db, session, keys):
    value = {key: [message(0)] * 2 if key == "tools" else [] for key in keys}
    db.add_or_update_context_msg(session, value)
    for _ in range(3):
        value["reasoning"] += [message(number) for number in range(COUNT // 2)]
        db.add_or_update_context_msg(session, value)
    whole = payload_bytes(encode_payload(value, "value"))

    def grow():
        value["reasoning"].append(message(1))
        db.add_or_update_context_msg(session, value)

    def append():
        value["reasoning"].append(message(2))
        db.append_context_messages(session, [message(2)])

    for write in (grow, append):
        assert 0 < written_by(site, write) < whole / 10
    assert '"reasoning"' == site.check(session, value).list_key
    assert value == db.get_context_messages(session)


@both_orders
def test_the_list_that_is_appended_to_comes_in_parts(site, db, session, keys, monkeypatch):
    value = {key: [message(0)] * 2 if key == "tools" else [] for key in keys}
    db.add_or_update_context_msg(session, value)
    assert '"tools"' == site.check(session, value).list_key
    value["reasoning"].append(message(1))
    assert 1 == db.append_context_messages(session, [message(1)])
    assert '"reasoning"' == site.check(session, value).list_key
    monkeypatch.setattr(db, "_select_context", lambda _: pytest.fail("a context was read"))
    for number in range(2, 5):
        value["reasoning"].append(message(number))
        assert number == db.append_context_messages(session, [message(number)])
    monkeypatch.undo()
    site.check(session, value)
    assert value == db.get_context_messages(session)


def test_what_stands_beside_the_list_is_sent_where_it_changed(site, db, session, changes):
    value = {"system": "x" * 100_000, "reasoning": [message(0)]}
    sent = []
    for change in (
        lambda: None,
        lambda: value["reasoning"].append(message(1)),
        lambda: value.update(system="y" * 100_000),
        value["reasoning"].pop,
    ):
        change()
        db.add_or_update_context_msg(session, value, 1, metadata={"step": len(sent)})
        sent.append(changes[-1][0].row.context != "")
        assert value["system"] in site.check(session, value).data
    assert [True, False, True, False] == sent


def test_a_long_list_of_numbers_is_one_text(site, db, session):
    numbers = list(range(1000))
    db.add_or_update_context_msg(session, numbers)
    stored = site.check(session, numbers)
    assert (None, []) == (stored.list_key, stored.items)
    messages = {"m": [message(number) for number in range(1000)]}
    db.add_or_update_context_msg(session, messages)
    assert '"m"' == site.check(session, messages).list_key
    # Where it stands in parts already, a change of it stays one.
    few = {"m": numbers[:64]}
    db.add_or_update_context_msg(session, few)
    db.add_or_update_context_msg(session, {"m": numbers})
    assert 1000 == site.check(session, {"m": numbers}).list_len


def test_the_numbers_of_a_long_list_are_not_encoded_one_by_one(site, db, session, monkeypatch):
    def refused(items, *_):
        pytest.fail(f"{items} were encoded one by one")

    numbers = [0, 1.5, None, True] * 1000
    monkeypatch.setattr(saving, "ListItems", refused)
    for value in (numbers, {"m": numbers}, {"m": numbers, "n": numbers}):
        db.add_or_update_context_msg(session, value)
        assert site.check(session, value).list_key is None
    monkeypatch.undo()
    # Beside messages, these come in parts, however few they are.
    value = {"m": numbers, "reasoning": [message(0)]}
    db.add_or_update_context_msg(session, value)
    assert '"reasoning"' == site.check(session, value).list_key


def test_a_save_after_another_writers_encodes_each_item_once(db, other, session, monkeypatch):
    encoded, checked = [], []
    encode_fast, decode = context_items.fast_codec()
    items = [message(number) for number in range(100)]
    db.add_or_update_context_msg(session, items)
    other.add_or_update_context_msg(session, [*items, "theirs"])

    def encode(item):
        encoded.append(item)
        return encode_fast(item)

    def check(value, *args, original=context_items.check_payload, **options):
        checked.append(value)
        original(value, *args, **options)

    monkeypatch.setattr(context_items, "fast_codec", lambda: (encode, decode))
    monkeypatch.setattr(context_items, "check_payload", check)
    db.add_or_update_context_msg(session, [*items, "mine"])
    assert ["mine", *items] == encoded
    # What comes back from its text needs no check.
    assert [] == checked
    assert [*items, "mine"] == other.get_context_messages(session)


def nested(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda item: item.update({5: "x"}), "keys are str"),
        (lambda item: item.update(deep=nested(200)), "200 deep"),
    ],
    ids=["key", "depth"],
)
@pytest.mark.parametrize("module", [saving, appending], ids=["save", "append"])
def test_what_another_thread_puts_into_an_item_is_checked(
    db, session, monkeypatch, module, change, reason
):
    """As if a thread had changed the item right after its check."""
    items = [{"role": "user"}]
    original = module.check_payload
    checked = []

    def check(value, path, **options):
        original(value, path, **options)
        if not checked:
            checked.append(path)
            change(items[0])

    monkeypatch.setattr(module, "check_payload", check)
    write = {
        saving: lambda: db.add_or_update_context_msg(session, {"reasoning": items}),
        appending: lambda: db.append_context_messages(session, items),
    }[module]
    with pytest.raises(InvalidRecordError, match=reason):
        write()
    assert 1 == len(checked)
    assert {} == db.get_context_messages(session)


@pytest.mark.parametrize(
    "change",
    [{1: "a"}, {None: "a"}, {"a": {True: 1}}, nested(200), float("nan"), b"a", {1, 2}, 10**4300],
    ids=lambda value: type(value).__name__,
)
def test_what_another_thread_puts_in_after_the_check_is_refused(change):
    """Between the check and the snapshot, so that the snapshot holds it."""
    changed = context_items.ListItems([{"role": "user"}, {"now": change}], "context_messages", 2)
    with pytest.raises(InvalidRecordError, match="context_messages"):
        changed.encode([0, 1])


@pytest.mark.parametrize("after", [{"n": 2}, {"n": True}, {1: "a"}, {"n": nested(300)}, b"a"])
def test_the_text_is_of_the_snapshot_whatever_happens_after_it(after):
    items = [{"role": "user"}, {"n": 1, "t": (1, 2)}, {"n": 1}]
    taken = context_items.ListItems(items, "context_messages", 2)
    items[2] = after
    taken.encode([0, 1, 2])
    assert taken.texts == {0: '{"role":"user"}', 1: '{"n":1,"t":[1,2]}', 2: '{"n":1}'}


def test_just_as_deep_as_is_allowed():
    deep = nested(199)
    taken = context_items.ListItems([deep, [*range(500), {}, []]], "context_messages", 2)
    taken.encode([0, 1])
    assert "[" * 199 + "]" * 199 == taken.texts[0]
