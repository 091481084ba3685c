"""What Hypothesis draws: payloads of every kind, and contexts as applications edit them.

Draws are the same in every run: a suite that finds something today and nothing tomorrow cannot be
used to say that two backends are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[..., None]


def bounded(examples: int) -> Callable[[Check], Check]:
    """Run a check on so many drawn examples, the same in every run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        phases=(Phase.explicit, Phase.generate, Phase.target, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


# Hypothesis leaves surrogates out of text(); here every code point counts.
texts: Final = st.text(st.characters(exclude_categories=[]), max_size=20) | st.text(
    st.sampled_from("\ud83d\ude00\U0001f600\\uD\0\t\"'\xe9e\u0301\x7f\u2028{}[]%,:"), max_size=8
)
"""Texts of every code point, with those drawn often that JSON and SQL give a meaning to."""

keys: Final = st.sampled_from(["reasoning", "chat", "", "a", "A", "\ud800"]) | texts
"""Keys of a dict; a few of them come again and again."""

_numbers: Final = (
    st.integers()
    | st.integers(min_value=-(10**4300) + 1, max_value=10**4300 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 1e16, 1.0, 1, 0, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 5e-324])
)

payloads: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none() | st.booleans() | _numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
"""Any JSON value."""

storable_texts: Final = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=255
)
"""Texts that every id but an empty one may be (VAL-4)."""

_items: Final = st.sampled_from([{"role": "user"}, {"role": "User"}, 1, 1.0, True, [], "x"]) | (
    payloads
)


@st.composite
def _edited_contexts(draw: st.DrawFn) -> list[Any]:
    items: list[Any] = draw(st.lists(_items, max_size=5))
    beside: dict[str, Any] = draw(st.dictionaries(keys, payloads, max_size=2))
    key = draw(keys)
    versions: list[Any] = []
    for _ in range(draw(st.integers(2, 6))):
        match draw(st.sampled_from(["grow", "grow", "cut", "change", "drop", "beside", "key"])):
            case "grow":
                items = items + draw(st.lists(_items, min_size=1, max_size=3))
            case "cut":
                items = items[: draw(st.integers(0, len(items)))]
            case "change" if items:
                place = draw(st.integers(0, len(items) - 1))
                items = [*items[:place], draw(_items), *items[place + 1 :]]
            case "drop":
                items = items[1:]
            case "beside":
                beside = draw(st.dictionaries(keys, payloads, max_size=2))
            case _:
                key = draw(keys)
        shapes = [items, {**beside, key: items}, {key: items, **beside}, {**beside, key: items}]
        versions.append(draw(st.sampled_from(shapes)))
    return versions


edited_contexts: Final = _edited_contexts()
"""Values of one context, each made from the last one by a small change."""
