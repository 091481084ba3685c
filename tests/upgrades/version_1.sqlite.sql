CREATE TABLE director_meta (
    key TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT;
CREATE TABLE director_sessions (
    session_id TEXT PRIMARY KEY NOT NULL,
    video_id TEXT,
    collection_id TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    metadata TEXT NOT NULL
) STRICT;
CREATE INDEX director_sessions_by_activity
    ON director_sessions (updated_at, created_at, session_id);
CREATE INDEX director_sessions_by_collection
    ON director_sessions (collection_id, updated_at, created_at, session_id);
CREATE INDEX director_sessions_by_video
    ON director_sessions (video_id, updated_at, created_at, session_id);
CREATE TABLE director_conversations (
    session_id TEXT NOT NULL REFERENCES director_sessions ON DELETE CASCADE,
    conv_id TEXT,
    msg_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    msg_type TEXT NOT NULL,
    agents TEXT NOT NULL,
    actions TEXT NOT NULL,
    content TEXT NOT NULL,
    status TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (session_id, msg_id),
    UNIQUE (session_id, seq)
) STRICT;
CREATE TABLE director_context_messages (
    session_id TEXT PRIMARY KEY NOT NULL REFERENCES director_sessions ON DELETE CASCADE,
    context_data TEXT NOT NULL,
    list_key TEXT,
    list_len INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    metadata TEXT NOT NULL
) STRICT;
CREATE TABLE director_context_items (
    session_id TEXT NOT NULL REFERENCES director_context_messages ON DELETE CASCADE,
    idx INTEGER NOT NULL,
    item TEXT NOT NULL,
    PRIMARY KEY (session_id, idx)
) STRICT;
INSERT INTO director_meta (key, value) VALUES ('schema_version', '1');
