//! Whole corpora, where they lie at hand.

use std::path::{Path, PathBuf};

use warpseek_ingest::{self as ingest, ReadOptions};

use super::{Folder, gzip};

/// The shared data: `$WARPSEEK_SHARED`, else `../shared`.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("WARPSEEK_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let path = root.join("data").join(path);
    if path.exists() {
        return Some(path);
    }
    println!("{} is not there: reading a small stand-in", path.display());
    None
}

#[test]
fn corpus_of_chunked_papers_is_read_whole() {
    let folder = Folder::new();
    let stand_in = || {
        let line = |n: usize| {
            format!(
                "{{\"doi\":\"{n}\",\"chunk-id\":\"0\",\"chunk\":\"Title {n}\\nabstract\",\
                 \"id\":\"{n}\",\"title\":\"Title {n}\",\"published\":\"2024-01-01\"}}\n"
            )
        };
        folder.file("train.jsonl.gz", gzip((0..50).map(line).collect::<String>()))
    };
    let (path, count) = match shared("arxiv-chunked/train.jsonl.gz") {
        Some(path) => (path, 41_584),
        None => (stand_in(), 50),
    };
    let mut read = 0;
    for document in ingest::open(&[path], &ReadOptions::default()).expect("a reader") {
        let document = document.expect("a document");
        assert_eq!(document.id, format!("{}-0", document.doc_id));
        assert!(!document.embed_title && document.text.starts_with(&document.title));
        assert!(document.metadata.contains_key("published"));
        assert!(!document.metadata.contains_key("chunk"));
        read += 1;
    }
    assert_eq!(read, count);
}

#[test]
fn corpus_of_beir_is_read_whole() {
    let folder = Folder::new();
    let stand_in = || {
        let line = |n: usize| format!("{{\"_id\":\"{n}\",\"title\":\"T\",\"text\":\"a {n}\"}}\n");
        folder.file("corpus.jsonl", (0..50).map(line).collect::<String>())
    };
    let (path, count) = match shared("scifact/corpus.jsonl") {
        Some(path) => (path, 5_183),
        None => (stand_in(), 50),
    };
    let mut read = 0;
    for document in ingest::open(&[path], &ReadOptions::default()).expect("a reader") {
        let document = document.expect("a document");
        assert_eq!(document.id, document.doc_id);
        assert!(document.embed_title && !document.title.is_empty());
        read += 1;
    }
    assert_eq!(read, count);
}
