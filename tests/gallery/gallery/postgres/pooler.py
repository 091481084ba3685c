"""Behind PgBouncer, where each transaction may be on another connection of the server."""

from __future__ import annotations

import sys

from director_db_postgres.connections import Connection, Connector
from director_db_postgres.pipeline import PipelinedConnection
from gallery.postgres.broken import Pooled


def _prepare_at_once(self, connector):
    self.prepare_threshold = sys.maxsize


class PreparesAllTheSame(Pooled, rule="LIF-1", level="concurrent"):
    """Statements are prepared, and the server that has to execute them is another one."""

    by = "threads_share_one_instance"

    @classmethod
    def break_code(cls):
        Connection.find_out = Connection.expect_pooler = _prepare_at_once


class StatementsOfOthers(Pooled, rule="LIF-1", level="concurrent"):
    """Prepared statements are numbered, so that those of another client have the same names."""

    by = "a_second_handle_sees_every_write"

    @classmethod
    def break_code(cls):
        PipelinedConnection._prefix = "_pg3_"
        Connection.find_out = Connection.expect_pooler = _prepare_at_once
        Connector.tell_pooled = lambda self, sign: None
