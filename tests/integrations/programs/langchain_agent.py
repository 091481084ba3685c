"""A chain of LangChain with a tool and a scripted model; one run takes several turns.

``first`` hangs in the middle of its second turn, in a tool, and is to be killed there; ``second``
goes on, with coroutines. Both print lines of JSON.
"""

import asyncio
import sys
import warnings

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, messages_to_dict
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from saying import say

from director_db_integrations.langchain import DirectorChatMessageHistory

warnings.simplefilter("ignore")  # LangChain's of RunnableWithMessageHistory, which it deprecates.


@tool
def multiply(one: int, other: int) -> int:
    """Multiply; by zero takes for ever."""
    if not other:
        say("hanging")
        sys.stdin.read()
    return one * other


def multiplying(call_id, **arguments):
    call = {"name": "multiply", "args": arguments, "id": call_id, "type": "tool_call"}
    return AIMessage("", tool_calls=[call], id=f"run-{call_id}")


SCRIPTS = {
    "first": [
        multiplying("c1", one=6, other=7),
        AIMessage("42", id="run-2"),
        multiplying("c2", one=42, other=2),
        multiplying("c3", one=84, other=0),
    ],
    "second": [multiplying("c4", one=42, other=2), AIMessage("84", id="run-5")],
}
QUESTIONS = {"first": ["6 times 7?", "And twice that?"], "second": ["And twice that?"]}


def main(part):
    model = GenericFakeChatModel(messages=iter(SCRIPTS[part]))

    def answer(messages):
        new = [model.invoke(messages)]
        while new[-1].tool_calls:
            new += [multiply.invoke(call) for call in new[-1].tool_calls]
            new.append(model.invoke(messages + new))
        return new

    async def aanswer(messages):
        say(messages_to_dict(messages))
        return await asyncio.to_thread(answer, messages)

    agent = RunnableWithMessageHistory(RunnableLambda(answer, aanswer), DirectorChatMessageHistory)
    config = {"configurable": {"session_id": "s1"}}
    for question in QUESTIONS[part]:
        if part == "first":
            agent.invoke(question, config)
        else:
            asyncio.run(agent.ainvoke(question, config))


if __name__ == "__main__":
    main(sys.argv[1])
