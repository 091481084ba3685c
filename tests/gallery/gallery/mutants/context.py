"""CTX-1 to CTX-4: the context of a session."""

from __future__ import annotations

from director_db import InvalidRecordError, SessionNotFoundError
from director_db.payload import decode_payload, encode_payload
from director_db.rows import SaveOutcome, SessionRow
from gallery.broken import BrokenDB


class WholeContexts(BrokenDB):
    """Saves contexts whole, so that there is one storage operation to break."""

    incremental_contexts = False


class _ChangedContexts(WholeContexts):
    """Stores rows that `_changed` made from what was given and what is stored."""

    def _changed(self, row, stored):
        """Return the row to store; `stored` is None where there is no context."""
        raise NotImplementedError

    def _save_context(self, row, *, if_version):
        if if_version is None:  # An append has its own mutants.
            row = self._changed(row, self._select_context(row.session_id))
        return super()._save_context(row, if_version=if_version)


class _OwnAppend(WholeContexts):
    """Appends by reading the context and saving it, as `_append` says."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if key is None:  # That has its own mutants.
            return super().append_context_messages(session_id, messages, key=key)
        context, length = self._append(self.get_context(session_id), messages, key)
        self._store(session_id, context)
        return length

    def _append(self, stored, messages, key):
        """Return the new context as a dict for `_store`, and the length to return."""
        if stored and not isinstance(stored["context"], dict):
            raise InvalidRecordError("context", "not a dict")
        context = stored["context"] if stored else {}
        known = context.setdefault(key, [])
        if not isinstance(known, list):
            raise InvalidRecordError("context", "not a list")
        known.extend(messages)
        return stored | {"context": context}, len(known)

    def _store(self, session_id, stored):
        self.add_or_update_context_msg(
            session_id, stored["context"], metadata=stored.get("metadata")
        )


# --- CTX-1 --------------------------------------------------------------------------------------


class ContextCreatedAtReset(_ChangedContexts, rule="CTX-1"):
    """Each save is a new row, with a new time of its creation."""

    def _changed(self, row, stored):
        return row._replace(created_at_given=True)


class ContextCreatedAtFrozen(_ChangedContexts, rule="CTX-1"):
    """`created_at` is not in the SET, so that the one that is given is lost."""

    def _changed(self, row, stored):
        return row._replace(created_at_given=False)


class ContextUpdatedAtKept(_ChangedContexts, rule="CTX-1"):
    """`updated_at` was forgotten in the SET."""

    def _changed(self, row, stored):
        return row if stored is None else row._replace(updated_at=stored.updated_at)


class ContextMetadataKept(_ChangedContexts, rule="CTX-1"):
    """Metadata that is left out stays, where it is to become {}."""

    def _changed(self, row, stored):
        if stored is not None and row.metadata == "{}":
            return row._replace(metadata=stored.metadata)
        return row


class ContextInsertedOnce(_ChangedContexts, rule="CTX-3"):
    """ON CONFLICT DO NOTHING: the first context stays for good."""

    def _changed(self, row, stored):
        return row if stored is None else row._replace(context=stored.context)


class ContextRevives(WholeContexts, rule="CTX-1"):
    """Saving a context makes its session if need be."""

    def _save_context(self, row, *, if_version):
        times = (row.updated_at, row.updated_at)
        self._insert_session(SessionRow(row.session_id, None, None, *times, "{}"))
        return super()._save_context(row, if_version=if_version)


class ContextOfNoSessionPasses(WholeContexts, rule="CTX-1"):
    """Nothing is stored and nothing is said."""

    def _save_context(self, row, *, if_version):
        outcome = super()._save_context(row, if_version=if_version)
        return SaveOutcome.SAVED if outcome is SaveOutcome.NO_SESSION else outcome


class ContextKeywordsRefused(BrokenDB, rule="CTX-1"):
    """Callers pass ``**self.__dict__`` here as well."""

    def add_or_update_context_msg(
        self, session_id, context_messages, created_at=None, updated_at=None, metadata=None
    ):
        return super().add_or_update_context_msg(
            session_id, context_messages, created_at, updated_at, metadata
        )


class SavingReturnsTheContext(BrokenDB, rule="CTX-1"):
    """It says what is stored now."""

    def add_or_update_context_msg(self, session_id, *args, **kwargs):
        super().add_or_update_context_msg(session_id, *args, **kwargs)
        return self.get_context(session_id)


# --- CTX-2 --------------------------------------------------------------------------------------


class MissingContextIsNone(BrokenDB, rule="CTX-2"):
    """``fetchone()`` is handed on."""

    def get_context_messages(self, session_id):
        return super().get_context_messages(session_id) if self.get_context(session_id) else None


class MissingContextIsAList(BrokenDB, rule="CTX-2"):
    """A list of messages that is not there is an empty list."""

    def get_context_messages(self, session_id):
        return super().get_context_messages(session_id) if self.get_context(session_id) else []


class FalsyContextIsNone(BrokenDB, rule="CTX-2"):
    """``value or {}``: [], 0, "" and null come back as {}."""

    def get_context_messages(self, session_id):
        return super().get_context_messages(session_id) or {}


class EmptyContextIsMissing(BrokenDB, rule="CTX-2"):
    """A stored {} cannot be told from none."""

    def get_context(self, session_id):
        found = super().get_context(session_id)
        return found if found and found["context"] else {}


class ContextMustBeAListOrDict(BrokenDB, rule="CTX-2"):
    """A context is thought to be a list of messages, or a dict of them."""

    def add_or_update_context_msg(self, session_id, context_messages, *args, **kwargs):
        if not isinstance(context_messages, (list, tuple, dict)):
            raise InvalidRecordError("context_messages", "a list or a dict")
        return super().add_or_update_context_msg(session_id, context_messages, *args, **kwargs)


class ContextKeysSorted(BrokenDB, rule="CTX-2"):
    """The keys in an order of their own."""

    def get_context(self, session_id):
        return dict(sorted(super().get_context(session_id).items()))


class ContextOfNoSessionRaises(BrokenDB, rule="CTX-2"):
    """Callers read before they write; a session that is missing is to be {}."""

    def get_context_messages(self, session_id):
        if not self.get_session(session_id):
            raise SessionNotFoundError(str(session_id))
        return super().get_context_messages(session_id)


# --- CTX-3 --------------------------------------------------------------------------------------


class ContextMerged(_ChangedContexts, rule="CTX-3"):
    """``{**old, **new}`` where the new value replaces the old one."""

    def _changed(self, row, stored):
        if stored is None:
            return row
        old, new = decode_payload(stored.context), decode_payload(row.context)
        if not isinstance(old, dict) or not isinstance(new, dict):
            return row
        return row._replace(context=encode_payload({**old, **new}, "context"))


class _ItemByItem(_ChangedContexts):
    """Takes a list for one that only grew, and keeps of the old one what `_kept` says."""

    def _kept(self, old, new):
        raise NotImplementedError

    def _changed(self, row, stored):
        if stored is None:
            return row
        old, new = decode_payload(stored.context), decode_payload(row.context)
        if not isinstance(old, list) or not isinstance(new, list):
            return row
        return row._replace(context=encode_payload(self._kept(old, new), "context"))


class OnlyTheTailIsSaved(_ItemByItem, rule="CTX-3"):
    """What is beyond the stored length is added; a change before it is lost."""

    def _kept(self, old, new):
        return old[: len(new)] + new[len(old) :]


class ShorterListsKeepTheirTail(_ItemByItem, rule="CTX-3"):
    """Items are written over one by one, and what is left behind them is not deleted."""

    def _kept(self, old, new):
        return new + old[len(new) :]


class LastItemStandsForAll(_ItemByItem, rule="CTX-3"):
    """A list whose length and last item are as stored is taken for unchanged."""

    def _kept(self, old, new):
        return old if old and len(old) == len(new) and old[-1] == new[-1] else new


class FirstItemStandsForAll(_ItemByItem, rule="CTX-3"):
    """A list that is not shorter and starts as the stored one is taken for its continuation."""

    def _kept(self, old, new):
        grown = old and len(new) > len(old) and old[0] == new[0]
        return old + new[len(old) :] if grown else new


class EqualIsUnchanged(_ChangedContexts, rule="CTX-3"):
    """``==`` finds 1, 1.0 and True equal, and other orders of keys: such a save is left out."""

    def _changed(self, row, stored):
        if stored is not None and decode_payload(stored.context) == decode_payload(row.context):
            return row._replace(context=stored.context)
        return row


# --- CTX-4 --------------------------------------------------------------------------------------


class AppendReturnsHowMany(BrokenDB, rule="CTX-4"):
    """The number of new items, not the length of the list."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        super().append_context_messages(session_id, messages, key=key)
        return len(messages)


