"""Run LangChain's own tests of chat message histories against `DirectorChatMessageHistory`.

``python tests/integrations/judge_langchain.py FOLDER`` takes an unpacked source distribution of
langchain-core, or of langchain-community, or the folder of one in a clone, and uses the database
that the environment names. Of the first it runs ``runnables/test_history.py`` and
``chat_history/``, of the other the tests of histories in files and in SQL. They run as they are;
where they say `InMemoryChatMessageHistory`, `FileChatMessageHistory` or `SQLChatMessageHistory`,
they get ours. The exit status is 0 if all pass that apply.
"""

from __future__ import annotations

import os
import sys
import types
import uuid
from pathlib import Path

import langchain_core.chat_history
import pytest
from judging import Coroutines, in_place, judge

from director_db_integrations.langchain import DirectorChatMessageHistory

UNIT = "tests/unit_tests"
CORE = (f"{UNIT}/runnables/test_history.py", f"{UNIT}/chat_history")
COMMUNITY = tuple(
    f"{UNIT}/chat_message_histories/test_{name}.py" for name in ("sql", "file_chat_message_history")
)

BASE = "is about the base class alone"
DOES_NOT_APPLY = {
    "test_chat_history_deprecated": "is about LangChain's docstrings",
    "test_add_message_implementation_only": BASE,
    "test_bulk_message_implementation_only": BASE,
    "test_async_interface": BASE,
    "test_model_no_session_id_field_error": "is about the tables of SQLChatMessageHistory",
}


class InItsPlace(DirectorChatMessageHistory):
    """Ours, made as the tests make theirs; each is a session of its own."""

    def __init__(self, *_names, messages=(), **_options):
        super().__init__(str(uuid.uuid4()))
        self.add_messages(messages)

    def __eq__(self, other):
        return self.messages == other.messages

    __hash__ = None


class InAFile(DirectorChatMessageHistory):
    """Ours, made as a history in a file is."""

    def __init__(self, file_path, **_options):
        super().__init__(str(file_path)[-255:])
        self.file_path = file_path


class Judge(Coroutines):
    """A plugin of pytest that does without the others' own, and counts."""

    def __init__(self):
        self.outcomes = {}

    @staticmethod
    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(fixturedef, request):
        if fixturedef.argname != "asql_histories":
            return None  # That one is a coroutine.
        made = InItsPlace(), InItsPlace()
        fixturedef.cached_result = (made, fixturedef.cache_key(request), None)
        return made

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.failed:
            self.outcomes[report.nodeid] = report.outcome


def main(folder):
    langchain_core.chat_history.InMemoryChatMessageHistory = InItsPlace
    community = types.ModuleType("langchain_community.chat_message_histories")
    community.SQLChatMessageHistory = InItsPlace
    community.FileChatMessageHistory = InAFile
    community.DefaultMessageConverter = object
    sys.modules |= dict.fromkeys((community.__name__, f"{community.__name__}.sql"), community)
    os.chdir(folder)
    sys.path.insert(0, "")
    tests = CORE if Path(CORE[0]).exists() else COMMUNITY
    return judge(["--tb=short", *tests], Judge(), _kind_and_reason)


def _kind_and_reason(test, outcome):
    name = test.partition("::")[2].partition("[")[0]
    reason = DOES_NOT_APPLY.get(name, "")
    return "does not apply" if reason else outcome, reason


if __name__ == "__main__":
    sys.exit(in_place(main, sys.argv[1]))
