"""The application of docs/asyncio.md behind a real server, with a client that goes away."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from director_db_sqlite import SQLiteDB

PAGE = Path(__file__).parents[2] / "docs" / "asyncio.md"

# One free port, given by the system: the socket is made here and handed on.
SERVE = """
import socket, sys, uvicorn
from application import app
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning", loop=sys.argv[1])).run([listening])
"""


def eventually(look, wanted):
    for _ in range(6000):
        found = look()
        if wanted == found:
            break
        time.sleep(0.02)
    assert wanted == found


@pytest.fixture(params=["asyncio", "uvloop"])
def server(request, tmp_path):
    """The page's second program; what it says last is what it has on standard error."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    code = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[-1]
    (tmp_path / "application.py").write_text(code)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, request.param],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        port = process.stdout.readline().strip()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            yield client
        process.terminate()
        assert "" == process.communicate(timeout=120)[1]
    finally:
        process.kill()
        process.communicate()


def test_a_streaming_endpoint_stores_while_it_streams(server, tmp_path):
    url = "/sessions/s1/answers/m1"
    with (
        SQLiteDB(tmp_path / "director.db") as db,
        server.stream("POST", url, params={"prompt": "one two three"}) as response,
    ):
        assert 200 == response.status_code
        received = ""
        for token in response.iter_text():
            received += token
            # What was sent was stored before.
            assert db.get_message("s1", "m1")["content"].startswith(received)
    assert "one two three " == received
    (message,) = server.get("/sessions/s1/messages").json()
    assert ("one two three ", "success") == (message["content"], message["status"])


def test_what_a_client_that_goes_away_has_seen_is_stored(server, tmp_path):
    words = [f"w{number}" for number in range(500)]
    with (
        SQLiteDB(tmp_path / "director.db") as db,
        server.stream("POST", "/sessions/s1/answers/m1", params={"prompt": " ".join(words)}) as it,
    ):
        received = next(it.iter_text())
    with SQLiteDB(tmp_path / "director.db") as db:
        eventually(lambda: db.get_message("s1", "m1")["status"], "error")
        content = db.get_message("s1", "m1")["content"]
        assert content.startswith(received)
        assert len(content.split()) < len(words)
    # The server and its instance go on.
    again = server.post("/sessions/s1/answers/m2", params={"prompt": "hello"})
    assert "hello " == again.text
    ids = [message["msg_id"] for message in server.get("/sessions/s1/messages").json()]
    assert ["m1", "m2"] == ids
