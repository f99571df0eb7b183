//! A full check of an index: every checksum, every hash, every cross reference.

use super::documents::Documents;
use super::format::{HEADER_LEN, REBUILD, VALUE_LEN, vectors_file};
use super::hash::hash_parts;
use super::matrix::{row_norm_upper, stride_of};
use super::vector_file::open_vectors;
use super::{check_manifest, read_manifest};
use crate::error::{Error, Result};
use half::f16;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was checked: `vectors-0.f16, rows 0 to 511`.
    pub check: String,
    /// What is wrong and how to cure it; none where all is well.
    pub problem: Option<String>,
}

/// Checks everything that the index in `dir` says of itself: manifest, header, the checksum of every
/// block of rows, the stored norms, the database's own consistency, the hash of every document, and
/// that rows, chunks and the lexical index match. Damage is returned as findings, so that one run
/// shows all of it.
///
/// # Errors
///
/// [`Error::NoIndex`] where there is nothing to check, [`Error::Io`] where a file cannot be read, and
/// [`Error::Corrupt`] where manifest, header or database are too damaged to go on.
pub fn verify(dir: &Path) -> Result<Vec<Finding>> {
    let (manifest, manifest_hash) = read_manifest(dir)?;
    let documents = Documents::open_reader(dir)?;
    let state = documents.state()?;
    check_manifest(dir, manifest_hash, state)?;
    let file = open_vectors(dir, &manifest, state, false)?;
    let mut findings = vec![
        good("manifest.json".to_owned()),
        good(format!("{}, header and length", vectors_file(state.generation))),
    ];
    check_extents(&documents, state, file, stride_of(manifest.dim), &mut findings)?;
    check_database(&documents, &mut findings)?;
    check_documents(&documents, &mut findings)?;
    check_rows(&documents, state.n_rows, &mut findings)?;
    Ok(findings)
}

fn good(check: String) -> Finding {
    Finding { check, problem: None }
}

fn bad(check: String, problem: String) -> Finding {
    Finding { check, problem: Some(format!("{problem}; {REBUILD}")) }
}

