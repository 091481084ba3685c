"""Statements about the server, a connection and the schema."""

from __future__ import annotations

from typing import Final

# The first look at a database. The second column is whether the server may be a sharded one.
SELECT_SCHEMA_VERSION: Final = """
    SELECT value, EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus'),
        (SELECT value FROM {schema}director_meta WHERE key = 'upgraded_to')
    FROM {schema}director_meta WHERE key = 'schema_version'
"""

# Without a schema's name the search path is searched; but only its first schema is ours, or else it
# would depend on who comes first whether two users of a database share their tables.
SELECT_OWN_SCHEMA_VERSION: Final = f"""
    {SELECT_SCHEMA_VERSION.replace("{schema}", "")}
    AND tableoid = to_regclass(quote_ident(current_schema()) || '.director_meta')
"""

# For the rest of a transaction.
SET_LOCK_TIMEOUT: Final = b"SELECT set_config('lock_timeout', $1::text, true)"

# For a connection, unless a pooler stands between: the process that answers is then another one
# than that which the connection knows, and others would get what is set here.
LIMIT_LOCK_WAITS: Final = b"""
    SELECT CASE WHEN pg_backend_pid() = $2::integer
        THEN set_config('lock_timeout', $1::text, false) END
"""

IS_READ_ONLY: Final = b"""
    SELECT pg_catalog.current_setting('default_transaction_read_only')::boolean
        AND NOT pg_catalog.pg_is_in_recovery()
"""

# Fails where a table is missing; reads no row.
PROBE_TABLES: Final = """
    SELECT
        (SELECT revision FROM {schema}director_conversations WHERE false),
        (SELECT user_id FROM {schema}director_sessions WHERE false),
        (SELECT version FROM {schema}director_context_messages WHERE false),
        (SELECT idx FROM {schema}director_context_items WHERE false)
"""

SELECT_SERVER: Final = b"""
    SELECT
        current_setting('server_version'),
        current_setting('server_version_num')::integer,
        current_setting('server_encoding'),
        current_setting('synchronous_commit'),
        current_setting('fsync')
"""