class AppendReturnsNothing(BrokenDB, rule="CTX-4"):
    """As every other write."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        super().append_context_messages(session_id, messages, key=key)


class AppendInFront(_OwnAppend, rule="CTX-4"):
    """The newest first."""

    def _append(self, stored, messages, key):
        stored, length = super()._append(stored, [], key)
        stored["context"][key][:0] = messages
        return stored, length + len(messages)


class AppendAsOne(_OwnAppend, rule="CTX-4"):
    """append() for extend(): the list becomes one item."""

    def _append(self, stored, messages, key):
        return super()._append(stored, [list(messages)], key)


class AppendReplaces(_OwnAppend, rule="CTX-4"):
    """The list is set, not extended."""

    def _append(self, stored, messages, key):
        stored, _ = super()._append(stored, [], key)
        stored["context"][key] = list(messages)
        return stored, len(messages)


class AppendKnowsOneKey(BrokenDB, rule="CTX-4"):
    """The key is a constant."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        return super().append_context_messages(session_id, messages, key="reasoning")


class AppendByPath(_OwnAppend, rule="CTX-4"):
    """A key with a dot is a path into the context."""

    def _append(self, stored, messages, key):
        outer, _, inner = key.partition(".")
        if not inner:
            return super()._append(stored, messages, key)
        context = stored.setdefault("context", {})
        nested, length = super()._append(
            {"context": context.setdefault(outer, {})}, messages, inner
        )
        context[outer] = nested["context"]
        return stored, length


