"""VAL-4, VAL-5: ids, other texts, and times."""

from __future__ import annotations

import time
import unicodedata

from director_db import InvalidRecordError
from director_db.checks import MAX_TEXT_CHARACTERS, lookup_id, optional_text, required_id, timestamp
from gallery.broken import BrokenDB, replace


class _LooseIds(BrokenDB):
    """Takes ids for the same where `_fold` is the same; the first that was stored stands for all.

    So compares a database with another collation than that of code points: what is stored comes
    back as it was, and only the comparison is loose.
    """

    incremental_contexts = False

    @staticmethod
    def _fold(text):
        raise NotImplementedError

    def _session(self, session_id):
        known = self._execute("SELECT session_id FROM director_sessions ORDER BY rowid")
        return self._first_alike(session_id, known)

    def _message(self, session_id, msg_id):
        known = self._execute(
            "SELECT msg_id FROM director_conversations WHERE session_id = ? ORDER BY seq",
            session_id,
        )
        return self._first_alike(msg_id, known)

    def _first_alike(self, wanted, known):
        folded = self._fold(wanted)
        return next((text for (text,) in known if self._fold(text) == folded), wanted)

    def _insert_session(self, row):
        return super()._insert_session(row._replace(session_id=self._session(row.session_id)))

    def _select_session(self, session_id):
        return super()._select_session(self._session(session_id) if session_id else session_id)

    def _update_session(self, session_id, changes):
        return super()._update_session(self._session(session_id), changes)

    def _delete_session(self, session_id):
        return super()._delete_session(self._session(session_id))

    def _upsert_messages(self, session_id, rows):
        session_id = self._session(session_id)
        rows = [row._replace(msg_id=self._message(session_id, row.msg_id)) for row in rows]
        return super()._upsert_messages(session_id, rows)

    def _select_messages(self, query):
        session_id = self._session(query.session_id)
        before, after = (
            None if cursor is None else self._message(session_id, cursor)
            for cursor in (query.before, query.after)
        )
        query = query._replace(session_id=session_id, before=before, after=after)
        return super()._select_messages(query)

    def _select_messages_by_id(self, session_id, msg_ids):
        session_id = self._session(session_id)
        msg_ids = [self._message(session_id, msg_id) for msg_id in msg_ids]
        return super()._select_messages_by_id(session_id, msg_ids)

    def _select_message(self, session_id, msg_id):
        session_id = self._session(session_id)
        return super()._select_message(session_id, self._message(session_id, msg_id))

    def _delete_message(self, session_id, msg_id):
        session_id = self._session(session_id)
        return super()._delete_message(session_id, self._message(session_id, msg_id))

    def _delete_messages(self, session_id):
        return super()._delete_messages(self._session(session_id))

    def _save_context(self, row, *, if_version):
        row = row._replace(session_id=self._session(row.session_id))
        return super()._save_context(row, if_version=if_version)

    def _select_context(self, session_id):
        return super()._select_context(self._session(session_id))

    def _delete_context(self, session_id):
        return super()._delete_context(self._session(session_id))


# --- VAL-4 --------------------------------------------------------------------------------------


class CaseIgnored(_LooseIds, rule="VAL-4"):
    """A collation that ignores case, as MySQL's and SQL Server's defaults do."""

    @staticmethod
    def _fold(text):
        return text.casefold()


class TrailingSpaceIgnored(_LooseIds, rule="VAL-4"):
    """PAD SPACE: trailing spaces do not count."""

    @staticmethod
    def _fold(text):
        return text.rstrip(" ")


class FormsOfUnicodeIgnored(_LooseIds, rule="VAL-4"):
    """Composed and decomposed accents are the same."""

    @staticmethod
    def _fold(text):
        return unicodedata.normalize("NFC", text)


class AccentsIgnored(_LooseIds, rule="VAL-4"):
    """A collation that ignores accents."""

    @staticmethod
    def _fold(text):
        decomposed = unicodedata.normalize("NFD", text)
        return "".join(c for c in decomposed if not unicodedata.combining(c))


class ZeroWidthIgnored(_LooseIds, rule="VAL-4"):
    """Characters without width do not count, as in ICU's collations."""

    @staticmethod
    def _fold(text):
        return "".join(c for c in text if unicodedata.category(c) != "Cf")


class NumbersCompared(_LooseIds, rule="VAL-4"):
    """A column with the affinity of numbers: 1 and 01 are the same."""

    @staticmethod
    def _fold(text):
        return str(int(text)) if text.isascii() and text.isdecimal() else text


class FirstCharactersCompared(_LooseIds, rule="VAL-4"):
    """A prefix index: the first 64 characters are the key."""

    @staticmethod
    def _fold(text):
        return text[:64]


class Patterns(BrokenDB, rule="VAL-4"):
    """LIKE for =: % and _ in an id match others."""

    def _select_session(self, session_id):
        found = super()._select_session(session_id)
        if found is None and session_id:
            for (other,) in self._execute(
                "SELECT session_id FROM director_sessions WHERE session_id GLOB ?",
                _glob_of(session_id),
            ):
                return super()._select_session(other)
        return found

    def _delete_message(self, session_id, msg_id):
        return bool(
            self._execute(
                """
                DELETE FROM director_conversations
                WHERE session_id = ? AND msg_id GLOB ? RETURNING 1
                """,
                session_id,
                _glob_of(msg_id),
            )
        )


def _glob_of(pattern):
    # LIKE also ignores case in SQLite, which is another mutant's mistake.
    plain = "".join(f"[{c}]" if c in "*?[" else c for c in pattern)
    return plain.replace("%", "*").replace("_", "?")


class _OtherIds(BrokenDB):
    """Changes or checks ids on their way in, on writes and on reads."""

    @classmethod
    def break_code(cls):
        replace(required_id, lambda value, path: required_id(cls._id(value, path), path))
        replace(lookup_id, cls._looked_up)

    @classmethod
    def _looked_up(cls, value):
        try:
            return lookup_id(cls._id(value, "id"))
        except InvalidRecordError:
            return None

    @classmethod
    def _id(cls, value, path):
        """Return the id that is used."""
        raise NotImplementedError


class IdsLowered(_OtherIds, rule="VAL-4"):
    """lower() on the way in."""

    @classmethod
    def _id(cls, value, path):
        return value.lower() if isinstance(value, str) else value


class IdsTrimmed(_OtherIds, rule="VAL-4"):
    """strip() on the way in."""

    @classmethod
    def _id(cls, value, path):
        return value.strip() or value if isinstance(value, str) else value


class IdsCut(_OtherIds, rule="VAL-4"):
    """VARCHAR(255) that cuts what is longer without a word."""

    @classmethod
    def _id(cls, value, path):
        return value[:MAX_TEXT_CHARACTERS] if isinstance(value, str) else value


class IdsEndAtNul(_OtherIds, rule="VAL-4"):
    """A text of C ends at U+0000."""

    @classmethod
    def _id(cls, value, path):
        return value.partition("\0")[0] if isinstance(value, str) else value


class SurrogatesInIdsReplaced(_OtherIds, rule="VAL-4"):
    """encode(errors="replace"): two ids become one."""

    @classmethod
    def _id(cls, value, path):
        return value.encode(errors="replace").decode() if isinstance(value, str) else value


class NumbersAreIds(_OtherIds, rule="VAL-4"):
    """str(id): 5 is taken, and True and None too."""

    @classmethod
    def _id(cls, value, path):
        return value if isinstance(value, str) else str(value)


class BytesForCharacters(_OtherIds, rule="VAL-4"):
    """255 bytes of UTF-8: an id of 255 emoji is refused."""

    @classmethod
    def _id(cls, value, path):
        if isinstance(value, str) and len(value.encode(errors="replace")) > MAX_TEXT_CHARACTERS:
            raise InvalidRecordError(path, "at most 255 bytes")
        return value


class UnitsForCharacters(_OtherIds, rule="VAL-4"):
    """255 units of UTF-16, as Java and JavaScript count."""

    @classmethod
    def _id(cls, value, path):
        if isinstance(value, str):
            units = len(value.encode("utf-16-le", "surrogatepass")) // 2
            if units > MAX_TEXT_CHARACTERS:
                raise InvalidRecordError(path, "at most 255 units")
        return value


class IdsAreWords(_OtherIds, rule="VAL-4"):
    """A pattern for ids: no spaces, quotes or slashes."""

    @classmethod
    def _id(cls, value, path):
        if isinstance(value, str) and not all(c.isalnum() or c in "-_.:" for c in value):
            raise InvalidRecordError(path, "letters and digits")
        return value


class AnyLength(BrokenDB, rule="VAL-4"):
    """TEXT has no bound, so none is checked."""

    @classmethod
    def break_code(cls):
        def broken(value, path):
            too_long = isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS
            return value if too_long else required_id(value, path)

        replace(required_id, broken)


class EmptyIdAccepted(BrokenDB, rule="VAL-4"):
    """An empty text is a text."""

    @classmethod
    def break_code(cls):
        replace(required_id, lambda value, path: value if value == "" else required_id(value, path))


class NoSessionIsTheDefault(BrokenDB, rule="VAL-4"):
    """None for the session is taken for a default one."""

    def create_session(self, session_id, *args, **kwargs):
        return super().create_session(
            "default" if session_id is None else session_id, *args, **kwargs
        )


class EmptyConvIdIsNone(BrokenDB, rule="MSG-8"):
    """``conv_id or None``: callers store "" and read None."""

    @classmethod
    def break_code(cls):
        def broken(value, path):
            text = optional_text(value, path)
            return None if text == "" and path.endswith("conv_id") else text

        replace(optional_text, broken)


class EmptyTextsRefused(BrokenDB, rule="MSG-8"):
    """Every text is checked as an id: `conv_id` "" is refused."""

    @classmethod
    def break_code(cls):
        replace(
            optional_text, lambda value, path: None if value is None else required_id(value, path)
        )


