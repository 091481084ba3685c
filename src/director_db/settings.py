"""The settings that a backend finds in the environment, and where each comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from director_db.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

QUOTED: Final = " It is in quotes, which docker --env-file keeps: leave them out."
"""What to add to an error about a value for which `is_quoted` is true."""

DEFAULT: Final = "default"
"""The origin of a setting that nobody made."""


LONGEST_TIMEOUT: Final = 86_400.0
"""The most seconds that a call may be told to wait: a day."""


class Settings(dict[str, "Hashable"]):
    """The constructor's keyword arguments, as `BaseDB._settings` returns them.

    A plain dict will do. With this one ``health()`` tells an operator where each setting comes
    from, and what was ignored. Neither counts when `load_db` asks whether settings are equal.

    Attributes:
        origins: the name of each setting, and the variable that it comes from, or `DEFAULT`.
        ignored: a sentence for each variable that is set and has no effect; no passwords.
        identity: what `load_db` compares instead of the arguments, where these have several
            spellings; None where they have one.
    """

    __slots__ = ("identity", "ignored", "origins")

    def __init__(
        self,
        arguments: Mapping[str, Hashable],
        origins: Mapping[str, str],
        ignored: tuple[str, ...] = (),
        *,
        identity: Hashable = None,
    ) -> None:
        """Take the arguments, and what is known of them."""
        super().__init__(arguments)
        self.origins = origins
        self.ignored = ignored
        self.identity = identity


def value_of(environ: Mapping[str, str], name: str) -> str:
    """Return a variable without the newline that a file has at its end; empty is not set.

    Raises:
        ConfigurationError: it is in quotes; a path or a word with quotes is somebody's mistake.
    """
    value = environ.get(name)
    if not value:
        return ""
    value = value.rstrip("\r\n")
    if is_quoted(value):
        message = f"{name} is malformed.{QUOTED}"  # Not the value: it may be a URL with a password.
        raise ConfigurationError(message)
    return value


def operation_timeout_of(value: object, name: str) -> float:
    """Return the longest time that a call waits, in seconds; infinity where there is no limit.

    Args:
        value: a number; 0 for no limit.
        name: what it is called, for messages.

    Raises:
        ConfigurationError: it is neither 0 nor a number of seconds up to a day.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == 0:
            return float("inf")
        if 0 < value <= LONGEST_TIMEOUT:
            return float(value)
    quoted = QUOTED if isinstance(value, str) and is_quoted(value) else ""
    message = (
        f"{name} is a number of seconds above 0, at most {LONGEST_TIMEOUT:,.0f}, or 0 for no "
        f"limit, not {value!a:.50}.{quoted}"
    )
    raise ConfigurationError(message)


def number_of(text: str) -> float | str:
    """Return the number in a text, or the text as it is, for an error, if it holds none."""
    try:
        return float(text)
    except ValueError:
        return text


def is_quoted(text: str) -> bool:
    """Whether a value is in quotes, as a shell would take them away."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"


class Environment(Mapping[str, str]):
    """The environment, with a repr that shows no password: some tools show locals in tracebacks."""

    __slots__ = ()

    def __getitem__(self, name: str) -> str:
        return os.environ[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a variable; twice as fast as what `Mapping` inherits."""
        return os.environ.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(os.environ)

    def __len__(self) -> int:
        return len(os.environ)

    def __repr__(self) -> str:
        return "<environment>"


environment: Final = Environment()
"""The environment as backends get it."""
