//! Models, rerankers, devices and flags that cannot be used.

use super::{indexed, refused, sound};
use crate::golden::golden;
use crate::support::cli::{Workplace, finish, records, small_model, small_reranker};
use std::path::Path;

/// A copy of the model folder `from` as `name`, in which `file` is changed.
fn model(
    place: &Workplace,
    from: impl AsRef<Path>,
    name: &str,
    file: &str,
    change: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> String {
    let from = from.as_ref();
    for folder in ["", "1_Pooling"] {
        let Ok(entries) = std::fs::read_dir(from.join(folder)) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            let to = Path::new(name).join(folder).join(path.file_name().unwrap());
            place.file(to.to_str().unwrap(), std::fs::read(path).unwrap());
        }
    }
    let changed = change(std::fs::read(place.path(name).join(file)).unwrap());
    place.file(&format!("{name}/{file}"), changed);
    format!("./{name}")
}

/// The bytes of a JSON file with one text in place of another.
fn replaced(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(from), "{text}");
    text.replace(from, to).into_bytes()
}

#[test]
fn model_that_cannot_be_used_is_named_with_the_cure() {
    let place = Workplace::new();
    place.file("c.jsonl", records(3));
    std::fs::create_dir(place.path("hollow")).unwrap();
    place.file("pickle/config.json", "{}");
    place.file("pickle/tokenizer.json", "{}");
    place.file("pickle/pytorch_model.bin", "x");
    let small = small_model();
    let copy = |name: &str, file: &str, change: fn(Vec<u8>) -> Vec<u8>| {
        model(&place, &small, name, file, change)
    };
    let cases: &[(String, &[&str])] = &[
        ("all-MiniLM-L6".into(), &["did you mean 'all-MiniLM-L6-v2'", "remedy"]),
        ("nix".into(), &["'nix'", "all-MiniLM-L6-v2", "remedy"]),
        ("./gone".into(), &["./gone: no such folder", "model.safetensors"]),
        ("./hollow".into(), &["./hollow: contains no model", "no config.json"]),
        ("./pickle".into(), &["pytorch_model.bin, a pickle", "safetensors.torch", "./pickle"]),
        ("./c.jsonl".into(), &["./c.jsonl: is a file"]),
        (
            copy("halved", "model.safetensors", |b| b[..b.len() / 2].to_vec()),
            &["halved/model.safetensors", "no valid safetensors", "fetch it again"],
        ),
        (
            copy("emptied", "model.safetensors", |_| Vec::new()),
            &["emptied/model.safetensors", "fetch it again"],
        ),
        (
            copy("noise", "model.safetensors", |b| vec![0xa5; b.len()]),
            &["noise/model.safetensors", "fetch it again"],
        ),
        (
            copy("gpt", "config.json", |b| {
                replaced(b, "\"model_type\": \"bert\"", "\"model_type\": \"gpt2\"")
            }),
            &["gpt/config.json", "'gpt2' is not supported", "'bert'"],
        ),
        (
            copy("wider", "config.json", |b| {
                replaced(b, "\"hidden_size\": 24", "\"hidden_size\": 32")
            }),
            &["wider/model.safetensors", "[733, 24]", "[733, 32]"],
        ),
        (
            copy("deeper", "config.json", |b| {
                replaced(b, "hidden_layers\": 3", "hidden_layers\": 30")
            }),
            &["deeper/model.safetensors", "layer.3", "missing"],
        ),
        (copy("torn", "config.json", |_| b"{".to_vec()), &["torn/config.json"]),
        (copy("speechless", "tokenizer.json", |_| b"{}".to_vec()), &["speechless/tokenizer.json"]),
    ];
    for (name, parts) in cases {
        let run = place.run(&["index", "c.jsonl", "--into", "new", "--model", name]);
        refused(&run, name, 3, parts);
        assert!(!place.path("new").exists(), "{name}");
        refused(&place.pipe(&["embed", "--model", name], "river\n"), name, 3, parts);
    }
    for command in [&["models", "path", "all-MiniLM-L6"], &["models", "pull", "all-MiniLM-L6"]] {
        let parts = ["did you mean 'all-MiniLM-L6-v2'"];
        refused(&place.run(command), &command.join(" "), 3, &parts);
    }
}

#[test]
fn model_of_another_index_is_refused_by_its_checksum() {
    let place = indexed(12);
    let other = golden().join("models/bge-like").display().to_string();
    let run = place.run(&["search", "idx", "river", "--model", &other]);
    refused(&run, "search", 3, &["sha256", "--model"]);
    let run = place.run(&["index", "corpus.jsonl", "--into", "idx", "--model", &other]);
    refused(&run, "index", 2, &["idx", "another folder"]);
    sound(&place, 12);
}