class NoConvIdIsEmpty(BrokenDB, rule="MSG-8"):
    """``conv_id or ""``: None comes back as ""."""

    @classmethod
    def break_code(cls):
        def broken(value, path):
            text = optional_text(value, path)
            return "" if text is None and path.endswith("conv_id") else text

        replace(optional_text, broken)


class OtherTextsUnchecked(BrokenDB, rule="VAL-4"):
    """Only ids are checked; a `video_id` of 256 characters is stored."""

    @classmethod
    def break_code(cls):
        def broken(value, path):
            too_long = isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS
            return value if too_long else optional_text(value, path)

        replace(optional_text, broken)


class ReadsRefuseBadIds(BrokenDB, rule="VAL-4"):
    """Reads check ids as writes do, where nothing is to be found."""

    @classmethod
    def break_code(cls):
        replace(lookup_id, lambda value: required_id(value, "session_id"))


class DeletesRefuseBadIds(BrokenDB, rule="VAL-4"):
    """Deletes check ids as writes do."""

    def delete_session(self, session_id):
        required_id(session_id, "session_id")
        return super().delete_session(session_id)


class MessageDeletesRefuseBadIds(BrokenDB, rule="VAL-4"):
    """The same for messages, whose id may come from anywhere."""

    def delete_message(self, session_id, msg_id):
        required_id(msg_id, "msg_id")
        return super().delete_message(session_id, msg_id)


# --- VAL-5 --------------------------------------------------------------------------------------


class _OtherTimes(BrokenDB):
    """Changes times on their way in."""

    @classmethod
    def break_code(cls):
        replace(timestamp, lambda value, path: timestamp(cls._time(value, path), path))

    @classmethod
    def _time(cls, value, path):
        """Return the time that is checked and stored."""
        raise NotImplementedError


class ZeroIsNow(_OtherTimes, rule="VAL-5"):
    """``created_at or now()``."""

    @classmethod
    def _time(cls, value, path):
        return int(time.time()) if value == 0 and type(value) is int else value


class ZeroIsNowInUpdates(BrokenDB, rule="VAL-5"):
    """The same, in `update_session` only."""

    def update_session(self, session_id, *, updated_at=None, **kwargs):
        super().update_session(session_id, updated_at=updated_at or None, **kwargs)


class FloatsTruncated(_OtherTimes, rule="VAL-5"):
    """int(value): time.time() is taken, and loses its fraction."""

    @classmethod
    def _time(cls, value, path):
        return int(value) if isinstance(value, float) and abs(value) < 2**63 else value


class WholeFloatsAreTimes(_OtherTimes, rule="VAL-5"):
    """5.0 is taken for 5."""

    @classmethod
    def _time(cls, value, path):
        return int(value) if isinstance(value, float) and value.is_integer() else value


class TrueIsATime(_OtherTimes, rule="VAL-5"):
    """isinstance(True, int) holds."""

    @classmethod
    def _time(cls, value, path):
        return int(value) if isinstance(value, bool) else value


class TextsAreTimes(_OtherTimes, rule="VAL-5"):
    """int(value): "5" is taken."""

    @classmethod
    def _time(cls, value, path):
        return int(value) if isinstance(value, str) and value.isdecimal() else value


class DatesAreTimes(_OtherTimes, rule="VAL-5"):
    """A datetime is taken, and its time zone guessed."""

    @classmethod
    def _time(cls, value, path):
        return int(value.timestamp()) if hasattr(value, "timestamp") else value


class NegativeTimesRefused(_OtherTimes, rule="VAL-5"):
    """Nobody wrote anything before 1970."""

    @classmethod
    def _time(cls, value, path):
        if isinstance(value, int) and value < 0:
            raise InvalidRecordError(path, "at least 0")
        return value


class NegativeTimesAreNow(_OtherTimes, rule="VAL-5"):
    """A time before 1970 is taken for none."""

    @classmethod
    def _time(cls, value, path):
        return int(time.time()) if isinstance(value, int) and value < 0 else value


class ShortTimes(_OtherTimes, rule="VAL-5"):
    """INTEGER of 32 bits."""

    @classmethod
    def _time(cls, value, path):
        if isinstance(value, int) and not -(2**31) <= value < 2**31:
            raise InvalidRecordError(path, "32 bits")
        return value


class LongTimesCut(_OtherTimes, rule="VAL-5"):
    """Beyond 64 bits the nearest time is taken."""

    @classmethod
    def _time(cls, value, path):
        if isinstance(value, int) and not isinstance(value, bool):
            return max(-(2**63), min(value, 2**63 - 1))
        return value


class MillisecondsGuessed(_OtherTimes, rule="VAL-5"):
    """What is large is taken for milliseconds, and divided."""

    @classmethod
    def _time(cls, value, path):
        return value // 1000 if type(value) is int and 10**12 <= value < 10**14 else value


class TimesThroughFloats(_OtherTimes, rule="VAL-5"):
    """DOUBLE: beyond 2**53 the last digits are lost."""

    @classmethod
    def _time(cls, value, path):
        if type(value) is int and 2**53 < abs(value) < 2**63 - 2048:
            return int(float(value))
        return value
