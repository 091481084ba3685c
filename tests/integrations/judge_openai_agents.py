"""Run the OpenAI Agents SDK's own tests of sessions against `DirectorSession`.

``python tests/integrations/judge_openai_agents.py FOLDER`` takes a clone of
openai-agents-python and uses the database that the environment names. The clone's
``tests/memory/test_session.py`` and ``test_session_limit.py`` run as they are; where they say
`SQLiteSession`, they get ours. The exit status is 0 if all pass that apply.
"""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import agents
from judging import Counting, failing_for, in_place, judge

from director_db_integrations.openai_agents import DirectorSession

TESTS = ("tests/memory/test_session.py", "tests/memory/test_session_limit.py")

ATTRIBUTES = "looks at private attributes of SQLiteSession"
TABLES = "writes into the tables of SQLiteSession, past it"
DOES_NOT_APPLY = {
    "test_sqlite_session_close_closes_worker_thread_connections": ATTRIBUTES,
    "test_sqlite_session_closed_rejects_empty_add_items": "closes; a database stays its owner's",
    "test_sqlite_session_pop_item_skips_corrupt_most_recent": TABLES,
    "test_sqlite_session_pop_item_returns_none_after_dropping_only_corrupt_rows": TABLES,
    "test_sqlite_session_get_items_limit_skips_corrupt_newest_rows": TABLES,
    "test_sqlite_session_get_items_session_settings_limit_skips_corrupt_rows": TABLES,
    "test_sqlite_session_file_lock_is_shared_across_instances": ATTRIBUTES,
    "test_sqlite_session_failed_add_items_releases_write_lock": "wants TypeError, and its tables",
    "test_sqlite_session_failed_clear_session_rolls_back": TABLES,
    "test_sqlite_session_failed_pop_item_releases_write_lock": TABLES,
    "test_sqlite_session_rollback_failure_evicts_connection": ATTRIBUTES,
    "test_sqlite_session_close_retries_quarantined_connection": ATTRIBUTES,
    "test_sqlite_session_post_commit_cancellation_propagates_after_known_outcome": ATTRIBUTES,
}


class InItsPlace(DirectorSession):
    """Ours, made as the tests make theirs: each of their files is a group of sessions here."""

    def __init__(self, session_id, db_path=":memory:", session_settings=None):
        group = uuid.uuid4() if db_path == ":memory:" else Path(db_path).parent.name
        super().__init__(f"{group}/{session_id}", session_settings=session_settings)

    def close(self):
        """Do nothing: the database is the process's."""


def main(folder):
    os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
    agents.SQLiteSession = InItsPlace
    os.chdir(folder)
    sys.path.insert(0, "")
    return judge(["--tb=no", *TESTS], Counting(), failing_for(DOES_NOT_APPLY))


if __name__ == "__main__":
    sys.exit(in_place(main, sys.argv[1]))
