"""CTX-5 and SES-8: compare and set, and merge patches."""

from __future__ import annotations

import json

from director_db import ConflictError, session_change
from director_db.context.version import expected_version, version_text
from director_db.errors import InvalidRecordError, SessionNotFoundError
from director_db.payload import decode_payload, encode_payload
from director_db.rows import NO_CONTEXT, UNSET, SaveOutcome
from gallery.broken import BrokenDB, replace
from gallery.mutants.concurrency import travel

# --- CTX-5 --------------------------------------------------------------------------------------


class VersionOnlyRead(BrokenDB, rule="CTX-5"):
    """There is a version, and nobody compares."""

    def _save_context_change(self, change):
        return super()._save_context_change(change._replace(if_version=None))


class NoneMeansAny(BrokenDB, rule="CTX-5"):
    """``if if_version:``, so that a first save overwrites."""

    def add_or_update_context_msg(self, *args, if_version=UNSET, **kwargs):
        expected = UNSET if if_version is None else if_version
        return super().add_or_update_context_msg(*args, if_version=expected, **kwargs)


class StrangeVersionMeansAny(BrokenDB, rule="CTX-5"):
    """What cannot be read as a version is taken for none given."""

    @classmethod
    def break_code(cls):
        def broken(value):
            expected = expected_version(value)
            known = isinstance(value, str) and version_text(expected) == value
            return expected if known or value in {None, UNSET} else None

        replace(expected_version, broken)


class StrangeVersionIsNoContext(BrokenDB, rule="CTX-5"):
    """``int(version, 16)`` reads zeros as the number that stands for no context."""

    @classmethod
    def break_code(cls):
        def broken(value):
            return NO_CONTEXT if value == "0" * 16 else expected_version(value)

        replace(expected_version, broken)


class VersionOfTheValue(BrokenDB, rule="CTX-5"):
    """A digest of the value: it is the same again after the value is."""

    def get_context(self, session_id):
        found = super().get_context(session_id)
        return found and {**found, "version": encode_payload(found["context"], "context")[:9]}


class VersionCountsFromOne(BrokenDB, rule="CTX-5"):
    """A counter in the row begins anew after a delete, and a version comes back."""

    def _save_context_change(self, change):
        stored = self._select_context_version(change.row.session_id) or NO_CONTEXT
        return super()._save_context_change(
            change._replace(row=change.row._replace(version=stored + 1))
        )

    def add_or_update_context_msg(self, session_id, *args, **kwargs):
        super().add_or_update_context_msg(session_id, *args, **kwargs)
        return self.get_context(session_id)["version"]


class AppendKeepsTheVersion(BrokenDB, rule="CTX-5"):
    """Only saves draw a new version, so that a save drops what was appended."""

    def _append_context(self, append):
        stored = self._select_context_version(append.session_id)
        appended = super()._append_context(append)
        if stored is not None:
            self._execute(
                "UPDATE director_context_messages SET version = ? WHERE session_id = ?",
                *(stored, append.session_id),
            )
        return appended


class ConflictIsActivity(BrokenDB, rule="CTX-5"):
    """The session's time is moved before the version is compared."""

    def _save_context_change(self, change):
        self._execute(
            "UPDATE director_sessions SET updated_at = max(updated_at, ?) WHERE session_id = ?",
            *(change.row.updated_at, change.row.session_id),
        )
        return super()._save_context_change(change)


class ConflictIsSilent(BrokenDB, rule="CTX-5"):
    """A save that came too late returns, as a guarded message does."""

    def add_or_update_context_msg(self, *args, **kwargs):
        try:
            return super().add_or_update_context_msg(*args, **kwargs)
        except ConflictError as error:
            return error.version


class ConflictTellsNothing(BrokenDB, rule="CTX-5"):
    """The error has no version, so that everybody has to read."""

    def _select_context_version(self, session_id):
        return None


class NoSessionIsAConflict(BrokenDB, rule="CTX-5"):
    """No row was changed, so there must have been another version."""

    def _save_context_change(self, change):
        outcome = super()._save_context_change(change)
        is_asked = change.if_version is not None and outcome is SaveOutcome.NO_SESSION
        return SaveOutcome.CONFLICT if is_asked else outcome


class SavingReturnsTheOldVersion(BrokenDB, rule="CTX-5"):
    """It says on top of what it was saved."""

    def add_or_update_context_msg(self, session_id, *args, **kwargs):
        before = self.get_context(session_id).get("version")
        version = super().add_or_update_context_msg(session_id, *args, **kwargs)
        return before or version


class TrustsItsOwnMemory(BrokenDB, rule="CTX-5", level="concurrent"):
    """What it saved last itself is taken for what is stored."""

    def _save_context_change(self, change):
        mine = self.__dict__.setdefault("_mine", {})
        if change.if_version is not None and change.if_version == mine.get(change.row.session_id):
            change = change._replace(if_version=self._select_context_version(change.row.session_id))
        outcome = super()._save_context_change(change)
        if outcome is SaveOutcome.SAVED:
            mine[change.row.session_id] = change.row.version
        return outcome


class ComparesBeforeItSaves(BrokenDB, rule="CTX-5", level="concurrent"):
    """The version is read, and then the context is saved: of two at once, both are."""

    def _save_context_change(self, change):
        if change.if_version is not None:
            stored = self._select_context_version(change.row.session_id) or NO_CONTEXT
            if self._select_session(change.row.session_id) and stored != change.if_version:
                return SaveOutcome.CONFLICT
            travel()
        return super()._save_context_change(change._replace(if_version=None))


# --- SES-8 --------------------------------------------------------------------------------------


def _break_version(text_of):
    def broken(row):
        return f"v{text_of(row)}"

    replace(session_change.session_version, broken)


class VersionOfTheMetadataAlone(BrokenDB, rule="SES-8"):
    """Who changes the user of a session does not change its version."""

    @classmethod
    def break_code(cls):
        _break_version(lambda row: hash(row.metadata))


class VersionWithoutNone(BrokenDB, rule="SES-8"):
    """``str(None)``: null and a text are one."""

    @classmethod
    def break_code(cls):
        _break_version(lambda row: hash(f"{row[1]} {row[2]} {row[5]} {row[6]}"))


class VersionIsTheTime(BrokenDB, rule="SES-8"):
    """`updated_at` serves as a version: it counts seconds, and every message moves it."""

    @classmethod
    def break_code(cls):
        _break_version(lambda row: row.updated_at)


class VersionOfSortedKeys(BrokenDB, rule="SES-8"):
    """The value is hashed with its keys sorted, and their order is no change."""

    @classmethod
    def break_code(cls):
        def text(row):
            metadata = json.dumps(decode_payload(row.metadata), sort_keys=True)
            return hash((*row[1:3], row.user_id, metadata))

        _break_version(text)


class SessionVersionOnlyRead(BrokenDB, rule="SES-8"):
    """There is a version, and nobody compares."""

    def update_session(self, *args, if_version=UNSET, **kwargs):
        return super().update_session(*args, **kwargs)


class NoSessionsVersionMeansAny(BrokenDB, rule="SES-8"):
    """``if if_version:``, so that None changes what somebody has just created."""

    def update_session(self, *args, if_version=UNSET, **kwargs):
        expected = UNSET if if_version is None else if_version
        return super().update_session(*args, if_version=expected, **kwargs)


class RefusedChangeIsActivity(BrokenDB, rule="SES-8"):
    """A change that came too late moves the session's time all the same."""

    def _change_session(self, session_id, decide):
        outcome = super()._change_session(session_id, decide)
        if outcome is SaveOutcome.CONFLICT:
            self._execute(
                "UPDATE director_sessions SET updated_at = updated_at + 1 WHERE session_id = ?",
                session_id,
            )
        return outcome


class MissingSessionIsAConflict(BrokenDB, rule="SES-8"):
    """No row was changed, so there must have been another version."""

    def update_session(self, session_id, *, if_version=UNSET, **kwargs):
        try:
            return super().update_session(session_id, if_version=if_version, **kwargs)
        except SessionNotFoundError:
            if if_version is UNSET:
                raise
            raise ConflictError(session_id, "session", None) from None


def _break_merge(merge):
    replace(session_change.merge_patch, merge)


class MergeReplaces(BrokenDB, rule="SES-8"):
    """The flag is taken, and forgotten."""

    @classmethod
    def break_code(cls):
        _break_merge(lambda _, patch: patch)


class MergeIsShallow(BrokenDB, rule="SES-8"):
    """``{**stored, **patch}``: a dict in a dict is replaced whole."""

    @classmethod
    def break_code(cls):
        def merge(target, patch):
            known = target if isinstance(target, dict) else {}
            return {key: value for key, value in {**known, **patch}.items() if value is not None}

        _break_merge(merge)


class NullIsStored(BrokenDB, rule="SES-8"):
    """A key whose value is None has the value None."""

    @classmethod
    def break_code(cls):
        def merge(target, patch):
            if not isinstance(patch, dict):
                return patch
            known = target if isinstance(target, dict) else {}
            return known | {key: merge(known.get(key), value) for key, value in patch.items()}

        _break_merge(merge)


class NullStaysInWhatIsNew(BrokenDB, rule="SES-8"):
    """Only what is there already is looked into; a dict that is new is stored with its nulls."""

    @classmethod
    def break_code(cls):
        def merge(target, patch):
            if not isinstance(patch, dict) or not isinstance(target, dict):
                return patch
            for key, value in patch.items():
                if value is None:
                    target.pop(key, None)
                else:
                    target[key] = merge(target.get(key), value)
            return target

        _break_merge(merge)


class MergedKeysMove(BrokenDB, rule="SES-8"):
    """What is changed is taken out and put in again: at the end."""

    @classmethod
    def break_code(cls):
        healthy = session_change.merge_patch

        def merge(target, patch):
            merged = healthy(target, patch)
            kept = {key: value for key, value in merged.items() if key not in patch}
            return kept | {key: value for key, value in merged.items() if key in patch}

        _break_merge(merge)


class MergeByTheDatabase(BrokenDB, rule="SES-8"):
    """``json_patch`` of the database, which reads numbers and texts in its own way."""

    def update_session(self, session_id, *, metadata=UNSET, merge=False, **kwargs):
        if merge is not True or not isinstance(metadata, dict):
            super().update_session(session_id, metadata=metadata, merge=merge, **kwargs)
            return
        patch = encode_payload(metadata, "metadata")
        super().update_session(session_id, **kwargs)
        self._execute(
            "UPDATE director_sessions SET metadata = json_patch(metadata, ?) WHERE session_id = ?",
            *(patch, session_id),
        )


class MergeForgetsTheOthers(BrokenDB, rule="SES-8"):
    """A path of its own for metadata, in which the other fields were forgotten."""

    def _change_session(self, session_id, decide):
        def metadata_alone(row):
            changes = decide(row)
            return changes and changes._replace(video_id=UNSET, user_id=UNSET)

        return super()._change_session(session_id, metadata_alone)


class AnyTruthMerges(BrokenDB, rule="SES-8"):
    """``if merge:`` takes whatever counts as true."""

    def update_session(self, *args, merge=False, **kwargs):
        return super().update_session(*args, merge=bool(merge), **kwargs)


class MergedIsNotMeasured(BrokenDB, rule="SES-8"):
    """The patch is within the bounds, so the result is stored."""

    @classmethod
    def break_code(cls):
        def unmeasured(value, path):
            try:
                return encode_payload(value, path)
            except InvalidRecordError:
                return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

        # Not `replace`: what is checked elsewhere stays checked.
        session_change.encode_payload = unmeasured


class ReadsThenUpdates(BrokenDB, rule="SES-8", level="concurrent"):
    """It reads, merges, and writes: what others merge meanwhile is gone."""

    def _change_session(self, session_id, decide):
        row = self._select_session(session_id)
        if row is None:
            return SaveOutcome.NO_SESSION
        changes = decide(row)
        if changes is None:
            return SaveOutcome.CONFLICT
        travel()
        self._update_session(session_id, changes)
        return SaveOutcome.SAVED
