//! The house rules that a program can check: who may import whom, file lengths, no absolute paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// The top-level module that a file belongs to.
fn module(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let first = path.strip_prefix(root).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The text of a file without its unit tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned()
}

/// What each module may use. Everyone may use `error`, `config`, `device`, `hub`, `lines` and `output`.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("ingest", &[][..]),
        ("chunk", &["ingest"]),
        ("cpu", &[]),
        ("gpu", &[]),
        ("model", &["cpu", "gpu"]),
        ("models", &["embed", "model", "rerank"]),
        ("embed", &["gpu", "model"]),
        ("rerank", &["model"]),
        ("store", &["chunk", "ingest"]),
        ("vectors", &[]),
        ("queries", &["vectors"]),
        ("scan", &["cpu", "gpu", "store"]),
        ("search", &["embed", "rerank", "scan", "store"]),
        ("indexing", &["chunk", "embed", "ingest", "store"]),
        ("compare", &["search"]),
        ("eval", &["queries", "rerank", "search", "store"]),
        ("batch", &["eval", "queries", "scan", "search", "store"]),
        ("answer", &["search"]),
        ("bench", &["cpu", "embed", "rerank", "scan", "search", "store"]),
        (
            "server",
            &[
                "answer", "chunk", "compare", "embed", "ingest", "model", "rerank", "scan",
                "search", "store",
            ],
        ),
        ("error", &[]),
        ("config", &[]),
        ("device", &[]),
        ("lines", &[]),
        ("output", &[]),
    ])
}

#[test]
fn modules_import_only_what_the_architecture_allows() {
    let allowed = allowed();
    let everyone = ["error", "config", "device", "hub", "lines", "output"];
    for path in sources("src") {
        let from = module(&path);
        if matches!(from.as_str(), "main" | "lib" | "cli") {
            continue;
        }
        let may = allowed.get(from.as_str()).unwrap_or_else(|| panic!("{from} has no rule here"));
        for line in code(&path).lines() {
            let Some(at) = line.find("crate::") else { continue };
            if line.trim_start().starts_with("//") {
                continue;
            }
            let to: String =
                line[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let fine = to == from || everyone.contains(&to.as_str()) || may.contains(&to.as_str());
            assert!(fine, "{}: `{}` may not use `{to}`", path.display(), from);
        }
    }
}

#[test]
fn source_files_are_short_enough_to_read() {
    for path in sources("src").into_iter().chain(sources("tests")) {
        let lines = code(&path).lines().count();
        let limit = if path.components().any(|c| c.as_os_str() == "tests") { 800 } else { 500 };
        assert!(lines <= limit, "{}: {lines} lines; split it by meaning", path.display());
    }
}

#[test]
fn cuda_is_chosen_in_three_places_alone() {
    for path in sources("src") {
        let text = code(&path);
        let here = ["src/lib.rs", "scan/mod.rs", "model/encoder/mod.rs"];
        let here = here.iter().any(|place| path.ends_with(place));
        let word = concat!("feature = \"", "cuda\"");
        assert!(
            here || !text.contains(word),
            "{}: no cfg of the CUDA feature here",
            path.display()
        );
    }
}

#[test]
fn no_test_is_ignored() {
    for path in sources("src").into_iter().chain(sources("tests")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let ignored = text.lines().any(|l| l.trim_start().starts_with(concat!("#[", "ignore")));
        assert!(!ignored, "{}: a test that is left out proves nothing", path.display());
    }
}