class AppendNeedsAContext(BrokenDB, rule="CTX-4"):
    """UPDATE of no row: the first append is refused."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if self.get_session(session_id) and not self.get_context(session_id):
            raise InvalidRecordError("context", "there is none")
        return super().append_context_messages(session_id, messages, key=key)


class AppendNeedsAKey(BrokenDB, rule="CTX-4"):
    """A list under a new key is refused."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        stored = self.get_context(session_id)
        known = stored and stored["context"]
        if isinstance(known, dict) and stored and key is not None and key not in known:
            raise InvalidRecordError("key", "not in the context")
        return super().append_context_messages(session_id, messages, key=key)


class AppendResetsMetadata(_OwnAppend, rule="CTX-4"):
    """An append is a save with the default metadata."""

    def _store(self, session_id, stored):
        self.add_or_update_context_msg(session_id, stored["context"])


class AppendResetsCreatedAt(_OwnAppend, rule="CTX-4"):
    """An append is a new row, with a new time of its creation."""

    def _store(self, session_id, stored):
        self.delete_context(session_id)
        super()._store(session_id, stored)


class AppendKeepsUpdatedAt(_OwnAppend, rule="CTX-4"):
    """The list is changed inside the row, and nobody thinks of its time."""

    def _store(self, session_id, stored):
        self.add_or_update_context_msg(
            session_id,
            stored["context"],
            updated_at=stored.get("updated_at"),
            metadata=stored.get("metadata"),
        )


class AppendDropsTheRest(_OwnAppend, rule="CTX-4"):
    """The new value holds the list alone."""

    def _append(self, stored, messages, key):
        stored, length = super()._append(stored, messages, key)
        return stored | {"context": {key: stored["context"][key]}}, length


