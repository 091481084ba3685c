"""The contract once more, as plain Python in memory: what the machine compares a backend with.

It shares no code with director-db but its errors, so that it does not share its mistakes either.
What other clauses show and drawn calls cannot, such as bounds of many MiB, is left out.

Each method says how its operation is called, for all tests that go through the operations.
"""

from __future__ import annotations

import copy
import json
import math
from hashlib import sha256
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

from director_db import (
    UNSET,
    ConflictError,
    DeleteResult,
    InvalidRecordError,
    SessionExistsError,
    SessionNotFoundError,
)
from director_db_conformance import strategies as draw
from director_db_conformance.operations import DECLARED, operation

Record = dict[str, Any]

ANY_PATH: Final = ""
"""The path of a refusal that the contract does not name."""

_LONGEST: Final = 255
_SURROGATES: Final = range(0xD800, 0xE000)
_S1: Final[Record] = {"session_id": "s1"}
_NOBODY: Final[Record] = {"session_id": ""}


class Moment(NamedTuple):
    """A time that is known only to lie within two: the call began and ended in other seconds."""

    first: int
    last: int


class Model:
    """Sessions, messages and contexts in dicts. The methods are those of `BaseDB`."""

    def __init__(self) -> None:
        """Start empty."""
        self.now: int | Moment = 0
        self.sessions: dict[str, Record] = {}
        self.messages: dict[str, dict[str, Record]] = {}
        self.contexts: dict[str, Record] = {}
        self.saves = 0

    def records(self, session_id: Any) -> list[Record]:
        """Return the records of a session themselves: it, its messages in order, its context."""
        if not self._has(session_id):
            return []
        context = self.contexts.get(session_id)
        return [
            self.sessions[session_id],
            *self.messages[session_id].values(),
            *([] if context is None else [context]),
        ]

    # --- Sessions -------------------------------------------------------------------------------

    @operation(
        "SES-1",
        example=_S1,
        refused=_NOBODY,
        changes="session",
        weight=2,
        drawn=draw.some(
            video_id=draw.labels,
            collection_id=draw.labels,
            user_id=draw.labels,
            connection=st.just(object),
            **draw.record_fields,
        ),
    )
    def create_session(
        self,
        session_id: Any,
        video_id: Any = None,
        collection_id: Any = None,
        created_at: Any = None,
        updated_at: Any = None,
        metadata: Any = None,
        user_id: Any = None,
        **_ignored: object,
    ) -> bool:
        """Keep SES-1 and SES-2."""
        session = {
            "session_id": _required(session_id, "session_id"),
            "video_id": _optional(video_id, "video_id"),
            "collection_id": _optional(collection_id, "collection_id"),
            "created_at": self._time(created_at, "created_at"),
            "updated_at": self._time(updated_at, "updated_at"),
            "metadata": _metadata(metadata),
            "user_id": _optional(user_id, "user_id"),
        }
        if session_id in self.sessions:
            return False
        self.sessions[session_id] = session
        self.messages[session_id] = {}
        return True

    @operation("SES-3", example=_S1, refused={"session_id": 5})
    def get_session(self, session_id: Any) -> Record:
        """Keep SES-3."""
        return self._session_record(self.sessions[session_id]) if self._has(session_id) else {}

    @operation(
        "SES-4",
        example={},
        refused={"limit": 0},
        refusals=draw.REFUSED_LIMITS,
        weight=2,
        drawn=st.one_of(
            draw.some(limit=draw.limits, before=st.just(draw.CURSOR)),
            draw.some(
                limit=draw.limits,
                before=st.just(draw.CURSOR),
                video_id=draw.known_ids,
                collection_id=draw.one_of([0, 1, ""]),
            ),
            draw.some(
                limit=draw.limits,
                before=st.just(draw.CURSOR),
                user_id=draw.one_of([0, 1, 2, ""]),
                video_id=draw.known_ids,
            ),
        ),
    )
    def get_sessions(
        self,
        *,
        limit: Any = None,
        before: Any = None,
        video_id: Any = None,
        collection_id: Any = None,
        user_id: Any = None,
    ) -> list[Record]:
        """Keep SES-4."""
        most = _limit(limit)
        found = sorted(self.sessions.values(), key=_activity, reverse=True)
        if before is not None:
            found = [session for session in found if _activity(session) < _activity(before)]
        for name, wanted in (
            ("video_id", video_id),
            ("collection_id", collection_id),
            ("user_id", user_id),
        ):
            if wanted is not None:
                found = [session for session in found if session[name] == wanted]
        return [self._session_record(session) for session in found[:most]]

    @operation(
        "SES-5",
        example=_S1,
        refused={"session_id": None},
        changes="session",
        needs_session="SES-5",
        weight=2,
        drawn=draw.some(
            video_id=draw.labels,
            collection_id=draw.labels,
            user_id=draw.labels,
            metadata=st.one_of(draw.payloads, draw.patches),
            updated_at=draw.times,
            merge=draw.one_of([False, True, True]),
            if_version=draw.versions,
        ),
    )
    def update_session(
        self,
        session_id: Any,
        *,
        updated_at: Any = None,
        merge: Any = False,
        if_version: Any = UNSET,
        **changes: Any,
    ) -> None:
        """Keep SES-5 and SES-8."""
        for name in ("video_id", "collection_id", "user_id"):
            if name in changes:
                changes[name] = _optional(changes[name], name)
        patch = changes.get("metadata")
        if "metadata" in changes:
            changes["metadata"] = _metadata(patch)
        changes["updated_at"] = self._time(updated_at, "updated_at")
        _required(session_id, "session_id")
        _version(if_version)
        if type(merge) is not bool:
            raise InvalidRecordError("merge", "no bool")
        session = self._session(session_id)
        version = _version_of(session)
        if if_version not in {UNSET, version}:
            raise ConflictError(session_id, "session", version)
        if merge and patch is not None:
            changes["metadata"] = _merged(session["metadata"], changes["metadata"])
        session.update(changes)

    @operation(
        "SES-9",
        example={**_S1, "to": "s2"},
        refused={"to": ""},
        changes="session",
        needs_session="SES-9",
        refusals={"to": ["", "a\0", None, 5.0], "until": ["", "x" * 256, 5.0]},
        weight=2,
        drawn=draw.fields({"to": draw.known_ids}, optional={"until": draw.known_ids}),
    )
    def copy_session(self, session_id: Any, to: Any, *, until: Any = None) -> int:
        """Keep SES-9."""
        _required(session_id, "session_id")
        _required(to, "to")
        if until is not None:
            _required(until, "until")
        session = self._session(session_id)
        messages = [*self.messages[session_id].values()]
        ids = [message["msg_id"] for message in messages]
        if until is not None and until not in ids:
            raise InvalidRecordError("until", "unknown")
        if to in self.sessions:
            raise SessionExistsError(to)
        self.sessions[to] = copy.deepcopy(session) | {
            "session_id": to,
            "created_at": self.now,
            "updated_at": self.now,
        }
        if until is not None:
            messages = messages[: ids.index(until) + 1]
        elif session_id in self.contexts:
            self.contexts[to] = copy.deepcopy(self.contexts[session_id]) | {"session_id": to}
        self.messages[to] = {
            message["msg_id"]: copy.deepcopy(message) | {"session_id": to} for message in messages
        }
        return len(messages)

    @operation("DEL-2", example=_S1, refused=_NOBODY, changes="session")
    def delete_session(self, session_id: Any) -> DeleteResult:
        """Keep DEL-2."""
        failed = []
        if not self.delete_conversation(session_id):
            failed.append("conversation")
        if not self.delete_context(session_id):
            failed.append("context")
        if not self._has(session_id):
            failed.append("session")
        else:
            del self.sessions[session_id], self.messages[session_id]
        return DeleteResult(failed != ["conversation", "context", "session"], failed)

    # --- Messages -------------------------------------------------------------------------------

    @operation(
        "MSG-1",
        example=_S1 | draw.MESSAGE,
        refused={"content": object()},
        changes="parts",
        needs_session="MSG-5",
        weight=6,
        drawn=draw.messages,
    )
    def add_or_update_msg_to_conv(
        self,
        session_id: Any,
        conv_id: Any,
        msg_id: Any,
        msg_type: Any,
        agents: Any,
        actions: Any,
        content: Any,
        status: Any = None,
        created_at: Any = None,
        updated_at: Any = None,
        metadata: Any = None,
        *,
        revision: Any = None,
        if_absent: Any = False,
        path: str = "",
        **_ignored: object,
    ) -> bool:
        """Keep MSG-1 to MSG-5, and MSG-11."""
        message = {
            "session_id": _required(session_id, "session_id"),
            "conv_id": _optional(conv_id, f"{path}conv_id"),
            "msg_id": _required(msg_id, f"{path}msg_id"),
            "msg_type": _text(msg_type, f"{path}msg_type"),
            "agents": plain(agents, f"{path}agents"),
            "actions": plain(actions, f"{path}actions"),
            "content": plain(content, f"{path}content"),
            "status": _optional(status, f"{path}status"),
            "created_at": self._time(created_at, f"{path}created_at"),
            "updated_at": self._time(updated_at, f"{path}updated_at"),
            "metadata": _metadata(metadata, f"{path}metadata"),
            "revision": _revision(revision, f"{path}revision"),
        }
        if type(if_absent) is not bool:
            raise InvalidRecordError(f"{path}if_absent", "no bool")
        self._session(session_id)
        known = self.messages[session_id].get(msg_id)
        if known is not None:
            stored = known["revision"]
            if if_absent or (revision is not None and stored is not None and revision <= stored):
                return False
            if created_at is None:
                message["created_at"] = known["created_at"]
            if revision is None:
                message["revision"] = stored
        self._touch(session_id, message["updated_at"])
        # A dict keeps the place of a key that is set again.
        self.messages[session_id][msg_id] = message
        return True

    @operation(
        "MSG-7",
        example={**_S1, "messages": []},
        refused={"messages": None},
        refusals={"messages": draw.REFUSED_MESSAGES},
        changes="parts",
        needs_session="MSG-5",
        weight=3,
        drawn=st.builds(dict, messages=st.lists(draw.messages, max_size=5)),
    )
    def add_or_update_msgs_to_conv(self, session_id: Any, messages: Any) -> list[bool]:
        """Keep MSG-7."""
        # All or none: the calls are made on a copy, and take effect together.
        trial = copy.deepcopy(self)
        # A stand-in, since arguments are checked before the session is looked for.
        trial.create_session(session_id)
        answers = []
        for index, message in enumerate(messages):
            own = {key: message[key] for key in message if key != "session_id"}
            path = f"messages[{index}]."
            answers.append(trial.add_or_update_msg_to_conv(session_id, **own, path=path))
        self._session(session_id)
        self.sessions, self.messages = trial.sessions, trial.messages
        return answers

    @operation(
        "MSG-6",
        example=_S1,
        refused=_NOBODY,
        refusals=draw.REFUSED_LIMITS,
        weight=4,
        drawn=st.one_of(
            draw.some(limit=draw.limits),
            draw.fields({"after": draw.ids}, optional={"limit": draw.limits}),
            draw.fields({"before": draw.ids}, optional={"limit": draw.limits}),
            st.just({"before": 1, "after": 0}),
            draw.some(limit=draw.limits, **draw.part),
            draw.some(after=draw.ids, limit=draw.limits, **draw.part),
            draw.some(before=draw.ids, limit=draw.limits, **draw.part),
        ),
    )
    def get_conversations(
        self,
        session_id: Any,
        *,
        limit: Any = None,
        before: Any = None,
        after: Any = None,
        conv_id: Any = None,
        msg_type: Any = None,
    ) -> list[Record]:
        """Keep MSG-6."""
        if not self._has(session_id):
            return []
        most = _limit(limit)
        if before is not None and after is not None:
            raise InvalidRecordError(ANY_PATH, "both")
        found = copy.deepcopy(list(self.messages[session_id].values()))
        ids = [message["msg_id"] for message in found]
        for name, cursor in (("before", before), ("after", after)):
            if cursor is not None and cursor not in ids:
                raise InvalidRecordError(name, "unknown")
        if after is not None:
            found = found[ids.index(after) + 1 :]
        if before is not None:
            found = found[: ids.index(before)]
        for name, wanted in (("conv_id", conv_id), ("msg_type", msg_type)):
            if wanted is not None:
                found = [message for message in found if message[name] == wanted]
        if most is None:
            return found
        return found[-most:] if after is None else found[:most]

    @operation(
        "MSG-9",
        example={**_S1, "msg_id": "m"},
        refused={"session_id": "", "msg_id": ""},
        weight=2,
        drawn=st.builds(dict, msg_id=draw.ids),
    )
    def get_message(self, session_id: Any, msg_id: Any) -> Record:
        """Keep MSG-9."""
        there = self._has_message(session_id, msg_id)
        return copy.deepcopy(self.messages[session_id][msg_id]) if there else {}

    @operation(
        "MSG-12",
        example={**_S1, "ids": ["m"]},
        refused={"session_id": "", "ids": [""]},
        refusals={"ids": [None, "m", {"m": 1}]},
        weight=2,
        drawn=st.builds(dict, ids=st.lists(draw.ids, max_size=5)),
    )
    def get_messages(self, session_id: Any, ids: Any) -> list[Record]:
        """Keep MSG-12."""
        if not self._has(session_id):
            return []
        if not isinstance(ids, list):
            raise InvalidRecordError("ids", "no list")
        known = self.messages[session_id].values()
        return copy.deepcopy([message for message in known if message["msg_id"] in ids])

    @operation(
        "MSG-9",
        example={**_S1, "msg_id": "m"},
        refused={"session_id": "", "msg_id": ""},
        changes="parts",
        weight=2,
        drawn=st.builds(dict, msg_id=draw.ids),
    )
    def delete_message(self, session_id: Any, msg_id: Any) -> bool:
        """Keep MSG-9."""
        there = self._has_message(session_id, msg_id)
        if there:
            del self.messages[session_id][msg_id]
        return there

    @operation(
        "MSG-13",
        example=_S1,
        refused=_NOBODY,
        changes="parts",
        weight=2,
        drawn=draw.some(conv_id=draw.labels),
    )
    def pop_message(self, session_id: Any, *, conv_id: Any = None) -> Record | None:
        """Keep MSG-13."""
        found = self.get_conversations(session_id)
        found = [message for message in found if conv_id is None or message["conv_id"] == conv_id]
        return self.messages[session_id].pop(found[-1]["msg_id"]) if found else None

    @operation(
        "MSG-14",
        example={**_S1, "messages": []},
        refused={"messages": None},
        refusals={"messages": draw.REFUSED_MESSAGES},
        changes="parts",
        needs_session="MSG-5",
        weight=2,
        drawn=st.builds(dict, messages=st.lists(draw.messages, max_size=5)),
    )
    def replace_conversation(self, session_id: Any, messages: Any) -> int:
        """Keep MSG-14."""
        known = self.messages.get(session_id, {}) if self._has(session_id) else {}
        placed: dict[str, Record] = {}
        for index, message in enumerate(messages):
            # Where nothing else is, so that nothing is held back.
            alone = Model()
            alone.now = self.now
            alone.create_session(session_id)
            own = {key: message[key] for key in message if key != "session_id"}
            alone.add_or_update_msg_to_conv(session_id, **own, path=f"messages[{index}].")
            (new,) = alone.messages[session_id].values()
            before = placed.get(new["msg_id"]) or known.get(new["msg_id"])
            if before is not None and message.get("created_at") is None:
                new["created_at"] = before["created_at"]
            if before is not None and new["revision"] is None:
                new["revision"] = before["revision"]
            placed[new["msg_id"]] = new
        self._session(session_id)
        for new in placed.values():
            self._touch(session_id, new["updated_at"])
        self.messages[session_id] = placed
        return len(placed)

    @operation("DEL-1", example=_S1, refused=_NOBODY, changes="parts")
    def delete_conversation(self, session_id: Any) -> bool:
        """Keep DEL-1."""
        there = self._has(session_id) and bool(self.messages[session_id])
        if there:
            self.messages[session_id] = {}
        return there

    @operation(
        "DEL-4",
        example={**_S1, "msg_id": "m"},
        refused=_NOBODY,
        changes="parts",
        weight=2,
        drawn=st.builds(dict, msg_id=draw.ids),
    )
    def delete_messages_after(self, session_id: Any, msg_id: Any) -> int:
        """Keep DEL-4."""
        if not self._has(session_id):
            return 0
        if not self._has_message(session_id, msg_id):
            raise InvalidRecordError("msg_id", "unknown")
        behind = [*self.messages[session_id]]
        behind = behind[behind.index(msg_id) + 1 :]
        for name in behind:
            del self.messages[session_id][name]
        return len(behind)

    # --- Context --------------------------------------------------------------------------------

    @operation(
        "CTX-1",
        example={**_S1, "context_messages": []},
        refused={"context_messages": object()},
        changes="parts",
        needs_session="CTX-1",
        weight=2,
        drawn=draw.fields(
            {"context_messages": draw.contexts, "updated_at": draw.times},
            optional={
                "created_at": draw.times,
                "metadata": draw.payloads,
                "if_version": draw.versions,
            },
        ),
    )
    def add_or_update_context_msg(
        self,
        session_id: Any,
        context_messages: Any,
        created_at: Any = None,
        updated_at: Any = None,
        metadata: Any = None,
        *,
        if_version: Any = UNSET,
        **_ignored: object,
    ) -> str:
        """Keep CTX-1 and CTX-5."""
        _required(session_id, "session_id")
        _version(if_version)
        context = {
            "session_id": session_id,
            "context": plain(context_messages, "context_messages"),
            "created_at": self._time(created_at, "created_at"),
            "updated_at": self._time(updated_at, "updated_at"),
            "metadata": _metadata(metadata),
        }
        self._session(session_id)
        known = self.contexts.get(session_id, {})
        if if_version not in {UNSET, known.get("version")}:
            raise ConflictError(session_id, "context", known.get("version"))
        self._touch(session_id, context["updated_at"])
        if created_at is None and known:
            context["created_at"] = known["created_at"]
        self.saves += 1
        context["version"] = f"save {self.saves}"
        self.contexts[session_id] = context
        return str(context["version"])

    @operation(
        "CTX-4",
        example={**_S1, "messages": []},
        refused={"messages": None},
        refusals={"messages": [[0, bad] for bad in draw.REFUSED_PAYLOADS]},
        changes="parts",
        needs_session="CTX-4",
        weight=3,
        drawn=st.one_of(
            draw.fields({"messages": draw.items}, optional={"key": draw.keys}),
            draw.fields({"messages": draw.items, "key": st.none()}, {}),
        ),
    )
    def append_context_messages(
        self, session_id: Any, messages: Any, *, key: Any = "reasoning"
    ) -> int:
        """Keep CTX-4."""
        _required(session_id, "session_id")
        items = plain(messages, "messages")
        if key is not None and not isinstance(key, str):
            raise InvalidRecordError("key", "no str")
        self._session(session_id)
        empty: Any = [] if key is None else {}
        known = self.contexts.get(session_id, {"context": empty, "metadata": {}})
        context = copy.deepcopy(known["context"])
        whole = context
        if key is not None and isinstance(context, dict):
            whole = context.setdefault(key, [])
        if type(context) is not type(empty) or not isinstance(whole, list):
            raise InvalidRecordError(ANY_PATH, "no list")
        whole += items
        self.add_or_update_context_msg(session_id, context, metadata=known["metadata"])
        return len(whole)

    @operation("CTX-2", example=_S1, refused=_NOBODY)
    def get_context_messages(self, session_id: Any) -> Any:
        """Keep CTX-2."""
        return self.get_context(session_id).get("context", {})

    @operation("CTX-2", example=_S1, refused=_NOBODY)
    def get_context(self, session_id: Any) -> Record:
        """Keep CTX-2."""
        there = isinstance(session_id, str) and session_id in self.contexts
        return copy.deepcopy(self.contexts[session_id]) if there else {}

    @operation("DEL-1", example=_S1, refused=_NOBODY, changes="parts")
    def delete_context(self, session_id: Any) -> bool:
        """Keep DEL-1."""
        there = isinstance(session_id, str) and session_id in self.contexts
        if there:
            del self.contexts[session_id]
        return there

    # --- Shared by the above --------------------------------------------------------------------

    def _session_record(self, session: Record) -> Record:
        return {**copy.deepcopy(session), "version": _version_of(session)}

    def _has(self, session_id: object) -> bool:
        return isinstance(session_id, str) and session_id in self.sessions

    def _has_message(self, session_id: Any, msg_id: object) -> bool:
        return (
            self._has(session_id)
            and isinstance(msg_id, str)
            and msg_id in self.messages[session_id]
        )

    def _session(self, session_id: object) -> Record:
        name = _required(session_id, "session_id")
        if name not in self.sessions:
            raise SessionNotFoundError(name)
        return self.sessions[name]

    def _touch(self, session_id: str, updated_at: int | Moment) -> None:
        session = self._session(session_id)
        session["updated_at"] = _later(session["updated_at"], updated_at)

    def _time(self, value: object, path: str) -> int | Moment:
        if value is None:
            return self.now
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise InvalidRecordError(path, "no time")
        return value


