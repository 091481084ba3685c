"""SES-4: listing sessions."""

from __future__ import annotations

from director_db import InvalidRecordError
from director_db.checks import page_limit
from director_db.rows import SessionQuery
from gallery.broken import BrokenDB, replace


def place_of(row):
    """Return what the order of sessions goes by."""
    return (row.updated_at, row.created_at, row.session_id)


class _Listed(BrokenDB):
    """Lists in Python, so that each step can go wrong by itself."""

    def _select_sessions(self, query):
        rows = [row for row in self._kept(query) if query.user_id in {None, row.user_id}]
        rows.sort(key=self._order, reverse=True)
        if query.before is not None:
            rows = self._following(rows, query.before)
        return rows if query.limit is None else rows[: query.limit]

    def _kept(self, query):
        return self._all(query.video_id, query.collection_id)

    def _order(self, row):
        return place_of(row)

    def _following(self, rows, before):
        return [row for row in rows if place_of(row) < before]

    def _all(self, video_id=None, collection_id=None):
        return list(super()._select_sessions(SessionQuery(None, None, video_id, collection_id)))


class OldestFirst(_Listed, rule="SES-4"):
    """ORDER BY without DESC."""

    def _select_sessions(self, query):
        return super()._select_sessions(query)[::-1]


class ByCreation(_Listed, rule="SES-4"):
    """By `created_at`: the list is not by last activity."""

    def _order(self, row):
        return (row.created_at, row.updated_at, row.session_id)


class TiesInAnyOrder(_Listed, rule="SES-4"):
    """ORDER BY updated_at DESC alone: ties come as they were found."""

    def _kept(self, query):
        return super()._kept(query)[::-1]

    def _order(self, row):
        return row.updated_at


class TiesOfCreationAscending(_Listed, rule="SES-4"):
    """ORDER BY updated_at DESC, created_at, session_id: DESC holds for one column only."""

    def _select_sessions(self, query):
        rows = sorted(self._kept(query), key=lambda row: (-row.updated_at, *row[3::-3]))
        if query.before is not None:
            rows = self._following(rows, query.before)
        return rows[: query.limit]


class TiesWithoutCreation(_Listed, rule="SES-4"):
    """By `updated_at` and the id, as most lists are."""

    def _order(self, row):
        return (row.updated_at, row.session_id)


class TiesIgnoreCase(_Listed, rule="SES-4"):
    """Ids ordered as a locale does it, and not by code point."""

    def _order(self, row):
        return (row.updated_at, row.created_at, row.session_id.lower(), row.session_id)


class TiesByUtf16(_Listed, rule="SES-4"):
    """Ids ordered by UTF-16 units, as in Java and JavaScript: astral characters come too early."""

    def _order(self, row):
        return (row.updated_at, row.created_at, row.session_id.encode("utf-16-be"))


class PageRepeatsTheCursor(_Listed, rule="SES-4"):
    """<= for <."""

    def _following(self, rows, before):
        return [row for row in rows if place_of(row) <= before]


class PageSkipsTies(_Listed, rule="SES-4"):
    """A cursor of `updated_at` alone: what is tied with it is never seen."""

    def _following(self, rows, before):
        return [row for row in rows if row.updated_at < before[0]]


class PageRepeatsTies(_Listed, rule="SES-4"):
    """Three conditions with OR where the first columns should be tied."""

    def _following(self, rows, before):
        return [
            row for row in rows if any(a < b for a, b in zip(place_of(row), before, strict=True))
        ]


class CursorIsLookedUp(_Listed, rule="SES-4"):
    """Only the cursor's id is used: when that session is gone, the next page is empty."""

    def _following(self, rows, before):
        ids = [row.session_id for row in rows]
        return rows[ids.index(before[2]) + 1 :] if before[2] in ids else []


class GoneCursorStartsAnew(_Listed, rule="SES-4"):
    """Only the cursor's id is used: when that session is gone, the first page comes again."""

    def _following(self, rows, before):
        ids = [row.session_id for row in rows]
        return rows[ids.index(before[2]) + 1 :] if before[2] in ids else rows


class CursorIsTheStoredOne(_Listed, rule="SES-4"):
    """The cursor's times are read from its row, which has moved on since it was returned."""

    def _following(self, rows, before):
        stored = self._select_session(before[2])
        return super()._following(rows, before if stored is None else place_of(stored))


class CursorNeedsAllFields(BrokenDB, rule="SES-4"):
    """The cursor has to be a whole session."""

    def get_sessions(self, *, before=None, **kwargs):
        if isinstance(before, dict) and "metadata" not in before:
            message = "lacks metadata"
            raise InvalidRecordError("before", message)
        return super().get_sessions(before=before, **kwargs)


class BrokenCursorIsNone(BrokenDB, rule="SES-4"):
    """A cursor that is not a session is taken for none, and the first page comes again."""

    def get_sessions(self, *, before=None, **kwargs):
        try:
            return super().get_sessions(before=before, **kwargs)
        except InvalidRecordError as error:
            if not error.path.startswith("before"):
                raise
            return super().get_sessions(**kwargs)


class SessionLimitOffByOne(BrokenDB, rule="SES-4"):
    """The extra row that tells whether there is a next page is returned too."""

    def _select_sessions(self, query):
        limit = None if query.limit is None else min(query.limit + 1, 2**63 - 1)
        return super()._select_sessions(query._replace(limit=limit))


