"""An agent of Microsoft's Agent Framework with a tool and a scripted model; several turns.

``first`` hangs in the middle of its second turn, in a tool, and is to be killed there; ``second``
goes on. Both print lines of JSON: how many messages the model was given, and what the agent said.
"""

import asyncio
import sys
from typing import Annotated

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    Content,
    FunctionInvocationLayer,
    Message,
    tool,
)
from saying import say

from director_db_integrations.agent_framework import DirectorHistoryProvider


@tool(approval_mode="never_require")
def multiply(one: Annotated[int, "a factor"], other: Annotated[int, "another"]) -> int:
    """Multiply; by zero takes for ever."""
    if not other:
        say("hanging")
        sys.stdin.read()
    return one * other


def multiplying(call_id, **arguments):
    return Content.from_function_call(call_id, "multiply", arguments=arguments)


THINKING = Content.from_text_reasoning(text="hm", protected_data="gAAAAAB\u2028é==")
PICTURE = Content.from_data(b"\x89PNG\x00\xff", "image/png")
SCRIPTS = {
    "first": [
        [THINKING, multiplying("c1", one=6, other=7)],
        ["42"],
        [multiplying("c2", one=42, other=0)],
    ],
    "second": [["42, as I said."]],
}
QUESTIONS = {"first": ["6 times 7?", "And times 0?"], "second": ["What was it?"]}


class ScriptedClient(FunctionInvocationLayer, ChatMiddlewareLayer, BaseChatClient):
    """A model that says what is in a list."""

    def __init__(self, script):
        super().__init__()
        self.script = script

    def _inner_get_response(self, *, messages, **_):
        async def answer():
            say(len(messages))
            number = len(self.script)
            said = Message("assistant", self.script.pop(0), message_id=f"msg_{number}")
            return ChatResponse(messages=[said])

        return answer()


async def main(part):
    agent = Agent(
        ScriptedClient(SCRIPTS[part]),
        name="Calculator",
        tools=[multiply],
        context_providers=[DirectorHistoryProvider()],
        require_per_service_call_history_persistence=True,  # Not only what a run has ended with.
    )
    session = agent.create_session(session_id="s1")
    for question in QUESTIONS[part]:
        response = await agent.run(Message("user", [question, PICTURE]), session=session)
        say(response.text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
