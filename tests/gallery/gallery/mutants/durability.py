"""LIF-2, and LIF-3 under kills: what a caller was told is stored, and is not."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path

from director_db.rows import SaveOutcome
from gallery.broken import ROUND_TRIP, BrokenDB


class _Buffering(BrokenDB):
    """Keeps messages of sessions that exist in memory for a while; its own reads see them."""

    def __init__(self, db_path, **kwargs):
        super().__init__(db_path, **kwargs)
        self._buffer = []
        self._order = threading.RLock()

    def _flush(self):
        with self._order:
            while self._buffer:
                super()._upsert_messages(*self._buffer.pop(0))

    def _upsert_messages(self, session_id, rows):
        if super()._select_session(session_id) is None:
            return False
        with self._order:
            self._buffer.append((session_id, rows))
            self._buffered()
        return True

    def _buffered(self):
        """Decide what happens to what was buffered just now."""
        raise NotImplementedError

    def _select_session(self, session_id):
        self._flush()
        return super()._select_session(session_id)

    def _select_sessions(self, query):
        self._flush()
        return super()._select_sessions(query)

    def _select_messages(self, query):
        self._flush()
        return super()._select_messages(query)

    def _select_messages_by_id(self, session_id, msg_ids):
        self._flush()
        return super()._select_messages_by_id(session_id, msg_ids)

    def _select_message(self, session_id, msg_id):
        self._flush()
        return super()._select_message(session_id, msg_id)

    def _update_session(self, session_id, changes):
        self._flush()
        return super()._update_session(session_id, changes)

    def _delete_message(self, session_id, msg_id):
        self._flush()
        return super()._delete_message(session_id, msg_id)

    def _delete_messages(self, session_id):
        self._flush()
        return super()._delete_messages(session_id)

    def _delete_session(self, session_id):
        self._flush()
        return super()._delete_session(session_id)

    def _close(self):
        self._flush()
        super()._close()


class WriteBehind(_Buffering, rule="LIF-2", level="durable"):
    """A thread stores what callers were told is stored, a moment later."""

    def _buffered(self):
        threading.Timer(0.02, self._flush_quietly).start()

    def _flush_quietly(self):
        with contextlib.suppress(Exception):
            self._flush()


class EveryTenthIsCommitted(_Buffering, rule="LIF-2", level="durable"):
    """A commit for each ten writes, to be quick."""

    def _buffered(self):
        if len(self._buffer) >= 10:
            self._flush()


class StoredWhenRead(_Buffering, rule="LIF-2", level="durable"):
    """What was written stays in memory until it is read, or until the close."""

    def _buffered(self):
        pass


class StoredAtTheClose(BrokenDB, rule="LIF-2", level="durable"):
    """Works on a copy of the file, which takes the file's place when it is closed."""

    def __init__(self, db_path, **kwargs):
        self._original = db_path
        copy = f"{db_path}.{os.getpid()}.{id(self)}"
        super().__init__(copy, **kwargs)

    def _insert_session(self, row):
        if Path(self._original).exists() and not Path(self.db_path).exists():
            _copy(self._original, self.db_path)
        return super()._insert_session(row)

    def _close(self):
        super()._close()
        if Path(self.db_path).exists():
            _copy(self.db_path, self._original)


def _copy(source, target):
    with (
        contextlib.closing(sqlite3.connect(source)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)


class LogThrownAway(BrokenDB, rule="LIF-2", level="durable"):
    """A log that lies about is taken for a leftover and removed before the file is opened."""

    def __init__(self, db_path, **kwargs):
        super().__init__(db_path, **kwargs)
        for suffix in ("-wal", "-shm"):
            Path(f"{db_path}{suffix}").unlink(missing_ok=True)


class ContextsLater(BrokenDB, rule="LIF-2", level="durable"):
    """A context is stored by the next save of it, or by a read, or by the close."""

    incremental_contexts = False

    def __init__(self, db_path, **kwargs):
        super().__init__(db_path, **kwargs)
        self._waiting = {}

    def _flush(self, session_id):
        row = self._waiting.pop(session_id, None)
        if row is not None:
            super()._save_context(row, if_version=None)

    def _save_context(self, row, *, if_version):
        self._flush(row.session_id)
        if if_version is not None or self._select_session(row.session_id) is None:
            return super()._save_context(row, if_version=if_version)
        self._waiting[row.session_id] = row
        return SaveOutcome.SAVED

    def _select_context(self, session_id):
        self._flush(session_id)
        return super()._select_context(session_id)

    def _delete_context(self, session_id):
        self._flush(session_id)
        return super()._delete_context(session_id)

    def _delete_session(self, session_id):
        self._flush(session_id)
        return super()._delete_session(session_id)

    def _select_sessions(self, query):
        for session_id in list(self._waiting):
            self._flush(session_id)
        return super()._select_sessions(query)

    def _close(self):
        for session_id in list(self._waiting):
            self._flush(session_id)
        super()._close()


class HalfABulk(BrokenDB, rule="LIF-3", level="durable"):
    """A bulk is two transactions; a kill in between leaves the first."""

    def _upsert_messages(self, session_id, rows):
        half = len(rows) // 2
        if half:
            super()._upsert_messages(session_id, rows[:half])
            time.sleep(2 * ROUND_TRIP)
        return super()._upsert_messages(session_id, rows[half:])


class DeleteKilledHalfWay(BrokenDB, rule="DEL-2", level="durable"):
    """A session's messages go in one transaction, the rest in the next; a kill parts them."""

    def _delete_session(self, session_id):
        conversation = self._delete_messages(session_id)
        time.sleep(2 * ROUND_TRIP)
        return super()._delete_session(session_id)._replace(conversation=conversation)