class FiftyByDefault(BrokenDB, rule="SES-4"):
    """Without a limit one page comes, not all."""

    def _select_sessions(self, query):
        return super()._select_sessions(query)[: 50 if query.limit is None else None]


class LimitOfZeroMeansAll(BrokenDB, rule="SES-4"):
    """``if limit:``."""

    def get_sessions(self, *, limit=None, **kwargs):
        return super().get_sessions(limit=None if limit == 0 else limit, **kwargs)


class NegativeLimitMeansAll(BrokenDB, rule="SES-4"):
    """LIMIT -1 is all in SQL."""

    def get_sessions(self, *, limit=None, **kwargs):
        negative = isinstance(limit, int) and limit < 0
        return super().get_sessions(limit=None if negative else limit, **kwargs)


class TrueIsALimit(BrokenDB, rule="SES-4"):
    """isinstance(True, int) holds."""

    @classmethod
    def break_code(cls):
        replace(page_limit, lambda value: page_limit(1 if value is True else value))


class FloatIsALimit(BrokenDB, rule="SES-4"):
    """int(limit) takes 2.0 and "2" as well."""

    @classmethod
    def break_code(cls):
        replace(
            page_limit,
            lambda value: page_limit(int(value) if isinstance(value, (float, str)) else value),
        )


class HugeLimitRefused(BrokenDB, rule="SES-4"):
    """A limit has to fit the column type of the engine."""

    @classmethod
    def break_code(cls):
        def broken(value):
            if isinstance(value, int) and value >= 2**31:
                message = "at most 2147483647"
                raise InvalidRecordError("limit", message)
            return page_limit(value)

        replace(page_limit, broken)


class FiltersAreAlternatives(_Listed, rule="SES-4"):
    """OR between the filters."""

    def _kept(self, query):
        if query.video_id is None or query.collection_id is None:
            return super()._kept(query)
        by_video = self._all(query.video_id)
        return by_video + [
            row for row in self._all(None, query.collection_id) if row not in by_video
        ]


class SecondFilterIgnored(_Listed, rule="SES-4"):
    """``elif``: with a video, the collection is not looked at."""

    def _kept(self, query):
        return self._all(query.video_id, query.collection_id if query.video_id is None else None)


class FiltersByPrefix(_Listed, rule="SES-4"):
    """LIKE 'value%'."""

    def _kept(self, query):
        video, collection = query.video_id or "", query.collection_id or ""
        return [
            row
            for row in self._all()
            if (row.video_id or "").startswith(video)
            and (row.collection_id or "").startswith(collection)
        ]


class FilterFindsNull(_Listed, rule="SES-4"):
    """IS NULL OR =: sessions that have no video match every video."""

    def _kept(self, query):
        return [
            row
            for row in self._all(None, query.collection_id)
            if query.video_id is None or row.video_id in {None, query.video_id}
        ]


class EmptyFilterIsNone(BrokenDB, rule="SES-4"):
    """``if video_id:``: an empty text filters nothing."""

    def _select_sessions(self, query):
        query = query._replace(
            video_id=query.video_id or None, collection_id=query.collection_id or None
        )
        return super()._select_sessions(query)


class FilteredById(_Listed, rule="SES-4"):
    """What is filtered comes in the order of the index that found it."""

    def _select_sessions(self, query):
        rows = super()._select_sessions(query)
        if query.video_id is not None or query.collection_id is not None:
            rows.sort(key=lambda row: row.session_id, reverse=True)
        return rows


class FilteredByWhatItWas(_Listed, rule="SES-4"):
    """The index of videos is written when a session is created, and never again."""

    def _insert_session(self, row):
        is_new = super()._insert_session(row)
        self.__dict__.setdefault("_videos", {}).setdefault(row.session_id, row.video_id)
        return is_new

    def _kept(self, query):
        rows = self._all(None, query.collection_id)
        if query.video_id is None:
            return rows
        videos = self.__dict__.get("_videos", {})
        return [row for row in rows if videos.get(row.session_id) == query.video_id]


class FilterOfUsersIgnored(BrokenDB, rule="SES-4"):
    """A filter that came later, which one of the layers in between does not pass on."""

    def _select_sessions(self, query):
        return super()._select_sessions(query._replace(user_id=None))


class UsersFoundByPrefix(_Listed, rule="SES-4"):
    """LIKE, as users write their own names."""

    def _select_sessions(self, query):
        wanted = query.user_id or ""
        rows = super()._select_sessions(query._replace(user_id=None, limit=None))
        found = [row for row in rows if (row.user_id or "").startswith(wanted)]
        return found[: query.limit]


class FilterAfterTheLimit(BrokenDB, rule="SES-4"):
    """The page is cut before it is filtered, so pages come short."""

    def _select_sessions(self, query):
        rows = super()._select_sessions(query._replace(video_id=None))
        return [row for row in rows if query.video_id in {None, row.video_id}]


class ImpossibleFilterRaises(BrokenDB, rule="SES-4"):
    """A filter that no session can have is refused instead of finding nothing."""

    def get_sessions(self, *, video_id=None, collection_id=None, **kwargs):
        for path, value in (("video_id", video_id), ("collection_id", collection_id)):
            if value is not None and not (isinstance(value, str) and len(value) <= 255):
                message = "a str of at most 255 characters"
                raise InvalidRecordError(path, message)
        return super().get_sessions(video_id=video_id, collection_id=collection_id, **kwargs)
