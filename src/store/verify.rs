//! A full check of an index: every checksum, every hash, every cross reference.

use super::documents::{Documents, SCHEMA, State};
use super::extent::{Extent, RowSums, hash_chunks};
use super::fields::FieldCatalog;
use super::format::{REBUILD, VectorFile};
use super::hash::hash_parts;
use super::matrix::stride_of;
use super::pending::add_words;
use super::reader::read_fields;
use super::snapshot::Snapshot;
use super::vector_file::VectorFiles;
use crate::error::{Error, Result};
use half::f16;
use rusqlite::Connection;
use std::path::Path;

/// Rows that are read at a time.
const PIECE_ROWS: u64 = 8_192;

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was checked: `vectors-0.f16, rows 0 to 511`.
    pub check: String,
    /// What is wrong and how to cure it; none where all is well.
    pub problem: Option<String>,
}

/// Checks everything that the index in `dir` says of itself: manifest, header, the checksums of every
/// block of rows and of their chunks, the stored norms, the database's own structure, the hash of
/// every document, the catalogue of fields, and every word of the lexical index. Damage is returned as
/// findings, so that one run shows all of it.
///
/// # Errors
///
/// [`Error::NoIndex`] where there is nothing to check, [`Error::Io`] where a file cannot be read, and
/// [`Error::Corrupt`] where manifest, header or database are too damaged to go on.
pub fn verify(dir: &Path) -> Result<Vec<Finding>> {
    let Snapshot { manifest, documents, state, vectors } = Snapshot::open(dir)?;
    let mut checks = Checks { documents, state, findings: Vec::new() };
    checks.good("manifest.json");
    checks.good(&format!("{}, header and length", VectorFile::Half.name(state.generation)));
    checks.rows(&vectors, stride_of(manifest.dim))?;
    checks.structure()?;
    checks.documents()?;
    checks.chunks()?;
    checks.words()?;
    Ok(checks.findings)
}

struct Checks {
    documents: Documents,
    state: State,
    findings: Vec<Finding>,
}

impl Checks {
    fn good(&mut self, check: &str) {
        self.findings.push(Finding { check: check.to_owned(), problem: None });
    }

    fn bad(&mut self, check: &str, problem: &str) {
        let problem = Some(format!("{problem}; {REBUILD}"));
        self.findings.push(Finding { check: check.to_owned(), problem });
    }

    /// One finding: good, or bad where `problem` says why.
    fn settle(&mut self, check: &str, problem: Option<String>) {
        match problem {
            None => self.good(check),
            Some(problem) => self.bad(check, &problem),
        }
    }

    fn rows(&mut self, files: &VectorFiles, stride: usize) -> Result<()> {
        let name = VectorFile::Half.name(self.state.generation);
        let mut rows: Vec<f16> = Vec::new();
        let mut next = 0;
        let mut damaged = false;
        let mut prefilter_damaged = None;
        for extent in Extent::read_all(&self.documents)? {
            let end = extent.first_row.saturating_add(extent.n_rows);
            let check = format!("{name}, rows {} to {}", extent.first_row, end.saturating_sub(1));
            if extent.first_row != next || end > self.state.n_rows {
                self.bad(&check, &format!("the block should start at row {next}"));
                return Ok(());
            }
            let mut sums = RowSums::default();
            let mut finite = true;
            while next < end {
                let n = PIECE_ROWS.min(end - next);
                files.read_half(next, n as usize, &mut rows).map_err(Error::io("read", &name))?;
                sums.add(&rows, stride);
                finite &= rows.iter().all(|v| v.is_finite());
                if !files.prefilter_matches(next, &rows).map_err(Error::io("read", &name))? {
                    prefilter_damaged.get_or_insert(next);
                }
                next += n;
            }
            let (checksum, max_norm) = sums.finish();
            let chunks = hash_chunks(&self.documents.conn, extent.first_row, extent.n_rows)
                .map_err(self.documents.failure())?;
            let problem = if checksum != extent.checksum {
                "the vectors are damaged (their checksum differs)"
            } else if !finite || max_norm != extent.max_norm {
                "the stored norm is not that of the vectors"
            } else if chunks != extent.chunk_checksum {
                "the chunks of these rows are damaged (their checksum differs)"
            } else {
                continue;
            };
            damaged = true;
            self.bad(&check, problem);
        }
        if next != self.state.n_rows {
            let last = self.state.n_rows.saturating_sub(1);
            self.bad(
                &format!("{name}, rows {next} to {last}"),
                "no checksum is stored for these rows",
            );
        } else if !damaged {
            self.good(&format!("{name}, checksums and norms of {next} rows and their chunks"));
            self.prefilter(files, prefilter_damaged);
        }
        Ok(())
    }

