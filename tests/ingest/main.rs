//! Files to documents: every format, every layout, every way in which input can be wrong.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "in the helpers of tests, a failure is a panic"
)]
#![allow(clippy::print_stdout, reason = "a test says what it does without")]

mod chunk;
mod csv;
mod extract;
mod fields;
mod folders;
mod hidden;
mod hostile;
mod jsonl;
mod kinds;
mod memory;
mod office;
mod parquet;
mod parquet_builder;
mod parquet_columns;
mod parquet_hostile;
mod parquet_writer;
mod partitions;
mod pdf;
mod queries;
mod shared;
mod sources;
mod text;
mod wrong_names;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use warpseek_error::Result;
use warpseek_ingest::{self as ingest, Document, ReadOptions};

/// A temporary folder with files in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, with the folders above it.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(&path, content).expect("a file");
        path
    }
}

fn gzip(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content.as_ref()).expect("compressed");
    encoder.finish().expect("compressed")
}

/// Everything that comes out of `path`.
fn read(path: &Path, options: &ReadOptions) -> Vec<Result<Document>> {
    match ingest::open(&[path.to_path_buf()], options) {
        Ok(reader) => reader.collect(),
        Err(error) => vec![Err(error)],
    }
}

/// The documents of inputs without errors, and the notes.
fn noted(inputs: &[PathBuf], options: &ReadOptions) -> (Vec<Document>, Vec<String>) {
    let mut reader = ingest::open(inputs, options).expect("a reader");
    let documents = reader.by_ref().map(|document| document.expect("a document")).collect();
    let notes = reader.notes().list();
    assert_eq!(reader.notes().total(), notes.len() as u64);
    (documents, notes.iter().map(ToString::to_string).collect())
}

/// The documents of a file called `name`, which has no errors.
fn documents(name: &str, content: impl AsRef<[u8]>) -> Vec<Document> {
    let folder = Folder::new();
    let path = folder.file(name, content);
    let all: Result<Vec<_>> = read(&path, &ReadOptions::default()).into_iter().collect();
    all.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The text of each record, or the message.
fn outcomes(name: &str, content: impl AsRef<[u8]>, options: &ReadOptions) -> Vec<String> {
    let folder = Folder::new();
    let path = folder.file(name, content);
    let outcome = |result: Result<Document>| match result {
        Ok(document) => document.text,
        Err(error) => format!("error: {error}"),
    };
    read(&path, options).into_iter().map(outcome).collect()
}

/// The first message of a file, with the options as they are.
fn first_error(name: &str, content: impl AsRef<[u8]>) -> String {
    let outcomes = outcomes(name, content, &ReadOptions::default());
    let error = outcomes.iter().find_map(|outcome| outcome.strip_prefix("error: "));
    error.unwrap_or_else(|| panic!("no error in {outcomes:?}")).to_string()
}

#[track_caller]
fn assert_has(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
}
