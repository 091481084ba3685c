"""The contract that this release of the suite checks."""

from __future__ import annotations

from typing import Final

from director_db import CONTRACT_VERSION

__version__ = "1.1.0"

CHECKED: Final = __version__.rpartition(".")[0]
"""The version of the contract that the suite checks: a suite 1.1.x checks contract 1.1."""


def disagreement() -> str | None:
    """Say how the installed contract is not the one that the suite checks; None if it is."""
    if CONTRACT_VERSION == CHECKED:
        return None
    return (
        f"director-db-conformance {__version__} checks version {CHECKED} of the contract, and the "
        f"installed director-db has version {CONTRACT_VERSION}. Install the releases that belong "
        f'together: pip install "director-db-conformance=={CONTRACT_VERSION}.*"'
    )
