"""Contexts: the value that is sent back to the model, and grows by a message at each turn.

A context is saved whole by its callers, at every step. Where a backend keeps one list of it item by
item (`Storage.incremental_contexts`), a save encodes, sends and writes only what it changed:

* `saving` and `appending` are the two writes of `BaseDB`, from its arguments to storage;
* on their way, `parts` takes a value apart: the list, and the text of everything beside it;
* `items` tells by digests which items of the list changed, and encodes those;
* `memory` keeps the digests until the next save;
* `stored` puts the parts together again, and `version` makes the token that tells of changes.
"""