class AppendMovesTheKey(_OwnAppend, rule="CTX-4"):
    """The key is taken out and put back: at the end."""

    def _append(self, stored, messages, key):
        stored, length = super()._append(stored, messages, key)
        context = stored["context"]
        return stored | {"context": {**context, key: context.pop(key)}}, length


class AppendPutsTheKeyFirst(_OwnAppend, rule="CTX-4"):
    """``{key: [...], **rest}``: a key that is added comes before the others."""

    def _append(self, stored, messages, key):
        new = key not in (stored or {"context": {}})["context"]
        stored, length = super()._append(stored, messages, key)
        context = stored["context"]
        return stored | {"context": {key: context.pop(key), **context} if new else context}, length


class EmptyAppendIsNothing(BrokenDB, rule="CTX-4"):
    """``if not messages: return``: nothing is created, no time is set."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if messages in ([], ()) and isinstance(key, str) and self.get_session(session_id):
            context = self.get_context_messages(session_id)
            if isinstance(context, dict) and isinstance(context.get(key, []), list):
                return len(context.get(key, []))
        return super().append_context_messages(session_id, messages, key=key)


class EmptyAppendPasses(BrokenDB, rule="CTX-4"):
    """``if not messages: return 0``, before anything is looked at."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if not messages and not self.get_session(session_id):
            return 0
        return super().append_context_messages(session_id, messages, key=key)


class AppendMakesALists(_OwnAppend, rule="CTX-4"):
    """What is no list under the key becomes the first item of one."""

    def _append(self, stored, messages, key):
        if stored and isinstance(stored["context"], dict):
            known = stored["context"].get(key, [])
            if not isinstance(known, list):
                stored["context"][key] = [known]
        return super()._append(stored, messages, key)


class AppendToNullStartsAList(_OwnAppend, rule="CTX-4"):
    """``context.get(key) or []``: null under the key is taken for none."""

    def _append(self, stored, messages, key):
        if stored and isinstance(stored["context"], dict) and not stored["context"].get(key):
            stored["context"][key] = []
        return super()._append(stored, messages, key)


class AppendToAnyList(_OwnAppend, rule="CTX-4"):
    """A context that is a list itself is extended, whatever the key."""

    def _append(self, stored, messages, key):
        if stored and isinstance(stored["context"], list):
            stored["context"].extend(messages)
            return stored, len(stored["context"])
        return super()._append(stored, messages, key)


class AppendOverwritesWhatIsNoDict(_OwnAppend, rule="CTX-4"):
    """A context that is no dict is replaced by one."""

    def _append(self, stored, messages, key):
        if stored and not isinstance(stored["context"], dict):
            stored["context"] = {}
        return super()._append(stored, messages, key)


class AppendTakesNoTuple(BrokenDB, rule="CTX-4"):
    """isinstance(messages, list)."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if not isinstance(messages, list):
            raise InvalidRecordError("messages", "a list")
        return super().append_context_messages(session_id, messages, key=key)


class AppendTakesATextApart(BrokenDB, rule="CTX-4"):
    """``list(messages)``: a str is appended character by character."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        return super().append_context_messages(session_id, list(messages), key=key)


class AppendRevives(BrokenDB, rule="CTX-4"):
    """An append makes its session if need be."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        self.create_session(session_id)
        return super().append_context_messages(session_id, messages, key=key)


class AppendUnderTheEnumsName(BrokenDB, rule="VAL-4"):
    """str() of a key that is an Enum is the name of its class and its own."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        key = str(key) if isinstance(key, str) else key
        return super().append_context_messages(session_id, messages, key=key)


class AppendOfIdentifiers(BrokenDB, rule="CTX-4"):
    """The key becomes part of a path expression and has to be a plain word."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if isinstance(key, str) and not key.isidentifier():
            raise InvalidRecordError("key", "an identifier")
        return super().append_context_messages(session_id, messages, key=key)
