//! The full check of an index: every checksum, every hash, every cross reference.

use super::commit_record::{CommitRecord, hash_chunks};
use super::fields::{EARLIER_TABLE, FieldCatalog};
use super::folder::{SHARDS_FILE, folder_of_shards};
use super::format::{REBUILD, VectorFileKind};
use super::hash::hash_parts;
use super::index_files::IndexFiles;
use super::lexical::{add_all_words, schema, tokenizer};
use super::reader::Shard;
use super::row::DocumentTraits;
use super::shards::ShardList;
use super::{inputs, sources};
use crate::error::{Error, Result};
use rusqlite::Connection;
use std::collections::HashSet;
use std::path::Path;
use warpseek_topk::audit::Audit;
use xxhash_rust::xxh3::xxh3_128;

/// Outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Subject of the check: `vectors-0.f16, rows 0 to 511`.
    pub check: String,
    /// The damage and its remedy; `None` if there is none.
    pub problem: Option<String>,
}

impl From<Audit> for Finding {
    fn from(audit: Audit) -> Self {
        let backends = audit.backends.join(", ");
        let check = format!(
            "{} searches equal to an exhaustive one in float64, bit for bit, by {backends}",
            audit.searches
        );
        Self { check, problem: audit.difference }
    }
}

/// Checks the whole index in `dir`, or every shard of one: manifest, headers, the checksums of rows
/// and chunks, stored norms, the int8 copy, the database's structure, the hash of every document,
/// the field catalogue, and every word of the lexical index. Returns damage as findings, so that
/// one run shows all of it.
///
/// # Errors
///
/// [`NoIndex`](crate::error::Error::NoIndex) if there is nothing to check,
/// [`Io`](crate::error::Error::Io) if a file cannot be read, and
/// [`Corrupt`](crate::error::Error::Corrupt) if manifest, header or database are too damaged to go
/// on.
pub fn verify(dir: &Path) -> Result<Vec<Finding>> {
    match folder_of_shards(dir) {
        Some(dir) => verify_shards(&dir),
        None => verify_folder(dir),
    }
}

/// Checks the shards of an index one by one, and what they are together.
fn verify_shards(dir: &Path) -> Result<Vec<Finding>> {
    let list = ShardList::read(dir)?;
    let n = list.shards.len();
    let check = format!("{SHARDS_FILE}, a list of {n}");
    let mut findings = vec![Finding { check, problem: None }];
    let mut ids = HashSet::new();
    let mut twice = None;
    for (number, entry) in list.shards.iter().enumerate() {
        let named = |check: &str| format!("{}: {check}", entry.folder);
        let found = list.open(dir, number..number + 1).and_then(|shards| {
            for id in shards.iter().map(Shard::ids).collect::<Result<Vec<_>>>()?.concat() {
                if !ids.insert(xxh3_128(id.as_bytes())) {
                    twice.get_or_insert(id);
                }
            }
            verify_folder(&dir.join(&entry.folder))
        });
        match found {
            Ok(found) => findings.extend(
                found.into_iter().map(|f| Finding { check: named(&f.check), problem: f.problem }),
            ),
            Err(e @ (Error::Corrupt { .. } | Error::Io { .. })) => {
                findings.push(Finding { check: named("opening"), problem: Some(e.to_string()) })
            }
            Err(e) => return Err(e),
        }
    }
    findings.push(Finding {
        check: format!("ids of {} documents in all shards", ids.len()),
        problem: twice.map(|id| format!("'{id}' is in two shards, or twice in one; {REBUILD}")),
    });
    Ok(findings)
}

fn verify_folder(dir: &Path) -> Result<Vec<Finding>> {
    let files = IndexFiles::open_reader(dir)?;
    let f16_name = VectorFileKind::F16.name(files.state.generation);
    let mut checks = Checks { files, findings: Vec::new() };
    checks.add("manifest.json", None);
    checks.add(format!("{f16_name}, header and length"), None);
    checks.go_on(&format!("{f16_name}, rows"), |checks| checks.rows(&f16_name))?;
    checks.go_on("documents.db, structure", Checks::structure)?;
    checks.go_on("documents.db, content", Checks::documents)?;
    checks.go_on("documents.db, chunks", Checks::chunks)?;
    checks.go_on("documents.db, lexical index", Checks::words)?;
    Ok(checks.findings)
}

struct Checks {
    files: IndexFiles,
    findings: Vec<Finding>,
}

