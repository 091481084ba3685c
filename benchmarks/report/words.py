"""Figures and verdicts in words that every form of the report shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.machine import FILE_SYSTEM
from benchmarks.results import Verdict

if TYPE_CHECKING:
    from benchmarks.results import Figure, Report, Row

OURS: Final = "ours"
RAW: Final = "raw"
ABSENT: Final = "-"

_NEARLY_ALL: Final = 0.9
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def seconds(value: float) -> str:
    """Write a time with three digits and a unit that fits."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{_three_digits(value * factor)} {unit}"
    return f"{_three_digits(value * 1e9)} ns"


def amount(value: float, unit: str) -> str:
    """Write a figure of a row: a time, or calls for each second."""
    return seconds(value) if unit == "s" else f"{value:,.0f}/s"


def figure(row: Row, name: str) -> str:
    """Write what a contender of a row took, a dash where it did not take part."""
    found = next((each for each in row.figures if each.name == name), None)
    return ABSENT if found is None else amount(found.spread.median, row.unit)


def limit(row: Row) -> str:
    """Write what ours is compared with: the bare driver, or what the goal names."""
    others = [each for each in row.figures if each.name != OURS and not each.is_peer]
    if [each.name for each in others] == [RAW]:
        return amount(others[0].spread.median, row.unit)
    return ", ".join(f"{amount(each.spread.median, row.unit)} {each.name}" for each in others)


def measured(row: Row) -> str:
    """Write what the goal is about, with its spread from the 10th to the 90th percentile."""
    if row.measured is None:
        return ABSENT
    spread = row.measured
    if spread.rounds == 1:
        return f"{spread.median:.3g}"
    return (
        f"{_three_digits(spread.median)} "
        f"({_three_digits(spread.p10)} to {_three_digits(spread.p90)})"
    )


def ratio(row: Row) -> str:
    """Write the ratio that the goal is about, and the goal."""
    if row.goal is None or row.measured is None:
        return ABSENT
    return f"{_three_digits(row.measured.median)} ({row.goal})"


def verdict(row: Row) -> str:
    """Write whether the goal was met, and how nearly if it was not."""
    if row.goal is None or row.measured is None:
        return ""
    if row.verdict is Verdict.PASS:
        return "pass"
    if row.verdict is Verdict.UNCLEAR:
        return "too noisy to tell"
    return f"below: {row.goal.reached(row.measured):.2f} of the goal"


def peer(row: Row, found: Figure) -> str:
    """Write what a peer took, and that as a multiple of ours."""
    mine = row.figures[0].spread.median
    theirs = found.spread.median
    ratio = theirs / mine if row.unit == "s" else mine / theirs
    return f"{found.name} {amount(theirs, row.unit)} ({_two_digits(ratio)} x)"


def times(row: Row) -> str:
    """Write how many times a peer's rate ours is, and what is not proven to be faster."""
    if row.measured is None:
        return ABSENT
    text = f"{_two_digits(row.measured.median)} x"
    if row.verdict is Verdict.BELOW:
        return f"**{text}**"
    return f"{text} ?" if row.verdict is Verdict.UNCLEAR else text


def nearest_peer(row: Row) -> str:
    """Write what the fastest peer took; a dash where none took part."""
    peers = [each for each in row.figures if each.is_peer]
    if not peers:
        return ABSENT
    fastest = min if row.unit == "s" else max
    return peer(row, fastest(peers, key=lambda each: each.spread.median))


def facts(row: Row) -> str:
    """Write what else was seen."""
    return "; ".join(f"{name} {value}" for name, value in row.facts.items())


def summary(report: Report) -> str:
    """Count the verdicts."""
    verdicts = [row.verdict for row in report.rows if row.verdict is not None]
    below = _below(report)
    text = f"{verdicts.count(Verdict.PASS)} of {len(verdicts)} goals met"
    if below:
        far = sum(reached < _NEARLY_ALL for _, reached in below)
        text += f", {len(below)} below ({far} by more than a tenth)"
    unclear = verdicts.count(Verdict.UNCLEAR)
    return text + (f", {unclear} too noisy to tell" if unclear else "")


def missed(report: Report) -> str:
    """Name the work that is below its goal; "" if none is."""
    names = [name for name, _ in _below(report)]
    return f" Below: {'; '.join(names)}." if names else ""


def _below(report: Report) -> list[tuple[str, float]]:
    """Return the work that is below its goal, with the goal, and the part that was reached."""
    return [
        (f"{row.work} ({row.goal})", row.goal.reached(row.measured))
        for row in report.rows
        if row.verdict is Verdict.BELOW and row.goal and row.measured
    ]


def in_memory(kind: str) -> list[str]:
    """Warn if files on this kind of file system wait for no disk; one line or none."""
    if kind not in _IN_MEMORY:
        return []
    warning = (
        f"Warning: the files of SQLite are in memory ({kind}), so no write waits for a disk, and "
        "what a commit costs is not in these figures. Name a folder on a disk with --folder."
    )
    return [warning]


def warnings(report: Report) -> list[str]:
    """Return what nobody should overlook who reads the figures of a run."""
    return in_memory(report.machine.get(FILE_SYSTEM, ""))


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"  # noqa: PLR2004 - two digits


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits
