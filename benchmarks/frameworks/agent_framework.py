"""History providers of Microsoft's Agent Framework: one for all sessions."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_framework import FileHistoryProvider, Message

from benchmarks.frameworks.sessions import Sessions, copy_in
from benchmarks.payloads import context_message
from director_db_integrations.agent_framework import DirectorHistoryProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from director_db import BaseDB


class _Histories(Sessions):
    async def add(self, session: Any, numbers: Sequence[int]) -> None:
        provider, name = session
        said = [context_message(each) for each in numbers]
        await provider.save_messages(
            name, [Message(each["role"], [each["content"]]) for each in said]
        )

    async def read(self, session: Any) -> Sequence[Any]:
        provider, name = session
        messages: Sequence[Any] = await provider.get_messages(name)
        return messages


@contextlib.asynccontextmanager
async def ours(db: BaseDB) -> AsyncIterator[Sessions]:
    """Give histories in our database."""
    provider = DirectorHistoryProvider(db=db)
    yield _Histories(lambda name: (provider, name), copy_in(db))


@contextlib.asynccontextmanager
async def file_history_provider(place: str) -> AsyncIterator[Sessions]:
    """Give histories of ``FileHistoryProvider``, a file for each session."""
    folder = Path(f"{place}.files")
    provider = FileHistoryProvider(folder)

    async def copy(name: str, others: Sequence[str]) -> None:
        await asyncio.to_thread(copy_all, name, others)

    def copy_all(name: str, others: Sequence[str]) -> None:
        (file,) = folder.glob(f"{name}.*")
        for other in others:
            shutil.copy(file, file.with_stem(other))

    try:
        yield _Histories(lambda name: (provider, name), copy)
    finally:
        shutil.rmtree(folder)
