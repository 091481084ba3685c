"""What `health()` tells of a file: the versions, and what somebody should know or mend."""

from __future__ import annotations

import os
import platform
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from director_db import CONTRACT_VERSION, __version__
from director_db_sqlite.settings import NORMAL
from director_db_sqlite.upgrades import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

# The WAL-reset bug: a checkpoint beside a commit of another connection can lose that commit.
_WAL_RESET_BUG_FIXED: Final = (3, 51, 3)
_WAL_RESET_BUG_BACKPORTS: Final = {(3, 44): 6, (3, 50): 7}


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part."""
    return {
        "director-db": __version__,
        "contract": CONTRACT_VERSION,
        "schema": str(SCHEMA_VERSION),
        "SQLite": sqlite3.sqlite_version,
        "Python": platform.python_version(),
    }


def warnings(path: str, synchronous: str, old_tables: Sequence[str]) -> list[str]:
    """Return what somebody should know of a file or mend, a sentence or two each.

    Args:
        path: of the file, which is there.
        synchronous: the setting.
        old_tables: tables of the old system that hold rows.
    """
    found = []
    if synchronous == NORMAL:
        found.append(
            "A power cut can take back the last writes (SQLITE_SYNCHRONOUS=normal); full keeps "
            "them."
        )
    status = Path(path).stat()
    if status.st_nlink > 1:
        found.append("The file has several names (hard links); use it by one of them only.")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        found.append(f"Other users may open the file (mode {mode:04o}); consider chmod 600.")
    if not os.access(path, os.W_OK):
        found.append("The file is read-only for this user; every write will fail.")
    version = sqlite3.sqlite_version_info
    if version < _WAL_RESET_BUG_FIXED and version[2] < _WAL_RESET_BUG_BACKPORTS.get(
        version[:2], version[2] + 1
    ):
        found.append(
            f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug (mended in 3.51.3). "
            "director-db checkpoints in a way that avoids it; do not let other programs write "
            "this file at the same time."
        )
    if old_tables:
        found.append(
            f"The old application writes to this file: {', '.join(old_tables)} hold rows, which "
            "director-db does not see. Stop it."
        )
    return found
