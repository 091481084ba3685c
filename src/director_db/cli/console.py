"""How the command writes: for a terminal, a pipe, a dumb or an ASCII-only one.

Imported by what is about to print tables, not before: rich takes longer to import than the rest of
the command together.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from rich.console import Console

if TYPE_CHECKING:
    from rich.console import RenderableType

MIN_WIDTH: Final = 60
"""The narrowest that tables are made for, in columns; what is narrower folds their lines."""

_UNKNOWN_WIDTH: Final = 80
_ENDLESS: Final = 10_000


class Marks(NamedTuple):
    """The signs that stand before a line."""

    passed: str
    failed: str
    skipped: str
    step: str


_MARKS: Final = Marks("✓", "✗", "○", "▸")
_ASCII_MARKS: Final = Marks("ok", "FAILED", "--", ">")


class CommandConsole(Console):
    """Standard output, without colours where NO_COLOR is set or nobody would see them.

    Nothing in what is printed is taken for markup: paths and messages are data.
    """

    def __init__(self, max_width: int | None = None) -> None:
        """Measure the terminal; no wider than `max_width` columns if that is given."""
        width = shutil.get_terminal_size((_UNKNOWN_WIDTH, 24)).columns
        if width < MIN_WIDTH:
            width = _UNKNOWN_WIDTH if width <= 1 else MIN_WIDTH
        super().__init__(
            width=width if max_width is None else min(width, max_width),
            # NO_COLOR alone would leave bold and dim, and with them the escape codes.
            color_system=None if os.environ.get("NO_COLOR") else "auto",
            markup=False,
            emoji=False,
            highlight=False,
        )

    @property
    def marks(self) -> Marks:
        """The signs that this console can show."""
        return _ASCII_MARKS if self.options.ascii_only else _MARKS

    def fits(self, renderable: RenderableType) -> bool:
        """Say whether something can be shown without folding any of its lines."""
        return self._natural_width(renderable) <= self.width

    def print_whole(self, renderable: RenderableType) -> None:
        """Print without folding: a path that is broken in two can be neither copied nor found."""
        width = self.width
        self.width = max(width, self._natural_width(renderable))
        try:
            self.print(renderable, crop=False)
        finally:
            self.width = width

    def on_broken_pipe(self) -> NoReturn:
        """Tell the caller that nobody reads any more; rich itself would exit with status 1."""
        raise BrokenPipeError

    def _natural_width(self, renderable: RenderableType) -> int:
        options = self.options.update(width=_ENDLESS)
        return self.measure(renderable, options=options).maximum
