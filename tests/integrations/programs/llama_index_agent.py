"""An agent of LlamaIndex with a tool and a scripted model; one run takes several turns.

``first`` hangs in the middle of its second turn, in a tool, and is to be killed there; ``second``
goes on. Both print lines of JSON.
"""

import asyncio
import sys

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import Memory
from saying import say

from director_db_integrations.llama_index import DirectorMemoryStore


async def multiply(one: int, other: int) -> int:
    """Multiply; by zero takes for ever."""
    if not other:
        say("hanging")
        await asyncio.sleep(3600)
    return one * other


def multiplying(call_id, **arguments):
    call = ToolCallBlock(tool_call_id=call_id, tool_name="multiply", tool_kwargs=arguments)
    return ChatMessage(role="assistant", blocks=[call])


SCRIPTS = {
    "first": [
        multiplying("c1", one=6, other=7),
        ChatMessage("42", role="assistant"),
        multiplying("c2", one=42, other=2),
        multiplying("c3", one=84, other=0),
    ],
    "second": [multiplying("c4", one=42, other=2), ChatMessage("84", role="assistant")],
}
QUESTIONS = {"first": ["6 times 7?", "And twice that?"], "second": ["Go on."]}


async def main(part):
    script = iter(SCRIPTS[part])

    def answer(messages, **_options):
        seen[:] = messages
        return next(script)

    seen = []
    agent = FunctionAgent(
        tools=[multiply],
        llm=MockFunctionCallingLLM(response_generator=answer, is_chat_model=True),
        streaming=False,
    )
    for question in QUESTIONS[part]:
        memory = Memory.from_defaults(session_id="s1", chat_store=DirectorMemoryStore())
        await agent.run(question, memory=memory)
    say([message.model_dump(mode="json") for message in seen])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
