"""Try the broken backends against the conformance suite, and show which clause killed which.

::

    python tests/gallery/run.py                          all of them
    python tests/gallery/run.py ReplaceForUpsert MSG-3   some, by name or by rule
    python tests/gallery/run.py --list                   their mistakes, without a trial

Exit status 0 only if every mutant that was tried was killed, and no healthy twin.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gallery.broken import GALLERY
from gallery.mutants import HEALTHY
from gallery.report import as_json, as_markdown, is_right, show_list, show_verdicts
from gallery.runner import LEVEL, Trials


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, usage="%(prog)s [NAME|RULE]... [options]")
    parser.add_argument("names", nargs="*", help="mutants or rules; all without it")
    parser.add_argument("--list", action="store_true", help="show the mistakes and try nothing")
    parser.add_argument("--level", default=LEVEL, help="the highest level of clauses to try")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write them as Markdown")
    options = parser.parse_args()
    known = GALLERY | HEALTHY
    names = [
        name
        for name, mutant in known.items()
        if (name in GALLERY and not options.names) or {name, mutant.rule} & {*options.names}
    ]
    strangers = {*options.names} - {*known} - {mutant.rule for mutant in known.values()}
    if strangers:
        parser.error(f"there is no mutant and no rule {', '.join(sorted(strangers))}")
    if options.list:
        show_list([known[name] for name in names])
        return 0
    with Trials() as trials:
        futures = [trials.begin(name, options.level) for name in names]
        verdicts = [future.result() for future in futures]
    show_verdicts(verdicts)
    if options.json:
        options.json.write_text(json.dumps(as_json(verdicts), indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(as_markdown(verdicts), encoding="utf-8")
    return 0 if all(map(is_right, verdicts)) else 1


if __name__ == "__main__":
    sys.exit(main())
