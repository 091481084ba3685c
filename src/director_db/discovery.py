"""Finding the installed backends by the metadata of their distributions; nothing is imported.

pluggy's own loader of entry points stops at the first plugin that is broken and silently drops the
second of two that have one name. Here every fault stays with the plugin that has it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP: Final = "director_db"
"""The entry-point group of backends; an entry point's name is its DB type."""


NAME: Final = re.compile(r"[a-z][a-z0-9+._-]*")
"""What a DB type and a URL scheme look like."""


class Plugin(NamedTuple):
    """A backend that a distribution offers."""

    name: str
    entry_point: EntryPoint
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


class Installed(NamedTuple):
    """What discovery found: plugins by DB type, and what is wrong with other distributions."""

    plugins: dict[str, list[Plugin]]
    faults: list[str]


def find_plugins() -> Installed:
    """Read the entry points of every distribution on ``sys.path``; some milliseconds."""
    from importlib import metadata  # noqa: PLC0415 - a third of the time of importing director_db

    plugins: dict[str, list[Plugin]] = {}
    faults: list[str] = []
    seen: set[str] = set()
    for distribution in metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt")
        except (OSError, UnicodeDecodeError):
            continue  # Whosever it is, it cannot tell us that it is ours.
        if text is None or f"[{ENTRY_POINT_GROUP}]" not in text:
            continue
        label = "an unnamed distribution"
        try:
            name = distribution.metadata["Name"]
            if name:
                # One distribution is found twice where two folders of sys.path carry its metadata
                # (an editable install beside its source, say); the first is what gets imported.
                label = name
                canonical = re.sub(r"[-_.]+", "-", name).lower()
                if canonical in seen:
                    continue
                seen.add(canonical)
            for entry_point in distribution.entry_points:
                if entry_point.group == ENTRY_POINT_GROUP:
                    db_type = entry_point.name.lower()
                    if NAME.fullmatch(db_type) is None:
                        faults.append(f"{label}: {entry_point.name!r} is no name of a DB type")
                        continue
                    found = Plugin(db_type, entry_point, label, distribution.version or "?")
                    plugins.setdefault(db_type, []).append(found)
        except Exception as error:  # noqa: BLE001 - malformed metadata raises anything
            faults.append(f"{label}: its entry points cannot be read ({error})")
    return Installed(plugins, faults)
