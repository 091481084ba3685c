"""The demo from its first step to its last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director_db.cli.demo import show
from director_db.cli.demo.play import Play

if TYPE_CHECKING:
    from director_db.base import BaseDB
    from director_db.cli.console import CommandConsole


def run(db: BaseDB, db_type_or_url: str | None, console: CommandConsole) -> bool:
    """Play the demo, show it, and say whether every check passed.

    It works in two sessions of its own under fresh random ids, and removes them at the end, also
    after an error or an interrupt.

    Args:
        db: the database.
        db_type_or_url: what `load_db` was given to get it; the second process gets the same.
        console: where to show it.

    Raises:
        DirectorDBError: the database cannot be used.
    """
    health = db.health()  # What keeps everything from working is told before anything is stored.
    show.title(console, health)
    with Play(db, db_type_or_url) as play:
        play.create_sessions()
        show.stream(console, play.stream_answer())
        play.go_on()
        grown = play.grow_context()
        show.conversation(console, play.reopen())
        show.context(console, grown)
        show.pages(console, play.page())
        show.farewell(console, play.delete())
    show.checks(console, play.checks)
    return all(check.passed for check in play.checks)
