"""What a run of trials found, for people and for programs."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from gallery.mutants import HEALTHY, mutant_named


def show_list(mutants):
    """Print the mutants and their mistakes."""
    table = Table("rule", "level", "mutant", "mistake")
    for mutant in sorted(mutants, key=lambda mutant: mutant.rule):
        table.add_row(mutant.rule, mutant.level, mutant.__name__, mutant.mistake())
    Console().print(table)


def show_verdicts(verdicts):
    """Print who was killed by what, and at the end, in red, who was not."""
    console = Console()
    table = Table("rule", "mutant", "killed by", "seconds", title="Broken backends")
    for verdict in sorted(verdicts, key=lambda verdict: (verdict.rule, verdict.mutant)):
        if verdict.fate == "killed":
            by = verdict.clause.removeprefix("test_")
            table.add_row(verdict.rule, verdict.mutant, by, f"{verdict.seconds:.1f}")
    console.print(table)
    for line in others(verdicts):
        console.print(line, style="bold red", markup=False, highlight=False)
    killed = [verdict for verdict in verdicts if verdict.fate == "killed"]
    own = sum(verdict.found_rule == verdict.rule for verdict in killed)
    console.print(
        f"{len(killed)} of {len(verdicts)} killed, {own} of them by a clause of the rule that they "
        f"break; {sum(verdict.seconds for verdict in verdicts):.0f} s of trials."
    )


def is_right(verdict):
    """Say whether a mutant was killed, or a healthy twin was not."""
    return verdict.fate == ("survived" if verdict.mutant in HEALTHY else "killed")


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
    """Return the verdicts as a table."""
    lines = ["| rule | mutant | mistake | killed by | seconds |", "|---|---|---|---|---|"]
    for verdict in sorted(verdicts, key=lambda verdict: (verdict.rule, verdict.mutant)):
        mistake = mutant_named(verdict.mutant).mistake().replace("|", "\\|")
        by = f"`{verdict.clause}`" if verdict.clause else f"**{verdict.fate}**"
        lines.append(
            f"| {verdict.rule} | {verdict.mutant} | {mistake} | {by} | {verdict.seconds:.1f} |"
        )
    return "\n".join(lines) + "\n"
