"""What a checkpointer of LangGraph does, in steps that threads and coroutines can take."""

from __future__ import annotations

import base64
from contextlib import suppress
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from director_db_integrations.checkpoint_steps import (
    Pages,
    Row,
    Rows,
    Writes,
    all_checkpoints,
    delete_thread,
    find,
    messages_of,
    parent_of,
    store,
    threads,
)
from director_db_integrations.checkpoints import (
    CHANNEL,
    CHECKPOINT,
    NAMESPACE,
    WRITE,
    WRITES,
    NotPlainError,
    Place,
    is_small,
    is_text,
    plain_copy,
)
from director_db_integrations.extras import extra

with extra("langgraph"):
    from langgraph.checkpoint.base import (
        WRITES_IDX_MAP,
        CheckpointTuple,
        get_checkpoint_id,
        get_checkpoint_metadata,
        writes_sort_key,
    )
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from director_db_integrations.steps import Steps


class Operations:
    """The operations of a checkpointer with a serialisation."""

    def __init__(self, serde: SerializerProtocol) -> None:
        """Take the serialisation of values."""
        self.serde = serde

    def _dump(self, value: object) -> Row:
        if type(self.serde) is JsonPlusSerializer:
            with suppress(NotPlainError):
                return {"json": plain_copy(value)}
        kind, data = self.serde.dumps_typed(value)
        if is_text(data):
            return {"type": kind, "latin1": data.decode("latin-1")}
        return {"type": kind, "base64": base64.b64encode(data).decode()}

    def _load(self, stored: Row) -> Any:
        if "json" in stored:
            return stored["json"]
        text = stored.get("latin1")
        data = base64.b64decode(stored["base64"]) if text is None else text.encode("latin-1")
        return self.serde.loads_typed((stored["type"], data))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Steps:
        """Store a checkpoint, and return the config that names it."""
        place, parent, name = place_of(config), get_checkpoint_id(config), checkpoint["id"]
        values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        small = {c: v for c, v in values.items() if c not in versions or is_small(v)}
        messages = []
        if place.ns:
            key = place.key(NAMESPACE)
            messages.append(place.message(NAMESPACE, key, {"ns": place.ns}, if_absent=True))
        for channel in values.keys() - small.keys():
            if channel in new_versions or parent is None:
                key = place.channel(channel, versions[channel])
                value = self._dump(values[channel])
                messages.append(place.message(CHANNEL, key, {"channel": channel, "value": value}))
        content = {
            "id": name,
            "ns": place.ns,
            "parent": parent,
            "metadata": self._dump(get_checkpoint_metadata(config, metadata)),
            "checkpoint": self._dump({**checkpoint, "channel_values": small}),
            "channels": [channel for channel in values if channel not in small],
        }
        key = place.key(CHECKPOINT, name)
        messages.append(place.message(CHECKPOINT, key, content))
        yield from store(place, messages)
        return _config(place, name)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task: str,
        path: str,
    ) -> Steps:
        """Store what a task wrote."""
        place, checkpoint = place_of(config), _named(config)["checkpoint_id"]
        anchor = place.key(WRITES, checkpoint)
        messages = [
            place.message(
                WRITES, anchor, {"checkpoint": checkpoint}, conv_id=anchor, if_absent=True
            )
        ]
        for number, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, number)
            content = {"checkpoint": checkpoint, "task": task, "path": path, "index": index}
            content |= {"channel": channel, "value": self._dump(value)}
            key = place.key(WRITE, checkpoint, task, str(index))
            messages.append(
                place.message(
                    WRITE,
                    key,
                    content,
                    conv_id=anchor,
                    if_absent=index >= 0,
                )
            )
        yield from store(place, messages)

    def get_tuple(self, config: RunnableConfig) -> Steps:
        """Return the checkpoint that a config names, or the latest."""
        row = yield from find(place_of(config), get_checkpoint_id(config))
        if row is None:
            return None
        return (yield from self._tuples(place_of(config).thread, [row], Writes()))[0]

    def list_tuples(
        self,
        config: RunnableConfig | None,
        metadata: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Steps:
        """Return pages of checkpoints, the latest first."""
        wanted = _named(config) if config else {}
        name, bound = wanted.get("checkpoint_id"), get_checkpoint_id(before) if before else None
        named = "thread_id" in wanted
        for thread in [wanted["thread_id"]] if named else (yield from threads()):
            everywhere = "checkpoint_ns" not in wanted
            place = Place(str(thread), wanted.get("checkpoint_ns", ""))
            pages, writes = Pages(place, everywhere=everywhere), Writes()
            if name is None or everywhere:
                yield from pages.begin(bound)
            else:
                yield from pages.only(name, bound)
            while limit is None or limit > 0:
                narrow = name is None and metadata is None and limit is not None
                page = yield from pages.next(limit if narrow else None)
                if page is None:
                    break
                rows = [
                    row
                    for row in page
                    if name in {None, row["content"]["id"]} and self._matches(row, metadata)
                ][:limit]
                if rows:
                    yield (yield from self._tuples(place.thread, rows, writes))
                if limit is not None:
                    limit -= len(rows)
        return []

    def _matches(self, row: Row, metadata: dict[str, Any] | None) -> bool:
        if not metadata:
            return True
        found = self._load(row["content"]["metadata"])
        return all(found.get(key) == value for key, value in metadata.items())

    def _tuples(self, thread: str, rows: Rows, writes: Writes) -> Steps:
        opened = [(Place(thread, row["content"]["ns"]), row["content"]) for row in rows]
        checkpoints = [self._load(content["checkpoint"]) for _, content in opened]
        values = [
            _values(place, content, checkpoint)
            for (place, content), checkpoint in zip(opened, checkpoints, strict=True)
        ]
        anchors = [place.key(WRITES, content["id"]) for place, content in opened]
        keys = anchors + [key for channels in values for key in channels.values()]
        stored = yield from messages_of(Place(thread, ""), keys)
        yield from writes.read(Place(thread, ""), anchors, stored)
        result = []
        for (place, content), checkpoint, channels, anchor in zip(
            opened, checkpoints, values, anchors, strict=True
        ):
            for channel, key in channels.items():
                if key in stored:
                    value = self._load(stored[key]["content"]["value"])
                    checkpoint["channel_values"][channel] = value
            parent = content["parent"]
            result.append(
                CheckpointTuple(
                    _config(place, content["id"]),
                    checkpoint,
                    self._load(content["metadata"]),
                    _config(place, parent) if parent else None,
                    [
                        (write["task"], write["channel"], self._load(write["value"]))
                        for write in _sorted(writes.of.pop(anchor, {}))
                    ],
                )
            )
        return result

    def history(self, config: RunnableConfig, channels: Sequence[str]) -> Steps:
        """Return what delta channels are rebuilt from."""
        place = place_of(config)
        row = (yield from find(place, get_checkpoint_id(config))) if channels else None
        chain: Rows = []
        depths: dict[str, int] = {}
        seeds: dict[str, Any] = {}
        keys: dict[str, str] = {}
        known: dict[str, Row] = {}
        while row is not None and len(depths) < len(set(channels)):
            row = yield from parent_of(place, row, known)
            if row is None:
                break
            chain.append(row)
            checkpoint = self._load(row["content"]["checkpoint"])
            stored = _values(place, row["content"], checkpoint)
            for channel in set(channels) - depths.keys():
                if channel in checkpoint["channel_values"]:
                    seeds[channel] = checkpoint["channel_values"][channel]
                elif channel in stored:
                    keys[channel] = stored[channel]
                else:
                    continue
                depths[channel] = len(chain)
        anchors = [place.key(WRITES, row["content"]["id"]) for row in chain]
        messages = yield from messages_of(place, [*anchors, *keys.values()])
        writes = Writes()
        yield from writes.read(place, anchors, messages)
        for channel, key in keys.items():
            if key in messages:
                seeds[channel] = self._load(messages[key]["content"]["value"])
        return {
            channel: {
                "writes": [
                    (write["task"], channel, self._load(write["value"]))
                    for anchor in reversed(anchors[: depths.get(channel)])
                    for write in _sorted(writes.of.get(anchor, {}))
                    if write["channel"] == channel
                ]
            }
            | ({"seed": seeds[channel]} if channel in seeds else {})
            for channel in channels
        }

    def delete_for_runs(self, run_ids: Sequence[str]) -> Steps:
        """Delete the checkpoints of runs."""
        runs = set(run_ids)
        for thread in (yield from threads()) if runs else ():
            rows = yield from all_checkpoints(Place(thread, ""))
            of_runs = {
                row["msg_id"]
                for row in rows
                if self._load(row["content"]["metadata"]).get("run_id") in runs
            }
            yield from self._delete(thread, rows, of_runs)

    def prune(self, thread_ids: Sequence[str], strategy: str) -> Steps:
        """Delete all checkpoints but the latest and what they need, or all."""
        if strategy not in {"keep_latest", "delete"}:
            message = f"The strategy is 'keep_latest' or 'delete', not {strategy!r}."
            raise ValueError(message)
        for thread in thread_ids:
            if strategy == "delete":
                yield from delete_thread(thread)
                continue
            rows = yield from all_checkpoints(Place(str(thread), ""))
            latest: dict[str, Row] = {}
            for row in rows:
                latest.setdefault(row["content"]["ns"], row)
            kept = set()
            for row in latest.values():
                kept |= self._needed(Place(str(thread), row["content"]["ns"]), row, rows)
            yield from self._delete(str(thread), rows, {row["msg_id"] for row in rows} - kept)

    def _needed(self, place: Place, row: Row | None, rows: Rows) -> set[str]:
        """Return a checkpoint and the ancestors that its delta channels are rebuilt from."""
        assert row is not None  # noqa: S101
        known = {found["msg_id"]: found for found in rows}
        # LangGraph counts there what was written since a snapshot that is not in this checkpoint.
        metadata = self._load(row["content"]["metadata"])
        channels = set(metadata.get("counters_since_delta_snapshot") or ())
        needed = set()
        while row is not None:
            needed.add(row["msg_id"])
            checkpoint = self._load(row["content"]["checkpoint"])
            channels -= checkpoint["channel_values"].keys() | set(row["content"]["channels"])
            parent = row["content"]["parent"] if channels else None
            row = known.get(place.key(CHECKPOINT, parent)) if parent else None
        return needed

    def _delete(self, thread: str, rows: Rows, doomed: set[str]) -> Steps:
        """Delete some checkpoints of a thread, and what no others have.

        They go first, so that nobody sees one without its values. If somebody stores a checkpoint
        meanwhile, it shares values with its parent, which is one of `rows`.
        """
        anchors: list[str] = []
        values: set[str] = set()
        spared: set[str] = set()
        for row in rows:
            place, content = Place(thread, row["content"]["ns"]), row["content"]
            keys = _values(place, content, self._load(content["checkpoint"])).values()
            (values if row["msg_id"] in doomed else spared).update(keys)
            if row["msg_id"] in doomed:
                anchors.append(place.key(WRITES, content["id"]))
        place = Place(thread, "")
        stored = yield from messages_of(place, anchors)
        writes = Writes()
        yield from writes.read(place, anchors, stored)
        of_writes = [key for anchor in anchors for key in writes.of.get(anchor, ())]
        found = [anchor for anchor in anchors if anchor in stored]
        for key in [*doomed, *of_writes, *found, *sorted(values - spared)]:
            yield methodcaller("delete_message", place.session, key)


def place_of(config: RunnableConfig) -> Place:
    """Return where the checkpoint is that a config names."""
    named = _named(config)
    return Place(str(named["thread_id"]), named.get("checkpoint_ns", ""))


def _named(config: RunnableConfig) -> dict[str, Any]:
    # None is an error, as in LangGraph's own: without one, a list would be of all threads.
    named: dict[str, Any] = config["configurable"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
    return named


def _config(place: Place, checkpoint: str) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": place.thread,
            "checkpoint_ns": place.ns,
            "checkpoint_id": checkpoint,
        }
    }


def _values(place: Place, content: Row, checkpoint: Row) -> dict[str, str]:
    """Return the message of each channel whose value the checkpoint does not have in itself."""
    versions = checkpoint["channel_versions"]
    return {channel: place.channel(channel, versions[channel]) for channel in content["channels"]}


def _sorted(writes: Mapping[str, Row]) -> Rows:
    """Return writes of one checkpoint in the order in which LangGraph applies them."""
    contents = [write["content"] for write in writes.values()]
    return sorted(contents, key=lambda at: writes_sort_key(at["path"], at["task"], at["index"]))
