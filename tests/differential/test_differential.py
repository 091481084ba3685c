"""The same calls on SQLite and on Postgres, with the same results, errors and stored text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from director_db import checks, rows
from director_db.context import appending, saving
from director_db.loading import load_backend

# Few ids, so that known ones are drawn again and again, and all alike to careless comparison.
IDS = ("a", "A", "a ", "%", "_", "é", "e\u0301", "a\u200b", "1", "01", "ß", "\U0001f600", "~" * 255)
BAD_IDS = ("", "a\0", "\ud800", "x" * 256, None, 5)

ids = st.sampled_from(IDS)
any_ids = st.sampled_from(IDS + BAD_IDS)
times = st.none() | st.integers(-3, 3) | st.sampled_from([2**63 - 1, -(2**63)])
any_times = times | st.sampled_from([1.5, True, 2**63])
labels = st.none() | st.sampled_from(["", "v", "V", "v ", "%", "é"])
any_labels = labels | st.sampled_from(["a\0", "\udfff", 7])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [2**64, -(10**400), 0.0, -0.0, 1e16, 5e-324, 1, 1.0, float("nan"), b"x", {1: 2}]
    )
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[]), max_size=20)
    | st.sampled_from(
        ["\0", "\ud83d\ude00", "\U0001f600", "é", "\u2028", "\\u0000", "'; DROP", "{}"]
    )
)
payloads = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
contexts = payloads | st.fixed_dictionaries({"reasoning": st.lists(payloads, max_size=3)})
pages = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.sampled_from([1, 2, 5, 10**30, 0, -1, True]),
        "before": any_ids,
        "after": any_ids,
    },
)
messages = st.fixed_dictionaries(
    {
        "conv_id": labels,
        "msg_id": ids,
        "msg_type": st.sampled_from(["", "input"]),
        "agents": payloads,
        "actions": st.just([]),
        "content": payloads,
    },
    optional={"status": labels, "created_at": times, "updated_at": times, "metadata": payloads},
)


class Differential(RuleBasedStateMachine):
    """Plays every call on both; the subclass that the fixture makes knows the two."""

    one: object
    two: object

    def __init__(self):
        super().__init__()
        self.cursor = None
        for db in (self.one, self.two):
            for session in db.get_sessions():
                db.delete_session(session["session_id"])

    def both(self, name, *args, **kwargs):
        outcomes = []
        for db in (self.one, self.two):
            try:
                outcomes.append(getattr(db, name)(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - both must raise the same
                outcomes.append((type(error), str(error)))
        # As text, since 1 == 1.0 == True, 0.0 == -0.0 and dicts ignore their order.
        assert repr(outcomes[0]) == repr(outcomes[1]), f"{name}{args}{kwargs}"
        return outcomes[0]

    @rule(name=any_ids, video=any_labels, collection=any_labels, metadata=payloads,
          created=any_times, updated=any_times)  # fmt: skip
    def create_session(self, name, video, collection, metadata, created, updated):
        self.both("create_session", name, video, collection, created, updated, metadata)

    @rule(name=ids)
    def create_plain_session(self, name):
        self.both("create_session", name)

    @rule(name=any_ids, changes=st.fixed_dictionaries({}, optional={
        "video_id": any_labels, "collection_id": labels, "metadata": payloads,
        "updated_at": any_times}))  # fmt: skip
    def update_session(self, name, changes):
        self.both("update_session", name, **changes)

    @rule(name=any_ids)
    def get_session(self, name):
        self.both("get_session", name)

    @rule(filters=st.fixed_dictionaries({}, optional={
        "limit": st.sampled_from([1, 2, 10**30, 0]), "video_id": any_labels,
        "collection_id": any_labels}), go_on=st.booleans())  # fmt: skip
    def get_sessions(self, filters, go_on):
        if go_on and self.cursor:
            filters = filters | {"before": self.cursor}
        page = self.both("get_sessions", **filters)
        self.cursor = page[-1] if isinstance(page, list) and page else None

    @rule(name=any_ids, message=messages)
    def put(self, name, message):
        self.both("add_or_update_msg_to_conv", name, **message)

    @rule(name=ids, number=ids, text=scalars)
    def put_plain(self, name, number, text):
        self.both("add_or_update_msg_to_conv", name, "c", number, "t", [], [], text)

    @rule(name=any_ids, bulk=st.lists(messages, max_size=5))
    def put_bulk(self, name, bulk):
        self.both("add_or_update_msgs_to_conv", name, bulk)

    @rule(name=any_ids, page=pages)
    def get_conversations(self, name, page):
        self.both("get_conversations", name, **page)

    @rule(name=any_ids, message=any_ids)
    def get_message(self, name, message):
        self.both("get_message", name, message)

    @rule(name=any_ids, message=any_ids)
    def delete_message(self, name, message):
        self.both("delete_message", name, message)

    @rule(name=any_ids, context=contexts, created=any_times, updated=times, metadata=payloads)
    def save_context(self, name, context, created, updated, metadata):
        self.both("add_or_update_context_msg", name, context, created, updated, metadata)

    @rule(
        name=any_ids, items=st.lists(payloads, max_size=3), key=st.sampled_from(["reasoning", "é"])
    )
    def append(self, name, items, key):
        self.both("append_context_messages", name, items, key=key)

    @rule(name=any_ids)
    def get_context(self, name):
        self.both("get_context_messages", name)
        self.both("get_context", name)

    @rule(name=any_ids)
    def delete_parts(self, name):
        self.both("delete_conversation", name)
        self.both("delete_context", name)

    @rule(name=any_ids)
    def delete_session(self, name):
        self.both("delete_session", name)

    @invariant()
    def the_stored_text_is_the_same(self):
        sessions = self.both("get_sessions")
        for session in sessions:
            name = session["session_id"]
            query = rows.MessageQuery(name, None, None, None)
            assert self.one._select_session(name) == self.two._select_session(name)
            assert self.one._select_messages(query) == self.two._select_messages(query)
            stored = [db._select_context(name) for db in (self.one, self.two)]
            if None in stored:
                assert [None, None] == stored
            else:
                # The version is a token of each save's own.
                assert stored[0]._replace(version=0) == stored[1]._replace(version=0)


@pytest.fixture
def pair(tmp_path, postgres_environment):
    places = ({"DB_TYPE": "sqlite", "SQLITE_DB_PATH": str(tmp_path / "x.db")}, postgres_environment)
    classes = [load_backend(env["DB_TYPE"]).cls for env in places]
    one, two = (cls(**cls._settings(env, None)) for cls, env in zip(classes, places, strict=True))
    with one, two:
        yield SimpleNamespace(one=one, two=two)


def test_the_two_cannot_be_told_apart(pair, monkeypatch):
    for module in (checks, saving, appending):
        monkeypatch.setattr(module, "now", lambda: 2)
    machine = type("Pair", (Differential,), {"one": pair.one, "two": pair.two})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=120,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
