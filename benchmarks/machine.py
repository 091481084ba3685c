"""What the run ran on; nothing in it tells whose machine it is."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE_SYSTEM: Final = "file system"
"""The name of the kind of file system in a description."""


def describe(folder: Path, postgres: str | None, packages: Iterable[str]) -> dict[str, str]:
    """Describe the machine, what else it is doing, and the versions of all that is measured.

    Args:
        folder: where the database files are.
        postgres: the server's version, None if there is none.
        packages: distributions whose versions matter, if they are installed.
    """
    found = {
        "processor": _processor(),
        "cores": str(_cores()),
        "system": f"{platform.system()} {platform.release()}",
        FILE_SYSTEM: file_system(folder),
        "load when it began": _load(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "Postgres": postgres or "none",
    }
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    # What this process may use, which in a container is less than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _load() -> str:
    try:
        return f"{os.getloadavg()[0]:.1f}"
    except OSError:
        return "unknown"


def file_system(folder: Path) -> str:
    """Return the kind of file system by the longest mount point that holds the folder."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    best, kind = "", "unknown"
    for line in mounts:
        _, point, name, *_ = line.split(" ")
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, name
    return kind
