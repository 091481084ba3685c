CREATE TABLE director_meta (
    key TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE director_sessions (
    session_id TEXT COLLATE "C" PRIMARY KEY,
    video_id TEXT COLLATE "C",
    collection_id TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    metadata TEXT NOT NULL
);
CREATE INDEX director_sessions_by_activity
    ON director_sessions (updated_at, created_at, session_id);
CREATE INDEX director_sessions_by_collection
    ON director_sessions (collection_id, updated_at, created_at, session_id);
CREATE INDEX director_sessions_by_video
    ON director_sessions (video_id, updated_at, created_at, session_id);
CREATE TABLE director_conversations (
    session_id TEXT COLLATE "C" NOT NULL
        REFERENCES director_sessions (session_id) ON DELETE CASCADE,
    conv_id TEXT COLLATE "C",
    msg_id TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    msg_type TEXT NOT NULL,
    agents TEXT NOT NULL,
    actions TEXT NOT NULL,
    content TEXT NOT NULL,
    status TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (session_id, msg_id),
    UNIQUE (session_id, seq)
);
CREATE TABLE director_context_messages (
    session_id TEXT COLLATE "C" PRIMARY KEY
        REFERENCES director_sessions (session_id) ON DELETE CASCADE,
    context_data TEXT NOT NULL,
    list_key TEXT,
    list_len BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    metadata TEXT NOT NULL
);
CREATE TABLE director_context_items (
    session_id TEXT COLLATE "C" NOT NULL
        REFERENCES director_context_messages (session_id) ON DELETE CASCADE,
    idx BIGINT NOT NULL,
    item TEXT NOT NULL,
    PRIMARY KEY (session_id, idx)
);
INSERT INTO director_meta (key, value)
VALUES ('schema_version', '1');
