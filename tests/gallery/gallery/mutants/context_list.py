"""CTX-4: appending to a context that is a list itself."""

from __future__ import annotations

from director_db.checks import context_items
from director_db.context.parts import LIST_ITSELF
from director_db.payload_rules import check_payload
from gallery.broken import BrokenDB, read_until_changed


class NoKeyIsTheDefault(BrokenDB, rule="CTX-4"):
    """``key or "reasoning"``."""

    def append_context_messages(self, session_id, messages, *, key=None):
        return super().append_context_messages(session_id, messages, key=key or "reasoning")


class ListTakesAnyKey(BrokenDB, rule="CTX-4"):
    """There is one list only, so that the key does not matter."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if isinstance(self.get_context_messages(session_id), list):
            key = None
        return super().append_context_messages(session_id, messages, key=key)


class DictTakesNoKey(BrokenDB, rule="CTX-4"):
    """In a dict no key means the usual one."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if key is None and self.get_context(session_id).get("context") == {"reasoning": []}:
            key = "reasoning"
        return super().append_context_messages(session_id, messages, key=key)


class NullIsNoKey(BrokenDB, rule="CTX-4"):
    """The key is written as text beside the list, and null as well."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        context = self.get_context_messages(session_id)
        if key == "null" and isinstance(context, list):
            key = None
        return super().append_context_messages(session_id, messages, key=key)


class EmptyListIsNoContext(BrokenDB, rule="CTX-4"):
    """``if not context:``: an empty list is begun anew, with its times and metadata."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if key is None and self.get_context(session_id).get("context") == []:
            self.delete_context(session_id)
        return super().append_context_messages(session_id, messages, key=key)


class ListBeginsAsADict(BrokenDB, rule="CTX-4"):
    """What begins a context has one form, whatever the key."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if key is None and self.get_session(session_id) and not self.get_context(session_id):
            self.add_or_update_context_msg(session_id, {})
        return super().append_context_messages(session_id, messages, key=key)


class ListLengthCounted(BrokenDB, rule="CTX-4"):
    """The length is counted by the handle, which forgets that saves change it, too."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        length = super().append_context_messages(session_id, messages, key=key)
        if key is not None:
            return length
        known = self.__dict__.setdefault("_lengths", {})
        known[session_id] = known.get(session_id, length - len(messages)) + len(messages)
        return known[session_id]


class ListAsDeepAsInADict(BrokenDB, rule="CTX-4"):
    """The depth that is left is counted from where a list usually stands."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        check_payload(context_items(messages), "messages", depth=2)
        return super().append_context_messages(session_id, messages, key=key)


class ListWithoutItsBrackets(BrokenDB, rule="CTX-4"):
    """The items and the commas are counted, and what stands around them is not."""

    def _append_context(self, append):
        if append.list_key == LIST_ITSELF:
            append = append._replace(alone_bytes=append.alone_bytes - len("[]"))
        return super()._append_context(append)


class ListReadAddedSaved(BrokenDB, rule="CTX-4", level="concurrent"):
    """Read, extend, save, and nobody looks whether it changed meanwhile."""

    def append_context_messages(self, session_id, messages, *, key="reasoning"):
        if key is not None:
            return super().append_context_messages(session_id, messages, key=key)
        context = self.get_context(session_id)
        read_until_changed(lambda: self.get_context(session_id), context, 0.2)
        items = [*context.get("context", []), *messages]
        self.add_or_update_context_msg(session_id, items)
        return len(items)
