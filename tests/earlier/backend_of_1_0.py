"""A backend as its author wrote it for version 1.0 of the contract; it is not to be changed."""

from __future__ import annotations

import threading

from director_db import UNSET, BaseDB, ConfigurationError, Health
from director_db.rows import (
    NO_CONTEXT,
    DeletedComponents,
    SaveOutcome,
    SessionRow,
    StoredContext,
    StoredMessage,
)


class BackendOf10(BaseDB, db_type="of10"):
    """Keeps everything in dicts, private to the instance."""

    def __init__(self, name="toy"):
        self.name = name
        self._lock = threading.Lock()
        self._sessions, self._messages, self._contexts = {}, {}, {}

    # --- Settings and life

    @classmethod
    def _settings(cls, environ, url):
        name = environ.get("TOY_NAME", "toy") if url is None else url.removeprefix("toy://")
        if not name:
            raise ConfigurationError("A toy has a name: set TOY_NAME, or use toy://name.")  # noqa: TRY003
        return {"name": name}

    @property
    def place(self):
        return f"toy://{self.name}"

    def _check(self):
        return Health("toy", self.place, {"schema": "1"}, ["Kept in memory."])

    def _close(self):
        pass

    def _abandon(self):
        self._lock = threading.Lock()  # The old one may be held by a thread that is not here.

    def _translate(self, error):
        return None  # Dicts have no driver.

    # --- Sessions

    def _insert_session(self, row):
        with self._lock:
            session_id, video, collection, created_at, updated_at, metadata = row
            stored = SessionRow._make(
                (session_id, video, collection, created_at, updated_at, metadata)
            )
            self._sessions.setdefault(session_id, stored)

    def _select_session(self, session_id):
        with self._lock:
            return self._sessions.get(session_id)

    def _select_sessions(self, query):
        def key(row):
            return row.updated_at, row.created_at, row.session_id

        with self._lock:
            rows = sorted(self._sessions.values(), key=key, reverse=True)
        found = [
            row
            for row in rows
            if (query.before is None or key(row) < query.before)
            and query.video_id in (None, row.video_id)
            and query.collection_id in (None, row.collection_id)
        ]
        return found[: query.limit]

    def _update_session(self, session_id, changes):
        with self._lock:
            row = self._sessions.get(session_id)
            if row is None:
                return False
            given = {name: value for name, value in changes._asdict().items() if value is not UNSET}
            self._sessions[session_id] = row._replace(**given)
            return True

    def _delete_session(self, session_id):
        with self._lock:
            return DeletedComponents(
                conversation=bool(self._messages.pop(session_id, None)),
                context=self._contexts.pop(session_id, None) is not None,
                session=self._sessions.pop(session_id, None) is not None,
            )

    def _touch(self, session_id, updated_at):
        """Move the session's time forward; False if there is no such session."""
        row = self._sessions.get(session_id)
        if row is None:
            return False
        latest = max(row.updated_at, updated_at)
        self._sessions[session_id] = row._replace(updated_at=latest)
        return True

    # --- Messages: a dict keeps the order of first insertion, which is what MSG-3 wants

    def _upsert_messages(self, session_id, rows):
        with self._lock:
            if not self._touch(session_id, max(row.updated_at for row in rows)):
                return False
            messages = self._messages.setdefault(session_id, {})
            for row in rows:
                fields = row._asdict()
                if not fields.pop("created_at_given") and row.msg_id in messages:
                    fields["created_at"] = messages[row.msg_id].created_at
                messages[row.msg_id] = StoredMessage(session_id=session_id, **fields)
            return True

    def _select_messages(self, query):
        with self._lock:
            if query.session_id not in self._sessions:
                return []
            rows = list(self._messages.get(query.session_id, {}).values())
        places = {row.msg_id: place for place, row in enumerate(rows)}
        cursor = query.after if query.before is None else query.before
        if cursor is not None and cursor not in places:
            return None
        if query.after is not None:
            return rows[places[query.after] + 1 :][: query.limit]
        rows = rows[: places.get(query.before)]
        return rows if query.limit is None else rows[-query.limit :]

    def _select_message(self, session_id, msg_id):
        with self._lock:
            return self._messages.get(session_id, {}).get(msg_id)

    def _delete_message(self, session_id, msg_id):
        with self._lock:
            return self._messages.get(session_id, {}).pop(msg_id, None) is not None

    def _delete_messages(self, session_id):
        with self._lock:
            return bool(self._messages.pop(session_id, None))

    # --- Context

    def _save_context(self, row, *, if_version):
        with self._lock:
            if row.session_id not in self._sessions:
                return SaveOutcome.NO_SESSION
            known = self._contexts.get(row.session_id)
            version = NO_CONTEXT if known is None else known.version
            if if_version is not None and if_version != version:
                return SaveOutcome.CONFLICT
            self._touch(row.session_id, row.updated_at)
            fields = row._asdict()
            if not fields.pop("created_at_given") and known is not None:
                fields["created_at"] = known.created_at
            self._contexts[row.session_id] = StoredContext(**fields)
            return SaveOutcome.SAVED

    def _select_context(self, session_id):
        with self._lock:
            return self._contexts.get(session_id)

    def _delete_context(self, session_id):
        with self._lock:
            return self._contexts.pop(session_id, None) is not None
