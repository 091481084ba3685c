"""What a run of trials found, for people and for programs."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from gallery.broken import SQLITE
from gallery.postgres.broken import POOLED, POSTGRES
from gallery.registry import mutant_named, whole_gallery

KINDS = (SQLITE, POSTGRES, POOLED)


def show_list(mutants):
    """Print the mutants and their mistakes."""
    table = Table("rule", "level", "kind", "mutant", "mistake")
    for mutant in sorted(mutants, key=lambda mutant: mutant.rule):
        table.add_row(mutant.rule, mutant.level, mutant.kind, mutant.__name__, mutant.mistake())
    Console().print(table)


def show_verdicts(verdicts):
    """Print who was killed by what, and at the end, in red, who was not."""
    console = Console()
    table = Table("rule", "mutant", "killed by", "seconds", title="Broken backends")
    for verdict in sorted(verdicts, key=lambda verdict: (verdict.rule, verdict.mutant)):
        if verdict.fate == "killed":
            by = verdict.clause.removeprefix("test_")
            if verdict.attempts > 1:
                by += f" (attempt {verdict.attempts})"
            table.add_row(verdict.rule, verdict.mutant, by, f"{verdict.seconds:.1f}")
    console.print(table)
    kinds = Table("rule", *KINDS, title="Mutants killed by their own rule's clauses")
    for rule, killed in proven_on(verdicts).items():
        kinds.add_row(rule, *(str(killed[kind] or "-") for kind in KINDS))
    console.print(kinds)
    for line in others(verdicts):
        console.print(line, style="bold red", markup=False, highlight=False)
    console.print(summary(verdicts))


def summary(verdicts):
    """Return how many mutants were killed, and how many healthy twins were not, in a sentence."""
    gallery, healthy = whole_gallery()
    mutants = [verdict for verdict in verdicts if verdict.mutant in gallery]
    twins = [verdict for verdict in verdicts if verdict.mutant in healthy]
    killed = [verdict for verdict in mutants if verdict.fate == "killed"]
    own = sum(verdict.found_rule == verdict.rule for verdict in killed)
    text = (
        f"{len(killed)} of {len(mutants)} mutants killed, {own} of them by a clause of the rule "
        "that they break"
    )
    late = sum(verdict.attempts > 1 for verdict in killed)
    if late:
        text += f", {late} not at the first attempt"
    if twins:
        text += f"; {sum(map(is_right, twins))} of {len(twins)} healthy twins passed"
    return f"{text}; {sum(verdict.seconds for verdict in verdicts):.0f} s of trials."


def proven_on(verdicts):
    """Return, for each rule, how many mutants of each kind of backend its own clauses killed."""
    found = {}
    for verdict in sorted(verdicts, key=lambda verdict: verdict.rule):
        if verdict.fate == "killed" and verdict.found_rule == verdict.rule:
            found.setdefault(verdict.rule, Counter())[verdict.kind] += 1
    return found


def left_to_luck(verdicts):
    """Return the rules whose own clauses caught none of their mutants of SQLite, all tried."""
    gallery, _ = whole_gallery()
    of_sqlite = [verdict for verdict in verdicts if verdict.kind == SQLITE]
    tried = {verdict.mutant for verdict in of_sqlite}
    defended = {verdict.rule for verdict in of_sqlite if verdict.found_rule == verdict.rule}
    rules = {mutant.rule for mutant in gallery.values() if mutant.kind == SQLITE} - defended
    return sorted(
        rule
        for rule in rules
        if tried.issuperset(
            name for name, mutant in gallery.items() if (mutant.rule, mutant.kind) == (rule, SQLITE)
        )
    )


def is_right(verdict):
    """Say whether a mutant was killed, or a healthy twin was not."""
    _, healthy = whole_gallery()
    return verdict.fate == ("survived" if verdict.mutant in healthy else "killed")


def others(verdicts):
    """Return a text for each verdict that is not as it should be."""
    lines = []
    for verdict in verdicts:
        if is_right(verdict):
            continue
        if verdict.fate == "survived":
            lines.append(
                f"{verdict.mutant} survived {verdict.passed} clauses; it breaks {verdict.rule}: "
                f"{mutant_named(verdict.mutant).mistake()}"
            )
        else:
            lines.append(f"{verdict.mutant} {verdict.fate}: {verdict.actual}")
    return lines


def as_json(verdicts):
    """Return the verdicts as data, with the mistakes."""
    return [
        verdict._asdict() | {"mistake": mutant_named(verdict.mutant).mistake()}
        for verdict in verdicts
    ]


def as_markdown(verdicts):
    """Return the verdicts as a table, after one of the kinds of backend that they speak of."""
    lines = [f"| rule | {' | '.join(KINDS)} |", f"|---|{'---|' * len(KINDS)}"]
    for rule, killed in proven_on(verdicts).items():
        lines.append(f"| {rule} | {' | '.join(str(killed[kind] or '-') for kind in KINDS)} |")
    lines += ["", "| rule | kind | mutant | mistake | killed by | seconds |"]
    lines.append("|---|---|---|---|---|---|")
    for verdict in sorted(verdicts, key=lambda verdict: (verdict.rule, verdict.mutant)):
        mistake = mutant_named(verdict.mutant).mistake().replace("|", "\\|")
        by = f"`{verdict.clause}`" if verdict.clause else f"**{verdict.fate}**"
        lines.append(
            f"| {verdict.rule} | {verdict.kind} | {verdict.mutant} | {mistake} | {by} | "
            f"{verdict.seconds:.1f} |"
        )
    return "\n".join(lines) + "\n"
