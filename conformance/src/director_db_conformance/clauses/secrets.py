"""Passwords of a place, and where they must not show."""

from __future__ import annotations

import logging
import re
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from director_db_conformance.expectation import expect_that

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from director_db.testing import Place

# Shorter ones may stand in a text by chance.
_SHORTEST: Final = 8

# What no kind of quoting changes.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]{12,}")


def secrets_of(place: Place) -> list[str]:
    """Return the passwords in what opens a place, and long parts of them that need no quoting."""
    found: list[str] = []
    for name, value in [*place.env.items(), ("", place.url or "")]:
        if "PASSWORD" in name.upper():
            found.append(value)
        if "://" in value:
            password = urlsplit(value).password or ""
            found += [password, unquote(password)]
    found += [part for secret in found for part in _PLAIN.findall(secret)]
    return [secret for secret in found if len(secret) >= _SHORTEST]


def texts_of(error: BaseException) -> list[str]:
    """Return all that can be read of an error, and of those that it came from."""
    texts = traceback.format_exception(error)
    left: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while left:
        next_one = left.pop()
        if next_one is not None and next_one not in seen:
            seen.append(next_one)
            texts += [str(next_one), repr(next_one), repr(next_one.args), repr(vars(next_one))]
            left += [next_one.__cause__, next_one.__context__]
    return texts


def expect_no_secret(secrets: Iterable[str], texts: Iterable[str], about: str) -> None:
    """Fail if a password shows in a text; the report does not show it either."""
    shows = any(secret in text for text in texts for secret in secrets)
    expect_that(not shows, f"no password in {about}", "it shows there")


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collect what is logged during a block, with tracebacks, by whichever logger."""
    texts: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(self.format(record))

    handler = Collect()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield texts
    finally:
        root.removeHandler(handler)