#[test]
fn reranker_as_embedding_model_is_refused() {
    let place = Workplace::new();
    place.file("c.jsonl", records(3));
    let reranker = small_reranker();
    let run = place.run(&["index", "c.jsonl", "--into", "new", "--model", &reranker]);
    refused(&run, "index", 3, &["cross-encoder", "--reranker"]);
}

#[test]
fn reranker_that_is_none_is_named_with_the_reason() {
    let place = indexed(12);
    std::fs::create_dir(place.path("hollow")).unwrap();
    let embedder = small_model().display().to_string();
    let labels = |b| replaced(b, "\"LABEL_0\": 0", "\"LABEL_0\": 0, \"LABEL_1\": 1");
    let labels =
        |b| replaced(labels(b), "\"0\": \"LABEL_0\"", "\"0\": \"LABEL_0\", \"1\": \"LABEL_1\"");
    let cases: &[(String, &[&str])] = &[
        (embedder, &["no classifier", "no cross-encoder"]),
        ("nix".into(), &["'nix'", "ms-marco-MiniLM-L6-v2"]),
        ("ms-marco-MiniLM".into(), &["did you mean 'ms-marco-MiniLM-L6-v2'"]),
        ("./hollow".into(), &["./hollow: contains no model"]),
        (
            model(&place, small_reranker(), "three", "config.json", labels),
            &["2 outputs", "a reranker has one"],
        ),
        (
            model(&place, small_reranker(), "cut", "model.safetensors", |b| b[..1000].to_vec()),
            &["cut/model.safetensors", "fetch it again"],
        ),
    ];
    for (name, parts) in cases {
        refused(&place.run(&["search", "idx", "river", "--reranker", name]), name, 3, parts);
        refused(&place.run(&["rerank", "river", "lamp", "--reranker", name]), name, 3, parts);
    }
    sound(&place, 12);
}

#[test]
fn flag_that_makes_no_sense_is_refused_by_name() {
    let place = indexed(12);
    let search = ["search", "idx", "river"];
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["--threads", "0"], 2, &["0 threads", "1 to 1024"]),
        (&["--threads", "99999"], 2, &["99999 threads", "1 to 1024"]),
        (&["--threads", "many"], 2, &["'many'", "--threads"]),
        (&["--device", "cuda:99"], 4, &["cuda:99"]),
        (&["--device", "tpu"], 2, &["'tpu'", "auto, cpu or cuda:N"]),
        (&["--device", "cuda:x"], 2, &["'cuda:x'"]),
        (&["--rernak"], 2, &["--rernak"]),
        (&["and more"], 2, &["and more"]),
    ];
    for (more, code, parts) in cases {
        refused(&place.run(&[&search[..], more].concat()), &more.join(" "), *code, parts);
    }
    let commands: &[(&[&str], &[&str])] = &[
        (&["serach", "idx", "river"], &["'serach'", "'search'"]),
        (&["frobnicate"], &["'frobnicate'"]),
        (&["search", "idx"], &["<QUERY>"]),
        (&["index", "corpus.jsonl"], &["--into"]),
        (&["index", "--into", "idx"], &["<INPUT>"]),
        (&["index", "corpus.jsonl", "--into", "idx", "--on-error", "weep"], &["stop, skip"]),
        (&["compare", "idx", "river", "--queries", "q"], &["--queries"]),
        (&["compare", "idx", "--queries", "q"], &["--qrels"]),
        (&["eval", "idx", "--queries", "q"], &["--qrels"]),
        (&["verify", "idx", "--sample", "some"], &["'some'", "--sample"]),
        (&["models", "list", "more"], &["'more'"]),
        (&[], &["search"]),
    ];
    for (args, parts) in commands {
        refused(&place.run(args), &args.join(" "), 2, parts);
    }
    sound(&place, 12);
}

#[test]
fn environment_that_makes_no_sense_is_refused_by_name() {
    let place = indexed(12);
    let cases: &[(&str, &str, i32, &[&str])] = &[
        ("WARPSEEK_TIER", "nonsense", 2, &["'nonsense'", "avx2", "WARPSEEK_TIER"]),
        ("WARPSEEK_THREADS", "0", 2, &["0 threads"]),
        ("WARPSEEK_DEVICE", "tpu", 2, &["'tpu'", "cuda:N"]),
        ("WARPSEEK_PRECISION", "f64", 2, &["'f64'", "auto, f32, f16, bf16, int8"]),
        ("WARPSEEK_RERANKER", "nix", 3, &["'nix'"]),
    ];
    for (name, value, code, parts) in cases {
        let mut command = place.command(&["search", "idx", "river"]);
        refused(&finish(command.env(name, value)), name, *code, parts);
    }
    place.file(".private/config.toml", "threads = \"many\"\n");
    refused(&place.run(&["info", "idx"]), "config", 2, &["config.toml", "line 1", "many"]);
    place.file(".private/config.toml", b"# caf\xe9\n");
    refused(&place.run(&["info", "idx"]), "Latin-1", 2, &["config.toml", "UTF-8"]);
}
