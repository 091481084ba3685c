"""A graph of LangGraph with two tools and a scripted model; one run takes several turns.

``first`` hangs in the middle of its second turn, in one of two tools that run at once, and is to be
killed there; ``second`` goes on. Both print lines of JSON.
"""

import asyncio
import sys
from typing import Annotated, TypedDict

from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send
from saying import say

from director_db_integrations.langgraph import DirectorSaver

CONFIG = {"configurable": {"thread_id": "t1"}}


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def calling(number, *arguments):
    calls = [
        {"name": "multiply", "args": {"one": one, "other": other}, "id": f"c{one}-{other}"}
        for one, other in arguments
    ]
    return AIMessage("", tool_calls=calls, id=f"a{number}")


SCRIPTS = {
    "first": [
        calling(1, (6, 7)),
        AIMessage("42", id="a2"),
        calling(3, (42, 2), (42, 3)),
    ],
    "second": [AIMessage("84 and 126", id="a4"), AIMessage("It was 126.", id="a5")],
}


def graph(part):
    model = FakeMessagesListChatModel(responses=SCRIPTS[part])

    def think(state):
        return {"messages": model.invoke(state["messages"])}

    def multiply(call):
        arguments = call["args"]
        say(["multiplying", arguments["one"], arguments["other"]])
        if part == "first" and arguments["other"] == 3:
            sys.stdin.read()
        product = str(arguments["one"] * arguments["other"])
        return {"messages": ToolMessage(product, tool_call_id=call["id"], id=f"t{product}")}

    def route(state):
        calls = state["messages"][-1].tool_calls
        return [Send("multiply", call) for call in calls] or END

    builder = StateGraph(State)
    builder.add_node("think", think)
    builder.add_node("multiply", multiply)
    builder.add_edge(START, "think")
    builder.add_conditional_edges("think", route, ["multiply", END])
    builder.add_edge("multiply", "think")
    return builder.compile(checkpointer=DirectorSaver())


def asked(text, number):
    return {"messages": [{"role": "user", "content": text, "id": f"u{number}"}]}


async def first():
    agent = graph("first")
    await agent.ainvoke(asked("6 times 7?", 1), CONFIG)
    await agent.ainvoke(asked("And twice that, and thrice?", 2), CONFIG)


def second():
    agent = graph("second")
    say([task.name for task in agent.get_state(CONFIG).tasks])
    agent.invoke(None, CONFIG)
    result = agent.invoke(asked("What was the last?", 3), CONFIG)
    say([[message.type, message.id, message.content] for message in result["messages"]])


if __name__ == "__main__":
    asyncio.run(first()) if sys.argv[1] == "first" else second()
