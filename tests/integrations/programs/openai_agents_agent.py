"""An agent of the OpenAI Agents SDK with a tool and a scripted model; one run takes several turns.

``first`` hangs in the middle of its second turn, in a tool, and is to be killed there; ``second``
goes on. Both print lines of JSON.
"""

import asyncio
import sys

from agents import Agent, Runner, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseReasoningItem
from saying import say

from director_db_integrations.openai_agents import DirectorSession


@function_tool
def multiply(one: int, other: int) -> int:
    """Multiply; by zero takes for ever."""
    if not other:
        say("hanging")
        sys.stdin.read()
    return one * other


def multiplying(call_id, **arguments):
    return function_call("multiply", arguments, call_id=call_id, item_id=f"fc_{call_id}")


def saying(text, number):
    return assistant_message(text, item_id=f"msg_{number}")


THINKING = ResponseReasoningItem(
    id="rs_1", summary=[], type="reasoning", encrypted_content="gAAAAAB\u2028é=="
)
SCRIPTS = {
    "first": [
        [THINKING, multiplying("c1", one=6, other=7)],
        [saying("42", 1)],
        [multiplying("c2", one=42, other=2)],
        [multiplying("c3", one=84, other=0)],
    ],
    "second": [[saying("It was 84.", 2)]],
}
QUESTIONS = {"first": ["6 times 7?", "And twice that?"], "second": ["What was it?"]}


async def main(part):
    model = ScriptedModel(SCRIPTS[part])
    agent = Agent(name="Calculator", model=model, tools=[multiply])
    session = DirectorSession("s1")
    for question in QUESTIONS[part]:
        await Runner.run(agent, question, session=session)
    say(model.calls[-1].input)
    say(await session.get_items())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
