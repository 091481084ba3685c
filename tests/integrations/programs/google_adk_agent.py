"""An agent of Google ADK with a tool and a scripted model; one run takes several turns.

``first`` hangs in the middle of its second turn, in the tool, and is to be killed there; ``second``
goes on. ``writer NAME`` waits for a line and then appends to a session of that name as fast as it
can, with keys of the states that all writers share. All print lines of JSON.
"""

import asyncio
import sys

from google.adk.agents import LlmAgent
from google.adk.events import Event, EventActions
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.adk.tools import ToolContext
from google.genai import types
from pydantic import Field
from saying import say

from director_db_integrations.google_adk import DirectorSessionService

APP, USER = "calculator", "u1"
WRITES = 30


def multiply(one: int, other: int, tool_context: ToolContext) -> int:
    """Multiply; by zero takes for ever."""
    if not other:
        say("hanging")
        sys.stdin.read()
    state = tool_context.state
    state["last"] = state["app:last"] = state["temp:last"] = one * other
    state["user:count"] = state.get("user:count", 0) + 1
    return one * other


class ScriptedModel(BaseLlm):
    """A model whose answers are given."""

    model: str = "scripted"
    answers: list[types.Part]
    asked: list[list[types.Content]] = Field(default_factory=list)

    async def generate_content_async(self, llm_request, stream=False):  # noqa: FBT002 - the signature is ADK's
        self.asked.append([*llm_request.contents])
        content = types.Content(role="model", parts=[self.answers.pop(0)])
        yield LlmResponse(content=content, turn_complete=True)


def multiplying(call_id, one, other):
    call = types.FunctionCall(id=call_id, name="multiply", args={"one": one, "other": other})
    return types.Part(function_call=call, thought_signature=b"\x00\xff")


SCRIPTS = {
    "first": [
        multiplying("c1", 6, 7),
        types.Part(text="42"),
        multiplying("c2", 42, 2),
        multiplying("c3", 84, 0),
    ],
    "second": [types.Part(text="It was 84.")],
}
QUESTIONS = {"first": ["6 times 7?", "And twice that?"], "second": ["What was it?"]}


async def converse(part):
    model = ScriptedModel(answers=SCRIPTS[part])
    agent = LlmAgent(name="multiplier", model=model, tools=[multiply])
    service = DirectorSessionService()
    runner = Runner(app_name=APP, agent=agent, session_service=service, auto_create_session=True)
    for question in QUESTIONS[part]:
        content = types.Content(role="user", parts=[types.Part(text=question)])
        async for _ in runner.run_async(user_id=USER, session_id="s1", new_message=content):
            pass
    say([content.model_dump(mode="json", exclude_none=True) for content in model.asked[-1]])


async def write(name):
    service = DirectorSessionService()
    session = await service.create_session(app_name=APP, user_id=USER, session_id=name)
    say("ready")
    sys.stdin.readline()
    for number in range(WRITES):
        delta = {f"app:{name}{number}": number, f"user:{name}{number}": number}
        delta |= {f"own{number}": number, "app:both": [name, number]}
        event = Event(author=name, actions=EventActions(state_delta=delta))
        await service.append_event(session, event)
    say("done")


if __name__ == "__main__":
    asyncio.run(write(sys.argv[2]) if sys.argv[1] == "writer" else converse(sys.argv[1]))
