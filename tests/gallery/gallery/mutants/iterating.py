"""MSG-10, SES-7: iterating in pages."""

from __future__ import annotations

from director_db.checks import PAGE, message_part
from director_db.rows import MessageQuery
from gallery.broken import BrokenDB


class IterationOfAllUsers(BrokenDB, rule="SES-7"):
    """The filter that came later goes to the list alone."""

    def iter_sessions(self, *, user_id=None, **kwargs):
        return super().iter_sessions(**kwargs)


class FirstPageIsTheLast(BrokenDB, rule="MSG-10"):
    """A limit alone gives the last messages, and iterating begins with it."""

    def _select_first_messages(self, session_id, limit, *part):
        return self._select_messages(MessageQuery(session_id, limit, None, None, *part))


class DeletedCursorIsTheEnd(BrokenDB, rule="MSG-10"):
    """A cursor that is not there any more has nothing after it."""

    def _message_pages(self, session_id, *, page=PAGE, conv_id=None, msg_type=None):
        part = message_part(conv_id, msg_type)
        found = self._page_after(session_id, page, None, part)
        while found:
            cursor = found[-1]["msg_id"]
            yield found
            found = self._page_after(session_id, page, cursor, part)


class DeletedCursorRaises(BrokenDB, rule="MSG-10"):
    """Whoever iterates is told that a message is not in the session, and gets no further."""

    def _page_after(self, session_id, page, cursor, part):
        if cursor is not None:
            conv_id, msg_type = part
            return self.get_conversations(
                session_id, limit=page, after=cursor, conv_id=conv_id, msg_type=msg_type
            )
        return super()._page_after(session_id, page, cursor, part)


class DeletedCursorBeginsAnew(BrokenDB, rule="MSG-10"):
    """All over again from the first message where the cursor has gone."""

    def _page_after(self, session_id, page, cursor, part):
        found = super()._page_after(session_id, page, cursor, part)
        return super()._page_after(session_id, page, None, part) if found is None else found


class IterationReadsOnePage(BrokenDB, rule="MSG-10"):
    """What does not fit into the first page is never asked for."""

    def _message_pages(self, session_id, *, page=PAGE, conv_id=None, msg_type=None):
        yield self._page_after(session_id, page, None, message_part(conv_id, msg_type))


class IterationReadsItAll(BrokenDB, rule="MSG-10"):
    """One list after all: what is stored meanwhile does not come, and memory is what it takes."""

    def iter_conversations(self, session_id, *, page=PAGE, **part):
        list(self._message_pages(session_id, page=page))
        return iter(self.get_conversations(session_id, **part))


class CursorReadFromTheCallersRecord(BrokenDB, rule="MSG-10"):
    """The next page follows the record that was handed out, whatever has become of it."""

    def _message_pages(self, session_id, *, page=PAGE, conv_id=None, msg_type=None):
        part = message_part(conv_id, msg_type)
        found = self._page_after(session_id, page, None, part)
        while found:
            yield found
            found = self._page_after(session_id, page, found[-1].get("msg_id"), part)


class PagesBelowOne(BrokenDB, rule="MSG-10"):
    """``page or 1000``."""

    def _page_after(self, session_id, page, cursor, part):
        return super()._page_after(session_id, page or PAGE, cursor, part)


class SessionsByOffset(BrokenDB, rule="SES-7"):
    """LIMIT and OFFSET: what is deleted before moves the others, and one is left out."""

    def iter_sessions(self, *, page=PAGE, **filters):
        offset = 0
        while found := self.get_sessions(limit=offset + page, **filters)[offset:]:
            yield from found
            offset += page


class SessionsWithoutTheFilter(BrokenDB, rule="SES-7"):
    """The filter is given for the first page only."""

    def _session_pages(self, *, video_id=None, collection_id=None, page=PAGE):
        found = self.get_sessions(limit=page, video_id=video_id, collection_id=collection_id)
        while found:
            last = dict(found[-1])
            yield found
            found = self.get_sessions(limit=page, before=last) if len(found) == page else []


class FullLastPageOfSessionsTwice(BrokenDB, rule="SES-7"):
    """The last session of a page is the first of the next one."""

    def _session_pages(self, *, page=PAGE, **filters):
        found = self.get_sessions(limit=page, **filters)
        while found:
            last = dict(found[-1])
            yield found
            more = self.get_sessions(limit=page, before=last, **filters)
            found = [last, *more] if more else []
