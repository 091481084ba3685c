"""Try the broken backends against the conformance suite, and show which clause killed which.

::

    python tests/gallery/run.py                          all of them
    python tests/gallery/run.py ReplaceForUpsert MSG-3   some, by name or by rule
    python tests/gallery/run.py Postgres                 or by the kind of backend
    python tests/gallery/run.py --list                   their mistakes, without a trial
    python tests/gallery/run.py --keep                   and note who killed them, to be tried first

Exit status 0 only if every mutant that was tried was killed, and no healthy twin.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from director_db_conformance.servers import find_postgres
from director_db_conformance.servers.server_sources import asked_version
from gallery.broken import SQLITE
from gallery.registry import whole_gallery
from gallery.report import as_json, as_markdown, is_right, show_list, show_verdicts
from gallery.runner import LEVEL, Trials
from gallery.trial import KILLERS, known_killers


def main():
    """Run the command."""
    usage = "%(prog)s [NAME|RULE|KIND]... [options]"
    parser = argparse.ArgumentParser(description=__doc__, usage=usage)
    parser.add_argument("names", nargs="*", help="mutants, rules or kinds; all without it")
    parser.add_argument("--list", action="store_true", help="show the mistakes and try nothing")
    parser.add_argument("--level", default=LEVEL, help="the highest level of clauses to try")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write them as Markdown")
    parser.add_argument("--keep", action="store_true", help=f"note the clauses in {KILLERS.name}")
    options = parser.parse_args()
    mutants, healthy = whole_gallery()
    known = mutants | healthy
    names = [
        name
        for name in known
        if (name in mutants and not options.names) or _families(known[name]) & {*options.names}
    ]
    strangers = {*options.names}.difference(*map(_families, known.values()))
    if strangers:
        parser.error(f"there is no mutant, rule or kind {', '.join(sorted(strangers))}")
    if options.list:
        show_list([known[name] for name in names])
        return 0
    with ExitStack() as stack:
        server = None
        if any(known[name].kind != SQLITE for name in names):
            server = stack.enter_context(find_postgres(version=asked_version()))
        trials = stack.enter_context(Trials(server))
        futures = [trials.begin(name, options.level) for name in names]
        verdicts = [future.result() for future in futures]
    show_verdicts(verdicts)
    if options.json:
        options.json.write_text(json.dumps(as_json(verdicts), indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(as_markdown(verdicts), encoding="utf-8")
    if options.keep:
        keep(verdicts, mutants)
    return 0 if all(map(is_right, verdicts)) else 1


def keep(verdicts, mutants):
    """Note by which clause each was killed; the others, if they are still there, as before."""
    new = {verdict.mutant: verdict.clause for verdict in verdicts if verdict.fate == "killed"}
    killers = {name: by for name, by in (known_killers() | new).items() if name in mutants}
    by_clause = [
        f'"{clause}": {json.dumps(sorted(name for name, by in killers.items() if by == clause))}'
        for clause in sorted({*killers.values()})
    ]
    KILLERS.write_text("{\n" + ",\n".join(by_clause) + "\n}\n", encoding="utf-8")


def _families(mutant):
    """Return by what a mutant can be asked for."""
    return {mutant.__name__, mutant.rule, mutant.kind.partition(" ")[0] if mutant.rule else ""}


if __name__ == "__main__":
    sys.exit(main())
