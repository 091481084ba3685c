"""Run LlamaIndex's own tests of chat stores and memories against ours.

``python tests/integrations/judge_llama_index.py FOLDER`` takes a clone of llama_index and uses the
database that the environment names. Its tests of `SimpleChatStore`, `SQLAlchemyChatStore`,
`SQLiteChatStore`, `ChatMemoryBuffer` and `Memory` run as they are; the stores that they make, and
those that memories make, are ours. The exit status is 0 if all pass that apply.
"""

from __future__ import annotations

import inspect
import os
import sys
import types
import uuid
from pathlib import Path

from judging import WithReasons, in_place, judge
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.memory import chat_memory_buffer, memory
from llama_index.core.storage import chat_store
from llama_index.core.storage.chat_store import sql

from director_db_integrations.llama_index import DirectorChatStore, DirectorMemoryStore

CORE, STORES = "llama-index-core/tests", "llama-index-integrations/storage/chat_store"
TESTS = (
    f"{CORE}/storage/chat_store/test_simple_chat_store.py",
    f"{CORE}/storage/chat_store/test_sql.py",
    f"{CORE}/memory/test_chat_memory_buffer.py",
    f"{CORE}/memory/test_memory_base.py",
    f"{STORES}/llama-index-storage-chat-store-sqlite/tests/test_chat_store_sqlite_chat_store.py",
)

# Of a test's source: why it is about something else.
NOT_OURS = {
    "idx=0)": "inserts in a place, which SimpleChatStore alone can",
    "message(key, 2)": "counts the rows of a table, from 1",
    "persist_path": "is about the file of SimpleChatStore",
    "_async_session_factory": "looks at private attributes of SQLAlchemyChatStore",
    "pickle": "pickles a store",
    "model_dump()": "is about what SQLAlchemyChatStore writes of itself",
    "from_string": "has the messages in a text of the memory",
    "_same_as_limit_removes": "fails with LlamaIndex's own store too with 0.14.25",
    "removes_assistant_message_at_start": "fails with LlamaIndex's own store too with 0.14.25",
    "from_dict": "has the messages in a dict of the memory",
}


def in_a_group(cls):
    """Return a store with keys of its own, made as the tests make theirs."""

    class InItsPlace(cls):
        _group: str = PrivateAttr()

        def __init__(self, *_args, **_options):
            super().__init__()
            self._group = f"{uuid.uuid4()}/"

        @classmethod
        def from_uri(cls, **_options):
            return cls()

        def _without_group(self, keys):
            return [key.removeprefix(self._group) for key in keys if key.startswith(self._group)]

    def grouped(method):
        def call(self, key, *args, **options):
            # One method may call another, with the key that it was given.
            return method(self, self._group + key.removeprefix(self._group), *args, **options)

        return call

    def own(method):
        if inspect.iscoroutinefunction(method):

            async def keys(self):
                return self._without_group(await method(self))
        else:

            def keys(self):
                return self._without_group(method(self))

        return keys

    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if "key" in inspect.signature(method).parameters:
            setattr(InItsPlace, name, grouped(method))
        elif name.endswith("get_keys"):
            setattr(InItsPlace, name, own(method))
    return InItsPlace


def main(folder):
    chats, memories = in_a_group(DirectorChatStore), in_a_group(DirectorMemoryStore)
    chat_store.SimpleChatStore = chat_memory_buffer.SimpleChatStore = chats
    sql.SQLAlchemyChatStore = memory.SQLAlchemyChatStore = memories
    sqlite = types.ModuleType("llama_index.storage.chat_store.sqlite")
    sqlite.SQLiteChatStore = chats
    sys.modules |= {sqlite.__name__: sqlite}
    for parent in ("llama_index.storage", "llama_index.storage.chat_store"):
        sys.modules.setdefault(parent, types.ModuleType(parent))
    os.chdir(folder)
    plugin = WithReasons(NOT_OURS)
    tests = [test for test in TESTS if Path(test).exists()]
    return judge(["--tb=short", "--import-mode=importlib", *tests], plugin, plugin.kind_and_reason)


if __name__ == "__main__":
    sys.exit(in_place(main, sys.argv[1]))
