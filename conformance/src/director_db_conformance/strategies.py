"""What the machine draws: calls with look-alike ids, nasty payloads, times and pages.

Values come from tables by their number, which costs one choice: what takes the machine its time is
rows of calls, and random payloads have clauses of their own.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import SearchStrategy

    Arguments = SearchStrategy[dict[str, Any]]
    Calls = SearchStrategy[tuple[str, Any, dict[str, Any]]]

LOOK_ALIKES: Final = (
    ("{}a", "{}A", "{}a ", " {}a"),  # folded case, trimmed spaces
    ("{}%", "{}_", "{}a", "{}*"),  # patterns
    ("{}\u00e9", "{}e\u0301", "{}e", "{}\u00c9"),  # composed, decomposed, without the accent
    ("{}", "0{}", "{}.0", "+{}"),  # one number
    ("{}\u00df", "{}ss", "{}SS", "{}\u1e9e"),  # one text after full case folding
    ("{}a", "{}a\u200b", "{}\u200da", "{}\ufeffa"),  # one text to the eye
    ("{}'", '{}"', "{}\\", "{};--"),  # what ends a literal
    ("{}" + "~" * 245 + "a", "{}" + "~" * 245 + "b", "{}" + "~" * 245, "{}" + "\U0001f600" * 245),
)
"""Ids that careless comparison takes for each other. ``{}`` is a number of each example's own."""

CURSOR: Final = object()
"""Stands for the last session of the page before."""

_MIN_TIME: Final = -(2**63)
_MAX_TIME: Final = 2**63 - 1


class Word(str, Enum):  # noqa: UP042 - as callers write it
    """A text that is a member of an enumeration."""

    SUCCESS = "success"


def _one_of(values: Sequence[Any]) -> SearchStrategy[Any]:
    """Draw one of some values by its number: their own texts would fill pages of reports."""
    return st.integers(0, len(values) - 1).map(lambda number: values[number])


# --- Values -------------------------------------------------------------------------------------

