"""The demo as tables: what was stored, how it grew, and what was proven."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from director_db.cli.printable import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from director_db.cli.console import CommandConsole
    from director_db.cli.demo.play import Check, Page, Reopened, Step, Streamed
    from director_db.records import Health, Message

WIDTH: Final = 100
"""The widest that the demo makes use of, in columns."""

# What is shown of the two values of a failed check, in characters.
_BEFORE_DIFFERENCE: Final = 40
_LONGEST_VALUE: Final = 160

_USER: Final = "bold cyan"
_AGENT: Final = "bold magenta"
_KEY: Final = "cyan"
_GOOD: Final = "green"
_BAD: Final = "bold red"
_STATUS_STYLES: Final = {"progress": "yellow", "success": _GOOD, "error": _BAD}


def title(console: CommandConsole, health: Health) -> None:
    """Say where the demo plays."""
    console.print(Text.assemble(("director-db demo", "bold"), f"  {health.db_type} at"), end=" ")
    console.print(Text(visible(health.place), style=_KEY), soft_wrap=True)


def stream(console: CommandConsole, seen: Sequence[Streamed]) -> None:
    """Show one answer after each of its writes."""
    table = _table()
    for name in ("#", "Status", "Latest action", "Chars", "Place", "created_at", "updated_at"):
        table.add_column(
            name,
            justify="right" if name == "Chars" else "left",
            # The one that gives way where the terminal is narrow.
            no_wrap=name != "Latest action",
            overflow="fold",
        )
    for number, (message, place, total) in enumerate(seen, 1):
        if not message:
            table.add_row(str(number), Text("lost", style=_BAD))
            continue
        table.add_row(
            str(number),
            _status_text(message),
            Text(str(message["actions"][-1])),
            str(len(_text_of(message))),
            f"{place} of {total}",
            _clock(message["created_at"]),
            _clock(message["updated_at"]),
        )
    _print(console, "An answer streams: one message, written again and again", table)


def context(console: CommandConsole, grown: Sequence[tuple[int, list[str]]]) -> None:
    """Show what each turn of the model added to the context."""
    table = _table()
    table.add_column("Messages", justify="right")
    table.add_column("Added")
    for length, roles in grown:
        table.add_row(str(length), Text("  ".join(f"+ {role}" for role in roles)))
    _print(console, "The context grows: each turn appends what is new", table)


def conversation(console: CommandConsole, reopened: Reopened) -> None:
    """Show the conversation as it was read back, and by whom."""
    if reopened.reader is None:
        reader = "read back by this process"
    else:
        reader = f"written by process {os.getpid()}, read back by process {reopened.reader}"
    chat = Table.grid(padding=(0, 2), expand=True)
    chat.add_column(no_wrap=True)
    chat.add_column(ratio=1)
    chat.add_column(no_wrap=True, justify="right")
    for number, message in enumerate(reopened.conversation):
        if number and message["msg_type"] == "input":
            chat.add_row()
        _add_message(console, chat, message)
    console.print()
    console.print(
        Panel(
            chat,
            title=Text(f"session {reopened.session_id}", style="bold"),
            subtitle=Text(reader),
            title_align="left",
            subtitle_align="right",
            box=box.ROUNDED,
            padding=(0, 1),
        )
    )


def pages(console: CommandConsole, read: Sequence[Page]) -> None:
    """Show which messages each page held."""
    table = _table()
    table.add_column("get_conversations(...)", no_wrap=True)
    table.add_column("Messages")
    for page in read:
        table.add_row(Text(page.asked), Text("  ".join(page.msg_ids)))
    _print(console, "Pages: the last first, then further back; or what is new", table)


def farewell(console: CommandConsole, steps: Sequence[Step]) -> None:
    """Show what the deletion and the calls after it gave."""
    table = _table()
    table.add_column("Call", no_wrap=True)
    table.add_column("Outcome")
    for call, outcome in steps:
        table.add_row(Text(call), Text(outcome))
    _print(console, "The session is deleted, and a worker comes late", table)


def checks(console: CommandConsole, done: Sequence[Check]) -> None:
    """Show what was proven, and what came instead where it was not."""
    marks = console.marks
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True)
    for check in done:
        rule = Text(check.rule, style=_KEY)
        if check.skipped:
            claim = f"{check.claim}: not shown, {check.skipped}"
            table.add_row(Text(marks.skipped, style="yellow"), Text(claim), rule)
        elif check.passed:
            table.add_row(Text(marks.passed, style=_GOOD), Text(check.claim), rule)
        else:
            table.add_row(Text(marks.failed, style=_BAD), Text(check.claim, style=_BAD), rule)
            for name, value in zip(("expected", "actual"), _difference(check), strict=True):
                table.add_row("", Text(f"{name:8} {value}"))
    failed = sum(not check.passed for check in done)
    skipped = sum(bool(check.skipped) for check in done)
    passed = len(done) - failed - skipped
    if failed:
        verdict = Text(f"{failed} of {len(done)} checks FAILED", style=_BAD)
    else:
        verdict = Text(f"{passed} checks passed", style=f"bold {_GOOD}")
        if skipped:
            verdict.append(f", {skipped} not shown", style="bold yellow")
    panel = Panel(
        table,
        title=Text("What was proven", style="bold"),
        subtitle=verdict,
        title_align="left",
        subtitle_align="right",
        box=box.ROUNDED,
        padding=(0, 1),
    )
    console.print()
    console.print(panel)


# --- Parts --------------------------------------------------------------------------------------


def _table() -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        header_style=_KEY,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _print(console: CommandConsole, heading: str, table: Table) -> None:
    console.print()
    console.print(Text(heading, style="bold"))
    console.print(table)


def _add_message(console: CommandConsole, chat: Table, message: Message) -> None:
    if message["msg_type"] == "input":
        chat.add_row(Text("You", style=_USER), Text(_text_of(message)), _clock_text(message))
        return
    name = Text("Agent", style=_AGENT)
    chat.add_row(name, Text(", ".join(message["agents"]), style="italic"), _clock_text(message))
    for action in message["actions"]:
        chat.add_row("", Text(f"{console.marks.step} {action}", style="yellow"))
    chat.add_row("", Text(_text_of(message)), _status_text(message))
    for part in message["content"]:
        if part["type"] == "video":
            video = part["video"]
            seconds = f"{video['start']:g} s to {video['end']:g} s"
            chat.add_row("", Text(f"[video {video['name']}, {seconds}]", style=_KEY))


def _status_text(message: Message | dict[str, Any]) -> Text:
    status = message["status"] or ""
    return Text(status, style=_STATUS_STYLES.get(status, ""))


def _clock_text(message: Message | dict[str, Any]) -> Text:
    return Text(_clock(message["updated_at"]), style=_KEY)


def _text_of(message: Message | dict[str, Any]) -> str:
    return "\n".join(part["text"] for part in message["content"] if part["type"] == "text")


def _clock(seconds: int) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


def _difference(check: Check) -> tuple[str, str]:
    """Return both values from a little before the first difference on, and not without end."""
    texts = ascii(check.expected), ascii(check.actual)
    pairs = enumerate(zip(*texts, strict=False))
    same = next((index for index, (one, other) in pairs if one != other), min(map(len, texts)))
    start = max(0, same - _BEFORE_DIFFERENCE)
    expected, actual = (
        ("..." if start else "") + text[start : start + _LONGEST_VALUE] for text in texts
    )
    return expected, actual