fn check_extents(
    documents: &Documents,
    state: super::documents::State,
    mut file: File,
    stride: usize,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let name = vectors_file(state.generation);
    let extents: Vec<(i64, i64, i64, f64)> = documents
        .conn
        .prepare("SELECT first_row, n_rows, checksum, max_norm FROM extent ORDER BY first_row")
        .and_then(|mut s| {
            s.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?.collect()
        })
        .map_err(documents.failure())?;
    let mut next = 0u64;
    let mut damaged = 0;
    for (first, n_rows, checksum, max_norm) in extents {
        let (first, n_rows) = (first.cast_unsigned(), n_rows.cast_unsigned());
        let check = format!("{name}, rows {first} to {}", (first + n_rows).saturating_sub(1));
        if first != next || first + n_rows > state.n_rows {
            findings.push(bad(check, format!("the block should start at row {next}")));
            return Ok(());
        }
        next = first + n_rows;
        let mut bytes = vec![0u8; n_rows as usize * stride * VALUE_LEN];
        file.seek(SeekFrom::Start(HEADER_LEN as u64 + first * (stride * VALUE_LEN) as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(Error::io("read", &name))?;
        if xxh3_64(&bytes) != checksum.cast_unsigned() {
            damaged += 1;
            findings
                .push(bad(check, "the vectors are damaged (their checksum differs)".to_owned()));
            continue;
        }
        let values: Vec<f16> =
            bytes.chunks_exact(VALUE_LEN).map(|b| f16::from_le_bytes([b[0], b[1]])).collect();
        let norm = values.chunks_exact(stride).map(row_norm_upper).fold(0f32, f32::max);
        if values.iter().any(|v| !v.is_finite()) || f64::from(norm) > max_norm {
            damaged += 1;
            findings.push(bad(check, "a vector is longer than the stored bound".to_owned()));
        }
    }
    if next != state.n_rows {
        let check = format!("{name}, rows {next} to {}", state.n_rows - 1);
        findings.push(bad(check, "no checksum is stored for these rows".to_owned()));
    } else if damaged == 0 {
        findings.push(good(format!("{name}, checksums and norms of {next} rows")));
    }
    Ok(())
}

fn check_database(documents: &Documents, findings: &mut Vec<Finding>) -> Result<()> {
    let check = "documents.db, structure".to_owned();
    let report: Vec<String> = documents
        .conn
        .prepare("PRAGMA integrity_check(5)")
        .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
        .map_err(documents.failure())?;
    findings.push(if report == ["ok"] { good(check) } else { bad(check, report.join("; ")) });
    Ok(())
}

fn check_documents(documents: &Documents, findings: &mut Vec<Finding>) -> Result<()> {
    let mut damaged = 0u64;
    let mut count = 0u64;
    let mut first = None;
    let mut run = || -> rusqlite::Result<()> {
        let mut statement = documents.conn.prepare(
            "SELECT id, doc_id, title, text, json(metadata), embed_title, hash FROM document",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text = |i: usize| row.get_ref(i).ok().and_then(|v| v.as_str().ok());
            let hash = match (text(0), text(1), text(2), text(3), text(4)) {
                (Some(id), Some(doc_id), Some(title), Some(body), Some(metadata)) => {
                    Some(hash_parts([id, doc_id, title, body], metadata, row.get(5)?))
                }
                _ => None,
            };
            count += 1;
            if hash != row.get(6).ok() || hash.is_none() {
                damaged += 1;
                first.get_or_insert(
                    String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned(),
                );
            }
        }
        Ok(())
    };
    run().map_err(documents.failure())?;
    let check = format!("documents.db, content of {count} documents");
    findings.push(match first {
        None => good(check),
        Some(id) => bad(check, format!("{damaged} documents are damaged, '{id}' the first")),
    });
    Ok(())
}

fn check_rows(documents: &Documents, n_rows: u64, findings: &mut Vec<Finding>) -> Result<()> {
    let count = |sql: &str| -> Result<u64> {
        documents
            .conn
            .query_row(sql, [], |r| r.get::<_, i64>(0))
            .map(i64::cast_unsigned)
            .map_err(documents.failure())
    };
    let chunks = count("SELECT count(*) FROM chunk")?;
    let last = count("SELECT coalesce(max(row) + 1, 0) FROM chunk")?;
    let check = format!("documents.db, chunks of {n_rows} rows");
    findings.push(if chunks == n_rows && last == n_rows {
        good(check)
    } else {
        bad(check, format!("{chunks} chunks up to row {last} do not match {n_rows} rows"))
    });
    let stray = count(
        "SELECT count(*) FROM chunk c LEFT JOIN document d ON d.seq = c.document
         WHERE d.seq IS NULL OR c.start_byte < 0 OR c.start_byte > c.end_byte
            OR c.end_byte > length(CAST(d.text AS BLOB)) OR c.ordinal >= d.n_chunks",
    )?;
    let check = "documents.db, every chunk within its document".to_owned();
    findings.push(match stray {
        0 => good(check),
        n => bad(check, format!("{n} chunks point outside their document")),
    });
    let missing = count(
        "SELECT count(*) FROM chunk c JOIN document d ON d.seq = c.document
         WHERE d.dead = 0 AND c.row NOT IN (SELECT rowid FROM lexical)",
    )?;
    let extra = count(
        "SELECT count(*) FROM lexical l WHERE l.rowid NOT IN
         (SELECT c.row FROM chunk c JOIN document d ON d.seq = c.document WHERE d.dead = 0)",
    )?;
    let check = "documents.db, lexical index".to_owned();
    findings.push(match missing + extra {
        0 => good(check),
        _ => bad(check, format!("{missing} rows are missing from it, {extra} are too many")),
    });
    Ok(())
}
