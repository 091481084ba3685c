"""The conformance suite on the cluster, with the death of all its nodes as its restart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE = 3600


@pytest.mark.usefixtures("nodes")
def test_the_backend_is_conformant(tmp_path):
    report = tmp_path / "report.json"
    command = [Path(sys.executable).with_name("director-db-conformance"), "postgres"]
    options = ["--level", "durable", "--time-limit", "600", "--json", str(report)]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    (backend,) = json.loads(report.read_text())["backends"]
    assert (0, "CONFORMANT", "durable") == (done.returncode, backend["verdict"], backend["reached"])
