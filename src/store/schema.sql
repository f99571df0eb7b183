-- Tables of the document database. `verify` compares the text of the statements, so comments stand
-- outside of them.

-- Committed state: generation, n_rows, manifest_hash, has_int8, commits (the number of the last
-- one), content (of a shard alone: the checksum of its documents).
CREATE TABLE state (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- The bytes of manifest.json, one row, so that the file can be restored.
CREATE TABLE manifest (
    json BLOB NOT NULL
);

-- Documents are never changed in place. An upsert marks the old document as deleted (dead = 1) and
-- inserts a new one. The text of a row stays readable until `compact`. embed_title: 1 if models read
-- the title, plus 2 if the metadata came from a format without types.
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

-- One entry per row of the matrix. Bytes count from the start of the document's text. tokens_lost:
-- truncated tokens.
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

-- Commit records. One entry per commit: the rows it appended, the XXH3-64 of their vectors and of
-- their chunks, and their largest norm.
CREATE TABLE extent (
    first_row      INTEGER PRIMARY KEY,
    n_rows         INTEGER NOT NULL,
    checksum       INTEGER NOT NULL,
    chunk_checksum INTEGER NOT NULL,
    max_norm       REAL NOT NULL
);

-- Field catalogue: the number of values of each JSON type in each metadata field of live documents,
-- of texts that read as numbers, booleans, dates, times and times with an offset, of integers
-- above 2^63 - 1, and of numbers from formats without types.
CREATE TABLE field (
    name            TEXT PRIMARY KEY,
    texts           INTEGER NOT NULL DEFAULT 0,
    numbers         INTEGER NOT NULL DEFAULT 0,
    booleans        INTEGER NOT NULL DEFAULT 0,
    arrays          INTEGER NOT NULL DEFAULT 0,
    objects         INTEGER NOT NULL DEFAULT 0,
    nulls           INTEGER NOT NULL DEFAULT 0,
    numeric_texts   INTEGER NOT NULL DEFAULT 0,
    boolean_texts   INTEGER NOT NULL DEFAULT 0,
    dates           INTEGER NOT NULL DEFAULT 0,
    times           INTEGER NOT NULL DEFAULT 0,
    zoned_times     INTEGER NOT NULL DEFAULT 0,
    large_integers  INTEGER NOT NULL DEFAULT 0,
    untyped_numbers INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Lexical index: the words of each live row. The texts themselves are in `document`. In an index
-- with a language another tokenizer stands here, for the terms that `language.rs` makes.
CREATE VIRTUAL TABLE lexical USING fts5 (
    title, body,
    content = '', contentless_delete = 1,
    tokenize = 'porter unicode61 remove_diacritics 2'
);
