"""Pictures of how the cost grows."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

# Before pyplot: there may be no screen.
mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.bench import LABELS
from benchmarks.report.words import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.results import Curve, Report

_RATES: Final = ("threads", "coroutines")
_TITLES: Final = {
    "conversation": ("As the conversation grows", "messages in the conversation"),
    "context": ("As the context grows", "messages in the context"),
    "sessions": ("As the number of sessions grows", "sessions"),
    "threads": ("As threads are added", "threads"),
    "coroutines": ("As coroutines are added", "coroutines of one event loop"),
}

# Okabe and Ito's colours, which the colour-blind can tell apart; ours bold, peers thin and dashed.
_OURS: Final = ("#0072B2", "#D55E00", "#009E73", "#56B4E9")
_PEERS: Final = ("#CC79A7", "#E69F00", "#888888", "#B2A100", "#882255", "#44AA99")
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "svg.hashsalt": "director-db",  # the same picture gives the same file
    "svg.fonttype": "none",
}
_MARKERS: Final = "osD^vP"


def draw(report: Report, folder: Path) -> dict[str, str]:
    """Draw a picture for each subject that has curves; return the files' names by subject."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for subject in _TITLES:
        curves = [curve for curve in report.curves if curve.plot == subject and curve.points]
        if curves:
            name = f"{subject}.svg"
            with plt.rc_context(_STYLE):
                _draw(subject, curves, folder / name)
            drawn[subject] = name
    return drawn


def _draw(subject: str, curves: Sequence[Curve], path: Path) -> None:
    backends = [name for name in LABELS if any(curve.backend == name for curve in curves)]
    figure, axes = plt.subplots(
        1, len(backends), figsize=(5.4 * len(backends), 4.8), squeeze=False, sharey=True
    )
    title, label = _TITLES[subject]
    looks = _looks(curves)
    for place, backend in zip(axes[0], backends, strict=True):
        for curve in curves:
            if curve.backend == backend:
                sizes, values = zip(*curve.points, strict=True)
                place.plot(sizes, values, label=curve.name, **looks[curve.name])
        _scale(place, subject)
        place.set_title(LABELS[backend], loc="left", fontweight="bold", fontsize=11)
        place.set_xlabel(label)
        # Below, where it hides no line.
        place.legend(
            loc="upper left", bbox_to_anchor=(0, -0.2), frameon=False, fontsize=9, borderaxespad=0
        )
    _fit(axes[0][0], [value for curve in curves for _, value in curve.points], subject)
    axes[0][0].set_ylabel("messages stored in a second" if subject in _RATES else "time of a call")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    figure.tight_layout()
    # Without a date, so that a picture changes only with its figures.
    drawing = io.StringIO()
    figure.savefig(drawing, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
    # It gives each point a line of its own: thousands, of which a diff shows nothing.
    text = " ".join(drawing.getvalue().split()).replace("> <", "><")
    path.write_text(text.replace("<g id=", "\n<g id=") + "\n", encoding="utf-8")


def _looks(curves: Sequence[Curve]) -> dict[str, dict[str, Any]]:
    """Give each name the same look in all panels: ours thick, peers thin and dashed."""
    looks: dict[str, dict[str, Any]] = {}
    for is_peer, colours, look in (
        (False, _OURS, {"linewidth": 2.2, "markersize": 6}),
        (True, _PEERS, {"linewidth": 1.3, "markersize": 4, "linestyle": "--"}),
    ):
        names = dict.fromkeys(curve.name for curve in curves if curve.is_peer is is_peer)
        for number, name in enumerate(names):
            colour = colours[number % len(colours)]
            looks[name] = {**look, "color": colour, "marker": _MARKERS[number % len(_MARKERS)]}
    return looks


def _scale(axes: Axes, subject: str) -> None:
    axes.set_xscale("log", base=2 if subject in _RATES else 10)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if subject in _RATES:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelleft=True)


def _fit(axes: Axes, values: Sequence[float], subject: str) -> None:
    """Begin rates at nothing and times at a power of ten: a cut axis makes small things large."""
    if subject in _RATES:
        axes.set_ylim(0, 1.05 * max(values))
    else:
        lowest, highest = math.log10(min(values)), math.log10(max(values))
        axes.set_ylim(10 ** math.floor(lowest), 10 ** math.ceil(highest))
