"""The values that the state machine draws: look-alike ids, nasty payloads, times.

A value is drawn as its number in a table, the simplest first: that is one choice, which Hypothesis
shrinks well. Random payloads have clauses of their own (`clauses.drawn`). Ids are drawn as numbers,
too; the machine puts one of the `LOOK_ALIKES` in their place.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

    Arguments = SearchStrategy[dict[str, Any]]

LOOK_ALIKES: Final = (
    ("{}a", "{}b", "{}c", "{}d"),  # nobody takes these for each other
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

CURRENT: Final = object()
"""Stands for the version that is stored."""

EARLIER: Final = object()
"""Stands for the version that was stored when `CURRENT` was last drawn; mostly another one."""

_MIN_TIME: Final = -(2**63)
_MAX_TIME: Final = 2**63 - 1


class Word(str, Enum):  # noqa: UP042 - as callers write it
    """A text that is a member of an enumeration."""

    SUCCESS = "success"


def one_of(values: Sequence[Any]) -> SearchStrategy[Any]:
    """Draw one of some values by its number: their own texts would fill pages of reports."""
    return st.integers(0, len(values) - 1).map(lambda number: values[number])


def fields(
    required: Mapping[str, SearchStrategy[Any]], optional: Mapping[str, SearchStrategy[Any]]
) -> Arguments:
    """Draw a dict with these keys and some of the optional ones.

    Hypothesis' own draws their order as well, which says nothing of arguments: a fifth of the time
    of the state machine.
    """
    masks = st.integers(0, 2 ** len(optional) - 1)

    @st.composite
    def drawn(draw: DrawFn) -> dict[str, Any]:
        found = {name: draw(values) for name, values in required.items()}
        mask = draw(masks)
        for bit, (name, values) in enumerate(optional.items()):
            if mask >> bit & 1:
                found[name] = draw(values)
        return found

    return drawn()


def some(**optional: SearchStrategy[Any]) -> Arguments:
    """Draw some of these arguments."""
    return fields({}, optional)


# Not evenly, so that calls meet each other's records.
known_ids: Final = one_of([0, 0, 0, 1, 1, 2, 2, 3])
_impossible: Final = ["", "a\0", "\ud800", "x" * 256, None, 5.0, b"a"]
ids: Final = one_of([0, 0, 1, 1, 2, 2, 3] * 12 + _impossible)
session_ids: Final = one_of([0, 0, 0, 0, 0, 1, 1, 1, 2, 3] * 10 + _impossible)
labels: Final = one_of([None, "", 0, 1, 2])
# Mostly long ago: a session's last activity soon hides every time before it.
times: Final = one_of(
    [0, 1, 2, 3, 4, 5, -1, -2, 0, 1, 2, 3, 4, 5, None, None, 2**31, 2**33, _MAX_TIME, _MIN_TIME]
)
texts: Final = one_of(["", "input", "output", "Input", "input ", "\u00e9", "e\u0301"])
statuses: Final = one_of([None, "", "progress", "Progress", Word.SUCCESS])
_PLAIN: Final[list[Any]] = [{}, [], None, 0, 1, "a", {"a": 1}, ["a"]]
_NASTY: Final[list[Any]] = [
    0.0, -0.0, 1.0, True, False, 1e16, 10**16, 5e-324, 2**53 + 1, 2**63, 2**64, -(10**400), 0.1,
    1.5e300, "", "\0", "a\0b", "\ud800", "\ud83d\ude00", "\U0001f600", "\u2028", "\\u0000", "\\",
    '"', "'", "e\u0301", "\u00e9", "null", "NaN", "0", "[]", " a ", "%", "\t", "\r\n",
    Word.SUCCESS, (1, (2,)), [[]], [None], {"": []}, {"b": 1, "a": 2}, {"a": 2, "b": 1},
    {"1": 1, "01": 2}, {"\ud800": 1, "\0": 2}, {"__proto__": 1}, [{"b": [1.0, {"a": -0.0}]}, "x"],
    "x" * 3000,
]  # fmt: skip
part: Final[dict[str, SearchStrategy[Any]]] = {
    "conv_id": one_of([0, 0, 0, 1, 1, 2, "", None, "a\0", 5.0]),
    "msg_type": one_of(["input", "input", "Input", "output", "", "\u00e9", None, "x" * 256, b"a"]),
}
payloads: Final = one_of(_PLAIN * (len(_NASTY) // len(_PLAIN)) + _NASTY)
items: Final = st.lists(payloads, max_size=3)
keys: Final = one_of(["reasoning"] * 5 + ["b", "b", "Reasoning", "", 'a"b', "\ud800", "$.b"])
contexts: Final = st.one_of(
    items,
    st.builds(
        lambda before, items, after: {**before, "reasoning": items, **after},
        one_of([{}, {"a": 1}]),
        items,
        one_of([{}, {"b": [1]}, {"b": 2}]),
    ),
    st.dictionaries(keys, st.one_of(items, payloads), max_size=3),
    payloads,
)
patches: Final = one_of(
    [{}, {"a": None}, {"b": 2}, {"a": {"b": 1}}, {"a": {"b": None, "c": {"d": None}}}, {"a": [0]}]
)
versions: Final = one_of([CURRENT] * 6 + [EARLIER] * 3 + [None, "", "0" * 16, "f" * 16, "\u00e9"])
limits: Final = one_of([1, 1, 2, 2, 3, 7, 10**30])
handles: Final = st.integers(0, 1)

record_fields: Final = {"created_at": times, "updated_at": times, "metadata": payloads}
messages: Final = fields(
    {
        "conv_id": labels,
        "msg_id": known_ids,
        "msg_type": texts,
        "agents": st.one_of(st.just([]), payloads),
        "actions": st.one_of(st.just([]), payloads),
        "content": payloads,
        "updated_at": times,
    },
    optional={
        "status": statuses,
        "created_at": times,
        "metadata": payloads,
        "revision": one_of([None, None, 0, 1, 1, 2, 3, _MAX_TIME, _MIN_TIME]),
        "if_absent": one_of([False, False, False, True]),
    },
)

# --- What is refused ----------------------------------------------------------------------------

_REFUSED_TEXTS: Final = ["a\0", "\udfff", "x" * 256, 5.0, b"a"]
_REFUSED_TIMES: Final = [1.0, True, "1", 2**63, _MIN_TIME - 1]
REFUSED_PAYLOADS: Final = [
    math.nan, -math.inf, {1: 2}, {None: 1}, b"x", {1}, object(), {"a": [0, {"b c": math.inf}]},
    [{"\u00e9": {"1": 1j}}], (0, [math.nan]),
]  # fmt: skip
REFUSED: Final[dict[str, list[Any]]] = {
    "msg_id": _impossible,
    **dict.fromkeys(["video_id", "collection_id", "user_id", "conv_id", "status"], _REFUSED_TEXTS),
    "msg_type": [*_REFUSED_TEXTS, None],
    **dict.fromkeys(["created_at", "updated_at"], _REFUSED_TIMES),
    **dict.fromkeys(
        ["agents", "actions", "content", "context_messages", "metadata"], REFUSED_PAYLOADS
    ),
    "key": [5, b"key"],
    "revision": [1.0, True, "1", 2**63, _MIN_TIME - 1],
    "if_absent": [1, None, "x"],
    "merge": [1, None, "x"],
    "if_version": _REFUSED_TEXTS,
}
"""By the name of an argument, values that no write accepts."""

MESSAGE: Final[dict[str, Any]] = {
    "conv_id": "c", "msg_id": "m", "msg_type": "input", "agents": [], "actions": [], "content": [],
}  # fmt: skip
"""A message that is right."""

_OPTIONAL: Final = ("status", "created_at", "updated_at", "metadata", "revision", "if_absent")
REFUSED_MESSAGES: Final = [
    [*[MESSAGE] * before, {**MESSAGE, name: value}]
    for before, name in enumerate([*MESSAGE, *_OPTIONAL])
    for value in REFUSED[name]
]
"""Lists whose last message is refused."""

REFUSED_LIMITS: Final = {"limit": [0, True, "1", -1]}