impl Checks {
    /// Runs checks that read the database. If a page is damaged, that is their finding.
    fn go_on(&mut self, check: &str, run: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        match run(self) {
            Err(Error::Corrupt { reason, .. }) => {
                self.findings.push(Finding { check: check.to_owned(), problem: Some(reason) });
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Adds a finding. The remedy for `problem` is to rebuild the index.
    fn add(&mut self, check: impl Into<String>, problem: Option<String>) {
        let problem = problem.map(|problem| format!("{problem}; {REBUILD}"));
        self.findings.push(Finding { check: check.into(), problem });
    }

    /// Checksums and norms of the rows, checksums of their chunks, and the int8 copy.
    fn rows(&mut self, f16_name: &str) -> Result<()> {
        let n_rows = self.files.state.n_rows;
        let mut next = 0;
        let mut damaged = false;
        let (mut int8_damage, mut checksum_damage) = (None, None);
        for record in CommitRecord::read_all(&self.files.database)? {
            let IndexFiles { database, vectors, .. } = &self.files;
            let (first, end) = (record.first_row, record.end());
            let check = format!("{f16_name}, rows {first} to {}", end.saturating_sub(1));
            if first != next || end > n_rows {
                self.add(check, Some(format!("the block should start at row {next}")));
                return Ok(());
            }
            next = end;
            let mut finite = true;
            let hasher = vectors.read_rows(&record, |first, rows| {
                finite &= rows.iter().all(|v| v.is_finite());
                let damage = vectors.derived_damage(first, rows)?;
                int8_damage = int8_damage.or(damage.int8.then_some(first));
                checksum_damage = checksum_damage.or(damage.checksums.then_some(first));
                Ok(())
            })?;
            let (checksum, max_norm) = hasher.finish();
            let chunks = database.run(|conn| hash_chunks(conn, first, record.n_rows))?;
            let problem = if checksum != record.checksum {
                "the vectors are damaged (their checksum differs)"
            } else if !finite || max_norm != record.max_norm {
                "the stored norm is not that of the vectors"
            } else if chunks != record.chunk_checksum {
                "the chunks of these rows are damaged (their checksum differs)"
            } else {
                continue;
            };
            damaged = true;
            self.add(check, Some(problem.to_owned()));
        }
        if next != n_rows {
            let check = format!("{f16_name}, rows {next} to {}", n_rows.saturating_sub(1));
            self.add(check, Some("no checksum is stored for these rows".to_owned()));
        } else if !damaged {
            let check = format!("{f16_name}, checksums and norms of {next} rows and their chunks");
            self.add(check, None);
            self.int8_copy(int8_damage);
            self.checksums(checksum_damage);
        }
        Ok(())
    }

    /// The int8 copy. `damage` is the first row of the first block that differs from the rows
    /// quantized again.
    fn int8_copy(&mut self, damage: Option<u64>) {
        let state = self.files.state;
        if !state.has_int8 {
            return;
        }
        let [integers, scales] =
            [VectorFileKind::Int8, VectorFileKind::Scales].map(|kind| kind.name(state.generation));
        let problem = match (&self.files.vectors.int8, damage) {
            (Some(_), None) => None,
            (Some(_), Some(row)) => {
                Some(format!("from row {row} on they differ from what the rows give;"))
            }
            (None, _) => Some("one of them is missing or cannot be used;".to_owned()),
        };
        self.findings.push(Finding {
            check: format!("{integers} and {scales}, against the rows"),
            problem: problem.map(|problem| format!("{problem} `warpseek compact` makes them anew")),
        });
    }

    /// The checksums of rows. `damage` is the first row of the first block whose checksums differ
    /// from those that the rows and their int8 copy give.
    fn checksums(&mut self, damage: Option<u64>) {
        let files = &self.files;
        let problem = match (&files.vectors.checksums, damage) {
            (Some(_), None) => None,
            (Some(_), Some(row)) => {
                Some(format!("from row {row} on they are not those of the rows"))
            }
            (None, _) => Some("the file is missing or cannot be used".to_owned()),
        };
        let remedy = VectorFileKind::Checksums.remedy();
        self.findings.push(Finding {
            check: format!(
                "{}, against the rows",
                VectorFileKind::Checksums.name(files.state.generation)
            ),
            problem: problem.map(|problem| format!("{problem}; {remedy}")),
        });
    }

    /// The tables of the database, and SQLite's own structures.
    fn structure(&mut self) -> Result<()> {
        let language = self.files.manifest.language();
        let tables = |conn: &Connection| -> rusqlite::Result<Vec<(String, Option<String>)>> {
            conn.prepare(
                "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name",
            )?
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
            .collect()
        };
        let is_current = FieldCatalog::is_current(&self.files.database)?;
        let expected = Connection::open_in_memory().and_then(|conn| {
            conn.execute_batch(&schema(language))?;
            if !is_current {
                conn.execute_batch("DROP TABLE field")?;
                conn.execute_batch(EARLIER_TABLE)?;
            }
            tables(&conn)
        });
        let same = self.files.database.run(tables).ok() == expected.ok();
        let problem = (!same).then(|| "its tables are not those of this format".to_owned());
        self.add("documents.db, tables", problem);
        let report: Vec<String> =
            self.files.database.collect("PRAGMA integrity_check(5)", [], |r| r.get(0))?;
        let problem = (report != ["ok"]).then(|| report.join("; "));
        self.add("documents.db, structure", problem);
        Ok(())
    }

    /// The hash of every document, and the catalogue of their fields.
    fn documents(&mut self) -> Result<()> {
        let mut count = 0u64;
        let mut damaged = 0u64;
        let mut first = None;
        let mut fields = FieldCatalog::default();
        let sql = "SELECT id, doc_id, title, text,
                          CASE WHEN json_valid(metadata, 8) THEN json(metadata) END,
                          embed_title, hash, dead
                   FROM document";
        self.files.database.for_each(sql, [], |row| {
            let text = |i: usize| row.get_ref(i).ok()?.as_str().ok();
            let mut hash = || {
                let (json, traits) = (text(4)?, DocumentTraits::from_bits(row.get(5).ok()?));
                if !row.get(7).ok()? {
                    let metadata = serde_json::from_str(json).unwrap_or_default();
                    fields.count(&metadata, traits.is_untyped);
                }
                Some(hash_parts([text(0)?, text(1)?, text(2)?, text(3)?, json], traits))
            };
            let hash = hash();
            count += 1;
            if hash.is_none() || hash != row.get(6).ok() {
                damaged += 1;
                let id = row.get_ref(0)?.as_bytes().unwrap_or_default();
                first.get_or_insert(String::from_utf8_lossy(id).into_owned());
            }
            Ok(())
        })?;
        let content = self.files.database.content()?;
        let hashed = self.files.database.hash_documents()?;
        let mut problem =
            first.map(|id| format!("{damaged} documents are damaged, '{id}' the first"));
        if problem.is_none() && content.is_some_and(|known| known != hashed) {
            problem = Some("the documents are not those that the shard was made of".to_owned());
        }
        self.add(format!("documents.db, content of {count} documents"), problem);
        // A catalogue of an earlier version counts deleted documents too.
        let database = &self.files.database;
        let same = !FieldCatalog::is_current(database)? || FieldCatalog::read(database)? == fields;
        let problem = (!same && damaged == 0)
            .then(|| "the catalogue of metadata fields does not match the documents".to_owned());
        self.add("documents.db, metadata fields", problem);
        Ok(())
    }

    /// Every row has its chunk, and every document its chunks; the entries of sources.
    fn chunks(&mut self) -> Result<()> {
        let IndexFiles { database, state, .. } = &self.files;
        let count = |sql: &str| database.number::<i64>(sql);
        let n_rows = state.n_rows.cast_signed();
        let chunks = count("SELECT count(*) FROM chunk")?;
        let last = count("SELECT coalesce(max(row) + 1, 0) FROM chunk")?;
        let stray = count(
            "SELECT count(*) FROM chunk c LEFT JOIN document d ON d.seq = c.document
             WHERE d.seq IS NULL OR c.start_byte < 0 OR c.start_byte > c.end_byte
                OR c.end_byte > octet_length(d.text)",
        )?;
        let incomplete = count(
            "SELECT count(*) FROM document d WHERE d.n_chunks < 1 OR d.n_chunks <>
             (SELECT count(DISTINCT ordinal) FROM chunk c WHERE c.document = d.seq
              AND c.ordinal >= 0 AND c.ordinal < d.n_chunks)",
        )?;
        let sources = sources::count_damaged(database)?;
        let stamps = inputs::count_damaged(database)?;
        let problem = (chunks != n_rows || last != n_rows)
            .then(|| format!("{chunks} chunks up to row {last} do not match {n_rows} rows"));
        self.add(format!("documents.db, chunks of {n_rows} rows"), problem);
        let problem = (stray + incomplete > 0 || sources + stamps > 0).then(|| {
            format!(
                "{stray} chunks outside their document, {incomplete} documents without all \
                 chunks, {sources} damaged sources, {stamps} damaged stamps of files"
            )
        });
        self.add("documents.db, chunks and documents", problem);
        Ok(())
    }

    /// The words of the lexical index, against an index made again from the texts.
    fn words(&mut self) -> Result<()> {
        let language = self.files.manifest.language();
        let tokenizer = tokenizer(language);
        let compare = |conn: &Connection| -> rusqlite::Result<i64> {
            conn.execute_batch(&format!(
                "PRAGMA query_only = 0;
                 CREATE VIRTUAL TABLE temp.lexical USING fts5 (
                     title, body, content = '', contentless_delete = 1, tokenize = '{tokenizer}'
                 );",
            ))?;
            // The unqualified name `lexical` means the temporary table now.
            add_all_words(conn, language)?;
            conn.execute_batch(
                "CREATE VIRTUAL TABLE temp.stored
                     USING fts5vocab ('main', 'lexical', 'instance');
                 CREATE VIRTUAL TABLE temp.expected
                     USING fts5vocab ('temp', 'lexical', 'instance');",
            )?;
            conn.query_row(
                "SELECT
                 (SELECT count(*) FROM (SELECT * FROM stored EXCEPT SELECT * FROM expected)) +
                 (SELECT count(*) FROM (SELECT * FROM expected EXCEPT SELECT * FROM stored))",
                [],
                |r| r.get(0),
            )
        };
        let problem = match self.files.database.run(|conn| Ok(compare(conn)))? {
            Ok(0) => None,
            Ok(n) => Some(format!("{n} entries differ from the texts")),
            Err(e) => Some(format!("it cannot be read ({e})")),
        };
        self.add("documents.db, lexical index", problem);
        Ok(())
    }
}
