"""Calls that send every statement, for the tests that look at all there are.

What the example of an operation sends is found by itself; `MORE` calls for the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from operator import methodcaller
from unittest.mock import patch

import pytest

from director_db import ConflictError
from director_db_conformance.model import OPERATIONS
from director_db_postgres.pipeline import PipelinedConnection

_FIELDS = {"conv_id": "c", "msg_type": "output", "agents": [], "actions": [], "content": []}
MESSAGES = [{**_FIELDS, "msg_id": msg_id} for msg_id in ("a", "m", "z")]

WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
"""Tells how many wait for a lock."""


def refused_save(db):
    with pytest.raises(ConflictError):
        db.add_or_update_context_msg("s1", [], if_version=None)


MORE = (
    methodcaller("update_session", "s1", metadata={"a": 1}, merge=True),
    methodcaller("add_or_update_msg_to_conv", "s1", **MESSAGES[0], revision=1),
    methodcaller("get_conversations", "s1", limit=1),
    methodcaller("get_conversations", "s1", after="a"),
    methodcaller("get_conversations", "s1", before="m"),
    methodcaller("get_conversations", "s1", conv_id="c"),
    methodcaller("get_conversations", "s1", conv_id="c", limit=1),
    methodcaller("get_conversations", "s1", msg_type="output", after="a"),
    methodcaller("get_conversations", "s1", conv_id="c", msg_type="x", before="m"),
    methodcaller("iter_conversations", "s1"),
    methodcaller("iter_conversations", "s1", msg_type="output"),
    methodcaller("replace_conversation", "s1", MESSAGES),
    refused_save,
    methodcaller("copy_session", "s1", "s2", until="a"),
    methodcaller("pop_message", "s1", conv_id="none"),
    *(
        methodcaller("get_sessions", limit=1, **dict(given))
        for count in range(5)
        for given in itertools.combinations(
            {
                "before": {"updated_at": 1, "created_at": 1, "session_id": "s1"},
                "video_id": "v",
                "collection_id": "c",
                "user_id": "u",
            }.items(),
            count,
        )
    ),
)


def sent_statements(db):
    """Make the calls; return each statement that was sent, with the parameters it had last."""
    sent = {}
    send = PipelinedConnection._send

    def watch(connection, steps, *args, **kwargs):
        sent.update(steps)
        return send(connection, steps, *args, **kwargs)

    db.get_session("s1")  # What opens the database is no part of it.
    with patch.object(PipelinedConnection, "_send", watch):
        for operation in OPERATIONS:
            _make(db, methodcaller(operation.name, **operation.example))
        for call in MORE:
            _make(db, call)
    return sent


def _make(db, call):
    db.delete_session("s2")
    db.create_session("s1", "v", "c")
    db.add_or_update_msgs_to_conv("s1", MESSAGES)
    db.add_or_update_context_msg("s1", {"reasoning": [1, 2]})
    result = call(db)
    if isinstance(result, Iterator):
        list(result)
