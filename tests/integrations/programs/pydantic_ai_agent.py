"""An agent of Pydantic AI with tools and a scripted model; a conversation takes several runs.

``first`` takes two turns, of which the second waits for an approval, and hangs in the middle of
the third, in a tool, to be killed there; ``second`` approves, and goes on. Each save prints a line
of JSON, and each call of the model how many messages it was given. ``counting`` is one of many
processes that save the same conversation.
"""

import asyncio
import sys

from pydantic_ai import (
    Agent,
    BinaryImage,
    DeferredToolRequests,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
)
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict
from pydantic_ai.models.function import FunctionModel
from saying import say

from director_db_integrations.pydantic_ai import DirectorConversationStore

SCRIPTS = {
    "first": [
        ToolCallPart("multiply", {"one": 6, "other": 7}, tool_call_id="c1"),
        TextPart("42"),
        ToolCallPart("pay", {"amount": 42.0}, tool_call_id="c2"),
        ToolCallPart("multiply", {"one": 42, "other": 0}, tool_call_id="c3"),
    ],
    "second": [TextPart("Paid.")],
}
script = SCRIPTS.get(sys.argv[1], [])


def answer(messages, _):
    say(len(messages))
    return ModelResponse(parts=[script.pop(0)])


agent = Agent(
    FunctionModel(answer), output_type=[str, DeferredToolRequests], instructions="Be brief."
)


@agent.tool_plain
def multiply(one: int, other: int) -> int:
    """Multiply; by zero takes for ever."""
    if not other:
        say("hanging")
        sys.stdin.read()
    return one * other


@agent.tool_plain(requires_approval=True)
def pay(amount: float) -> str:
    """Pay, if a human approves."""
    return f"{amount} paid"


async def main():
    store = DirectorConversationStore()
    conversation = await store.load("c1") or Conversation(conversation_id="c1")
    if sys.argv[1] == "first":
        picture = BinaryImage(b"\x89PNG\x00\xff", media_type="image/png")
        for question in (["6 times 7?", picture], "Pay that."):
            result = await agent.run(question, conversation=conversation)
            await store.save(result, scope="u1")
            conversation = result.conversation
            say(ModelMessagesTypeAdapter.dump_python(conversation.messages, mode="json"))
        await agent.run("42 times 0?", conversation=Conversation(conversation_id="c1"))
    asked = conversation.deferred_tool_requests
    result = await agent.run(
        conversation=conversation, deferred_tool_results=asked.build_results(approve_all=True)
    )
    await store.save(result, scope="u1")
    say(ModelMessagesTypeAdapter.dump_python(result.conversation.messages, mode="json"))
    say(result.output)


async def count(name, times):
    store, conflicts = DirectorConversationStore(), 0
    for number in range(times):
        while True:
            conversation = await store.load("c1") or Conversation(conversation_id="c1")
            conversation.messages.append(ModelRequest.user_text_prompt(f"{name} {number}"))
            try:
                await store.save(conversation)
                break
            except ConversationConflict:
                conflicts += 1
    say(conflicts)


if __name__ == "__main__":
    if sys.argv[1] == "counting":
        asyncio.run(count(sys.argv[2], int(sys.argv[3])))
    else:
        asyncio.run(main())
