"""Checkpoints of LangGraph: ``builder.compile(checkpointer=DirectorSaver())``."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, cast

from director_db_integrations.checkpoint_operations import Operations
from director_db_integrations.checkpoint_steps import copy_thread, delete_thread
from director_db_integrations.database import async_database
from director_db_integrations.extras import extra
from director_db_integrations.steps import async_parts, atake, parts, take

with extra("langgraph"):
    from langgraph.checkpoint.base import BaseCheckpointSaver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from director_db import BaseDB
    from director_db.asyncio import AsyncDB
    from director_db_integrations.steps import Steps

__all__ = ["DirectorSaver"]


class DirectorSaver(BaseCheckpointSaver[str]):
    """A checkpointer that stores a thread as a session of director-db.

    Checkpoints, their writes and the values of channels are its messages. A checkpoint has a
    message of its own, and one for each channel that has changed and is not small; what did not
    change is not stored again. `put` and `put_writes` store all or nothing, in one round trip.

    The latest checkpoint is the one that was stored last, which is also the one with the highest
    id, where the clocks of all machines agree. Any number of savers, in any number of threads,
    processes and event loops, may be used for one thread; the asynchronous methods never block
    their loop for the database.
    """

    def __init__(
        self, db: AsyncDB | BaseDB | None = None, *, serde: SerializerProtocol | None = None
    ) -> None:
        """Take a database. Nothing is read or stored before the first call.

        Args:
            db: where checkpoints are, of `director_db.asyncio` or not; None is what ``DB_TYPE``
                names. It is not closed here.
            serde: LangGraph's serialisation. With its default, what JSON holds exactly is stored as
                JSON; with another, all that a graph stores goes through it. It is called in several
                threads at once.
        """
        super().__init__(serde=serde)
        self._db = async_database(db)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the latest; None if there is none."""
        return cast("CheckpointTuple | None", self._run(self._operations.get_tuple(config)))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do the same as `get_tuple`."""
        return cast("CheckpointTuple | None", await self._arun(self._operations.get_tuple(config)))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, the latest first, reading them as they are asked for.

        Args:
            config: the thread, and in it the namespace and the checkpoint, where it names them;
                None is all threads, one after another.
            filter: the metadata has these values.
            before: those that were stored before this checkpoint; those with lower ids, if it is
                not in the namespace or `config` names none.
            limit: the most to yield.
        """
        for page in parts(
            self._db.sync_db, self._operations.list_tuples(config, filter, before, limit)
        ):
            yield from page

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Do the same as `list`."""
        async for page in async_parts(
            self._db, self._operations.list_tuples(config, filter, before, limit)
        ):
            for found in page:
                yield found

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint whose parent `config` names, and return the config that names it.

        Raises:
            InvalidRecordError: a value is larger than a payload may be (VAL-6).
        """
        steps = self._operations.put(config, checkpoint, metadata, new_versions)
        return cast("RunnableConfig", self._run(steps))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do the same as `put`."""
        steps = self._operations.put(config, checkpoint, metadata, new_versions)
        return cast("RunnableConfig", await self._arun(steps))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task wrote on the checkpoint that `config` names, once for each place in it.

        Errors, interrupts and the like replace what is stored of them.

        Raises:
            InvalidRecordError: a value is larger than a payload may be (VAL-6).
        """
        self._run(self._operations.put_writes(config, writes, task_id, task_path))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Do the same as `put_writes`."""
        await self._arun(self._operations.put_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Delete the thread's session, with all that it has."""
        self._run(delete_thread(thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        """Do the same as `delete_thread`."""
        await self._arun(delete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs, with their writes; all sessions are looked through.

        As LangGraph warns, a `DeltaChannel` cannot be rebuilt without the checkpoints between.
        """
        self._run(self._operations.delete_for_runs(run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do the same as `delete_for_runs`."""
        await self._arun(self._operations.delete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy the thread's session, all of it or nothing; a thread that is not there has none.

        Raises:
            SessionExistsError: the target has a session.
        """
        self._run(copy_thread(source_thread_id, target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do the same as `copy_thread`."""
        await self._arun(copy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads, with their writes and what only they have of channels.

        Args:
            thread_ids: the threads.
            strategy: ``"keep_latest"`` keeps the latest checkpoint of each namespace, and of its
                ancestors those that its delta channels are rebuilt from; ``"delete"`` keeps none.

        Raises:
            ValueError: the strategy is another one.
        """
        self._run(self._operations.prune(thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do the same as `prune`."""
        await self._arun(self._operations.prune(thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what delta channels are rebuilt from: a seed, and the writes since, oldest first.

        It takes two round trips for each 100 ancestors and two more, not some for each ancestor.
        """
        history = self._run(self._operations.history(config, channels))
        return cast("Mapping[str, DeltaChannelHistory]", history)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Do the same as `get_delta_channel_history`."""
        history = await self._arun(self._operations.history(config, channels))
        return cast("Mapping[str, DeltaChannelHistory]", history)

    def get_next_version(self, current: str | int | None, channel: None = None) -> str:
        """Return a version above `current` that no fork of the thread gives another value."""
        del channel
        number = int(str(current).partition(".")[0]) if current is not None else 0
        return f"{number + 1:020}.{secrets.token_hex(8)}"

    @property
    def _operations(self) -> Operations:
        return Operations(self.serde)  # LangGraph makes clones with another one.

    def _run(self, steps: Steps) -> Any:
        return take(self._db.sync_db, steps)

    async def _arun(self, steps: Steps) -> Any:
        return await atake(self._db, steps)