OPERATIONS: Final = tuple(DECLARED)
"""All that read or write what is stored. Opening, closing and health have clauses of their own."""

BY_NAME: Final = {operation.name: operation for operation in OPERATIONS}


def plain(value: object, path: str) -> Any:
    """Return a payload as it comes back (VAL-1 to VAL-3)."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise InvalidRecordError(path, "a key that is no str")
        return {str.__str__(key): plain(value[key], _member(path, key)) for key in value}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float) and math.isfinite(value):
        return float.__float__(value)
    raise InvalidRecordError(path, "no form in JSON")


def _version(value: object) -> None:
    if value is not UNSET:
        _optional(value, "if_version")


def _version_of(session: Record) -> str:
    """Return a text of all that `update_session` changes but the time."""
    names = ("video_id", "collection_id", "metadata", "user_id")
    return sha256(repr([session[name] for name in names]).encode()).hexdigest()


def _merged(target: Any, patch: Any) -> Any:
    """Return what the RFC's own pseudocode says (RFC 7396, section 2)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _member(path: str, key: str) -> str:
    if key.isidentifier():
        return f"{path}.{key}"
    return f"{path}[{json.dumps(key, ensure_ascii=not key.isprintable())}]"


def _metadata(value: object, path: str = "metadata") -> Any:
    return {} if value is None else plain(value, path)


def _text(value: object, path: str) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise InvalidRecordError(path, "no text of at most 255 characters")
    if any(character == "\0" or ord(character) in _SURROGATES for character in value):
        raise InvalidRecordError(path, "an impossible character")
    return str.__str__(value)


def _required(value: object, path: str) -> str:
    if value == "":
        raise InvalidRecordError(path, "empty")
    return _text(value, path)


def _revision(value: Any, path: str) -> int | None:
    if value is not None and (type(value) is not int or not -(2**63) <= value < 2**63):
        raise InvalidRecordError(path, "no revision")
    return value


def _optional(value: object, path: str) -> str | None:
    return None if value is None else _text(value, path)


def _limit(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise InvalidRecordError("limit", "below 1")
    return value


def _activity(session: Record) -> tuple[Any, ...]:
    return session["updated_at"], session["created_at"], session["session_id"]


def _later(one: int | Moment, other: int | Moment) -> int | Moment:
    ones = one if isinstance(one, Moment) else (one, one)
    others = other if isinstance(other, Moment) else (other, other)
    first, last = map(max, zip(ones, others, strict=True))
    return first if first == last else Moment(first, last)
