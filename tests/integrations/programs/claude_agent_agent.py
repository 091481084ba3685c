"""An agent of the Claude Agent SDK with a tool; what stands in for Claude Code is claude_cli.py.

``first`` hangs in the middle of its second turn, in the tool, and is to be killed there; ``second``
goes on. Both print lines of JSON.
"""

import asyncio
import sys
from pathlib import Path

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ResultMessage,
    create_sdk_mcp_server,
    tool,
)
from saying import say

from director_db_integrations.claude_agent import DirectorSessionStore

SESSION = "0b8e4d3a-5c6f-4a7b-8c9d-0e1f2a3b4c5d"
QUESTIONS = {"first": ["6 times 7?", "42 times 2? 84 times 0?"], "second": ["Go on.", "3 times 3?"]}


@tool("multiply", "Multiply; by zero takes for ever.", {"one": int, "other": int})
async def multiply(arguments):
    if not arguments["other"]:
        say("hanging")
        await asyncio.sleep(3600)
    text = str(arguments["one"] * arguments["other"])
    return {"content": [{"type": "text", "text": text}]}


def command():
    """Make a program of the script, in the working folder."""
    path = Path("claude").resolve()
    script = Path(__file__).with_name("claude_cli.py")
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    path.chmod(0o700)
    return path


async def main(part):
    options = ClaudeAgentOptions(
        cli_path=command(),
        cwd=".",
        mcp_servers={"sums": create_sdk_mcp_server("sums", tools=[multiply])},
        session_store=DirectorSessionStore(),
        session_store_flush="eager",
        **{"resume" if part == "second" else "session_id": SESSION},
    )
    async with ClaudeSDKClient(options) as client:
        for question in QUESTIONS[part]:
            await client.query(question)
            async for message in client.receive_response():
                if isinstance(message, ResultMessage):
                    say(message.result)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
