-- Documents, their chunks (a chunk is a row of the matrix), and the lexical index.

CREATE TABLE state (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- The bytes of manifest.json, one row, so that the file can be restored.
CREATE TABLE manifest (
    json BLOB NOT NULL
);

-- Text is never changed in place: an upsert marks the old document dead and adds a new one, so
-- that a row's text stays readable until `compact`.
CREATE TABLE document (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL,
    doc_id      TEXT NOT NULL,
    dead        INTEGER NOT NULL DEFAULT 0,
    n_chunks    INTEGER NOT NULL,
    embed_title INTEGER NOT NULL,
    hash        BLOB NOT NULL,
    metadata    BLOB NOT NULL,
    title       TEXT NOT NULL,
    text        TEXT NOT NULL
);
CREATE UNIQUE INDEX document_live_id ON document (id) WHERE dead = 0;
CREATE INDEX document_doc_id ON document (doc_id);
CREATE INDEX document_dead ON document (seq) WHERE dead = 1;

CREATE TABLE chunk (
    row         INTEGER PRIMARY KEY,
    document    INTEGER NOT NULL REFERENCES document (seq),
    ordinal     INTEGER NOT NULL,
    start_byte  INTEGER NOT NULL,
    end_byte    INTEGER NOT NULL,
    tokens      INTEGER NOT NULL,
    tokens_lost INTEGER NOT NULL
);
CREATE INDEX chunk_document ON chunk (document);

-- One entry a commit: the rows it appended, the XXH3-64 of their vectors and of their chunks, and
-- the largest norm among them.
CREATE TABLE extent (
    first_row      INTEGER PRIMARY KEY,
    n_rows         INTEGER NOT NULL,
    checksum       INTEGER NOT NULL,
    chunk_checksum INTEGER NOT NULL,
    max_norm       REAL NOT NULL
);

-- Which metadata fields there are, and how often each JSON type was seen.
CREATE TABLE field (
    name     TEXT PRIMARY KEY,
    texts    INTEGER NOT NULL DEFAULT 0,
    numbers  INTEGER NOT NULL DEFAULT 0,
    booleans INTEGER NOT NULL DEFAULT 0,
    arrays   INTEGER NOT NULL DEFAULT 0,
    objects  INTEGER NOT NULL DEFAULT 0,
    nulls    INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE VIRTUAL TABLE lexical USING fts5 (
    title, body,
    content = '', contentless_delete = 1,
    tokenize = 'porter unicode61 remove_diacritics 2'
);
