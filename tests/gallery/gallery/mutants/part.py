"""MSG-6, MSG-10: a part of a conversation. MSG-12: messages by their ids."""

from __future__ import annotations

from functools import partial

from director_db import InvalidRecordError
from director_db.checks import MAX_IDS, PAGE, lookup_id, message_part
from director_db.rows import MessageQuery, StoredMessage
from gallery.broken import BrokenDB, read_until_changed
from gallery.mutants.paging import belongs

# --- MSG-6 --------------------------------------------------------------------------------------


class _OwnPart(BrokenDB):
    """Filters the page of all messages in Python, as `_belongs` says."""

    def _belongs(self, row, query):
        return belongs(row, query)

    def _select_messages(self, query):
        rows = super()._select_messages(MessageQuery(*query[:4])._replace(limit=None))
        if rows is None:
            return None
        found = [row for row in rows if self._belongs(row, query)]
        if query.limit is None:
            return found
        return found[: query.limit] if query.after is not None else found[-query.limit :]


class PartOfThePage(BrokenDB, rule="MSG-6"):
    """The page is read with its limit, and what does not belong to the part is dropped."""

    def _select_messages(self, query):
        rows = super()._select_messages(query._replace(conv_id=None, msg_type=None))
        return rows and [row for row in rows if belongs(row, query)]


class EitherWillDo(_OwnPart, rule="MSG-6"):
    """OR between the two conditions."""

    def _belongs(self, row, query):
        pairs = ((row.conv_id, query.conv_id), (row.msg_type, query.msg_type))
        given = [has == wanted for has, wanted in pairs if wanted is not None]
        return not given or any(given)


class CursorOfThePart(BrokenDB, rule="MSG-6"):
    """The cursor is looked for among the messages of the part, and others are unknown."""

    def _select_messages(self, query):
        cursor = query.after if query.before is None else query.before
        found = cursor and self._select_message(query.session_id, cursor)
        if found and not belongs(StoredMessage._make(found), query):
            return None
        return super()._select_messages(query)


class EmptyPartIsAll(BrokenDB, rule="MSG-6"):
    """``if conv_id:``."""

    def _select_messages(self, query):
        conv_id, msg_type = query.conv_id or None, query.msg_type or None
        return super()._select_messages(query._replace(conv_id=conv_id, msg_type=msg_type))


class PartsOfAnyCase(_OwnPart, rule="MSG-6"):
    """Two columns whose collation folds case."""

    def _belongs(self, row, query):
        fold = {"conv_id": (row.conv_id or "").lower(), "msg_type": row.msg_type.lower()}
        return all(
            getattr(query, name) is None or getattr(query, name).lower() == has
            for name, has in fold.items()
        )


class PartByPattern(_OwnPart, rule="MSG-6"):
    """LIKE."""

    def _belongs(self, row, query):
        pairs = ((row.conv_id, query.conv_id), (row.msg_type, query.msg_type))
        return all(
            pattern is None or self._execute("SELECT ? LIKE ?", has, pattern)[0][0]
            for has, pattern in pairs
        )


class ImpossiblePartIsAll(BrokenDB, rule="MSG-6"):
    """A value that no message can have is dropped by the check, and nothing is filtered."""

    def get_conversations(self, session_id, *, conv_id=None, msg_type=None, **page):
        if message_part(conv_id, msg_type) is None:
            conv_id = msg_type = None
        return super().get_conversations(session_id, conv_id=conv_id, msg_type=msg_type, **page)


class ImpossiblePartIsRefused(BrokenDB, rule="MSG-6"):
    """The filters are checked as the fields of a message are."""

    def get_conversations(self, session_id, *, conv_id=None, msg_type=None, **page):
        if message_part(conv_id, msg_type) is None and self.get_session(session_id):
            raise InvalidRecordError("conv_id", "no such value")
        return super().get_conversations(session_id, conv_id=conv_id, msg_type=msg_type, **page)


class ImpossiblePartUnchecked(BrokenDB, rule="MSG-6"):
    """Nothing can be found, so that nobody looks at the limit and the cursor."""

    def get_conversations(self, session_id, *, conv_id=None, msg_type=None, **page):
        if message_part(conv_id, msg_type) is None:
            return []
        return super().get_conversations(session_id, conv_id=conv_id, msg_type=msg_type, **page)


class UnknownCursorIsTheEndOfAPart(BrokenDB, rule="MSG-6"):
    """A statement of its own for parts, which does not tell the end from a cursor unknown."""

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        return [] if rows is None and query[4:] != (None, None) else rows


class PartsAsFirstStored(_OwnPart, rule="MSG-6"):
    """A table of its own for the parts, filled when a message is inserted."""

    def _upsert_messages(self, session_id, rows):
        first = self.__dict__.setdefault("_first", {})
        for row in rows:
            if self._select_message(session_id, row.msg_id) is None:
                first[session_id, row.msg_id] = row
        return super()._upsert_messages(session_id, rows)

    def _belongs(self, row, query):
        return belongs(self._first.get((row.session_id, row.msg_id), row), query)


class AThousandBackAtMost(BrokenDB, rule="MSG-6"):
    """The latest is sought among the last thousand messages."""

    def _select_messages(self, query):
        rows = super()._select_messages(query)
        if rows and query.limit is not None and query[4:] != (None, None):
            near = super()._select_messages(MessageQuery(query.session_id, 1000, None, None))
            ids = {row.msg_id for row in near}
            return [row for row in rows if row.msg_id in ids]
        return rows


# --- MSG-10 -------------------------------------------------------------------------------------


