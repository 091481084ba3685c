"""The statements, one a name, with a file for each subject.

`statements.Statements` puts the schema's name into them once.

Values are always parameters (``$1::text``). Each statement names the session in every condition, so
that the tables can be sharded by it. A write first locks the session's row: by updating it, or with
`LOCK_SESSION`. What it writes beside that comes in statements of their own, in the same transaction
and round trip: each sees what others wrote while the first one waited for the lock.

A sharded server (Citus) takes a statement apart and sends the shards what it has put together
again. So each parameter has its type in its place, always; no STABLE function is applied to a
column in the condition of an UPDATE or DELETE; and no INSERT takes its rows from another write.
"""