    /// The prefilter, of which `damaged` is the first row of the first piece that differs from one made
    /// anew. Nothing is said of it where the rows themselves are damaged.
    fn prefilter(&mut self, files: &VectorFiles, damaged: Option<u64>) {
        if !self.state.has_prefilter {
            return;
        }
        let names = [VectorFile::Prefilter, VectorFile::Scales]
            .map(|file| file.name(self.state.generation))
            .join(" and ");
        let check = format!("{names}, against the rows");
        let problem = match (&files.prefilter, damaged) {
            (Some(_), None) => return self.good(&check),
            (Some(_), Some(row)) => {
                format!("from row {row} on they differ from what the rows give; delete them, then")
            }
            (None, _) => "one of them is missing or cannot be used;".to_owned(),
        };
        let problem = Some(format!("{problem} `warpseek compact` makes them anew"));
        self.findings.push(Finding { check, problem });
    }

    fn structure(&mut self) -> Result<()> {
        let schema = |conn: &Connection| -> rusqlite::Result<Vec<(String, Option<String>)>> {
            conn.prepare(
                "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name",
            )?
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
            .collect()
        };
        let expected = Connection::open_in_memory().and_then(|conn| {
            conn.execute_batch(SCHEMA)?;
            schema(&conn)
        });
        let same = schema(&self.documents.conn).ok() == expected.ok();
        let problem = (!same).then(|| "its tables are not those of this format".to_owned());
        self.settle("documents.db, tables", problem);
        let report: Vec<String> = self
            .documents
            .conn
            .prepare("PRAGMA integrity_check(5)")
            .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
            .map_err(self.documents.failure())?;
        let problem = (report != ["ok"]).then(|| report.join("; "));
        self.settle("documents.db, structure", problem);
        Ok(())
    }

    /// The hash of every document, and the catalogue of their fields.
    fn documents(&mut self) -> Result<()> {
        let mut count = 0u64;
        let mut damaged = 0u64;
        let mut first = None;
        let mut fields = FieldCatalog::default();
        let mut run = || -> rusqlite::Result<()> {
            let mut statement = self.documents.conn.prepare(
                "SELECT id, doc_id, title, text,
                        CASE WHEN json_valid(metadata, 8) THEN json(metadata) END, embed_title, hash
                 FROM document",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |i: usize| row.get_ref(i).ok().and_then(|v| v.as_str().ok());
                let hash = match (text(0), text(1), text(2), text(3), text(4), row.get(5)) {
                    (Some(id), Some(doc_id), Some(title), Some(body), Some(json), Ok(embed)) => {
                        fields.count(&serde_json::from_str(json).unwrap_or_default());
                        Some(hash_parts([id, doc_id, title, body], json, embed))
                    }
                    _ => None,
                };
                count += 1;
                if hash.is_none() || hash != row.get(6).ok() {
                    damaged += 1;
                    let id = row.get_ref(0)?.as_bytes().unwrap_or_default();
                    first.get_or_insert(String::from_utf8_lossy(id).into_owned());
                }
            }
            Ok(())
        };
        run().map_err(self.documents.failure())?;
        let problem = first.map(|id| format!("{damaged} documents are damaged, '{id}' the first"));
        self.settle(&format!("documents.db, content of {count} documents"), problem);
        let same = read_fields(&self.documents)? == fields;
        let problem = (!same && damaged == 0)
            .then(|| "the catalogue of metadata fields does not match the documents".to_owned());
        self.settle("documents.db, metadata fields", problem);
        Ok(())
    }

