"""The settings that a backend finds in the environment, and where each comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

DEFAULT: Final = "default"
"""The origin of a setting that nobody made."""


class Settings(dict[str, "Hashable"]):
    """The constructor's keyword arguments, as `BaseDB._settings` returns them.

    A plain dict will do. With this one ``health()`` tells an operator where each setting comes
    from, and what was ignored. Neither counts when `load_db` asks whether settings are equal.

    Attributes:
        origins: the name of each setting, and the variable that it comes from, or `DEFAULT`.
        ignored: a sentence for each variable that is set and has no effect; no passwords.
    """

    __slots__ = ("ignored", "origins")

    def __init__(
        self,
        arguments: Mapping[str, Hashable],
        origins: Mapping[str, str],
        ignored: tuple[str, ...] = (),
    ) -> None:
        """Take the arguments, and what is known of them."""
        super().__init__(arguments)
        self.origins = origins
        self.ignored = ignored
