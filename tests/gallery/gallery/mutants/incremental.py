"""CTX-3, CTX-4: mistakes of a backend that keeps a context's list item by item."""

from __future__ import annotations

import itertools

from director_db import InvalidRecordError
from director_db.context.version import new_version
from gallery.broken import BrokenDB, replace


class VersionUnchecked(BrokenDB, rule="CTX-3", level="concurrent"):
    """What changed since this handle's last save is stored, whatever another one saved since."""

    def _save_context_change(self, change):
        return super()._save_context_change(change._replace(if_version=None))


class OneVersionForAll(BrokenDB, rule="CTX-3", level="concurrent"):
    """Every save has the same version, so that each is taken for the one that is known."""

    @classmethod
    def break_code(cls):
        replace(new_version, lambda: 1)


class VersionsCountedInTheProcess(BrokenDB, rule="CTX-3", level="concurrent"):
    """Versions are counted by each process, and those of two are soon the same."""

    @classmethod
    def break_code(cls):
        numbers = itertools.count(1)
        replace(new_version, lambda: next(numbers) % 3 + 1)


class LastChangeOnly(BrokenDB, rule="CTX-3"):
    """Of several items that changed, the last is stored."""

    def _save_context_change(self, change):
        if change.if_version is not None:
            change = change._replace(indexes=change.indexes[-1:], items=change.items[-1:])
        return super()._save_context_change(change)


class NewItemsOnly(BrokenDB, rule="CTX-3"):
    """Items that changed in their place are not stored, only those at new ones."""

    def _save_context_change(self, change):
        if change.if_version is not None:
            known = self._execute(
                "SELECT count(*) FROM director_context_items WHERE session_id = ?",
                change.row.session_id,
            )[0][0]
            kept = [
                (index, item)
                for index, item in zip(change.indexes, change.items, strict=True)
                if index >= known
            ]
            change = change._replace(
                indexes=[index for index, _ in kept], items=[item for _, item in kept]
            )
        return super()._save_context_change(change)


class RestStaysAsItWas(BrokenDB, rule="CTX-3"):
    """What stands beside the list is stored with the first save only."""

    def _save_context_change(self, change):
        known = change.if_version is not None
        return super()._save_context_change(
            change._replace(rest_changed=change.rest_changed and not known)
        )


class RemovedItemsStay(BrokenDB, rule="CTX-3"):
    """Items beyond the end of a list that became shorter are not deleted."""

    def _save_context_change(self, change):
        beyond = self._execute(
            "SELECT * FROM director_context_items WHERE session_id = ? AND idx >= ?",
            change.row.session_id,
            change.list_len,
        )
        outcome = super()._save_context_change(change)
        for row in beyond:
            self._execute("INSERT INTO director_context_items VALUES (?, ?, ?)", *row)
        return outcome


class SizeOfTheFirstSave(BrokenDB, rule="CTX-4"):
    """The length of the whole is stored when the context is new, and an append believes it."""

    def _save_context_change(self, change):
        known = self._execute(
            "SELECT bytes FROM director_context_messages WHERE session_id = ?",
            change.row.session_id,
        )
        if known:
            change = change._replace(total_bytes=known[0][0])
        return super()._save_context_change(change)


class FirstAppendOfAnyLength(BrokenDB, rule="CTX-4"):
    """The bound is checked where there is something to append to."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        try:
            return super().append_context_messages(session_id, messages, key=key)
        except InvalidRecordError:
            is_long = isinstance(messages, list) and [*map(type, messages[:1])] == [str]
            if not is_long or self.get_context(session_id):
                raise
            self.add_or_update_context_msg(session_id, {key: messages[:1]})
            return 1


class AppendToTheKeptList(BrokenDB, rule="CTX-4"):
    """The one list that is kept in parts is appended to, whatever its key."""

    def _append_context(self, append):
        kept = self._execute(
            "SELECT list_key FROM director_context_messages WHERE session_id = ?",
            append.session_id,
        )
        if kept and kept[0][0] is not None:
            append = append._replace(list_key=kept[0][0])
        return super()._append_context(append)