# Not evenly, so that calls meet each other's records.
_known_ids: Final = _one_of([0, 0, 0, 1, 1, 2, 2, 3])
_impossible: Final = ["", "a\0", "\ud800", "x" * 256, None, 5.0, b"a"]
_ids: Final = _one_of([0, 0, 1, 1, 2, 2, 3] * 12 + _impossible)
_session_ids: Final = _one_of([0, 0, 0, 0, 0, 1, 1, 1, 2, 3] * 10 + _impossible)
_labels: Final = _one_of([None, "", 0, 1, 2])
# Mostly long ago: a session's last activity soon hides every time before it.
_times: Final = _one_of(
    [0, 1, 2, 3, 4, 5, -1, -2, 0, 1, 2, 3, 4, 5, None, None, 2**31, 2**33, _MAX_TIME, _MIN_TIME]
)
_texts: Final = _one_of(["", "input", "output", "Input", "input ", "\u00e9", "e\u0301"])
_statuses: Final = _one_of([None, "", "progress", "Progress", Word.SUCCESS])
_PLAIN: Final[list[Any]] = [{}, [], None, 0, 1, "a", {"a": 1}, ["a"]]
_NASTY: Final[list[Any]] = [
    0.0, -0.0, 1.0, True, False, 1e16, 10**16, 5e-324, 2**53 + 1, 2**63, 2**64, -(10**400), 0.1,
    1.5e300, "", "\0", "a\0b", "\ud800", "\ud83d\ude00", "\U0001f600", "\u2028", "\\u0000", "\\",
    '"', "'", "e\u0301", "\u00e9", "null", "NaN", "0", "[]", " a ", "%", "\t", "\r\n",
    Word.SUCCESS, (1, (2,)), [[]], [None], {"": []}, {"b": 1, "a": 2}, {"a": 2, "b": 1},
    {"1": 1, "01": 2}, {"\ud800": 1, "\0": 2}, {"__proto__": 1}, [{"b": [1.0, {"a": -0.0}]}, "x"],
    "x" * 3000,
]  # fmt: skip
_payloads: Final = _one_of(_PLAIN * (len(_NASTY) // len(_PLAIN)) + _NASTY)
_items: Final = st.lists(_payloads, max_size=3)
_keys: Final = _one_of(["reasoning"] * 5 + ["b", "b", "Reasoning", "", 'a"b', "\ud800", "$.b"])
_contexts: Final = st.one_of(
    st.builds(
        lambda before, items, after: {**before, "reasoning": items, **after},
        _one_of([{}, {"a": 1}]),
        _items,
        _one_of([{}, {"b": [1]}, {"b": 2}]),
    ),
    st.dictionaries(_keys, st.one_of(_items, _payloads), max_size=3),
    _items,
    _payloads,
)
_limits: Final = _one_of([1, 1, 2, 2, 3, 7, 10**30])

# --- What the operations take; ids are numbers --------------------------------------------------

_record: Final = {"created_at": _times, "updated_at": _times, "metadata": _payloads}
_message: Final = st.fixed_dictionaries(
    {
        "conv_id": _labels,
        "msg_id": _known_ids,
        "msg_type": _texts,
        "agents": st.one_of(st.just([]), _payloads),
        "actions": st.one_of(st.just([]), _payloads),
        "content": _payloads,
        "updated_at": _times,
    },
    optional={"status": _statuses, "created_at": _times, "metadata": _payloads},
)


def _some(**optional: SearchStrategy[Any]) -> Arguments:
    return st.fixed_dictionaries({}, optional=optional)


def _call(name: str, arguments: Arguments | None = None) -> Calls:
    return st.tuples(st.just(name), _session_ids, st.just({}) if arguments is None else arguments)


_create: Final = _call(
    "create_session",
    _some(video_id=_labels, collection_id=_labels, connection=st.just(object), **_record),
)
_update: Final = _call(
    "update_session",
    _some(video_id=_labels, collection_id=_labels, metadata=_payloads, updated_at=_times),
)
_list: Final = _call(
    "get_sessions",
    st.one_of(
        _some(limit=_limits, before=st.just(CURSOR)),
        _some(limit=_limits, before=st.just(CURSOR)),
        _some(
            limit=_limits,
            before=st.just(CURSOR),
            video_id=_known_ids,
            collection_id=_one_of([0, 1, ""]),
        ),
    ),
)
_put: Final = _call("add_or_update_msg_to_conv", _message)
_put_many: Final = _call(
    "add_or_update_msgs_to_conv", st.builds(dict, messages=st.lists(_message, max_size=5))
)
_page: Final = _call(
    "get_conversations",
    st.one_of(
        _some(limit=_limits),
        st.fixed_dictionaries({"after": _ids}, optional={"limit": _limits}),
        st.fixed_dictionaries({"before": _ids}, optional={"limit": _limits}),
        _one_of([{"limit": 0}, {"limit": True}, {"limit": "1"}, {"after": 0, "before": 1}]),
    ),
)
_get_message: Final = _call("get_message", st.builds(dict, msg_id=_ids))
_delete_message: Final = _call("delete_message", st.builds(dict, msg_id=_ids))
_save: Final = _call(
    "add_or_update_context_msg",
    st.fixed_dictionaries(
        {"context_messages": _contexts, "updated_at": _times},
        optional={"created_at": _times, "metadata": _payloads},
    ),
)
SAVE_AGAIN: Final = "save again"
"""Stands for saving the context that is there, or that this handle saved last, a little changed."""

_save_again: Final = _call(
    SAVE_AGAIN,
    st.builds(dict, own=st.booleans(), keep=_one_of([9, 9, 9, 0, 1, 2, 3]), skip=st.integers(0, 1),
              items=_items),
)  # fmt: skip
PAGE_THROUGH: Final = "page through"
"""Stands for reading all sessions, or all messages forwards or backwards, page by page."""

_page_through: Final = _call(
    PAGE_THROUGH, st.builds(dict, what=_one_of(["sessions", "after", "before"]), limit=_limits)
)
_append: Final = _call(
    "append_context_messages",
    st.fixed_dictionaries({"messages": _items}, optional={"key": _keys}),
)

# --- What is refused ----------------------------------------------------------------------------

_REFUSED_TEXTS: Final = ["a\0", "\udfff", "x" * 256, 5.0, b"a"]
_REFUSED_TIMES: Final = [1.0, True, "1", 2**63, _MIN_TIME - 1]
_REFUSED_PAYLOADS: Final = [
    math.nan, -math.inf, {1: 2}, {None: 1}, b"x", {1}, object(), {"a": [0, {"b c": math.inf}]},
    [{"\u00e9": {"1": 1j}}], (0, [math.nan]),
]  # fmt: skip
_REFUSED: Final[dict[str, list[Any]]] = {
    **dict.fromkeys(["msg_id"], _impossible),
    **dict.fromkeys(["video_id", "collection_id", "conv_id", "status"], _REFUSED_TEXTS),
    "msg_type": [*_REFUSED_TEXTS, None],
    **dict.fromkeys(["created_at", "updated_at"], _REFUSED_TIMES),
    **dict.fromkeys(["agents", "actions", "content", "context_messages"], _REFUSED_PAYLOADS),
    "metadata": _REFUSED_PAYLOADS,
}
_TIMES_AND_METADATA: Final = ("created_at", "updated_at", "metadata")
_GOOD: Final[dict[str, Any]] = {
    "conv_id": "c", "msg_id": 0, "msg_type": "t", "agents": [], "actions": [], "content": [],
}  # fmt: skip


def _spoiled(good: dict[str, Any], *others: str) -> Arguments:
    """Draw the arguments, one of them or of the others with a value that nobody may store."""
    return _one_of([good | {name: value} for name in (*good, *others) for value in _REFUSED[name]])


_bad_message: Final = _spoiled(_GOOD, "status", *_TIMES_AND_METADATA)
_refused: Final = st.one_of(
    _call("create_session", _spoiled({}, "video_id", "collection_id", *_TIMES_AND_METADATA)),
    _call("update_session", _spoiled({}, "video_id", "collection_id", *_TIMES_AND_METADATA[1:])),
    _call("add_or_update_msg_to_conv", _bad_message),
    _call(
        "add_or_update_msgs_to_conv",
        st.builds(
            lambda bad, before: {"messages": [_GOOD] * before + [bad]},
            _bad_message,
            st.integers(0, 2),
        ),
    ),
    _call("add_or_update_context_msg", _spoiled({"context_messages": []}, *_TIMES_AND_METADATA)),
    _call(
        "append_context_messages",
        _one_of([{"messages": [0, bad]} for bad in _REFUSED_PAYLOADS]),
    ),
)

# --- All together -------------------------------------------------------------------------------

_WEIGHTS: Final[list[tuple[Calls, int]]] = [
    (_create, 4),
    (_update, 3),
    (_call("get_session"), 1),
    (_list, 4),
    (_call("delete_session"), 2),
    (_put, 7),
    (_put_many, 4),
    (_page, 6),
    (_get_message, 3),
    (_delete_message, 2),
    (_call("delete_conversation"), 1),
    (_save, 3),
    (_save_again, 5),
    (_page_through, 4),
    (_append, 4),
    (_call("get_context"), 1),
    (_call("get_context_messages"), 1),
    (_call("delete_context"), 1),
    (_refused, 2),
]
_WEIGHTED: Final = [call for call, weight in _WEIGHTS for _ in range(weight)]


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, Any, dict[str, Any]]:
    """Draw one call: the operation, the session's number, the other arguments."""
    return draw(_WEIGHTED[draw(st.integers(0, len(_WEIGHTED) - 1))])


handles: Final = st.integers(0, 1)
