"""Run Agent Framework's own tests of history providers against `DirectorHistoryProvider`.

``python tests/integrations/judge_agent_framework.py FOLDER`` takes a clone of agent-framework and
uses the database that the environment names. The tests of the providers that keep histories in
memory and in files, in ``python/packages/core/tests/core/test_sessions.py``, run as they are; where
they say `InMemoryHistoryProvider` or `FileHistoryProvider`, they get ours. The exit status is 0 if
all pass that apply.
"""

from __future__ import annotations

import os
import sys
import uuid

import agent_framework
from judging import Counting, failing_for, in_place, judge

from director_db_integrations.agent_framework import DirectorHistoryProvider

MODULE = "python/packages/core/tests/core/test_sessions.py"
TESTS = (f"{MODULE}::TestInMemoryHistoryProvider", f"{MODULE}::TestFileHistoryProvider")

FILES = "looks at the files of FileHistoryProvider, or writes into them"
CODECS = "chooses how FileHistoryProvider encodes"
NOT_FINITE = "wants NaN and the infinities, which are no JSON and are refused (VAL-3)"
DOES_NOT_APPLY = {
    "test_state_is_serializable": "looks at the messages that InMemoryHistoryProvider has in state",
    "test_is_marked_experimental": "looks at how FileHistoryProvider is marked",
    "test_uses_msgspec_json_by_default": CODECS,
    "test_stores_and_loads_length_prefixed_msgpack": CODECS,
    "test_msgpack_rejects_custom_json_codecs": CODECS,
    "test_custom_json_codecs_are_deprecated": CODECS,
    "test_stores_and_loads_messages": FILES,
    "test_preserves_non_finite_json_values": NOT_FINITE,
    "test_reads_existing_stdlib_non_finite_json": FILES,
    "test_creates_storage_directory": FILES,
    "test_uses_encoded_filename_for_unsafe_session_id": FILES,
    "test_allows_custom_serializers_returning_bytes": CODECS,
    "test_invalid_jsonl_line_raises": FILES,
    "test_truncated_msgpack_record_raises": FILES,
    "test_none_session_id_uses_default_jsonl_file": FILES,
    "test_non_mapping_jsonl_line_raises": FILES,
    "test_serializer_must_return_single_line_json": CODECS,
    "test_concurrent_writes_for_same_session_are_locked": FILES,
}


class InPlaceOfMemory(DirectorHistoryProvider):
    """Ours, made as the tests make that in memory: each is empty."""

    def __init__(self, source_id=None, **options):
        super().__init__(source_id or f"memory {uuid.uuid4()}", **options)


class InPlaceOfFiles(DirectorHistoryProvider):
    """Ours, made as the tests make that of files: each folder is a history."""

    def __init__(self, storage_path, **options):
        super().__init__(f"{uuid.uuid5(uuid.NAMESPACE_URL, str(storage_path))}", **options)


def main(folder):
    agent_framework.InMemoryHistoryProvider = InPlaceOfMemory
    agent_framework.FileHistoryProvider = InPlaceOfFiles
    os.chdir(folder)
    return judge(["--tb=no", *TESTS], Counting(), failing_for(DOES_NOT_APPLY))


if __name__ == "__main__":
    sys.exit(in_place(main, sys.argv[1]))
