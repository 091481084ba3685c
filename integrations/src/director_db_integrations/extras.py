"""What to do where a framework is not installed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Let an import that needs an extra of this dist say so, where that is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f'{error}. It comes with: pip install "director-db-integrations[{name}]"'
        raise ModuleNotFoundError(message, name=error.name) from error