class FirstPageOfAll(BrokenDB, rule="MSG-10"):
    """The statement of the first page knows no part."""

    def _select_first_messages(self, session_id, limit, *_):
        return super()._select_first_messages(session_id, limit)


class PartOfTheFirstPage(BrokenDB, rule="MSG-10"):
    """The part is given for the first page only."""

    def _page_after(self, session_id, page, cursor, part):
        part = part if cursor is None else (None, None)
        return super()._page_after(session_id, page, cursor, part)


class ImpossiblePartHasAnyPage(BrokenDB, rule="MSG-10"):
    """Nothing can be found, so that nobody looks at the size of the page."""

    def _page_after(self, session_id, page, cursor, part):
        return [] if part is None else super()._page_after(session_id, page, cursor, part)


class PartSkippedAtItsStart(BrokenDB, rule="MSG-10"):
    """What has come is left out where it stands at the start, and a part has others in between."""

    def _message_pages(self, session_id, *, page=PAGE, conv_id=None, msg_type=None):
        part = message_part(conv_id, msg_type)
        seen, again, cursor = [], set(), None
        while True:
            found = self._page_after(session_id, page, cursor, part)
            if found is None:
                again = {*seen}
                found = self._page_after(session_id, page, None, part) or []
            while found and found[0]["msg_id"] in again:
                del found[0]
            if not found:
                return
            cursor = found[-1]["msg_id"]
            seen += [message["msg_id"] for message in found]
            yield found


# --- MSG-12 -------------------------------------------------------------------------------------


class InTheOrderOfTheIds(BrokenDB, rule="MSG-12"):
    """A loop over the ids."""

    def _select_messages_by_id(self, session_id, msg_ids):
        rows = [self._select_message(session_id, msg_id) for msg_id in msg_ids]
        return [row for row in rows if row is not None]


class InTheOrderOfTheIndex(BrokenDB, rule="MSG-12"):
    """No order is asked for, and the index gives its own."""

    def _select_messages_by_id(self, session_id, msg_ids):
        rows = map(StoredMessage._make, super()._select_messages_by_id(session_id, msg_ids))
        return sorted(rows, key=lambda row: row.msg_id)


class EachIdOnceMore(BrokenDB, rule="MSG-12"):
    """A join with the ids: one that is given twice comes twice."""

    def get_messages(self, session_id, ids):
        once = super().get_messages(session_id, ids)
        if not isinstance(ids, (list, tuple)):
            return once
        return [message for message in once for _ in range(list(ids).count(message["msg_id"]))]


class MissingIdsAreEmpty(BrokenDB, rule="MSG-12"):
    """As get_message: {} for one that is not there."""

    def get_messages(self, session_id, ids):
        found = super().get_messages(session_id, ids)
        return found or [{}] * (isinstance(ids, list) and 0 < len(ids) < PAGE)


class OfAnySession(BrokenDB, rule="MSG-12"):
    """The ids alone are looked for."""

    def _select_messages_by_id(self, session_id, msg_ids):
        names = self._execute("SELECT session_id FROM director_sessions ORDER BY session_id <> ?",
                              session_id)  # fmt: skip
        return [row for (name,) in names for row in super()._select_messages_by_id(name, msg_ids)]


class IdsInOneText(BrokenDB, rule="MSG-12"):
    """The ids are joined by commas, and taken apart there."""

    def _select_messages_by_id(self, session_id, msg_ids):
        msg_ids = list(dict.fromkeys(filter(None, ",".join(msg_ids).split(","))))
        return super()._select_messages_by_id(session_id, msg_ids)


class ImpossibleIdIsRefused(BrokenDB, rule="MSG-12"):
    """Each id is checked as that of a message to store."""

    def get_messages(self, session_id, ids):
        if isinstance(ids, (list, tuple)) and len(ids) < PAGE and self.get_session(session_id):
            for index, msg_id in enumerate(ids):
                if lookup_id(msg_id) is None:
                    raise InvalidRecordError(f"ids[{index}]", "no id")
        return super().get_messages(session_id, ids)


class TextIsAListOfIds(BrokenDB, rule="MSG-12"):
    """Whatever can be iterated is a list of ids, a text too."""

    def get_messages(self, session_id, ids):
        return super().get_messages(session_id, list(ids) if isinstance(ids, str) else ids)


class NoMessagesBeforeIdsAreChecked(BrokenDB, rule="MSG-12"):
    """The ids are checked first, also where there is no session."""

    def get_messages(self, session_id, ids):
        if not isinstance(ids, (list, tuple)):
            raise InvalidRecordError("ids", "a list")
        return super().get_messages(session_id, ids)


class AnyNumberOfIds(BrokenDB, rule="MSG-12"):
    """Nobody counts them."""

    def get_messages(self, session_id, ids):
        if isinstance(ids, (list, tuple)) and len(ids) > MAX_IDS:
            return []
        return super().get_messages(session_id, ids)


class FirstBatchOfIds(BrokenDB, rule="MSG-12"):
    """What goes into one statement is looked for, and the rest of the ids forgotten."""

    def _select_messages_by_id(self, session_id, msg_ids):
        return super()._select_messages_by_id(session_id, msg_ids[:32_766])


class MessagesOfTwoMoments(BrokenDB, rule="MSG-12", level="concurrent"):
    """Two batches, each a transaction of its own."""

    def _select_messages_by_id(self, session_id, msg_ids):
        read = partial(super()._select_messages_by_id, session_id, msg_ids)
        first = read()
        return [*first[:1], *read_until_changed(read, first, 1)[1:]]
