//! House rules that a program can check and crate borders do not: words, widths, lengths, names,
//! layers, circles of imports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Names that two definitions share on purpose: the same type, compiled with and without a feature.
const TWINS: [&str; 1] = ["DeviceVectors"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folders` with one of `extensions`, without build output.
fn files(folders: &[&str], extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Library sources: `src` here and in the crates.
fn sources() -> Vec<PathBuf> {
    let all = files(&["src", "crates", "python"], &["rs"]);
    all.into_iter().filter(|path| path.components().any(|c| c.as_os_str() == "src")).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The text of a file without its unit tests.
fn code(path: &Path) -> String {
    read(path).split("#[cfg(test)]\nmod tests").next().unwrap().to_owned()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn assert_none(violations: &[String], rule: &str) {
    let n = violations.len();
    assert!(violations.is_empty(), "{rule}; {n} violations:\n{}", violations.join("\n"));
}

#[test]
fn doc_comments_are_no_indirect_questions() {
    let asks = ["What", "Where", "How", "Whether", "Who", "Which"];
    let mut violations = Vec::new();
    for path in files(&["src", "crates", "python", "tests", "benches"], &["rs"]) {
        for (i, line) in read(&path).lines().enumerate() {
            let line = line.trim_start();
            let Some(doc) = line.strip_prefix("///").or(line.strip_prefix("//!")) else { continue };
            let first = doc.trim_start().split(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
            if asks.contains(&first) && !doc.trim_start().starts_with("# ") {
                violations.push(format!("{}:{}: {}", shown(&path), i + 1, doc.trim()));
            }
        }
    }
    assert_none(
        &violations,
        "a doc comment starts with a noun phrase or a verb (docs/glossary.md)",
    );
}

#[test]
fn lines_have_at_most_100_columns() {
    let mut violations = Vec::new();
    let folders = ["src", "crates", "python", "tests", "benches", "kernels"];
    for path in files(&folders, &["rs", "cu", "cuh", "h", "cpp"]) {
        for (i, line) in read(&path).lines().enumerate() {
            let is_link = line.contains("://");
            if line.chars().count() > 100 && !is_link {
                violations.push(format!("{}:{}", shown(&path), i + 1));
            }
        }
    }
    assert_none(&violations, "a line has at most 100 columns");
}

#[test]
fn type_names_stand_for_one_type() {
    let mut places: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for path in sources() {
        for line in code(&path).lines() {
            let mut words = line.split_whitespace().peekable();
            let is_public = words.next_if(|w| w.starts_with("pub")).is_some();
            while words.next_if(|w| w.starts_with("in") || w.ends_with(')')).is_some() {}
            let kind = words.next().unwrap_or("");
            if !matches!(kind, "struct" | "enum" | "trait" | "union") {
                continue;
            }
            let name: String =
                words.next().unwrap_or("").chars().take_while(|c| c.is_alphanumeric()).collect();
            places.entry(name).or_default().push((shown(&path), is_public));
        }
    }
    // Types that live and die in one file may share a name.
    let shared = places.into_iter().filter(|(name, all)| {
        all.len() > 1 && all.iter().any(|(_, public)| *public) && !TWINS.contains(&name.as_str())
    });
    let violations: Vec<String> = shared
        .map(|(name, all)| {
            let all: Vec<&str> = all.iter().map(|(path, _)| path.as_str()).collect();
            format!("{name}: {}", all.join(", "))
        })
        .collect();
    assert_none(&violations, "a type name stands for one type");
}

/// Per crate and file the files that it imports, parents and children of a module aside.
fn imports() -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let all: BTreeSet<PathBuf> = sources().into_iter().collect();
    let mut graph = BTreeMap::new();
    for path in &all {
        let src = path.ancestors().find(|p| p.ends_with("src")).unwrap().to_path_buf();
        let folder = path.parent().unwrap();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        // The folder that holds the modules below this one.
        let own = match stem {
            "mod" | "lib" | "main" => folder.to_path_buf(),
            _ => folder.join(stem),
        };
        let text = code(path);
        let mut targets = BTreeSet::new();
        for statement in text.split("use ").skip(1) {
            let statement = statement.split(';').next().unwrap_or_default();
            for full in expand(statement) {
                let mut parts = full.split("::");
                let mut at = match parts.next() {
                    Some("crate") => src.clone(),
                    Some("self") => own.clone(),
                    Some("super") => own.parent().unwrap().to_path_buf(),
                    _ => continue,
                };
                let mut found = None;
                for part in parts {
                    if part == "super" {
                        at = at.parent().unwrap().to_path_buf();
                        continue;
                    }
                    let file = at.join(format!("{part}.rs"));
                    at = at.join(part);
                    found =
                        [file, at.join("mod.rs")].into_iter().find(|f| all.contains(f)).or(found);
                }
                targets.extend(found.filter(|file| file != path));
            }
        }
        graph.insert(path.clone(), targets);
    }
    graph
}

/// The paths of a use statement, braces expanded.
fn expand(statement: &str) -> Vec<String> {
    let statement: String = statement.split_whitespace().collect();
    let Some(open) = statement.find('{') else { return vec![statement] };
    let (prefix, rest) = statement.split_at(open);
    let (mut depth, mut item, mut items) = (0, String::new(), Vec::new());
    for c in rest.chars() {
        match c {
            '{' if depth == 0 => depth = 1,
            ',' if depth == 1 => items.push(std::mem::take(&mut item)),
            '}' if depth == 1 => depth = 0,
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                item.push(c);
            }
        }
    }
    items.push(item);
    items.iter().flat_map(|item| expand(&format!("{prefix}{item}"))).collect()
}

#[test]
fn files_import_each_other_in_one_direction() {
    let graph = imports();
    let edges: usize = graph.values().map(BTreeSet::len).sum();
    assert!(edges > 200, "the imports were not understood: {edges}");
    // A module file that declares others hands their names on; it is no part of a circle.
    let is_face = |path: &Path| {
        path.ends_with("lib.rs") || path.ends_with("mod.rs") || path.with_extension("").is_dir()
    };
    let mut violations = Vec::new();
    for start in graph.keys().filter(|path| !is_face(path)) {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(at) = open.pop() {
            for next in graph[at].iter().filter(|path| !is_face(path)) {
                if next == start {
                    violations.push(format!("{} <- {}", shown(start), shown(at)));
                } else if seen.insert(next) {
                    open.push(graph.get_key_value(next).unwrap().0);
                }
            }
        }
    }
    assert_none(&violations, "no circle of imports between files");
}

/// The modules of `src`, lowest first. A module uses lower ones only; `cli` uses all.
const LAYERS: [&str; 16] = [
    "error", "output", "config", "models", "vectors", "queries", "store", "search", "indexing",
    "compare", "eval", "batch", "answer", "bench", "engine", "server",
];

#[test]
fn modules_of_the_root_use_lower_ones_only() {
    let layer = |name: &str| LAYERS.iter().position(|module| *module == name);
    let mut violations = Vec::new();
    for path in files(&["src"], &["rs"]) {
        let inside = path.strip_prefix(root().join("src")).unwrap();
        let own = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if matches!(own, "lib" | "main" | "cli") {
            continue;
        }
        let Some(height) = layer(own) else {
            violations.push(format!("{own} has no layer"));
            continue;
        };
        let text = code(&path);
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric()).collect();
                if used != own && layer(&used).is_none_or(|other| other > height) {
                    violations.push(format!("{}: `{own}` uses `{used}`", shown(&path)));
                }
            }
        }
    }
    assert_none(&violations, "a module of the root uses lower ones only (ARCHITECTURE.md)");
}

#[test]
fn source_files_are_short_enough_to_read() {
    let mut violations = Vec::new();
    for path in files(&["src", "crates", "python", "tests"], &["rs"]) {
        let limit = if path.starts_with(root().join("tests")) { 800 } else { 500 };
        let lines = code(&path).lines().count();
        if lines > limit {
            violations.push(format!("{}: {lines} lines", shown(&path)));
        }
    }
    assert_none(&violations, "a long file is split by meaning");
}

#[test]
fn no_test_is_ignored() {
    let mut violations = Vec::new();
    for path in files(&["src", "crates", "python", "tests"], &["rs"]) {
        let ignored = |line: &str| line.trim_start().starts_with(concat!("#[", "ignore"));
        if read(&path).lines().any(ignored) {
            violations.push(shown(&path));
        }
    }
    assert_none(&violations, "a test that is left out proves nothing");
}
