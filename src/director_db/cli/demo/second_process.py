"""The demo's second process: reads one session from the database that the environment names.

Prints one JSON object. Its output goes to the demo alone, which compares it.
"""

from __future__ import annotations

import json
import os
import sys

from director_db import DirectorDBError, load_db


def main(session_id: str) -> int:
    """Print the session, its conversation and its context."""
    try:
        db = load_db()
        read = {
            "process": os.getpid(),
            "session": db.get_session(session_id),
            "conversation": db.get_conversations(session_id),
            "context": db.get_context_messages(session_id),
        }
    except DirectorDBError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(read))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
