"""Stands in for Claude Code, which needs a network: speaks its protocol, with a scripted model.

It calls the tool that the application has for each two numbers of a prompt, in the application's
process, mirrors the transcript, and answers with what the tool said. Of a session that is resumed
it reads the transcript as Claude Code does, and tells how many entries that has.
"""

import itertools
import json
import os
import re
import sys
import uuid
from pathlib import Path


def say(**message):
    # In one write: print() has two, and threads may say something at once.
    print(json.dumps(message) + "\n", end="", flush=True)


def hear(kind):
    for line in sys.stdin:
        heard = json.loads(line)
        if heard["type"] == kind:
            return heard
    sys.exit(0)


class Session:
    """A transcript: the entries of this process, behind those of the file that was resumed."""

    def __init__(self, session_id):
        self.session_id = session_id
        self.projects = Path(os.environ["CLAUDE_CONFIG_DIR"]) / "projects"
        files = [*self.projects.glob(f"*/{session_id}.jsonl")]
        lines = files[0].read_text(encoding="utf-8").splitlines() if files else []
        self.entries = [json.loads(line) for line in lines]

    def mirror(self, kind, content):
        entry = {
            "type": kind,
            "uuid": str(uuid.uuid5(uuid.UUID(self.session_id), str(len(self.entries)))),
            "parentUuid": self.entries[-1]["uuid"] if self.entries else None,
            "sessionId": self.session_id,
            "timestamp": f"2026-01-01T00:00:{len(self.entries):02}.000Z",
            "isSidechain": False,
            "message": {"role": kind, "content": content},
        }
        self.entries.append(entry)
        # The project is the folder, as Claude Code names it.
        project = re.sub(r"[^a-zA-Z0-9]", "-", str(Path.cwd()))
        path = self.projects / project / f"{self.session_id}.jsonl"
        say(type="transcript_mirror", filePath=str(path), entries=[entry])


def to_server(method, **rest):
    message = {"jsonrpc": "2.0", "method": method, **rest}
    request = {"subtype": "mcp_message", "server_name": "sums", "message": message}
    say(type="control_request", request_id=str(uuid.uuid4()), request=request)
    return hear("control_response")["response"]["response"]["mcp_response"]["result"]


def greet_server():
    about = {"protocolVersion": "2025-06-18", "capabilities": {}}
    about["clientInfo"] = {"name": "scripted", "version": "1"}
    to_server("initialize", id=0, params=about)
    to_server("notifications/initialized")


def call_tool(**arguments):
    params = {"name": "multiply", "arguments": arguments}
    return to_server("tools/call", id=1, params=params)["content"][0]["text"]


def answer(session, prompt):
    found = len(session.entries)
    session.mirror("user", prompt)
    said = f"{found} entries before"
    for number, (one, other) in enumerate(re.findall(r"(\d+) times (\d+)", prompt)):
        arguments = {"one": int(one), "other": int(other)}
        said = call_tool(**arguments)
        use = {"type": "tool_use", "id": f"tool-{number}", "name": "multiply", "input": arguments}
        session.mirror("assistant", [use])
        result = {"type": "tool_result", "tool_use_id": f"tool-{number}", "content": said}
        session.mirror("user", [result])
    content = [{"type": "text", "text": said}]
    session.mirror("assistant", content)
    message = {"role": "assistant", "model": "scripted", "content": content}
    say(type="assistant", message=message, parent_tool_use_id=None, session_id=session.session_id)
    return said


def main(arguments):
    if "-v" in arguments or "--version" in arguments:
        print("2.9.0 (Claude Code)")
        return
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    session_id = options.get("--resume") or options["--session-id"]
    request = hear("control_request")
    response = {"subtype": "success", "request_id": request["request_id"], "response": {}}
    say(type="control_response", response=response)
    session = Session(session_id)
    for turn in itertools.count(1):
        prompt = hear("user")["message"]["content"]
        if turn == 1:
            greet_server()
        said = answer(session, prompt)
        about = {"session_id": session_id, "num_turns": turn, "duration_ms": 1}
        about |= {"is_error": False, "duration_api_ms": 1}
        say(type="result", subtype="success", result=said, **about)


if __name__ == "__main__":
    main(sys.argv[1:])