    /// That every row has its chunk, and every document its chunks.
    fn chunks(&mut self) -> Result<()> {
        let n_rows = self.state.n_rows;
        let chunks = self.count("SELECT count(*) FROM chunk")?;
        let last = self.count("SELECT coalesce(max(row) + 1, 0) FROM chunk")?;
        let problem = (chunks != n_rows || last != n_rows)
            .then(|| format!("{chunks} chunks up to row {last} do not match {n_rows} rows"));
        self.settle(&format!("documents.db, chunks of {n_rows} rows"), problem);
        let stray = self.count(
            "SELECT count(*) FROM chunk c LEFT JOIN document d ON d.seq = c.document
             WHERE d.seq IS NULL OR c.start_byte < 0 OR c.start_byte > c.end_byte
                OR c.end_byte > octet_length(d.text)",
        )?;
        let incomplete = self.count(
            "SELECT count(*) FROM document d WHERE d.n_chunks < 1 OR d.n_chunks <>
             (SELECT count(DISTINCT ordinal) FROM chunk c WHERE c.document = d.seq
              AND c.ordinal >= 0 AND c.ordinal < d.n_chunks)",
        )?;
        let problem = (stray + incomplete > 0).then(|| {
            format!(
                "{stray} chunks outside their document, {incomplete} documents without all chunks"
            )
        });
        self.settle("documents.db, chunks and documents", problem);
        Ok(())
    }

    /// The words of the lexical index against ones counted anew.
    fn words(&mut self) -> Result<()> {
        let conn = &self.documents.conn;
        let run = || -> rusqlite::Result<i64> {
            conn.execute_batch(
                "PRAGMA query_only = 0;
                 CREATE VIRTUAL TABLE temp.lexical USING fts5 (
                     title, body, content = '', contentless_delete = 1,
                     tokenize = 'porter unicode61 remove_diacritics 2'
                 );",
            )?;
            let mut statement = conn.prepare(
                "SELECT c.row, d.title, d.text, c.start_byte, c.end_byte
                 FROM document d CROSS JOIN chunk c ON c.document = d.seq
                 WHERE d.dead = 0 ORDER BY d.seq, c.row",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let range = row.get::<_, i64>(3)? as usize..row.get::<_, i64>(4)? as usize;
                let number = row.get::<_, i64>(0)?.cast_unsigned();
                let (title, text) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
                // Unqualified, the name means the temporary table.
                add_words(conn, number, title, text, range)?;
            }
            conn.execute_batch(
                "CREATE VIRTUAL TABLE temp.stored_words USING fts5vocab ('main', 'lexical', 'instance');
                 CREATE VIRTUAL TABLE temp.true_words USING fts5vocab ('temp', 'lexical', 'instance');",
            )?;
            conn.query_row(
                "SELECT
                 (SELECT count(*) FROM (SELECT * FROM stored_words EXCEPT SELECT * FROM true_words)) +
                 (SELECT count(*) FROM (SELECT * FROM true_words EXCEPT SELECT * FROM stored_words))",
                [],
                |r| r.get(0),
            )
        };
        let problem = match run() {
            Ok(0) => None,
            Ok(n) => Some(format!("{n} entries differ from the texts")),
            Err(e) => Some(format!("it cannot be read ({e})")),
        };
        self.settle("documents.db, lexical index", problem);
        Ok(())
    }

    fn count(&self, sql: &str) -> Result<u64> {
        self.documents
            .conn
            .query_row(sql, [], |r| r.get::<_, i64>(0))
            .map(i64::cast_unsigned)
            .map_err(self.documents.failure())
    }
}
