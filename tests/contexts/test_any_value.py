"""Any sequence of saves, appends and deletes, by two handles, against a plain Python value."""

from __future__ import annotations

import copy
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from director_db import InvalidRecordError
from director_db.context.memory import memory

pytestmark = pytest.mark.sampled


class Role(str, Enum):
    USER = "user"


NOTHING = object()
KEYS = ("reasoning", "chat", "é", "a b", "\ud800", "")
NUMBERS = (None, True, 0, 1, 1.0, 1e16, -0.0, 2**70, 10**700)
TEXTS = ("", "text", "é\0", "\U0001f600", "\ud83d", "[]", '","', "{}", Role.USER)
items = st.recursive(
    st.sampled_from(NUMBERS + TEXTS) | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=5,
)
messages = items | st.fixed_dictionaries({"role": st.sampled_from(["user", Role.USER]), "n": items})
lists = st.lists(messages, max_size=6) | st.integers(60, 90).map(lambda count: list(range(count)))
keys = st.sampled_from(KEYS)
usual = st.fixed_dictionaries({"reasoning": lists}, optional={"chat": lists, "": items})
values = (
    usual | lists | lists.map(tuple) | messages | st.dictionaries(keys, lists | items, max_size=4)
)
handles = st.sampled_from([0, 1])


def plain(value):
    """Return a value as it comes back: lists for tuples, and plain types."""
    if isinstance(value, dict):
        return {str.__str__(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str.__str__(value) if isinstance(value, str) else value


class Contexts(RuleBasedStateMachine):
    """Plays on both handles; the subclass that the test makes knows the site."""

    site: object
    handles: list

    def __init__(self):
        super().__init__()
        self.value = NOTHING
        self.handles[0].delete_session("s")
        self.handles[0].create_session("s")

    @initialize(value=values)
    def begin(self, value):
        self.save(0, value)

    def save(self, handle, value):
        before = repr(value)
        self.handles[handle].add_or_update_context_msg("s", value)
        assert before == repr(value)
        self.value = plain(value)

    def draft(self):
        """Return a copy of the value to change, as a caller has it who has read it."""
        return {} if self.value is NOTHING else copy.deepcopy(self.value)

    def list_in(self, value):
        """Return the longest list of a value, or one that is no part of it."""
        if isinstance(value, list):
            return value
        found = value.values() if isinstance(value, dict) else ()
        return max([item for item in found if isinstance(item, list)], key=len, default=[])

    @rule(handle=handles, value=values)
    def save_anything(self, handle, value):
        self.save(handle, value)

    @rule(handle=handles)
    def save_again(self, handle):
        self.save(handle, self.draft())

    @rule(handle=handles, new=st.lists(messages, min_size=1, max_size=3), times=st.integers(1, 3))
    def grow(self, handle, new, times):
        value = self.draft()
        for _ in range(times):
            self.list_in(value).extend(new)
            self.save(handle, value)

    @rule(handle=handles, count=st.integers(1, 3))
    def shrink(self, handle, count):
        value = self.draft()
        del self.list_in(value)[-count:]
        self.save(handle, value)

    @rule(handle=handles, place=st.sampled_from([0, 1, -2, -1]), new=messages)
    def change_an_item(self, handle, place, new):
        value = self.draft()
        found = self.list_in(value)
        if len(found) > 2:
            found[place] = new
        self.save(handle, value)

    @rule(handle=handles, new=messages)
    def insert_at_the_front(self, handle, new):
        value = self.draft()
        self.list_in(value).insert(0, new)
        self.save(handle, value)

    @precondition(lambda self: isinstance(self.value, dict))
    @rule(handle=handles, key=keys, new=items | lists)
    def change_beside_the_list(self, handle, key, new):
        value = self.draft()
        value[key] = new
        self.save(handle, value)

    @precondition(lambda self: isinstance(self.value, dict) and self.value)
    @rule(handle=handles, key=keys)
    def move_the_first_key(self, handle, key):
        value = self.draft()
        first = next(iter(value))
        moved = value.pop(first)
        value[key] = moved
        self.save(handle, value)

    @rule(handle=handles, new=st.lists(messages, max_size=3), key=st.just("reasoning") | keys)
    def append(self, handle, new, key):
        value = self.draft()
        db = self.handles[handle]
        if not isinstance(value, dict) or not isinstance(value.get(key, []), list):
            with pytest.raises(InvalidRecordError, match="context"):
                db.append_context_messages("s", new, key=key)
            return
        value.setdefault(key, []).extend(plain(new))
        self.value = value
        assert len(value[key]) == db.append_context_messages("s", new, key=key)

    @rule(handle=handles, new=st.lists(messages, max_size=3))
    def append_to_the_context_itself(self, handle, new):
        value = [] if self.value is NOTHING else self.draft()
        db = self.handles[handle]
        if not isinstance(value, list):
            with pytest.raises(InvalidRecordError, match="context"):
                db.append_context_messages("s", new, key=None)
            return
        value.extend(plain(new))
        self.value = value
        assert len(value) == db.append_context_messages("s", new, key=None)

    @rule(handle=handles)
    def delete(self, handle):
        assert self.handles[handle].delete_context("s") is (self.value is not NOTHING)
        self.value = NOTHING

    @rule(handle=handles)
    def delete_the_session_and_create_it_again(self, handle):
        self.handles[handle].delete_session("s")
        self.handles[handle].create_session("s")
        self.value = NOTHING

    @rule()
    def forget(self):
        memory.clear()

    @invariant()
    def both_read_it_and_its_rows_are_whole(self):
        expected = {} if self.value is NOTHING else self.value
        # As text, since 1 == 1.0 == True, 0.0 == -0.0 and dicts ignore their order.
        for handle in self.handles:
            assert repr(expected) == repr(handle.get_context_messages("s"))
        if self.value is NOTHING:
            assert (None, None, 0, 0, []) == self.site.stored("s")
        else:
            self.site.check("s", self.value)


def test_two_handles_and_a_python_value_agree(site, db, other):
    machine = type("TwoHandles", (Contexts,), {"site": site, "handles": [db, other]})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_strategies_make_lists_that_are_kept_in_parts(site, db):
    """The machine above would show little if it never came to the rows."""
    found = SimpleNamespace(parts=0, texts=0)
    db.create_session("s")
    for value in ([1], {"reasoning": [], "chat": [1]}, {"k": [Role.USER]}, (1, 2)):
        db.add_or_update_context_msg("s", value)
        found.parts += site.check("s", plain(value)).list_key is not None
    for value in ({}, 5, ["\ud800"], {"k": ["\ud800"]}, {"\ud800": [1]}, list(range(90))):
        db.add_or_update_context_msg("s", value)
        found.texts += site.check("s", value).list_key is None
    assert SimpleNamespace(parts=4, texts=6) == found


@pytest.mark.parametrize("number", [np.float64(1.5), np.str_("é")])
def test_a_subclass_with_a_buffer_comes_back_as_the_plain_type(site, db, session, number):
    """`marshal` writes the bytes of its buffer and not the value."""
    (base,) = {float, str} & set(type(number).__mro__)
    value = {"reasoning": [{"n": number}, number], "beside": number}
    for _ in range(2):
        db.add_or_update_context_msg(session, value)
        assert '"reasoning"' == site.check(session, value).list_key
    assert 3 == db.append_context_messages(session, [number])
    stored = db.get_context_messages(session)
    assert {"reasoning": [{"n": number}, number, number], "beside": number} == stored
    assert {base} == {type(item) for item in (*stored["reasoning"][1:], stored["beside"])}
