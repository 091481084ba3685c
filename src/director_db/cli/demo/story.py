"""What the demo's agents say: a meeting on video, three questions, three answers.

The keys of each message are those of `BaseDB.add_or_update_msg_to_conv`. Every time is given, in
seconds since `started`, so that a stored value can be compared with the one that was meant.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

USER: Final = "ada"
VIDEO: Final = "planning-meeting.mp4"
OTHER_VIDEO: Final = "customer-interview.mp4"
CONVERSATION: Final = "planning"

# What databases like to change: the order of keys, 2520.0 to 2520, accents, long integers, a sign.
SESSION_METADATA: Final[dict[str, Any]] = {
    "title": "Planning meeting",
    "speakers": ["Zoë", "José", "直子"],
    "duration": 2520.0,
    "frames": 10**20,
    "offset": -0.0,
    "marker": "\x00",
    "chapters": {"b": 760, "a": 0},
}


class Write(NamedTuple):
    """One upsert of the answer while it streams."""

    status: str
    actions: list[str]
    text: str


_READING: Final = "Reading the transcript"
_PICKING: Final = "Picking out the decisions"
_DONE: Final = "Found 3 decisions"
_DECISIONS: Final = (
    "The beta starts on 4 May, without billing.",
    "Zoe writes the migration guide by Friday.",
    "Support moves to the new queue next week.",
)

ANSWER: Final = (
    Write("progress", [_READING], ""),
    Write("progress", [_READING, _PICKING], _DECISIONS[0]),
    Write("progress", [_READING, _PICKING], "\n".join(_DECISIONS[:2])),
    Write("success", [_READING, _PICKING, _DONE], "\n".join(_DECISIONS)),
)


def question(number: int, text: str, at: int) -> dict[str, Any]:
    """Return what the user says."""
    return {
        "conv_id": CONVERSATION,
        "msg_id": f"question-{number}",
        "msg_type": "input",
        "agents": [],
        "actions": [],
        "content": [{"type": "text", "text": text}],
        "status": "success",
        "created_at": at,
        "updated_at": at,
        "metadata": {},
    }


def streamed_answer(write: Write, created_at: int, updated_at: int) -> dict[str, Any]:
    """Return the first answer as it is after one of its writes."""
    return {
        "conv_id": CONVERSATION,
        "msg_id": "answer-1",
        "msg_type": "output",
        "agents": ["summarize_video"],
        "actions": write.actions,
        "content": [{"type": "text", "text": write.text}],
        "status": write.status,
        "created_at": created_at,
        "updated_at": updated_at,
        "metadata": {"model": "large", "temperature": 0.0},
    }


def first_question(started: int) -> dict[str, Any]:
    """Return the question that the streamed answer is for."""
    return question(1, "What did we decide in this meeting?", started)


def second_question(started: int) -> dict[str, Any]:
    """Return the question that comes while the first answer still streams."""
    return question(2, "And make a clip of the part about the beta.", started + 12)


def rest(started: int) -> list[dict[str, Any]]:
    """Return the messages that follow, for one bulk write."""
    clip = {
        "conv_id": CONVERSATION,
        "msg_id": "answer-2",
        "msg_type": "output",
        "agents": ["search", "clip"],
        "actions": ["Found the beta at 12:40", "Cut 12:40 to 14:05"],
        "content": [
            {"type": "text", "text": "Here it is, 85 seconds long."},
            {"type": "video", "video": {"name": "beta.mp4", "start": 760.0, "end": 845.0}},
        ],
        "status": "success",
        "created_at": started + 24,
        "updated_at": started + 31,
        "metadata": {},
    }
    who = {
        "conv_id": CONVERSATION,
        "msg_id": "answer-3",
        "msg_type": "output",
        "agents": ["search"],
        "actions": ["Found the guide at 31:07"],
        "content": [{"type": "text", "text": "Zoe does. She says so at 31:07."}],
        "status": "success",
        "created_at": started + 41,
        "updated_at": started + 43,
        "metadata": {},
    }
    return [clip, question(3, "Thanks! Who writes the guide?", started + 40), who]


def context_growth() -> list[list[dict[str, Any]]]:
    """Return what each turn of the model adds to the context."""
    call = {"id": "call-1", "name": "summarize_video", "arguments": {"video": VIDEO, "points": 3}}
    return [
        [
            {"role": "system", "content": "You are a video agent. Use your tools."},
            {"role": "user", "content": "What did we decide in this meeting?"},
        ],
        [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call-1", "content": "\n".join(_DECISIONS)},
        ],
        [{"role": "assistant", "content": ANSWER[-1].text}],
    ]
